/* SPDX-License-Identifier: Apache-2.0
 *
 * What is behind the descriptor of a log, and how a line has to be written to it. The descriptor
 * tells it all by itself (its type, and the path of its peer), so that it can be handed to another
 * process or program without a word about it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Where `syslog` and `journald` listen: syslog(3), and "Native journal protocol" of systemd. */
#define LOG_SYSLOG_PATH "/dev/log"
#define LOG_JOURNALD_PATH "/run/systemd/journal/socket"

enum log_sink_kind {
    LOG_SINK_FILE = 0,       /* a regular file: never makes a writer wait */
    LOG_SINK_STREAM,         /* a pipe, a terminal, a socket of somebody who reads lines */
    LOG_SINK_JOURNAL_STREAM, /* the same, and systemd reads it: a line begins with its priority */
    LOG_SINK_SYSLOG,         /* a datagram for each line, RFC 3164 */
    LOG_SINK_JOURNALD        /* a datagram for each line, with fields */
};

/* As syslog(3) and sd-daemon(3) number them. */
enum log_priority {
    LOG_PRIORITY_ERROR = 3,
    LOG_PRIORITY_WARNING = 4,
    LOG_PRIORITY_INFO = 6,
    LOG_PRIORITY_DEBUG = 7
};

struct log_sink {
    int fd; /* the caller's */
    enum log_sink_kind kind;
    struct sockaddr_un peer; /* of a datagram sink: who reads, or did when it was connected */
    socklen_t peer_length;
    bool by_name; /* whoever listens at that path now is meant */
};

/* Looks at the descriptor; -1: nothing is to be written. */
void log_sink_set(struct log_sink *sink, int fd);
static inline bool
log_sink_is_datagram(const struct log_sink *sink)
{
    return sink->kind == LOG_SINK_SYSLOG || sink->kind == LOG_SINK_JOURNALD;
}
/* Sends one line, without its line end, to a datagram sink. identifier names the program, role the
 * part of it ("" if there is but one). A reader that was started again is found by its
 * path. 0, -EAGAIN when the reader does not take it now, or another negative errno. */
int log_sink_send(struct log_sink *sink, enum log_priority priority, const char *identifier,
                  const char *role, const char *line, size_t length);
