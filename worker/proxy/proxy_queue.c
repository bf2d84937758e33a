/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests that wait for a slot at a server, or for a server that is starting. Runs in workers.
 *
 * One queue per worker, first in, first out. A request that waits owns no connection and no claim.
 */
#include "worker/proxy/proxy_private.h"

#include "config/base/list.h"
#include "config/config.h"
#include "worker/conn.h"
#include "worker/deadline.h"
#include "worker/worker_private.h"

/* How often requests that wait for a slot look whether another worker gave one back. */
#define WAIT_TICK_MS 5

void
proxy_leave_queue(struct proxy *proxy)
{
    struct worker *worker = proxy->worker;

    if (list_is_linked(&proxy->wait_node)) {
        list_remove(&proxy->wait_node);
        deadline_stop(&proxy->queue_deadline, worker->loop);
        proxy->backend->waiting_count--;
        worker->waiting_count--;
        if (worker->waiting_count == 0) {
            ev_timer_stop(worker->loop, &worker->wait_tick);
        }
    }
}

static void
on_queue_timeout(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct proxy *proxy =
        container_of(container_of(timer, struct deadline, timer), struct proxy, queue_deadline);
    struct conn *conn = proxy->exchange->conn;

    (void)revents;
    if (deadline_is_due(&proxy->queue_deadline, loop, proxy->worker->now_ms)) {
        proxy_fail(proxy, 503, "no server was free in time", "queue_timeout");
        conn_settle(conn);
    }
}

void
proxy_enter_queue(struct proxy *proxy)
{
    struct worker *worker = proxy->worker;
    const struct backend_settings *settings = proxy_settings(proxy);

    if (list_is_linked(&proxy->wait_node)) {
        return;
    }
    if (proxy->backend->waiting_count >= (uint32_t)settings->queue) {
        proxy_fail(proxy, 503, "all slots are taken and the queue is full", "queue");
        return;
    }
    proxy_set_state(proxy, PROXY_QUEUE);
    list_push_back(&worker->waiting, &proxy->wait_node);
    proxy->backend->waiting_count++;
    worker->waiting_count++;
    if (!ev_is_active(&worker->wait_tick)) {
        ev_timer_set(&worker->wait_tick, WAIT_TICK_MS / 1000.0, WAIT_TICK_MS / 1000.0);
        ev_timer_start(worker->loop, &worker->wait_tick);
    }
    deadline_set(&proxy->queue_deadline, worker->loop, worker->now_ms, settings->queue_timeout_ms);
}

/* Those who wait look again, the first first; only those who waited when it began, so that one who
 * has to wait on does not make this endless. */
static void
serve_queue(struct worker *worker)
{
    uint32_t count = worker->waiting_count;
    struct list_node *node = worker->waiting.next;

    while (count-- > 0 && node != &worker->waiting) {
        struct proxy *proxy = container_of(node, struct proxy, wait_node);
        struct conn *conn = proxy->exchange->conn;
        node = node->next;
        proxy_try(proxy);
        conn_settle(conn);
    }
}

/* Another worker may have given a slot back. */
static void
on_wait_tick(struct ev_loop *loop, ev_timer *timer, int revents)
{
    (void)loop;
    (void)revents;
    serve_queue(container_of(timer, struct worker, wait_tick));
}

/* This worker gave a slot back in the turn before. */
static void
on_wait_wake(struct ev_loop *loop, ev_timer *timer, int revents)
{
    (void)loop;
    (void)revents;
    serve_queue(container_of(timer, struct worker, wait_wake));
}

void
proxy_queue_init(struct worker *worker)
{
    list_init(&worker->waiting);
    ev_timer_init(&worker->wait_tick, on_wait_tick, 0.0, 0.0);
    ev_timer_init(&worker->wait_wake, on_wait_wake, 0.0, 0.0);
}

void
proxy_init_waiting(struct proxy *proxy)
{
    list_init(&proxy->wait_node);
    deadline_init(&proxy->queue_deadline, on_queue_timeout);
}
