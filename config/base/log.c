/* SPDX-License-Identifier: Apache-2.0
 *
 * The error log of this process. One static struct is the only state: a log that had to be passed
 * to every function would be passed to every function. Not for signal handlers.
 */
#include "config/base/log.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "config/base/clock.h"
#include "config/base/fd.h"
#include "config/base/log_sink.h"

/* Longest line; what is longer is cut and marked. Below PIPE_BUF (4096, pipe(7)), so that lines
 * written to a pipe stay whole too. */
#define LOG_LINE_MAX 3072

static struct {
    struct log_sink sink;
    bool is_torn;       /* the last line is there in part: a file system that is full */
    unsigned long lost; /* lines dropped since the last one that was taken */
    enum log_level level;
    char role[32];
} log_state = {.sink = {.fd = STDERR_FILENO, .kind = LOG_SINK_STREAM},
               .level = LOG_LEVEL_INFO,
               .role = "narwhal"};

static const char *const level_names[LOG_LEVEL_COUNT] = {[LOG_LEVEL_ERROR] = "error",
                                                         [LOG_LEVEL_WARN] = "warn",
                                                         [LOG_LEVEL_INFO] = "info",
                                                         [LOG_LEVEL_DEBUG] = "debug"};

static const enum log_priority priorities[LOG_LEVEL_COUNT] = {
    [LOG_LEVEL_ERROR] = LOG_PRIORITY_ERROR,
    [LOG_LEVEL_WARN] = LOG_PRIORITY_WARNING,
    [LOG_LEVEL_INFO] = LOG_PRIORITY_INFO,
    [LOG_LEVEL_DEBUG] = LOG_PRIORITY_DEBUG};

void
log_setup(int fd, enum log_level level, const char *role)
{
    log_set_fd(fd);
    log_state.level = level;
    (void)snprintf(log_state.role, sizeof(log_state.role), "%s", role);
}

void
log_set_level(enum log_level level)
{
    log_state.level = level;
}

void
log_set_fd(int fd)
{
    log_sink_set(&log_state.sink, fd);
    log_state.is_torn = false;
}

int
log_fd(void)
{
    return log_state.sink.fd;
}

bool
log_enabled(enum log_level level)
{
    return level <= log_state.level;
}

/* Whether a line can be written without waiting for whoever reads a pipe, a terminal or a socket. A
 * pipe is writable when a whole line fits (PIPE_BUF, pipe(7)). */
bool
log_takes_line(void)
{
    struct pollfd poll_fd = {.fd = log_state.sink.fd, .events = POLLOUT};

    return log_state.sink.kind == LOG_SINK_FILE || poll(&poll_fd, 1, 0) != 0;
}

const char *
log_level_name(enum log_level level)
{
    return level_names[level];
}

/* A peer's bytes may end up in a message: a control byte must not start a second line or drive a
 * terminal. */
static void
blunt_control_bytes(char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c < 0x20 || c == 0x7f) {
            text[i] = '?';
        }
    }
}

/* line has its head, whose first head bytes a reader of datagrams gets as fields, and its line end.
 */
static void
put_line(enum log_level level, const char *line, size_t head, size_t length)
{
    if (!log_takes_line()) {
        log_state.lost++;
        return;
    }
    /* A log that cannot be written has nobody to tell, now. */
    if (log_sink_is_datagram(&log_state.sink)) {
        if (log_sink_send(&log_state.sink, priorities[level], "narwhal", log_state.role,
                          line + head, length - head - 1) != 0) {
            log_state.lost++;
        }
        return;
    }
    ssize_t n = fd_write(log_state.sink.fd, line, length);
    if (n != (ssize_t)length) {
        log_state.lost++;
        log_state.is_torn = log_state.is_torn || n > 0;
    }
}

/* The time, level and process that begin a line; returns the length. For systemd its priority
 * (sd-daemon(3)) and no time, which the journal has anyway. */
static size_t
put_head(char *line, size_t size, enum log_level level)
{
    char when[CLOCK_ISO8601_SIZE];

    if (log_state.sink.kind == LOG_SINK_JOURNAL_STREAM) {
        return (size_t)snprintf(line, size, "<%d>%s %s[%d]: ", (int)priorities[level],
                                level_names[level], log_state.role, (int)getpid());
    }
    clock_format_iso8601(clock_real_ms(), when);
    return (size_t)snprintf(line, size, "%s %s %s[%d]: ", when, level_names[level], log_state.role,
                            (int)getpid());
}

static void
tell_lost_lines(void)
{
    char line[256];
    unsigned long lost = log_state.lost;
    bool was_torn = log_state.is_torn;
    size_t used = 0;

    if (lost == 0 || !log_takes_line()) {
        return;
    }
    if (was_torn) {
        line[used++] = '\n'; /* what follows is a line of its own */
    }
    size_t head = used + put_head(line + used, sizeof(line) - used, LOG_LEVEL_WARN);
    used = head;
    used += (size_t)snprintf(line + used, sizeof(line) - used,
                             "the reader of the log was too slow, or its file system full: lines "
                             "are lost lost=%lu\n",
                             lost);
    log_state.lost = 0;
    log_state.is_torn = false;
    put_line(LOG_LEVEL_WARN, line, head, used);
    if (log_state.lost > 0) {
        log_state.lost = lost;
        log_state.is_torn = log_state.is_torn || was_torn;
    }
}

void
log_write_v(enum log_level level, const char *format, va_list args)
{
    int saved_errno = errno;
    char line[LOG_LINE_MAX];
    size_t head = put_head(line, sizeof(line), level);
    size_t used = head;

    errno = saved_errno; /* for a %m in the message */
    int body = vsnprintf(line + used, sizeof(line) - used - 1, format, args);
    if (body > 0) {
        size_t room = sizeof(line) - used - 2;
        size_t kept = (size_t)body < room ? (size_t)body : room;
        blunt_control_bytes(line + used, kept);
        used += kept;
        if (kept < (size_t)body) {
            memcpy(line + used - 3, "...", 3);
        }
    }
    line[used++] = '\n';
    tell_lost_lines();
    put_line(level, line, head, used);
    errno = saved_errno;
}

void
log_write(enum log_level level, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    log_write_v(level, format, args);
    va_end(args);
}
