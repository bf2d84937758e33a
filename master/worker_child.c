/* SPDX-License-Identifier: Apache-2.0
 *
 * Forking a worker and talking to it. Invariants: cell and channel belong to one life and are
 * given back when the process is reaped; a message is queued only behind messages that are queued.
 * Runs in the master, but for become_worker(), which is the child.
 */
#include "master/worker_child.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/base/clock.h"
#include "config/base/fd.h"
#include "config/base/log.h"
#include "config/config.h"
#include "master/after_fork.h"
#include "master/deaths.h"
#include "master/fd_store.h"
#include "master/master.h"
#include "master/proctitle.h"
#include "master/slots.h"
#include "master/waiting.h"
#include "worker/channel.h"
#include "worker/heritage.h"
#include "worker/worker.h"

/* More than a worker can be sent in one go: a message for each lane of 16 addresses. */
#define QUEUE_MAX 4096
/* How long a worker that serves nobody, or shall not finish, may take to leave. */
#define QUICK_MS 1000
/* What a draining worker gets on top of its own time limit, to say in the log whom it cut. */
#define DRAIN_MARGIN_MS 1000
/* Messages taken from one worker in one turn of the loop. */
#define MESSAGES_PER_TURN 64
/* A worker that tells more often of a folder is not one of ours (WORKER_OUTGROWN_TOLD_MS). */
#define OUTGROWN_PAUSE_MS 2000
/* When a descriptor is sent again that the kernel had no room for. */
#define RETRY_MS 100

struct queued_message {
    struct list_node node;
    struct channel_message message;
    int fd; /* owned; -1: none */
};

static struct worker_child *
worker_from_child(struct child *child)
{
    return container_of(child, struct worker_child, child);
}

/* ---- one life: cell, channel, process -------------------------------------------------------- */

static void
queue_clear(struct worker_child *worker)
{
    LIST_FOR_EACH_SAFE (node, &worker->queue) {
        struct queued_message *queued = container_of(node, struct queued_message, node);
        list_remove(node);
        fd_close(&queued->fd);
        free(queued);
    }
    worker->queue_length = 0;
}

static void
channel_close(struct worker_child *worker)
{
    struct ev_loop *loop = worker->child.master->loop;

    ev_io_stop(loop, &worker->channel_read);
    ev_io_stop(loop, &worker->channel_write);
    ev_timer_stop(loop, &worker->channel_retry);
    queue_clear(worker);
    fd_close(&worker->channel_fd);
}

static void
life_end(struct worker_child *worker)
{
    channel_close(worker);
    if (worker->cell != WORKER_NO_CELL) {
        board_retire_worker(worker->child.master->board, worker->cell);
        worker->cell = WORKER_NO_CELL;
        waiting_serve_after_death(worker->child.master);
    }
    free(worker->lanes);
    worker->lanes = NULL;
    worker->lane_count = 0;
    worker->sent_serial = 0;
    worker->applied_serial = 0;
    worker->refused_serial = 0;
    worker->outgrown_serial = 0;
    worker->outgrown_ms = 0;
    worker->progress = (struct progress){0};
    worker->stalled = false;
    worker->stalls = 0;
    worker->stall_told_ms = 0;
    worker->answers_due = 0;
    worker->said_applied = false;
    worker->said_ready = false;
    worker->said_drained = false;
    worker->said_recycle = false;
    worker->foreign = false;
}

static uint32_t
cell_take(struct scoreboard *board)
{
    for (uint32_t cell = 0; cell < BOARD_CELLS_MAX; cell++) {
        if (atomic_load_explicit(&board->workers[cell].state, memory_order_relaxed) == BOARD_FREE) {
            return cell;
        }
    }
    return WORKER_NO_CELL;
}

static void
show_state(struct child *child)
{
    struct worker_child *worker = worker_from_child(child);
    struct board_worker *cell;

    if (worker->cell == WORKER_NO_CELL) {
        return;
    }
    cell = &child->master->board->workers[worker->cell];
    atomic_store_explicit(&cell->slot, worker->slot->number, memory_order_relaxed);
    atomic_store_explicit(&cell->generation, worker->generation, memory_order_relaxed);
    atomic_store_explicit(&cell->pid, (uint32_t)child->pid, memory_order_relaxed);
    atomic_store_explicit(&cell->started_ms, child->started_ms, memory_order_relaxed);
    atomic_store_explicit(&cell->state, child_board_state(child->state), memory_order_release);
}

/* The child, from fork() to its end. */
static _Noreturn void
become_worker(struct worker_child *worker, int channel_fd)
{
    struct master *master = worker->child.master;
    struct heritage heritage = {.channel_fd = channel_fd,
                                .error_log_fd = master->logs.error_fd,
                                .access_log_fd = master->logs.access_fd,
                                .board = master->board,
                                .cell = worker->cell,
                                .slot = worker->slot->number,
                                .generation = worker->generation,
                                .master_pid = master->pid,
                                .lanes_are_kept = fd_store_is_on()};
    const int keep[] = {heritage.channel_fd, heritage.error_log_fd, heritage.access_log_fd};
    char role[32];
    char title[48];

    signals_reset_in_child(master);
    after_fork_leave_group();
    after_fork_close_all_but(keep, sizeof(keep) / sizeof(keep[0]));
    (void)snprintf(role, sizeof(role), "worker %u", heritage.slot);
    (void)snprintf(title, sizeof(title), "narwhal: %s", role);
    proctitle_set(title);
    log_setup(heritage.error_log_fd, master->config->log.level, role);
    int result = identity_take(&master->identity, false);
    if (result != 0) {
        log_error("cannot become the user and group of the settings: %s", strerror(-result));
        _exit(WORKER_EXIT_BOOT_FAILED);
    }
    int status = worker_main(&heritage);
#ifdef NARWHAL_CHILD_RUNS_EXIT
    /* Builds that measure: the sanitizers and gcov report from exit(). After a change of identity
     * the leak check cannot look at its own process (ptrace(2)). */
    if (!master->identity.drop) {
        exit(status);
    }
#endif
    _exit(status); /* nothing of the master's is flushed or torn down here */
}

static int
life_begin(struct worker_child *worker)
{
    struct master *master = worker->child.master;
    int worker_fd = -1;

    worker->cell = cell_take(master->board);
    if (worker->cell == WORKER_NO_CELL) {
        return -EAGAIN; /* so many are still draining; some will be gone soon */
    }
    int result = channel_pair(&worker->channel_fd, &worker_fd);
    if (result != 0) {
        worker->cell = WORKER_NO_CELL;
        return result;
    }
    worker->generation = ++worker->slot->generation;
    recycle_life_begin(&worker->recycle, 0);
    worker->epoch = master->slots.epoch;
    worker->applied_serial = master->serial; /* what it is born with; counts once it is READY */
    signals_block();
    pid_t pid = fork();
    if (pid == 0) {
        become_worker(worker, worker_fd);
    }
    int fork_errno = errno;
    signals_unblock();
    fd_close(&worker_fd);
    if (pid == -1) {
        fd_close(&worker->channel_fd);
        worker->cell = WORKER_NO_CELL;
        return -fork_errno;
    }
    ev_io_set(&worker->channel_read, worker->channel_fd, EV_READ);
    ev_io_set(&worker->channel_write, worker->channel_fd, EV_WRITE);
    ev_io_start(master->loop, &worker->channel_read);
    child_born(&worker->child, pid, master->config->master.boot_timeout_ms);
    return 0;
}

void
worker_child_start(struct worker_child *worker)
{
    struct child *child = &worker->child;
    int result = life_begin(worker);

    if (result == 0) {
        log_debug("%s started pid=%d generation=%u", child->name, (int)child->pid,
                  worker->generation);
        worker_child_send_settings(worker);
        return;
    }
    struct buf why = {0};
    buf_addf(&why, "%s%s", strerror(-result), child_start_hint(-result));
    child_start_failed(child, &worker->slot->respawn, why.ptr);
    buf_release(&why);
}

static void
on_start(struct child *child)
{
    if (master_may_start(child->master)) {
        worker_child_start(worker_from_child(child));
    } else {
        child_set_state(child, CHILD_BACKOFF, 0); /* in the next turn */
    }
}

static void
tell_death(const struct worker_child *worker, const struct child_death *death,
           const struct respawn_verdict *verdict)
{
    char how[CHILD_DEATH_TEXT_MAX];
    char delay[RESPAWN_DELAY_TEXT_MAX];
    const char *why = death->ours != NULL ? death->ours : "";
    struct buf facts = {0};

    respawn_print_delay(verdict, delay);
    child_describe_status(death->status, how);
    death_add_facts(death->record, &facts);
    if (verdict->report == RESPAWN_FOLD) {
        log_debug("%s died pid=%d %s%s", worker->child.name, (int)death->pid, how, facts.ptr);
    } else if (verdict->report == RESPAWN_SUMMARIZE) {
        log_error("%s dies again and again deaths=%u in=%llds last_pid=%d last_%s next_try=%s%s",
                  worker->child.name, verdict->deaths, (long long)(verdict->row_ms / 1000),
                  (int)death->pid, how, delay, facts.ptr);
    } else {
        log_warn("%s died pid=%d %s%s%s uptime=%lldms generation=%u ready=%s respawn_in=%s%s",
                 worker->child.name, (int)death->pid, how, *why != '\0' ? " killed_for=" : "", why,
                 (long long)death->uptime_ms, worker->generation,
                 death->record->was_ready ? "yes" : "never", delay, facts.ptr);
    }
    buf_release(&facts);
}

static void
complete_record(const struct worker_child *worker, struct board_death *record)
{
    record->slot = worker->slot->number;
    record->generation = worker->generation;
    if (worker->cell == WORKER_NO_CELL) {
        return; /* it came with an upgrade, and from a scoreboard that cannot be read */
    }
    int64_t began_ms =
        board_copy_request(&worker->child.master->board->workers[worker->cell], record->request);
    record->request_age_ms = began_ms != 0 ? clock_mono_ms() - began_ms : 0;
}

static void
on_death(struct child *child, const struct child_death *death)
{
    struct worker_child *worker = worker_from_child(child);
    struct master *master = child->master;

    reload_on_worker_gone(master, worker);
    complete_record(worker, death->record);
    life_end(worker);
    if (worker->leaving) {
        child_tell_departure(child, death);
        slot_on_gone(master, worker);
        return;
    }
    if (worker == worker->slot->next) {
        struct respawn_verdict never = respawn_never();
        deaths_add(master->board, death->record, ++worker->slot->failed_successors);
        events_death(master, death->record);
        tell_death(worker, death, &never);
        slot_on_gone(master, worker);
        return;
    }
    struct respawn_verdict verdict = child_next_life(&worker->slot->respawn, death);
    deaths_add(master->board, death->record, verdict.deaths);
    events_death(master, death->record);
    tell_death(worker, death, &verdict);
    child_set_state(child, CHILD_BACKOFF, verdict.delay_ms);
    slot_on_gone(master, worker);
}

static const struct child_ops worker_ops = {
    .on_state = show_state, .on_death = on_death, .on_start = on_start};

/* ---- channel --------------------------------------------------------------------------------- */

static void
on_settings_refused(struct worker_child *worker, const struct channel_message *message)
{
    struct master *master = worker->child.master;

    worker->refused_serial = message->serial;
    if (reload_on_answer(master, worker, message->serial, message->text)) {
        return;
    }
    /* While it boots it ends by itself, with the status that says so. Later it serves on with the
     * settings it has, until a successor that can use the new ones takes its place. */
    bool goes_on = worker->child.state == CHILD_READY && !worker->leaving;
    log_error("%s cannot use the settings pid=%d serial=%llu%s: %s", worker->child.name,
              (int)worker->child.pid, (unsigned long long)message->serial,
              goes_on ? " and serves with the old ones until it is replaced" : "", message->text);
    if (goes_on) {
        slot_on_refused(master, worker);
    }
}

/* The settings are good and its sandbox is too narrow for them: it serves with the old ones until
 * its successor, which has a sandbox of its own, is READY (slots.c). So it has tried the settings
 * as well as one that took them over. */
static void
on_outgrown(struct worker_child *worker, const struct channel_message *message)
{
    struct master *master = worker->child.master;

    if (message->serial == 0) {
        worker->outgrown_ms = clock_mono_ms();
        /* After a replacement that failed the operator's next reload has the say. */
        bool is_wanted = !worker->leaving && !master->slots.roll_failed;
        if (worker->child.state == CHILD_READY && is_wanted) {
            log_info("%s is replaced: its sandbox has no room for the folder that was replaced "
                     "pid=%d folder=%s",
                     worker->child.name, (int)worker->child.pid, message->text);
            slot_on_refused(master, worker);
        }
        return;
    }
    worker->answers_due--;
    worker->refused_serial = message->serial;
    worker->outgrown_serial = message->serial;
    log_info(
        "%s is replaced when the settings are in use: its sandbox has no room for a new folder "
        "pid=%d serial=%llu folder=%s",
        worker->child.name, (int)worker->child.pid, (unsigned long long)message->serial,
        message->text);
    (void)reload_on_answer(master, worker, message->serial, NULL);
    master_changed(master);
}

/* Whether it may say that now. A worker that has gone wrong must not fill the log, keep the master
 * busy or make it believe that old settings are no longer in use: it says READY and DRAINED once,
 * and one answer to each SETTINGS. */
static bool
is_expected(struct worker_child *worker, const struct channel_message *message)
{
    switch ((enum channel_type)message->type) {
    case CHANNEL_READY:
        return worker->said_applied && !worker->said_ready;
    case CHANNEL_SETTINGS_APPLIED:
    case CHANNEL_SETTINGS_REFUSED:
        return worker->answers_due > 0 && message->serial <= worker->sent_serial;
    case CHANNEL_DRAINED:
        return !worker->said_drained;
    case CHANNEL_RECYCLE:
        return worker->said_ready && !worker->said_recycle;
    case CHANNEL_OUTGROWN:
        if (message->serial != 0) {
            return worker->said_ready && worker->answers_due > 0 &&
                   message->serial <= worker->sent_serial;
        }
        return worker->said_ready && (worker->outgrown_ms == 0 ||
                                      clock_mono_ms() - worker->outgrown_ms > OUTGROWN_PAUSE_MS);
    case CHANNEL_NONE:
    case CHANNEL_SETTINGS:
    case CHANNEL_LANE_ASSIGN:
    case CHANNEL_LANE_REVOKE:
    case CHANNEL_DRAIN:
    case CHANNEL_QUIT:
    case CHANNEL_ERROR_LOG:
    case CHANNEL_ACCESS_LOG:
    case CHANNEL_TYPE_COUNT:
        break; /* only the master sends these */
    }
    return false;
}

static void
end_nonsense(struct worker_child *worker, const char *what)
{
    struct child *child = &worker->child;

    bool leaves = child->state == CHILD_DRAINING; /* its open requests shall not pay for it */
    ev_io_stop(child->master->loop, &worker->channel_read);
    log_error("%s sent nonsense on its channel and is %s pid=%d message=%s", child->name,
              leaves ? "not listened to while it leaves" : "killed", (int)child->pid, what);
    if (!leaves) {
        child_kill(child, "nonsense on its channel");
    }
}

static void
on_message(struct worker_child *worker, const struct channel_message *message)
{
    struct child *child = &worker->child;

    switch ((enum channel_type)message->type) {
    case CHANNEL_READY:
        worker->said_ready = true;
        if (child->state == CHILD_STARTING) {
            child_set_state(child, CHILD_READY, CHILD_NO_DEADLINE);
            log_info("%s is READY pid=%d generation=%u boot=%lldms", child->name, (int)child->pid,
                     worker->generation, (long long)(clock_mono_ms() - child->started_ms));
            slot_on_ready(child->master, worker);
        }
        return;
    case CHANNEL_SETTINGS_APPLIED:
        worker->answers_due--;
        worker->said_applied = true;
        worker->applied_serial = message->serial;
        (void)reload_on_answer(child->master, worker, message->serial, NULL);
        master_changed(child->master);
        return;
    case CHANNEL_SETTINGS_REFUSED:
        worker->answers_due--;
        on_settings_refused(worker, message);
        return;
    case CHANNEL_DRAINED:
        worker->said_drained = true;
        log_debug("%s is drained pid=%d", child->name, (int)child->pid);
        return;
    case CHANNEL_RECYCLE:
        worker->said_recycle = true;
        if (child->state == CHILD_READY && !worker->leaving) {
            recycle_mark(child->master, child, &worker->recycle,
                         strcmp(message->text, "SIGTERM") == 0 ? "SIGTERM" : "max_requests");
        }
        return;
    case CHANNEL_OUTGROWN:
        on_outgrown(worker, message);
        return;
    case CHANNEL_NONE:
    case CHANNEL_SETTINGS:
    case CHANNEL_LANE_ASSIGN:
    case CHANNEL_LANE_REVOKE:
    case CHANNEL_DRAIN:
    case CHANNEL_QUIT:
    case CHANNEL_ERROR_LOG:
    case CHANNEL_ACCESS_LOG:
    case CHANNEL_TYPE_COUNT:
        break;
    }
    CHECK(!"a message that is_expected() lets through has its case here");
}

/* Whether anybody still cares what it says: it is not being killed. */
static bool
is_heard(const struct worker_child *worker)
{
    return worker->child.state == CHILD_STARTING || worker->child.state == CHILD_READY ||
           worker->child.state == CHILD_DRAINING;
}

/* The channel is of no use any more. */
static void
on_channel_end(struct worker_child *worker, int result)
{
    struct child *child = &worker->child;

    ev_io_stop(child->master->loop, &worker->channel_read);
    if (!is_heard(worker)) {
        return; /* it is being killed: SIGCHLD comes next */
    }
    if (result != -EBADMSG) {
        if (child->state == CHILD_DRAINING) {
            return; /* it leaves */
        }
        /* Its end, most likely: a dying process closes its descriptors before it can be reaped, and
         * what it had not read yet makes that an ECONNRESET (unix(7)). */
        child_suspect(child, "it closed its channel");
        return;
    }
    end_nonsense(worker, "unreadable");
}

static void
on_channel_read(struct ev_loop *loop, ev_io *watcher, int revents)
{
    struct worker_child *worker = container_of(watcher, struct worker_child, channel_read);

    (void)loop;
    (void)revents;
    for (int i = 0; i < MESSAGES_PER_TURN && ev_is_active(&worker->channel_read); i++) {
        struct channel_message message;
        int fd = -1;
        int result = channel_receive(worker->channel_fd, &message, &fd);
        bool with_fd = fd != -1;
        fd_close(&fd);
        if (result == -EAGAIN) {
            return;
        }
        if (result != 1) {
            on_channel_end(worker, result);
            return;
        }
        if (!is_heard(worker)) {
            continue;
        }
        if (with_fd) {
            end_nonsense(worker, "with a descriptor");
        } else if (!is_expected(worker, &message)) {
            end_nonsense(worker, channel_type_name((enum channel_type)message.type));
        } else {
            on_message(worker, &message);
        }
    }
}

static void
queue_drop(struct worker_child *worker, struct queued_message *queued)
{
    list_remove(&queued->node);
    fd_close(&queued->fd);
    free(queued);
    worker->queue_length--;
}

/* Too many descriptors are in flight, perhaps to another worker: the socket is writable all the
 * time, so only time helps (unix(7), ETOOMANYREFS). */
static bool
has_no_room(int result)
{
    return result == -ENOBUFS || result == -ETOOMANYREFS || result == -ENOMEM;
}

static void
on_channel_write(struct ev_loop *loop, ev_io *watcher, int revents)
{
    struct worker_child *worker = container_of(watcher, struct worker_child, channel_write);

    (void)revents;
    LIST_FOR_EACH_SAFE (node, &worker->queue) {
        struct queued_message *queued = container_of(node, struct queued_message, node);
        int result = channel_send(worker->channel_fd, &queued->message, queued->fd);
        if (result == -EAGAIN) {
            return;
        }
        if (has_no_room(result)) {
            ev_io_stop(loop, watcher);
            ev_timer_set(&worker->channel_retry, ms_to_seconds(RETRY_MS), 0.);
            ev_timer_start(loop, &worker->channel_retry);
            return;
        }
        queue_drop(worker, queued); /* sent, or it is dying and SIGCHLD comes next */
    }
    ev_io_stop(loop, watcher);
}

static void
on_channel_retry(struct ev_loop *loop, ev_timer *timer, int revents)
{
    (void)revents;
    ev_io_start(loop, &container_of(timer, struct worker_child, channel_retry)->channel_write);
}

/* A log that is newer makes an older one in the queue pointless. So a worker that does not read
 * while the logs are reopened again and again costs no descriptors. */
static void
drop_superseded(struct worker_child *worker, uint32_t type)
{
    if (type != CHANNEL_ERROR_LOG && type != CHANNEL_ACCESS_LOG) {
        return;
    }
    LIST_FOR_EACH_SAFE (node, &worker->queue) {
        struct queued_message *queued = container_of(node, struct queued_message, node);
        if (queued->message.type == type) {
            queue_drop(worker, queued);
        }
    }
}

static int
queue_message(struct worker_child *worker, const struct channel_message *message, int fd)
{
    int copy = -1;

    drop_superseded(worker, message->type);
    if (worker->queue_length >= QUEUE_MAX) {
        return -ENOBUFS;
    }
    if (fd != -1) {
        copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (copy == -1) {
            return -errno;
        }
    }
    struct queued_message *queued = xcalloc(1, sizeof(*queued));
    queued->message = *message;
    queued->fd = copy;
    list_push_back(&worker->queue, &queued->node);
    worker->queue_length++;
    if (!ev_is_active(&worker->channel_retry)) {
        ev_io_start(worker->child.master->loop, &worker->channel_write);
    }
    return 0;
}

void
worker_child_send(struct worker_child *worker, struct channel_message *message, int fd)
{
    struct child *child = &worker->child;
    int result = -EAGAIN;

    if (worker->channel_fd == -1) {
        return;
    }
    if (list_is_empty(&worker->queue)) {
        result = channel_send(worker->channel_fd, message, fd);
    }
    if (result == -EAGAIN || has_no_room(result)) {
        result = queue_message(worker, message, fd);
    }
    if (result == 0) {
        return;
    }
    if (result == -EPIPE || result == -ECONNRESET) {
        return; /* it is dying; SIGCHLD comes next */
    }
    if (child->state == CHILD_STARTING || child->state == CHILD_READY ||
        child->state == CHILD_DRAINING) {
        log_error("%s cannot be sent %s and is killed pid=%d queued=%zu: %s", child->name,
                  channel_type_name((enum channel_type)message->type), (int)child->pid,
                  worker->queue_length, strerror(-result));
        child_kill(child, "it does not read its channel");
    }
}

void
worker_child_send_settings(struct worker_child *worker)
{
    const struct master *master = worker->child.master;

    if (worker->sent_serial != master->serial && !worker->foreign) {
        worker_child_send_image(worker, master->serial, master->image_fd);
    }
}

void
worker_child_send_image(struct worker_child *worker, uint64_t serial, int image_fd)
{
    struct channel_message message = {.type = CHANNEL_SETTINGS, .serial = serial};

    worker->sent_serial = serial;
    worker->answers_due++;
    worker_child_send(worker, &message, image_fd);
}

void
worker_child_send_logs(struct worker_child *worker)
{
    const struct log_files *logs = &worker->child.master->logs;
    struct channel_message error_log = {.type = CHANNEL_ERROR_LOG};
    struct channel_message access_log = {.type = CHANNEL_ACCESS_LOG};

    worker_child_send(worker, &error_log, logs->error_fd);
    worker_child_send(worker, &access_log, logs->access_fd);
}

void
worker_child_leave(struct worker_child *worker, bool quick)
{
    struct child *child = &worker->child;
    int64_t graceful_ms = child->master->config->master.graceful_timeout_ms;
    bool drains = !quick && child->state == CHILD_READY;
    struct channel_message message = {.type = drains ? CHANNEL_DRAIN : CHANNEL_QUIT,
                                      .timeout_ms = drains ? graceful_ms : 0};

    worker->leaving = true;
    if (child->state != CHILD_STARTING && child->state != CHILD_READY &&
        child->state != CHILD_DRAINING) {
        return;
    }
    if (child->state == CHILD_DRAINING && !quick) {
        return;
    }
    child_set_state(child, CHILD_DRAINING, drains ? graceful_ms + DRAIN_MARGIN_MS : QUICK_MS);
    worker_child_send(worker, &message, -1);
}

/* ---- lanes ----------------------------------------------------------------------------------- */

bool
worker_child_has_lane(const struct worker_child *worker, uint32_t lane)
{
    for (size_t i = 0; i < worker->lane_count; i++) {
        if (worker->lanes[i] == lane) {
            return true;
        }
    }
    return false;
}

void
worker_child_assign_lane(struct worker_child *worker, uint32_t lane, int fd, const char *address)
{
    struct channel_message message = {.type = CHANNEL_LANE_ASSIGN, .lane = lane};

    (void)snprintf(message.text, sizeof(message.text), "%s", address);
    worker->lanes = xrealloc(worker->lanes, (worker->lane_count + 1) * sizeof(*worker->lanes));
    worker->lanes[worker->lane_count++] = lane;
    worker_child_send(worker, &message, fd);
}

void
worker_child_revoke_lane(struct worker_child *worker, uint32_t lane)
{
    struct channel_message message = {.type = CHANNEL_LANE_REVOKE, .lane = lane};

    for (size_t i = 0; i < worker->lane_count; i++) {
        if (worker->lanes[i] == lane) {
            worker->lanes[i] = worker->lanes[--worker->lane_count];
            break;
        }
    }
    worker_child_send(worker, &message, -1);
}

/* ---- lifecycle ------------------------------------------------------------------------------- */

struct worker_child *
worker_child_new(struct master *master, struct slot *slot)
{
    struct worker_child *worker = xcalloc(1, sizeof(*worker));

    child_init(&worker->child, master, &worker_ops);
    (void)snprintf(worker->child.name, sizeof(worker->child.name), "worker slot=%u", slot->number);
    worker->child.boot_setting = "[master] boot_timeout";
    worker->slot = slot;
    worker->cell = WORKER_NO_CELL;
    worker->channel_fd = -1;
    ev_io_init(&worker->channel_read, on_channel_read, 0, EV_READ);
    ev_io_init(&worker->channel_write, on_channel_write, 0, EV_WRITE);
    ev_timer_init(&worker->channel_retry, on_channel_retry, 0., 0.);
    list_init(&worker->queue);
    list_init(&worker->node);
    return worker;
}

void
worker_child_resume(struct worker_child *worker, int channel_fd)
{
    worker->channel_fd = channel_fd;
    recycle_life_begin(&worker->recycle, 0);
    if (channel_fd != -1) {
        ev_io_set(&worker->channel_read, channel_fd, EV_READ);
        ev_io_set(&worker->channel_write, channel_fd, EV_WRITE);
        ev_io_start(worker->child.master->loop, &worker->channel_read);
    }
    show_state(&worker->child);
}

void
worker_child_each_untold(const struct worker_child *worker,
                         void (*act)(const struct channel_message *message, void *context),
                         void *context)
{
    LIST_FOR_EACH (node, &worker->queue) {
        act(&container_of(node, struct queued_message, node)->message, context);
    }
}

void
worker_child_free(struct worker_child *worker)
{
    if (worker == NULL) {
        return;
    }
    life_end(worker);
    child_release(&worker->child);
    list_remove(&worker->node);
    free(worker);
}
