/* SPDX-License-Identifier: Apache-2.0
 *
 * The error log: the form of a line, one write per line, cutting, levels.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <regex.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "config/base/log.h"

/* A socket pair of datagrams: each read gives exactly what one write(2) wrote. */
static int ends[2];

static void
open_log(void)
{
    cr_assert_eq(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    log_setup(ends[1], LOG_LEVEL_INFO, "worker 3");
}

static void
close_log(void)
{
    log_set_fd(STDERR_FILENO);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

TestSuite(log, .init = open_log, .fini = close_log);

Test(log, a_reader_that_does_not_read_stops_nobody)
{
    int pipe_ends[2];
    char bytes[65536];
    char tail[4096] = "";

    cr_assert_eq(pipe2(pipe_ends, O_CLOEXEC), 0); /* blocking, as an inherited stderr is */
    log_set_fd(pipe_ends[1]);
    for (int i = 0; i < 5000; i++) {
        log_info("line %d", i);
    }
    while (read(pipe_ends[0], bytes, sizeof(bytes)) == (ssize_t)sizeof(bytes)) {
    }
    log_info("again");
    ssize_t n = read(pipe_ends[0], tail, sizeof(tail) - 1);
    cr_assert_gt(n, 0);
    cr_expect_not_null(strstr(tail, "lines are lost lost="), "%s", tail);
    cr_expect_not_null(strstr(tail, "]: again\n"), "%s", tail);
    (void)close(pipe_ends[0]);
    (void)close(pipe_ends[1]);
}

/* Next line without its line end; "" when nothing was written. */
static const char *
next_line(void)
{
    static char line[8192];
    ssize_t n = read(ends[0], line, sizeof(line) - 1);

    if (n == -1) {
        return "";
    }
    cr_assert_gt(n, 0);
    cr_assert_eq(line[n - 1], '\n');
    line[n - 1] = '\0';
    cr_assert_null(strchr(line, '\n'));
    return line;
}

/* What follows "]: ". */
static const char *
message_of(const char *line)
{
    const char *at = strstr(line, "]: ");

    cr_assert_not_null(at, "no message in '%s'", line);
    return at + 3;
}

Test(log, a_line_has_time_level_role_pid_and_message)
{
    char expected[200];
    regex_t form;

    log_warn("worker died slot=%d signal=%s", 2, "SIGKILL");
    const char *line = next_line();
    cr_assert_gt(snprintf(expected, sizeof(expected),
                          "^20[0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]"
                          "\\.[0-9]{3}Z warn worker 3\\[%d\\]: "
                          "worker died slot=2 signal=SIGKILL$",
                          (int)getpid()),
                 0);
    cr_assert_eq(regcomp(&form, expected, REG_EXTENDED | REG_NOSUB), 0);
    cr_assert_eq(regexec(&form, line, 0, NULL, 0), 0, "%s", line);
    regfree(&form);
    cr_assert_str_eq(next_line(), "");
}

Test(log, each_level_has_its_name)
{
    log_set_level(LOG_LEVEL_DEBUG);
    log_error("x");
    cr_assert_not_null(strstr(next_line(), " error worker 3["));
    log_warn("x");
    cr_assert_not_null(strstr(next_line(), " warn worker 3["));
    log_info("x");
    cr_assert_not_null(strstr(next_line(), " info worker 3["));
    log_debug("x");
    cr_assert_not_null(strstr(next_line(), " debug worker 3["));
    cr_assert_str_eq(log_level_name(LOG_LEVEL_WARN), "warn");
}

static int evaluated;

static int
evaluate(void)
{
    return ++evaluated;
}

Test(log, what_is_below_the_level_is_not_even_evaluated)
{
    log_debug("%d", evaluate());
    cr_assert_eq(evaluated, 0);
    cr_assert_str_eq(next_line(), "");
    log_set_level(LOG_LEVEL_ERROR);
    log_warn("%d", evaluate());
    log_info("%d", evaluate());
    cr_assert_eq(evaluated, 0);
    cr_assert_str_eq(next_line(), "");
    log_error("%d", evaluate());
    cr_assert_eq(evaluated, 1);
    cr_assert_str_eq(message_of(next_line()), "1");
}

Test(log, control_bytes_cannot_forge_a_line_or_drive_a_terminal)
{
    log_info("client said %s", "a\nb\r\tc\x1b[31m\x7f\x01 \xc3\xa9");
    cr_assert_str_eq(message_of(next_line()), "client said a?b??c?[31m?? \xc3\xa9");
    cr_assert_str_eq(next_line(), "");
}

Test(log, a_line_that_is_too_long_is_cut_and_marked)
{
    static char text[6000];

    memset(text, 'x', sizeof(text) - 1);
    log_info("%s", text);
    const char *line = next_line();
    size_t cut = strlen(line);
    cr_assert_lt(cut, 4096); /* PIPE_BUF: whole on a pipe that others write to */
    cr_assert_gt(cut, 2048);
    cr_assert_str_eq(line + cut - 4, "x...");

    /* Every length around the cut: the whole text, or a marked line of the same length. */
    size_t head = (size_t)(message_of(line) - line);
    for (size_t length = cut - head - 4; length < cut - head + 4; length++) {
        text[length] = '\0';
        log_info("%s", text);
        text[length] = 'x';
        line = next_line();
        if (head + length <= cut) {
            cr_assert_eq(strlen(line), head + length);
            cr_assert_eq(line[strlen(line) - 1], 'x');
        } else {
            cr_assert_eq(strlen(line), cut);
            cr_assert_str_eq(line + cut - 3, "...");
        }
    }
}

Test(log, errno_is_kept_and_may_be_shown)
{
    errno = ENOSPC;
    log_info("write failed: %m");
    cr_assert_eq(errno, ENOSPC);
    cr_assert_str_eq(message_of(next_line()), "write failed: No space left on device");

    log_set_fd(-1);
    errno = E2BIG;
    log_error("nobody hears it");
    cr_assert_eq(errno, E2BIG);
    cr_assert_eq(log_fd(), -1);
}

Test(log, a_long_role_is_cut_not_overrun)
{
    log_setup(ends[1], LOG_LEVEL_INFO, "a role of far more than the thirty-one bytes there are");
    log_info("x");
    cr_assert_not_null(strstr(next_line(), " info a role of far more than the thi["));
}
