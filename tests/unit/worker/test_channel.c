/* SPDX-License-Identifier: Apache-2.0
 *
 * The control channel: messages and descriptors arrive whole or not at all, and nonsense leaves no
 * descriptor behind.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/channel.h"

static int master;
static int worker;

static void
open_pair(void)
{
    cr_assert_eq(channel_pair(&master, &worker), 0);
}

static void
close_pair(void)
{
    (void)close(master);
    (void)close(worker);
}

TestSuite(channel, .init = open_pair, .fini = close_pair);

static unsigned int
count_descriptors(void)
{
    unsigned int count = 0;
    DIR *folder = opendir("/proc/self/fd");

    cr_assert_not_null(folder);
    while (readdir(folder) != NULL) {
        count++;
    }
    (void)closedir(folder);
    return count;
}

static ino_t
inode_of(int fd)
{
    struct stat status;

    cr_assert_eq(fstat(fd, &status), 0);
    return status.st_ino;
}

Test(channel, both_ends_are_close_on_exec_and_do_not_block)
{
    int ends[2] = {master, worker};

    for (int i = 0; i < 2; i++) {
        int type;
        socklen_t length = sizeof(type);
        cr_assert_eq(fcntl(ends[i], F_GETFD), FD_CLOEXEC);
        cr_assert(fcntl(ends[i], F_GETFL) & O_NONBLOCK);
        cr_assert_eq(getsockopt(ends[i], SOL_SOCKET, SO_TYPE, &type, &length), 0);
        cr_assert_eq(type, SOCK_SEQPACKET);
    }
}

Test(channel, messages_arrive_whole_and_in_order_both_ways)
{
    struct channel_message got;
    int fd = 0;

    for (uint32_t type = CHANNEL_NONE + 1; type < CHANNEL_TYPE_COUNT; type++) {
        struct channel_message message = {
            .type = type, .serial = UINT64_MAX - type, .lane = type * 3, .timeout_ms = -5};
        memset(message.text, 'a' + (int)type, type);
        cr_assert_eq(channel_send(type % 2 ? master : worker, &message, -1), 0);
    }
    for (uint32_t type = CHANNEL_NONE + 1; type < CHANNEL_TYPE_COUNT; type++) {
        cr_assert_eq(channel_receive(type % 2 ? worker : master, &got, &fd), 1);
        cr_assert_eq(fd, -1);
        cr_assert_eq(got.type, type);
        cr_assert_eq(got.serial, UINT64_MAX - type);
        cr_assert_eq(got.lane, type * 3);
        cr_assert_eq(got.timeout_ms, -5);
        cr_assert_eq(strlen(got.text), type);
        cr_assert_eq(got.text[0], 'a' + (int)type);
    }
    cr_assert_eq(channel_receive(worker, &got, &fd), -EAGAIN);
    cr_assert_eq(fd, -1);
    cr_assert_eq(channel_receive(master, &got, &fd), -EAGAIN);
}

Test(channel, a_descriptor_travels_and_the_senders_stays_its_own)
{
    int file = memfd_create("settings", MFD_CLOEXEC);
    unsigned int before = count_descriptors();
    struct channel_message message = {.type = CHANNEL_SETTINGS, .serial = 1};
    struct channel_message got;
    int fd;

    cr_assert_eq(write(file, "hello", 5), 5);
    cr_assert_eq(channel_send(master, &message, file), 0);
    message.serial = 2;
    cr_assert_eq(channel_send(master, &message, -1), 0);
    cr_assert_eq(channel_receive(worker, &got, &fd), 1);
    cr_assert_eq(got.serial, 1);
    cr_assert_neq(fd, -1);
    cr_assert_neq(fd, file);
    cr_assert_eq(inode_of(fd), inode_of(file));
    cr_assert_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
    char bytes[6] = "";
    cr_assert_eq(pread(fd, bytes, 5, 0), 5);
    cr_assert_str_eq(bytes, "hello");
    (void)close(fd);
    cr_assert_eq(channel_receive(worker, &got, &fd), 1);
    cr_assert_eq(got.serial, 2);
    cr_assert_eq(fd, -1); /* not the one of the message before */
    cr_assert_eq(count_descriptors(), before);
    cr_assert_neq(fcntl(file, F_GETFD), -1);
    (void)close(file);
}

Test(channel, a_listening_socket_accepts_at_the_other_end)
{
    struct sockaddr_un_any {
        sa_family_t family;
    } any = {.family = AF_UNIX}; /* the kernel picks an abstract name: unix(7), autobind */
    struct sockaddr_storage name;
    socklen_t length = sizeof(name);
    struct channel_message message = {.type = CHANNEL_LANE_ASSIGN, .lane = 4};
    struct channel_message got;
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int lane;

    cr_assert_eq(bind(listener, (const struct sockaddr *)&any, sizeof(any)), 0);
    cr_assert_eq(listen(listener, 8), 0);
    cr_assert_eq(getsockname(listener, (struct sockaddr *)&name, &length), 0);
    cr_assert_eq(channel_send(master, &message, listener), 0);
    (void)close(listener);
    int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(client, (const struct sockaddr *)&name, length), 0); /* queued */
    cr_assert_eq(channel_receive(worker, &got, &lane), 1);
    int accepted = accept4(lane, NULL, NULL, SOCK_CLOEXEC);
    cr_assert_neq(accepted, -1);
    (void)close(accepted);
    (void)close(client);
    (void)close(lane);
}

Test(channel, a_peer_that_is_gone_is_told_after_what_it_said)
{
    struct channel_message message = {.type = CHANNEL_DRAINED};
    struct channel_message got;
    int fd;

    cr_assert_eq(channel_send(worker, &message, -1), 0);
    (void)close(worker);
    cr_assert_eq(channel_receive(master, &got, &fd), 1);
    cr_assert_eq(got.type, CHANNEL_DRAINED);
    cr_assert_eq(channel_receive(master, &got, &fd), 0);
    cr_assert_eq(channel_receive(master, &got, &fd), 0);
    cr_assert_eq(fd, -1);
    (void)signal(SIGPIPE, SIG_DFL); /* must not be raised */
    message.type = CHANNEL_QUIT;
    cr_assert_eq(channel_send(master, &message, -1), -EPIPE);
    worker = -1;
}

Test(channel, a_peer_that_does_not_read_is_eagain_and_loses_nothing)
{
    struct channel_message message = {.type = CHANNEL_LANE_REVOKE};
    struct channel_message got;
    int result = 0;
    int fd;
    uint64_t sent = 0;

    while (sent < 100000) {
        message.serial = sent;
        result = channel_send(master, &message, -1);
        if (result != 0) {
            break;
        }
        sent++;
    }
    cr_assert_eq(result, -EAGAIN);
    cr_assert_gt(sent, 8);
    for (uint64_t i = 0; i < sent; i++) {
        cr_assert_eq(channel_receive(worker, &got, &fd), 1);
        cr_assert_eq(got.serial, i);
    }
    cr_assert_eq(channel_receive(worker, &got, &fd), -EAGAIN);
    cr_assert_eq(channel_send(master, &message, -1), 0);
}

Test(channel, other_errors_are_told)
{
    struct channel_message message = {.type = CHANNEL_QUIT};
    int fd;

    cr_assert_eq(channel_send(1000000, &message, -1), -EBADF);
    cr_assert_eq(channel_send(master, &message, 1000000), -EBADF);
    cr_assert_eq(channel_receive(1000000, &message, &fd), -EBADF);
    cr_assert_eq(fd, -1);
}

/* ---- nonsense ------------------------------------------------------------------------------- */

/* Sends size bytes with copies of a descriptor, as no version of ours does. */
static void
send_raw(const void *bytes, size_t size, int fd, size_t fd_count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(16 * sizeof(int))];
    } control = {0};
    struct iovec iov = {.iov_base = memcpy(malloc(size + 1), bytes, size), .iov_len = size};
    struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd_count > 0) {
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&header);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        for (size_t i = 0; i < fd_count; i++) {
            memcpy(CMSG_DATA(cmsg) + i * sizeof(int), &fd, sizeof(int));
        }
    }
    cr_assert_eq(sendmsg(worker, &header, 0), (ssize_t)size);
    free(iov.iov_base);
}

Test(channel, nonsense_is_refused_and_its_descriptors_are_closed)
{
    int file = memfd_create("x", MFD_CLOEXEC);
    unsigned int before = count_descriptors();
    struct channel_message good = {.magic = CHANNEL_MAGIC, .type = CHANNEL_READY};
    struct channel_message bad_magic = good;
    struct channel_message none = good;
    struct channel_message unknown = good;
    struct channel_message huge = good;
    char longer[sizeof(good) + 1] = {0};
    struct channel_message got;
    int fd;

    bad_magic.magic ^= 1;
    none.type = CHANNEL_NONE;
    unknown.type = CHANNEL_TYPE_COUNT;
    huge.type = UINT32_MAX;
    memcpy(longer, &good, sizeof(good));
    const struct {
        const char *what;
        const void *bytes;
        size_t size;
    } cases[] = {
        {"one byte", &good, 1},
        {"one byte less", &good, sizeof(good) - 1},
        {"one byte more", longer, sizeof(longer)},
        {"another magic", &bad_magic, sizeof(good)},
        {"no type", &none, sizeof(good)},
        {"the first unknown type", &unknown, sizeof(good)},
        {"a huge type", &huge, sizeof(good)},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (size_t fds = 0; fds < 7; fds++) {
            send_raw(cases[i].bytes, cases[i].size, file, fds);
            cr_assert_eq(channel_receive(master, &got, &fd), -EBADMSG, "%s", cases[i].what);
            cr_assert_eq(fd, -1);
            cr_assert_eq(count_descriptors(), before, "%s with %zu", cases[i].what, fds);
        }
    }
    send_raw(&good, sizeof(good), file, 0); /* the channel goes on */
    cr_assert_eq(channel_receive(master, &got, &fd), 1);
    (void)close(file);
}

Test(channel, more_descriptors_than_one_do_not_leak)
{
    int file = memfd_create("x", MFD_CLOEXEC);
    unsigned int before = count_descriptors();
    struct channel_message good = {.magic = CHANNEL_MAGIC, .type = CHANNEL_SETTINGS};
    struct channel_message got;
    int fd;

    for (size_t fds = 2; fds <= 10; fds++) {
        send_raw(&good, sizeof(good), file, fds);
        int result = channel_receive(master, &got, &fd);
        cr_assert(result == 1 || result == -EBADMSG);
        cr_assert_eq(fd != -1, result == 1);
        if (fd != -1) {
            cr_assert_eq(inode_of(fd), inode_of(file));
            (void)close(fd);
        }
        cr_assert_eq(count_descriptors(), before, "%zu", fds);
    }
    (void)close(file);
}

Test(channel, a_text_without_an_end_gets_one)
{
    struct channel_message message = {.magic = CHANNEL_MAGIC, .type = CHANNEL_SETTINGS_REFUSED};
    struct channel_message got;
    int fd;

    memset(message.text, 'x', sizeof(message.text));
    send_raw(&message, sizeof(message), -1, 0);
    cr_assert_eq(channel_receive(master, &got, &fd), 1);
    cr_assert_eq(strnlen(got.text, CHANNEL_TEXT_MAX), CHANNEL_TEXT_MAX - 1);
}

Test(channel, types_have_names)
{
    cr_assert_str_eq(channel_type_name(CHANNEL_NONE), "NONE");
    cr_assert_str_eq(channel_type_name(CHANNEL_LANE_ASSIGN), "LANE_ASSIGN");
    cr_assert_str_eq(channel_type_name(CHANNEL_DRAINED), "DRAINED");
    cr_assert_str_eq(channel_type_name(CHANNEL_TYPE_COUNT), "?");
}
