/* SPDX-License-Identifier: Apache-2.0
 *
 * The master's life: start, the loop, stop. Invariants: nothing here waits but ev_run(); every
 * event ends in master_changed(), and master_reconcile() is idempotent.
 *
 *   RUNNING ──TERM──► STOPPING ──INT, QUIT or TERM──► STOPPING_QUICK
 *      └──────────────INT, QUIT──────────────────────────────▲
 *
 * A stop is over when no worker and no instance is left.
 */
#include "master/master.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sysexits.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/base/clock.h"
#include "config/base/fd.h"
#include "config/base/log.h"
#include "config/config.h"
#include "master/child.h"
#include "master/cpus.h"
#include "master/fd_store.h"
#include "master/inherited.h"
#include "master/notify.h"
#include "master/proctitle.h"
#include "master/takeover.h"
#include "master/waiting.h"

/* Processes that are started in one turn of the loop. */
#define STARTS_A_TURN 4
/* Rounds of reconcile() before the loop gets its turn. */
#define ROUNDS_MAX 8

/* ---- wanted ---------------------------------------------------------------------------------- */

uint32_t
master_configured_workers(const struct config *config)
{
    uint32_t count = config->master.workers == 0 ? cpus_usable() : (uint32_t)config->master.workers;
    uint32_t min = (uint32_t)config->master.workers_min;
    uint32_t max = (uint32_t)config->master.workers_max;

    if (max > 0) {
        count = count < min ? min : count > max ? max : count;
    }
    return count < BOARD_SLOTS_MAX ? count : BOARD_SLOTS_MAX;
}

/* Without what TTIN and TTOU said. */
static uint32_t
base_workers(const struct master *master)
{
    return master->scaling.workers > 0 ? master->scaling.workers : master->workers;
}

uint32_t
master_wanted_workers(const struct master *master)
{
    int64_t wanted = (int64_t)base_workers(master) + master->workers_more;

    if (master->paused) {
        return 0;
    }
    if (wanted < 1) {
        return 1;
    }
    return wanted < BOARD_SLOTS_MAX ? (uint32_t)wanted : BOARD_SLOTS_MAX;
}

/* ---- reconcile ------------------------------------------------------------------------------- */

static void
reconcile_stop(struct master *master)
{
    if (slots_any_left(master)) {
        return;
    }
    if (resolver_child_is_left(master)) {
        return;
    }
    if (apps_any_left(master)) {
        if (master->phase == MASTER_STOPPING && !master->apps_stopping) {
            master->apps_stopping = true;
            service_extend(master->config->master.graceful_timeout_ms);
            apps_stop(master, false);
        }
        if (apps_any_left(master)) {
            return;
        }
    }
    ev_break(master->loop, EVBREAK_ALL);
}

static void
master_reconcile(struct master *master)
{
    if (master->phase == MASTER_RUNNING) {
        scaling_reconcile(master);
        slots_reconcile(master);
        apps_reconcile(master);
        resolver_child_reconcile(master);
        recycle_reconcile(master);
        reload_reconcile(master);
        operations_reconcile(master);
        upgrade_reconcile(master);
        (void)server_registry_sweep(&master->registry, slots_oldest_serial(master));
    } else {
        reconcile_stop(master);
    }
    service_reconcile(master);
    events_look(master);
}

static void
run_reconcile(struct master *master)
{
    for (int i = 0; i < ROUNDS_MAX && master->changed; i++) {
        master->changed = false;
        master_reconcile(master);
    }
    if (master->changed || master->starts_wait) {
        ev_timer_set(&master->again, 0., 0.);
        ev_timer_start(master->loop, &master->again);
    }
}

static void
on_before_wait(struct ev_loop *loop, ev_prepare *watcher, int revents)
{
    struct master *master = ev_userdata(loop);

    (void)watcher;
    (void)revents;
    master->changed = master->changed || master->starts_wait;
    master->starts_wait = false;
    master->starts_left = STARTS_A_TURN;
    recycle_look(master);
    scaling_look(master);
    run_reconcile(master);
}

static void
on_again(struct ev_loop *loop, ev_timer *timer, int revents)
{
    (void)loop;
    (void)timer;
    (void)revents; /* it is over: the loop goes round once more, and on_before_wait() runs */
}

void
master_changed(struct master *master)
{
    master->changed = true;
}

bool
master_may_start(struct master *master)
{
    if (master->starts_left == 0) {
        master->starts_wait = true;
        return false;
    }
    master->starts_left--;
    return true;
}

/* ---- verbs ----------------------------------------------------------------------------------- */

void
master_stop(struct master *master, bool quick)
{
    enum master_phase phase = quick ? MASTER_STOPPING_QUICK : MASTER_STOPPING;

    if (phase <= master->phase) {
        return;
    }
    int64_t graceful_ms = master->config->master.graceful_timeout_ms;
    uint32_t workers = slots_ready_count(master);
    upgrade_cancel(master);
    operations_cancel(master);
    reload_stop(master); /* with the addresses that it prepared: nobody will ever accept there */
    master->phase = phase;
    service_stopping(master, graceful_ms);
    slots_stop(master, quick);
    resolver_child_stop(master);
    /* Now only what the workers hold keeps a port open, and they let go once its queue is accepted:
     * a new client is refused at once and tries elsewhere, instead of waiting in a queue that
     * nobody will serve. Nothing gives lanes out again: slots_reconcile() is for MASTER_RUNNING. */
    lane_set_close_own(&master->lanes);
    if (quick) {
        apps_stop(master, true);
    }
    log_info("stopping %s workers=%u graceful_timeout=%lldms", quick ? "quickly" : "gracefully",
             workers, (long long)(quick ? 0 : graceful_ms));
    master_changed(master);
}

/* From what there is: with fewer CPUs than at the last order, auto and what it said may be below 1.
 * False when that many are not possible. */
static bool
change_workers(struct master *master, int64_t more, const char *reason)
{
    uint32_t before = master_wanted_workers(master);
    int said_before = master->workers_more;

    master->workers_more = (int)((int64_t)before + more - (int64_t)base_workers(master));
    uint32_t after = master_wanted_workers(master);
    if ((int64_t)after != (int64_t)before + more) {
        master->workers_more = said_before;
        return false;
    }
    log_info("workers wanted=%u before=%u reason=\"%s\"", after, before, reason);
    scaling_hold(master);
    master_changed(master);
    return true;
}

void
master_more_workers(struct master *master, int more)
{
    if (master->phase != MASTER_RUNNING || master->paused) {
        log_warn("the number of workers is not changed: narwhal is %s",
                 master->paused ? "paused" : "stopping");
        return;
    }
    if (!change_workers(master, more, more > 0 ? "SIGTTIN" : "SIGTTOU")) {
        log_warn("the number of workers stays workers=%u: 1 to %d are possible",
                 master_wanted_workers(master), BOARD_SLOTS_MAX);
    }
}

int
master_scale(struct master *master, int64_t workers, struct buf *error)
{
    if (master->phase != MASTER_RUNNING || master->paused) {
        buf_addf(error, "the number of workers is not changed: narwhal is %s",
                 master->paused ? "paused, a reload ends that" : "stopping");
        return -EBUSY;
    }
    if (workers < 1 || workers > BOARD_SLOTS_MAX) {
        buf_addf(error, "%lld workers are not possible, 1 to %d are", (long long)workers,
                 BOARD_SLOTS_MAX);
        return -ERANGE;
    }
    CHECK(change_workers(master, workers - (int64_t)master_wanted_workers(master), "narwhalctl"));
    return 0;
}

void
master_pause(struct master *master)
{
    if (master->phase == MASTER_RUNNING && !master->paused) {
        master->paused = true;
        log_info("paused: workers drain, clients wait in the queues until HUP");
    }
}

void
master_reopen_logs(struct master *master)
{
    struct log_files logs;
    struct buf error = {0};

    if (log_files_open(master->config, &logs, &error) != 0) {
        log_error("the logs are not reopened, the old files go on: %s; correct it and send USR1 "
                  "again",
                  error.ptr);
        buf_release(&error);
        return;
    }
    struct log_files old = master->logs;
    master->logs = logs;
    log_set_fd(logs.error_fd);
    slots_send_logs(master);
    resolver_child_restart(master); /* it has the log of its birth */
    log_files_close(&old);
    log_info("logs reopened");
}

/* ---- start ----------------------------------------------------------------------------------- */

/* To the log, and to stderr when that is not the same: who starts narwhal by hand looks there. */
static void
start_error(const char *text)
{
    log_error("%s", text);
    if (log_fd() != STDERR_FILENO) {
        (void)fprintf(stderr, "narwhal: %s\n", text);
    }
}

/* A socket must never get the number of a missing stdin, stdout or stderr. */
static void
fill_standard_descriptors(void)
{
    int fd;

    do {
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    } while (fd != -1 && fd <= STDERR_FILENO);
    fd_close(&fd);
}

/* Workers need a descriptor for each connection: up to what the administrator allows. */
static void
raise_nofile(struct master *master)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &master->inherited_nofile) == -1) {
        return;
    }
    limit = master->inherited_nofile;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit); /* raising to the hard limit is always allowed */
}

/* The board of a predecessor, or a new one. 0 or a negative errno. */
static int
open_board(struct master *master, struct takeover *takeover)
{
    if (takeover != NULL) {
        return takeover_board(takeover, master);
    }
    master->board = scoreboard_create(&master->board_fd);
    if (master->board == NULL) {
        return -errno;
    }
    atomic_store_explicit(&master->board->started_ms, clock_mono_ms(), memory_order_relaxed);
    fd_store_import_board(master->board);
    return 0;
}

static int
open_kernel_objects(struct master *master, struct takeover *takeover)
{
    master->loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    if (master->loop == NULL) {
        start_error("cannot make an event loop: epoll is not available");
        return EX_OSERR;
    }
    ev_set_userdata(master->loop, master);
    notify_open(master->loop);
    if (takeover == NULL) {
        fd_store_collect();
    }
    int result = open_board(master, takeover);
    if (result != 0) {
        char text[128];
        (void)snprintf(text, sizeof(text), "cannot make the scoreboard: %s", strerror(-result));
        start_error(text);
        return EX_OSERR;
    }
    result = waiting_init(master);
    if (result != 0) {
        char text[128];
        (void)snprintf(text, sizeof(text), "cannot make a unix datagram socket: %s",
                       strerror(-result));
        start_error(text);
        return EX_OSERR;
    }
    oom_watch_init(&master->oom);
    return 0;
}

static int
open_pidfile(struct master *master, const struct config *config)
{
    const char *path = config->master.pidfile_path;
    struct buf error = {0};

    if (path == NULL) {
        return 0;
    }
    int result = pidfile_open(&master->pidfile, path, &error);
    if (result == 0) {
        buf_release(&error);
        return 0;
    }
    char *text = xasprintf("%s: pidfile: %s: %s", config_origin(config, "master", NULL, "pidfile"),
                           path, error.ptr);
    start_error(text);
    free(text);
    buf_release(&error);
    return result == -EWOULDBLOCK ? EX_UNAVAILABLE : EX_CANTCREAT;
}

static int
use_first_settings(struct master *master, struct config *config)
{
    struct config_errors errors = {0};

    fd_store_drop_unwanted(config);
    int status = reload_first(master, config, &errors);

    for (size_t i = 0; i < errors.count; i++) {
        if (status == EX_CONFIG) {
            (void)fprintf(stderr, "%s\n", errors.item[i]); /* as all errors of settings */
        } else {
            start_error(errors.item[i]);
        }
    }
    config_errors_release(&errors);
    return status;
}

static void
start_watchers(struct master *master)
{
    ev_prepare_init(&master->before_wait, on_before_wait);
    ev_prepare_start(master->loop, &master->before_wait);
    ev_timer_init(&master->again, on_again, 0., 0.);
    progress_watch_start(master);
    service_start(master);
}

static void
master_init(struct master *master, const struct config_args *args)
{
    memset(master, 0, sizeof(*master));
    master->args = args;
    master->pid = getpid();
    master->image_fd = -1;
    master->board_fd = -1;
    master->wake_fd = -1;
    master->logs = (struct log_files){.error_fd = -1, .access_fd = -1};
    master->pidfile.fd = -1;
    master->runtime_dir.fd = -1;
    master->control.listener.fd = -1;
    list_init(&master->control.clients);
    ev_init(&master->upgrade.turn, NULL);
    list_init(&master->children);
    lane_set_init(&master->lanes);
    slots_init(master);
    apps_init(master);
    resolver_child_init(master);
    reload_init(master);
    recycle_init(master);
    scaling_init(master);
    service_init(master);
    upgrade_init(master);
    events_init(master);
}

static void
stop_watchers(struct master *master)
{
    ev_prepare_stop(master->loop, &master->before_wait);
    ev_timer_stop(master->loop, &master->again);
    service_stop(master);
    progress_watch_stop(master);
    recycle_stop(master);
    scaling_stop(master);
    reload_stop(master);
    events_stop(master);
    signals_stop(master);
}

/* Works on a half-started master too. */
static void
master_release(struct master *master)
{
    if (master->loop != NULL) {
        slots_release(master);
        apps_release(master);
        resolver_child_release(master);
        control_close(master);
        stop_watchers(master);
    }
    upgrade_release(master);
    operations_release(master);
    LIST_FOR_EACH_SAFE (node, &master->lanes.addresses) {
        listen_address_close(listen_address_from(node));
    }
    server_registry_release(&master->registry);
    names_release(master);
    runtime_dir_release(&master->runtime_dir);
    pidfile_close(&master->pidfile);
    notify_close();
    fd_close(&master->image_fd);
    fd_close(&master->board_fd);
    fd_close(&master->wake_fd);
    if (master->board != NULL) {
        (void)munmap(master->board, sizeof(*master->board)); /* our own mapping: cannot fail */
    }
    config_free(master->config);
    log_set_fd(STDERR_FILENO);
    log_files_close(&master->logs);
    if (master->loop != NULL) {
        ev_loop_destroy(master->loop);
    }
}

/* Whether a bind names an inherited socket. */
static bool
is_bound(int fd, const char *name, void *context)
{
    const struct master *master = context;

    for (size_t i = 0; i < master->config->master.bind.count; i++) {
        const struct address *address = &master->config->master.bind.item[i];
        if ((address->kind == ADDRESS_FD && address->fd == fd) ||
            (address->kind == ADDRESS_SYSTEMD &&
             strcmp(address->text + sizeof(ADDRESS_SYSTEMD_PREFIX) - 1, name) == 0)) {
            return true;
        }
    }
    return false;
}

static int
master_start(struct master *master, struct config *config, struct takeover *takeover)
{
    if (takeover == NULL) {
        log_setup(STDERR_FILENO, config->log.level, "master");
    }
    int status = open_kernel_objects(master, takeover);
    if (status == 0) {
        server_registry_init(&master->registry, master->board);
        if (takeover == NULL) {
            status = open_pidfile(master, config);
        } else if (takeover_restore(takeover, master) != 0) {
            status = EX_DATAERR;
        }
    }
    if (status != 0) {
        config_free(config);
        return status;
    }
    status = use_first_settings(master, config);
    if (status != 0) {
        return status;
    }
    signals_start(master);
    start_watchers(master);
    control_open(master);
    if (takeover != NULL) {
        takeover_finish(takeover, master);
        return 0;
    }
    inherited_tell_unused(is_bound, master);
    log_info("narwhal " NARWHAL_VERSION " started pid=%d workers=%u settings=%s", (int)master->pid,
             master_wanted_workers(master),
             master->config->path != NULL ? master->config->path : "none");
    return 0;
}

int
master_run(const struct config_args *args, struct config *config, struct takeover *takeover)
{
    /* Static, because a worker inherits it with everything it points to. */
    static struct master master;

    fill_standard_descriptors();
    master_init(&master, args);
    raise_nofile(&master);
    proctitle_set("narwhal: master");
    int status = master_start(&master, config, takeover);
    if (status != 0 && takeover != NULL) {
        return status; /* what the state names belongs to the predecessor: nothing is released */
    }
    if (status == 0) {
        master_changed(&master);
        ev_run(master.loop, 0);
        log_info("stopped uptime=%lldms", (long long)(clock_mono_ms() - master.board->started_ms));
    }
    master_release(&master);
    return status;
}
