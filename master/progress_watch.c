/* SPDX-License-Identifier: Apache-2.0
 *
 * One timer; each look reads the scoreboard and the queues of the lanes, and asks no worker. A
 * worker that is stopped is seen without a look, because the kernel tells its parent (SIGCHLD).
 * Runs in the master.
 */
#include "master/progress_watch.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "config/base/clock.h"
#include "config/base/fd.h"
#include "config/base/log.h"
#include "config/config.h"
#include "master/lane_plan.h"
#include "master/master.h"
#include "master/progress.h"
#include "master/waiting.h"
#include "master/worker_child.h"

/* Bounds of the time between two looks. The default, half of 250 ms, is eight wake-ups of the
 * master a second; a look at four idle workers takes a few microseconds. */
#define LOOK_EVERY_MIN_MS 25
#define LOOK_EVERY_MAX_MS 1000
/* The master itself did not run for so long (stopped, starved, the machine was suspended): the
 * workers may not have run either. They get one more round. */
#define LATE_MS 1000
/* A worker that stalls again and again is told of this often. */
#define STALL_TOLD_EVERY_MS 10000

static int64_t
interval_ms(const struct master *master)
{
    int64_t stall_ms = master->config->master.stall_timeout_ms;
    int64_t interval = stall_ms > 0 ? stall_ms / 2 : master->config->master.timeout_ms / 4;

    if (interval < LOOK_EVERY_MIN_MS) {
        return LOOK_EVERY_MIN_MS;
    }
    return interval < LOOK_EVERY_MAX_MS ? interval : LOOK_EVERY_MAX_MS;
}

/* ---- evidence -------------------------------------------------------------------------------- */

/* The first word of a file of /proc/PID. */
static void
read_word(pid_t pid, const char *file, char *ret_text, size_t size)
{
    char path[64];

    (void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd != -1 ? fd_read(fd, ret_text, size - 1) : -1;
    fd_close(&fd);
    ret_text[n > 0 ? n : 0] = '\0';
    ret_text[strcspn(ret_text, " \n")] = '\0';
    if (ret_text[0] == '\0') {
        (void)snprintf(ret_text, size, "?");
    }
}

/* What the process does, as far as the kernel tells: the function that it waits in (wchan) and the
 * number of its system call, see syscalls(2); proc(5). Where its own code stands it says itself,
 * when it gets SIGABRT. */
static void
tell_hang(const struct worker_child *worker, int64_t now_ms)
{
    const struct progress *progress = &worker->progress;
    const struct board_worker *cell = &worker->child.master->board->workers[worker->cell];
    char wchan[64];
    char syscall[64];
    char request[BOARD_REQUEST_MAX];
    int64_t began_ms = board_copy_request(cell, request);

    read_word(worker->child.pid, "wchan", wchan, sizeof(wchan));
    if (strcmp(wchan, "0") == 0) {
        (void)snprintf(wchan, sizeof(wchan), "running");
    }
    read_word(worker->child.pid, "syscall", syscall, sizeof(syscall));
    log_error("%s makes no progress and is killed pid=%d generation=%u state=%s for=%lldms "
              "why=\"%s\" wchan=%s syscall=%s last_request=\"%s\" last_request_age=%lldms "
              "([master] timeout=%lldms)",
              worker->child.name, (int)worker->child.pid, worker->generation,
              child_state_name(worker->child.state),
              (long long)(now_ms - progress->stalled_since_ms),
              progress_stall_text(progress->stall), wchan, syscall, request,
              (long long)(began_ms != 0 ? now_ms - began_ms : 0),
              (long long)worker->child.master->config->master.timeout_ms);
}

/* ---- a look ---------------------------------------------------------------------------------- */

/* Which slots have connections waiting. What all workers poll needs no lender. */
static void
look_at_queues(const struct master *master, bool ret_queued[BOARD_SLOTS_MAX])
{
    LIST_FOR_EACH (node, &master->lanes.addresses) {
        const struct listen_address *address = listen_address_from(node);
        for (size_t i = 0; i < address->lane_count; i++) {
            const struct lane *lane = &address->lanes[i];
            uint32_t waiting;
            if (lane->home != LANE_SHARED && lane->owner < BOARD_SLOTS_MAX &&
                !ret_queued[lane->owner] && lane_count_waiting(lane, &waiting)) {
                ret_queued[lane->owner] = waiting > 0;
            }
        }
    }
}

static void
tell_stall(struct worker_child *worker, int64_t now_ms)
{
    worker->stalls++;
    if (worker->stall_told_ms != 0 && now_ms - worker->stall_told_ms < STALL_TOLD_EVERY_MS) {
        return;
    }
    worker->stall_told_ms = now_ms;
    log_warn("%s stalls, siblings serve its lanes pid=%d for=%lldms why=\"%s\" stalls=%u "
             "([master] stall_timeout)",
             worker->child.name, (int)worker->child.pid,
             (long long)(now_ms - worker->progress.stalled_since_ms),
             progress_stall_text(worker->progress.stall), worker->stalls);
}

static void
set_stalled(struct worker_child *worker, bool stalled, int64_t now_ms)
{
    if (worker->stalled == stalled) {
        return;
    }
    worker->stalled = stalled;
    if (stalled) {
        tell_stall(worker, now_ms);
    } else {
        log_debug("%s moves again pid=%d", worker->child.name, (int)worker->child.pid);
    }
    master_changed(worker->child.master);
}

static void
look_at(struct worker_child *worker, bool queued, int64_t now_ms)
{
    const struct master *master = worker->child.master;
    const struct master_settings *settings = &master->config->master;

    if (worker->child.pid == 0 || worker->cell == WORKER_NO_CELL ||
        (worker->child.state != CHILD_READY && worker->child.state != CHILD_DRAINING)) {
        return;
    }
    const struct board_worker *cell = &master->board->workers[worker->cell];
    struct progress_sample sample = {
        .now_ms = now_ms,
        .turn_started_ms = atomic_load_explicit(&cell->turn_started_ms, memory_order_relaxed),
        .accepted = atomic_load_explicit(&cell->counters.accepted, memory_order_relaxed),
        .queued = queued,
        .stopped = worker->child.stopped};
    enum progress_verdict verdict = progress_judge(
        &worker->progress, &sample, settings->stall_timeout_ms, settings->timeout_ms);
    if (verdict == PROGRESS_HUNG) {
        tell_hang(worker, now_ms);
        child_abort(&worker->child, "timeout");
        return;
    }
    set_stalled(worker, verdict == PROGRESS_STALLED && settings->stall_timeout_ms > 0, now_ms);
}

void
progress_watch_look(struct master *master)
{
    bool queued[BOARD_SLOTS_MAX] = {false};
    int64_t now_ms = clock_mono_ms();

    if (now_ms - master->progress_watch.expected_ms > LATE_MS) {
        return; /* the timer is about to say so */
    }
    look_at_queues(master, queued);
    for (uint32_t i = 0; i < BOARD_SLOTS_MAX; i++) {
        struct slot *slot = &master->slots.slots[i];
        if (slot->serving != NULL) {
            look_at(slot->serving, queued[i], now_ms);
        }
        LIST_FOR_EACH (node, &slot->leaving) {
            look_at(container_of(node, struct worker_child, node), false, now_ms);
        }
    }
}

static void
arm(struct master *master)
{
    int64_t interval = interval_ms(master);

    ev_now_update(master->loop);
    master->progress_watch.expected_ms = clock_mono_ms() + interval;
    ev_timer_set(&master->progress_watch.timer, ms_to_seconds(interval), 0.);
    ev_timer_start(master->loop, &master->progress_watch.timer);
}

static void
on_look(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct master *master = ev_userdata(loop);
    int64_t late_ms = clock_mono_ms() - master->progress_watch.expected_ms;

    (void)timer;
    (void)revents;
    if (late_ms > LATE_MS) {
        log_warn("the master was late, workers are not judged this time late=%lldms",
                 (long long)late_ms);
    } else {
        progress_watch_look(master);
    }
    waiting_look(master);
    arm(master);
}

void
progress_watch_start(struct master *master)
{
    ev_timer_init(&master->progress_watch.timer, on_look, 0., 0.);
    arm(master);
}

void
progress_watch_stop(struct master *master)
{
    ev_timer_stop(master->loop, &master->progress_watch.timer);
}
