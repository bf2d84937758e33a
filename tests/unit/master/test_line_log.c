/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes of an application become lines, however they arrive, and the last of them are kept.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/buf.h"
#include "master/line_log.h"

static struct line_log lines;
static struct buf seen; /* every line in [] */

static void
on_line(void *context, const char *line)
{
    cr_assert_eq(context, &seen);
    buf_addf(&seen, "[%s]", line);
}

static void
feed_bytes(const char *bytes, size_t length)
{
    while (length > 0) {
        size_t taken = line_log_take(&lines, bytes, length, on_line, &seen);
        cr_assert_leq(taken, length);
        bytes += taken;
        length -= taken;
    }
}

static void
feed(const char *bytes)
{
    feed_bytes(bytes, strlen(bytes));
}

static void
begin(void)
{
    line_log_init(&lines);
    buf_clear(&seen);
}

static void
end(void)
{
    line_log_release(&lines);
    buf_release(&seen);
}

TestSuite(line_log, .init = begin, .fini = end);

Test(line_log, lines_come_out_whole_however_they_arrive)
{
    feed("a");
    cr_expect_eq(seen.len, 0);
    feed("b\ncd\r\n\n\ne");
    cr_expect_str_eq(seen.ptr, "[ab][cd]");
    line_log_finish(&lines, on_line, &seen);
    cr_expect_str_eq(seen.ptr, "[ab][cd][e]");
    line_log_finish(&lines, on_line, &seen);
    cr_expect_str_eq(seen.ptr, "[ab][cd][e]");
}

Test(line_log, byte_by_byte_is_the_same)
{
    const char *text = "one\r\ntwo\nthree\n";

    for (const char *c = text; *c != '\0'; c++) {
        feed_bytes(c, 1);
    }
    cr_expect_str_eq(seen.ptr, "[one][two][three]");
}

Test(line_log, a_long_line_comes_in_pieces_and_loses_nothing)
{
    static char text[3 * LINE_LOG_LINE_MAX + 2];

    memset(text, 'x', sizeof(text) - 2);
    text[sizeof(text) - 2] = '\n';
    feed(text);
    cr_expect_eq(seen.len, 3 * (LINE_LOG_LINE_MAX + 2));
    cr_expect_eq(strlen(line_log_last(&lines, 0)), LINE_LOG_LINE_MAX);
}

Test(line_log, a_line_of_exactly_the_limit_is_one)
{
    static char text[LINE_LOG_LINE_MAX + 2];

    memset(text, 'x', LINE_LOG_LINE_MAX);
    text[LINE_LOG_LINE_MAX] = '\n';
    feed(text);
    cr_expect_eq(seen.len, LINE_LOG_LINE_MAX + 2);
    end();
    begin();
    feed_bytes(text, LINE_LOG_LINE_MAX);
    cr_expect_eq(seen.len, 0);
    feed("\n");
    cr_expect_eq(seen.len, LINE_LOG_LINE_MAX + 2);
}

Test(line_log, the_last_lines_are_kept)
{
    cr_expect_null(line_log_last(&lines, 0));
    for (int i = 0; i < 50; i++) {
        char text[16];
        (void)snprintf(text, sizeof(text), "line %d\n", i);
        feed(text);
    }
    cr_expect_str_eq(line_log_last(&lines, 0), "line 49");
    cr_expect_str_eq(line_log_last(&lines, LINE_LOG_KEPT - 1), "line 30");
    cr_expect_null(line_log_last(&lines, LINE_LOG_KEPT));
}
