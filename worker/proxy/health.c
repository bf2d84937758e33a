/* SPDX-License-Identifier: Apache-2.0
 *
 * Rules of health, over atomic fields that all workers write. Every change of standing has one
 * winner, by compare-and-swap, so that it is made and logged once. Runs in workers.
 */
#include "worker/proxy/health.h"

#include <stddef.h>

#include "config/config.h"

/* slow_start: parts of a weight, and what a server begins with. */
#define WEIGHT_PARTS 100
#define WEIGHT_PARTS_FIRST 10

static enum board_finding
finding_of(const struct board_server *server)
{
    return (enum board_finding)atomic_load_explicit(&server->finding, memory_order_relaxed);
}

bool
health_admit(struct board_server *server, const struct backend_settings *settings, int64_t now_ms)
{
    int64_t seen = atomic_load_explicit(&server->down_until_ms, memory_order_relaxed);

    if (seen == 0 || seen > now_ms) {
        return true; /* up, or the best of those that rest */
    }
    return atomic_compare_exchange_strong_explicit(&server->down_until_ms, &seen,
                                                   now_ms + settings->fail_timeout_ms,
                                                   memory_order_relaxed, memory_order_relaxed);
}

static enum health_change
rest_begin(struct board_server *server, const struct backend_settings *settings, int64_t now_ms)
{
    int64_t seen = 0;

    /* One that rests already goes on as it does: a trial moved the end of the rest itself. */
    return atomic_compare_exchange_strong_explicit(&server->down_until_ms, &seen,
                                                   now_ms + settings->fail_timeout_ms,
                                                   memory_order_relaxed, memory_order_relaxed)
               ? HEALTH_WENT_DOWN
               : HEALTH_SAME;
}

static enum health_change
rest_end(struct board_server *server, int64_t now_ms)
{
    if (atomic_load_explicit(&server->down_until_ms, memory_order_relaxed) == 0 ||
        atomic_exchange_explicit(&server->down_until_ms, 0, memory_order_relaxed) == 0) {
        return HEALTH_SAME;
    }
    atomic_store_explicit(&server->health.up_since_ms, now_ms, memory_order_relaxed);
    return HEALTH_CAME_UP;
}

/* Most servers are well most of the time: their line is read, not written. */
static void
clear(_Atomic uint32_t *count)
{
    if (atomic_load_explicit(count, memory_order_relaxed) != 0) {
        atomic_store_explicit(count, 0, memory_order_relaxed);
    }
}

static uint32_t
count_up(_Atomic uint32_t *count)
{
    uint32_t now = atomic_load_explicit(count, memory_order_relaxed);

    do {
        if (now == UINT32_MAX) {
            return now;
        }
    } while (!atomic_compare_exchange_weak_explicit(count, &now, now + 1, memory_order_relaxed,
                                                    memory_order_relaxed));
    return now + 1;
}

enum health_change
health_failed(struct board_server *server, const struct backend_settings *settings, int64_t now_ms)
{
    uint32_t failures = count_up(&server->health.failures);

    return settings->max_fails > 0 && failures >= settings->max_fails
               ? rest_begin(server, settings, now_ms)
               : HEALTH_SAME;
}

enum health_change
health_answered(struct board_server *server, const struct backend_settings *settings, int status,
                int64_t now_ms)
{
    clear(&server->health.failures);
    if (settings->max_errors == 0 || status < 500) {
        clear(&server->health.errors);
        return rest_end(server, now_ms);
    }
    return count_up(&server->health.errors) >= settings->max_errors
               ? rest_begin(server, settings, now_ms)
               : rest_end(server, now_ms);
}

/* ---- probes ---------------------------------------------------------------------------------- */

int64_t
health_probe_lease(struct board_server *server, const struct backend_settings *settings,
                   int64_t now_ms, int64_t *ret_next_ms)
{
    int64_t interval_ms = settings->health_interval_ms;
    int64_t due_ms = atomic_load_explicit(&server->health.probe_due_ms, memory_order_relaxed);
    int64_t ticket = now_ms + interval_ms;

    /* A lease that lies further ahead than one interval is of settings before. */
    if (due_ms > now_ms && due_ms <= ticket) {
        *ret_next_ms = due_ms;
        return 0;
    }
    *ret_next_ms = ticket;
    return atomic_compare_exchange_strong_explicit(&server->health.probe_due_ms, &due_ms, ticket,
                                                   memory_order_relaxed, memory_order_relaxed)
               ? ticket
               : 0;
}

static enum health_change
finding_change(struct board_server *server, enum board_finding finding, int64_t now_ms)
{
    enum board_finding before = (enum board_finding)atomic_exchange_explicit(
        &server->finding, finding, memory_order_relaxed);

    atomic_store_explicit(&server->health.against, 0, memory_order_relaxed);
    if (finding == BOARD_FOUND_DOWN) {
        return HEALTH_WENT_DOWN;
    }
    if (before == BOARD_FOUND_UNKNOWN) {
        return HEALTH_SAME; /* it was used until now */
    }
    (void)rest_end(server, now_ms);
    clear(&server->health.failures);
    atomic_store_explicit(&server->health.up_since_ms, now_ms, memory_order_relaxed);
    return HEALTH_CAME_UP;
}

enum health_change
health_probed(struct board_server *server, const struct backend_settings *settings, int64_t ticket,
              bool is_good, int64_t now_ms)
{
    enum board_finding finding = finding_of(server);
    enum board_finding found = is_good ? BOARD_FOUND_UP : BOARD_FOUND_DOWN;

    if (atomic_load_explicit(&server->health.probe_due_ms, memory_order_relaxed) != ticket) {
        return HEALTH_SAME;
    }
    if (finding == found) {
        clear(&server->health.against);
        return HEALTH_SAME;
    }
    uint32_t wanted =
        (uint32_t)(found == BOARD_FOUND_UP ? settings->health_rise : settings->health_fall);
    if (finding == BOARD_FOUND_UNKNOWN || count_up(&server->health.against) >= wanted) {
        return finding_change(server, found, now_ms);
    }
    return HEALTH_SAME;
}

/* ---- slow start ------------------------------------------------------------------------------ */

uint32_t
health_weight_started(uint32_t weight, int64_t up_since_ms, int64_t slow_start_ms, int64_t now_ms)
{
    int64_t up_ms = now_ms - up_since_ms;
    int64_t parts = WEIGHT_PARTS;

    if (up_since_ms != 0 && up_ms < slow_start_ms) {
        parts = up_ms > 0 ? up_ms * WEIGHT_PARTS / slow_start_ms : 0;
        parts = parts > WEIGHT_PARTS_FIRST ? parts : WEIGHT_PARTS_FIRST;
    }
    return weight * (uint32_t)parts;
}

uint32_t
health_weight_max(uint32_t weight_max, int64_t slow_start_ms)
{
    return (weight_max > 0 ? weight_max : 1) * (slow_start_ms == 0 ? 1 : WEIGHT_PARTS);
}
