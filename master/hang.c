/* SPDX-License-Identifier: Apache-2.0
 *
 * A look at the scoreboard once in a while, never more often than once a second. Runs in the
 * master.
 */
#include "master/hang.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "config/base/clock.h"
#include "config/base/fd.h"
#include "config/base/log.h"
#include "config/config.h"
#include "master/master.h"
#include "master/worker_child.h"

#define LOOK_EVERY_MIN_MS 1000
#define LOOK_EVERY_MAX_MS 5000

/* Often enough that a hung worker is found within a quarter more than the timeout. */
static int64_t
interval_ms(const struct master *master)
{
    int64_t interval = master->config->master.timeout_ms / 4;

    if (interval < LOOK_EVERY_MIN_MS) {
        return LOOK_EVERY_MIN_MS;
    }
    return interval < LOOK_EVERY_MAX_MS ? interval : LOOK_EVERY_MAX_MS;
}

/* What the kernel does for the process: the name of the function it waits in, "0" when it runs. */
static void
read_wchan(pid_t pid, char *ret_text, size_t size)
{
    char path[64];

    (void)snprintf(path, sizeof(path), "/proc/%d/wchan", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd != -1 ? fd_read(fd, ret_text, size - 1) : -1;
    fd_close(&fd);
    if (n <= 0) {
        (void)snprintf(ret_text, size, "?");
        return;
    }
    ret_text[n] = '\0';
    if (strcmp(ret_text, "0") == 0) {
        (void)snprintf(ret_text, size, "running");
    }
}

static void
look_at(struct master *master, struct worker_child *worker, int64_t now_ms)
{
    char wchan[64];
    const struct board_worker *cell;
    int64_t since_ms;

    if (worker == NULL || worker->child.pid == 0 || worker->cell == WORKER_NO_CELL ||
        (worker->child.state != CHILD_READY && worker->child.state != CHILD_DRAINING)) {
        return;
    }
    cell = &master->board->workers[worker->cell];
    since_ms = atomic_load_explicit(&cell->turn_started_ms, memory_order_relaxed);
    if (since_ms == 0 || now_ms - since_ms <= master->config->master.timeout_ms) {
        return;
    }
    read_wchan(worker->child.pid, wchan, sizeof(wchan));
    log_error("%s makes no progress and is killed pid=%d generation=%u for=%lldms wchan=%s "
              "([master] timeout=%lldms)",
              worker->child.name, (int)worker->child.pid, worker->generation,
              (long long)(now_ms - since_ms), wchan, (long long)master->config->master.timeout_ms);
    child_abort(&worker->child, "timeout");
}

static void
arm(struct master *master)
{
    int64_t interval = interval_ms(master);

    ev_now_update(master->loop);
    master->hang.expected_ms = clock_mono_ms() + interval;
    ev_timer_set(&master->hang.timer, ms_to_seconds(interval), 0.);
    ev_timer_start(master->loop, &master->hang.timer);
}

static void
on_look(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct master *master = ev_userdata(loop);
    int64_t now_ms = clock_mono_ms();
    int64_t late_ms = now_ms - master->hang.expected_ms;

    (void)timer;
    (void)revents;
    /* The master itself did not run (stopped, starved, the machine was suspended): the workers may
     * not have run either. They get one more round. */
    if (late_ms > LOOK_EVERY_MIN_MS) {
        log_warn("the master was late, workers are not judged this time late=%lldms",
                 (long long)late_ms);
    } else {
        for (uint32_t i = 0; i < BOARD_SLOTS_MAX; i++) {
            struct slot *slot = &master->slots.slots[i];
            look_at(master, slot->serving, now_ms);
            LIST_FOR_EACH (node, &slot->leaving) {
                look_at(master, container_of(node, struct worker_child, node), now_ms);
            }
        }
    }
    arm(master);
}

void
hang_watch_start(struct master *master)
{
    ev_timer_init(&master->hang.timer, on_look, 0., 0.);
    arm(master);
}

void
hang_watch_stop(struct master *master)
{
    ev_timer_stop(master->loop, &master->hang.timer);
}
