/* SPDX-License-Identifier: Apache-2.0
 *
 * Busy is the time that a worker spends in turns of its loop: it counts waiting for a disk as work,
 * which is right, because clients wait then too. Runs in the master.
 */
#include "master/scaling.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "config/base/clock.h"
#include "config/base/log.h"
#include "config/config.h"
#include "master/master.h"
#include "master/worker_child.h"

#define LOOK_LEAST_MS 200
#define LOOK_MOST_MS 1000
#define REASON_TEXT_MAX 48

/* ---- measuring ------------------------------------------------------------------------------- */

/* With the turn that is still open, or a worker in a long one would look idle. */
static int64_t
busy_us_of(const struct board_worker *cell, int64_t now_us)
{
    int64_t busy_us = (int64_t)atomic_load_explicit(&cell->busy_us, memory_order_relaxed);
    int64_t turn_ms = atomic_load_explicit(&cell->turn_started_ms, memory_order_relaxed);

    return turn_ms > 0 && now_us > turn_ms * 1000 ? busy_us + now_us - turn_ms * 1000 : busy_us;
}

static uint32_t
permille(int64_t part, int64_t whole)
{
    if (part <= 0 || whole <= 0) {
        return 0; /* the stamps of a turn and of its end were read apart */
    }
    return part < whole ? (uint32_t)(part * 1000 / whole) : 1000;
}

static void
measure_workers(struct master *master, struct adapt_sample *sample)
{
    struct scaling *scaling = &master->scaling;
    int64_t now_us = clock_mono_us();
    int64_t passed_us = now_us - scaling->looked_us;

    sample->least_permille = 1000;
    for (uint32_t i = 0; i < BOARD_SLOTS_MAX; i++) {
        const struct worker_child *worker = master->slots.slots[i].serving;
        if (worker == NULL || worker->child.state != CHILD_READY || worker->leaving ||
            worker->cell == WORKER_NO_CELL) {
            scaling->last[i].pid = 0;
            continue;
        }
        int64_t busy_us = busy_us_of(&master->board->workers[worker->cell], now_us);
        /* One that is new since then, recycled maybe, is measured over its own life. */
        bool is_new = scaling->last[i].pid != worker->child.pid;
        int64_t lived_us = now_us - worker->child.started_ms * 1000;
        uint32_t busy = permille(busy_us - (is_new ? 0 : scaling->last[i].busy_us),
                                 is_new && lived_us < passed_us ? lived_us : passed_us);
        sample->measured++;
        sample->sum_permille += busy;
        sample->least_permille = busy < sample->least_permille ? busy : sample->least_permille;
        scaling->last[i].pid = worker->child.pid;
        scaling->last[i].busy_us = busy_us;
    }
    scaling->looked_us = now_us;
}

/* Sockets that are not TCP only tell whether somebody waits; all workers poll those, so nobody
 * came: that is many. */
static uint32_t
waiting_at(const struct lane *lane, uint32_t many)
{
    struct pollfd queue = {.fd = lane->fd, .events = POLLIN};
    uint32_t count;

    if (lane_count_waiting(lane, &count)) {
        return count;
    }
    return poll(&queue, 1, 0) == 1 ? many : 0;
}

static uint32_t
measure_queues(const struct master *master, uint32_t workers)
{
    uint32_t waiting = 0;

    LIST_FOR_EACH (node, &master->lanes.addresses) {
        const struct listen_address *address = listen_address_from(node);
        for (size_t i = 0; i < address->lane_count; i++) {
            waiting += waiting_at(&address->lanes[i], workers);
        }
    }
    return waiting;
}

/* ---- deciding -------------------------------------------------------------------------------- */

static struct adapt_limits
limits_of(const struct master_settings *settings)
{
    return (struct adapt_limits){.min = settings->workers_min > 0 ? (uint32_t)settings->workers_min
                                                                  : 1,
                                 .max = (uint32_t)settings->workers_max,
                                 .grow_after_ms = settings->workers_grow_after_ms,
                                 .shrink_after_ms = settings->workers_shrink_after_ms};
}

static void
print_reason(enum adapt_reason reason, const struct adapt_sample *sample,
             char ret_text[REASON_TEXT_MAX])
{
    uint32_t percent =
        sample->measured > 0 ? (sample->sum_permille / sample->measured + 5) / 10 : 0;

    switch (reason) {
    case ADAPT_BUSY:
    case ADAPT_IDLE:
        (void)snprintf(ret_text, REASON_TEXT_MAX, "busy %u %%", percent);
        return;
    case ADAPT_WAITING:
        (void)snprintf(ret_text, REASON_TEXT_MAX, "clients wait: %u, busy %u %%", sample->waiting,
                       percent);
        return;
    case ADAPT_BOUNDS:
    case ADAPT_STAY:
        break;
    }
    (void)snprintf(ret_text, REASON_TEXT_MAX, "workers_min, workers_max");
}

void
scaling_look(struct master *master)
{
    struct scaling *scaling = &master->scaling;
    struct adapt_limits limits = limits_of(&master->config->master);
    struct adapt_sample sample = {.now_ms = clock_mono_ms(), .workers = scaling->workers};
    char reason[REASON_TEXT_MAX];

    if (!lazy_timer_take(&scaling->timer, master->loop)) {
        return;
    }
    measure_workers(master, &sample);
    if (master->phase != MASTER_RUNNING || master->paused || scaling->is_held) {
        return;
    }
    sample.waiting = measure_queues(master, sample.workers);
    struct adapt_verdict verdict = adapt_judge(&scaling->adapt, &limits, &sample);
    if (verdict.reason == ADAPT_STAY) {
        return;
    }
    print_reason(verdict.reason, &sample, reason);
    log_info("workers wanted=%u before=%u reason=\"%s\"", verdict.wanted, scaling->workers, reason);
    scaling->workers = verdict.wanted;
    master_changed(master);
}

/* ---- settings -------------------------------------------------------------------------------- */

void
scaling_init(struct master *master)
{
    memset(&master->scaling, 0, sizeof(master->scaling));
    lazy_timer_init(&master->scaling.timer);
}

void
scaling_stop(struct master *master)
{
    lazy_timer_stop(&master->scaling.timer, master->loop);
}

static int64_t
interval_ms(const struct master_settings *settings)
{
    int64_t shorter = settings->workers_grow_after_ms < settings->workers_shrink_after_ms
                          ? settings->workers_grow_after_ms
                          : settings->workers_shrink_after_ms;
    int64_t interval = shorter / 3;

    if (interval < LOOK_LEAST_MS) {
        return LOOK_LEAST_MS;
    }
    return interval < LOOK_MOST_MS ? interval : LOOK_MOST_MS;
}

/* What the load has brought is within other bounds what the load needs; an operator's number is
 * over. */
static uint32_t
begin_with(const struct scaling *scaling, const struct master_settings *settings,
           uint32_t configured)
{
    struct adapt_limits limits = limits_of(settings);
    bool goes_on =
        scaling->workers > 0 && !scaling->is_held && scaling->seen_workers == settings->workers;

    if (!goes_on) {
        return configured;
    }
    return scaling->workers < limits.min   ? limits.min
           : scaling->workers > limits.max ? limits.max
                                           : scaling->workers;
}

void
scaling_reconcile(struct master *master)
{
    struct scaling *scaling = &master->scaling;
    const struct master_settings *settings = &master->config->master;

    if (settings->workers_max == 0) {
        scaling_stop(master);
        scaling->workers = 0;
        scaling->is_held = false;
        scaling->seen_max = 0;
        return;
    }
    if (settings->workers != scaling->seen_workers || settings->workers_min != scaling->seen_min ||
        settings->workers_max != scaling->seen_max) {
        scaling->workers = begin_with(scaling, settings, master->workers);
        scaling->seen_workers = settings->workers;
        scaling->seen_min = settings->workers_min;
        scaling->seen_max = settings->workers_max;
        scaling->is_held = false;
        scaling->adapt = (struct adapt){.is_hot = false};
        master->workers_more = 0;
    }
    lazy_timer_start(&scaling->timer, master->loop, interval_ms(settings));
}

void
scaling_hold(struct master *master)
{
    if (master->scaling.workers > 0 && !master->scaling.is_held) {
        master->scaling.is_held = true;
        log_info("the number of workers is no longer adapted: it is the operator's until a reload "
                 "brings another workers, workers_min or workers_max");
    }
}
