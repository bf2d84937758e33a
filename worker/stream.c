/* SPDX-License-Identifier: Apache-2.0
 *
 * Moving bytes between sockets, memory and files. Runs in workers.
 *
 * Invariants: batch->owner is the only stream with put but unflushed bytes; whoever puts flushes
 * before the callback that put returns. Segments are in the order in which they were put. After a
 * write error nothing more is sent and error stays set: the owner looks at it when it settles.
 */
#include "worker/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include "config/base/check.h"
#include "config/base/clock.h"
#include "config/base/fd.h"

enum segment_kind { SEGMENT_MEMORY = 0, SEGMENT_FILE };

struct stream_segment {
    struct stream_segment *next;
    enum segment_kind kind;
    union {
        struct {
            size_t off;
            size_t len; /* bytes still to send */
            size_t cap;
        } memory;
        struct {
            int fd;
            off_t offset;
            uint64_t len;
            void (*release)(void *owner);
            void *owner;
            bool begun;
            bool cold; /* not in the page cache, as far as was seen */
        } file;
    };
    char bytes[];
};

/* Segments of memory take whole steps of this size, and the next bytes fill what is free of the
 * last one: however small the pieces are that are queued, little more is held than they have bytes.
 */
#define SEGMENT_STEP_BYTES 4096u

/* Whether the same call may work later. The kernel being short of memory says nothing about this
 * connection: its own clocks run on, and end it when it lasts. */
static bool
is_temporary(int error)
{
    return error == EAGAIN || error == EWOULDBLOCK || error == EINTR || error == ENOBUFS ||
           error == ENOMEM;
}

/* ---- lifecycle ------------------------------------------------------------------------------ */

void
stream_init(struct stream *stream, struct stream_batch *batch, int fd, stream_fn on_io)
{
    *stream = (struct stream){.batch = batch};
    ev_io_init(&stream->io, on_io, fd, 0);
}

bool
stream_is_open(const struct stream *stream)
{
    return stream->io.fd != -1;
}

static void
segment_free(struct stream *stream, struct stream_segment *segment)
{
    if (segment->kind == SEGMENT_FILE) {
        if (segment->file.release != NULL) {
            segment->file.release(segment->file.owner);
        }
    } else {
        stream->queued_bytes -= sizeof(*segment) + segment->memory.cap;
    }
    free(segment);
}

static void
drop_head(struct stream *stream)
{
    struct stream_segment *segment = stream->head;

    stream->head = segment->next;
    if (stream->head == NULL) {
        stream->tail = NULL;
    }
    segment_free(stream, segment);
}

static void
batch_reset(struct stream_batch *batch)
{
    batch->owner = NULL;
    batch->bytes = 0;
    batch->memory_used = 0;
    batch->count = 0;
}

void
stream_close(struct stream *stream, struct ev_loop *loop)
{
    if (stream->batch->owner == stream) {
        batch_reset(stream->batch);
    }
    while (stream->head != NULL) {
        drop_head(stream);
    }
    if (stream->io.fd != -1) {
        ev_io_stop(loop, &stream->io);
        fd_close(&stream->io.fd);
    }
}

void
stream_watch(struct stream *stream, struct ev_loop *loop, int events)
{
    int watched = ev_is_active(&stream->io) ? stream->io.events & (EV_READ | EV_WRITE) : 0;

    if (watched == events) {
        return;
    }
    ev_io_stop(loop, &stream->io);
    if (events != 0) {
        ev_io_set(&stream->io, stream->io.fd, events);
        ev_io_start(loop, &stream->io);
    }
}

/* ---- reading -------------------------------------------------------------------------------- */

enum stream_result
stream_read(struct stream *stream, char *buffer, size_t size, size_t *ret_length)
{
    ssize_t n;

    do {
        n = recv(stream->io.fd, buffer, size, 0);
    } while (n == -1 && errno == EINTR);
    if (n > 0) {
        *ret_length = (size_t)n;
        return STREAM_OK;
    }
    if (n == 0) {
        return STREAM_EOF;
    }
    return is_temporary(errno) ? STREAM_AGAIN : STREAM_ERROR;
}

/* ---- the queue ------------------------------------------------------------------------------ */

static void
append_segment(struct stream *stream, struct stream_segment *segment)
{
    segment->next = NULL;
    if (stream->tail != NULL) {
        stream->tail->next = segment;
    } else {
        stream->head = segment;
    }
    stream->tail = segment;
}

static void
queue_bytes(struct stream *stream, const char *bytes, size_t size)
{
    struct stream_segment *tail = stream->tail;

    if (tail != NULL && tail->kind == SEGMENT_MEMORY) {
        size_t end = tail->memory.off + tail->memory.len;
        size_t room = tail->memory.cap - end;
        size_t part = size < room ? size : room;
        memcpy(tail->bytes + end, bytes, part);
        tail->memory.len += part;
        bytes += part;
        size -= part;
    }
    if (size > 0) {
        size_t steps = (sizeof(struct stream_segment) + size) / SEGMENT_STEP_BYTES + 1;
        size_t cap = steps * SEGMENT_STEP_BYTES - sizeof(struct stream_segment);
        struct stream_segment *segment = malloc(sizeof(*segment) + cap);
        if (segment == NULL) {
            stream->error = ENOMEM;
            return;
        }
        stream->queued_bytes += sizeof(*segment) + cap;
        segment->kind = SEGMENT_MEMORY;
        segment->memory.off = 0;
        segment->memory.len = size;
        segment->memory.cap = cap;
        memcpy(segment->bytes, bytes, size);
        append_segment(stream, segment);
    }
}

/* The kernel takes megabytes for each client that reads slowly: two thousand of them fill the
 * memory that the machine has for TCP (tcp(7), tcp_mem), and then every connection stands still.
 * What was not sent yet has no use there. Fails on unix sockets, which have no such memory. A peer
 * that keeps up is left alone: more of its writes would be short, and each costs a turn. */
static void
bound_unsent(struct stream *stream)
{
    int bytes = STREAM_UNSENT_MAX_BYTES;

    if (stream->unsent_bounded) {
        return;
    }
    stream->unsent_bounded = true;
    (void)setsockopt(stream->io.fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &bytes, sizeof(bytes));
}

/* The kernel took bytes. Of much of it the peer is slow when the kernel could not send a part: that
 * is asked each time the sum passes a multiple of the bound, so seldom for what it costs, and in
 * time for what it takes (tcp(7), SIOCOUTQNSD). */
static void
note_sent(struct stream *stream, size_t size)
{
    uint64_t before = stream->sent_bytes / STREAM_UNSENT_MAX_BYTES;
    int unsent = 0;

    stream->sent_bytes += size;
    if (stream->unsent_bounded || stream->sent_bytes / STREAM_UNSENT_MAX_BYTES == before) {
        return;
    }
    if (ioctl(stream->io.fd, SIOCOUTQNSD, &unsent) == -1) {
        stream->unsent_bounded = true; /* no TCP, nothing to bound */
    } else if (unsent > STREAM_UNSENT_MAX_BYTES / 2) {
        bound_unsent(stream);
    }
}

/* Bytes of a file are only as slow as the peer that takes them. Whoever keeps up gets as much room
 * in the kernel as its connection is worth: bounded, each write to it is short and costs a turn (10
 * MiB over loopback took 1.3 times the CPU). Whoever does not is bounded again. */
static void
pace_begin(struct stream *stream, int64_t now_ms)
{
    stream->pace_bytes = (uint32_t)stream->sent_bytes;
    stream->pace_ms = (uint32_t)now_ms;
}

static void
pace_note(struct stream *stream, int64_t now_ms)
{
    if ((uint32_t)stream->sent_bytes - stream->pace_bytes < STREAM_PACE_BYTES) {
        return;
    }
    stream->keeps_up = (uint32_t)now_ms - stream->pace_ms <= STREAM_PACE_MS;
    pace_begin(stream, now_ms);
    if (!stream->keeps_up) {
        bound_unsent(stream);
    } else if (stream->unsent_bounded) {
        int as_ever = 0; /* net.ipv4.tcp_notsent_lowat */
        stream->unsent_bounded = false;
        (void)setsockopt(stream->io.fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &as_ever, sizeof(as_ever));
    }
}

/* ---- the batch ------------------------------------------------------------------------------ */

/* Makes the batch this stream's. Another stream's bytes still on it would be a forgotten flush. */
static struct stream_batch *
batch_for(struct stream *stream)
{
    struct stream_batch *batch = stream->batch;

    CHECK(batch->owner == NULL || batch->owner == stream);
    batch->owner = stream;
    return batch;
}

char *
stream_reserve(struct stream *stream, size_t size)
{
    struct stream_batch *batch = batch_for(stream);

    CHECK(size <= BATCH_MEMORY_BYTES);
    if (batch->count == BATCH_IOV_MAX || batch->memory_used + size > BATCH_MEMORY_BYTES) {
        stream_flush(stream);
        batch = batch_for(stream);
    }
    return batch->memory + batch->memory_used;
}

void
stream_commit(struct stream *stream, size_t size)
{
    struct stream_batch *batch = stream->batch;
    char *bytes = batch->memory + batch->memory_used;

    CHECK(batch->owner == stream);
    batch->memory_used += size;
    stream_put(stream, bytes, size);
}

void
stream_put(struct stream *stream, const void *bytes, size_t size)
{
    struct stream_batch *batch = batch_for(stream);

    if (size == 0) {
        return;
    }
    if (batch->count > 0) {
        struct iovec *last = &batch->iov[batch->count - 1];
        if ((const char *)last->iov_base + last->iov_len == bytes) {
            last->iov_len += size;
            batch->bytes += size;
            return;
        }
        if (batch->count == BATCH_IOV_MAX) {
            stream_flush(stream);
            batch = batch_for(stream);
        }
    }
    /* struct iovec is not const because readv(2) shares it; sendmsg(2) only reads. */
    union {
        const void *in;
        void *out;
    } unconst = {.in = bytes};
    batch->iov[batch->count++] = (struct iovec){.iov_base = unconst.out, .iov_len = size};
    batch->bytes += size;
}

void
stream_put_copy(struct stream *stream, const void *bytes, size_t size)
{
    memcpy(stream_reserve(stream, size), bytes, size);
    stream_commit(stream, size);
}

/* Queues what is on the batch from byte skip on. */
static void
queue_batch(struct stream *stream, struct stream_batch *batch, size_t skip)
{
    for (int i = 0; i < batch->count; i++) {
        const char *bytes = batch->iov[i].iov_base;
        size_t size = batch->iov[i].iov_len;
        if (skip >= size) {
            skip -= size;
            continue;
        }
        queue_bytes(stream, bytes + skip, size - skip);
        skip = 0;
    }
}

static void
flush_batch(struct stream *stream, int flags)
{
    struct stream_batch *batch = stream->batch;

    if (batch->owner != stream) {
        return;
    }
    if (batch->count > 0 && stream->error == 0) {
        size_t sent = 0;
        if (stream->head == NULL) {
            ssize_t n;
            struct msghdr header = {.msg_iov = batch->iov, .msg_iovlen = (size_t)batch->count};
            do {
                /* One piece, the common case, is cheaper through send(2). */
                n = batch->count == 1 ? send(stream->io.fd, batch->iov[0].iov_base,
                                             batch->iov[0].iov_len, MSG_NOSIGNAL | flags)
                                      : sendmsg(stream->io.fd, &header, MSG_NOSIGNAL | flags);
            } while (n == -1 && errno == EINTR);
            if (n >= 0) {
                sent = (size_t)n;
                note_sent(stream, sent);
            } else if (!is_temporary(errno)) {
                stream->error = errno;
            }
        }
        if (stream->error == 0 && sent < batch->bytes) {
            bound_unsent(stream); /* its peer is slow */
            queue_batch(stream, batch, sent);
        }
    }
    batch_reset(batch);
}

void
stream_flush(struct stream *stream)
{
    flush_batch(stream, 0);
}

void
stream_put_file(struct stream *stream, int fd, uint64_t offset, uint64_t length,
                void (*release)(void *owner), void *owner)
{
    /* MSG_MORE: the head waits for the first bytes of the file, so that they share a packet. */
    flush_batch(stream, MSG_MORE);
    struct stream_segment *segment = malloc(sizeof(*segment));
    if (segment == NULL) {
        stream->error = ENOMEM;
        if (release != NULL) {
            release(owner);
        }
        return;
    }
    segment->kind = SEGMENT_FILE;
    segment->file.fd = fd;
    segment->file.offset = (off_t)offset;
    segment->file.len = length;
    segment->file.release = release;
    segment->file.owner = owner;
    segment->file.begun = false;
    segment->file.cold = false;
    append_segment(stream, segment);
}

/* ---- sending from the queue ------------------------------------------------------------------ */

/* Gathers memory segments from the head up to the next file, sends them. false: no more now. */
static bool
send_memory(struct stream *stream, size_t *budget)
{
    struct iovec iov[BATCH_IOV_MAX];
    int count = 0;
    size_t total = 0;

    for (struct stream_segment *s = stream->head;
         s != NULL && s->kind == SEGMENT_MEMORY && count < BATCH_IOV_MAX && total < *budget;
         s = s->next) {
        size_t left = *budget - total;
        size_t part = s->memory.len < left ? s->memory.len : left;
        iov[count++] = (struct iovec){.iov_base = s->bytes + s->memory.off, .iov_len = part};
        total += part;
    }
    struct msghdr header = {.msg_iov = iov, .msg_iovlen = (size_t)count};
    ssize_t n = sendmsg(stream->io.fd, &header, MSG_NOSIGNAL);
    if (n == -1) {
        if (!is_temporary(errno)) {
            stream->error = errno;
        }
        return false;
    }
    size_t sent = (size_t)n;
    note_sent(stream, sent);
    *budget = sent < *budget ? *budget - sent : 0;
    bool all = sent == total;
    while (sent > 0) {
        struct stream_segment *s = stream->head;
        size_t part = sent < s->memory.len ? sent : s->memory.len;
        s->memory.off += part;
        s->memory.len -= part;
        sent -= part;
        if (s->memory.len == 0) {
            drop_head(stream);
        }
    }
    return all;
}

/* What is not in the page cache yet is read by sendfile(2) itself, and not as much as it sends but
 * a whole window of the kernel's reading ahead (read_ahead_kb, up to 8 MiB): all clients of the
 * worker waited meanwhile, 30 ms each time on one machine. So the kernel is told to read what it is
 * asked for and no more (POSIX_FADV_RANDOM: before the first read, a window leaves marks that begin
 * the next one), and once the file is found cold, each piece is asked for while the one before it
 * is on its way (posix_fadvise(2)). */
static void
begin_file(struct stream *stream, struct stream_segment *s, int64_t now_ms)
{
    s->file.begun = true;
    pace_begin(stream, now_ms);
    if (s->file.len > STREAM_UNSENT_MAX_BYTES && !stream->keeps_up) {
        bound_unsent(stream);
    }
    if (s->file.len > STREAM_AHEAD_MIN_BYTES) {
        (void)posix_fadvise(s->file.fd, 0, 0, POSIX_FADV_RANDOM);
    }
}

static void
read_ahead(struct stream_segment *s)
{
    s->file.cold = true;
    (void)posix_fadvise(s->file.fd, s->file.offset, STREAM_COLD_BYTES, POSIX_FADV_WILLNEED);
}

static bool
send_file(struct stream *stream, size_t *budget, int64_t now_ms)
{
    struct stream_segment *s = stream->head;

    if (!s->file.begun) {
        begin_file(stream, s, now_ms);
    }
    if (s->file.cold && *budget > STREAM_COLD_BYTES) {
        *budget = STREAM_COLD_BYTES;
    }
    size_t part = s->file.len < *budget ? (size_t)s->file.len : *budget;
    bool is_large = s->file.len > STREAM_AHEAD_MIN_BYTES;
    int64_t begin_us = is_large ? clock_mono_us() : 0;
    ssize_t n = sendfile(stream->io.fd, s->file.fd, &s->file.offset, part);

    if (n == -1) {
        if (!is_temporary(errno)) {
            stream->error = errno;
        }
        return false;
    }
    if (n == 0) {
        /* The file is shorter than it was: the announced length cannot be met any more, and the
         * client must be able to tell. */
        stream->error = ENODATA;
        return false;
    }
    stream->sent_bytes += (uint64_t)n;
    pace_note(stream, now_ms);
    s->file.len -= (uint64_t)n;
    *budget -= (size_t)n;
    bool all = (size_t)n == part;
    if (s->file.len == 0) {
        drop_head(stream);
    } else if (s->file.cold || (is_large && clock_mono_us() - begin_us > STREAM_COLD_US)) {
        read_ahead(s);
    }
    return all;
}

void
stream_send(struct stream *stream, int64_t now_ms)
{
    size_t budget = STREAM_SEND_SLICE_BYTES;

    while (stream->head != NULL && stream->error == 0 && budget > 0) {
        bool more = stream->head->kind == SEGMENT_MEMORY ? send_memory(stream, &budget)
                                                         : send_file(stream, &budget, now_ms);
        if (!more) {
            break;
        }
    }
    if (stream->shutdown_wanted) {
        stream_shutdown(stream);
    }
}

void
stream_shutdown(struct stream *stream)
{
    stream->shutdown_wanted = true;
    flush_batch(stream, 0); /* FIN must not overtake what was put */
    if (stream->head == NULL && !stream->shutdown_done && stream->io.fd != -1) {
        (void)shutdown(stream->io.fd, SHUT_WR); /* a peer that is gone is found out by reading */
        stream->shutdown_done = true;
    }
}
