/* SPDX-License-Identifier: Apache-2.0
 *
 * Gathering and writing: nothing is written too early or twice, no line is torn or lost in silence,
 * whatever the file or pipe behind the log does.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/base/log.h"
#include "worker/access_log.h"

static struct ev_loop *loop;
static struct access_log access_log;
static struct peer peer = {.family = PEER_UNIX};
static struct request_parser parser;
static char head_bytes[32768];
static int error_log;

static void
start(void)
{
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN);
    error_log = memfd_create("error_log", MFD_CLOEXEC);
    log_setup(error_log, LOG_LEVEL_WARN, "worker 0");
    loop = ev_loop_new(0);
    cr_assert_not_null(loop);
    access_log_init(&access_log, loop);
    access_log_set_format(&access_log, access_format_new("%(U)s %(s)s"));
}

static void
stop(void)
{
    access_log_release(&access_log);
    cr_assert_not(ev_is_active(&access_log.flush_timer));
    ev_loop_destroy(loop);
    (void)close(error_log);
}

TestSuite(access_log, .init = start, .fini = stop);

/* Adds a line "/NUMBER/xxx… 200", of size bytes with its line end (16 at least). */
static void
add_line(unsigned int number, size_t size)
{
    static const struct request_limits limits = {.line = 20000, .fields = 10, .head = 30000};
    struct access_record record = {.peer = &peer, .base = head_bytes, .status = 200};
    int used = snprintf(head_bytes, sizeof(head_bytes), "GET /%08u/", number);

    memset(head_bytes + used, 'x', size - 15);
    (void)snprintf(head_bytes + used + size - 15, 40, " HTTP/1.1\r\nHost: a\r\n\r\n");
    request_parser_init(&parser);
    cr_assert_eq(request_parser_run(&parser, &limits, head_bytes, strlen(head_bytes)), PARSE_OK);
    record.head = &parser.head;
    access_log_add(&access_log, &record);
}

/* How many lines bytes are; each must be whole and its number above the one before it. */
static unsigned int
check_lines(const char *bytes, size_t length, long *last)
{
    const char *end = bytes + length;
    unsigned int count = 0;

    while (bytes < end) {
        const char *line_end = memchr(bytes, '\n', (size_t)(end - bytes));
        cr_assert_not_null(line_end, "a line without its end: %.40s", bytes);
        cr_assert_eq(bytes[0], '/', "not the beginning of a line: %.40s", bytes);
        long number = strtol(bytes + 1, NULL, 10);
        cr_assert_gt(number, *last);
        *last = number;
        cr_assert_eq(memcmp(line_end - 4, " 200", 4), 0);
        cr_assert_null(memchr(bytes, ' ', (size_t)(line_end - 4 - bytes)));
        bytes = line_end + 1;
        count++;
    }
    return count;
}

static size_t
read_file(int fd, char *out, size_t size)
{
    ssize_t n = pread(fd, out, size, 0);

    cr_assert_geq(n, 0);
    return (size_t)n;
}

static const char *
error_text(void)
{
    static char text[8192];

    text[read_file(error_log, text, sizeof(text) - 1)] = '\0';
    return text;
}

static unsigned int
count_text(const char *text, const char *what)
{
    unsigned int count = 0;

    for (const char *at = text; (at = strstr(at, what)) != NULL; at++) {
        count++;
    }
    return count;
}

static int
open_file(void)
{
    char path[] = "/tmp/narwhal-access-XXXXXX";
    int fd = mkostemp(path, O_APPEND | O_CLOEXEC);

    cr_assert_neq(fd, -1);
    (void)unlink(path);
    return fd;
}

/* ---- the usual ------------------------------------------------------------------------------ */

Test(access_log, is_off_at_first_and_costs_nothing)
{
    cr_assert_not(access_log_is_on(&access_log));
    add_line(1, 40);
    cr_assert_null(access_log.buffer);
    cr_assert_not(ev_is_active(&access_log.flush_timer));
    access_log_flush(&access_log);
    access_log_set_fd(&access_log, -1);
    cr_assert_str_eq(error_text(), "");
}

Test(access_log, lines_wait_for_the_timer_and_no_timer_runs_without_lines)
{
    char bytes[200];
    int fd = open_file();
    int copy = dup(fd);
    long last = 0;

    access_log_set_fd(&access_log, fd);
    cr_assert(access_log_is_on(&access_log));
    cr_assert_not(ev_is_active(&access_log.flush_timer));
    add_line(1, 40);
    add_line(2, 40);
    cr_assert_eq(read_file(copy, bytes, sizeof(bytes)), 0);
    cr_assert(ev_is_active(&access_log.flush_timer));
    (void)ev_run(loop, EVRUN_ONCE); /* until the timer has fired */
    cr_assert_eq(read_file(copy, bytes, sizeof(bytes)), 80);
    cr_assert_eq(check_lines(bytes, 80, &last), 2);
    cr_assert_not(ev_is_active(&access_log.flush_timer));
    add_line(3, 40);
    cr_assert(ev_is_active(&access_log.flush_timer));
    access_log_flush(&access_log);
    cr_assert_not(ev_is_active(&access_log.flush_timer));
    cr_assert_eq(read_file(copy, bytes, sizeof(bytes)), 120);
    (void)close(copy);
}

Test(access_log, a_full_buffer_is_written_in_whole_lines)
{
    static char bytes[4 * ACCESS_BUFFER_BYTES];
    int fd = open_file();
    int copy = dup(fd);
    long last = 0;
    size_t written = 0;
    unsigned int writes = 0;

    access_log_set_fd(&access_log, fd);
    for (unsigned int i = 1; i <= 2000; i++) {
        add_line(i, 20 + i % 90);
        struct stat status;
        cr_assert_eq(fstat(copy, &status), 0);
        writes += (size_t)status.st_size != written;
        written = (size_t)status.st_size;
    }
    cr_assert_eq(writes, 2); /* of 2000 lines and 129 kB: 56 KiB and more at a time */
    access_log_flush(&access_log);
    size_t length = read_file(copy, bytes, sizeof(bytes));
    cr_assert_eq(check_lines(bytes, length, &last), 2000);
    cr_assert_eq(last, 2000);
    cr_assert_str_eq(error_text(), "");
    (void)close(copy);
}

Test(access_log, what_is_buffered_goes_to_the_old_target)
{
    char bytes[200];
    int first = open_file();
    int second = open_file();
    int first_copy = dup(first);
    int second_copy = dup(second);

    access_log_set_fd(&access_log, first);
    add_line(1, 40);
    access_log_set_fd(&access_log, second);
    cr_assert_eq(fcntl(first, F_GETFD), -1); /* the log's own: closed */
    cr_assert_eq(read_file(first_copy, bytes, sizeof(bytes)), 40);
    cr_assert_not(ev_is_active(&access_log.flush_timer));
    add_line(2, 30);
    access_log_set_fd(&access_log, -1);
    cr_assert_eq(read_file(first_copy, bytes, sizeof(bytes)), 40);
    cr_assert_eq(read_file(second_copy, bytes, sizeof(bytes)), 30);
    cr_assert_eq(fcntl(second, F_GETFD), -1);
    cr_assert_null(access_log.buffer);
    cr_assert_str_eq(error_text(), "");
    (void)close(first_copy);
    (void)close(second_copy);
}

Test(access_log, release_writes_what_is_left)
{
    char bytes[200];
    int fd = open_file();
    int copy = dup(fd);

    access_log_set_fd(&access_log, fd);
    add_line(1, 40);
    access_log_release(&access_log);
    cr_assert_eq(read_file(copy, bytes, sizeof(bytes)), 40);
    cr_assert_eq(fcntl(fd, F_GETFD), -1);
    cr_assert_not(ev_is_active(&access_log.flush_timer));
    (void)close(copy);
}

Test(access_log, a_new_format_holds_from_the_next_line)
{
    char bytes[200] = "";
    int fd = open_file();
    int copy = dup(fd);

    access_log_set_fd(&access_log, fd);
    add_line(1, 20);
    access_log_set_format(&access_log, access_format_new("%(s)s %(H)s"));
    add_line(2, 20);
    access_log_flush(&access_log);
    (void)read_file(copy, bytes, sizeof(bytes));
    cr_assert_str_eq(bytes, "/00000001/xxxxx 200\n200 HTTP/1.1\n");
    (void)close(copy);
}

/* ---- files that fail ------------------------------------------------------------------------ */

static void
limit_file_size(rlim_t size)
{
    struct rlimit limit;

    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = size;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* A limit stands for a full disk here: it makes a short write, then errors, and can be lifted. */
Test(access_log, a_full_file_loses_only_what_it_counts_and_tears_no_line)
{
    static char bytes[4 * ACCESS_BUFFER_BYTES];
    int fd = open_file();
    int copy = dup(fd);
    long last = 0;
    unsigned int added = 0;

    access_log_set_fd(&access_log, fd);
    while (added < 10) {
        add_line(++added, 100);
    }
    limit_file_size(550); /* within the sixth line */
    access_log_flush(&access_log);
    cr_assert_eq(read_file(copy, bytes, sizeof(bytes)), 550);
    cr_assert_eq(count_text(error_text(), "cannot write: File too large"), 1);
    cr_assert_not_null(strstr(error_text(), " error worker 0["));
    cr_assert_not_null(strstr(error_text(), "narwhal-access-")); /* which file */
    cr_assert(ev_is_active(&access_log.flush_timer));            /* tries again */
    while (added < 3000) {
        add_line(++added, 100);
    }
    access_log_flush(&access_log);
    access_log_flush(&access_log);
    cr_assert_eq(read_file(copy, bytes, sizeof(bytes)), 550);
    cr_assert_eq(count_text(error_text(), "\n"), 1); /* said once */

    limit_file_size(RLIM_INFINITY);
    (void)ev_run(loop, EVRUN_ONCE); /* the timer */
    size_t length = read_file(copy, bytes, sizeof(bytes));
    unsigned int lines = check_lines(bytes, length, &last);
    char expected[100];
    (void)snprintf(expected, sizeof(expected), "access log works again, lines lost=%u\n",
                   added - lines);
    cr_assert_gt(lines, 500); /* what the buffer could hold was kept */
    cr_assert_lt(lines, added);
    cr_assert_eq(last, lines); /* the newest were dropped, none in between */
    cr_assert_not_null(strstr(error_text(), expected), "%s", error_text());
    cr_assert_eq(count_text(error_text(), "\n"), 2);
    cr_assert_not(ev_is_active(&access_log.flush_timer));

    add_line(4000, 100); /* and goes on, and would say a second failure */
    access_log_flush(&access_log);
    cr_assert_eq(read_file(copy, bytes, sizeof(bytes)), length + 100);
    limit_file_size((rlim_t)length + 150);
    add_line(4001, 100);
    access_log_flush(&access_log);
    cr_assert_eq(count_text(error_text(), "cannot write"), 2);
    limit_file_size(RLIM_INFINITY);
    (void)close(copy);
}

Test(access_log, half_a_line_does_not_move_to_another_file)
{
    char bytes[2000];
    int first = open_file();
    int second = open_file();
    int second_copy = dup(second);
    long last = 0;

    access_log_set_fd(&access_log, first);
    for (unsigned int i = 1; i <= 5; i++) {
        add_line(i, 100);
    }
    limit_file_size(250); /* within the third line */
    access_log_set_fd(&access_log, second);
    limit_file_size(RLIM_INFINITY);
    access_log_flush(&access_log);
    size_t length = read_file(second_copy, bytes, sizeof(bytes));
    cr_assert_eq(check_lines(bytes, length, &last), 2);
    cr_assert_eq(last, 5);
    cr_assert_not_null(strstr(error_text(), "access log works again, lines lost=1\n"));
    (void)close(second_copy);
}

Test(access_log, lines_that_end_with_the_log_are_counted)
{
    int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);

    cr_assert_neq(fd, -1);
    access_log_set_fd(&access_log, fd);
    for (unsigned int i = 1; i <= 7; i++) {
        add_line(i, 100);
    }
    access_log_set_fd(&access_log, -1);
    cr_assert_not_null(strstr(error_text(), "access log /dev/full: cannot write: No space left"));
    cr_assert_not_null(strstr(error_text(), "access log is off, lines lost=7\n"));
}

/* ---- pipes ---------------------------------------------------------------------------------- */

static size_t
read_some(int fd, char *out, size_t size)
{
    ssize_t n = read(fd, out, size);

    cr_assert(n > 0 || (n == -1 && errno == EAGAIN));
    return n > 0 ? (size_t)n : 0;
}

/* flags: of the log's end. */
static void
slow_reader(int flags)
{
    static char bytes[8 * ACCESS_BUFFER_BYTES];
    int ends[2];
    size_t length = 0;
    unsigned int added = 0;
    long last = 0;

    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    cr_assert_eq(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
    cr_assert_eq(fcntl(ends[1], F_SETFL, flags), 0);
    cr_assert_gt(fcntl(ends[1], F_SETPIPE_SZ, 16 * 4096), 0);
    access_log_set_fd(&access_log, ends[1]);
    while (access_log.lost == 0) { /* nobody reads; must not block */
        added++;
        add_line(added, 50 + added % 100);
        cr_assert_lt(added, 10000);
    }
    cr_assert_eq(count_text(error_text(), "its reader does not keep up"), 1);
    add_line(++added, 100);
    cr_assert_eq(access_log.lost, 2);
    length += read_some(ends[0], bytes, 16 * 4096);
    add_line(++added, 100); /* the reader is back: the next line finds room at once */
    for (size_t n = 1; n > 0 || access_log.used > 0;) {
        access_log_flush(&access_log);
        n = read_some(ends[0], bytes + length, sizeof(bytes) - length);
        length += n;
    }
    cr_assert_eq(check_lines(bytes, length, &last), added - 2);
    cr_assert_not_null(strstr(error_text(), "access log works again, lines lost=2\n"));
    cr_assert_eq(count_text(error_text(), "\n"), 2);
    (void)close(ends[0]);
}

Test(access_log, a_slow_reader_loses_only_what_is_counted)
{
    slow_reader(O_NONBLOCK);
}

Test(access_log, a_slow_reader_of_a_blocking_pipe_does_not_block_the_worker)
{
    (void)alarm(60); /* it would wait for ever */
    slow_reader(0);
    (void)alarm(0);
}

Test(access_log, a_reader_that_is_gone_is_reported)
{
    int ends[2];

    cr_assert_eq(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    access_log_set_fd(&access_log, ends[1]);
    (void)close(ends[0]);
    add_line(1, 100);
    access_log_flush(&access_log);
    access_log_flush(&access_log);
    cr_assert_eq(count_text(error_text(), "cannot write: Broken pipe"), 1);
    cr_assert_eq(count_text(error_text(), "\n"), 1);
    access_log_set_fd(&access_log, -1);
    cr_assert_not_null(strstr(error_text(), "access log is off, lines lost=1\n"));
}

/* Each write to what is no file is whole lines of at most PIPE_BUF bytes: seen on a socket that
 * keeps the borders of writes. A line that is longer than that is cut. */
Test(access_log, writes_that_others_share_are_small_and_whole)
{
    int ends[2];
    char bytes[2 * PIPE_BUF];
    unsigned int lines = 0;
    long last = 0;
    ssize_t n;

    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    access_log_set_fd(&access_log, ends[1]);
    for (unsigned int i = 1; i <= 300; i++) {
        add_line(i, i % 50 == 0 ? 9000 : 20 + i % 200);
    }
    access_log_flush(&access_log);
    cr_assert_eq(access_log.used, 0);
    while ((n = recv(ends[0], bytes, sizeof(bytes), 0)) > 0) {
        cr_assert_leq(n, PIPE_BUF);
        lines += check_lines(bytes, (size_t)n, &last);
    }
    cr_assert_eq(lines, 300);
    cr_assert_str_eq(error_text(), "");
    (void)close(ends[0]);
}
