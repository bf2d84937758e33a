/* SPDX-License-Identifier: Apache-2.0
 *
 * Choosing a server. Runs in workers.
 *
 * A choice is made in two steps: gather() copies what matters of each server that may be chosen,
 * once, so that other workers changing the numbers meanwhile cannot make it contradict itself; then
 * the method picks from the copy. That the numbers may be old when the choice is used is the
 * caller's to see: board_claim() says so.
 */
#include "worker/proxy/balance.h"

#include <stdlib.h>
#include <string.h>

#include "config/base/check.h"
#include "config/base/hash.h"

struct candidate {
    uint32_t index; /* into input->records */
    uint32_t in_flight;
    uint32_t weight;
};

struct candidates {
    uint32_t count;
    bool any_ready;
    struct candidate item[BOARD_SERVERS_MAX]; /* in the order of the scan */
};

void
balance_state_init(struct balance_state *state, uint32_t random)
{
    *state = (struct balance_state){.start = random};
}

void
balance_state_release(struct balance_state *state)
{
    free(state->current);
    *state = (struct balance_state){0};
}

static bool
is_tried(const struct balance_input *input, uint32_t index)
{
    return (input->tried[index / 64] >> (index % 64) & 1) != 0;
}

/* Resting servers are kept only as long as no other was found. One that is busy but awake is worth
 * waiting for, so it keeps resting ones out as well. */
static void
gather(const struct balance_state *state, const struct balance_input *input,
       struct candidates *ret_set)
{
    bool any_awake = false;
    uint32_t first = input->count > 0 ? state->start % input->count : 0;

    ret_set->count = 0;
    ret_set->any_ready = false;
    for (uint32_t n = 0; n < input->count; n++) {
        uint32_t index = first + n < input->count ? first + n : first + n - input->count;
        const struct board_server *server = &input->board->servers[input->records[index]];
        if (is_tried(input, index) ||
            atomic_load_explicit(&server->state, memory_order_acquire) != BOARD_READY) {
            continue;
        }
        ret_set->any_ready = true;
        if (atomic_load_explicit(&server->down_until_ms, memory_order_relaxed) > input->now_ms) {
            if (any_awake) {
                continue;
            }
        } else if (!any_awake) {
            any_awake = true;
            ret_set->count = 0;
        }
        uint32_t in_flight = atomic_load_explicit(&server->in_flight, memory_order_relaxed);
        if (input->slots > 0 && in_flight >= input->slots) {
            continue;
        }
        ret_set->item[ret_set->count++] =
            (struct candidate){.index = index,
                               .in_flight = in_flight,
                               .weight = server->weight > 0 ? server->weight : 1};
    }
}

/* ---- going round ---------------------------------------------------------------------------- */

static void
state_reserve(struct balance_state *state, uint32_t count)
{
    if (state->capacity < count) {
        state->current = xrealloc(state->current, count * sizeof(*state->current));
        memset(state->current + state->capacity, 0,
               (count - state->capacity) * sizeof(*state->current));
        state->capacity = count;
    }
}

/* Smooth weighted round robin, as nginx does it: each candidate earns its weight, the richest is
 * taken and pays what all earned. So weights 5, 1, 1 give a a b a c a a, not a a a a a b c, and
 * what candidates have always adds up to zero, whoever takes part. */
static const struct candidate *
pick_in_turn(struct balance_state *state, const struct candidates *set)
{
    const struct candidate *best = NULL;
    int64_t total = 0;

    for (uint32_t i = 0; i < set->count; i++) {
        const struct candidate *c = &set->item[i];
        state->current[c->index] += c->weight;
        total += c->weight;
        if (best == NULL || state->current[c->index] > state->current[best->index]) {
            best = c;
        }
    }
    state->current[best->index] -= total;
    return best;
}

/* ---- least busy ----------------------------------------------------------------------------- */

/* Orders by in_flight / weight without dividing; the products of two uint32_t fit. */
static bool
is_less_busy(const struct candidate *a, const struct candidate *b)
{
    return (uint64_t)a->in_flight * b->weight < (uint64_t)b->in_flight * a->weight;
}

/* Servers that are equally busy, and at low load that is all of them, take turns by weight. */
static const struct candidate *
pick_least_busy(struct balance_state *state, struct candidates *set)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < set->count; i++) {
        struct candidate c = set->item[i];
        if (kept > 0 && is_less_busy(&set->item[0], &c)) {
            continue;
        }
        if (kept > 0 && is_less_busy(&c, &set->item[0])) {
            kept = 0;
        }
        set->item[kept++] = c;
    }
    set->count = kept;
    return pick_in_turn(state, set);
}

/* ---- hash ----------------------------------------------------------------------------------- */

/* -log2(h / 2^64) with 32 bits after the point, for h > 0: the whole part from the place of the
 * highest bit, the rest bit by bit by squaring. In integers, so that every worker and every build
 * comes to the same choice. */
static uint64_t
minus_log2(uint64_t h)
{
    unsigned int shift = (unsigned int)__builtin_clzll(h);
    uint64_t mantissa = h << shift; /* in [1, 2), 63 bits after the point */
    uint64_t log = 0;

    for (int bit = 31; bit >= 0; bit--) {
        unsigned __int128 square = (unsigned __int128)mantissa * mantissa; /* 126 bits after it */
        if (square >> 127 != 0) {
            log |= UINT64_C(1) << bit;
            mantissa = (uint64_t)(square >> 64);
        } else {
            mantissa = (uint64_t)(square >> 63);
        }
    }
    return ((uint64_t)(shift + 1) << 32) - log;
}

/* Rendezvous hashing: each client ranks the servers by a hash of both. With weights the rank is
 * weight / -log(hash), which gives shares in proportion to the weights and still moves no client
 * between two servers that did not change. The server is known by its address: records are reused.
 */
static const struct candidate *
pick_by_hash(const struct balance_input *input, const struct candidates *set)
{
    const struct candidate *best = NULL;
    uint64_t best_cost = 0;

    for (uint32_t i = 0; i < set->count; i++) {
        const struct candidate *c = &set->item[i];
        const char *name = input->board->servers[input->records[c->index]].address.text;
        uint64_t server = hash_bytes(0, name, strnlen(name, ADDRESS_TEXT_MAX));
        uint64_t hash = hash_mix(hash_mix(server, input->hash), server);
        uint64_t cost = minus_log2(hash | 1);
        /* cost / weight, lowest wins */
        if (best == NULL ||
            (unsigned __int128)cost * best->weight < (unsigned __int128)best_cost * c->weight) {
            best = c;
            best_cost = cost;
        }
    }
    return best;
}

/* ---- the choice ----------------------------------------------------------------------------- */

enum balance_result
balance_choose(struct balance_state *state, const struct balance_input *input, uint32_t *ret_index)
{
    struct candidates set;
    const struct candidate *chosen = NULL;

    CHECK(input->count <= BOARD_SERVERS_MAX);
    gather(state, input, &set);
    if (!set.any_ready) {
        return BALANCE_NONE;
    }
    if (set.count == 0) {
        return BALANCE_ALL_BUSY;
    }
    state_reserve(state, input->count);
    switch (input->method) {
    case BALANCE_LEAST_BUSY:
        chosen = pick_least_busy(state, &set);
        break;
    case BALANCE_ROUND_ROBIN:
        chosen = pick_in_turn(state, &set);
        break;
    case BALANCE_HASH:
        chosen = pick_by_hash(input, &set);
        break;
    case BALANCE_COUNT:
        break;
    }
    CHECK(chosen != NULL);
    *ret_index = chosen->index;
    return BALANCE_CHOSEN;
}
