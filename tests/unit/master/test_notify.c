/* SPDX-License-Identifier: Apache-2.0
 *
 * The messages of sd_notify(3), received as systemd would.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <ev.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "master/master.h"
#include "master/notify.h"

static int
manager_socket(const struct sockaddr_un *address, socklen_t size)
{
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    cr_assert_neq(fd, -1);
    cr_assert_eq(bind(fd, (const struct sockaddr *)address, size), 0);
    return fd;
}

static void
expect_message(int fd, const char *wanted)
{
    char text[2048] = "";
    ssize_t n = recv(fd, text, sizeof(text) - 1, 0);

    cr_assert_neq(n, -1, "no message");
    cr_expect_str_eq(text, wanted);
}

Test(notify, sends_to_a_path)
{
    char folder[] = "/tmp/narwhal-test.XXXXXX";
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    cr_assert_not_null(mkdtemp(folder));
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", folder);
    int fd = manager_socket(&address, sizeof(address));
    (void)setenv("NOTIFY_SOCKET", address.sun_path, 1);
    notify_open(NULL);
    notify_send("READY=1\nMAINPID=%d", 42);
    expect_message(fd, "READY=1\nMAINPID=42");
    notify_close();
    notify_send("STATUS=nobody hears this");
    char byte;
    cr_expect_eq(recv(fd, &byte, 1, 0), -1);
    (void)close(fd);
    (void)unlink(address.sun_path);
    (void)rmdir(folder);
}

Test(notify, sends_to_an_abstract_socket)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char name[64];
    int length = snprintf(name, sizeof(name), "@narwhal-test-%d", (int)getpid());

    memcpy(address.sun_path, name, (size_t)length);
    address.sun_path[0] = '\0';
    int fd = manager_socket(&address,
                            (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)length));
    (void)setenv("NOTIFY_SOCKET", name, 1);
    notify_open(NULL);
    notify_send("STOPPING=1");
    expect_message(fd, "STOPPING=1");
    notify_close();
    (void)close(fd);
}

Test(notify, a_manager_that_does_not_read_never_blocks_the_master)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char name[64];
    int length = snprintf(name, sizeof(name), "@narwhal-test-full-%d", (int)getpid());

    memcpy(address.sun_path, name, (size_t)length);
    address.sun_path[0] = '\0';
    int fd = manager_socket(&address,
                            (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)length));
    (void)setenv("NOTIFY_SOCKET", name, 1);
    notify_open(NULL);
    for (int i = 0; i < 10000; i++) {
        notify_send("STATUS=%d", i); /* a blocking send would never come back */
    }
    expect_message(fd, "STATUS=0");
    notify_close();
    (void)close(fd);
}

Test(notify, without_a_manager_nothing_happens)
{
    static const char *const wrong[] = {"", "relative/path"};

    (void)unsetenv("NOTIFY_SOCKET");
    notify_open(NULL);
    notify_send("READY=1");
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        (void)setenv("NOTIFY_SOCKET", wrong[i], 1);
        (void)setenv("WATCHDOG_USEC", "1000000", 1);
        notify_open(NULL);
        notify_send("READY=1");
        cr_expect_eq(notify_watchdog_ms(), 0);
    }
}

Test(notify, a_manager_that_comes_later_is_told)
{
    char folder[] = "/tmp/narwhal-test.XXXXXX";
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    cr_assert_not_null(mkdtemp(folder));
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", folder);
    (void)setenv("NOTIFY_SOCKET", address.sun_path, 1);
    notify_open(NULL);
    notify_send("STATUS=into the void");
    int fd = manager_socket(&address, sizeof(address));
    notify_send("STATUS=first");
    expect_message(fd, "STATUS=first");
    (void)close(fd); /* and once more: it was started anew */
    (void)unlink(address.sun_path);
    notify_send("STATUS=into the void");
    fd = manager_socket(&address, sizeof(address));
    notify_send("STATUS=second");
    expect_message(fd, "STATUS=second");
    notify_close();
    (void)close(fd);
    (void)unlink(address.sun_path);
    (void)rmdir(folder);
}

Test(notify, what_waits_is_sent_in_order_and_before_a_descriptor)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);
    static struct master master;
    char name[64];
    char text[2048];
    int length = snprintf(name, sizeof(name), "@narwhal-test-queue-%d", (int)getpid());

    memcpy(address.sun_path, name, (size_t)length);
    address.sun_path[0] = '\0';
    int fd = manager_socket(&address,
                            (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)length));
    (void)setenv("NOTIFY_SOCKET", name, 1);
    ev_set_userdata(loop, &master);
    notify_open(loop);
    while (notify_send_status("x")) { /* until it takes no more */
    }
    notify_send("READY=1");
    notify_send("RELOADING=1");
    cr_expect_eq(notify_send_fd(STDIN_FILENO, "FDSTORE=1"), -EAGAIN);
    cr_expect_not(notify_send_status("late"));
    while (recv(fd, text, sizeof(text), 0) != -1) {
    }
    ev_run(loop, EVRUN_ONCE);
    expect_message(fd, "READY=1");
    expect_message(fd, "RELOADING=1");
    cr_expect(master.changed, "the descriptor is to be sent again");
    cr_expect_eq(notify_send_fd(STDIN_FILENO, "FDSTORE=1"), 0);
    expect_message(fd, "FDSTORE=1");
    notify_close();
    ev_loop_destroy(loop);
    (void)close(fd);
}

Test(notify, the_watchdog_is_fed_at_half_its_time)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char name[64];
    char pid[32];
    int length = snprintf(name, sizeof(name), "@narwhal-test-dog-%d", (int)getpid());

    memcpy(address.sun_path, name, (size_t)length);
    address.sun_path[0] = '\0';
    int fd = manager_socket(&address,
                            (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)length));
    (void)setenv("NOTIFY_SOCKET", name, 1);
    notify_open(NULL);
    (void)unsetenv("WATCHDOG_USEC");
    cr_expect_eq(notify_watchdog_ms(), 0);
    (void)setenv("WATCHDOG_USEC", "30000000", 1);
    cr_expect_eq(notify_watchdog_ms(), 15000);
    (void)setenv("WATCHDOG_PID", "1", 1);
    cr_expect_eq(notify_watchdog_ms(), 0);
    (void)snprintf(pid, sizeof(pid), "%d", (int)getpid());
    (void)setenv("WATCHDOG_PID", pid, 1);
    cr_expect_eq(notify_watchdog_ms(), 15000);
    (void)setenv("WATCHDOG_USEC", "nonsense", 1);
    cr_expect_eq(notify_watchdog_ms(), 0);
    notify_close();
    (void)close(fd);
}
