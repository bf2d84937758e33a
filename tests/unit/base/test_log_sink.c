/* SPDX-License-Identifier: Apache-2.0
 *
 * Lines as syslog and journald receive them, and how a descriptor is told apart.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "config/base/fd.h"
#include "config/base/log.h"
#include "config/base/log_sink.h"

static char folder[32];
static char path[64];

static int
reader(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    (void)unlink(path);
    cr_assert_eq(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static int
connected(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    strcpy(address.sun_path, path);
    cr_assert_eq(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void
begin(void)
{
    strcpy(folder, "/tmp/narwhal-test.XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
}

static void
end(void)
{
    log_set_fd(STDERR_FILENO);
    (void)unlink(path);
    (void)rmdir(folder);
}

TestSuite(log_sink, .init = begin, .fini = end);

static void
receive(int fd, char *ret_text, size_t size)
{
    ssize_t n = recv(fd, ret_text, size - 1, 0);

    cr_assert_gt(n, 0, "no message: %s", strerror(errno));
    ret_text[n] = '\0';
}

Test(log_sink, journald_gets_fields)
{
    char wanted[512];
    char text[2048];
    int fd = reader("socket");
    int out = connected();

    cr_assert_geq(out, 0);
    log_setup(out, LOG_LEVEL_INFO, "worker 3");
    log_warn("it happened pid=%d", 7);
    (void)snprintf(wanted, sizeof(wanted),
                   "PRIORITY=4\nSYSLOG_FACILITY=3\nSYSLOG_IDENTIFIER=narwhal\nSYSLOG_PID=%d\n"
                   "NARWHAL_ROLE=worker 3\nMESSAGE=worker 3: it happened pid=7\n",
                   (int)getpid());
    receive(fd, text, sizeof(text));
    cr_expect_str_eq(text, wanted);
    log_error("a field of its own\nPRIORITY=0");
    receive(fd, text, sizeof(text));
    cr_expect_not_null(strstr(text, "PRIORITY=3\n"));
    cr_expect_not_null(strstr(text, "MESSAGE=worker 3: a field of its own?PRIORITY=0\n"));
    (void)close(fd);
    (void)close(out);
}

Test(log_sink, syslog_gets_a_priority_a_time_and_a_name)
{
    char text[2048];
    char end_of_line[128];
    char month[4];
    int priority = 0;
    int day;
    int hour;
    int minute;
    int second;
    int fd = reader("log");
    int out = connected();

    log_setup(out, LOG_LEVEL_DEBUG, "master");
    log_debug("small talk");
    receive(fd, text, sizeof(text));
    cr_expect_eq(
        sscanf(text, "<%d>%3s %d %d:%d:%d", &priority, month, &day, &hour, &minute, &second), 6,
        "%s", text);
    cr_expect_eq(priority, 3 * 8 + 7);
    (void)snprintf(end_of_line, sizeof(end_of_line), " narwhal[%d]: master: small talk",
                   (int)getpid());
    cr_assert_gt(strlen(text), strlen(end_of_line));
    cr_expect_str_eq(text + strlen(text) - strlen(end_of_line), end_of_line);
    (void)close(fd);
    (void)close(out);
}

Test(log_sink, a_reader_that_was_started_again_is_found)
{
    char text[2048];
    int fd = reader("log");
    int out = connected();
    struct log_sink sink;

    log_sink_set(&sink, out);
    cr_expect_eq(sink.kind, LOG_SINK_SYSLOG);
    cr_expect_eq(log_sink_send(&sink, LOG_PRIORITY_INFO, "n", "", "one", 3), 0);
    (void)close(fd);
    cr_expect_lt(log_sink_send(&sink, LOG_PRIORITY_INFO, "n", "", "lost", 4), 0);
    fd = reader("log");
    cr_expect_eq(log_sink_send(&sink, LOG_PRIORITY_INFO, "n", "", "two", 3), 0);
    receive(fd, text, sizeof(text));
    cr_expect_not_null(strstr(text, ": two"));
    (void)close(fd);
    (void)close(out);
}

Test(log_sink, a_reader_that_does_not_read_never_blocks_and_the_loss_is_told)
{
    char text[4096];
    int fd = reader("socket");
    int out = connected();

    log_setup(out, LOG_LEVEL_INFO, "master");
    for (int i = 0; i < 5000; i++) {
        log_info("line %d", i);
    }
    while (recv(fd, text, sizeof(text), 0) > 0) {
    }
    log_info("the next one");
    receive(fd, text, sizeof(text));
    cr_expect_not_null(strstr(text, "lines are lost lost="), "%s", text);
    receive(fd, text, sizeof(text));
    cr_expect_not_null(strstr(text, "the next one"));
    (void)close(fd);
    (void)close(out);
}

Test(log_sink, a_stream_that_systemd_reads_gets_the_priority)
{
    struct stat status;
    char stream[64];
    char text[512];
    int ends[2];

    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    cr_assert_eq(fstat(ends[0], &status), 0);
    (void)snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long)status.st_dev,
                   (unsigned long long)status.st_ino);
    (void)setenv("JOURNAL_STREAM", stream, 1);
    log_setup(ends[0], LOG_LEVEL_INFO, "master");
    log_error("oh dear");
    receive(ends[1], text, sizeof(text));
    cr_expect_eq(strncmp(text, "<3>error master[", 16), 0, "%s", text);
    cr_expect_not_null(strstr(text, "]: oh dear\n"));
    (void)setenv("JOURNAL_STREAM", "1:1", 1); /* standard error was redirected since */
    log_setup(ends[0], LOG_LEVEL_INFO, "master");
    log_error("oh dear");
    receive(ends[1], text, sizeof(text));
    cr_expect_neq(text[0], '<', "%s", text);
    (void)close(ends[0]);
    (void)close(ends[1]);
}
