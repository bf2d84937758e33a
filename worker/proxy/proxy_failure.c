/* SPDX-License-Identifier: Apache-2.0
 *
 * What a failure of a server means: another attempt where retry_decide() finds it safe, an answer
 * to the client that says what failed, or a response that is cut so that the client can tell. Runs
 * in workers.
 */
#include "worker/proxy/proxy_private.h"

#include <stdio.h>
#include <string.h>

#include "config/base/log.h"
#include "worker/conn.h"
#include "worker/proxy/health.h"
#include "worker/proxy/unread_proof.h"
#include "worker/proxy/upstream.h"
#include "worker/worker_private.h"

/* What a client is told with 503. */
#define RETRY_AFTER STR("Retry-After: 2\r\n")

static struct board_server *
server_of(const struct proxy *proxy)
{
    return &proxy->worker->board->servers[proxy->record];
}

static void
note_failure(struct proxy *proxy, const char *reason)
{
    const struct backend_settings *settings = proxy_settings(proxy);

    if (health_failed(server_of(proxy), settings, proxy->worker->now_ms) == HEALTH_WENT_DOWN) {
        log_warn(
            "server rests after %lld failures in a row reason=\"%s\" backend=%s server=%s; see "
            "max_fails and fail_timeout",
            (long long)settings->max_fails, reason, settings->name, proxy_server_text(proxy));
    }
}

void
proxy_note_answer(struct proxy *proxy, int status)
{
    const struct backend_settings *settings = proxy_settings(proxy);

    switch (health_answered(server_of(proxy), settings, status, proxy->worker->now_ms)) {
    case HEALTH_SAME:
        return;
    case HEALTH_WENT_DOWN:
        log_warn("server rests after %lld errors in a row status=%d backend=%s server=%s; see "
                 "max_errors and fail_timeout",
                 (long long)settings->max_errors, status, settings->name, proxy_server_text(proxy));
        break;
    case HEALTH_CAME_UP:
        log_info("server rests no more backend=%s server=%s", settings->name,
                 proxy_server_text(proxy));
        break;
    }
    proxy_server_changed(proxy->worker, proxy->backend);
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

/* Whether the server is known to have read nothing. UNREAD_SOON: *ret_wait_ms says when to look. */
static enum unread_proof
look_for_proof(const struct proxy *proxy, int64_t *ret_wait_ms)
{
    const struct stream *stream = &proxy->conn->stream;

    return proxy_settings(proxy)->retry_unread
               ? unread_proof_look(stream->io.fd, stream->error, proxy->sent_mark,
                                   stream->sent_bytes, ret_wait_ms)
               : UNREAD_UNKNOWN;
}

/* The connection ended before an answer: whether the request may go again. False: that is not known
 * yet, and the proxy waits until its connection's deadline. */
static bool
decide_closed(struct proxy *proxy, struct retry_facts *facts, enum retry_decision *ret_decision)
{
    int64_t wait_ms = 0;

    enum unread_proof proof = look_for_proof(proxy, &wait_ms);
    facts->unread = proof == UNREAD_PROVED;
    *ret_decision = retry_decide(facts);
    if (*ret_decision != RETRY_NO || proof != UNREAD_SOON || proxy->awaits_proof) {
        return true;
    }
    facts->unread = true;
    if (retry_decide(facts) == RETRY_NO) {
        return true; /* whatever the proof */
    }
    proxy->awaits_proof = true;
    deadline_set(&proxy->conn->deadline, proxy->worker->loop, proxy->worker->now_ms, wait_ms);
    return false;
}

static enum retry_decision
decide(struct proxy *proxy, struct retry_facts *facts, bool *ret_known)
{
    enum retry_decision decision = RETRY_NO;

    *ret_known = true;
    if (proxy->exchange->status != 0) { /* the client has got something of an answer */
        return RETRY_NO;
    }
    if (facts->failure == FAILURE_CLOSED && facts->bytes_sent > 0 && proxy->seen == 0) {
        *ret_known = decide_closed(proxy, facts, &decision);
        return decision;
    }
    return retry_decide(facts);
}

/* That the server has failed is known; counted once, though a proof may take two looks. */
static void
note_attempt_failure(struct proxy *proxy, enum upstream_failure failure, const char *reason)
{
    if (proxy->awaits_proof) {
        return;
    }
    board_count(&proxy->worker->me->counters.upstream_failures, 1);
    if (failure == FAILURE_CLOSED && proxy->reused && proxy->seen == 0) {
        upstream_note_stale(proxy->conn);
    } else if (failure == FAILURE_CONNECT || failure == FAILURE_CLOSED) {
        note_failure(proxy, reason);
    }
}

void
proxy_attempt_failed(struct proxy *proxy, enum upstream_failure failure, const char *reason,
                     const char *setting)
{
    const struct backend_settings *settings = proxy_settings(proxy);
    struct upstream_conn *conn = proxy->conn;
    struct retry_budget *budget = &proxy->backend->retry_budget;
    bool is_known;
    struct retry_facts facts = {
        .method = proxy->exchange->head->method,
        .failure = failure,
        .reused = proxy->reused,
        .bytes_sent = conn != NULL ? conn->stream.sent_bytes - proxy->sent_mark : 0,
        /* A good head that nobody got, and then the server was gone: as if it had not begun. */
        .bytes_seen = proxy->head_held ? 0 : proxy->seen,
        .body_consumed = proxy->body_consumed,
        .attempts = proxy->attempts,
        .attempts_max = 1 + (uint32_t)settings->retries,
        .out_of_budget = retry_budget_is_empty(budget, settings->retry_budget),
    };

    note_attempt_failure(proxy, failure, reason);
    enum retry_decision decision = decide(proxy, &facts, &is_known);
    (void)snprintf(proxy->failure, sizeof(proxy->failure), "%s", reason);
    proxy->failure_setting = setting;
    if (!is_known) {
        return;
    }
    if (decision == RETRY_NO) {
        bool was_out_of_budget = facts.out_of_budget;
        facts.out_of_budget = false;
        if (was_out_of_budget && retry_decide(&facts) != RETRY_NO) {
            (void)snprintf(proxy->failure, sizeof(proxy->failure),
                           "%.80s (not sent again: retry_budget)", reason);
        }
        proxy_fail_as_last_attempt(proxy);
        return;
    }
    if (retry_costs_budget(&facts)) {
        retry_budget_spend(budget);
    }
    if (decision == RETRY_SAME) {
        proxy_forget_tried(proxy, proxy->record);
    }
    proxy->may_return = decision == RETRY_ANY;
    proxy->last_record = proxy->record;
    upstream_close(&proxy->conn);
    proxy_unclaim(proxy);
    proxy_forget_input(proxy);
    if (proxy->state != PROXY_CHOOSE) { /* where connect(2) fails at once it still is */
        proxy_set_state(proxy, PROXY_CHOOSE);
    }
    proxy_try(proxy);
}

void
proxy_proof_timeout(struct proxy *proxy)
{
    char reason[sizeof(proxy->failure)];

    memcpy(reason, proxy->failure, sizeof(reason));
    proxy_attempt_failed(proxy, FAILURE_CLOSED, reason, NULL);
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
