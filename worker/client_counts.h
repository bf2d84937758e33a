/* SPDX-License-Identifier: Apache-2.0
 *
 * How many connections each client address has open in this worker, for the setting
 * connections_per_client. A table with open addressing; its size follows what is open, so that it
 * costs nothing while the setting is off.
 */
#pragma once

#include <stdint.h>

#include "worker/peer.h"

struct client_count {
    uint32_t connections; /* 0: a free place */
    uint8_t family;
    uint8_t address[16]; /* of IPv6 the network of 64 bits, the rest is 0 */
};

struct client_counts {
    struct client_count *place; /* owned; capacity of them, a power of two, or NULL */
    uint32_t capacity;
    uint32_t used;
    uint64_t seed; /* clients choose their addresses, not where they fall */
};

void client_counts_init(struct client_counts *counts, uint64_t seed);
void client_counts_release(struct client_counts *counts);
/* Counts one connection more of the client. 0, or, with nothing counted: -EDQUOT when it has limit
 * already, -ENOMEM. */
int client_counts_add(struct client_counts *counts, const struct peer *peer, uint32_t limit);
/* For each client_counts_add() that returned 0. */
void client_counts_remove(struct client_counts *counts, const struct peer *peer);
