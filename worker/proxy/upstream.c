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
#include "worker/proxy/idle_age.h"
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
        board_idle_unclaim(worker->board, worker->heritage->cell, conn->upstream->record);
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

/* ---- ages -------------------------------------------------------------------------------------
 */

static _Atomic int64_t *
closes_after_of(const struct upstream_conn *conn)
{
    return &conn->worker->board->servers[conn->upstream->record].closes_after_us;
}

/* Does not write what is not new: the line is shared by all workers. */
static void
learn(const struct upstream_conn *conn, int64_t before_us, int64_t after_us)
{
    if (after_us != before_us && conn->life == life_of(conn->worker, conn->upstream->record)) {
        atomic_store_explicit(closes_after_of(conn), after_us, memory_order_relaxed);
    }
}

static void
learn_close(const struct upstream_conn *conn, int64_t age_us)
{
    int64_t before_us = atomic_load_explicit(closes_after_of(conn), memory_order_relaxed);

    learn(conn, before_us, idle_age_closed(before_us, age_us));
}

static void
note_survival(struct upstream *upstream, int64_t age_us)
{
    if (age_us > upstream->survived_us) {
        upstream->survived_us = age_us;
    }
}

static int64_t
age_of(const struct upstream_conn *conn)
{
    return conn->worker->turn_us - conn->idle_since_us;
}

void
upstream_note_stale(const struct upstream_conn *conn)
{
    if (conn->reused_age_us > 0) {
        learn_close(conn, conn->reused_age_us);
    }
}

void
upstream_note_keep_alive(const struct upstream_conn *conn, int64_t keep_alive_ms)
{
    if (keep_alive_ms >= 0) {
        int64_t before_us = atomic_load_explicit(closes_after_of(conn), memory_order_relaxed);
        learn(conn, before_us, idle_age_told(before_us, keep_alive_ms * 1000));
    }
}

/* Asks the kernel: the loop may not have come to the event yet. */
static bool
is_still_open(const struct upstream_conn *conn)
{
    char byte;

    return recv(conn->stream.io.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == -1 &&
           (errno == EAGAIN || errno == EINTR);
}

/* Nothing was learned yet, and another idle connection is older: how long has that one lived?
 * Whether there is news in facts. */
static bool
look_at_oldest(struct upstream *upstream, struct idle_facts *facts)
{
    const struct upstream_conn *oldest =
        container_of(upstream->idle.prev, struct upstream_conn, node);

    if (facts->closes_after_us != 0 || age_of(oldest) <= upstream->survived_us ||
        !is_still_open(oldest)) {
        return false;
    }
    note_survival(upstream, age_of(oldest));
    facts->survived_us = upstream->survived_us;
    return true;
}

/* ---- taking and giving back -------------------------------------------------------------------
 */

struct upstream_conn *
upstream_acquire(struct worker *worker, uint32_t record, const struct backend_settings *settings,
                 bool is_idempotent, struct proxy *proxy)
{
    struct upstream *upstream = upstream_of(worker, record);
    const struct preface_owner owner = preface_owner_of(proxy);

    LIST_FOR_EACH_SAFE (node, &upstream->idle) {
        struct upstream_conn *conn = container_of(node, struct upstream_conn, node);
        if (conn->life != life_of(worker, record)) {
            end_connection(conn); /* another process answers at this record now */
            upstream->survived_us = 0;
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
        struct idle_facts facts = {
            .age_us = age_of(conn),
            .keep_us = settings->idle_timeout_ms * 1000,
            .closes_after_us = atomic_load_explicit(closes_after_of(conn), memory_order_relaxed),
            .survived_us = upstream->survived_us,
        };
        if (!idle_age_allows(&facts, is_idempotent) &&
            !(look_at_oldest(upstream, &facts) && idle_age_allows(&facts, is_idempotent))) {
            return NULL; /* the others are older */
        }
        list_remove(&conn->node);
        board_idle_unclaim(worker->board, worker->heritage->cell, record);
        conn->state = UPSTREAM_ACTIVE;
        conn->proxy = proxy;
        conn->reused_age_us = facts.age_us > 0 ? facts.age_us : 1;
        board_count(&worker->me->counters.upstream_reused, 1);
        return conn;
    }
    return NULL;
}

/* With slots a server handles so many requests at a time, and most that do keep a thread busy with
 * each connection. */
static uint32_t
idle_max(const struct worker *worker, uint32_t record, const struct backend_settings *settings)
{
    uint32_t slots =
        atomic_load_explicit(&worker->board->servers[record].slots, memory_order_relaxed);
    uint32_t most = (uint32_t)settings->idle_connections;

    return slots > 0 && slots < most ? slots : most;
}

void
upstream_release_to_pool(struct upstream_conn **owned, const struct backend_settings *settings)
{
    struct upstream_conn *conn = *owned;
    struct upstream *upstream = conn->upstream;

    *owned = NULL;
    CHECK(conn->state == UPSTREAM_ACTIVE && stream_is_drained(&conn->stream));
    struct worker *worker = conn->worker;
    conn->requests++;
    note_survival(upstream, conn->reused_age_us);
    int64_t keep_us =
        idle_age_keep_us(settings->idle_timeout_ms * 1000,
                         atomic_load_explicit(closes_after_of(conn), memory_order_relaxed));
    if (keep_us == 0 || worker->draining || conn->life != life_of(worker, upstream->record) ||
        !board_idle_claim(worker->board, worker->heritage->cell, upstream->record,
                          idle_max(worker, upstream->record, settings))) {
        end_connection(conn);
        return;
    }
    conn->proxy = NULL;
    conn->state = UPSTREAM_IDLE;
    conn->idle_since_us = worker->turn_us;
    conn->reused_age_us = 0;
    list_push_front(&upstream->idle, &conn->node);
    deadline_set(&conn->deadline, worker->loop, worker->now_ms,
                 keep_us > 1000 ? keep_us / 1000 : 1);
    stream_watch(&conn->stream, worker->loop, EV_READ);
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
        learn_close(conn, age_of(conn));
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

/* It was kept for as long as it was trusted. */
static void
note_end_of_trust(const struct upstream_conn *conn)
{
    int64_t before_us = atomic_load_explicit(closes_after_of(conn), memory_order_relaxed);
    int64_t age_us = age_of(conn);

    if (is_still_open(conn)) {
        note_survival(conn->upstream, age_us);
        learn(conn, before_us, idle_age_outlived(before_us, age_us));
    } else {
        learn_close(conn, age_us);
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
        note_end_of_trust(conn);
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
