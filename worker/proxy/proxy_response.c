/* SPDX-License-Identifier: Apache-2.0
 *
 * The response on its way to the client: heads, interim ones too, and the body, framed anew. Runs
 * in workers.
 *
 * A body is passed on as it comes: nothing waits for more of it. The server is not read while the
 * client leaves more than response_buffer untaken, or more than the connection's share of
 * connection_memory, so that one exchange holds at most that, plus one read. What cannot be
 * completed is cut, never ended: the client must be able to tell.
 */
#include "worker/proxy/proxy_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/check.h"
#include "worker/conn.h"
#include "worker/http/chunked.h"
#include "worker/proxy/forward.h"
#include "worker/proxy/upstream.h"
#include "worker/worker_private.h"

/* An unfinished response head gets memory for at least this much more. */
#define HEAD_ROOM_BYTES (4u * 1024u)

/* How long a head waits for the first bytes of its body: longer than a server needs that writes the
 * one and then the other, shorter than anybody notices. */
#define HEAD_HELD_MS 5

/* What may wait for the client: response_buffer, as far as connection_memory has room for it beside
 * the part of a collected body that the server has not taken yet. */
static size_t
response_room(const struct proxy *proxy)
{
    size_t room = (size_t)proxy->exchange->live->memory.queue_bytes;
    size_t wanted = (size_t)proxy_settings(proxy)->response_buffer_bytes;
    size_t taken = proxy->conn->stream.queued_bytes;

    room = room > taken ? room - taken : 0;
    return wanted < room ? wanted : room;
}

bool
proxy_may_read_response(const struct proxy *proxy)
{
    const ev_io *io = &proxy->conn->stream.io;
    size_t queued = proxy->exchange->conn->stream.queued_bytes;
    size_t limit = response_room(proxy);

    if (proxy->awaits_proof) {
        return false;
    }
    /* Once it was full reading goes on when half of it is empty: not at each piece that the client
     * takes, which would cost a change of what is watched each time. */
    bool is_reading = ev_is_active(io) && (io->events & EV_READ) != 0;
    return queued == 0 || queued < (is_reading ? limit : limit / 2);
}

/* The server did its part: its connection is kept when both sides are at a message boundary. */
static void
response_complete(struct proxy *proxy, size_t unused)
{
    struct exchange *exchange = proxy->exchange;
    struct stream *client = &exchange->conn->stream;

    if (proxy->out_chunked) {
        proxy_put_last_chunk(client, proxy->trailers);
    }
    if (proxy->server_keep_alive && unused == 0 && exchange->request_done &&
        stream_is_drained(&proxy->conn->stream)) {
        upstream_release_to_pool(&proxy->conn, proxy_settings(proxy));
    } else {
        upstream_close(&proxy->conn);
    }
    proxy_unclaim(proxy);
    proxy_set_state(proxy, PROXY_DONE);
    exchange_finish_response(exchange);
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
            if (head->framing == BODY_CHUNKED && exchange->route->settings->trailers) {
                /* Without memory they are dropped, as any recipient may. */
                proxy->trailers = calloc(1, sizeof(*proxy->trailers));
                proxy->chunked.trailers = proxy->trailers;
            }
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
        exchange_put_connection(exchange, &writer);
        if (proxy->trailers != NULL) {
            forward_trailer_names(&writer, head->fields, head->field_count, base);
        }
    }
    head_put_end(&writer);
    CHECK(head_writer_ok(&writer));
    stream_commit(client, head_writer_length(&writer));
}

/* An informational response (RFC 9110 section 15.2): passed on, except 100, of which the client
 * gets one when it asked and its body is wanted (exchange_put_continue()), and except to HTTP/1.0
 * clients, who do not know them. */
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
            proxy_server_broke(proxy, proxy->chunked.reason);
            return;
        }
    }
}

void
proxy_take_body(struct proxy *proxy, const char *bytes, size_t length)
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

/* Keeps what is there of a head. False: out of memory, and what was kept before is gone. */
static bool
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
            return false;
        }
        if (proxy->input == NULL) {
            memcpy(input, bytes, length);
        }
        proxy->input = input;
        proxy->input_capacity = (uint32_t)(length + 2 * HEAD_ROOM_BYTES);
    }
    proxy->input_length = (uint32_t)length;
    response_parser_copy(proxy->parser, &proxy->worker->response_parser);
    return true;
}

/* Many application servers (asyncio's, gunicorn) write the head and then the body. The head waits
 * for a moment, so that both go out with one system call, and so that a server which is killed
 * between the two has not begun its answer: the client sees the one of another server, or 502, and
 * not a response that breaks off. Only where the length says that a body comes: the head of a
 * stream may be all that there is for long. */
static bool
may_hold(const struct proxy *proxy, const struct response_head *head, size_t length)
{
    return proxy->input == NULL && head->framing == BODY_LENGTH && head->content_length > 0 &&
           length == head->length && proxy->exchange->request_done &&
           stream_is_drained(&proxy->conn->stream);
}

/* Feeds bytes of heads, one after another; what follows the final head goes to proxy_take_body().
 */
void
proxy_take_heads(struct proxy *proxy, const char *bytes, size_t length)
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
    while (!proxy->head_held) {
        enum parse_result result =
            response_parser_run(parser, exchange->head->method == METHOD_HEAD, bytes, length);
        if (result == PARSE_MORE) {
            if (!keep_head(proxy, bytes, length)) {
                proxy_attempt_failed(proxy, FAILURE_PROTOCOL,
                                     "out of memory for the head of a response", NULL);
            }
            return;
        }
        if (result == PARSE_BAD) {
            proxy_attempt_failed(proxy, FAILURE_PROTOCOL, parser->error.reason, NULL);
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
            proxy_forget_input(proxy);
            return;
        }
    }
    if (head->status == 101 &&
        !(head->upgrade && forward_asks_upgrade(exchange->head, exchange->base))) {
        proxy_attempt_failed(proxy, FAILURE_PROTOCOL, "101 without a request to upgrade", NULL);
        return;
    }
    if (may_hold(proxy, head, length) && keep_head(proxy, bytes, length)) {
        proxy->head_held = true;
        deadline_set(&proxy->conn->deadline, worker->loop, worker->now_ms, HEAD_HELD_MS);
        return;
    }
    proxy_note_answer(proxy, head->status);
    upstream_note_keep_alive(proxy->conn, head->keep_alive_ms);
    proxy_forget_body(proxy); /* what was answered is never sent again */
    forward_head(proxy, head, bytes);
    size_t head_length = head->length;
    if (head->status == 101) {
        stream_flush(&exchange->conn->stream);
        tunnel_start(proxy, bytes + head_length, length - head_length);
    } else {
        proxy->server_keep_alive = head->keep_alive && !proxy->spoke_first;
        proxy_set_state(proxy, PROXY_BODY);
        if (proxy->framing == BODY_NONE || (proxy->framing == BODY_LENGTH && proxy->left == 0) ||
            length > head_length) {
            proxy_take_body(proxy, bytes + head_length, length - head_length);
        }
        /* What was put refers to these bytes; the input is freed with the exchange or below. */
        stream_flush(&exchange->conn->stream);
        proxy_forget_input(proxy);
    }
}

void
proxy_head_cut(struct proxy *proxy, const char *how)
{
    char reason[128];

    (void)snprintf(reason, sizeof(reason), "server closed before %s: %s",
                   proxy->head_held ? "the body of its response" : "its response", how);
    proxy_attempt_failed(proxy, FAILURE_CLOSED, reason, NULL);
}

void
proxy_body_cut(struct proxy *proxy, const char *how)
{
    char reason[128];

    if (proxy->framing == BODY_UNTIL_CLOSE && errno == 0) {
        proxy->server_keep_alive = false;
        response_complete(proxy, 0);
        return;
    }
    (void)snprintf(reason, sizeof(reason), "server broke off its response: %s", how);
    proxy_server_broke(proxy, reason);
}

void
proxy_head_timeout(struct proxy *proxy)
{
    if (proxy->awaits_proof) {
        proxy_proof_timeout(proxy);
        return;
    }
    if (proxy->head_held) {
        proxy_take_heads(proxy, proxy->input, proxy->input_length);
        deadline_set(&proxy->conn->deadline, proxy->worker->loop, proxy->worker->now_ms,
                     proxy_settings(proxy)->stream_timeout_ms);
        return;
    }
    proxy_attempt_failed(proxy, FAILURE_TIMEOUT, "no response from the server in time",
                         "response_timeout");
}

void
proxy_body_timeout(struct proxy *proxy)
{
    proxy_server_broke(proxy, "server sent nothing for stream_timeout");
}
