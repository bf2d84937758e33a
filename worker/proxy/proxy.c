/* SPDX-License-Identifier: Apache-2.0
 *
 * The action backend: a request goes to a server, its answer comes back. Runs in workers.
 *
 *   CHOOSE --claimed, connecting--> CONNECT --> HEAD --response head--> BODY --all of it--> DONE
 *     |  ^          \__kept connection___________^ |                                         ^
 *     v  |                                         `--101--> TUNNEL --both sides ended-------'
 *   QUEUE (all slots taken)          failure, and retry_decide() allows: back to CHOOSE
 *
 *   proxy_try()          CHOOSE/QUEUE -> CONNECT or HEAD    balance, claim, connect
 *   begin_request()      CONNECT -> HEAD                    writes the request's head
 *   take_response()      HEAD -> BODY or TUNNEL, BODY -> DONE
 *   attempt_failed()     -> CHOOSE, or the exchange fails
 *
 * Back-pressure, both ways, by not reading: the client's body is not read while the server has not
 * taken what there is (proxy_wants_body), the server's response is not read while the client leaves
 * more than RESPONSE_QUEUE_MAX untaken (rearm). So one exchange holds at most that, plus one read.
 *
 * A claim (scoreboard) is held from the choice of a server to the end of its part.
 */
#include "worker/proxy/proxy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "config/base/check.h"
#include "config/base/hash.h"
#include "config/base/log.h"
#include "worker/action.h"
#include "worker/conn.h"
#include "worker/exchange.h"
#include "worker/live.h"
#include "worker/proxy/balance.h"
#include "worker/proxy/forward.h"
#include "worker/proxy/upstream.h"
#include "worker/worker_private.h"

/* Response bytes that may wait for a slow client before the server is no longer read. */
#define RESPONSE_QUEUE_MAX (128u * 1024u)
/* Servers asked for one request, at most. */
#define ATTEMPTS_MAX 4u
/* A server that refused this many connections in a row rests for that long. */
#define FAILURES_TO_REST 3u
#define REST_MS 2000
/* How often requests that wait for a slot look whether another worker gave one back. */
#define WAIT_TICK_MS 5
/* An unfinished response head gets memory for at least this much more. */
#define HEAD_ROOM_BYTES (4u * 1024u)
/* What a client is told with 503. */
#define RETRY_AFTER STR("Retry-After: 2\r\n")

static const char *const state_names[PROXY_STATE_COUNT] = {
#define PROXY_STATE_NAME(name, waits_for) [PROXY_##name] = #name,
    PROXY_STATES(PROXY_STATE_NAME)
#undef PROXY_STATE_NAME
};

#define TO(name) (1u << PROXY_##name)
static const unsigned legal_next[PROXY_STATE_COUNT] = {
    [PROXY_CHOOSE] = TO(QUEUE) | TO(CONNECT) | TO(HEAD) | TO(DONE),
    [PROXY_QUEUE] = TO(CONNECT) | TO(HEAD) | TO(CHOOSE) | TO(DONE),
    [PROXY_CONNECT] = TO(HEAD) | TO(CHOOSE) | TO(DONE),
    [PROXY_HEAD] = TO(BODY) | TO(TUNNEL) | TO(CHOOSE) | TO(DONE),
    [PROXY_BODY] = TO(DONE),
    [PROXY_TUNNEL] = TO(DONE),
    [PROXY_DONE] = 0,
};
#undef TO

static void proxy_try(struct proxy *proxy);
static void rearm(struct proxy *proxy);

static void
set_state(struct proxy *proxy, enum proxy_state state)
{
    CHECK((legal_next[proxy->state] & (1u << state)) != 0);
    log_debug("proxy %s -> %s backend=%s", state_names[proxy->state], state_names[state],
              proxy->backend->settings->name);
    proxy->state = state;
}

static struct proxy *
proxy_of(const struct exchange *exchange)
{
    return exchange->state;
}

static const struct backend_settings *
settings_of(const struct proxy *proxy)
{
    return proxy->backend->settings;
}

/* ---- giving things back -----------------------------------------------------------------------
 */

static void
forget_input(struct proxy *proxy)
{
    free(proxy->parser);
    free(proxy->input);
    proxy->parser = NULL;
    proxy->input = NULL;
    proxy->input_length = 0;
    proxy->input_capacity = 0;
}

static void
leave_queue(struct proxy *proxy)
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

/* Gives the claim back. Who waits is served from the worker's next turn on, never from here: a
 * request must not run inside another one's end. */
static void
unclaim(struct proxy *proxy)
{
    struct worker *worker = proxy->worker;

    if (proxy->claimed) {
        proxy->claimed = false;
        board_unclaim(worker->board, worker->heritage->cell, proxy->record);
        if (worker->waiting_count > 0 && !ev_is_active(&worker->wait_wake)) {
            ev_timer_set(&worker->wait_wake, 0.0, 0.0);
            ev_timer_start(worker->loop, &worker->wait_wake);
        }
    }
}

static void
proxy_end(struct exchange *exchange)
{
    struct proxy *proxy = proxy_of(exchange);

    exchange->state = NULL;
    leave_queue(proxy);
    upstream_close(&proxy->conn);
    unclaim(proxy);
    forget_input(proxy);
    free(proxy);
}

/* ---- failing ----------------------------------------------------------------------------------
 */

static const char *
server_text(const struct proxy *proxy)
{
    return proxy->worker->board->servers[proxy->record].address.text;
}

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

static void
note_success(struct proxy *proxy)
{
    struct board_server *server = &proxy->worker->board->servers[proxy->record];

    if (atomic_load_explicit(&server->failures, memory_order_relaxed) != 0) {
        atomic_store_explicit(&server->failures, 0, memory_order_relaxed);
        atomic_store_explicit(&server->down_until_ms, 0, memory_order_relaxed);
    }
}

static void
fail(struct proxy *proxy, int status, const char *reason, const char *setting)
{
    char text[256];
    struct exchange *exchange = proxy->exchange;

    (void)snprintf(text, sizeof(text), "%s backend=%s%s%s", reason, settings_of(proxy)->name,
                   proxy->attempts > 0 ? " server=" : "",
                   proxy->attempts > 0 ? server_text(proxy) : "");
    leave_queue(proxy);
    upstream_close(&proxy->conn);
    unclaim(proxy);
    set_state(proxy, PROXY_DONE);
    exchange_fail(exchange, status, text, setting, status == 503 ? RETRY_AFTER : STR(""));
}

/* Tells the client how the last attempt ended. */
static void
fail_as_last_attempt(struct proxy *proxy)
{
    char reason[sizeof(proxy->failure)];

    memcpy(reason, proxy->failure, sizeof(reason));
    fail(proxy, proxy->failure_setting != NULL ? 504 : 502, reason, proxy->failure_setting);
}

/* The attempt with the server of proxy->record failed: try again where that is safe, else tell the
 * client. setting: the clock that ran out, or NULL. */
static void
attempt_failed(struct proxy *proxy, enum upstream_failure failure, const char *reason,
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
        fail_as_last_attempt(proxy);
        return;
    }
    if (decision == RETRY_SAME) {
        /* A kept connection was stale: the server itself is not to blame. */
        for (uint32_t i = 0; i < settings_of(proxy)->record_count; i++) {
            if (settings_of(proxy)->records[i] == proxy->record) {
                proxy->tried[i / 64] &= ~(UINT64_C(1) << (i % 64));
            }
        }
    }
    upstream_close(&proxy->conn);
    unclaim(proxy);
    forget_input(proxy);
    if (proxy->state != PROXY_CHOOSE) { /* where connect(2) fails at once it still is */
        set_state(proxy, PROXY_CHOOSE);
    }
    proxy_try(proxy);
}

/* ---- choosing ---------------------------------------------------------------------------------
 */

static void
on_queue_timeout(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct proxy *proxy =
        container_of(container_of(timer, struct deadline, timer), struct proxy, queue_deadline);
    struct conn *conn = proxy->exchange->conn;

    (void)revents;
    if (deadline_is_due(&proxy->queue_deadline, loop, proxy->worker->now_ms)) {
        fail(proxy, 503, "no server was free in time", "queue_timeout");
        conn_settle(conn);
    }
}

/* A request that is in the queue already keeps its place and its deadline. */
static void
enter_queue(struct proxy *proxy)
{
    struct worker *worker = proxy->worker;
    const struct backend_settings *settings = settings_of(proxy);

    if (list_is_linked(&proxy->wait_node)) {
        return;
    }
    if (proxy->backend->waiting_count >= (uint32_t)settings->queue) {
        fail(proxy, 503, "all slots are taken and the queue is full", "queue");
        return;
    }
    set_state(proxy, PROXY_QUEUE);
    list_push_back(&worker->waiting, &proxy->wait_node);
    proxy->backend->waiting_count++;
    worker->waiting_count++;
    if (!ev_is_active(&worker->wait_tick)) {
        ev_timer_set(&worker->wait_tick, WAIT_TICK_MS / 1000.0, WAIT_TICK_MS / 1000.0);
        ev_timer_start(worker->loop, &worker->wait_tick);
    }
    deadline_set(&proxy->queue_deadline, worker->loop, worker->now_ms, settings->queue_timeout_ms);
}

static uint64_t
hash_of_client(const struct proxy *proxy)
{
    const struct peer *peer = &proxy->exchange->conn->peer;

    return hash_bytes(0, peer->address, sizeof(peer->address));
}

/* Chooses and claims. Between looking and claiming another worker may take the last slot: then
 * that server counts as tried for this round and the choice is made again. */
static enum balance_result
choose_and_claim(struct proxy *proxy)
{
    struct worker *worker = proxy->worker;
    const struct backend_settings *settings = settings_of(proxy);
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

static void begin_request(struct proxy *proxy);

/* Counts an attempt and begins it, on a connection that is there or under way. */
static void
start_attempt(struct proxy *proxy, struct upstream_conn *conn, bool reused)
{
    leave_queue(proxy);
    proxy->attempts++;
    if (proxy->attempts > 1) {
        conn_log(proxy->exchange->conn, LOG_LEVEL_INFO,
                 "trying again reason=\"%s\" backend=%s server=%s attempt=%u", proxy->failure,
                 settings_of(proxy)->name, server_text(proxy), proxy->attempts);
    }
    proxy->seen = 0;
    proxy->conn = conn;
    proxy->reused = reused;
    proxy->exchange->server = server_text(proxy);
}

enum use_result { USE_STARTED = 0, USE_BUSY, USE_FAILED };

/* Gets a connection to the claimed server. USE_BUSY: its accept queue is full (unix(7), EAGAIN);
 * the claim is given back, and nothing else has changed. USE_FAILED: the attempt was made and
 * failed; attempt_failed() has dealt with it. */
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
        unclaim(proxy);
        return USE_BUSY;
    }
    start_attempt(proxy, conn, reused);
    if (error != 0) {
        char reason[128];
        (void)snprintf(reason, sizeof(reason), "cannot connect to the server: %s",
                       strerror(-error));
        attempt_failed(proxy, FAILURE_CONNECT, reason, NULL);
        return USE_FAILED;
    }
    if (conn->state == UPSTREAM_CONNECTING) {
        set_state(proxy, PROXY_CONNECT);
        deadline_set(&conn->deadline, worker->loop, worker->now_ms,
                     settings_of(proxy)->connect_timeout_ms);
        rearm(proxy);
    } else {
        begin_request(proxy);
    }
    return USE_STARTED;
}

/* Whether a server of the backend is on its way: an app instance that boots. */
static bool
is_any_starting(const struct proxy *proxy)
{
    const struct backend_settings *settings = settings_of(proxy);

    for (uint32_t i = 0; i < settings->record_count; i++) {
        const struct board_server *server = &proxy->worker->board->servers[settings->records[i]];
        if (atomic_load_explicit(&server->state, memory_order_relaxed) == BOARD_STARTING) {
            return true;
        }
    }
    return false;
}

static void
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
            enter_queue(proxy);
            return;
        case BALANCE_NONE:
            if (met_busy || is_any_starting(proxy)) {
                /* Full accept queues and boots pass; the deadline of the queue decides. */
                memset(proxy->tried, 0, sizeof(proxy->tried));
                enter_queue(proxy);
            } else if (proxy->attempts > 0) {
                fail_as_last_attempt(proxy);
            } else {
                fail(proxy, 503, "no server is ready", NULL);
            }
            return;
        }
    }
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

/* ---- the request ------------------------------------------------------------------------------
 */

static void
backend_start(struct exchange *exchange)
{
    if (!exchange_keep_head(exchange)) {
        return;
    }
    struct proxy *proxy = calloc(1, sizeof(*proxy));
    if (proxy == NULL) {
        exchange_fail(exchange, 503, "out of memory for a proxied request", NULL, STR(""));
        return;
    }
    proxy->exchange = exchange;
    proxy->worker = exchange->conn->worker;
    proxy->backend = exchange->route->backend;
    proxy->state = PROXY_CHOOSE;
    list_init(&proxy->wait_node);
    deadline_init(&proxy->queue_deadline, on_queue_timeout);
    exchange->state = proxy;
    if (proxy->backend->waiting_count > 0) {
        enter_queue(proxy); /* nobody overtakes those who wait */
    } else {
        proxy_try(proxy);
    }
}

/* The server's time runs while it has everything, or does not take what there is for it; while the
 * client pauses in its body, body_timeout runs. */
static void
expect_response(struct proxy *proxy)
{
    if (!proxy->exchange->request_done && stream_is_drained(&proxy->conn->stream)) {
        deadline_clear(&proxy->conn->deadline);
        return;
    }
    deadline_set(&proxy->conn->deadline, proxy->worker->loop, proxy->worker->now_ms,
                 settings_of(proxy)->response_timeout_ms);
}

static void
begin_request(struct proxy *proxy)
{
    struct exchange *exchange = proxy->exchange;
    struct stream *stream = &proxy->conn->stream;
    struct forward_input input = {
        .head = exchange->head,
        .base = exchange->base,
        .path = exchange->path,
        .path_rewritten = exchange->path_rewritten,
        .cut = exchange->route->cut,
        .peer = &exchange->conn->peer,
    };
    size_t room = forward_request_size_max(&input);
    struct head_writer writer;

    if (room > BATCH_MEMORY_BYTES) {
        fail(proxy, 431, "request head becomes too large for a server", "limit_request_head");
        return;
    }
    set_state(proxy, PROXY_HEAD);
    proxy->sent_mark = stream->sent_bytes;
    /* The client's bytes may be on the batch (an earlier pipelined response): out with them. */
    stream_flush(&exchange->conn->stream);
    head_writer_init(&writer, stream_reserve(stream, room), room);
    forward_request_head(&writer, &input);
    CHECK(head_writer_ok(&writer));
    stream_commit(stream, head_writer_length(&writer));
    stream_flush(stream);
    expect_response(proxy);
    rearm(proxy);
}

static bool
proxy_wants_body(const struct exchange *exchange)
{
    const struct proxy *proxy = proxy_of(exchange);

    return proxy != NULL && proxy->conn != NULL &&
           (proxy->state == PROXY_HEAD || proxy->state == PROXY_BODY ||
            (proxy->state == PROXY_TUNNEL && !proxy->client_eof)) &&
           stream_is_drained(&proxy->conn->stream);
}

static void
proxy_body(struct exchange *exchange, struct str bytes)
{
    struct proxy *proxy = proxy_of(exchange);
    struct stream *stream = &proxy->conn->stream;
    bool chunked = exchange->head->framing == BODY_CHUNKED && proxy->state != PROXY_TUNNEL;

    stream_flush(&exchange->conn->stream);
    if (chunked) {
        char head[CHUNK_HEAD_MAX];
        stream_put_copy(stream, head, chunk_head(head, bytes.len));
    }
    stream_put(stream, bytes.ptr, bytes.len);
    if (chunked) {
        stream_put(stream, "\r\n", 2);
    }
    stream_flush(stream);
    proxy->body_consumed = true;
    if (proxy->state == PROXY_TUNNEL) {
        deadline_set(&proxy->conn->deadline, proxy->worker->loop, proxy->worker->now_ms,
                     settings_of(proxy)->tunnel_timeout_ms);
    } else if (proxy->state == PROXY_HEAD) {
        expect_response(proxy);
    }
    rearm(proxy);
}

/* The request body is complete; in a tunnel: the client sent FIN. */
static void
proxy_body_end(struct exchange *exchange)
{
    struct proxy *proxy = proxy_of(exchange);
    struct stream *stream = &proxy->conn->stream;

    stream_flush(&exchange->conn->stream);
    if (proxy->state == PROXY_TUNNEL) {
        proxy->client_eof = true;
        stream_shutdown(stream);
        if (proxy->server_eof && !exchange->response_done) {
            exchange_finish_response(exchange);
        }
    } else if (exchange->head->framing == BODY_CHUNKED) {
        stream_put(stream, "0\r\n\r\n", 5);
        stream_flush(stream);
    }
    if (proxy->state == PROXY_HEAD) {
        expect_response(proxy);
    }
    rearm(proxy);
}

/* ---- the response -----------------------------------------------------------------------------
 */

/* The server did its part: its connection is kept when both sides are at a message boundary. */
static void
response_complete(struct proxy *proxy, size_t unused)
{
    struct exchange *exchange = proxy->exchange;
    struct stream *client = &exchange->conn->stream;

    if (proxy->out_chunked) {
        stream_put(client, "0\r\n\r\n", 5);
    }
    if (proxy->server_keep_alive && unused == 0 && exchange->request_done &&
        stream_is_drained(&proxy->conn->stream)) {
        upstream_release_to_pool(&proxy->conn, settings_of(proxy));
    } else {
        upstream_close(&proxy->conn);
    }
    unclaim(proxy);
    set_state(proxy, PROXY_DONE);
    exchange_finish_response(exchange);
}

static void
put_connection_fields(struct exchange *exchange, struct head_writer *writer)
{
    if (!exchange_decide_keep_alive(exchange)) {
        head_put(writer, STR("Connection: close\r\n"));
    } else if (exchange->head->minor_version == 0) {
        head_put(writer, STR("Connection: keep-alive\r\n"));
    }
}

/* Decides how the client gets the body, and writes the fields that say so. */
static void
put_framing(struct proxy *proxy, const struct response_head *head, struct head_writer *writer)
{
    struct exchange *exchange = proxy->exchange;

    proxy->framing = head->framing;
    proxy->left = head->framing == BODY_LENGTH ? head->content_length : 0;
    proxy->out_chunked = false;
    if (head->framing == BODY_CHUNKED || head->framing == BODY_UNTIL_CLOSE) {
        if (head->framing == BODY_CHUNKED) {
            chunked_decoder_init(&proxy->chunked);
        }
        if (exchange->head->minor_version == 0) {
            exchange->close = true; /* HTTP/1.0 knows no chunks: the end of the connection is it */
            exchange->close_delimited = true;
        } else {
            proxy->out_chunked = true;
            head_put(writer, STR("Transfer-Encoding: chunked\r\n"));
        }
    } else if (head->has_content_length && head->status != 204) { /* RFC 9110 section 8.6 */
        head_put_number_field(writer, STR("Content-Length"), head->content_length);
    }
}

static void
put_date_if_missing(struct proxy *proxy, struct head_writer *writer, bool has_date)
{
    if (!has_date) { /* RFC 9110 section 6.6.1: a recipient adds it */
        char date[HTTP_DATE_LENGTH];
        http_date_format((time_t)(proxy->worker->now_real_ms / 1000), date);
        head_put_field(writer, STR("Date"), (struct str){date, HTTP_DATE_LENGTH});
    }
}

/* Puts the final head on the client's stream. */
static void
forward_head(struct proxy *proxy, const struct response_head *head, const char *base)
{
    struct exchange *exchange = proxy->exchange;
    struct stream *client = &exchange->conn->stream;
    size_t room = (size_t)head->length + 4 * (size_t)head->field_count + 512;
    struct head_writer writer;
    bool has_date;

    exchange->status = head->status;
    exchange->sent_mark = client->sent_bytes;
    exchange->upstream_ms = proxy->worker->now_ms - exchange->started_ms;
    head_writer_init(&writer, stream_reserve(client, room), room);
    forward_response_head(&writer, head, base, &has_date);
    if (head->status == 101) {
        const struct field *upgrade = response_field(head, FIELD_UPGRADE);
        head_put_field(&writer, STR("Upgrade"), span_str(upgrade->value, base));
        head_put(&writer, STR("Connection: upgrade\r\n"));
    } else {
        put_framing(proxy, head, &writer);
        put_date_if_missing(proxy, &writer, has_date);
        put_connection_fields(exchange, &writer);
    }
    head_put_end(&writer);
    CHECK(head_writer_ok(&writer));
    stream_commit(client, head_writer_length(&writer));
}

/* An informational response (RFC 9110 section 15.2): passed on, except 100, which the client got
 * from us when its body was wanted, and except to HTTP/1.0 clients, who do not know them. */
static void
forward_interim(struct proxy *proxy, const struct response_head *head, const char *base)
{
    struct stream *client = &proxy->exchange->conn->stream;
    size_t room = (size_t)head->length + 4 * (size_t)head->field_count + 64;
    struct head_writer writer;
    bool has_date;

    if (head->status == 100 || proxy->exchange->head->minor_version == 0) {
        return;
    }
    head_writer_init(&writer, stream_reserve(client, room), room);
    forward_response_head(&writer, head, base, &has_date);
    head_put_end(&writer);
    CHECK(head_writer_ok(&writer));
    stream_commit(client, head_writer_length(&writer));
    board_count(&proxy->worker->me->counters.status_1xx, 1);
}

static void
put_body_piece(struct proxy *proxy, struct str piece)
{
    struct exchange *exchange = proxy->exchange;
    struct stream *client = &exchange->conn->stream;

    if (piece.len == 0) {
        return;
    }
    if (proxy->out_chunked) {
        char head[CHUNK_HEAD_MAX];
        stream_put_copy(client, head, chunk_head(head, piece.len));
    }
    stream_put(client, piece.ptr, piece.len);
    if (proxy->out_chunked) {
        stream_put(client, "\r\n", 2);
    }
    exchange->body_put += piece.len;
}

static void
server_broke(struct proxy *proxy, const char *reason)
{
    char text[256];

    (void)snprintf(text, sizeof(text), "%s backend=%s server=%s", reason, settings_of(proxy)->name,
                   server_text(proxy));
    board_count(&proxy->worker->me->counters.upstream_failures, 1);
    upstream_close(&proxy->conn);
    unclaim(proxy);
    set_state(proxy, PROXY_DONE);
    exchange_break(proxy->exchange, text);
}

static void
take_chunked_body(struct proxy *proxy, const char *bytes, size_t length)
{
    while (length > 0) {
        size_t used = 0;
        struct str piece = {NULL, 0};
        enum chunked_result result = chunked_decode(&proxy->chunked, bytes, length, &used, &piece);
        bytes += used;
        length -= used;
        if (result == CHUNKED_DATA) {
            put_body_piece(proxy, piece);
        } else if (result == CHUNKED_END) {
            response_complete(proxy, length);
            return;
        } else if (result == CHUNKED_BAD) {
            server_broke(proxy, proxy->chunked.reason);
            return;
        }
    }
}

static void
take_body(struct proxy *proxy, const char *bytes, size_t length)
{
    switch (proxy->framing) {
    case BODY_NONE:
        response_complete(proxy, length);
        return;
    case BODY_LENGTH: {
        size_t part = length < proxy->left ? length : (size_t)proxy->left;
        put_body_piece(proxy, (struct str){bytes, part});
        proxy->left -= part;
        if (proxy->left == 0) {
            response_complete(proxy, length - part);
        }
        return;
    }
    case BODY_CHUNKED:
        take_chunked_body(proxy, bytes, length);
        return;
    case BODY_UNTIL_CLOSE:
        put_body_piece(proxy, (struct str){bytes, length});
        return;
    }
}

static void
start_tunnel(struct proxy *proxy, const char *rest, size_t length)
{
    struct exchange *exchange = proxy->exchange;

    set_state(proxy, PROXY_TUNNEL);
    stream_put(&exchange->conn->stream, rest, length);
    stream_flush(&exchange->conn->stream); /* rest may be in the input */
    forget_input(proxy);
    exchange->body_put += length;
    conn_start_tunnel(exchange->conn);
    deadline_set(&proxy->conn->deadline, proxy->worker->loop, proxy->worker->now_ms,
                 settings_of(proxy)->tunnel_timeout_ms);
}

/* Keeps what is there of an unfinished head. */
static void
keep_head(struct proxy *proxy, const char *bytes, size_t length)
{
    if (proxy->parser == NULL) {
        proxy->parser = malloc(sizeof(*proxy->parser));
    } else {
        memmove(proxy->input, bytes, length); /* they may be behind an interim response */
    }
    if (proxy->input_capacity < length + HEAD_ROOM_BYTES) {
        char *input = realloc(proxy->input, length + 2 * HEAD_ROOM_BYTES);
        if (input == NULL || proxy->parser == NULL) {
            free(input != NULL ? input : proxy->input);
            proxy->input = NULL;
            attempt_failed(proxy, FAILURE_PROTOCOL, "out of memory for the head of a response",
                           NULL);
            return;
        }
        if (proxy->input == NULL) {
            memcpy(input, bytes, length);
        }
        proxy->input = input;
        proxy->input_capacity = (uint32_t)(length + 2 * HEAD_ROOM_BYTES);
    }
    proxy->input_length = (uint32_t)length;
    response_parser_copy(proxy->parser, &proxy->worker->response_parser);
}

/* Feeds bytes of heads, one after another; what follows the final head goes to take_body(). */
static void
take_heads(struct proxy *proxy, const char *bytes, size_t length)
{
    struct worker *worker = proxy->worker;
    struct exchange *exchange = proxy->exchange;
    struct response_parser *parser = &worker->response_parser;
    struct response_head *head = &parser->head;

    if (proxy->parser != NULL) {
        response_parser_copy(parser, proxy->parser);
    } else {
        response_parser_init(parser);
    }
    for (;;) {
        enum parse_result result =
            response_parser_run(parser, exchange->head->method == METHOD_HEAD, bytes, length);
        if (result == PARSE_MORE) {
            keep_head(proxy, bytes, length);
            return;
        }
        if (result == PARSE_BAD) {
            attempt_failed(proxy, FAILURE_PROTOCOL, parser->error.reason, NULL);
            return;
        }
        if (head->status >= 200 || head->status == 101) {
            break;
        }
        forward_interim(proxy, head, bytes);
        stream_flush(&exchange->conn->stream); /* the bytes may move below */
        bytes += head->length;
        length -= head->length;
        response_parser_init(parser);
        if (length == 0) {
            forget_input(proxy);
            return;
        }
    }
    if (head->status == 101 &&
        !(head->upgrade && forward_asks_upgrade(exchange->head, exchange->base))) {
        attempt_failed(proxy, FAILURE_PROTOCOL, "101 without a request to upgrade", NULL);
        return;
    }
    note_success(proxy);
    forward_head(proxy, head, bytes);
    size_t head_length = head->length;
    if (head->status == 101) {
        stream_flush(&exchange->conn->stream);
        start_tunnel(proxy, bytes + head_length, length - head_length);
    } else {
        proxy->server_keep_alive = head->keep_alive;
        set_state(proxy, PROXY_BODY);
        if (proxy->framing == BODY_NONE || (proxy->framing == BODY_LENGTH && proxy->left == 0) ||
            length > head_length) {
            take_body(proxy, bytes + head_length, length - head_length);
        }
        /* What was put refers to these bytes; the input is freed with the exchange or below. */
        stream_flush(&exchange->conn->stream);
        forget_input(proxy);
    }
}

static void
take_tunnel(struct proxy *proxy, const char *bytes, size_t length)
{
    stream_put(&proxy->exchange->conn->stream, bytes, length);
    proxy->exchange->body_put += length;
    deadline_set(&proxy->conn->deadline, proxy->worker->loop, proxy->worker->now_ms,
                 settings_of(proxy)->tunnel_timeout_ms);
}

static void
take_response(struct proxy *proxy, const char *bytes, size_t length)
{
    proxy->seen += length;
    switch (proxy->state) {
    case PROXY_HEAD:
        take_heads(proxy, bytes, length);
        break;
    case PROXY_BODY:
        take_body(proxy, bytes, length);
        break;
    case PROXY_TUNNEL:
        take_tunnel(proxy, bytes, length);
        break;
    case PROXY_CHOOSE:
    case PROXY_QUEUE:
    case PROXY_CONNECT:
    case PROXY_DONE:
    case PROXY_STATE_COUNT:
        break;
    }
    if (proxy->state == PROXY_BODY) {
        deadline_set(&proxy->conn->deadline, proxy->worker->loop, proxy->worker->now_ms,
                     settings_of(proxy)->stream_timeout_ms);
    }
}

static void
on_server_end(struct proxy *proxy, const char *how)
{
    char reason[128];

    switch (proxy->state) {
    case PROXY_HEAD:
        (void)snprintf(reason, sizeof(reason), "server closed before its response: %s", how);
        attempt_failed(proxy, FAILURE_CLOSED, reason, NULL);
        return;
    case PROXY_BODY:
        if (proxy->framing == BODY_UNTIL_CLOSE && errno == 0) {
            proxy->server_keep_alive = false;
            response_complete(proxy, 0);
            return;
        }
        (void)snprintf(reason, sizeof(reason), "server broke off its response: %s", how);
        server_broke(proxy, reason);
        return;
    case PROXY_TUNNEL:
        proxy->server_eof = true;
        stream_shutdown(&proxy->exchange->conn->stream);
        if ((proxy->client_eof || errno != 0) && !proxy->exchange->response_done) {
            exchange_finish_response(proxy->exchange);
        }
        return;
    case PROXY_CHOOSE:
    case PROXY_QUEUE:
    case PROXY_CONNECT:
    case PROXY_DONE:
    case PROXY_STATE_COUNT:
        return;
    }
}

/* ---- events -----------------------------------------------------------------------------------
 */

static bool
may_read(const struct proxy *proxy)
{
    const struct stream *client = &proxy->exchange->conn->stream;

    switch (proxy->state) {
    case PROXY_HEAD:
    case PROXY_BODY:
        return client->queued_bytes < RESPONSE_QUEUE_MAX;
    case PROXY_TUNNEL:
        return !proxy->server_eof && stream_is_drained(client);
    case PROXY_CHOOSE:
    case PROXY_QUEUE:
    case PROXY_CONNECT:
    case PROXY_DONE:
    case PROXY_STATE_COUNT:
        return false;
    }
    return false;
}

/* What to wait for on the server's connection, from the state and both queues. */
static void
rearm(struct proxy *proxy)
{
    if (proxy->conn == NULL) {
        return;
    }
    bool connecting = proxy->state == PROXY_CONNECT;
    stream_watch(&proxy->conn->stream, proxy->worker->loop,
                 (may_read(proxy) ? EV_READ : 0) |
                     (connecting || !stream_is_drained(&proxy->conn->stream) ? EV_WRITE : 0));
    if (proxy->state == PROXY_BODY && !may_read(proxy)) {
        deadline_clear(&proxy->conn->deadline); /* the client is slow: its own clock runs */
    }
}

static void
proxy_drained(struct exchange *exchange)
{
    struct proxy *proxy = proxy_of(exchange);

    if (proxy == NULL || proxy->conn == NULL) {
        return;
    }
    if (proxy->state == PROXY_BODY) {
        deadline_set(&proxy->conn->deadline, proxy->worker->loop, proxy->worker->now_ms,
                     settings_of(proxy)->stream_timeout_ms);
    }
    rearm(proxy);
}

static void
on_connected(struct proxy *proxy)
{
    int error = 0;
    socklen_t length = sizeof(error);

    if (getsockopt(proxy->conn->stream.io.fd, SOL_SOCKET, SO_ERROR, &error, &length) == -1) {
        error = errno;
    }
    if (error != 0) {
        char reason[128];
        (void)snprintf(reason, sizeof(reason), "cannot connect to the server: %s", strerror(error));
        attempt_failed(proxy, FAILURE_CONNECT, reason, NULL);
        return;
    }
    proxy->conn->state = UPSTREAM_ACTIVE;
    begin_request(proxy);
}

static void
read_server(struct proxy *proxy)
{
    struct worker *worker = proxy->worker;
    char *buffer = worker->scratch;
    size_t room = WORKER_SCRATCH_BYTES;
    size_t kept = 0;
    size_t length = 0;

    if (proxy->input != NULL) {
        kept = proxy->input_length;
        buffer = proxy->input;
        room = proxy->input_capacity - kept;
    }
    switch (stream_read(&proxy->conn->stream, buffer + kept, room, &length)) {
    case STREAM_OK:
        take_response(proxy, buffer, kept + length);
        return;
    case STREAM_AGAIN:
        return;
    case STREAM_EOF:
        errno = 0;
        on_server_end(proxy, "end of stream");
        return;
    case STREAM_ERROR:
        on_server_end(proxy, strerror(errno));
        return;
    }
}

void
proxy_on_upstream(struct proxy *proxy, int revents)
{
    struct conn *conn = proxy->exchange->conn;
    struct upstream_conn *server = proxy->conn;

    if (proxy->state == PROXY_CONNECT) {
        on_connected(proxy);
        conn_settle(conn);
        return;
    }
    if ((revents & EV_READ) != 0) {
        read_server(proxy);
    }
    /* A server that answered early and closed makes writing fail: its answer counts, so the error
     * is looked at only after reading found nothing more. */
    if (conn->exchange != NULL && conn->exchange->state == proxy && proxy->conn == server) {
        if ((revents & EV_WRITE) != 0) {
            stream_send(&server->stream);
            if (proxy->state == PROXY_HEAD) {
                expect_response(proxy);
            }
        }
        if (server->stream.error != 0 && (revents & EV_READ) == 0) {
            errno = server->stream.error;
            on_server_end(proxy, strerror(server->stream.error));
        }
    }
    conn_settle(conn);
    if (conn->exchange != NULL && conn->exchange->state == proxy) {
        rearm(proxy);
    }
}

void
proxy_on_upstream_timeout(struct proxy *proxy)
{
    struct conn *conn = proxy->exchange->conn;

    switch (proxy->state) {
    case PROXY_CONNECT:
        attempt_failed(proxy, FAILURE_CONNECT, "no connection to the server in time",
                       "connect_timeout");
        break;
    case PROXY_HEAD:
        attempt_failed(proxy, FAILURE_TIMEOUT, "no response from the server in time",
                       "response_timeout");
        break;
    case PROXY_BODY:
        server_broke(proxy, "server sent nothing for stream_timeout");
        break;
    case PROXY_TUNNEL:
        exchange_break(proxy->exchange, "silence for tunnel_timeout");
        break;
    case PROXY_CHOOSE:
    case PROXY_QUEUE:
    case PROXY_DONE:
    case PROXY_STATE_COUNT:
        break;
    }
    conn_settle(conn);
}

const struct action action_backend = {
    .name = "backend",
    .start = backend_start,
    .body = proxy_body,
    .body_end = proxy_body_end,
    .wants_body = proxy_wants_body,
    .drained = proxy_drained,
    .end = proxy_end,
};
