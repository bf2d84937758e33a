/* SPDX-License-Identifier: Apache-2.0
 *
 * The access log: one line per answered request, gathered in memory and written in whole lines
 * when the buffer is full or a second has passed, so that logging costs no system call per request.
 * Nothing is allocated and no timer runs before the first line, nor a timer while there is nothing
 * to write.
 *
 * Syslog and journald get a datagram for each line; a line that systemd reads from a stream begins
 * with its priority, so that a request can never give it another one.
 *
 * Workers share the file or pipe behind the log. To a file each writes its whole buffer (O_APPEND);
 * to anything else whole lines of at most PIPE_BUF bytes together, which the kernel takes at once
 * or not at all (pipe(7)), so that lines of several workers never mix. It never waits for a reader:
 * what cannot be written now stays in the buffer, and when that is full, whole lines are dropped
 * and counted. SIGPIPE must be ignored.
 */
#pragma once

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

#include "config/base/log_sink.h"
#include "config/base/str.h"
#include "worker/http/request.h"
#include "worker/peer.h"

/* What is known of a request when it ends. Everything is borrowed for the call. */
struct access_record {
    const struct peer *peer;
    const struct request_head *head; /* NULL when no head could be parsed: shown as "-" */
    const char *base;                /* of head's spans */
    int status;
    uint64_t body_bytes;     /* of the response's body */
    int64_t started_real_ms; /* when the head was complete */
    int64_t duration_ms;
    const char *backend; /* name, or NULL */
    const char *server;  /* address of the server that answered, or NULL */
    int64_t upstream_ms; /* until the head of its response; -1 without one */
};

/* A compiled form: a list of literals and atoms. */
struct access_format;
/* text: "combined", "common", "json" or a line of gunicorn's atoms, as [log] access_format takes
 * it and as the settings check has accepted it; NULL when it is none of these. */
struct access_format *access_format_new(const char *text);
void access_format_free(struct access_format *format);
/* Whether a line may show the request field of that name. format may be NULL. */
bool access_format_shows(const struct access_format *format, struct str name);
/* Writes one line with its line end to out, at most capacity bytes, and returns its length; a line
 * that is longer is cut before its line end. Bytes of the request that could forge a line or a
 * field are escaped (\xHH, and \" inside quotes; JSON escapes in json). Pure. */
size_t access_format_line(const struct access_format *format, const struct access_record *record,
                          uint32_t pid, char *out, size_t capacity);

#define ACCESS_LINE_MAX 8192
#define ACCESS_BUFFER_BYTES (64 * 1024)

struct access_log {
    int fd; /* -1: off; the log's own */
    struct ev_loop *loop;
    struct access_format *format; /* owned */
    char *buffer;                 /* owned; NULL until the first line */
    size_t used;
    ev_timer flush_timer; /* active only while the buffer holds something */
    bool failing;         /* a failed write was reported; say it once until it works again */
    /* What the descriptor is like: set with it. */
    struct log_sink sink;
    bool is_file;      /* a regular file: takes any size */
    bool may_block;    /* not O_NONBLOCK, as an inherited stdout: asked before each write */
    bool head_is_rest; /* the buffer begins within a line; fd has its beginning */
    int error;         /* of the last write; 0 or EAGAIN: it is worth trying again at once */
    uint64_t lost;     /* lines dropped, not yet reported */
    uint32_t pid;      /* of this process */
};

/* In the process that will log: lines carry its pid. */
void access_log_init(struct access_log *log, struct ev_loop *loop);
/* Writes what is left and frees all. */
void access_log_release(struct access_log *log);
/* Takes fd (-1: off). What is buffered goes to the old one first. */
void access_log_set_fd(struct access_log *log, int fd);
/* Takes format. */
void access_log_set_format(struct access_log *log, struct access_format *format);
static inline bool
access_log_is_on(const struct access_log *log)
{
    return log->fd != -1;
}
void access_log_add(struct access_log *log, const struct access_record *record);
void access_log_flush(struct access_log *log);
