/* SPDX-License-Identifier: Apache-2.0
 *
 * Accepting connections from the lanes assigned to this worker. Runs in workers.
 */
#include "worker/acceptor.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "config/base/check.h"
#include "config/base/fd.h"
#include "config/base/log.h"
#include "worker/conn.h"
#include "worker/live.h"
#include "worker/peer.h"
#include "worker/worker_private.h"

struct lane {
    struct list_node node;
    ev_io io; /* io.fd is the listening socket, this worker's descriptor of it */
    struct worker *worker;
    uint32_t id;
    uint32_t burst; /* accepts per event: grows while the queue keeps up with it */
};

/* Accepts in one event, so that a storm of connections does not starve those that are open. */
#define ACCEPT_BURST_MAX 16u
/* How long accepting rests when descriptors or memory run out (libev manual, "The special problem
 * of accept()ing when you can't"). */
#define ACCEPT_PAUSE_MS 100
/* One line in the log for a shortage: over when accepting has worked for so long. */
#define EXHAUSTED_OVER_MS 10000
/* Connections looked at to find an idle one that can make room. */
#define MAKE_ROOM_LOOK_MAX 64

static struct lane *
lane_from_io(ev_io *io)
{
    return container_of(io, struct lane, io);
}

static bool
is_exhaustion(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

static void
watch_lanes(struct worker *worker, bool watch)
{
    LIST_FOR_EACH (node, &worker->acceptor.lanes) {
        struct lane *lane = container_of(node, struct lane, node);
        if (watch) {
            ev_io_start(worker->loop, &lane->io);
        } else {
            ev_io_stop(worker->loop, &lane->io);
        }
    }
}

static void
rest(struct worker *worker)
{
    struct acceptor *acceptor = &worker->acceptor;

    acceptor->paused = true;
    watch_lanes(worker, false);
    ev_timer_set(&acceptor->pause, ACCEPT_PAUSE_MS / 1000.0, 0.0);
    ev_timer_start(worker->loop, &acceptor->pause);
}

static void
on_pause_over(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct worker *worker =
        container_of(container_of(timer, struct acceptor, pause), struct worker, acceptor);

    (void)loop;
    (void)revents;
    worker->acceptor.paused = false;
    if (!worker_has_memory(worker)) {
        rest(worker);
        return;
    }
    watch_lanes(worker, true);
}

static void
pause_accepting(struct worker *worker, int error)
{
    struct acceptor *acceptor = &worker->acceptor;

    if (acceptor->paused) {
        return;
    }
    if (acceptor->exhausted_ms == 0) {
        log_error("cannot accept connections: %s; trying again every %d ms open=%u%s",
                  strerror(error), ACCEPT_PAUSE_MS, worker->conn_count,
                  error == EMFILE
                      ? " help=\"raise LimitNOFILE= or ulimit -n, or lower connections\""
                      : "");
    }
    acceptor->exhausted_ms = worker->now_ms;
    rest(worker);
}

/* Accepting works: when it does for a while, what was short is there again. In between it may fail
 * and work in turn, with every connection that ends; that is one shortage, told once. */
static void
note_accepted(struct worker *worker)
{
    struct acceptor *acceptor = &worker->acceptor;

    if (acceptor->exhausted_ms != 0 &&
        worker->now_ms - acceptor->exhausted_ms > EXHAUSTED_OVER_MS) {
        acceptor->exhausted_ms = 0;
        log_info("accepting connections again without pauses open=%u", worker->conn_count);
    }
}

/* Beyond `connections` an idle one makes room, or else one that has not sent its request yet. The
 * list is in order of opening; a connection that was used lately is passed over and moves to the
 * end (second chance), so that finding the longest idle one costs nothing while there is room.
 * false: all that were looked at are being served. */
static bool
make_room(struct worker *worker)
{
    int64_t keepalive_ms = worker->live->config->worker.keepalive_ms;
    struct conn *unfinished = NULL;

    for (int looked = 0; looked < MAKE_ROOM_LOOK_MAX; looked++) {
        struct list_node *first = list_first(&worker->conns);
        if (first == NULL) {
            break;
        }
        struct conn *conn = container_of(first, struct conn, node);
        bool used_lately = conn->deadline.at_ms - worker->now_ms > keepalive_ms - 1000;
        if (conn_is_idle(conn) && (!used_lately || looked > MAKE_ROOM_LOOK_MAX / 2)) {
            conn_close(conn, CLOSE_MADE_ROOM);
            return true;
        }
        if (unfinished == NULL && (conn->state == CONN_HEAD || conn->state == CONN_PREFACE)) {
            unfinished = conn;
        }
        list_remove(first);
        list_push_back(&worker->conns, first);
    }
    if (unfinished != NULL) {
        conn_close(unfinished, CLOSE_HEAD_MADE_ROOM);
        return true;
    }
    return false;
}

/* The client is told to come back. A small answer always fits the buffer of a new socket; a client
 * that cannot be told is refused all the same. */
static void
turn_away(struct worker *worker, int fd, const struct peer *peer, struct turned_away *why)
{
    static const char answer[] = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\n"
                                 "Content-Length: 0\r\nConnection: close\r\n\r\n";
    char client[PEER_TEXT_MAX];

    (void)send(fd, answer, sizeof(answer) - 1, MSG_NOSIGNAL);
    (void)shutdown(fd, SHUT_WR);
    /* Closing with the request unread would reset the connection, and the answer with it. */
    (void)recv(fd, worker->scratch, sizeof(worker->scratch), 0);
    fd_close(&fd);
    why->count++;
    board_count(&worker->me->counters.status_5xx, 1);
    if (why == &worker->acceptor.no_memory || worker->now_ms - why->told_ms < 1000) {
        return; /* worker_tell_short() told the former */
    }
    if (why == &worker->acceptor.all_in_use) {
        log_warn("all connections are in use, new ones get 503 turned_away=%llu "
                 "setting=connections",
                 (unsigned long long)why->count);
    } else {
        (void)peer_format(peer, client);
        log_warn("clients have too many connections, new ones get 503 turned_away=%llu "
                 "setting=connections_per_client client=%s",
                 (unsigned long long)why->count, client);
    }
    why->told_ms = worker->now_ms;
    why->count = 0;
}

/* Accepts one connection; false when there is none to accept now. */
static bool
accept_one(struct lane *lane)
{
    struct worker *worker = lane->worker;
    uint32_t per_client = (uint32_t)worker->live->config->worker.connections_per_client;
    bool counted = false;
    struct sockaddr_storage address;
    socklen_t length = sizeof(address);
    struct peer peer;
    int fd =
        accept4(lane->io.fd, (struct sockaddr *)&address, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd == -1) {
        if (is_exhaustion(errno)) {
            pause_accepting(worker, errno);
        } else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != ECONNABORTED &&
                   errno != EINTR && errno != EPROTO) {
            log_error("accept failed: %s lane=%u", strerror(errno), lane->id);
        }
        return false;
    }
    note_accepted(worker);
    peer_from_sockaddr(&peer, (const struct sockaddr *)&address, length);
    if (per_client > 0 && peer.family != PEER_UNIX && !conn_expects_preface(worker, &peer)) {
        int result = client_counts_add(&worker->client_counts, &peer, per_client);
        if (result == -EDQUOT) {
            turn_away(worker, fd, &peer, &worker->acceptor.client_full);
            return true;
        }
        counted = result == 0; /* out of memory: served, and not counted */
    }
    if (worker->conn_count >= (uint32_t)worker->live->config->worker.connections &&
        !make_room(worker)) {
        if (counted) {
            client_counts_remove(&worker->client_counts, &peer);
        }
        turn_away(worker, fd, &peer, &worker->acceptor.all_in_use);
        return true;
    }
    if (!worker_has_memory(worker) || !conn_open(worker, fd, &peer, counted)) {
        worker_tell_short(worker, "no room for a new connection");
        if (counted) {
            client_counts_remove(&worker->client_counts, &peer);
        }
        turn_away(worker, fd, &peer, &worker->acceptor.no_memory);
        if (!worker->acceptor.paused) {
            rest(worker);
        }
        return false;
    }
    return true;
}

static void
on_lane_readable(struct ev_loop *loop, ev_io *io, int revents)
{
    struct lane *lane = lane_from_io(io);
    uint32_t accepted = 0;

    (void)loop;
    if ((revents & EV_ERROR) != 0) {
        /* The kernel would not watch it, for want of memory or of max_user_watches (epoll_ctl(2)),
         * and libev stopped the watcher. */
        pause_accepting(lane->worker, ENOSPC);
        return;
    }
    /* One accept per event at low load: a second would only say EAGAIN. Under load the burst
     * doubles, and falls back when the queue runs dry. */
    while (accepted < lane->burst && accept_one(lane)) {
        accepted++;
    }
    if (accepted == lane->burst) {
        lane->burst = lane->burst * 2 < ACCEPT_BURST_MAX ? lane->burst * 2 : ACCEPT_BURST_MAX;
    } else {
        lane->burst = accepted > 1 ? accepted : 1;
    }
}

static struct lane *
find_lane(struct worker *worker, uint32_t id)
{
    LIST_FOR_EACH (node, &worker->acceptor.lanes) {
        struct lane *lane = container_of(node, struct lane, node);
        if (lane->id == id) {
            return lane;
        }
    }
    return NULL;
}

static void
lane_free(struct lane *lane)
{
    ev_io_stop(lane->worker->loop, &lane->io);
    fd_close(&lane->io.fd);
    list_remove(&lane->node);
    free(lane);
}

void
acceptor_init(struct worker *worker)
{
    list_init(&worker->acceptor.lanes);
    ev_timer_init(&worker->acceptor.pause, on_pause_over, 0.0, 0.0);
    worker->acceptor.paused = false;
}

void
acceptor_release(struct worker *worker)
{
    LIST_FOR_EACH_SAFE (node, &worker->acceptor.lanes) {
        lane_free(container_of(node, struct lane, node));
    }
    ev_timer_stop(worker->loop, &worker->acceptor.pause);
}

void
acceptor_assign(struct worker *worker, uint32_t id, int fd)
{
    if (find_lane(worker, id) != NULL) {
        fd_close(&fd);
        return;
    }
    struct lane *lane = xcalloc(1, sizeof(*lane));
    lane->worker = worker;
    lane->id = id;
    lane->burst = 1;
    ev_io_init(&lane->io, on_lane_readable, fd, EV_READ);
    list_push_back(&worker->acceptor.lanes, &lane->node);
    if (!worker->acceptor.paused) {
        ev_io_start(worker->loop, &lane->io);
    }
    log_debug("lane assigned lane=%u", id);
}

void
acceptor_revoke(struct worker *worker, uint32_t id)
{
    struct lane *lane = find_lane(worker, id);

    if (lane != NULL) {
        while (accept_one(lane)) {
        }
        log_debug("lane revoked lane=%u", id);
        lane_free(lane);
    }
}

void
acceptor_revoke_all(struct worker *worker)
{
    LIST_FOR_EACH_SAFE (node, &worker->acceptor.lanes) {
        acceptor_revoke(worker, container_of(node, struct lane, node)->id);
    }
}
