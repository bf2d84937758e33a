/* SPDX-License-Identifier: Apache-2.0
 *
 * Connections per client address: linear probing, removal by moving back what stands behind. Runs
 * in workers.
 *
 * Invariant: at most half of the places are used, so that a search ends, and soon.
 */
#include "worker/client_counts.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/check.h"
#include "config/base/hash.h"

#define CAPACITY_MIN 64u

/* One who has an IPv6 address has a network of them (RFC 6177): 64 bits name the client. */
static struct client_count
key_of(const struct peer *peer)
{
    struct client_count key = {.family = peer->family};

    memcpy(key.address, peer->address, peer->family == PEER_IPV6 ? 8 : 4);
    return key;
}

static bool
is_of(const struct client_count *place, const struct client_count *key)
{
    return place->family == key->family &&
           memcmp(place->address, key->address, sizeof(key->address)) == 0;
}

static uint32_t
home_of(const struct client_counts *counts, const struct client_count *key)
{
    uint64_t part;

    memcpy(&part, key->address, sizeof(part));
    return (uint32_t)hash_mix(counts->seed ^ key->family, part) & (counts->capacity - 1);
}

/* The place of the key, or the free one where it belongs. */
static uint32_t
find(const struct client_counts *counts, const struct client_count *key)
{
    uint32_t at = home_of(counts, key);

    while (counts->place[at].connections > 0 && !is_of(&counts->place[at], key)) {
        at = (at + 1) & (counts->capacity - 1);
    }
    return at;
}

static bool
resize(struct client_counts *counts, uint32_t capacity)
{
    struct client_count *place = calloc(capacity, sizeof(*place));
    struct client_counts old = *counts;

    if (place == NULL) {
        return false;
    }
    counts->place = place;
    counts->capacity = capacity;
    for (uint32_t i = 0; i < old.capacity; i++) {
        if (old.place[i].connections > 0) {
            counts->place[find(counts, &old.place[i])] = old.place[i];
        }
    }
    free(old.place);
    return true;
}

void
client_counts_init(struct client_counts *counts, uint64_t seed)
{
    *counts = (struct client_counts){.seed = seed};
}

void
client_counts_release(struct client_counts *counts)
{
    free(counts->place);
    *counts = (struct client_counts){.seed = counts->seed};
}

int
client_counts_add(struct client_counts *counts, const struct peer *peer, uint32_t limit)
{
    struct client_count key = key_of(peer);

    if ((counts->used + 1) * 2 > counts->capacity &&
        !resize(counts, counts->capacity > 0 ? counts->capacity * 2 : CAPACITY_MIN)) {
        return -ENOMEM;
    }
    struct client_count *place = &counts->place[find(counts, &key)];
    if (place->connections >= limit) {
        return -EDQUOT;
    }
    if (place->connections == 0) {
        *place = key;
        counts->used++;
    }
    place->connections++;
    return 0;
}

/* Fills a place that became free with what was pushed beyond it (Knuth, 6.4, algorithm R). */
static void
close_gap(struct client_counts *counts, uint32_t gap)
{
    uint32_t mask = counts->capacity - 1;

    for (uint32_t at = (gap + 1) & mask; counts->place[at].connections > 0; at = (at + 1) & mask) {
        uint32_t home = home_of(counts, &counts->place[at]);
        /* It may move to the gap unless its home lies between the gap and its place. */
        if (((at - home) & mask) >= ((at - gap) & mask)) {
            counts->place[gap] = counts->place[at];
            counts->place[at].connections = 0;
            gap = at;
        }
    }
}

void
client_counts_remove(struct client_counts *counts, const struct peer *peer)
{
    struct client_count key = key_of(peer);

    CHECK(counts->used > 0);
    uint32_t at = find(counts, &key);
    CHECK(counts->place[at].connections > 0);
    if (--counts->place[at].connections > 0) {
        return;
    }
    close_gap(counts, at);
    if (--counts->used == 0) {
        client_counts_release(counts);
    }
}
