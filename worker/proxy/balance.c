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
#include "worker/proxy/health.h"

/* Draws of random2 until it looks at all servers. */
#define DRAWS_MAX 16

/* Ranks of servers: the highest that is there is chosen from, busy or not. */
enum rank { RANK_NONE = 0, RANK_RESTING, RANK_BACKUP, RANK_FIRST };

struct candidate {
    uint32_t index; /* into input->records */
    uint32_t in_flight;
    uint32_t weight;
    uint64_t identity;
};

struct candidates {
    uint32_t count;
    bool any_ready;
    bool is_uniform;
    struct candidate item[BOARD_SERVERS_MAX]; /* in the order of the scan */
};

void
balance_state_init(struct balance_state *state, uint32_t random)
{
    *state = (struct balance_state){.start = random, .random = random};
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

/* ---- looking at servers --------------------------------------------------------------------- */

static void
note_again(struct balance_state *state, int64_t when_ms)
{
    if (state->again_ms == 0 || when_ms < state->again_ms) {
        state->again_ms = when_ms;
    }
}

/* RANK_NONE: not READY, or taken out. *ret_is_free: it may be given a request now. */
static enum rank
look_at(struct balance_state *state, const struct balance_input *input, uint32_t index,
        struct candidate *ret_candidate, bool *ret_is_free)
{
    const struct board_server *server = &input->board->servers[input->records[index]];
    enum rank rank = RANK_FIRST;

    if (is_tried(input, index) ||
        atomic_load_explicit(&server->state, memory_order_seq_cst) != BOARD_READY) {
        return RANK_NONE;
    }
    enum health_standing standing = health_standing(server, input->is_probed, input->now_ms);
    if (standing == HEALTH_OUT) {
        return RANK_NONE;
    }
    int64_t down_until_ms = atomic_load_explicit(&server->down_until_ms, memory_order_relaxed);
    int64_t full_until_ms = atomic_load_explicit(&server->full_until_ms, memory_order_relaxed);
    uint32_t slots = atomic_load_explicit(&server->slots, memory_order_relaxed);
    *ret_candidate = (struct candidate){
        .index = index,
        .in_flight = atomic_load_explicit(&server->in_flight, memory_order_seq_cst),
        .weight = health_weight(server, input->slow_start_ms, input->now_ms),
        .identity = atomic_load_explicit(&server->identity, memory_order_relaxed)};
    if (atomic_load_explicit(&server->is_backup, memory_order_relaxed) != 0) {
        rank = RANK_BACKUP;
    }
    if (standing == HEALTH_RESTING) {
        rank = RANK_RESTING;
    }
    if (down_until_ms > input->now_ms) {
        note_again(state, down_until_ms);
    }
    *ret_is_free = slots == 0 || ret_candidate->in_flight < slots;
    if (full_until_ms > input->now_ms) {
        note_again(state, full_until_ms);
        *ret_is_free = false;
    }
    return rank;
}

/* Orders by in_flight / weight without dividing; the products of two uint32_t fit. */
static bool
is_less_busy(const struct candidate *a, const struct candidate *b)
{
    return (uint64_t)a->in_flight * b->weight < (uint64_t)b->in_flight * a->weight;
}

/* Copies those of the highest rank that are free; for least_busy, of these the least busy ones.
 * Stops at the first that cannot be beaten. */
static void
gather(struct balance_state *state, const struct balance_input *input, struct candidates *ret_set)
{
    enum rank highest = RANK_NONE;
    uint32_t first = input->count > 0 ? state->start % input->count : 0;

    state->again_ms = 0;
    ret_set->count = 0;
    ret_set->is_uniform = true;
    for (uint32_t n = 0; n < input->count; n++) {
        uint32_t index = first + n < input->count ? first + n : first + n - input->count;
        struct candidate candidate;
        bool is_free;
        enum rank rank = look_at(state, input, index, &candidate, &is_free);
        if (rank == RANK_NONE || rank < highest) {
            continue;
        }
        if (rank > highest) {
            highest = rank;
            ret_set->count = 0;
            ret_set->is_uniform = true;
        }
        if (!is_free) {
            continue;
        }
        if (input->method == BALANCE_LEAST_BUSY && ret_set->count > 0) {
            if (is_less_busy(&candidate, &ret_set->item[0])) {
                ret_set->count = 0;
                ret_set->is_uniform = true;
            } else if (input->is_uniform || is_less_busy(&ret_set->item[0], &candidate)) {
                continue;
            }
        }
        ret_set->item[ret_set->count++] = candidate;
        if (input->is_uniform && rank == RANK_FIRST &&
            (input->method == BALANCE_ROUND_ROBIN ||
             (input->method == BALANCE_LEAST_BUSY && candidate.in_flight == 0))) {
            ret_set->item[0] = candidate;
            ret_set->count = 1;
            ret_set->is_uniform = true;
            break;
        }
        if (candidate.weight != ret_set->item[0].weight) {
            ret_set->is_uniform = false;
        }
    }
    ret_set->any_ready = highest != RANK_NONE;
}

/* ---- going round ---------------------------------------------------------------------------- */

static uint64_t
draw(struct balance_state *state)
{
    state->random += UINT64_C(0x9e3779b97f4a7c15);
    return hash_mix(state->random, UINT64_C(0xd6e8feb86659fd93));
}

/* What new candidates have earned is random as well: else all workers would begin with the heavy
 * ones, at the start and after every reload. */
static void
state_reserve(struct balance_state *state, uint32_t count, const struct candidates *set)
{
    uint64_t total = 0;

    if (state->capacity >= count) {
        return;
    }
    for (uint32_t i = 0; i < set->count; i++) {
        total += set->item[i].weight;
    }
    state->current = xrealloc(state->current, count * sizeof(*state->current));
    for (uint32_t i = state->capacity; i < count; i++) {
        state->current[i] = state->random == 0 ? 0 : -(int64_t)(draw(state) % total);
    }
    state->capacity = count;
}

/* Smooth weighted round robin, as nginx does it: each candidate earns its weight, the richest is
 * taken and pays what all earned. So weights 5, 1, 1 give a a b a c a a, not a a a a a b c, and
 * what candidates have always adds up to zero, whoever takes part. */
static const struct candidate *
pick_by_credit(struct balance_state *state, const struct candidates *set)
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

/* With equal weights a turn is the next one in the order of the scan. */
static const struct candidate *
pick_in_turn(struct balance_state *state, const struct balance_input *input,
             const struct candidates *set)
{
    if (!set->is_uniform) {
        state_reserve(state, input->count, set);
        return pick_by_credit(state, set);
    }
    state->start = set->item[0].index + 1;
    return &set->item[0];
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

/* Rendezvous hashing: each key ranks the servers by a hash of both. With weights the rank is
 * weight / -log(hash), which gives shares in proportion to the weights and still moves no key
 * between two servers that did not change; with equal weights the hash itself ranks alike. The
 * server is known by what it is (its address, or which instance it is), for records are reused. */
static const struct candidate *
pick_first_of_key(const struct balance_input *input, const struct candidates *set)
{
    const struct candidate *best = NULL;
    uint64_t best_cost = 0;

    for (uint32_t i = 0; i < set->count; i++) {
        const struct candidate *c = &set->item[i];
        uint64_t hash = hash_mix(hash_mix(c->identity, input->hash), c->identity);
        uint64_t cost = ~hash;
        if (!set->is_uniform) {
            /* -log2(x) is at least (1 - x) / ln 2: by that most lose without a logarithm. */
            cost = (~hash >> 32) * 1477 >> 10; /* 1.4424 is below 1 / ln 2 */
            if (best == NULL ||
                (unsigned __int128)cost * best->weight < (unsigned __int128)best_cost * c->weight) {
                cost = minus_log2(hash | 1);
            }
        }
        /* cost / weight, lowest wins */
        if (best == NULL ||
            (unsigned __int128)cost * best->weight < (unsigned __int128)best_cost * c->weight) {
            best = c;
            best_cost = cost;
        }
    }
    return best;
}

/* Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, 2016): who has more than
 * its share of the average times the bound passes its keys to the next in their order. */
static const struct candidate *
pick_by_hash(const struct balance_input *input, struct candidates *set)
{
    uint64_t total = 1;
    uint64_t weights = 0;
    const struct candidate *best = pick_first_of_key(input, set);

    if (input->hash_bound == 0 || best->in_flight < BALANCE_BOUND_MIN) {
        return best;
    }
    for (uint32_t i = 0; i < set->count; i++) {
        total += set->item[i].in_flight;
        weights += set->item[i].weight;
    }
    while (best->in_flight >= BALANCE_BOUND_MIN && set->count > 1 &&
           (unsigned __int128)best->in_flight * 100 * weights >=
               (unsigned __int128)total * input->hash_bound * best->weight) {
        set->item[best - set->item] = set->item[--set->count];
        best = pick_first_of_key(input, set);
    }
    return best;
}

/* ---- random2 -------------------------------------------------------------------------------- */

/* One that is free and of the first rank, in proportion to the weights; false: no luck. */
static bool
draw_server(struct balance_state *state, const struct balance_input *input,
            struct candidate *ret_candidate)
{
    uint32_t weight_max = health_weight_max(input->weight_max, input->slow_start_ms);

    for (int i = 0; i < DRAWS_MAX; i++) {
        uint64_t random = draw(state);
        uint32_t index = (uint32_t)((random >> 32) * input->count >> 32);
        bool is_free;
        if (look_at(state, input, index, ret_candidate, &is_free) == RANK_FIRST && is_free &&
            (uint32_t)random % weight_max < ret_candidate->weight) {
            return true;
        }
    }
    return false;
}

static const struct candidate *
pick_of_two(struct balance_state *state, struct candidates *set)
{
    uint32_t one = (uint32_t)((draw(state) >> 32) * set->count >> 32);
    uint32_t two = (uint32_t)((draw(state) >> 32) * set->count >> 32);

    return &set->item[is_less_busy(&set->item[two], &set->item[one]) ? two : one];
}

/* Without looking at all of them. The power of two choices needs two different ones; a few draws
 * of the same are taken as they are. */
static bool
choose_random2(struct balance_state *state, const struct balance_input *input, uint32_t *ret_index)
{
    struct candidate one;
    struct candidate two;

    state->again_ms = 0;
    if (input->count == 0 || !draw_server(state, input, &one)) {
        return false;
    }
    bool is_other = false;
    for (int i = 0; i < DRAWS_MAX && !is_other && input->count > 1; i++) {
        if (!draw_server(state, input, &two)) {
            break;
        }
        is_other = two.index != one.index;
    }
    *ret_index = is_other && is_less_busy(&two, &one) ? two.index : one.index;
    return true;
}

/* ---- the choice ----------------------------------------------------------------------------- */

enum balance_result
balance_choose(struct balance_state *state, const struct balance_input *input, uint32_t *ret_index)
{
    struct candidates set;
    const struct candidate *chosen = NULL;

    CHECK(input->count <= BOARD_SERVERS_MAX);
    if (input->method == BALANCE_RANDOM2 && choose_random2(state, input, ret_index)) {
        return BALANCE_CHOSEN;
    }
    gather(state, input, &set);
    if (!set.any_ready) {
        return BALANCE_NONE;
    }
    if (set.count == 0) {
        return BALANCE_ALL_BUSY;
    }
    switch (input->method) {
    case BALANCE_LEAST_BUSY:
        /* Servers that are equally busy, and at low load that is all of them, take turns. */
        chosen = pick_in_turn(state, input, &set);
        break;
    case BALANCE_ROUND_ROBIN:
        chosen = pick_in_turn(state, input, &set);
        break;
    case BALANCE_HASH:
        chosen = pick_by_hash(input, &set);
        break;
    case BALANCE_RANDOM2:
        chosen = pick_of_two(state, &set);
        break;
    case BALANCE_COUNT:
        break;
    }
    CHECK(chosen != NULL);
    *ret_index = chosen->index;
    return BALANCE_CHOSEN;
}
