/* SPDX-License-Identifier: Apache-2.0
 *
 * One request and its response, from the complete head to the access log: what is the same for all
 * actions. Runs in workers.
 *
 * An exchange is over when its response was put and taken by the client, and its request was read
 * or need not be. It costs no allocation of its own: exchanges are reused, and only one that goes
 * on after its turn copies its head (exchange_keep_head).
 */
#include "worker/exchange.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/check.h"
#include "config/base/log.h"
#include "config/base/reserve.h"
#include "worker/action.h"
#include "worker/exchange_private.h"
#include "worker/forwarded.h"
#include "worker/http/date.h"
#include "worker/http/status.h"
#include "worker/http/target.h"
#include "worker/live.h"
#include "worker/worker_private.h"

/* A body that nobody wants is read and dropped up to this size, so that the connection may go on;
 * beyond it closing is cheaper (64 KiB: one read of the scratch buffer). */
#define DROP_BODY_MAX (64u * 1024u)

/* ---- writing heads ----------------------------------------------------------------------------
 */

size_t
exchange_page(int status, char *out, size_t capacity)
{
    const char *phrase = status_phrase(status);
    int length = snprintf(out, capacity, "<!doctype html><title>%d %s</title><h1>%d %s</h1>\n",
                          status, phrase, status, phrase);

    CHECK(length > 0 && (size_t)length < capacity);
    return (size_t)length;
}

void
worker_put_server_and_date(struct worker *worker, struct head_writer *writer)
{
    int64_t second = worker->now_real_ms / 1000;

    if (second != worker->tail_second) {
        static const char server[] = "Server: narwhal\r\n";
        size_t used = 0;
        if (worker->live->config->worker.server_header) {
            memcpy(worker->tail, server, sizeof(server) - 1);
            used = sizeof(server) - 1;
        }
        memcpy(worker->tail + used, "Date: ", 6);
        http_date_format((time_t)second, worker->tail + used + 6);
        memcpy(worker->tail + used + 6 + HTTP_DATE_LENGTH, "\r\n", 2);
        worker->tail_length = used + 6 + HTTP_DATE_LENGTH + 2;
        worker->tail_second = second;
    }
    head_put(writer, (struct str){worker->tail, worker->tail_length});
}

bool
exchange_decide_keep_alive(struct exchange *exchange)
{
    const struct conn *conn = exchange->conn;
    const struct worker_settings *settings = &exchange->live->config->worker;

    if (!exchange->head->keep_alive || conn->worker->draining || settings->keepalive_ms == 0 ||
        conn->saw_eof) {
        exchange->close = true;
    } else if (settings->keepalive_requests > 0 &&
               conn->requests >= (uint64_t)settings->keepalive_requests) {
        conn_log(conn, LOG_LEVEL_DEBUG,
                 "last request of the connection setting=keepalive_requests");
        exchange->close = true;
    }
    /* An answer before the end of its request: the next request begins behind a body that may never
     * come. Only a short one that is dropped anyway is waited for. */
    if (!exchange->request_done &&
        (!exchange->drop_body || exchange->head->framing != BODY_LENGTH ||
         exchange->body_left > DROP_BODY_MAX || exchange->continue_due)) {
        exchange->close = true;
    }
    return !exchange->close;
}

void
exchange_put_connection(struct exchange *exchange, struct head_writer *writer)
{
    int64_t seconds = exchange->live->config->worker.keepalive_ms / 1000;

    if (!exchange_decide_keep_alive(exchange)) {
        head_put(writer, STR("Connection: close\r\n"));
    } else if (exchange->head->keep_alive_said) {
        head_put(writer, STR("Connection: keep-alive\r\n"));
        if (seconds > 0) {
            head_put(writer, STR("Keep-Alive: timeout="));
            head_put_number(writer, (uint64_t)seconds);
            head_put(writer, STR("\r\n"));
        }
    }
}

void
exchange_put_tail(struct exchange *exchange, struct head_writer *writer)
{
    worker_put_server_and_date(exchange->conn->worker, writer);
    exchange_put_connection(exchange, writer);
    head_put(writer, STR("\r\n"));
}

void
exchange_answer(struct exchange *exchange, int status, struct str head, struct str body)
{
    struct stream *stream = &exchange->conn->stream;
    size_t room = head.len + EXCHANGE_TAIL_MAX;
    struct head_writer writer;

    CHECK(exchange->status == 0);
    exchange->status = status;
    exchange->sent_mark = stream->sent_bytes;
    head_writer_init(&writer, stream_reserve(stream, room), room);
    head_put(&writer, head);
    exchange_put_tail(exchange, &writer);
    CHECK(head_writer_ok(&writer));
    stream_commit(stream, head_writer_length(&writer));
    if (exchange->head->method != METHOD_HEAD && body.len > 0) {
        stream_put_copy(stream, body.ptr, body.len);
        exchange->body_put = body.len;
    }
    exchange_finish_response(exchange);
}

/* What the operator must look at is an error; what clients do, at any rate they like, is not. */
static enum log_level
level_of_status(int status)
{
    switch (status) {
    case 404:
        return LOG_LEVEL_DEBUG;
    case 500:
    case 502:
    case 504:
        return LOG_LEVEL_ERROR;
    case 503:
        return LOG_LEVEL_WARN;
    default:
        return LOG_LEVEL_INFO;
    }
}

static const struct action *
action_of(const struct exchange *exchange)
{
    return exchange->route != NULL ? exchange->route->action : NULL;
}

void
exchange_fail(struct exchange *exchange, int status, const char *reason, const char *setting,
              struct str extra_fields)
{
    char page[256];
    char head[1024];
    struct head_writer writer;

    /* Memory being short is told once, not for each request that feels it. */
    conn_log(exchange->conn, memory_is_short() ? LOG_LEVEL_DEBUG : (int)level_of_status(status),
             "request failed status=%d reason=\"%s\"%s%s", status, reason,
             setting != NULL ? " setting=" : "", setting != NULL ? setting : "");
    if (exchange->status != 0) {
        exchange->broken = true;
        return;
    }
    exchange->drop_body = true;
    size_t page_length = exchange_page(status, page, sizeof(page));
    head_writer_init(&writer, head, sizeof(head));
    head_put_status_line(&writer, status, STR(""));
    head_put(&writer, STR("Content-Type: text/html; charset=utf-8\r\n"));
    head_put_number_field(&writer, STR("Content-Length"), page_length);
    head_put(&writer, extra_fields);
    CHECK(head_writer_ok(&writer));
    exchange_answer(exchange, status, (struct str){head, head_writer_length(&writer)},
                    (struct str){page, page_length});
}

void
exchange_refuse(struct exchange *exchange, int status, const char *reason, const char *setting)
{
    const struct action *action = action_of(exchange);

    /* Two answers to one request would be one too many: a server's may be on its way. */
    if (action != NULL && action->end != NULL && exchange->state != NULL) {
        action->end(exchange);
    }
    exchange->close = true;
    exchange_fail(exchange, status, reason, setting, STR(""));
}

void
exchange_finish_response(struct exchange *exchange)
{
    CHECK(!exchange->response_done);
    exchange->response_done = true;
    if (!exchange->request_done) {
        exchange->drop_body = true; /* nobody is left to take it */
    }
}

void
exchange_break(struct exchange *exchange, const char *reason)
{
    conn_log(exchange->conn, LOG_LEVEL_WARN, "response broken off status=%d reason=\"%s\"",
             exchange->status, reason);
    exchange->broken = true;
}

void
exchange_put_continue(struct exchange *exchange)
{
    exchange->continue_due = false;
    if (exchange->status == 0) {
        stream_put(&exchange->conn->stream, "HTTP/1.1 100 Continue\r\n\r\n", 25);
        board_count(&exchange->conn->worker->me->counters.status_1xx, 1);
    }
}

/* ---- the request ------------------------------------------------------------------------------
 */

bool
exchange_keep_head(struct exchange *exchange)
{
    const struct request_head *head = exchange->head;
    size_t head_size =
        offsetof(struct request_head, fields) + (size_t)head->field_count * sizeof(struct field);
    struct request_head *copy;

    if (exchange->kept != NULL) {
        return true;
    }
    char *memory = malloc(head_size + head->length + exchange->path.len);
    if (memory == NULL) {
        exchange_fail(exchange, 503, "out of memory for the request head", NULL, STR(""));
        exchange->close = true;
        return false;
    }
    copy = (struct request_head *)(void *)memory;
    memcpy(copy, head, head_size);
    char *bytes = memory + head_size;
    memcpy(bytes, exchange->base, head->length);
    memcpy(bytes + head->length, exchange->path.ptr, exchange->path.len);
    exchange->kept = memory;
    exchange->head = copy;
    exchange->base = bytes;
    exchange->path.ptr = bytes + head->length;
    return true;
}

/* Copies the bytes of a span, once for those that share them. */
static struct span
slim_span(struct span span, const char *base, char *bytes, uint32_t *used)
{
    struct span copy = {*used, span.len};

    memcpy(bytes + *used, base + span.off, span.len);
    *used += span.len;
    return copy;
}

static struct span
span_within(struct span inner, struct span outer, struct span moved)
{
    return inner.len > 0 ? (struct span){moved.off + (inner.off - outer.off), inner.len}
                         : (struct span){moved.off, 0};
}

/* Keeps no more of a kept head than what the logs show at the end. */
static void
slim_head(struct exchange *exchange)
{
    const struct request_head *head = exchange->head;
    const struct access_log *log = &exchange->conn->worker->access_log;
    const struct access_format *format = access_log_is_on(log) ? log->format : NULL;
    const char *base = exchange->base;
    uint16_t count = 0;
    size_t bytes_size = head->method_text.len + head->target.len + head->authority.len;

    CHECK(exchange->kept != NULL);
    for (uint16_t i = 0; i < head->field_count; i++) {
        const struct field *field = &head->fields[i];
        if (access_format_shows(format, span_str(field->name, base))) {
            count++;
            bytes_size += field->name.len + field->value.len;
        }
    }
    size_t head_size = offsetof(struct request_head, fields) + count * sizeof(struct field);
    char *memory = malloc(head_size + bytes_size);
    if (memory == NULL) {
        return; /* what there is does as well */
    }
    struct request_head *slim = (struct request_head *)(void *)memory;
    char *bytes = memory + head_size;
    uint32_t used = 0;
    memcpy(slim, head, offsetof(struct request_head, fields));
    slim->method_text = slim_span(head->method_text, base, bytes, &used);
    slim->target = slim_span(head->target, base, bytes, &used);
    slim->path = span_within(head->path, head->target, slim->target);
    slim->query = span_within(head->query, head->target, slim->target);
    slim->authority = slim_span(head->authority, base, bytes, &used);
    slim->host = (struct span){slim->authority.off, 0};
    slim->field_count = 0;
    for (uint16_t i = 0; i < head->field_count; i++) {
        struct field field = head->fields[i];
        if (access_format_shows(format, span_str(field.name, base))) {
            field.name = slim_span(field.name, base, bytes, &used);
            field.value = slim_span(field.value, base, bytes, &used);
            slim->fields[slim->field_count++] = field;
        }
    }
    CHECK(used == bytes_size && slim->field_count == count);
    free(exchange->kept);
    exchange->kept = memory;
    exchange->head = slim;
    exchange->base = bytes;
    exchange->path = (struct str){bytes, 0};
}

void
exchange_move(struct exchange *exchange, struct live *live, const struct route *route)
{
    live_unref(&exchange->live);
    exchange->live = live_ref(live);
    exchange->route = route;
}

static struct exchange *
exchange_new(struct worker *worker)
{
    struct exchange *exchange = worker->spare_exchanges;

    if (exchange != NULL) {
        worker->spare_exchanges = exchange->next_spare;
        worker->spare_exchange_count--;
        memset(exchange, 0, sizeof(*exchange));
        return exchange;
    }
    return calloc(1, sizeof(*exchange));
}

static void
exchange_free_memory(struct worker *worker, struct exchange *exchange)
{
    if (!exchange->slim && worker->spare_exchange_count < WORKER_SPARES_MAX) {
        exchange->next_spare = worker->spare_exchanges;
        worker->spare_exchanges = exchange;
        worker->spare_exchange_count++;
    } else {
        free(exchange);
    }
}

struct exchange *
exchange_slim(struct exchange *exchange)
{
    struct worker *worker = exchange->conn->worker;

    slim_head(exchange);
    free(exchange->trailers);
    exchange->trailers = NULL;
    /* Not by realloc(3): the end of each would be a hole that is too small for anything. */
    struct exchange *small = malloc(EXCHANGE_SLIM_BYTES);
    if (small == NULL) {
        return exchange; /* what there is does as well */
    }
    memcpy(small, exchange, EXCHANGE_SLIM_BYTES);
    small->slim = true;
    small->conn->exchange = small;
    exchange_free_memory(worker, exchange);
    return small;
}

static void
exchange_free(struct exchange *exchange)
{
    struct worker *worker = exchange->conn->worker;

    free(exchange->kept);
    free(exchange->trailers);
    live_unref(&exchange->live);
    exchange_free_memory(worker, exchange);
}

struct str
exchange_shown_path(const struct exchange *exchange)
{
    const struct request_head *head = exchange->head;
    bool has_path = head->form == TARGET_ORIGIN || head->form == TARGET_ABSOLUTE;

    return span_str(has_path ? head->path : head->target, exchange->base);
}

/* What a route may get; which of them it serves is the route's own business. */
#define ALLOW_OF_SERVER "Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH\r\n"

/* "*" is for the server as a whole (RFC 9110 section 9.3.7). */
static void
answer_options_of_server(struct exchange *exchange)
{
    exchange_answer(exchange, 204, STR("HTTP/1.1 204 No Content\r\n" ALLOW_OF_SERVER), STR(""));
}

/* Answers what no route may see, whatever the path; false: it may go on. */
static bool
refuse_by_head(struct exchange *exchange)
{
    const struct request_head *head = exchange->head;

    if (exchange->conn->pipelined > exchange->live->config->worker.limit_pipelined) {
        exchange->close = true;
        exchange_fail(exchange, 429, "more requests sent ahead than allowed", "limit_pipelined",
                      STR(""));
        return true;
    }
    switch (head->method) {
    case METHOD_OTHER:
        exchange_fail(exchange, 501, "method is not supported", NULL, STR(""));
        return true;
    case METHOD_CONNECT:
        /* A client that did not wait for the answer may have sent bytes for its tunnel already;
         * they must not be taken for requests (RFC 9110 section 9.3.6). */
        exchange->close = true;
        exchange_fail(exchange, 405, "CONNECT is for proxies", NULL, STR(ALLOW_OF_SERVER));
        return true;
    case METHOD_TRACE:
        /* It would echo cookies and credentials to any script that asks, and those that proxies on
         * the way have added (RFC 9110 section 9.3.8). */
        exchange_fail(exchange, 405, "TRACE is not served", NULL, STR(ALLOW_OF_SERVER));
        return true;
    case METHOD_GET:
    case METHOD_HEAD:
    case METHOD_POST:
    case METHOD_PUT:
    case METHOD_DELETE:
    case METHOD_OPTIONS:
    case METHOD_PATCH:
    case METHOD_COUNT:
        break;
    }
    if (head->expect_other) {
        exchange_fail(exchange, 417, "expectation is not 100-continue", NULL, STR(""));
        return true;
    }
    return false;
}

/* Finds the route, or answers what no route may see. */
static void
exchange_route(struct exchange *exchange)
{
    struct worker *worker = exchange->conn->worker;
    const struct request_head *head = exchange->head;
    int64_t limit = exchange->live->config->worker.limit_request_body_bytes;
    size_t path_length = 0;

    exchange->path = (struct str){worker->path, 0};
    if (!worker_has_memory(worker)) {
        exchange->close = true;
        exchange_fail(exchange, 503, "out of memory", NULL, STR("Retry-After: 2\r\n"));
        return;
    }
    if (refuse_by_head(exchange)) {
        return;
    }
    if (head->form == TARGET_ASTERISK) {
        answer_options_of_server(exchange);
        return;
    }
    const char *refused =
        target_normalise(span_str(head->path, exchange->base), worker->path, sizeof(worker->path),
                         &path_length, &exchange->path_rewritten);
    if (refused != NULL) {
        exchange->close = true;
        exchange_fail(exchange, 400, refused, NULL, STR(""));
        return;
    }
    exchange->path.len = path_length;
    if (limit > 0 && head->framing == BODY_LENGTH && head->content_length > (uint64_t)limit) {
        exchange_fail(exchange, 413, "announced body is larger than allowed", "limit_request_body",
                      STR(""));
        return;
    }
    uint32_t index =
        route_lookup(exchange->live->table, span_str(head->host, exchange->base), exchange->path);
    if (index == ROUTE_NONE) {
        exchange_fail(exchange, 404, "no route for this host and path", NULL, STR(""));
        return;
    }
    exchange->route = &exchange->live->routes[index];
    exchange->drop_body = exchange->route->action->body == NULL;
    if (exchange->route->settings->trailers && head->framing == BODY_CHUNKED) {
        /* Without memory they are dropped, as any recipient may (RFC 9112 section 7.1.2). */
        exchange->trailers = calloc(1, sizeof(*exchange->trailers));
        exchange->chunked.trailers = exchange->trailers;
    }
    exchange->route->action->start(exchange);
}

static void
find_client(struct exchange *exchange)
{
    const struct worker_settings *settings = &exchange->live->config->worker;
    const struct peer *peer = &exchange->conn->peer;

    exchange->client = *peer;
    exchange->believed = forwarded_trusts(&settings->trusted_proxies, peer);
    if (exchange->believed) {
        forwarded_find_client(exchange->head, exchange->base, settings->trusted_fields,
                              &settings->trusted_proxies, peer, &exchange->client);
    }
}

bool
exchange_begin(struct conn *conn, const struct request_head *head, const char *base)
{
    struct worker *worker = conn->worker;
    struct exchange *exchange = exchange_new(worker);

    if (exchange == NULL) {
        return false;
    }
    exchange->conn = conn;
    exchange->live = live_ref(worker->live);
    exchange->head = head;
    exchange->base = base;
    exchange->started_ms = worker->now_ms;
    exchange->started_real_ms = worker->now_real_ms;
    exchange->upstream_ms = -1;
    find_client(exchange);
    board_note_request(worker->me, span_str(head->method_text, base), exchange_shown_path(exchange),
                       worker->now_ms);
    exchange->request_done =
        head->framing == BODY_NONE || (head->framing == BODY_LENGTH && head->content_length == 0);
    exchange->continue_due = head->expect_continue && !exchange->request_done;
    if (head->framing == BODY_LENGTH) {
        exchange->body_left = head->content_length;
    } else if (head->framing == BODY_CHUNKED) {
        chunked_decoder_init(&exchange->chunked);
    }
    conn->exchange = exchange;
    exchange_route(exchange);
    return true;
}

bool
exchange_wants_body(const struct exchange *exchange)
{
    if (exchange->drop_body) {
        /* With the connection to close there is no need to read it; lingering drops it. */
        return !exchange->close;
    }
    return action_of(exchange)->wants_body(exchange);
}

int64_t
exchange_body_rate_left_ms(struct exchange *exchange, int64_t now_ms)
{
    const struct worker_settings *settings = &exchange->live->config->worker;

    if (exchange->body_wait_since_ms == 0) {
        exchange->body_wait_since_ms = now_ms;
    }
    if (settings->body_rate_bytes == 0) {
        return INT64_MAX;
    }
    /* A total, so that what came fast in the beginning pays for what comes slowly later, and a
     * byte now and then does not move it by more than the byte is worth. */
    int64_t earned_ms =
        (int64_t)(exchange->body_bytes * 1000 / (uint64_t)settings->body_rate_bytes);
    int64_t waited_ms = exchange->body_waited_ms + (now_ms - exchange->body_wait_since_ms);
    return settings->body_timeout_ms + earned_ms - waited_ms;
}

void
exchange_body_clock_stop(struct exchange *exchange, int64_t now_ms)
{
    if (exchange->body_wait_since_ms != 0) {
        exchange->body_waited_ms += now_ms - exchange->body_wait_since_ms;
        exchange->body_wait_since_ms = 0;
    }
}

static void
body_complete(struct exchange *exchange)
{
    exchange->request_done = true;
    exchange->continue_due = false;
    if (!exchange->drop_body) {
        action_of(exchange)->body_end(exchange);
    }
}

/* Counts a decoded piece and hands it on; false when it is one too many. */
static bool
body_piece(struct exchange *exchange, struct str piece)
{
    int64_t limit = exchange->live->config->worker.limit_request_body_bytes;

    exchange->body_bytes += piece.len;
    exchange->continue_due = false; /* the client did not wait (RFC 9110 section 10.1.1) */
    if (limit > 0 && exchange->body_bytes > (uint64_t)limit) {
        exchange_refuse(exchange, 413, "body is larger than allowed", "limit_request_body");
        return false;
    }
    if (!exchange->drop_body) {
        action_of(exchange)->body(exchange, piece);
    }
    return true;
}

static size_t
take_chunked(struct exchange *exchange, const char *bytes, size_t len)
{
    size_t taken = 0;

    while (taken < len) {
        size_t used = 0;
        struct str piece = {NULL, 0};
        enum chunked_result result =
            chunked_decode(&exchange->chunked, bytes + taken, len - taken, &used, &piece);
        taken += used;
        if (result == CHUNKED_DATA) {
            if (!body_piece(exchange, piece) || !exchange_wants_body(exchange)) {
                break;
            }
        } else if (result == CHUNKED_END) {
            body_complete(exchange);
            break;
        } else if (result == CHUNKED_BAD) {
            board_count(&exchange->conn->worker->me->counters.bad_requests, 1);
            exchange_refuse(exchange, 400, exchange->chunked.reason, NULL);
            break;
        }
    }
    return taken;
}

size_t
exchange_take_body(struct exchange *exchange, const char *bytes, size_t len)
{
    if (exchange->head->framing == BODY_CHUNKED) {
        return take_chunked(exchange, bytes, len);
    }
    size_t part = len < exchange->body_left ? len : (size_t)exchange->body_left;
    exchange->body_left -= part;
    if (body_piece(exchange, (struct str){bytes, part}) && exchange->body_left == 0) {
        body_complete(exchange);
    }
    return part;
}

void
exchange_drained(struct exchange *exchange)
{
    const struct action *action = action_of(exchange);

    if (action != NULL && action->drained != NULL) {
        action->drained(exchange);
    }
}

/* ---- the end ----------------------------------------------------------------------------------
 */

bool
exchange_is_over(const struct exchange *exchange)
{
    return exchange->response_done && !exchange->broken &&
           (exchange->request_done || exchange->close) &&
           stream_is_drained(&exchange->conn->stream);
}

static void
count_status(struct board_counters *counters, int status)
{
    board_count(&counters->requests, 1);
    switch (status / 100) {
    case 2:
        board_count(&counters->status_2xx, 1);
        break;
    case 3:
        board_count(&counters->status_3xx, 1);
        break;
    case 4:
        board_count(&counters->status_4xx, 1);
        break;
    case 5:
        board_count(&counters->status_5xx, 1);
        break;
    default:
        board_count(&counters->status_1xx, 1);
        break;
    }
}

/* Counts, logs and frees; status 499 is nginx's word for a client that left. */
static void
exchange_close(struct conn *conn, int status, uint64_t body_bytes)
{
    struct exchange *exchange = conn->exchange;
    struct worker *worker = conn->worker;
    const struct action *action = action_of(exchange);

    count_status(&worker->me->counters, status);
    if (atomic_load_explicit(&worker->me->counters.requests, memory_order_relaxed) >=
        worker->recycle_at) {
        worker_reached_max_requests(worker);
    }
    if (access_log_is_on(&worker->access_log)) {
        struct access_record record = {
            .peer = &exchange->client,
            .head = exchange->head,
            .base = exchange->base,
            .status = status,
            .body_bytes = body_bytes,
            .started_real_ms = exchange->started_real_ms,
            .duration_ms = worker->now_ms - exchange->started_ms,
            .backend = exchange->route != NULL && exchange->route->backend != NULL
                           ? exchange->route->backend->settings->name
                           : NULL,
            .server = exchange->server,
            .upstream_ms = exchange->upstream_ms,
        };
        access_log_add(&worker->access_log, &record);
    }
    if (action != NULL && action->end != NULL && exchange->state != NULL) {
        action->end(exchange);
    }
    conn->exchange = NULL;
    exchange_free(exchange);
}

void
exchange_end(struct conn *conn)
{
    struct exchange *exchange = conn->exchange;
    bool close = exchange->close;

    /* A client that asked for the end sends nothing more, unless its request is still on the way.
     */
    conn->linger = close && (exchange->head->keep_alive || !exchange->request_done);
    exchange_close(conn, exchange->status, exchange->body_put);
    conn_exchange_ended(conn, close);
}

void
exchange_end_early(struct conn *conn, enum close_reason reason)
{
    struct exchange *exchange = conn->exchange;
    uint64_t sent = conn->stream.sent_bytes - exchange->sent_mark;
    int status = exchange->status;

    if (reason == CLOSE_CLIENT_LEFT || reason == CLOSE_CLIENT_RESET || status == 0) {
        status = 499;
    }
    exchange_close(conn, status, sent < exchange->body_put ? sent : exchange->body_put);
}
