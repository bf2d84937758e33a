/* SPDX-License-Identifier: Apache-2.0
 *
 * File descriptors: closing, flags, and the EINTR loop. Stateless; runs in every process.
 */
#include "config/base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

void
fd_close(int *fd)
{
    if (*fd != -1) {
        int saved_errno = errno;

        (void)close(*fd); /* nothing can be done about a failure, and the descriptor is gone */
        *fd = -1;
        errno = saved_errno;
    }
}

static int
fd_change_flags(int fd, int get, int set, int bit, bool on)
{
    int flags = fcntl(fd, get);

    if (flags == -1) {
        return -errno;
    }
    int wanted = on ? flags | bit : flags & ~bit;
    if (wanted != flags && fcntl(fd, set, wanted) == -1) {
        return -errno;
    }
    return 0;
}

int
fd_set_nonblock(int fd, bool nonblock)
{
    return fd_change_flags(fd, F_GETFL, F_SETFL, O_NONBLOCK, nonblock);
}

int
fd_set_cloexec(int fd, bool cloexec)
{
    return fd_change_flags(fd, F_GETFD, F_SETFD, FD_CLOEXEC, cloexec);
}

ssize_t
fd_read(int fd, void *buffer, size_t size)
{
    ssize_t n;

    do {
        n = read(fd, buffer, size);
    } while (n == -1 && errno == EINTR);
    return n;
}

bool
fd_read_text(const char *path, char *ret_text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd != -1 ? fd_read(fd, ret_text, size - 1) : -1;

    fd_close(&fd);
    ret_text[n > 0 ? n : 0] = '\0';
    return n > 0;
}

ssize_t
fd_write(int fd, const void *bytes, size_t size)
{
    ssize_t n;

    do {
        n = write(fd, bytes, size);
    } while (n == -1 && errno == EINTR);
    return n;
}

int
fd_write_all(int fd, const void *bytes, size_t size)
{
    const char *next = bytes;

    while (size > 0) {
        ssize_t n = fd_write(fd, next, size);
        if (n == -1) {
            return -errno;
        }
        next += n;
        size -= (size_t)n;
    }
    return 0;
}
