/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading the pipe of an app instance. When the reader of our log is slow, the application waits at
 * its full pipe, as it would without us; but not for a reader that does not come back, because an
 * application must not hang with a log. Runs in the master.
 */
#include "master/app_output.h"

#include <errno.h>

#include "config/base/buf.h"
#include "config/base/clock.h"
#include "config/base/fd.h"
#include "config/base/log.h"
#include "master/child.h"

/* Reads in one turn of the loop, so that a chatty application starves nobody. */
#define READS_PER_TURN 8
/* How long the log is left alone when it takes nothing. */
#define PAUSE_MS 10
/* After that its lines are lost, and counted by the log. */
#define PATIENCE_MS 1000

static void
on_line(void *context, const char *line)
{
    const struct app_output *output = context;

    log_info("%s[%d]: %s", output->child->name, (int)output->child->pid, line);
}

/* Whether to wait for the log before the next line. */
static bool
must_wait(struct app_output *output)
{
    if (!log_enabled(LOG_LEVEL_INFO) || log_takes_line()) {
        output->clogged_since_ms = 0;
        return false;
    }
    int64_t now_ms = clock_mono_ms();
    if (output->clogged_since_ms == 0) {
        output->clogged_since_ms = now_ms;
    }
    return now_ms - output->clogged_since_ms < PATIENCE_MS;
}

static void
take_line(struct app_output *output)
{
    output->at += line_log_take(&output->lines, output->bytes + output->at,
                                output->length - output->at, on_line, output);
}

/* Reads what is there; false when the pipe is empty or at its end. */
static bool
read_more(struct app_output *output)
{
    ssize_t n = fd_read(output->fd, output->bytes, sizeof(output->bytes));

    output->at = 0;
    output->length = n > 0 ? (size_t)n : 0;
    if (n == 0 || (n == -1 && errno != EAGAIN)) {
        ev_io_stop(output->loop, &output->readable);
    }
    return n > 0;
}

static void
pump(struct app_output *output)
{
    for (size_t reads = 0; reads < READS_PER_TURN;) {
        if (output->at == output->length) {
            reads++;
            if (!read_more(output)) {
                return;
            }
        }
        if (must_wait(output)) {
            ev_io_stop(output->loop, &output->readable);
            ev_timer_set(&output->pause, ms_to_seconds(PAUSE_MS), 0.);
            ev_timer_start(output->loop, &output->pause);
            return;
        }
        take_line(output);
    }
}

static void
on_readable(struct ev_loop *loop, ev_io *watcher, int revents)
{
    (void)loop;
    (void)revents;
    pump(container_of(watcher, struct app_output, readable));
}

static void
on_pause_over(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct app_output *output = container_of(timer, struct app_output, pause);

    (void)revents;
    ev_io_start(loop, &output->readable);
    pump(output);
}

void
app_output_init(struct app_output *output, struct ev_loop *loop, const struct child *child)
{
    output->loop = loop;
    output->child = child;
    output->fd = -1;
    ev_io_init(&output->readable, on_readable, 0, EV_READ);
    ev_timer_init(&output->pause, on_pause_over, 0., 0.);
    line_log_init(&output->lines);
}

void
app_output_start(struct app_output *output, int fd)
{
    line_log_release(&output->lines);
    line_log_init(&output->lines);
    output->fd = fd;
    output->at = output->length = 0;
    output->clogged_since_ms = 0;
    ev_io_set(&output->readable, fd, EV_READ);
    ev_io_start(output->loop, &output->readable);
}

void
app_output_remember(const struct app_output *output, struct buf *kept, struct buf *unread)
{
    for (size_t back = LINE_LOG_KEPT; back-- > 0;) {
        const char *line = line_log_last(&output->lines, back);
        if (line != NULL) {
            buf_addf(kept, "%s\n", line);
        }
    }
    buf_add(unread, output->lines.partial, output->lines.length);
    buf_add(unread, output->bytes + output->at, output->length - output->at);
}

static void
on_old_line(void *context, const char *line)
{
    (void)context;
    (void)line; /* it is in the log already */
}

static void
take_all(struct app_output *output, const struct buf *bytes, line_log_fn on_each)
{
    for (size_t at = 0; at < bytes->len;) {
        at += line_log_take(&output->lines, bytes->ptr + at, bytes->len - at, on_each, output);
    }
}

void
app_output_resume(struct app_output *output, int fd, const struct buf *kept,
                  const struct buf *unread)
{
    app_output_start(output, fd);
    take_all(output, kept, on_old_line);
    take_all(output, unread, on_line);
}

void
app_output_finish(struct app_output *output)
{
    if (output->fd == -1) {
        return;
    }
    /* A process that it started may still write: not for ever. */
    for (size_t reads = 0; reads < READS_PER_TURN; reads++) {
        while (output->at < output->length) {
            take_line(output);
        }
        if (!read_more(output)) {
            break;
        }
    }
    while (output->at < output->length) {
        take_line(output);
    }
    line_log_finish(&output->lines, on_line, output);
    ev_io_stop(output->loop, &output->readable);
    ev_timer_stop(output->loop, &output->pause);
    fd_close(&output->fd);
}

void
app_output_tell_last_words(const struct app_output *output, pid_t pid)
{
    if (log_enabled(LOG_LEVEL_INFO)) {
        return;
    }
    for (size_t back = LINE_LOG_KEPT; back-- > 0;) {
        const char *line = line_log_last(&output->lines, back);
        if (line != NULL) {
            log_error("%s[%d]: %s", output->child->name, (int)pid, line);
        }
    }
}

void
app_output_release(struct app_output *output)
{
    app_output_finish(output);
    line_log_release(&output->lines);
}
