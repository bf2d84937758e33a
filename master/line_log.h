/* SPDX-License-Identifier: Apache-2.0
 *
 * What an application writes on its stdout and stderr: bytes become lines, and the last lines are
 * kept, because they say why it died. Bounded; no I/O. Runs in the master.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* A longer line comes out in pieces of this size: nothing is lost, nothing grows. */
#define LINE_LOG_LINE_MAX 2000
#define LINE_LOG_KEPT 20

typedef void (*line_log_fn)(void *context, const char *line);

struct line_log {
    char partial[LINE_LOG_LINE_MAX + 1];
    size_t length;             /* of partial */
    char *kept[LINE_LOG_KEPT]; /* owned; a ring */
    size_t next;               /* where the next line goes in the ring */
};

void line_log_init(struct line_log *log);
void line_log_release(struct line_log *log);
/* Takes bytes up to the end of a line, and calls on_line when they complete one, without its line
 * end. Empty lines are dropped. Returns how many bytes it took; none when they are too many for the
 * line, which then comes out first. So one call completes one line at most. */
size_t line_log_take(struct line_log *log, const char *bytes, size_t length, line_log_fn on_line,
                     void *context);
/* The writer is gone: what is left is a line too. */
void line_log_finish(struct line_log *log, line_log_fn on_line, void *context);
/* The line `back` lines before the last one (0: the last), or NULL. The log's. */
const char *line_log_last(const struct line_log *log, size_t back);
