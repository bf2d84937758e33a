/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes to lines, and the ring of the last of them. Runs in the master.
 */
#include "master/line_log.h"

#include <stdlib.h>
#include <string.h>

#include "config/base/check.h"

void
line_log_init(struct line_log *log)
{
    memset(log, 0, sizeof(*log));
}

void
line_log_release(struct line_log *log)
{
    for (size_t i = 0; i < LINE_LOG_KEPT; i++) {
        free(log->kept[i]);
        log->kept[i] = NULL;
    }
    log->length = 0;
}

static void
emit(struct line_log *log, line_log_fn on_line, void *context)
{
    if (log->length > 0 && log->partial[log->length - 1] == '\r') {
        log->length--;
    }
    if (log->length == 0) {
        return;
    }
    log->partial[log->length] = '\0';
    log->length = 0;
    free(log->kept[log->next]);
    log->kept[log->next] = xstrdup(log->partial);
    log->next = (log->next + 1) % LINE_LOG_KEPT;
    on_line(context, log->partial);
}

size_t
line_log_take(struct line_log *log, const char *bytes, size_t length, line_log_fn on_line,
              void *context)
{
    const char *end = memchr(bytes, '\n', length);
    size_t take = end != NULL ? (size_t)(end - bytes) : length;
    size_t room = LINE_LOG_LINE_MAX - log->length;

    if (room == 0 && take > 0) {
        emit(log, on_line, context); /* it did not end where it would have fitted */
        return 0;
    }
    if (take > room) {
        take = room;
        end = NULL;
    }
    memcpy(log->partial + log->length, bytes, take);
    log->length += take;
    if (end != NULL) {
        emit(log, on_line, context);
        return take + 1;
    }
    return take;
}

void
line_log_finish(struct line_log *log, line_log_fn on_line, void *context)
{
    emit(log, on_line, context);
}

const char *
line_log_last(const struct line_log *log, size_t back)
{
    if (back >= LINE_LOG_KEPT) {
        return NULL;
    }
    return log->kept[(log->next + LINE_LOG_KEPT - 1 - back) % LINE_LOG_KEPT];
}
