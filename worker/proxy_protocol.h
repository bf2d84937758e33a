/* SPDX-License-Identifier: Apache-2.0
 *
 * The PROXY protocol, versions 1 and 2 (HAProxy, doc/proxy-protocol.txt): the header before the
 * first byte of a connection by which a proxy says who its client is. Pure: bytes in, struct out,
 * and back. Strict: what is not exactly such a header is refused at its first wrong byte.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "config/value.h"
#include "worker/http/head.h"
#include "worker/peer.h"

/* Longest header that is taken. Version 1 has at most 107 bytes (section 2.1); version 2 could
 * have 64 KiB of extensions, and real ones have some hundred. */
#define PROXY_HEADER_MAX 4096
/* Longest header that is written. */
#define PROXY_HEADER_WRITE_MAX 108

struct proxy_header {
    size_t length;      /* of the header */
    bool tells_client;  /* false: the proxy itself speaks (LOCAL), or does not know */
    struct peer client; /* PEER_UNIX too */
    const char *reason; /* PARSE_BAD: why, a constant */
};

/* Looks at the bytes that are there, the whole header from its first one at every call. PARSE_OK:
 * the connection's own bytes begin at bytes + ret_header->length. */
enum parse_result proxy_header_parse(const char *bytes, size_t length,
                                     struct proxy_header *ret_header);

/* Writes a header of version 1 or 2 that tells a server of client and of the address that the
 * client connected to; returns its length. Without addresses to tell (a unix socket) it says so. */
size_t proxy_header_write(enum proxy_version version, const struct peer *client,
                          const struct peer *local, char out[PROXY_HEADER_WRITE_MAX]);
/* The same for a connection of narwhal's own, such as a health check. */
size_t proxy_header_write_local(enum proxy_version version, char out[PROXY_HEADER_WRITE_MAX]);
