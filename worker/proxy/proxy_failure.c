/* SPDX-License-Identifier: Apache-2.0
 *
 * What a failure of a server means: another attempt where retry_decide() finds it safe, an answer
 * to the client that says what failed, or a response that is cut so that the client can tell. Runs
 * in workers.
 */
#include "worker/proxy/proxy_private.h"

#include <stdio.h>
#include <string.h>

#include "worker/conn.h"
#include "worker/proxy/upstream.h"
#include "worker/worker_private.h"

/* Servers asked for one request, at most. */
#define ATTEMPTS_MAX 4u
/* A server that refused this many connections in a row rests for that long. */
#define FAILURES_TO_REST 3u
#define REST_MS 2000
/* What a client is told with 503. */
#define RETRY_AFTER STR("Retry-After: 2\r\n")

static void
note_connect_failure(struct proxy *proxy)
{
    struct board_server *server = &proxy->worker->board->servers[proxy->record];
    uint32_t failures = atomic_fetch_add_explicit(&server->failures, 1, memory_order_relaxed) + 1;

    if (failures >= FAILURES_TO_REST) {
        atomic_store_explicit(&server->down_until_ms, proxy->worker->now_ms + REST_MS,
                              memory_order_relaxed);
    }
}

void
proxy_note_success(struct proxy *proxy)
{
    struct board_server *server = &proxy->worker->board->servers[proxy->record];

    if (atomic_load_explicit(&server->failures, memory_order_relaxed) != 0) {
        atomic_store_explicit(&server->failures, 0, memory_order_relaxed);
        atomic_store_explicit(&server->down_until_ms, 0, memory_order_relaxed);
    }
}

void
proxy_fail(struct proxy *proxy, int status, const char *reason, const char *setting)
{
    char text[256];
    struct exchange *exchange = proxy->exchange;

    (void)snprintf(text, sizeof(text), "%s backend=%s%s%s", reason, proxy_settings(proxy)->name,
                   proxy->attempts > 0 ? " server=" : "",
                   proxy->attempts > 0 ? proxy_server_text(proxy) : "");
    proxy_leave_queue(proxy);
    upstream_close(&proxy->conn);
    proxy_unclaim(proxy);
    proxy_set_state(proxy, PROXY_DONE);
    exchange_fail(exchange, status, text, setting, status == 503 ? RETRY_AFTER : STR(""));
}

/* Tells the client how the last attempt ended. */
void
proxy_fail_as_last_attempt(struct proxy *proxy)
{
    char reason[sizeof(proxy->failure)];

    memcpy(reason, proxy->failure, sizeof(reason));
    proxy_fail(proxy, proxy->failure_setting != NULL ? 504 : 502, reason, proxy->failure_setting);
}

/* The attempt with the server of proxy->record failed: try again where that is safe, else tell the
 * client. setting: the clock that ran out, or NULL. */
void
proxy_attempt_failed(struct proxy *proxy, enum upstream_failure failure, const char *reason,
                     const char *setting)
{
    struct worker *worker = proxy->worker;
    struct upstream_conn *conn = proxy->conn;
    struct retry_facts facts = {
        .method = proxy->exchange->head->method,
        .failure = failure,
        .reused = proxy->reused,
        .bytes_sent = conn != NULL ? conn->stream.sent_bytes - proxy->sent_mark : 0,
        .bytes_seen = proxy->seen,
        .body_consumed = proxy->body_consumed,
        .attempts = proxy->attempts,
        .attempts_max = ATTEMPTS_MAX,
    };

    board_count(&worker->me->counters.upstream_failures, 1);
    if (failure == FAILURE_CONNECT) {
        note_connect_failure(proxy);
    }
    enum retry_decision decision = proxy->exchange->status == 0 ? retry_decide(&facts) : RETRY_NO;
    (void)snprintf(proxy->failure, sizeof(proxy->failure), "%s", reason);
    proxy->failure_setting = setting;
    if (decision == RETRY_NO) {
        proxy_fail_as_last_attempt(proxy);
        return;
    }
    if (decision == RETRY_SAME) {
        /* A kept connection was stale: the server itself is not to blame. */
        for (uint32_t i = 0; i < proxy_settings(proxy)->record_count; i++) {
            if (proxy_settings(proxy)->records[i] == proxy->record) {
                proxy->tried[i / 64] &= ~(UINT64_C(1) << (i % 64));
            }
        }
    }
    upstream_close(&proxy->conn);
    proxy_unclaim(proxy);
    proxy_forget_input(proxy);
    if (proxy->state != PROXY_CHOOSE) { /* where connect(2) fails at once it still is */
        proxy_set_state(proxy, PROXY_CHOOSE);
    }
    proxy_try(proxy);
}

void
proxy_server_broke(struct proxy *proxy, const char *reason)
{
    char text[256];

    (void)snprintf(text, sizeof(text), "%s backend=%s server=%s", reason,
                   proxy_settings(proxy)->name, proxy_server_text(proxy));
    board_count(&proxy->worker->me->counters.upstream_failures, 1);
    upstream_close(&proxy->conn);
    proxy_unclaim(proxy);
    proxy_set_state(proxy, PROXY_DONE);
    exchange_break(proxy->exchange, text);
}
