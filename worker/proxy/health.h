/* SPDX-License-Identifier: Apache-2.0
 *
 * Whether a server is fit to get requests, as all workers see it: what the operator wants, what
 * requests met (passive), what probes found (active; health_probe.h asks), and how much of its
 * weight it has after a return. Facts are in its record of the scoreboard; these functions read and
 * change it and do nothing else. Rules: docs/adr/0011. Runs in workers.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "worker/scoreboard.h"

struct backend_settings;

enum health_standing {
    HEALTH_UP = 0,
    HEALTH_TRIAL,   /* its rest is over: one request may find out, see health_admit() */
    HEALTH_RESTING, /* used only when no other is left */
    HEALTH_OUT,     /* the operator wants no new requests there */
};

/* is_probed: the backend has a health_path. Inline, because a choice may ask it of 1,000 servers.
 */
static inline enum health_standing
health_standing(const struct board_server *server, bool is_probed, int64_t now_ms)
{
    int64_t down_until_ms = atomic_load_explicit(&server->down_until_ms, memory_order_relaxed);

    if (atomic_load_explicit(&server->wish, memory_order_relaxed) != BOARD_WISH_ENABLED) {
        return HEALTH_OUT;
    }
    if (is_probed &&
        atomic_load_explicit(&server->finding, memory_order_relaxed) == BOARD_FOUND_DOWN) {
        return HEALTH_RESTING;
    }
    if (down_until_ms == 0) {
        return HEALTH_UP;
    }
    return down_until_ms > now_ms ? HEALTH_RESTING : HEALTH_TRIAL;
}

/* Asked once a server was chosen. Of those who find HEALTH_TRIAL at the same time one is admitted;
 * for the others it rests again and they choose again (one that had chosen it before it rested is
 * let through: a second trial does no harm). True for every other standing. */
bool health_admit(struct board_server *server, const struct backend_settings *settings,
                  int64_t now_ms);

/* What a change of standing is, for the log. */
enum health_change { HEALTH_SAME = 0, HEALTH_WENT_DOWN, HEALTH_CAME_UP };

/* A connection to it failed, or ended without an answer. */
enum health_change health_failed(struct board_server *server,
                                 const struct backend_settings *settings, int64_t now_ms);
/* It answered. */
enum health_change health_answered(struct board_server *server,
                                   const struct backend_settings *settings, int status,
                                   int64_t now_ms);

/* The lease of the next probe: 0 when it is not due, else the ticket that health_probed() wants
 * back. Exactly one worker gets it. *ret_next_ms: when to ask again. */
int64_t health_probe_lease(struct board_server *server, const struct backend_settings *settings,
                           int64_t now_ms, int64_t *ret_next_ms);
/* The result of the probe of that lease; one that comes after the next lease changes nothing. */
enum health_change health_probed(struct board_server *server,
                                 const struct backend_settings *settings, int64_t ticket,
                                 bool is_good, int64_t now_ms);

/* The weight of a server that returned at up_since_ms (0: never), in a backend with slow_start. */
uint32_t health_weight_started(uint32_t weight, int64_t up_since_ms, int64_t slow_start_ms,
                               int64_t now_ms);

/* Its weight for the choice. All weights of a backend are multiplied by the same number, so that a
 * part of 1 can be told. */
static inline uint32_t
health_weight(const struct board_server *server, int64_t slow_start_ms, int64_t now_ms)
{
    uint32_t shown = atomic_load_explicit(&server->weight, memory_order_relaxed);
    uint32_t weight = shown > 0 ? shown : 1;

    if (slow_start_ms == 0) {
        return weight; /* and the line of the rest of its health is not read */
    }
    return health_weight_started(
        weight, atomic_load_explicit(&server->health.up_since_ms, memory_order_relaxed),
        slow_start_ms, now_ms);
}

/* The most that health_weight() says where no server's weight is more than weight_max. */
uint32_t health_weight_max(uint32_t weight_max, int64_t slow_start_ms);
