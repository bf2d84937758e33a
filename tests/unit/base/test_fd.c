/* SPDX-License-Identifier: Apache-2.0
 *
 * Descriptors: closing once, flags, writing everything.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "config/base/fd.h"

Test(fd, close_forgets_the_descriptor_and_keeps_errno)
{
    int ends[2];

    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    int copy = ends[0];
    errno = E2BIG;
    fd_close(&ends[0]);
    cr_assert_eq(ends[0], -1);
    cr_assert_eq(errno, E2BIG);
    cr_assert_eq(fcntl(copy, F_GETFD), -1);
    cr_assert_eq(errno, EBADF);
    errno = E2BIG;
    fd_close(&ends[0]);
    cr_assert_eq(ends[0], -1);
    cr_assert_eq(errno, E2BIG);
    fd_close(&ends[1]);
}

Test(fd, close_of_a_bad_descriptor_keeps_errno)
{
    int fd = 1000000;

    errno = E2BIG;
    fd_close(&fd);
    cr_assert_eq(errno, E2BIG);
    cr_assert_eq(fd, -1);
}

Test(fd, flags_go_on_and_off_and_leave_the_others)
{
    int ends[2];

    cr_assert_eq(pipe(ends), 0);
    int flags = fcntl(ends[1], F_GETFL);
    cr_assert_eq(fd_set_nonblock(ends[1], true), 0);
    cr_assert_eq(fcntl(ends[1], F_GETFL), flags | O_NONBLOCK);
    cr_assert_eq(fd_set_nonblock(ends[1], true), 0);
    cr_assert_eq(fd_set_nonblock(ends[1], false), 0);
    cr_assert_eq(fcntl(ends[1], F_GETFL), flags);
    cr_assert_eq(fcntl(ends[1], F_GETFD), 0);
    cr_assert_eq(fd_set_cloexec(ends[1], true), 0);
    cr_assert_eq(fcntl(ends[1], F_GETFD), FD_CLOEXEC);
    cr_assert_eq(fd_set_cloexec(ends[1], false), 0);
    cr_assert_eq(fcntl(ends[1], F_GETFD), 0);
    fd_close(&ends[0]);
    fd_close(&ends[1]);
    cr_assert_eq(fd_set_nonblock(1000000, true), -EBADF);
    cr_assert_eq(fd_set_cloexec(1000000, true), -EBADF);
}

Test(fd, read_and_write_are_the_system_calls)
{
    int ends[2];
    char got[8];

    cr_assert_eq(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    cr_assert_eq(fd_read(ends[0], got, sizeof(got)), -1);
    cr_assert_eq(errno, EAGAIN);
    cr_assert_eq(fd_write(ends[1], "hello", 5), 5);
    cr_assert_eq(fd_read(ends[0], got, sizeof(got)), 5);
    cr_assert_arr_eq(got, "hello", 5);
    fd_close(&ends[1]);
    cr_assert_eq(fd_read(ends[0], got, sizeof(got)), 0);
    fd_close(&ends[0]);
}

Test(fd, write_all_writes_all_or_says_why)
{
    int memory = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    static char bytes[300000];
    static char back[sizeof(bytes)];

    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (char)(i * 7);
    }
    cr_assert_neq(memory, -1);
    cr_assert_eq(fd_write_all(memory, bytes, sizeof(bytes)), 0);
    cr_assert_eq(pread(memory, back, sizeof(back), 0), (ssize_t)sizeof(back));
    cr_assert_eq(memcmp(bytes, back, sizeof(bytes)), 0);
    cr_assert_eq(fcntl(memory, F_ADD_SEALS, F_SEAL_WRITE), 0);
    cr_assert_eq(fd_write_all(memory, bytes, 1), -EPERM);
    fd_close(&memory);

    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    cr_assert_neq(full, -1);
    cr_assert_eq(fd_write_all(full, bytes, sizeof(bytes)), -ENOSPC);
    fd_close(&full);
}

Test(fd, read_text_gives_the_beginning_or_nothing)
{
    char text[8] = "garbage";

    cr_assert(fd_read_text("/proc/self/stat", text, sizeof(text)));
    cr_expect_eq(strlen(text), sizeof(text) - 1, "cut, with its NUL");
    cr_expect(text[0] >= '1' && text[0] <= '9');
    cr_expect_not(fd_read_text("/proc/self/no-such-file", text, sizeof(text)));
    cr_expect_str_empty(text);
    cr_expect_not(fd_read_text("/proc/self", text, sizeof(text)), "a folder");
    cr_expect_not(fd_read_text("/dev/null", text, sizeof(text)), "empty");
}
