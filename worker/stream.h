/* SPDX-License-Identifier: Apache-2.0
 *
 * struct stream: one non-blocking socket with what its peer would not take yet. It moves bytes and
 * knows no protocol; client connections and connections to servers are built on it. All reading
 * and writing of a socket happens in stream.c: the place where another transport would go.
 *
 * Writing is gathered: within one turn of the loop pieces are put on the worker's batch, as
 * references or written into its memory, and go out with one sendmsg(2) when the stream is flushed.
 * Only what the kernel did not take is copied into segments that the stream owns. So a response
 * that its client takes at once costs no allocation, and an idle stream owns nothing.
 */
#pragma once

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* Bytes one stream may send from its queue in one turn, so that a fast reader of a large file does
 * not keep the others waiting: a third of a millisecond of a worker's CPU. Only a peer that keeps
 * up (below) has room for so much. */
#define STREAM_SEND_SLICE_BYTES (2 * 1024 * 1024)
/* Bytes of a large file, or for a peer that was found slow, that the kernel holds beyond what is on
 * its way. */
#define STREAM_UNSENT_MAX_BYTES (256 * 1024)
/* A peer that takes so many bytes of a file in so much time keeps up, and then the kernel may hold
 * what it likes. More than the first window of a client that reads nothing (tcp_rmem), so that the
 * kernel's buffers do not pass for the client's haste. */
#define STREAM_PACE_BYTES (512 * 1024)
#define STREAM_PACE_MS 100
/* Of files that are larger the worker decides how far the kernel reads ahead. */
#define STREAM_AHEAD_MIN_BYTES (1024 * 1024)
/* A sendfile(2) that took so long read from a disk, and then the next ones take less at a time. */
#define STREAM_COLD_US 5000
#define STREAM_COLD_BYTES (256 * 1024)

#define BATCH_IOV_MAX 64
#define BATCH_MEMORY_BYTES (80 * 1024)

struct stream;

/* What is being gathered for one stream. One per worker. */
struct stream_batch {
    struct stream *owner; /* whose bytes these are; NULL while empty */
    size_t bytes;
    size_t memory_used;
    int count;
    struct iovec iov[BATCH_IOV_MAX];
    char memory[BATCH_MEMORY_BYTES];
};

/* A run of bytes, or of a file, that waits for the peer. Private to stream.c. */
struct stream_segment;

struct stream {
    ev_io io;                    /* io.fd is the socket; -1 when closed */
    struct stream_batch *batch;  /* the worker's */
    struct stream_segment *head; /* oldest first */
    struct stream_segment *tail;
    size_t queued_bytes;  /* memory held by segments: what back-pressure looks at */
    uint64_t sent_bytes;  /* taken by the kernel, in the stream's whole life */
    int error;            /* errno of the first failed write; then writes are dropped */
    bool shutdown_wanted; /* SHUT_WR once the queue is empty */
    bool shutdown_done;
    bool unsent_bounded; /* bound_unsent() was called, or could do nothing */
    bool keeps_up;       /* took the last STREAM_PACE_BYTES of a file in time */
    uint32_t pace_bytes; /* sent_bytes (mod 2^32) when the time of STREAM_PACE_BYTES began */
    uint32_t pace_ms;    /* and when that was, milliseconds of the loop (mod 2^32) */
};

typedef void (*stream_fn)(struct ev_loop *loop, ev_io *io, int revents);

/* Takes the socket, which is non-blocking. on_io is called with EV_READ and EV_WRITE. */
void stream_init(struct stream *stream, struct stream_batch *batch, int fd, stream_fn on_io);
/* Stops the watcher, closes the socket, drops what is queued. Safe to call twice. */
void stream_close(struct stream *stream, struct ev_loop *loop);
bool stream_is_open(const struct stream *stream);

/* Sets what the loop watches for: EV_READ, EV_WRITE, both or 0. No system call if unchanged. */
void stream_watch(struct stream *stream, struct ev_loop *loop, int events);

enum stream_result { STREAM_OK = 0, STREAM_AGAIN, STREAM_EOF, STREAM_ERROR };
/* Reads at most size bytes. STREAM_OK: *ret_length is at least 1. STREAM_ERROR: errno says why. */
enum stream_result stream_read(struct stream *stream, char *buffer, size_t size,
                               size_t *ret_length);

/* ---- writing -------------------------------------------------------------------------------- */
/* Room for size bytes (at most BATCH_MEMORY_BYTES) of batch memory; stream_commit() says how many
 * were written. Nothing else may be put in between. */
char *stream_reserve(struct stream *stream, size_t size);
void stream_commit(struct stream *stream, size_t size);
/* Puts bytes that stay where they are until the flush. */
void stream_put(struct stream *stream, const void *bytes, size_t size);
/* Puts a copy of a few bytes. */
void stream_put_copy(struct stream *stream, const void *bytes, size_t size);
/* Flushes what was put so far and queues a part of a file after it. release(owner) is called when
 * the file is no longer needed. */
void stream_put_file(struct stream *stream, int fd, uint64_t offset, uint64_t length,
                     void (*release)(void *owner), void *owner);
/* Sends what was put; what the kernel does not take is queued. Failures are kept in error. */
void stream_flush(struct stream *stream);
/* Sends from the queue, at most one slice; called when the socket is writable. now_ms: the loop's.
 */
void stream_send(struct stream *stream, int64_t now_ms);
/* Sends FIN after all that is queued. */
void stream_shutdown(struct stream *stream);

/* Whether nothing waits for the peer. */
static inline bool
stream_is_drained(const struct stream *stream)
{
    return stream->head == NULL;
}
