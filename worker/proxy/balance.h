/* SPDX-License-Identifier: Apache-2.0
 *
 * Which server of a backend gets the next request. Pure: looks at the records of the scoreboard
 * and at a small state of the worker, changes nothing else. Which servers to leave out (tried
 * before) is the caller's.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "config/value.h"
#include "worker/scoreboard.h"

/* Per worker and backend. */
struct balance_state {
    uint32_t start;    /* where scans begin; random at birth, so that workers do not agree */
    uint64_t random;   /* moves on with every draw; 0 at birth: weighted turns begin at the first */
    int64_t *current;  /* weighted turns: what each candidate has earned; owned */
    uint32_t capacity; /* of current */
    int64_t again_ms;  /* of the last choice: when one that it left out may be chosen; 0: none */
};

void balance_state_init(struct balance_state *state, uint32_t random);
void balance_state_release(struct balance_state *state);

struct balance_input {
    enum balance method;
    const struct scoreboard *board;
    const uint32_t *records; /* candidates, indexes of board->servers */
    uint32_t count;
    const uint64_t *tried; /* bit i: records[i] is left out; (count + 63) / 64 words */
    bool is_uniform;     /* all weights are known to be equal, and slow_start_ms is 0: a choice may
                          * stop early */
    uint32_t weight_max; /* BALANCE_RANDOM2; 0 is 1 */
    uint64_t hash;       /* BALANCE_HASH: of the key */
    uint32_t hash_bound; /* BALANCE_HASH: percent of the average load; 0: no bound */
    int64_t now_ms;
    int64_t slow_start_ms; /* of the backend's settings */
    bool is_probed;        /* the backend has a health_path */
};

/* BALANCE_HASH: a server with fewer requests than this is never too busy for its keys. */
#define BALANCE_BOUND_MIN 8u

enum balance_result {
    BALANCE_CHOSEN = 0,
    BALANCE_ALL_BUSY, /* at least one READY and not tried, but all at their slots: wait */
    BALANCE_NONE,     /* none is READY, or all were tried */
};

/* READY servers that are not resting (health.h) come first, then backup servers that are not; when
 * all are resting, they are used all the same, for a guess is better than a refusal. One that is
 * busy keeps those of lower rank out: it is worth waiting for. One that the operator took out is
 * never chosen.
 *
 * least_busy: lowest (in_flight / weight), an idle one always wins, equals take turns by weight.
 * round_robin: smooth weighted.
 * hash: highest rendezvous hash of (server, key), so that one more or less server moves few keys;
 * the next in its order when that one is busy, resting, or above hash_bound.
 * random2: two drawn by weight, the less busy of them.
 *
 * *ret_index is an index into records. */
enum balance_result balance_choose(struct balance_state *state, const struct balance_input *input,
                                   uint32_t *ret_index);
