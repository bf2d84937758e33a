/* SPDX-License-Identifier: Apache-2.0
 *
 * The worker process: its loop, what the master tells it, and its end. Runs in workers.
 *
 * Born with a channel and a scoreboard; SETTINGS makes it READY; lanes make it serve; DRAIN or the
 * loss of the master make it finish what is open and leave, TERM asks the master for that; QUIT,
 * INT make it leave at once.
 */
#include "worker/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "config/base/check.h"
#include "config/base/clock.h"
#include "config/base/fd.h"
#include "config/base/hash.h"
#include "config/base/log.h"
#include "config/base/reserve.h"
#include "worker/channel.h"
#include "worker/conn.h"
#include "worker/exchange.h"
#include "worker/http/scan.h"
#include "worker/live.h"
#include "worker/proxy/proxy.h"
#include "worker/proxy/upstream.h"
#include "worker/sandbox.h"
#include "worker/static/static_file.h"
#include "worker/worker_private.h"

/* Connections that are told one by one when a drain cuts them; all are counted. */
#define CUTS_TOLD_MAX 200
/* Requests until max_requests is told again, when the master did not take the message. */
#define RECYCLE_AGAIN_AFTER 1000

/* ---- telling the master -----------------------------------------------------------------------
 */

/* Whether the message is on its way. */
static bool
tell(struct worker *worker, enum channel_type type, uint64_t serial, const char *text)
{
    struct channel_message message = {.type = type, .serial = serial};

    (void)snprintf(message.text, sizeof(message.text), "%s", text);
    int error = channel_send(worker->heritage->channel_fd, &message, -1);
    if (error != 0 && error != -EPIPE) {
        log_error("cannot tell the master %s: %s", channel_type_name(type), strerror(-error));
    }
    return error == 0;
}

/* ---- leaving ----------------------------------------------------------------------------------
 */

static void
leave(struct worker *worker)
{
    ev_break(worker->loop, EVBREAK_ALL);
}

void
worker_conn_ended(struct worker *worker)
{
    if (worker->draining && worker->conn_count == 0 && !worker->drained_told) {
        worker->drained_told = true;
        if (!worker->master_gone) {
            (void)tell(worker, CHANNEL_DRAINED, 0, "");
        }
        leave(worker);
    }
}

/* graceful_timeout is over: what is left is cut, and the log says whom it hit. */
static void
on_drain_deadline(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct worker *worker =
        container_of(container_of(timer, struct deadline, timer), struct worker, drain_deadline);

    (void)revents;
    if (!deadline_is_due(&worker->drain_deadline, loop, worker->now_ms)) {
        return;
    }
    uint32_t cuts[CONN_CUT_COUNT] = {0};
    LIST_FOR_EACH_SAFE (node, &worker->conns) {
        bool tell = cuts[CONN_CUT_REQUEST] + cuts[CONN_CUT_TUNNEL] < CUTS_TOLD_MAX;
        cuts[conn_cut(container_of(node, struct conn, node), tell)]++;
    }
    bool all_told = cuts[CONN_CUT_REQUEST] + cuts[CONN_CUT_TUNNEL] <= CUTS_TOLD_MAX;
    log_warn("graceful_timeout is over, what was open is cut requests=%u tunnels=%u idle=%u%s",
             cuts[CONN_CUT_REQUEST], cuts[CONN_CUT_TUNNEL], cuts[CONN_CUT_IDLE],
             all_told ? "" : "; the lines above tell the first of them");
}

static void
drain(struct worker *worker, int64_t timeout_ms)
{
    if (worker->draining) {
        return;
    }
    log_debug("draining connections=%u", worker->conn_count);
    /* What is queued was promised to be served; only then nobody new comes. */
    acceptor_revoke_all(worker);
    worker->draining = true;
    health_probes_stop(worker);
    LIST_FOR_EACH_SAFE (node, &worker->conns) {
        conn_drain(container_of(node, struct conn, node));
    }
    deadline_set(&worker->drain_deadline, worker->loop, worker->now_ms, timeout_ms);
    worker_conn_ended(worker);
}

static void
on_term_signal(struct ev_loop *loop, ev_signal *signal, int revents)
{
    struct worker *worker = container_of(signal, struct worker, on_term);

    (void)loop;
    (void)revents;
    if (worker->live == NULL) {
        leave(worker);
        return;
    }
    /* Somebody wants this process away. The master puts a successor in its place first: nobody
     * would accept from its lanes if it just left. */
    bool is_mastered = !worker->draining && !worker->master_gone;
    if (is_mastered && !worker->recycle_told && tell(worker, CHANNEL_RECYCLE, 0, "SIGTERM")) {
        worker->recycle_told = true;
        worker->recycle_at = UINT64_MAX;
        log_info("received SIGTERM, the master puts a successor in this place first");
        return;
    }
    if (!is_mastered || !worker->recycle_told) {
        drain(worker, worker->live->config->master.graceful_timeout_ms);
    }
}

static void
on_quick_signal(struct ev_loop *loop, ev_signal *signal, int revents)
{
    (void)signal;
    (void)revents;
    ev_break(loop, EVBREAK_ALL);
}

/* ---- memory -----------------------------------------------------------------------------------
 */

void
worker_tell_short(struct worker *worker, const char *what)
{
    if (worker->short_told_ms != 0 &&
        worker->now_ms - worker->short_told_ms < WORKER_SHORT_TOLD_MS) {
        return;
    }
    worker->short_told_ms = worker->now_ms;
    log_error("out of memory: %s; connections wait and new requests get 503 until there is some "
              "open=%u help=\"lower connections or connection_memory, or raise MemoryMax= or "
              "ulimit -v\"",
              what, worker->conn_count);
}

bool
worker_has_memory(struct worker *worker)
{
    if (!memory_is_short() || memory_reserve_fill(WORKER_RESERVE_BYTES)) {
        return true;
    }
    worker_tell_short(worker, "the reserve is spent");
    return false;
}

/* ---- max_requests -----------------------------------------------------------------------------
 */

/* The worker is the only one that knows at once: the message is exact, and nobody polls. */
void
worker_reached_max_requests(struct worker *worker)
{
    bool has_master = !worker->draining && !worker->master_gone;

    if (has_master && !tell(worker, CHANNEL_RECYCLE, 0, "")) {
        worker->recycle_at += RECYCLE_AGAIN_AFTER;
        return;
    }
    worker->recycle_told = true;
    worker->recycle_at = UINT64_MAX;
}

/* The same part of the jitter for all settings of this process' life. */
static void
set_max_requests(struct worker *worker, const struct master_settings *settings)
{
    uint64_t jitter = worker->random % ((uint64_t)settings->max_requests_jitter + 1);

    worker->recycle_at = settings->max_requests == 0 || worker->recycle_told
                             ? UINT64_MAX
                             : (uint64_t)settings->max_requests + jitter;
}

/* ---- the sandbox ------------------------------------------------------------------------------
 */

/* Everything is open that is not below a static folder: the last thing before READY. */
static int
enter_sandbox(struct worker *worker, const struct live *live, struct buf *why)
{
    size_t route_count = live->config->route_count;
    struct static_root **roots = xcalloc(route_count + 1, sizeof(struct static_root *));
    int *folders = xcalloc(route_count + 1, sizeof(int));
    struct sandbox_state state;
    size_t count = 0;

    for (size_t i = 0; i < route_count; i++) {
        if (live->routes[i].root != NULL) {
            roots[count] = live->routes[i].root;
            folders[count++] = static_root_folder(live->routes[i].root);
        }
    }
    const struct sandbox_plan plan = {.mode = live->config->master.sandbox,
                                      .folders = folders,
                                      .folder_count = count,
                                      .refused = &worker->me->counters.sandbox_refused};
    int result = sandbox_enter(&plan, &state, why);
    if (result == 0 && state.landlock_abi > 0) {
        static_root_fence(roots, count);
    }
    atomic_store_explicit(&worker->me->sandbox, sandbox_pack(&state), memory_order_relaxed);
    free(folders);
    free(roots);
    return result;
}

/* The folder that new settings need and this process cannot read, or NULL. */
static const char *
folder_beyond_fence(const struct live *live)
{
    for (size_t i = 0; i < live->config->route_count; i++) {
        const struct route *route = &live->routes[i];
        if (route->root != NULL && static_root_is_beyond_fence(route->root)) {
            return route->settings->static_path;
        }
    }
    return NULL;
}

void
worker_outgrew_folder(struct worker *worker, const char *path)
{
    bool was_told =
        worker->outgrown_ms != 0 && worker->now_ms - worker->outgrown_ms < WORKER_OUTGROWN_TOLD_MS;

    if (!was_told && !worker->draining && !worker->master_gone &&
        tell(worker, CHANNEL_OUTGROWN, 0, path)) {
        worker->outgrown_ms = worker->now_ms;
    }
}

/* ---- settings ---------------------------------------------------------------------------------
 */

static void
refuse_settings(struct worker *worker, uint64_t serial, const char *why)
{
    log_error("cannot use the settings: %s", why);
    (void)tell(worker, CHANNEL_SETTINGS_REFUSED, serial, why);
    if (worker->live == NULL) {
        leave(worker);
    }
}

static void
take_settings(struct worker *worker, uint64_t serial, int image_fd)
{
    char error[CONFIG_IMAGE_ERROR_MAX] = "no image came with the message";
    struct buf why = {0};
    struct config *config = image_fd != -1 ? config_read_image(image_fd, error) : NULL;

    if (config == NULL) {
        refuse_settings(worker, serial, error);
        return;
    }
    struct live *live = live_new(config, serial, worker->board, &why);
    if (live == NULL) {
        refuse_settings(worker, serial, why.len > 0 ? why.ptr : "unknown");
        buf_release(&why);
        return;
    }
    struct live *before = worker->live;
    const char *folder = folder_beyond_fence(live);
    if (folder != NULL) {
        (void)tell(worker, CHANNEL_OUTGROWN, serial, folder);
        live_unref(&live);
        buf_release(&why);
        return; /* with the old ones, until the successor is there */
    }
    if (before == NULL && enter_sandbox(worker, live, &why) != 0) {
        refuse_settings(worker, serial, why.ptr);
        live_unref(&live);
        buf_release(&why);
        return;
    }
    buf_release(&why);
    worker->live = live;
    worker->tail_second = -1; /* server_header may have changed */
    log_set_level(live->config->log.level);
    set_max_requests(worker, &live->config->master);
    health_probes_settings(worker);
    access_log_set_format(&worker->access_log, access_format_new(live->config->log.access_format));
    atomic_store_explicit(&worker->me->settings_serial, serial, memory_order_relaxed);
    (void)tell(worker, CHANNEL_SETTINGS_APPLIED, serial, "");
    if (before == NULL) {
        (void)tell(worker, CHANNEL_READY, serial, "");
    }
    live_unref(&before);
    LIST_FOR_EACH_SAFE (node, &worker->conns) {
        conn_reload(container_of(node, struct conn, node));
    }
}

/* ---- the channel ------------------------------------------------------------------------------
 */

static void
take_error_log(int *fd)
{
    if (*fd == -1) {
        return;
    }
    if (dup3(*fd, log_fd(), O_CLOEXEC) == -1) {
        log_error("cannot change to the reopened error log: %s", strerror(errno));
        return;
    }
    log_set_fd(log_fd()); /* it may be of another kind */
}

static void
take_message(struct worker *worker, const struct channel_message *message, int *fd)
{
    switch ((enum channel_type)message->type) {
    case CHANNEL_SETTINGS:
        take_settings(worker, message->serial, *fd);
        return;
    case CHANNEL_LANE_ASSIGN:
        if (*fd == -1 || worker->live == NULL || worker->draining) {
            log_debug("lane not taken lane=%u", message->lane);
            return;
        }
        acceptor_assign(worker, message->lane, *fd);
        *fd = -1;
        return;
    case CHANNEL_LANE_REVOKE:
        acceptor_revoke(worker, message->lane);
        return;
    case CHANNEL_DRAIN:
        drain(worker, message->timeout_ms);
        return;
    case CHANNEL_QUIT:
        leave(worker);
        return;
    case CHANNEL_ERROR_LOG:
        take_error_log(fd);
        return;
    case CHANNEL_ACCESS_LOG:
        access_log_set_fd(&worker->access_log, *fd);
        *fd = -1;
        return;
    case CHANNEL_READY:
    case CHANNEL_SETTINGS_APPLIED:
    case CHANNEL_SETTINGS_REFUSED:
    case CHANNEL_DRAINED:
    case CHANNEL_RECYCLE:
    case CHANNEL_OUTGROWN:
    case CHANNEL_NONE:
    case CHANNEL_TYPE_COUNT:
        log_error("the master sent a message that only workers send: %s",
                  channel_type_name((enum channel_type)message->type));
        return;
    }
}

/* A worker without a master serves nobody new: nobody would restart, reload or stop it. */
static void
lose_master(struct worker *worker)
{
    ev_io_stop(worker->loop, &worker->channel);
    worker->master_gone = true;
    log_warn("the master is gone, finishing what is open connections=%u", worker->conn_count);
    if (worker->live == NULL) {
        leave(worker);
        return;
    }
    if (worker->heritage->lanes_are_kept) {
        acceptor_release(worker); /* without accepting what is queued: the next master does */
    }
    drain(worker, worker->live->config->master.graceful_timeout_ms);
}

static void
on_channel_readable(struct ev_loop *loop, ev_io *io, int revents)
{
    struct worker *worker = container_of(io, struct worker, channel);
    struct channel_message message;
    int fd = -1;

    (void)loop;
    (void)revents;
    int result = channel_receive(io->fd, &message, &fd);
    if (result == 1) {
        take_message(worker, &message, &fd);
        fd_close(&fd);
    } else if (result == 0 || result == -ECONNRESET) {
        lose_master(worker);
    } else if (result != -EAGAIN) {
        log_error("cannot read from the master: %s", strerror(-result));
    }
}

/* ---- turns of the loop ------------------------------------------------------------------------
 */

static void
on_turn_begin(struct ev_loop *loop, ev_check *check, int revents)
{
    struct worker *worker = container_of(check, struct worker, turn_begin);

    (void)revents;
    worker->turn_us = clock_mono_us();
    worker->now_ms = worker->turn_us / 1000;
    worker->now_real_ms = (int64_t)(ev_now(loop) * 1000.0);
    atomic_store_explicit(&worker->me->turn_started_ms, worker->now_ms, memory_order_relaxed);
}

static void
on_turn_end(struct ev_loop *loop, ev_prepare *prepare, int revents)
{
    struct worker *worker = container_of(prepare, struct worker, turn_end);

    (void)loop;
    (void)revents;
    LIST_FOR_EACH_SAFE (node, &worker->graveyard) {
        conn_free(container_of(node, struct conn, node));
    }
    upstream_empty_graveyard(worker);
    if (worker->turn_us != 0) {
        board_count(&worker->me->busy_us, (uint64_t)(clock_mono_us() - worker->turn_us));
        worker->turn_us = 0;
    }
    atomic_store_explicit(&worker->me->turn_started_ms, 0, memory_order_relaxed);
}

/* ---- birth and death --------------------------------------------------------------------------
 */

static void
start_watchers(struct worker *worker)
{
    struct ev_loop *loop = worker->loop;

    ev_check_init(&worker->turn_begin, on_turn_begin);
    ev_set_priority(&worker->turn_begin, EV_MAXPRI); /* before every handler of the turn */
    ev_check_start(loop, &worker->turn_begin);
    ev_prepare_init(&worker->turn_end, on_turn_end);
    ev_prepare_start(loop, &worker->turn_end);
    ev_io_init(&worker->channel, on_channel_readable, worker->heritage->channel_fd, EV_READ);
    ev_io_start(loop, &worker->channel);
    ev_signal_init(&worker->on_term, on_term_signal, SIGTERM);
    ev_signal_start(loop, &worker->on_term);
    ev_signal_init(&worker->on_int, on_quick_signal, SIGINT);
    ev_signal_start(loop, &worker->on_int);
    ev_signal_init(&worker->on_quit, on_quick_signal, SIGQUIT);
    ev_signal_start(loop, &worker->on_quit);
    (void)signal(SIGPIPE, SIG_IGN); /* writes say EPIPE instead; signal(2) cannot fail here */
}

static struct worker *
worker_new(const struct heritage *heritage)
{
    struct worker *worker = xcalloc(1, sizeof(*worker));

    worker->heritage = heritage;
    worker->board = heritage->board;
    worker->me = &heritage->board->workers[heritage->cell];
    worker->loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    if (worker->loop == NULL) {
        log_error("cannot make an event loop (epoll): %s", strerror(errno));
        free(worker);
        return NULL;
    }
    worker->now_ms = clock_mono_ms();
    worker->recycle_at = UINT64_MAX;
    worker->now_real_ms = clock_real_ms();
    worker->random = hash_mix((uint64_t)clock_mono_us(), (uint64_t)getpid());
    worker->tail_second = -1;
    list_init(&worker->conns);
    list_init(&worker->graveyard);
    list_init(&worker->upstream_graveyard);
    list_init(&worker->spare_conns);
    client_counts_init(&worker->client_counts, worker->random);
    acceptor_init(worker);
    upstream_init(worker);
    health_probes_init(worker);
    deadline_init(&worker->drain_deadline, on_drain_deadline);
    int error = proxy_queue_new(worker);
    if (error != 0) {
        log_error("cannot make a datagram socket to be woken by (unix): %s", strerror(-error));
        ev_loop_destroy(worker->loop);
        free(worker);
        return NULL;
    }
    access_log_init(&worker->access_log, worker->loop);
    access_log_set_fd(&worker->access_log, heritage->access_log_fd);
    start_watchers(worker);
    return worker;
}

static void
worker_free(struct worker *worker)
{
    acceptor_release(worker);
    LIST_FOR_EACH_SAFE (node, &worker->conns) {
        conn_close(container_of(node, struct conn, node), CLOSE_STOPPED);
    }
    health_probes_stop(worker);
    proxy_queue_free(worker);
    upstream_release(worker);
    worker->spare_conn_count = WORKER_SPARES_MAX; /* conn_free() keeps no more spares */
    LIST_FOR_EACH_SAFE (node, &worker->graveyard) {
        conn_free(container_of(node, struct conn, node));
    }
    LIST_FOR_EACH_SAFE (node, &worker->spare_conns) {
        free(container_of(node, struct conn, node));
    }
    while (worker->spare_exchanges != NULL) {
        struct exchange *exchange = worker->spare_exchanges;
        worker->spare_exchanges = exchange->next_spare;
        free(exchange);
    }
    client_counts_release(&worker->client_counts);
    live_unref(&worker->live);
    access_log_release(&worker->access_log);
    ev_loop_destroy(worker->loop);
    free(worker);
}

int
worker_main(const struct heritage *heritage)
{
    scan_init();
    ev_set_allocator(memory_reserve_realloc);
    if (!memory_reserve_fill(WORKER_RESERVE_BYTES)) {
        log_error("cannot start a worker: out of memory");
        return WORKER_EXIT_BOOT_FAILED;
    }
    struct worker *worker = worker_new(heritage);

    if (worker == NULL) {
        return WORKER_EXIT_BOOT_FAILED;
    }
    (void)ev_run(worker->loop, 0);
    bool served = worker->live != NULL;
    worker_free(worker);
    memory_reserve_release();
    return served ? WORKER_EXIT_OK : WORKER_EXIT_BOOT_FAILED;
}
