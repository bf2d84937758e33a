/* SPDX-License-Identifier: Apache-2.0
 *
 * Networks in CIDR form (RFC 4632), for lists of peers that are trusted. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;

/* In the order of enum peer_family (worker/peer.h). */
enum network_family { NETWORK_UNIX = 0, NETWORK_IPV4, NETWORK_IPV6 };

struct network {
    uint8_t family; /* enum network_family */
    uint8_t bits;   /* length of the prefix; 0 for NETWORK_UNIX */
    uint8_t address[16];
};

struct network_list {
    size_t count;
    struct network *item; /* owned */
};

/* Reads "10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1" or "unix", which is every peer on a unix
 * socket. Returns NULL, or what is wrong; the caller frees it. */
char *network_parse(const char *text, struct network *ret_network);
/* Adds the canonical text. */
void network_print(const struct network *network, struct buf *out);
/* Whether one of the networks holds the address: 4 bytes of NETWORK_IPV4, 16 of NETWORK_IPV6. */
bool network_list_has(const struct network_list *list, enum network_family family,
                      const uint8_t *address);
