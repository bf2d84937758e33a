/* SPDX-License-Identifier: Apache-2.0
 *
 * Connections to servers and their pools. Runs in workers.
 *
 *   connect ---> CONNECTING ---> ACTIVE <---> IDLE
 *                    |              |           |
 *                    +--------------+-----------+--> CLOSED (graveyard until the end of the turn)
 *
 * A connection that is IDLE owes nobody anything: the server may close it, and any byte it sends
 * then is a reason to close it too, for no request is open that could be answered.
 */
#include "worker/proxy/upstream.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "config/base/check.h"
#include "config/base/fd.h"
#include "config/base/log.h"
#include "config/config.h"
#include "worker/proxy/proxy.h"
#include "worker/worker_private.h"

static struct upstream_conn *
upstream_conn_from_io(ev_io *io)
{
    return container_of(container_of(io, struct stream, io), struct upstream_conn, stream);
}

static struct upstream_conn *
upstream_conn_from_timer(ev_timer *timer)
{
    return container_of(container_of(timer, struct deadline, timer), struct upstream_conn,
                        deadline);
}

/* ---- pools ------------------------------------------------------------------------------------
 */

void
upstream_init(struct worker *worker)
{
    memset(worker->upstreams, 0, sizeof(worker->upstreams));
}

static struct upstream *
upstream_of(struct worker *worker, uint32_t record)
{
    struct upstream *upstream = worker->upstreams[record];

    if (upstream == NULL) {
        upstream = xcalloc(1, sizeof(*upstream));
        upstream->record = record;
        list_init(&upstream->idle);
        worker->upstreams[record] = upstream;
    }
    return upstream;
}

static uint32_t
life_of(const struct worker *worker, uint32_t record)
{
    return atomic_load_explicit(&worker->board->servers[record].life, memory_order_acquire);
}

/* Whether what was read of a record since its life was read is whole, and of that life. */
static bool
is_current(const struct worker *worker, uint32_t record, uint32_t life)
{
    const struct board_server *server = &worker->board->servers[record];

    atomic_thread_fence(memory_order_acquire);
    uint32_t state = atomic_load_explicit(&server->state, memory_order_relaxed);
    return state != BOARD_FREE && state != BOARD_STARTING &&
           atomic_load_explicit(&server->life, memory_order_relaxed) == life;
}

static void
end_connection(struct upstream_conn *conn)
{
    struct worker *worker = conn->worker;

    if (conn->state == UPSTREAM_IDLE) {
        conn->upstream->idle_count--;
    }
    list_remove(&conn->node);
    conn->state = UPSTREAM_CLOSED;
    conn->proxy = NULL;
    stream_close(&conn->stream, worker->loop);
    deadline_stop(&conn->deadline, worker->loop);
    list_push_back(&worker->upstream_graveyard, &conn->node);
}

void
upstream_empty_graveyard(struct worker *worker)
{
    LIST_FOR_EACH_SAFE (node, &worker->upstream_graveyard) {
        struct upstream_conn *conn = container_of(node, struct upstream_conn, node);
        list_remove(node);
        free(conn->owner);
        free(conn);
    }
}

void
upstream_release(struct worker *worker)
{
    for (uint32_t record = 0; record < BOARD_SERVERS_MAX; record++) {
        struct upstream *upstream = worker->upstreams[record];
        if (upstream == NULL) {
            continue;
        }
        LIST_FOR_EACH_SAFE (node, &upstream->idle) {
            end_connection(container_of(node, struct upstream_conn, node));
        }
        free(upstream);
        worker->upstreams[record] = NULL;
    }
    upstream_empty_graveyard(worker);
}

struct upstream_conn *
upstream_acquire(struct worker *worker, uint32_t record, struct proxy *proxy)
{
    struct upstream *upstream = upstream_of(worker, record);
    const struct preface_owner owner = preface_owner_of(proxy);

    LIST_FOR_EACH_SAFE (node, &upstream->idle) {
        struct upstream_conn *conn = container_of(node, struct upstream_conn, node);
        if (conn->life != life_of(worker, record)) {
            end_connection(conn); /* another process answers at this record now */
            continue;
        }
        if (!preface_owner_equal(conn->owner, &owner)) {
            continue;
        }
        if (ev_is_pending(&conn->stream.io)) {
            /* It closed, or sent what nobody asked for, and only its turn has not come yet: a
             * request on it would fail, or get an answer that is not its own. */
            end_connection(conn);
            continue;
        }
        list_remove(&conn->node);
        upstream->idle_count--;
        conn->state = UPSTREAM_ACTIVE;
        conn->proxy = proxy;
        board_count(&worker->me->counters.upstream_reused, 1);
        return conn;
    }
    return NULL;
}

void
upstream_release_to_pool(struct upstream_conn **owned, const struct backend_settings *settings)
{
    struct upstream_conn *conn = *owned;
    struct upstream *upstream = conn->upstream;

    *owned = NULL;
    CHECK(conn->state == UPSTREAM_ACTIVE && stream_is_drained(&conn->stream));
    conn->requests++;
    if (settings->idle_timeout_ms == 0 || conn->worker->draining ||
        upstream->idle_count >= (uint32_t)settings->idle_connections ||
        conn->life != life_of(conn->worker, upstream->record)) {
        end_connection(conn);
        return;
    }
    conn->proxy = NULL;
    conn->state = UPSTREAM_IDLE;
    list_push_front(&upstream->idle, &conn->node);
    upstream->idle_count++;
    deadline_set(&conn->deadline, conn->worker->loop, conn->worker->now_ms,
                 settings->idle_timeout_ms);
    stream_watch(&conn->stream, conn->worker->loop, EV_READ);
}

void
upstream_close(struct upstream_conn **owned)
{
    if (*owned != NULL) {
        end_connection(*owned);
        *owned = NULL;
    }
}

/* ---- events -----------------------------------------------------------------------------------
 */

static void
on_upstream_io(struct ev_loop *loop, ev_io *io, int revents)
{
    struct upstream_conn *conn = upstream_conn_from_io(io);

    (void)loop;
    switch (conn->state) {
    case UPSTREAM_IDLE:
        end_connection(conn);
        return;
    case UPSTREAM_CONNECTING:
    case UPSTREAM_ACTIVE:
        proxy_on_upstream(conn->proxy, revents);
        return;
    case UPSTREAM_CLOSED:
        return;
    }
}

static void
on_upstream_timeout(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct upstream_conn *conn = upstream_conn_from_timer(timer);

    (void)revents;
    if (!deadline_is_due(&conn->deadline, loop, conn->worker->now_ms)) {
        return;
    }
    switch (conn->state) {
    case UPSTREAM_IDLE:
        end_connection(conn);
        return;
    case UPSTREAM_CONNECTING:
    case UPSTREAM_ACTIVE:
        proxy_on_upstream_timeout(conn->proxy);
        return;
    case UPSTREAM_CLOSED:
        return;
    }
}

/* ---- connecting -------------------------------------------------------------------------------
 */

int
upstream_connect(struct worker *worker, uint32_t record, struct proxy *proxy,
                 struct upstream_conn **ret_conn)
{
    struct address copy;
    const struct address *address = &copy;
    uint32_t life = life_of(worker, record);

    /* The record may be getting another address this very moment (server_registry.c). */
    copy = worker->board->servers[record].address;
    if (!is_current(worker, record, life)) {
        return -EAGAIN;
    }
    int fd = socket(address->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int one = 1;
    int result;

    if (fd == -1) {
        return -errno;
    }
    if (address->kind == ADDRESS_TCP) {
        /* Pieces of a streamed body must not wait for the acknowledgement of the one before. */
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    }
    do {
        result = connect(fd, &address->sa, address->length);
    } while (result == -1 && errno == EINTR);
    if (result == -1 && errno != EINPROGRESS) {
        int error = errno;
        fd_close(&fd);
        return -error;
    }
    struct upstream_conn *conn = xcalloc(1, sizeof(*conn));
    conn->worker = worker;
    conn->upstream = upstream_of(worker, record);
    conn->proxy = proxy;
    conn->life = life;
    const struct preface_owner owner = preface_owner_of(proxy);
    if (owner.version != PROXY_OFF) {
        conn->owner = xcalloc(1, sizeof(owner));
        *conn->owner = owner;
    }
    conn->state = result == 0 ? UPSTREAM_ACTIVE : UPSTREAM_CONNECTING;
    list_init(&conn->node);
    stream_init(&conn->stream, &worker->batch, fd, on_upstream_io);
    deadline_init(&conn->deadline, on_upstream_timeout);
    board_count(&worker->me->counters.upstream_connects, 1);
    *ret_conn = conn;
    return 0;
}
