/* SPDX-License-Identifier: Apache-2.0
 *
 * The inherited listening sockets, as one static set: which numbers they have is a fact about the
 * process. They stay open for the master's whole life, used or not, so that a reload may take one
 * into use. sd_listen_fds(3) describes LISTEN_FDS and LISTEN_PID.
 */
#include "master/inherited.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "config/base/fd.h"

#define FIRST_FD 3
#define FD_COUNT_MAX 1024

static struct {
    bool is_listener[FD_COUNT_MAX];
    int passed; /* by systemd: 3 … 3 + passed - 1 */
} inherited;

/* 0 for a listening stream socket, else why it is not one. */
static int
check_listener(int fd, struct buf *error)
{
    int value = 0;
    socklen_t size = sizeof(value);

    if (fcntl(fd, F_GETFD) == -1) {
        buf_addf(error, "descriptor %d is not open", fd);
        return -EBADF;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &size) == -1) {
        buf_addf(error, "descriptor %d is not a socket", fd);
        return -ENOTSOCK;
    }
    if (value != SOCK_STREAM) {
        buf_addf(error, "descriptor %d is not a stream socket", fd);
        return -ESOCKTNOSUPPORT;
    }
    size = sizeof(value);
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &size) == -1 || value == 0) {
        buf_addf(error, "descriptor %d is a socket that does not listen", fd);
        return -EINVAL;
    }
    return 0;
}

static int
number_from(const char *variable)
{
    const char *text = getenv(variable);

    return text != NULL ? atoi(text) : 0;
}

static void
read_passed(void)
{
    if (number_from("LISTEN_PID") == (int)getpid()) {
        inherited.passed = number_from("LISTEN_FDS");
    }
}

void
inherited_collect(void)
{
    read_passed();
    for (int fd = FIRST_FD; fd < FD_COUNT_MAX; fd++) {
        struct buf ignored = {0};
        if (check_listener(fd, &ignored) == 0 && fd_set_cloexec(fd, true) == 0 &&
            fd_set_nonblock(fd, true) == 0) {
            inherited.is_listener[fd] = true;
        }
        buf_release(&ignored);
    }
}

void
inherited_restore(int fd)
{
    read_passed();
    if (fd >= FIRST_FD && fd < FD_COUNT_MAX) {
        inherited.is_listener[fd] = true;
    }
}

int
inherited_next(int after)
{
    for (int fd = after < FIRST_FD ? FIRST_FD : after + 1; fd < FD_COUNT_MAX; fd++) {
        if (inherited.is_listener[fd]) {
            return fd;
        }
    }
    return -1;
}

int
inherited_check(int fd, struct buf *error)
{
    if (fd >= FIRST_FD && fd < FD_COUNT_MAX && inherited.is_listener[fd]) {
        return 0;
    }
    int result = check_listener(fd, error);
    if (result == 0) {
        buf_addf(error, "descriptor %d is narwhal's own", fd);
        result = -EBUSY;
    }
    if (inherited.passed > 0) {
        buf_addf(error, "; LISTEN_FDS passed %d to %d", FIRST_FD, FIRST_FD + inherited.passed - 1);
    } else {
        buf_addf(error,
                 "; no socket was passed by LISTEN_FDS (a systemd .socket unit passes them)");
    }
    return result;
}
