/* SPDX-License-Identifier: Apache-2.0
 *
 * What an app instance writes on its stdout and stderr, on its way into the log: line by line, as
 * fast as the log takes it, for a while. Runs in the master.
 */
#pragma once

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "master/line_log.h"

#define APP_OUTPUT_CHUNK 8192

struct child;

struct app_output {
    struct ev_loop *loop;
    const struct child *child; /* whose lines they are */
    int fd;                    /* owned; the read end of its pipe; -1: none */
    ev_io readable;
    ev_timer pause; /* the log takes nothing now */
    struct line_log lines;
    int64_t clogged_since_ms; /* on the monotonic clock; 0: it took the last line */
    size_t at, length;        /* of what is read and not yet in lines */
    char bytes[APP_OUTPUT_CHUNK];
};

void app_output_init(struct app_output *output, struct ev_loop *loop, const struct child *child);
/* A new life: takes the descriptor, which must not block. What was kept of the last life goes. */
void app_output_start(struct app_output *output, int fd);
/* What the next program must know: the last lines, and what was read and is no line yet. */
struct buf;
void app_output_remember(const struct app_output *output, struct buf *kept, struct buf *unread);
/* Goes on where another program stopped, with those two. */
void app_output_resume(struct app_output *output, int fd, const struct buf *kept,
                       const struct buf *unread);
/* The process is gone: what is still in the pipe are its last words. Closes the descriptor. */
void app_output_finish(struct app_output *output);
/* With level = warn or error its lines were not in the log; when it died, they are what matters. */
void app_output_tell_last_words(const struct app_output *output, pid_t pid);
void app_output_release(struct app_output *output);
