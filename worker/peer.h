/* SPDX-License-Identifier: Apache-2.0
 *
 * The address of a client, compact: a connection keeps it for its whole life.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum peer_family { PEER_UNIX = 0, PEER_IPV4, PEER_IPV6 };

struct peer {
    uint8_t family; /* enum peer_family */
    uint16_t port;  /* host byte order; 0 for PEER_UNIX */
    uint8_t address[16];
};

/* "2001:db8::1" or "unix:" with its NUL; IPv4-mapped IPv6 addresses are shown as IPv4. */
#define PEER_TEXT_MAX 46

void peer_from_sockaddr(struct peer *ret_peer, const struct sockaddr *sa, socklen_t length);
/* Address without the port; returns the length. */
size_t peer_format(const struct peer *peer, char out[PEER_TEXT_MAX]);
