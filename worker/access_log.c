/* SPDX-License-Identifier: Apache-2.0
 *
 * Gathering lines of the access log and writing them. Runs in workers; each has one.
 *
 * Invariants: buffer[0..used) is whole lines, but that the first may be the rest of a line whose
 * beginning was written (head_is_rest). The timer is active exactly while used > 0 and fd is open.
 */
#include "worker/access_log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config/base/check.h"
#include "config/base/clock.h"
#include "config/base/fd.h"
#include "config/base/log.h"

#define FLUSH_AFTER_MS 1000
/* What syslog and journald know the lines by: journalctl -t narwhal-access. */
#define IDENTIFIER "narwhal-access"
#define STREAM_PREFIX "<6>" /* LOG_PRIORITY_INFO */

_Static_assert(ACCESS_LINE_MAX >= PIPE_BUF && ACCESS_BUFFER_BYTES >= 2 * ACCESS_LINE_MAX,
               "a line fits into the buffer beside the rest of another");

/* ---- what is said about it ------------------------------------------------------------------ */

/* What the descriptor is, as the kernel names it: the log knows no path. */
static const char *
target_name(const struct access_log *log, char out[PATH_MAX])
{
    char link[64];

    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", log->fd);
    ssize_t length = readlink(link, out, PATH_MAX - 1);
    if (length == -1) {
        (void)snprintf(out, PATH_MAX, "descriptor %d", log->fd);
    } else {
        out[length] = '\0';
    }
    return out;
}

/* Once until it works again: a full disk must not fill the error log as well. */
static void
report_failure(struct access_log *log, int error)
{
    char name[PATH_MAX];

    if (log->failing) {
        return;
    }
    log->failing = true;
    if (error == EAGAIN) {
        log_error("access log %s: its reader does not keep up, lines are lost until it does; read "
                  "faster, or set [log] access to a file or to off",
                  target_name(log, name));
    } else if (error == ENOMEM) {
        log_error("access log %s: no memory for its buffer of %d bytes, lines are lost",
                  target_name(log, name), ACCESS_BUFFER_BYTES);
    } else {
        log_error("access log %s: cannot write: %s; up to %d bytes of lines are kept, more are "
                  "lost; retried every second, or set [log] access to another target",
                  target_name(log, name), strerror(error), ACCESS_BUFFER_BYTES);
    }
}

static void
report_recovery(struct access_log *log)
{
    if (log->failing) {
        log_warn("access log works again, lines lost=%" PRIu64, log->lost);
        log->failing = false;
        log->lost = 0;
    }
}

/* ---- the buffer ----------------------------------------------------------------------------- */

static size_t
count_lines(const char *bytes, size_t length)
{
    const char *end = bytes + length;
    size_t count = 0;

    for (const char *p = bytes; (p = memchr(p, '\n', (size_t)(end - p))) != NULL; p++) {
        count++;
    }
    return count;
}

static void
drop_front(struct access_log *log, size_t length)
{
    log->used -= length;
    memmove(log->buffer, log->buffer + length, log->used);
}

/* Drops all, and says so, when there is no descriptor that the lines could go to. */
static void
lose_all(struct access_log *log, const char *why)
{
    if (log->used > 0) {
        log->lost += count_lines(log->buffer, log->used);
        log->used = 0;
    }
    log->head_is_rest = false;
    if (log->lost > 0) {
        log_warn("access log %s, lines lost=%" PRIu64, why, log->lost);
    }
    log->lost = 0;
    log->failing = false;
    free(log->buffer);
    log->buffer = NULL;
}

/* ---- writing -------------------------------------------------------------------------------- */

/* How much of bytes one write may take: see access_log.h. */
static size_t
next_part(const struct access_log *log, const char *bytes, size_t length)
{
    if (log_sink_is_datagram(&log->sink)) {
        const char *end = memchr(bytes, '\n', length);
        CHECK(end != NULL);
        return (size_t)(end - bytes) + 1;
    }
    if (log->is_file || length <= PIPE_BUF) {
        return length;
    }
    const char *end = memrchr(bytes, '\n', PIPE_BUF);
    /* Without a line end: lines that were made for a file before the target changed. */
    return end != NULL ? (size_t)(end - bytes) + 1 : PIPE_BUF;
}

/* As write(2), and EAGAIN also where it would block. */
static ssize_t
write_now(struct access_log *log, const char *bytes, size_t length)
{
    if (log_sink_is_datagram(&log->sink)) {
        int result =
            log_sink_send(&log->sink, LOG_PRIORITY_INFO, IDENTIFIER, "", bytes, length - 1);
        errno = -result;
        return result == 0 ? (ssize_t)length : -1;
    }
    if (log->may_block) {
        /* A pipe is ready for writing when PIPE_BUF bytes fit. Another worker may be faster
         * between the two calls; then this one waits for the reader, once. */
        struct pollfd pollfd = {.fd = log->fd, .events = POLLOUT};
        if (poll(&pollfd, 1, 0) == 0) {
            errno = EAGAIN;
            return -1;
        }
    }
    return fd_write(log->fd, bytes, length);
}

/* Writes what the descriptor takes now. 0 when that is all, else the error. */
static int
write_buffer(struct access_log *log)
{
    size_t done = 0;
    int error = 0;

    while (done < log->used) {
        size_t part = next_part(log, log->buffer + done, log->used - done);
        ssize_t n = write_now(log, log->buffer + done, part);
        if (n == -1) {
            error = errno == EWOULDBLOCK ? EAGAIN : errno;
            break;
        }
        if (n == 0) { /* not for a write of this kind, but it must not turn for ever */
            error = EIO;
            break;
        }
        done += (size_t)n;
    }
    if (done > 0) {
        log->head_is_rest = log->buffer[done - 1] != '\n';
        drop_front(log, done);
    }
    return error;
}

static void
schedule(struct access_log *log)
{
    if (log->used == 0 || log->fd == -1) {
        ev_timer_stop(log->loop, &log->flush_timer);
    } else if (!ev_is_active(&log->flush_timer)) {
        ev_timer_set(&log->flush_timer, ms_to_seconds(FLUSH_AFTER_MS), 0.0);
        ev_timer_start(log->loop, &log->flush_timer);
    }
}

void
access_log_flush(struct access_log *log)
{
    if (log->used > 0 && log->fd != -1) {
        log->error = write_buffer(log);
        if (log->error == 0) {
            report_recovery(log);
        } else if (log->error != EAGAIN) { /* a slow reader is reported when it costs a line */
            report_failure(log, log->error);
        }
    }
    schedule(log);
}

static void
on_flush_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct access_log *log = timer->data;

    (void)loop;
    (void)revents;
    access_log_flush(log);
}

void
access_log_add(struct access_log *log, const struct access_record *record)
{
    if (log->fd == -1 || log->format == NULL) {
        return;
    }
    if (log->buffer == NULL) {
        log->buffer = malloc(ACCESS_BUFFER_BYTES);
        if (log->buffer == NULL) {
            report_failure(log, ENOMEM);
            log->lost++;
            return;
        }
    }
    size_t line_max = log->is_file ? ACCESS_LINE_MAX : PIPE_BUF;
    if (ACCESS_BUFFER_BYTES - log->used < line_max && (log->error == 0 || log->error == EAGAIN)) {
        /* After another error the timer alone tries again: not one system call per line. */
        access_log_flush(log);
    }
    if (ACCESS_BUFFER_BYTES - log->used < line_max) {
        report_failure(log, log->error);
        log->lost++;
        return;
    }
    if (log->sink.kind == LOG_SINK_JOURNAL_STREAM) {
        const size_t prefix = sizeof(STREAM_PREFIX) - 1;
        memcpy(log->buffer + log->used, STREAM_PREFIX, prefix);
        log->used += prefix;
        line_max -= prefix;
    }
    log->used +=
        access_format_line(log->format, record, log->pid, log->buffer + log->used, line_max);
    schedule(log);
}

/* ---- lifecycle ------------------------------------------------------------------------------ */

void
access_log_init(struct access_log *log, struct ev_loop *loop)
{
    *log =
        (struct access_log){.fd = -1, .sink = {.fd = -1}, .loop = loop, .pid = (uint32_t)getpid()};
    ev_timer_init(&log->flush_timer, on_flush_timer, 0.0, 0.0);
    log->flush_timer.data = log;
}

void
access_log_release(struct access_log *log)
{
    access_log_flush(log);
    lose_all(log, "ends");
    ev_timer_stop(log->loop, &log->flush_timer);
    fd_close(&log->fd);
    access_format_free(log->format);
    log->format = NULL;
}

void
access_log_set_fd(struct access_log *log, int fd)
{
    access_log_flush(log);
    if (log->head_is_rest) {
        /* Its beginning is in the old target; half a line in the new one would be no line. */
        const char *end = memchr(log->buffer, '\n', log->used);
        CHECK(end != NULL);
        drop_front(log, (size_t)(end - log->buffer) + 1);
        log->head_is_rest = false;
        log->lost++;
    }
    fd_close(&log->fd);
    log->fd = fd;
    log_sink_set(&log->sink, fd);
    log->error = 0;
    if (fd == -1) {
        lose_all(log, "is off");
    } else {
        int flags = fcntl(fd, F_GETFL);
        log->is_file = log->sink.kind == LOG_SINK_FILE;
        log->may_block = !log->is_file && flags != -1 && (flags & O_NONBLOCK) == 0;
    }
    schedule(log);
}

void
access_log_set_format(struct access_log *log, struct access_format *format)
{
    access_format_free(log->format);
    log->format = format;
}
