/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests that wait for a slot at a server, or for a server that is starting. Runs in workers.
 *
 * The order is that of the shared queue (slot_queue.h). The waiting room has this worker's part
 * of each queue, in the same order, so that what was handed to it is found at the front. A request
 * that waits owns a ticket, no connection and no claim; what it is handed, it takes in a turn of
 * its own worker's loop, which whoever handed it over wakes.
 *
 * Slots become free where requests end (proxy_unclaim), or without an end: a server rested for long
 * enough, its accept queue may have room again. For the latter a worker that has requests waiting
 * looks once, at that moment. Deaths, boots and new settings are the master's (waiting.c there).
 */
#include "worker/proxy/proxy_private.h"

#include <stdlib.h>
#include <string.h>

#include "config/base/check.h"
#include "config/base/fd.h"
#include "config/base/list.h"
#include "config/config.h"
#include "worker/conn.h"
#include "worker/deadline.h"
#include "worker/proxy/balance.h"
#include "worker/proxy/health.h"
#include "worker/slot_queue.h"
#include "worker/wake.h"
#include "worker/worker_private.h"

/* This worker's part of one queue. */
struct waiting_row {
    struct list_node node;    /* waiting_room.rows, while somebody waits */
    struct list_node proxies; /* struct proxy.wait_node, oldest first */
};

struct waiting_room {
    struct worker *worker;
    int wake_fd; /* owned */
    ev_io wake;
    ev_timer soon;         /* one shot: something was handed to this worker by itself */
    ev_timer look;         /* one shot: a server that was left out may be chosen at look_ms */
    int64_t look_ms;       /* 0: not running */
    struct list_node rows; /* struct waiting_row.node */
    struct waiting_row *row_of_queue[BOARD_QUEUES_MAX]; /* owned; made on first use */
};

static struct board_queue *
queue_of(const struct proxy *proxy)
{
    return &proxy->worker->board->queues[proxy->backend->queue];
}

static uint32_t
cell_of(const struct worker *worker)
{
    return worker->heritage->cell;
}

/* ---- waking ------------------------------------------------------------------------------------
 */

static void
wake_cell(struct worker *worker, uint32_t cell)
{
    struct waiting_room *room = worker->waiting_room;

    if (cell != cell_of(worker)) {
        wake_send(room->wake_fd, worker->board->workers[cell].wake_name);
    } else if (!ev_is_active(&room->soon)) {
        ev_timer_set(&room->soon, 0.0, 0.0);
        ev_timer_start(worker->loop, &room->soon);
    }
}

static void
look_at(struct waiting_room *room, int64_t when_ms)
{
    struct ev_loop *loop = room->worker->loop;

    if (when_ms == 0 || list_is_empty(&room->rows) ||
        (room->look_ms != 0 && room->look_ms <= when_ms)) {
        return;
    }
    int64_t in_ms = when_ms - room->worker->now_ms;
    ev_timer_stop(loop, &room->look);
    room->look_ms = when_ms;
    ev_timer_set(&room->look, in_ms > 0 ? (double)in_ms / 1000.0 : 0.0, 0.0);
    ev_timer_start(loop, &room->look);
}

/* ---- handing slots to who waits ----------------------------------------------------------------
 */

/* The settings in use decide which servers get requests, also those of older settings; a backend
 * that is gone from them goes on with what it had. */
static struct backend *
current_backend(struct worker *worker, struct backend *backend)
{
    struct live *live = worker->live;

    for (size_t i = 0; i < live->config->backend_count; i++) {
        if (live->backends[i].queue == backend->queue) {
            return &live->backends[i];
        }
    }
    return backend;
}

/* Claims what is free and hands it to who waits, until nothing is free or nobody waits. Between
 * each look at the queue and each look at the servers anything may happen in other workers: who
 * changes one of them looks at the other one afterwards, so somebody sees both. */
static void
dispatch(struct worker *worker, struct backend *backend)
{
    struct board_queue *queue = &worker->board->queues[backend->queue];
    uint64_t left_out[BOARD_SERVERS_MAX / 64] = {0};
    struct balance_input input = proxy_balance_input(worker, backend, left_out);
    uint32_t cell = cell_of(worker);

    while (slot_queue_wants(queue, SLOT_QUEUE_ANY)) {
        uint32_t index;
        if (balance_choose(&backend->balance, &input, &index) != BALANCE_CHOSEN) {
            look_at(worker->waiting_room, backend->balance.again_ms);
            return;
        }
        uint32_t record = input.records[index];
        uint32_t slots =
            atomic_load_explicit(&worker->board->servers[record].slots, memory_order_relaxed);
        if (!slot_queue_wants(queue, record)) {
            left_out[index / 64] |= UINT64_C(1) << (index % 64); /* all that wait exclude it */
        } else if (!health_admit(&worker->board->servers[record], backend->settings,
                                 worker->now_ms)) {
            continue; /* another request is its trial */
        } else if (board_claim(worker->board, cell, record, slots)) {
            uint32_t whom;
            if (slot_queue_hand_over(worker->board, queue, cell, record, &whom)) {
                wake_cell(worker, whom);
            } else {
                board_unclaim(worker->board, cell, record);
            }
        }
    }
}

/* Whether a slot that becomes free at record may go to who waits without a choice: the balancer
 * could have chosen it, and the limit was not lowered meanwhile. */
static bool
may_hand_over(const struct worker *worker, const struct backend *backend, uint32_t record)
{
    const struct board_server *server = &worker->board->servers[record];
    uint32_t slots = atomic_load_explicit(&server->slots, memory_order_relaxed);

    if (atomic_load_explicit(&server->state, memory_order_acquire) != BOARD_READY ||
        atomic_load_explicit(&server->is_backup, memory_order_relaxed) != 0 ||
        health_standing(server, backend->settings->health_path != NULL, worker->now_ms) !=
            HEALTH_UP ||
        atomic_load_explicit(&server->full_until_ms, memory_order_relaxed) > worker->now_ms ||
        (slots > 0 && atomic_load_explicit(&server->in_flight, memory_order_relaxed) > slots)) {
        return false;
    }
    for (uint32_t i = 0; i < backend->settings->record_count; i++) {
        if (backend->settings->records[i] == record) {
            return true;
        }
    }
    return false;
}

void
proxy_server_changed(struct worker *worker, struct backend *backend)
{
    /* Who shows that a server has changed looks at the queue after that, as who frees a slot does.
     */
    atomic_thread_fence(memory_order_seq_cst);
    dispatch(worker, current_backend(worker, backend));
}

static void
give_back(struct worker *worker, struct backend *own, uint32_t record)
{
    struct board_queue *queue = &worker->board->queues[own->queue];
    uint32_t whom;

    if (slot_queue_wants(queue, record)) {
        struct backend *backend = current_backend(worker, own);
        if (may_hand_over(worker, backend, record) &&
            slot_queue_hand_over(worker->board, queue, cell_of(worker), record, &whom)) {
            wake_cell(worker, whom);
            return;
        }
    }
    board_unclaim(worker->board, cell_of(worker), record);
    if (slot_queue_wants(queue, SLOT_QUEUE_ANY)) {
        dispatch(worker, current_backend(worker, own));
    }
}

void
proxy_unclaim(struct proxy *proxy)
{
    if (proxy->claimed) {
        proxy->claimed = false;
        give_back(proxy->worker, proxy->backend, proxy->record);
    }
}

/* ---- waiting -----------------------------------------------------------------------------------
 */

/* Out of the waiting room; the ticket is the caller's. */
static void
stand_up(struct proxy *proxy)
{
    struct waiting_room *room = proxy->worker->waiting_room;
    struct waiting_row *row = room->row_of_queue[proxy->backend->queue];

    list_remove(&proxy->wait_node);
    deadline_stop(&proxy->queue_deadline, proxy->worker->loop);
    if (list_is_empty(&row->proxies)) {
        list_remove(&row->node);
    }
}

/* It was handed something: takes it and goes on. */
static void
take_handed(struct proxy *proxy)
{
    struct conn *conn = proxy->exchange->conn;

    stand_up(proxy);
    proxy->record = slot_queue_take(proxy->worker->board, queue_of(proxy), cell_of(proxy->worker),
                                    proxy->ticket);
    proxy->claimed = true;
    proxy_use_handed(proxy);
    conn_settle(conn);
}

void
proxy_leave_queue(struct proxy *proxy)
{
    uint32_t record;

    if (!list_is_linked(&proxy->wait_node)) {
        return;
    }
    stand_up(proxy);
    if (!slot_queue_leave(proxy->worker->board, queue_of(proxy), cell_of(proxy->worker),
                          proxy->ticket, &record)) {
        give_back(proxy->worker, proxy->backend, record);
    }
}

static void
on_queue_timeout(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct proxy *proxy =
        container_of(container_of(timer, struct deadline, timer), struct proxy, queue_deadline);
    struct conn *conn = proxy->exchange->conn;
    uint32_t record;

    (void)revents;
    if (!deadline_is_due(&proxy->queue_deadline, loop, proxy->worker->now_ms)) {
        return;
    }
    if (slot_queue_is_handed(queue_of(proxy), proxy->ticket, &record)) {
        take_handed(proxy);
        return;
    }
    proxy_fail(proxy, 503, "no server was free in time", "queue_timeout");
    conn_settle(conn);
}

static struct waiting_row *
row_for(struct waiting_room *room, uint32_t queue)
{
    struct waiting_row *row = room->row_of_queue[queue];

    if (row == NULL) {
        row = xcalloc(1, sizeof(*row));
        list_init(&row->node);
        list_init(&row->proxies);
        room->row_of_queue[queue] = row;
    }
    return row;
}

bool
proxy_must_wait(const struct proxy *proxy)
{
    return slot_queue_wants(queue_of(proxy), SLOT_QUEUE_ANY);
}

void
proxy_enter_queue(struct proxy *proxy, bool excludes)
{
    struct worker *worker = proxy->worker;
    struct waiting_room *room = worker->waiting_room;
    const struct backend_settings *settings = proxy_settings(proxy);

    /* However often it comes back after a failure, it waits for queue_timeout in all. */
    if (proxy->queue_until_ms == 0) {
        proxy->queue_until_ms = worker->now_ms + settings->queue_timeout_ms;
    }
    if (proxy->queue_until_ms <= worker->now_ms) {
        proxy_fail(proxy, 503, "no server was free in time", "queue_timeout");
        return;
    }
    if (slot_queue_enter(queue_of(proxy), cell_of(worker), (uint32_t)settings->queue,
                         excludes ? proxy->last_record : SLOT_QUEUE_ANY, &proxy->ticket) != 0) {
        proxy_fail(proxy, 503, "all slots are taken and the queue is full", "queue");
        return;
    }
    if (proxy->state != PROXY_QUEUE) {
        proxy_set_state(proxy, PROXY_QUEUE);
    }
    struct waiting_row *row = row_for(room, proxy->backend->queue);
    if (list_is_empty(&row->proxies)) {
        list_push_back(&room->rows, &row->node);
    }
    list_push_back(&row->proxies, &proxy->wait_node);
    proxy->excludes = excludes;
    deadline_set(&proxy->queue_deadline, worker->loop, worker->now_ms,
                 proxy->queue_until_ms - worker->now_ms);
    /* A slot may have become free since the look that found none. */
    dispatch(worker, current_backend(worker, proxy->backend));
}

/* ---- the worker's turns ------------------------------------------------------------------------
 */

/* Slots are handed out in the order of the queue, but that a ticket is passed over by the server it
 * excludes: behind the first one that waits and excludes none nobody can have been handed any. */
static void
serve_row(struct waiting_row *row)
{
    struct list_node *node = row->proxies.next;

    while (node != &row->proxies) {
        struct proxy *proxy = container_of(node, struct proxy, wait_node);
        uint32_t record;
        node = node->next;
        if (slot_queue_is_handed(queue_of(proxy), proxy->ticket, &record)) {
            take_handed(proxy);
        } else if (!proxy->excludes) {
            return;
        }
    }
}

static void
serve_room(struct waiting_room *room)
{
    LIST_FOR_EACH_SAFE (node, &room->rows) {
        serve_row(container_of(node, struct waiting_row, node));
    }
}

static void
on_wake(struct ev_loop *loop, ev_io *io, int revents)
{
    struct waiting_room *room = container_of(io, struct waiting_room, wake);

    (void)loop;
    (void)revents;
    wake_clear(room->wake_fd); /* before the look, so that what comes after it wakes again */
    serve_room(room);
}

static void
on_soon(struct ev_loop *loop, ev_timer *timer, int revents)
{
    (void)loop;
    (void)revents;
    serve_room(container_of(timer, struct waiting_room, soon));
}

static void
on_look(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct waiting_room *room = container_of(timer, struct waiting_room, look);

    (void)loop;
    (void)revents;
    room->look_ms = 0;
    LIST_FOR_EACH_SAFE (node, &room->rows) {
        struct waiting_row *row = container_of(node, struct waiting_row, node);
        struct proxy *first = container_of(list_first(&row->proxies), struct proxy, wait_node);
        dispatch(room->worker, current_backend(room->worker, first->backend));
    }
}

int
proxy_queue_new(struct worker *worker)
{
    struct waiting_room *room = xcalloc(1, sizeof(*room));
    int result = wake_listen(&room->wake_fd, worker->me->wake_name);

    if (result != 0) {
        free(room);
        return result;
    }
    room->worker = worker;
    list_init(&room->rows);
    ev_timer_init(&room->soon, on_soon, 0.0, 0.0);
    ev_timer_init(&room->look, on_look, 0.0, 0.0);
    ev_io_init(&room->wake, on_wake, room->wake_fd, EV_READ);
    ev_io_start(worker->loop, &room->wake);
    worker->waiting_room = room;
    return 0;
}

void
proxy_queue_free(struct worker *worker)
{
    struct waiting_room *room = worker->waiting_room;

    CHECK(list_is_empty(&room->rows));
    ev_io_stop(worker->loop, &room->wake);
    ev_timer_stop(worker->loop, &room->soon);
    ev_timer_stop(worker->loop, &room->look);
    for (uint32_t queue = 0; queue < BOARD_QUEUES_MAX; queue++) {
        free(room->row_of_queue[queue]);
    }
    fd_close(&room->wake_fd);
    free(room);
    worker->waiting_room = NULL;
}

void
proxy_init_waiting(struct proxy *proxy)
{
    list_init(&proxy->wait_node);
    deadline_init(&proxy->queue_deadline, on_queue_timeout);
}
