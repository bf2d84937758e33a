/* SPDX-License-Identifier: Apache-2.0
 *
 * Which server gets the request: choosing, claiming, getting a connection. Runs in workers.
 *
 * A claim (scoreboard) is held from the choice of a server to the end of its part.
 */
#include "worker/proxy/proxy_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "config/base/hash.h"
#include "config/base/log.h"
#include "worker/conn.h"
#include "worker/proxy/balance.h"
#include "worker/proxy/upstream.h"
#include "worker/worker_private.h"

static uint64_t
hash_of_client(const struct proxy *proxy)
{
    const struct peer *peer = &proxy->exchange->client;

    return hash_bytes(0, peer->address, sizeof(peer->address));
}

/* Chooses and claims. Between looking and claiming another worker may take the last slot: then
 * that server counts as tried for this round and the choice is made again. */
static enum balance_result
choose_and_claim(struct proxy *proxy)
{
    struct worker *worker = proxy->worker;
    const struct backend_settings *settings = proxy_settings(proxy);
    uint64_t tried[BOARD_SERVERS_MAX / 64];
    bool lost_race = false;
    struct balance_input input = {
        .method = settings->balance,
        .board = worker->board,
        .records = settings->records,
        .count = settings->record_count,
        .tried = tried,
        .slots = (uint32_t)settings->slots,
        .hash = settings->balance == BALANCE_HASH ? hash_of_client(proxy) : 0,
        .now_ms = worker->now_ms,
    };

    memcpy(tried, proxy->tried, sizeof(tried));
    for (;;) {
        uint32_t index = 0;
        enum balance_result result = balance_choose(&proxy->backend->balance, &input, &index);
        if (result != BALANCE_CHOSEN) {
            return lost_race ? BALANCE_ALL_BUSY : result;
        }
        tried[index / 64] |= UINT64_C(1) << (index % 64);
        proxy->record = settings->records[index];
        if (board_claim(worker->board, worker->heritage->cell, proxy->record,
                        (uint32_t)settings->slots)) {
            proxy->claimed = true;
            proxy->tried[index / 64] |= UINT64_C(1) << (index % 64);
            return BALANCE_CHOSEN;
        }
        lost_race = true;
    }
}

/* Counts an attempt and begins it, on a connection that is there or under way. */
static void
start_attempt(struct proxy *proxy, struct upstream_conn *conn, bool reused)
{
    proxy_leave_queue(proxy);
    proxy->attempts++;
    if (proxy->attempts > 1) {
        conn_log(proxy->exchange->conn, LOG_LEVEL_INFO,
                 "trying again reason=\"%s\" backend=%s server=%s attempt=%u", proxy->failure,
                 proxy_settings(proxy)->name, proxy_server_text(proxy), proxy->attempts);
    }
    proxy->seen = 0;
    proxy->conn = conn;
    proxy->reused = reused;
    proxy->exchange->server = proxy_server_text(proxy);
}

enum use_result { USE_STARTED = 0, USE_BUSY, USE_FAILED };

/* Gets a connection to the claimed server. USE_BUSY: its accept queue is full (unix(7), EAGAIN);
 * the claim is given back, and nothing else has changed. USE_FAILED: the attempt was made and
 * failed; proxy_attempt_failed() has dealt with it. */
static enum use_result
use_server(struct proxy *proxy)
{
    struct worker *worker = proxy->worker;
    struct upstream_conn *conn = NULL;

    /* A second attempt gets a new connection: another kept one may be as stale as the first. */
    if (proxy->attempts == 0) {
        conn = upstream_acquire(worker, proxy->record, proxy);
    }
    bool reused = conn != NULL;
    int error = reused ? 0 : upstream_connect(worker, proxy->record, proxy, &conn);
    if (error == -EAGAIN) {
        proxy_unclaim(proxy);
        return USE_BUSY;
    }
    start_attempt(proxy, conn, reused);
    if (error != 0) {
        char reason[128];
        (void)snprintf(reason, sizeof(reason), "cannot connect to the server: %s",
                       strerror(-error));
        proxy_attempt_failed(proxy, FAILURE_CONNECT, reason, NULL);
        return USE_FAILED;
    }
    if (conn->state == UPSTREAM_CONNECTING) {
        proxy_set_state(proxy, PROXY_CONNECT);
        deadline_set(&conn->deadline, worker->loop, worker->now_ms,
                     proxy_settings(proxy)->connect_timeout_ms);
        proxy_rearm(proxy);
    } else {
        proxy_begin_request(proxy);
    }
    return USE_STARTED;
}

/* Whether a server of the backend is on its way: an app instance that boots. */
static bool
is_any_starting(const struct proxy *proxy)
{
    const struct backend_settings *settings = proxy_settings(proxy);

    for (uint32_t i = 0; i < settings->record_count; i++) {
        const struct board_server *server = &proxy->worker->board->servers[settings->records[i]];
        if (atomic_load_explicit(&server->state, memory_order_relaxed) == BOARD_STARTING) {
            return true;
        }
    }
    return false;
}

void
proxy_try(struct proxy *proxy)
{
    bool met_busy = false;

    for (;;) {
        switch (choose_and_claim(proxy)) {
        case BALANCE_CHOSEN:
            if (use_server(proxy) != USE_BUSY) {
                return;
            }
            met_busy = true; /* and the next one, if there is one */
            continue;
        case BALANCE_ALL_BUSY:
            proxy_enter_queue(proxy);
            return;
        case BALANCE_NONE:
            if (met_busy || is_any_starting(proxy)) {
                /* Full accept queues and boots pass; the deadline of the queue decides. */
                memset(proxy->tried, 0, sizeof(proxy->tried));
                proxy_enter_queue(proxy);
            } else if (proxy->attempts > 0) {
                proxy_fail_as_last_attempt(proxy);
            } else {
                proxy_fail(proxy, 503, "no server is ready", NULL);
            }
            return;
        }
    }
}

void
proxy_on_connected(struct proxy *proxy)
{
    int error = 0;
    socklen_t length = sizeof(error);

    if (getsockopt(proxy->conn->stream.io.fd, SOL_SOCKET, SO_ERROR, &error, &length) == -1) {
        error = errno;
    }
    if (error != 0) {
        char reason[128];
        (void)snprintf(reason, sizeof(reason), "cannot connect to the server: %s", strerror(error));
        proxy_attempt_failed(proxy, FAILURE_CONNECT, reason, NULL);
        return;
    }
    proxy->conn->state = UPSTREAM_ACTIVE;
    proxy_begin_request(proxy);
}

void
proxy_connect_timeout(struct proxy *proxy)
{
    proxy_attempt_failed(proxy, FAILURE_CONNECT, "no connection to the server in time",
                         "connect_timeout");
}
