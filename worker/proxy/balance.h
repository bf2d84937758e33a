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
    int64_t *current;  /* round robin: smooth weights, one per candidate; owned */
    uint32_t capacity; /* of current */
};

void balance_state_init(struct balance_state *state, uint32_t random);
void balance_state_release(struct balance_state *state);

struct balance_input {
    enum balance method;
    const struct scoreboard *board;
    const uint32_t *records; /* candidates, indexes of board->servers */
    uint32_t count;
    const uint64_t *tried; /* bit i: records[i] is left out; (count + 63) / 64 words */
    uint32_t slots;        /* 0: no limit; a server with that many in flight is busy */
    uint64_t hash;         /* of the client, for BALANCE_HASH */
    int64_t now_ms;
};

enum balance_result {
    BALANCE_CHOSEN = 0,
    BALANCE_ALL_BUSY, /* at least one READY and not tried, but all at their slots: wait */
    BALANCE_NONE,     /* none is READY, or all were tried */
};

/* READY servers that are not resting after failures (down_until_ms) come first; when all are
 * resting, they are used all the same, for a guess is better than a refusal. least_busy: lowest
 * (in_flight / weight), an idle one always wins, ties go round from state->start. round_robin:
 * smooth weighted. hash: highest rendezvous hash of (server, client), so that one more or less
 * server moves few clients; goes to the next when it is busy or resting.
 * *ret_index is an index into records. */
enum balance_result balance_choose(struct balance_state *state, const struct balance_input *input,
                                   uint32_t *ret_index);
