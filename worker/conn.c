/* SPDX-License-Identifier: Apache-2.0
 *
 * Client connections: reading requests, handing them to actions, sending what they answer, and
 * ending well. Runs in workers.
 *
 *   open --> PREFACE (only of proxy_protocol_from) --PROXY header--> IDLE; bad: CLOSED
 *
 *              +------------------ next request ------------------+
 *              v                                                   |
 *   open --> IDLE --first byte--> HEAD --head complete--> BUSY ----+
 *              |                   |                       |  \
 *              |                   | bad head              |   `-- 101 --> TUNNEL
 *              |                   v                       v                  |
 *              |                 FINISH <--- last response put                |
 *              |                   |   \                                      |
 *              |                   |    `-- client may still send --> LINGER  |
 *              v                   v                                    |     v
 *            CLOSED <--------------------------------------------------------
 *
 *   conn_serve()     feeds bytes to the state: serve_head(), serve_body(), serve_tunnel()
 *   advance()        steps that need no new bytes: end of an exchange, next pipelined request
 *   conn_settle()    flush, advance until nothing moves, then conn_rearm()
 *   conn_rearm()     recomputes what to watch and the deadline, from the state and the buffers
 *
 * Invariants. exchange is there exactly in BUSY and TUNNEL. A head that arrives whole is parsed
 * where it was read and costs no memory; input holds the bytes of an unfinished head, or bytes
 * that nobody wants yet, and while it holds bytes the socket is not read (but for a head).
 * A connection that is CLOSED is on the graveyard until the turn ends, so that a pointer to it in
 * a callback further up stays valid.
 */
#include "worker/conn.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "config/base/check.h"
#include "config/base/log.h"
#include "worker/action.h"
#include "worker/exchange.h"
#include "worker/exchange_private.h"
#include "worker/forwarded.h"
#include "worker/http/target.h"
#include "worker/live.h"
#include "worker/proxy_protocol.h"
#include "worker/worker_private.h"

/* While a request is being answered at most this much of what the client sends ahead is taken. */
#define AHEAD_BYTES 4096u
/* Requests of one connection that are begun in one turn of the loop; what a client pipelined beyond
 * them waits for the next turn, so that the others are served between. */
#define TURN_REQUESTS_MAX 64u
/* First size of the memory for an unfinished head. */
#define INPUT_MIN_BYTES 1024u

static const char *const state_names[CONN_STATE_COUNT] = {
#define CONN_STATE_NAME(name, waits_for) [CONN_##name] = #name,
    CONN_STATES(CONN_STATE_NAME)
#undef CONN_STATE_NAME
};

#define TO(name) (1u << CONN_##name)
static const unsigned legal_next[CONN_STATE_COUNT] = {
    [CONN_PREFACE] = TO(IDLE) | TO(FINISH) | TO(CLOSED),
    [CONN_IDLE] = TO(HEAD) | TO(BUSY) | TO(FINISH) | TO(CLOSED),
    [CONN_HEAD] = TO(BUSY) | TO(FINISH) | TO(CLOSED),
    [CONN_BUSY] = TO(IDLE) | TO(FINISH) | TO(TUNNEL) | TO(CLOSED),
    [CONN_FINISH] = TO(LINGER) | TO(CLOSED),
    [CONN_TUNNEL] = TO(FINISH) | TO(CLOSED),
    [CONN_LINGER] = TO(CLOSED),
    [CONN_CLOSED] = 0,
};
#undef TO

static const struct {
    const char *text;
    enum log_level level;
} close_reasons[CLOSE_REASON_COUNT] = {
#define CLOSE_REASON(name, words, severity) [CLOSE_##name] = {words, severity},
#include "worker/close_reason.def"
};

static void conn_rearm(struct conn *conn);

const char *
close_reason_text(enum close_reason reason)
{
    return close_reasons[reason].text;
}

static struct conn *
conn_from_io(ev_io *io)
{
    return container_of(container_of(io, struct stream, io), struct conn, stream);
}

static struct conn *
conn_from_timer(ev_timer *timer)
{
    return container_of(container_of(timer, struct deadline, timer), struct conn, deadline);
}

static bool
input_has_bytes(const struct conn *conn)
{
    return conn->input != NULL && conn->input->len > 0;
}

bool
conn_is_idle(const struct conn *conn)
{
    return conn->state == CONN_IDLE && !input_has_bytes(conn);
}

void
conn_log(const struct conn *conn, int level, const char *format, ...)
{
    if (!log_enabled((enum log_level)level)) {
        return;
    }
    char text[1024];
    char client[PEER_TEXT_MAX];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    (void)peer_format(&conn->peer, client);
    if (conn->exchange != NULL) {
        const struct exchange *exchange = conn->exchange;
        (void)peer_format(&exchange->client, client);
        struct str method = span_str(exchange->head->method_text, exchange->base);
        struct str target = span_str(exchange->head->target, exchange->base);
        struct str host = span_str(exchange->head->authority, exchange->base);
        int shown = target.len < 300 ? (int)target.len : 300;
        log_write((enum log_level)level, "%s client=%s:%u request=\"%.*s %.*s\" host=\"%.*s\"",
                  text, client, exchange->client.port, STR_ARG(method), shown, target.ptr,
                  host.len < 100 ? (int)host.len : 100, host.ptr);
    } else {
        log_write((enum log_level)level, "%s client=%s:%u", text, client, conn->peer.port);
    }
}

static void
conn_set_state(struct conn *conn, enum conn_state state)
{
    struct worker *worker = conn->worker;

    CHECK((legal_next[conn->state] & (1u << state)) != 0);
    log_debug("connection %s -> %s fd=%d", state_names[conn->state], state_names[state],
              conn->stream.io.fd);
    conn->state = (uint8_t)state;
    if (state == CONN_HEAD || state == CONN_PREFACE) {
        /* A total for the head, from its first byte: drip-feeding does not move it. */
        deadline_set(&conn->deadline, worker->loop, worker->now_ms,
                     worker->live->config->worker.head_timeout_ms);
    } else if (state == CONN_LINGER) {
        deadline_set(&conn->deadline, worker->loop, worker->now_ms,
                     worker->live->config->worker.linger_timeout_ms);
    } else if (state != CONN_CLOSED) {
        deadline_clear(&conn->deadline); /* conn_rearm() sets what the state needs */
    }
}

/* ---- input: bytes that must outlive the turn --------------------------------------------------
 */

static void
input_free(struct conn *conn)
{
    if (conn->input != NULL) {
        free(conn->input->bytes);
        free(conn->input->parser);
        free(conn->input);
        conn->input = NULL;
    }
}

/* The input of conn, made when there is none yet; NULL: out of memory. */
static struct conn_input *
input_get(struct conn *conn)
{
    if (conn->input == NULL) {
        conn->input = calloc(1, sizeof(*conn->input));
    }
    return conn->input;
}

/* Makes room for more bytes behind what input holds. */
static bool
input_make_room(struct conn_input *input, uint32_t more)
{
    if (input->off > 0) {
        memmove(input->bytes, input->bytes + input->off, input->len);
        input->off = 0;
    }
    if (input->cap - input->len >= more) {
        return true;
    }
    uint32_t cap = input->cap > 0 ? input->cap : INPUT_MIN_BYTES;
    while (cap - input->len < more) {
        cap *= 2;
    }
    char *bytes = realloc(input->bytes, cap);
    if (bytes == NULL) {
        return false;
    }
    input->bytes = bytes;
    input->cap = cap;
    return true;
}

/* Keeps bytes[0..len), what was left over: in place when they are input's already. */
static bool
input_keep(struct conn *conn, const char *bytes, size_t len)
{
    struct conn_input *input = conn->input;

    if (input != NULL && bytes >= input->bytes && bytes <= input->bytes + input->cap) {
        input->off = (uint32_t)(bytes - input->bytes);
        input->len = (uint32_t)len;
        return true;
    }
    input = input_get(conn);
    if (input == NULL) {
        return false;
    }
    CHECK(input->len == 0);
    input->off = 0;
    if (!input_make_room(input, (uint32_t)len)) {
        return false;
    }
    memcpy(input->bytes, bytes, len);
    input->len = (uint32_t)len;
    return true;
}

/* ---- serving bytes ----------------------------------------------------------------------------
 */

/* A head that was refused: the answer goes out, then the connection ends; nothing behind the bad
 * byte is ever taken for a request. */
static void
refuse_head(struct conn *conn, const struct parse_error *error)
{
    struct worker *worker = conn->worker;
    char page[256];

    board_count(&worker->me->counters.bad_requests, 1);
    board_count(&worker->me->counters.status_4xx, error->status < 500 ? 1 : 0);
    board_count(&worker->me->counters.status_5xx, error->status < 500 ? 0 : 1);
    conn_log(conn, LOG_LEVEL_INFO, "request refused status=%d reason=\"%s\"%s%s", error->status,
             error->reason, error->setting != NULL ? " setting=" : "",
             error->setting != NULL ? error->setting : "");
    if (access_log_is_on(&worker->access_log)) {
        struct access_record record = {.peer = &conn->peer,
                                       .status = error->status,
                                       .started_real_ms = worker->now_real_ms,
                                       .upstream_ms = -1};
        access_log_add(&worker->access_log, &record);
    }
    size_t page_length = exchange_page(error->status, page, sizeof(page));
    struct head_writer writer;
    size_t room = 512;
    head_writer_init(&writer, stream_reserve(&conn->stream, room), room);
    head_put_status_line(&writer, error->status, STR(""));
    head_put(&writer, STR("Content-Type: text/html; charset=utf-8\r\n"));
    head_put_number_field(&writer, STR("Content-Length"), page_length);
    worker_put_server_and_date(worker, &writer);
    head_put(&writer, STR("Connection: close\r\n\r\n"));
    CHECK(head_writer_ok(&writer));
    stream_commit(&conn->stream, head_writer_length(&writer));
    stream_put_copy(&conn->stream, page, page_length);
    conn->linger = true;
    input_free(conn);
    conn_set_state(conn, CONN_FINISH);
}

/* Keeps how far the parser came; conn_serve() keeps the bytes. */
static bool
keep_parser(struct conn *conn, const struct request_parser *parser)
{
    struct conn_input *input = input_get(conn);

    if (input != NULL && input->parser == NULL) {
        input->parser = malloc(sizeof(*input->parser));
    }
    if (input == NULL || input->parser == NULL) {
        return false;
    }
    request_parser_copy(input->parser, parser);
    return true;
}

/* The client is another one than the peer that connected: it is that one's connection that
 * connections_per_client counts. */
static void
take_told_client(struct conn *conn, const struct peer *client)
{
    struct worker *worker = conn->worker;
    uint32_t per_client = (uint32_t)worker->live->config->worker.connections_per_client;
    static const struct parse_error too_many = {503, "the client has too many connections",
                                                "connections_per_client"};

    conn->peer = *client;
    if (per_client == 0 || client->family == PEER_UNIX) {
        return;
    }
    int result = client_counts_add(&worker->client_counts, client, per_client);
    conn->counted = result == 0; /* out of memory: served, and not counted */
    if (result == -EDQUOT) {
        refuse_head(conn, &too_many);
    }
}

/* Proxies connect and leave to see whether narwhal is up: only one that sent something is told. */
static void
lose_preface(struct conn *conn, const char *how, const char *setting)
{
    conn_log(conn, input_has_bytes(conn) ? LOG_LEVEL_WARN : LOG_LEVEL_DEBUG,
             "connection refused: no whole PROXY protocol header %s setting=%s", how, setting);
    conn_close(conn, CLOSE_PROXY_HEADER);
}

static size_t
serve_preface(struct conn *conn, const char *bytes, size_t len)
{
    struct proxy_header header;

    switch (proxy_header_parse(bytes, len, &header)) {
    case PARSE_MORE:
        return 0;
    case PARSE_BAD:
        conn_log(conn, LOG_LEVEL_WARN,
                 "connection refused: it must begin with a PROXY protocol header, and this is "
                 "%s setting=proxy_protocol_from",
                 header.reason);
        conn_close(conn, CLOSE_PROXY_HEADER);
        return 0;
    case PARSE_OK:
        break;
    }
    conn_set_state(conn, CONN_IDLE);
    if (header.tells_client) {
        take_told_client(conn, &header.client);
    }
    return header.length;
}

static size_t
serve_head(struct conn *conn, char *bytes, size_t len)
{
    struct worker *worker = conn->worker;
    struct request_parser *parser = &worker->request_parser;

    if (conn->input != NULL && conn->input->parser != NULL) {
        request_parser_copy(parser, conn->input->parser);
    } else {
        request_parser_init(parser);
    }
    switch (request_parser_run(parser, &worker->live->limits, bytes, len)) {
    case PARSE_MORE:
        if (!keep_parser(conn, parser)) {
            conn_close(conn, CLOSE_NO_MEMORY);
            return 0;
        }
        if (conn->state == CONN_IDLE) {
            conn_set_state(conn, CONN_HEAD);
        }
        return 0;
    case PARSE_BAD:
        refuse_head(conn, &parser->error);
        return len;
    case PARSE_OK:
        break;
    }
    if (conn->input != NULL && conn->input->parser != NULL) {
        free(conn->input->parser);
        conn->input->parser = NULL;
    }
    uint32_t head_length = parser->head.length;
    conn_set_state(conn, CONN_BUSY);
    conn->requests++;
    conn->pipelined++;
    conn->burst++;
    if (!exchange_begin(conn, &parser->head, bytes)) {
        conn_close(conn, CLOSE_NO_MEMORY);
        return 0;
    }
    if (conn->state == CONN_BUSY && conn->exchange != NULL && !exchange_is_over(conn->exchange)) {
        /* It goes on after this turn: what it knows of the request must too. */
        (void)exchange_keep_head(conn->exchange);
    }
    return head_length;
}

/* Feeds the body of the request; returns the bytes taken, 0 when no more may come now. */
static size_t
serve_body(struct conn *conn, const char *bytes, size_t len)
{
    struct exchange *exchange = conn->exchange;

    if (exchange->request_done || !exchange_wants_body(exchange)) {
        return 0;
    }
    return exchange_take_body(exchange, bytes, len);
}

static size_t
serve_tunnel(struct conn *conn, const char *bytes, size_t len)
{
    struct exchange *exchange = conn->exchange;

    if (!exchange->route->action->wants_body(exchange)) {
        return 0;
    }
    exchange->route->action->body(exchange, (struct str){bytes, len});
    return len;
}

/* Feeds bytes, which are the worker's scratch or input's own, as far as the states take them. */
static void
conn_serve(struct conn *conn, char *bytes, size_t len)
{
    conn->feeding = true;
    while (len > 0 && conn->state != CONN_CLOSED) {
        size_t used = len;
        switch ((enum conn_state)conn->state) {
        case CONN_PREFACE:
            used = serve_preface(conn, bytes, len);
            break;
        case CONN_IDLE:
            used = conn->burst < TURN_REQUESTS_MAX ? serve_head(conn, bytes, len) : 0;
            break;
        case CONN_HEAD:
            used = serve_head(conn, bytes, len);
            break;
        case CONN_BUSY:
            used = serve_body(conn, bytes, len);
            break;
        case CONN_TUNNEL:
            used = serve_tunnel(conn, bytes, len);
            break;
        case CONN_FINISH:
        case CONN_LINGER:
        case CONN_CLOSED:
        case CONN_STATE_COUNT:
            break; /* dropped: nothing that comes now will be answered */
        }
        bytes += used;
        len -= used;
        if (conn->state == CONN_BUSY && exchange_is_over(conn->exchange)) {
            exchange_end(conn); /* before its head's bytes may go */
        } else if (used == 0) {
            break;
        }
    }
    conn->feeding = false;
    if (conn->state == CONN_CLOSED) {
        return;
    }
    if (len == 0 || conn->state == CONN_FINISH || conn->state == CONN_LINGER) {
        input_free(conn);
    } else if (!input_keep(conn, bytes, len)) {
        conn_close(conn, CLOSE_NO_MEMORY);
    }
}

static void
serve_input(struct conn *conn)
{
    conn_serve(conn, conn->input->bytes + conn->input->off, conn->input->len);
}

/* ---- settling ---------------------------------------------------------------------------------
 */

/* One step that needs no new bytes; false when there is none. */
static bool
advance(struct conn *conn)
{
    struct exchange *exchange = conn->exchange;

    switch ((enum conn_state)conn->state) {
    case CONN_BUSY:
        if (exchange->broken) {
            if (exchange->close_delimited) {
                /* FIN would be the end of this response: only a reset shows that it broke. */
                struct linger reset = {.l_onoff = 1, .l_linger = 0};
                (void)setsockopt(conn->stream.io.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
            }
            conn_close(conn, CLOSE_SERVER_BROKE);
            return false;
        }
        if (exchange_is_over(exchange)) {
            exchange_end(conn);
            if (conn->state == CONN_IDLE && input_has_bytes(conn) &&
                conn->burst < TURN_REQUESTS_MAX) {
                serve_input(conn);
            }
            return true;
        }
        if (input_has_bytes(conn) && !exchange->request_done && exchange_wants_body(exchange)) {
            serve_input(conn);
            return true;
        }
        return false;
    case CONN_TUNNEL:
        if (exchange->broken || (exchange->response_done && stream_is_drained(&conn->stream))) {
            conn_close(conn, CLOSE_TUNNEL_DONE);
            return false;
        }
        if (input_has_bytes(conn) && exchange->route->action->wants_body(exchange)) {
            serve_input(conn);
            return true;
        }
        return false;
    case CONN_FINISH:
        if (!stream_is_drained(&conn->stream)) {
            return false;
        }
        if (!conn->linger || conn->saw_eof) {
            conn_close(conn, CLOSE_DONE);
            return false;
        }
        /* Closing with unread bytes in the receive buffer would send a reset, which may destroy
         * the response on its way (RFC 9112 section 9.6). */
        conn_set_state(conn, CONN_LINGER);
        stream_shutdown(&conn->stream);
        return true;
    case CONN_PREFACE:
    case CONN_IDLE:
    case CONN_HEAD:
    case CONN_LINGER:
    case CONN_CLOSED:
    case CONN_STATE_COUNT:
        return false;
    }
    return false;
}

static enum close_reason
reason_of_send_error(int error)
{
    if (error == ENODATA) {
        return CLOSE_FILE_SHRANK;
    }
    if (error == ENOMEM) {
        return CLOSE_NO_MEMORY;
    }
    return error == EPIPE || error == ECONNRESET ? CLOSE_CLIENT_LEFT : CLOSE_SEND_FAILED;
}

void
conn_settle(struct conn *conn)
{
    if (conn->feeding || conn->state == CONN_CLOSED) {
        return; /* the conn_serve() above us settles, or nothing is left to settle */
    }
    do {
        stream_flush(&conn->stream);
        if (conn->stream.error != 0) {
            conn_close(conn, reason_of_send_error(conn->stream.error));
            return;
        }
    } while (advance(conn));
    if (conn->state != CONN_CLOSED) {
        conn_rearm(conn);
    }
}

static bool
wants_read(const struct conn *conn)
{
    if (conn->saw_eof) {
        return false;
    }
    switch ((enum conn_state)conn->state) {
    case CONN_IDLE:
        return !input_has_bytes(conn);
    case CONN_PREFACE:
    case CONN_HEAD:
    case CONN_LINGER:
        return true;
    case CONN_BUSY:
        if (input_has_bytes(conn)) {
            return false;
        }
        /* With the whole request read, reading goes on to see the client leave. */
        return conn->exchange->request_done || exchange_wants_body(conn->exchange);
    case CONN_TUNNEL:
        return !input_has_bytes(conn) && conn->exchange->route->action->wants_body(conn->exchange);
    case CONN_FINISH:
    case CONN_CLOSED:
    case CONN_STATE_COUNT:
        return false;
    }
    return false;
}

/* The deadline of the state, set anew by every event of the connection, so that it counts
 * silence; those of HEAD and LINGER count from the state's begin and are set with it. */
static void
set_deadline(struct conn *conn)
{
    struct worker *worker = conn->worker;
    const struct worker_settings *settings = &worker->live->config->worker;
    int64_t after_ms;

    if (conn->state == CONN_PREFACE || conn->state == CONN_HEAD || conn->state == CONN_LINGER) {
        return;
    }
    bool wants_body = conn->state == CONN_BUSY && !conn->exchange->request_done &&
                      stream_is_drained(&conn->stream) && exchange_wants_body(conn->exchange);
    if (conn->state == CONN_BUSY && !wants_body) {
        exchange_body_clock_stop(conn->exchange, worker->now_ms);
    }
    if (conn->state == CONN_IDLE && input_has_bytes(conn)) {
        after_ms = 0; /* its burst is over: on_conn_timeout() goes on in the next turn */
    } else if (conn->state == CONN_IDLE) {
        after_ms = worker->draining      ? settings->keepalive_drain_ms
                   : conn->requests == 0 ? settings->head_timeout_ms
                                         : settings->keepalive_ms;
    } else if (!stream_is_drained(&conn->stream)) {
        if (conn->stream.sent_bytes == conn->sent_seen && conn->deadline.at_ms != INT64_MAX) {
            return; /* the client took nothing: its time runs on */
        }
        conn->sent_seen = conn->stream.sent_bytes;
        after_ms = settings->send_timeout_ms;
    } else if (wants_body) {
        int64_t left_ms = exchange_body_rate_left_ms(conn->exchange, worker->now_ms);
        after_ms = left_ms < settings->body_timeout_ms ? left_ms : settings->body_timeout_ms;
        after_ms = after_ms > 0 ? after_ms : 0;
    } else {
        deadline_clear(&conn->deadline); /* the server's own deadlines count now */
        return;
    }
    deadline_set(&conn->deadline, worker->loop, worker->now_ms, after_ms);
}

static void
conn_rearm(struct conn *conn)
{
    struct exchange *exchange = conn->exchange;

    if (conn->state == CONN_BUSY && exchange->continue_due && !exchange->request_done &&
        exchange_wants_body(exchange)) {
        exchange_put_continue(exchange);
        stream_flush(&conn->stream);
    }
    set_deadline(conn);
    stream_watch(&conn->stream, conn->worker->loop,
                 (wants_read(conn) ? EV_READ : 0) |
                     (stream_is_drained(&conn->stream) ? 0 : EV_WRITE));
}

/* ---- events -----------------------------------------------------------------------------------
 */

/* The client sent FIN. A client that half-closes and still waits for its answer cannot be told from
 * one that left; as everywhere, what was answered already is still sent, the rest is given up. */
static void
on_client_eof(struct conn *conn)
{
    conn->saw_eof = true;
    switch ((enum conn_state)conn->state) {
    case CONN_PREFACE:
        lose_preface(conn, "before the end of the stream", "proxy_protocol_from");
        return;
    case CONN_IDLE:
        conn_close(conn, CLOSE_CLIENT_CLOSED);
        return;
    case CONN_HEAD:
        conn_close(conn, CLOSE_CLIENT_LEFT_IN_HEAD);
        return;
    case CONN_BUSY:
        if (!conn->exchange->response_done) {
            conn_close(conn, CLOSE_CLIENT_LEFT);
        } else {
            conn->exchange->close = true; /* the rest of the request will not come */
        }
        return;
    case CONN_TUNNEL:
        conn->exchange->route->action->body_end(conn->exchange);
        return;
    case CONN_LINGER:
        conn_close(conn, CLOSE_LINGERED);
        return;
    case CONN_FINISH:
    case CONN_CLOSED:
    case CONN_STATE_COUNT:
        return;
    }
}

static void
read_client(struct conn *conn)
{
    struct worker *worker = conn->worker;
    struct conn_input *input =
        conn->state == CONN_HEAD || conn->state == CONN_PREFACE ? conn->input : NULL;
    char *buffer = worker->scratch;
    size_t size = (size_t)worker->live->memory.read_bytes; /* WORKER_SCRATCH_BYTES at most */
    size_t length = 0;

    if (input != NULL) {
        if (!input_make_room(input, INPUT_MIN_BYTES / 2)) {
            conn_close(conn, CLOSE_NO_MEMORY);
            return;
        }
        buffer = input->bytes + input->len;
        size = input->cap - input->len;
    } else if (conn->state == CONN_BUSY && conn->exchange->request_done) {
        size = AHEAD_BYTES;
    }
    switch (stream_read(&conn->stream, buffer, size, &length)) {
    case STREAM_OK:
        break;
    case STREAM_AGAIN:
        return;
    case STREAM_EOF:
        on_client_eof(conn);
        return;
    case STREAM_ERROR:
        conn_close(conn, CLOSE_CLIENT_RESET);
        return;
    }
    board_count(&worker->me->counters.bytes_in, length);
    conn->pipelined = 0;
    if (conn->state == CONN_LINGER) {
        return; /* dropped */
    }
    if (input != NULL) {
        input->len += (uint32_t)length;
        serve_input(conn);
    } else {
        conn_serve(conn, buffer, length);
    }
}

static void
write_client(struct conn *conn)
{
    uint64_t sent_before = conn->stream.sent_bytes;

    stream_send(&conn->stream, conn->worker->now_ms);
    if (conn->stream.error == 0 && conn->stream.sent_bytes > sent_before &&
        conn->exchange != NULL && !conn->exchange->response_done) {
        exchange_drained(conn->exchange);
    }
}

static void
on_client_io(struct ev_loop *loop, ev_io *io, int revents)
{
    struct conn *conn = conn_from_io(io);

    (void)loop;
    conn->burst = 0;
    if ((revents & EV_ERROR) != 0) {
        /* epoll_ctl(2) failed and libev gave the watcher up: nothing would ever come of it. */
        conn_close(conn, CLOSE_NOT_WATCHED);
        return;
    }
    if ((revents & EV_WRITE) != 0) {
        write_client(conn);
    }
    if ((revents & EV_READ) != 0 && conn->state != CONN_CLOSED && conn->stream.error == 0 &&
        wants_read(conn)) {
        read_client(conn);
    }
    conn_settle(conn);
}

static void
on_conn_timeout(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct conn *conn = conn_from_timer(timer);
    static const struct parse_error head_timeout = {408, "no whole request head in time",
                                                    "head_timeout"};

    (void)revents;
    if (!deadline_is_due(&conn->deadline, loop, conn->worker->now_ms)) {
        return;
    }
    conn->burst = 0;
    switch ((enum conn_state)conn->state) {
    case CONN_PREFACE:
        lose_preface(conn, "in time", conn->worker->draining ? "keepalive_drain" : "head_timeout");
        return;
    case CONN_IDLE:
        if (input_has_bytes(conn)) {
            serve_input(conn);
            break;
        }
        conn_close(conn, conn->worker->draining ? CLOSE_DRAINED
                         : conn->requests == 0  ? CLOSE_NO_REQUEST
                                                : CLOSE_IDLE);
        return;
    case CONN_HEAD:
        refuse_head(conn, &head_timeout);
        break;
    case CONN_BUSY:
        if (!stream_is_drained(&conn->stream)) {
            conn_close(conn, CLOSE_SEND_TIMEOUT);
            return;
        }
        if (conn->exchange->response_done) {
            conn->exchange->close = true; /* answered; only the rest of the request is missing */
        } else if (conn->exchange->body_bytes > 0 &&
                   exchange_body_rate_left_ms(conn->exchange, conn->worker->now_ms) <= 0) {
            exchange_refuse(conn->exchange, 408, "the request body comes too slowly", "body_rate");
        } else {
            exchange_refuse(conn->exchange, 408, "no piece of the request body in time",
                            "body_timeout");
        }
        break;
    case CONN_FINISH:
    case CONN_TUNNEL:
        conn_close(conn, CLOSE_SEND_TIMEOUT);
        return;
    case CONN_LINGER:
        conn_close(conn, CLOSE_LINGERED);
        return;
    case CONN_CLOSED:
    case CONN_STATE_COUNT:
        return;
    }
    conn_settle(conn);
}

/* ---- lifecycle --------------------------------------------------------------------------------
 */

bool
conn_expects_preface(const struct worker *worker, const struct peer *peer)
{
    return forwarded_trusts(&worker->live->config->worker.proxy_protocol_from, peer);
}

bool
conn_open(struct worker *worker, int fd, const struct peer *peer, bool counted)
{
    struct list_node *spare = list_first(&worker->spare_conns);
    struct conn *conn;

    if (spare != NULL) {
        conn = container_of(spare, struct conn, node);
        list_remove(spare);
        worker->spare_conn_count--;
        memset(conn, 0, sizeof(*conn));
    } else {
        conn = calloc(1, sizeof(*conn));
        if (conn == NULL) {
            return false;
        }
    }
    list_init(&conn->node);
    conn->worker = worker;
    conn->peer = *peer;
    conn->opened_ms = worker->now_ms;
    conn->counted = counted;
    conn->number = ++worker->conns_opened;
    stream_init(&conn->stream, &worker->batch, fd, on_client_io);
    deadline_init(&conn->deadline, on_conn_timeout);
    conn->state = CONN_IDLE;
    if (conn_expects_preface(worker, peer)) {
        conn->state = CONN_PREFACE;
        deadline_set(&conn->deadline, worker->loop, worker->now_ms,
                     worker->live->config->worker.head_timeout_ms);
    }
    list_push_back(&worker->conns, &conn->node);
    worker->conn_count++;
    board_count(&worker->me->counters.accepted, 1);
    /* The request is usually there already: serving it now saves a turn, and for a connection that
     * closes after one response also its registration with epoll. */
    read_client(conn);
    conn_settle(conn);
    return true;
}

void
conn_close(struct conn *conn, enum close_reason reason)
{
    struct worker *worker = conn->worker;

    if (conn->state == CONN_CLOSED) {
        return;
    }
    if (reason == CLOSE_NO_MEMORY) {
        worker_tell_short(worker, "for what a client sent, or does not take");
    }
    if (conn->exchange != NULL) {
        if (!(reason == CLOSE_TUNNEL_DONE || exchange_is_over(conn->exchange))) {
            conn_log(conn, (int)close_reasons[reason].level, "connection closed reason=\"%s\"",
                     close_reasons[reason].text);
        }
        exchange_end_early(conn, reason);
    } else {
        conn_log(conn,
                 close_reasons[reason].level >= LOG_LEVEL_INFO ? LOG_LEVEL_DEBUG
                                                               : (int)close_reasons[reason].level,
                 "connection closed reason=\"%s\" requests=%llu", close_reasons[reason].text,
                 (unsigned long long)conn->requests);
    }
    if (conn->state == CONN_TUNNEL) {
        board_count(&worker->me->counters.tunnels_ended, 1);
    }
    conn_set_state(conn, CONN_CLOSED);
    board_count(&worker->me->counters.bytes_out, conn->stream.sent_bytes);
    stream_close(&conn->stream, worker->loop);
    deadline_stop(&conn->deadline, worker->loop);
    input_free(conn);
    list_remove(&conn->node);
    list_push_back(&worker->graveyard, &conn->node);
    worker->conn_count--;
    if (conn->counted) {
        client_counts_remove(&worker->client_counts, &conn->peer);
    }
    board_count(&worker->me->counters.closed, 1);
    worker_conn_ended(worker);
}

static enum conn_cut
cut_of(const struct conn *conn)
{
    switch ((enum conn_state)conn->state) {
    case CONN_HEAD:
    case CONN_BUSY:
        return CONN_CUT_REQUEST;
    case CONN_FINISH:
        return stream_is_drained(&conn->stream) ? CONN_CUT_IDLE : CONN_CUT_REQUEST;
    case CONN_TUNNEL:
        return CONN_CUT_TUNNEL;
    case CONN_PREFACE:
    case CONN_IDLE:
    case CONN_LINGER:
    case CONN_CLOSED:
    case CONN_STATE_COUNT:
        break;
    }
    return CONN_CUT_IDLE;
}

static void
tell_cut(const struct conn *conn, enum conn_cut cut)
{
    const struct exchange *exchange = conn->exchange;
    int64_t now_ms = conn->worker->now_ms;
    char client[PEER_TEXT_MAX];

    (void)peer_format(&conn->peer, client);
    if (exchange == NULL) {
        log_warn("request cut at graceful_timeout in the middle of its %s client=%s:%u "
                 "connection_age=%lldms",
                 conn->state == CONN_HEAD ? "head" : "response", client, conn->peer.port,
                 (long long)(now_ms - conn->opened_ms));
        return;
    }
    struct str method = span_str(exchange->head->method_text, exchange->base);
    struct str path = exchange_shown_path(exchange);
    log_warn("%s cut at graceful_timeout client=%s:%u request=\"%.*s %.*s\" age=%lldms "
             "connection_age=%lldms status=%d sent=%llu",
             cut == CONN_CUT_TUNNEL ? "tunnel" : "request", client, conn->peer.port,
             STR_ARG(method), path.len < 300 ? (int)path.len : 300, path.ptr,
             (long long)(now_ms - exchange->started_ms), (long long)(now_ms - conn->opened_ms),
             exchange->status, (unsigned long long)(conn->stream.sent_bytes - exchange->sent_mark));
}

enum conn_cut
conn_cut(struct conn *conn, bool tell)
{
    enum conn_cut cut = cut_of(conn);

    if (tell && cut != CONN_CUT_IDLE) {
        tell_cut(conn, cut);
    }
    conn_close(conn, CLOSE_CUT);
    return cut;
}

void
conn_free(struct conn *conn)
{
    struct worker *worker = conn->worker;

    list_remove(&conn->node);
    if (worker->spare_conn_count < WORKER_SPARES_MAX) {
        list_push_back(&worker->spare_conns, &conn->node);
        worker->spare_conn_count++;
    } else {
        free(conn);
    }
}

void
conn_exchange_ended(struct conn *conn, bool close)
{
    conn_set_state(conn, close ? CONN_FINISH : CONN_IDLE);
}

void
conn_start_tunnel(struct conn *conn)
{
    conn_set_state(conn, CONN_TUNNEL);
    board_count(&conn->worker->me->counters.tunnels, 1);
}

void
conn_reload(struct conn *conn)
{
    if (conn->state == CONN_TUNNEL && conn->exchange->route->action->reload != NULL) {
        conn->exchange->route->action->reload(conn->exchange, conn->worker->live);
    }
}

void
conn_drain(struct conn *conn)
{
    if (conn->state == CONN_IDLE) {
        conn_rearm(conn);
    } else if (conn->state == CONN_PREFACE) {
        deadline_set(&conn->deadline, conn->worker->loop, conn->worker->now_ms,
                     conn->worker->live->config->worker.keepalive_drain_ms);
    }
}
