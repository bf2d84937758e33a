/* SPDX-License-Identifier: Apache-2.0
 *
 * The action static: what worker/static answers, put on the client's stream.
 */
#include "worker/action.h"

#include <string.h>

#include "config/base/check.h"
#include "worker/conn.h"
#include "worker/exchange.h"
#include "worker/exchange_private.h"
#include "worker/live.h"
#include "worker/static/static_file.h"
#include "worker/worker_private.h"

/* A body up to this size is copied behind its head: cheaper than a second piece for the kernel. A
 * larger one is sent from where it is. */
#define COPY_BODY_MAX (8u * 1024u)

static void
release_file(void *owner)
{
    struct static_file *file = owner;

    static_file_unref(&file);
}

static void
put_body(struct exchange *exchange, struct static_answer *answer)
{
    struct stream *stream = &exchange->conn->stream;
    struct static_file *file = answer->file;

    if (answer->send_length == 0) {
        return;
    }
    exchange->body_put = answer->send_length;
    if (file->content == NULL) {
        stream_put_file(stream, file->fd, answer->first, answer->send_length, release_file, file);
        answer->file = NULL; /* the stream's now */
        stream_send(stream,
                    exchange->conn->worker
                        ->now_ms); /* the socket is likely to take the first slice at once */
    } else if (answer->send_length <= COPY_BODY_MAX) {
        stream_put_copy(stream, file->content + answer->first, answer->send_length);
    } else {
        stream_put(stream, file->content + answer->first, answer->send_length);
        stream_flush(stream); /* before the file may go */
    }
}

/* An answer that is about a file, or has no body at all. */
static void
put_answer(struct exchange *exchange, struct static_answer *answer)
{
    struct stream *stream = &exchange->conn->stream;
    size_t room = static_head_size_max(answer) + EXCHANGE_TAIL_MAX;
    struct head_writer writer;

    exchange->status = answer->status;
    exchange->sent_mark = stream->sent_bytes;
    head_writer_init(&writer, stream_reserve(stream, room), room);
    static_head_put(&writer, answer);
    exchange_put_tail(exchange, &writer);
    CHECK(head_writer_ok(&writer));
    stream_commit(stream, head_writer_length(&writer));
    put_body(exchange, answer);
    exchange_finish_response(exchange);
}

/* An answer with a small page: redirect to a folder's slash, or an error. */
static void
put_page(struct exchange *exchange, struct static_answer *answer)
{
    size_t room = static_head_size_max(answer);
    struct buf fields = {0};
    struct head_writer writer;

    head_writer_init(&writer, buf_reserve(&fields, room), room);
    static_head_put_fields(&writer, answer);
    CHECK(head_writer_ok(&writer));
    fields.len = head_writer_length(&writer);
    if (answer->status >= 400) {
        if (answer->error != 0) {
            conn_log(exchange->conn, answer->status >= 500 ? LOG_LEVEL_ERROR : LOG_LEVEL_DEBUG,
                     "static file error=\"%s\" root=%s", strerror(answer->error),
                     exchange->route->settings->static_path);
        }
        exchange_fail(exchange, answer->status,
                      answer->reason != NULL ? answer->reason : "static file", NULL,
                      (struct str){fields.ptr, fields.len});
    } else {
        char page[256];
        size_t page_length = exchange_page(answer->status, page, sizeof(page));
        struct buf head = {0};
        char line[64];
        head_writer_init(&writer, line, sizeof(line));
        head_put_status_line(&writer, answer->status, STR(""));
        buf_add(&head, line, head_writer_length(&writer));
        buf_add(&head, fields.ptr, fields.len);
        buf_addf(&head, "Content-Type: text/html; charset=utf-8\r\nContent-Length: %zu\r\n",
                 page_length);
        exchange_answer(exchange, answer->status, (struct str){head.ptr, head.len},
                        (struct str){page, page_length});
        buf_release(&head);
    }
    buf_release(&fields);
}

static void
static_start(struct exchange *exchange)
{
    struct static_answer answer;

    static_answer_make(exchange->route->root, exchange->path, exchange->route->cut, exchange->head,
                       exchange->base, exchange->conn->worker->now_ms,
                       exchange->live->config->worker.static_cache_ms, &answer);
    if (static_root_is_beyond_fence(exchange->route->root)) {
        worker_outgrew_folder(exchange->conn->worker, exchange->route->settings->static_path);
    }
    if (answer.body == STATIC_BODY_PAGE) {
        put_page(exchange, &answer);
    } else {
        put_answer(exchange, &answer);
    }
    static_answer_release(&answer);
}

const struct action action_static = {.name = "static", .start = static_start};
