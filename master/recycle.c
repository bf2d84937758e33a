/* SPDX-License-Identifier: Apache-2.0
 *
 * Workers count their requests themselves and say when max_requests is reached (CHANNEL_RECYCLE);
 * all else is looked at from outside, once a second. Runs in the master.
 */
#include "master/recycle.h"

#include <string.h>
#include <sys/random.h>

#include "config/base/clock.h"
#include "config/base/log.h"
#include "config/config.h"
#include "master/instance.h"
#include "master/master.h"
#include "master/process_memory.h"
#include "master/worker_child.h"

#define MEBIBYTE (1024.0 * 1024.0)

/* ---- pure ------------------------------------------------------------------------------------ */

int64_t
recycle_pause_ms(uint32_t in_a_row)
{
    int64_t pause_ms = RECYCLE_FIRST_PAUSE_MS;

    for (uint32_t i = 1; i < in_a_row && pause_ms < RECYCLE_LONGEST_PAUSE_MS; i++) {
        pause_ms *= 2;
    }
    return pause_ms < RECYCLE_LONGEST_PAUSE_MS ? pause_ms : RECYCLE_LONGEST_PAUSE_MS;
}

static int64_t
with_jitter(int64_t limit, int64_t jitter, uint32_t random)
{
    /* The bits of a second, odd multiple, so that a long jitter is used up to its end. */
    uint64_t wide = (uint64_t)random * UINT64_C(0x9e3779b97f4a7c15);

    return limit + (int64_t)((wide >> 1) % ((uint64_t)jitter + 1));
}

const char *
recycle_reached(const struct recycle_limits *limits, const struct recycle_life *life,
                int64_t lived_ms, uint64_t requests)
{
    if (limits->max_lifetime_ms > 0 &&
        lived_ms >=
            with_jitter(limits->max_lifetime_ms, limits->max_lifetime_jitter_ms, life->random)) {
        return "max_lifetime";
    }
    if (limits->max_requests > 0 &&
        requests >= (uint64_t)with_jitter(limits->max_requests, limits->max_requests_jitter,
                                          life->random)) {
        return "max_requests";
    }
    return NULL;
}

bool
recycle_memory_over(struct recycle_life *life, int64_t bytes, int64_t limit_bytes)
{
    life->looks++;
    life->looks_over = bytes > limit_bytes ? life->looks_over + 1 : 0;
    return life->looks_over >= RECYCLE_MEMORY_LOOKS;
}

struct recycle_limits
recycle_limits_of_workers(const struct master_settings *settings)
{
    /* Without max_requests: workers watch that themselves. */
    return (struct recycle_limits){.section = "[master]",
                                   .max_lifetime_ms = settings->max_lifetime_ms,
                                   .max_lifetime_jitter_ms = settings->max_lifetime_jitter_ms,
                                   .max_memory_bytes = settings->max_memory_bytes};
}

struct recycle_limits
recycle_limits_of_instances(const struct backend_settings *settings)
{
    return (struct recycle_limits){.section = "[backend]",
                                   .max_requests = settings->max_requests,
                                   .max_requests_jitter = settings->max_requests_jitter,
                                   .max_lifetime_ms = settings->max_lifetime_ms,
                                   .max_lifetime_jitter_ms = settings->max_lifetime_jitter_ms,
                                   .max_memory_bytes = settings->max_memory_bytes};
}

/* ---- who is due ------------------------------------------------------------------------------ */

void
recycle_life_begin(struct recycle_life *life, uint64_t requests)
{
    *life = (struct recycle_life){.requests = requests};
    /* Without any randomness they are merely due together. */
    (void)!getrandom(&life->random, sizeof(life->random), GRND_NONBLOCK);
}

void
recycle_mark(struct master *master, const struct child *child, struct recycle_life *life,
             const char *reason)
{
    if (life->reason != NULL) {
        return;
    }
    life->reason = reason;
    life->order = ++master->recycle.last_order;
    log_info("%s is to be replaced pid=%d reason=%s uptime=%lldms", child->name, (int)child->pid,
             reason, (long long)(clock_mono_ms() - child->started_ms));
    master_changed(master);
}

uint64_t
recycle_due(struct master *master, const struct recycle_life *life,
            const struct recycle_history *history)
{
    if (life->reason == NULL) {
        return 0;
    }
    if (clock_mono_ms() < history->pause_until_ms) {
        master->recycle.waits = true;
        return 0;
    }
    return life->order;
}

void
recycle_succeeded(struct recycle_history *history)
{
    history->failed = 0;
}

void
recycle_failed(struct master *master, const struct child *old, const struct recycle_life *life,
               struct recycle_history *history)
{
    int64_t pause_ms = recycle_pause_ms(++history->failed);

    history->pause_until_ms = clock_mono_ms() + pause_ms;
    log_error("%s goes on pid=%d: its successor did not become READY reason=%s; next_try=%lldms "
              "(the lines above say why)",
              old->name, (int)old->pid, life->reason, (long long)pause_ms);
    master_changed(master);
}

/* ---- looking --------------------------------------------------------------------------------- */

/* A limit below what a fresh process needs must not make the master fork without end. */
static void
pause_useless(const struct recycle_limits *limits, const struct child *child, int64_t bytes,
              struct recycle_history *history)
{
    int64_t pause_ms = recycle_pause_ms(++history->useless);

    history->pause_until_ms = clock_mono_ms() + pause_ms;
    log_warn("%s had too much memory from its start pid=%d pss=%.1fm: %s max_memory=%.1fm is below "
             "what a fresh one needs, so replacing does not help and is done in growing pauses; "
             "raise the limit pause=%lldms",
             child->name, (int)child->pid, (double)bytes / MEBIBYTE, limits->section,
             (double)limits->max_memory_bytes / MEBIBYTE, (long long)pause_ms);
}

static void
look_at_memory(struct master *master, const struct recycle_limits *limits,
               const struct child *child, struct recycle_life *life,
               struct recycle_history *history)
{
    struct process_memory memory =
        process_memory_look(child->pid, child->leads_group, limits->max_memory_bytes);

    if (!memory.exact && !master->recycle.told_inexact) {
        master->recycle.told_inexact = true;
        log_warn("the PSS of a process cannot be read pid=%d (/proc/%d/smaps_rollup; a process of "
                 "another user takes CAP_SYS_PTRACE): max_memory counts its private pages alone",
                 (int)child->pid, (int)child->pid);
    }
    if (!recycle_memory_over(life, memory.bytes, limits->max_memory_bytes)) {
        return;
    }
    if (life->looks_over == life->looks) {
        pause_useless(limits, child, memory.bytes, history);
    } else {
        history->useless = 0;
        log_info("%s has too much memory pid=%d pss=%.1fm max_memory=%.1fm", child->name,
                 (int)child->pid, (double)memory.bytes / MEBIBYTE,
                 (double)limits->max_memory_bytes / MEBIBYTE);
    }
    recycle_mark(master, child, life, "max_memory");
}

static void
look_at(struct master *master, const struct recycle_limits *limits, const struct child *child,
        struct recycle_life *life, struct recycle_history *history, uint64_t requests)
{
    if (child->state != CHILD_READY || life->reason != NULL) {
        return;
    }
    const char *reason = recycle_reached(limits, life, clock_mono_ms() - child->started_ms,
                                         requests - life->requests);
    if (reason != NULL) {
        recycle_mark(master, child, life, reason);
    } else if (limits->max_memory_bytes > 0) {
        look_at_memory(master, limits, child, life, history);
    }
}

static void
look_at_app(struct master *master, const struct app *app)
{
    struct recycle_limits limits = recycle_limits_of_instances(app->settings);

    for (uint32_t i = 0; i < app->wanted; i++) {
        struct instance_slot *slot = app->slots[i];
        if (slot->serving != NULL) {
            uint32_t record = slot->records[slot->serving->half];
            look_at(master, &limits, &slot->serving->child, &slot->serving->recycle, &slot->recycle,
                    atomic_load_explicit(&master->board->servers[record].requests,
                                         memory_order_relaxed));
        }
    }
}

void
recycle_look(struct master *master)
{
    struct recycle_limits limits = recycle_limits_of_workers(&master->config->master);

    if (!lazy_timer_take(&master->recycle.timer, master->loop) || master->phase != MASTER_RUNNING) {
        return;
    }
    for (size_t i = 0; i < BOARD_SLOTS_MAX; i++) {
        struct slot *slot = &master->slots.slots[i];
        if (slot->serving != NULL) {
            look_at(master, &limits, &slot->serving->child, &slot->serving->recycle, &slot->recycle,
                    0);
        }
    }
    LIST_FOR_EACH (node, &master->apps.apps) {
        const struct app *app = container_of(node, struct app, node);
        if (app->settings != NULL) {
            look_at_app(master, app);
        }
    }
    if (master->recycle.waits) {
        master->recycle.waits = false;
        master_changed(master);
    }
}

/* ---- the timer ------------------------------------------------------------------------------- */

static bool
needs_looks(const struct recycle_limits *limits)
{
    return limits->max_lifetime_ms > 0 || limits->max_memory_bytes > 0 || limits->max_requests > 0;
}

static bool
somebody_needs_looks(const struct master *master)
{
    const struct config *config = master->config;
    struct recycle_limits limits = recycle_limits_of_workers(&config->master);

    if (needs_looks(&limits) || master->recycle.waits) {
        return true;
    }
    for (size_t i = 0; i < config->backend_count; i++) {
        limits = recycle_limits_of_instances(&config->backends[i]);
        if (config->backends[i].command != NULL && needs_looks(&limits)) {
            return true;
        }
    }
    return false;
}

void
recycle_init(struct master *master)
{
    memset(&master->recycle, 0, sizeof(master->recycle));
    lazy_timer_init(&master->recycle.timer);
}

void
recycle_stop(struct master *master)
{
    lazy_timer_stop(&master->recycle.timer, master->loop);
}

void
recycle_reconcile(struct master *master)
{
    if (somebody_needs_looks(master)) {
        lazy_timer_start(&master->recycle.timer, master->loop, RECYCLE_LOOK_MS);
    } else {
        recycle_stop(master);
    }
}
