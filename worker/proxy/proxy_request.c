/* SPDX-License-Identifier: Apache-2.0
 *
 * The request on its way to the server: its head, and its body. Runs in workers.
 *
 * A body that may fit is collected up to request_buffer before a server is chosen: a client that
 * sends slowly keeps no server waiting, head and body go out in one write, and the body can be sent
 * again where a retry is safe. Where servers have slots, the begin of a larger one is collected
 * too: a slot is not given for a promise. The rest is streamed, with back-pressure by not reading:
 * the client is not read while the server has not taken what there is (proxy_may_send_body). So a
 * request holds at most request_buffer and two reads.
 *
 * A client that asks before it sends (Expect: 100-continue) gets its 100 when the server has the
 * head, which may be enough for it to refuse; but where that would take a slot, at once.
 */
#include "worker/proxy/proxy_private.h"

#include <stdlib.h>
#include <string.h>

#include "config/base/check.h"
#include "worker/conn.h"
#include "worker/http/chunked.h"
#include "worker/proxy/forward.h"
#include "worker/proxy/preface.h"
#include "worker/proxy/upstream.h"
#include "worker/proxy_protocol.h"
#include "worker/worker_private.h"

/* First memory for a body of unknown length. */
#define BODY_MIN_BYTES 4096u

/* ---- collecting -------------------------------------------------------------------------------
 */

/* The most that is collected: request_buffer, as far as connection_memory has room for it. */
static uint64_t
collect_limit(const struct proxy *proxy)
{
    int64_t wanted = proxy_settings(proxy)->request_buffer_bytes;
    int64_t room = proxy->exchange->live->memory.queue_bytes;

    return (uint64_t)(wanted < room ? wanted : room);
}

bool
proxy_should_collect(const struct proxy *proxy)
{
    const struct exchange *exchange = proxy->exchange;
    uint64_t limit = collect_limit(proxy);

    if (exchange->request_done || limit == 0) {
        return false;
    }
    if (proxy_settings(proxy)->slots > 0) {
        return true;
    }
    bool fits = exchange->head->framing == BODY_CHUNKED || exchange->head->content_length <= limit;
    return fits && !exchange->continue_due;
}

bool
proxy_may_collect(const struct proxy *proxy)
{
    (void)proxy;
    return true;
}

/* Makes room for more bytes: exactly when the length was announced and they are all of it. */
static bool
body_make_room(struct proxy *proxy, size_t more)
{
    const struct request_head *head = proxy->exchange->head;
    size_t need = proxy->body_length + more;
    size_t capacity = 2 * (size_t)proxy->body_capacity;

    if (need <= proxy->body_capacity) {
        return true;
    }
    if (capacity < BODY_MIN_BYTES) {
        capacity = BODY_MIN_BYTES;
    }
    if (head->framing == BODY_LENGTH && capacity > head->content_length) {
        capacity = (size_t)head->content_length;
    }
    if (capacity < need) {
        capacity = need;
    }
    char *body = realloc(proxy->body, capacity);
    if (body == NULL) {
        return false;
    }
    proxy->body = body;
    proxy->body_capacity = (uint32_t)capacity;
    return true;
}

static void
end_collecting(struct proxy *proxy)
{
    proxy_set_state(proxy, PROXY_CHOOSE);
    proxy_admit(proxy);
}

void
proxy_collect(struct proxy *proxy, struct str bytes)
{
    if (!body_make_room(proxy, bytes.len)) {
        proxy_set_state(proxy, PROXY_CHOOSE);
        proxy_fail(proxy, 503, "out of memory for the body of a request", "request_buffer");
        return;
    }
    memcpy(proxy->body + proxy->body_length, bytes.ptr, bytes.len);
    proxy->body_length += (uint32_t)bytes.len;
    /* Not when it is full to the byte: its end may be all that is missing. */
    if (proxy->body_length > collect_limit(proxy)) {
        end_collecting(proxy);
    }
}

void
proxy_note_body_end(struct proxy *proxy)
{
    proxy->body_whole = true;
}

void
proxy_collect_end(struct proxy *proxy)
{
    proxy->body_whole = true;
    end_collecting(proxy);
}

/* ---- sending ----------------------------------------------------------------------------------
 */

/* The server's time runs while it has everything, or does not take what there is for it; while the
 * client pauses in its body, body_timeout runs. */
void
proxy_expect_response(struct proxy *proxy)
{
    if (proxy->awaits_proof || proxy->head_held) {
        return; /* another clock runs */
    }
    if (!proxy->exchange->request_done && stream_is_drained(&proxy->conn->stream)) {
        deadline_clear(&proxy->conn->deadline);
        return;
    }
    deadline_set(&proxy->conn->deadline, proxy->worker->loop, proxy->worker->now_ms,
                 proxy_settings(proxy)->response_timeout_ms);
}

/* Puts a piece of the body, framed as the server was told. */
static void
put_body(struct proxy *proxy, struct str bytes)
{
    struct stream *stream = &proxy->conn->stream;
    bool chunked = proxy->exchange->head->framing == BODY_CHUNKED;

    if (chunked) {
        char head[CHUNK_HEAD_MAX];
        stream_put_copy(stream, head, chunk_head(head, bytes.len));
    }
    stream_put(stream, bytes.ptr, bytes.len);
    if (chunked) {
        stream_put(stream, "\r\n", 2);
    }
}

void
proxy_put_last_chunk(struct stream *stream, const struct chunked_trailers *trailers)
{
    struct head_writer writer;

    if (trailers == NULL || trailers->length == 0) {
        stream_put(stream, "0\r\n\r\n", 5);
        return;
    }
    size_t room = forward_trailers_size_max(trailers);
    head_writer_init(&writer, stream_reserve(stream, room), room);
    forward_trailers(&writer, trailers);
    CHECK(head_writer_ok(&writer));
    stream_commit(stream, head_writer_length(&writer));
}

static void
put_body_end(struct proxy *proxy)
{
    if (proxy->exchange->head->framing == BODY_CHUNKED) {
        proxy_put_last_chunk(&proxy->conn->stream, proxy->exchange->trailers);
    }
}

/* What the server did not take at once is in its queue: a second copy, for a retry, is kept only
 * where connection_memory has room for both. */
static void
keep_body_if_room(struct proxy *proxy)
{
    const struct connection_memory *memory = &proxy->exchange->live->memory;
    size_t queued = proxy->conn->stream.queued_bytes;

    if (proxy->body != NULL && queued > 0 &&
        queued + proxy->body_length > (size_t)(memory->queue_bytes + memory->read_bytes)) {
        proxy->body_consumed = true;
        proxy_forget_body(proxy);
    }
}

void
proxy_begin_request(struct proxy *proxy)
{
    struct exchange *exchange = proxy->exchange;
    struct stream *stream = &proxy->conn->stream;
    const struct backend_settings *settings = proxy_settings(proxy);
    struct forward_input input = {
        .head = exchange->head,
        .base = exchange->base,
        .path = exchange->path,
        .path_rewritten = exchange->path_rewritten,
        .cut = exchange->route->cut,
        .trailers = exchange->route->settings->trailers,
        .peer = &exchange->conn->peer,
        .client = &exchange->client,
        .believed = exchange->believed,
        .told_by = exchange->live->config->worker.trusted_fields,
        .trusted = &exchange->live->config->worker.trusted_proxies,
        .host = str_from(settings->host != NULL ? settings->host : ""),
        .forwarded = settings->forwarded,
    };
    size_t room = forward_request_size_max(&input);
    struct head_writer writer;

    if (room > BATCH_MEMORY_BYTES - PROXY_HEADER_WRITE_MAX) {
        proxy_fail(proxy, 431, "request head becomes too large for a server", "limit_request_head");
        return;
    }
    proxy_set_state(proxy, PROXY_HEAD);
    proxy->sent_mark = stream->sent_bytes;
    /* The client's bytes may be on the batch (an earlier pipelined response): out with them. */
    stream_flush(&exchange->conn->stream);
    preface_put(proxy);
    head_writer_init(&writer, stream_reserve(stream, room), room);
    forward_request_head(&writer, &input);
    CHECK(head_writer_ok(&writer));
    stream_commit(stream, head_writer_length(&writer));
    if (proxy->body_length > 0) {
        put_body(proxy, (struct str){proxy->body, proxy->body_length});
    }
    if (proxy->body_whole) {
        put_body_end(proxy);
    }
    stream_flush(stream);
    keep_body_if_room(proxy);
    proxy_expect_response(proxy);
    proxy_rearm(proxy);
}

bool
proxy_may_send_body(const struct proxy *proxy)
{
    const struct stream *stream = &proxy->conn->stream;

    /* What is handed to a connection that is broken could not be sent again. */
    return !proxy->awaits_proof && stream->error == 0 && stream_is_drained(stream);
}

void
proxy_send_body(struct proxy *proxy, struct str bytes)
{
    stream_flush(&proxy->exchange->conn->stream);
    put_body(proxy, bytes);
    stream_flush(&proxy->conn->stream);
    proxy->body_consumed = true;
    proxy_forget_body(proxy); /* without the rest it is of no use to another server */
    if (proxy->state == PROXY_HEAD) {
        proxy_expect_response(proxy);
    }
    proxy_rearm(proxy);
}

void
proxy_send_body_end(struct proxy *proxy)
{
    stream_flush(&proxy->exchange->conn->stream);
    put_body_end(proxy);
    stream_flush(&proxy->conn->stream);
    if (proxy->state == PROXY_HEAD) {
        proxy_expect_response(proxy);
    }
    proxy_rearm(proxy);
}
