/* SPDX-License-Identifier: Apache-2.0
 *
 * The request on its way to the server: its head, and its body as the client sends it. Runs in
 * workers.
 *
 * Back-pressure by not reading: the client's body is not read while the server has not taken what
 * there is (proxy_may_send_body).
 */
#include "worker/proxy/proxy_private.h"

#include "config/base/check.h"
#include "worker/conn.h"
#include "worker/http/chunked.h"
#include "worker/proxy/forward.h"
#include "worker/proxy/preface.h"
#include "worker/proxy/upstream.h"
#include "worker/proxy_protocol.h"
#include "worker/worker_private.h"

/* The server's time runs while it has everything, or does not take what there is for it; while the
 * client pauses in its body, body_timeout runs. */
void
proxy_expect_response(struct proxy *proxy)
{
    if (proxy->awaits_proof) {
        return;
    }
    if (!proxy->exchange->request_done && stream_is_drained(&proxy->conn->stream)) {
        deadline_clear(&proxy->conn->deadline);
        return;
    }
    deadline_set(&proxy->conn->deadline, proxy->worker->loop, proxy->worker->now_ms,
                 proxy_settings(proxy)->response_timeout_ms);
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
    stream_flush(stream);
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
    struct exchange *exchange = proxy->exchange;
    struct stream *stream = &proxy->conn->stream;
    bool chunked = exchange->head->framing == BODY_CHUNKED;

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
    if (proxy->state == PROXY_HEAD) {
        proxy_expect_response(proxy);
    }
    proxy_rearm(proxy);
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

void
proxy_send_body_end(struct proxy *proxy)
{
    struct exchange *exchange = proxy->exchange;
    struct stream *stream = &proxy->conn->stream;

    stream_flush(&exchange->conn->stream);
    if (exchange->head->framing == BODY_CHUNKED) {
        proxy_put_last_chunk(stream, exchange->trailers);
        stream_flush(stream);
    }
    if (proxy->state == PROXY_HEAD) {
        proxy_expect_response(proxy);
    }
    proxy_rearm(proxy);
}
