/* SPDX-License-Identifier: Apache-2.0
 *
 * The locked pid file. The lock belongs to the open file (flock(2)), which only the master has:
 * workers close it after fork and app instances lose it at exec.
 */
#include "master/pidfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/base/fd.h"

/* A file that is replaced under us so often is not a pid file. */
#define ATTEMPTS_MAX 8

static bool
is_at(int fd, const char *path)
{
    struct stat here;
    struct stat there;

    return fstat(fd, &here) == 0 && stat(path, &there) == 0 && here.st_dev == there.st_dev &&
           here.st_ino == there.st_ino;
}

static void
add_holder(int fd, struct buf *error)
{
    char text[32] = "";
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
    long pid = n > 0 ? strtol(text, NULL, 10) : 0;

    buf_addf(error, "another master is running");
    if (pid > 0) {
        buf_addf(error, " with pid %ld", pid);
    }
    buf_addf(error, " and holds this pid file; stop it first or use another pidfile=");
}

/* Opens and locks what is at path now. -ESTALE: it was replaced meanwhile. */
static int
open_locked(const char *path, int *ret_fd, struct buf *error)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
    int result = 0;

    if (fd == -1) {
        result = -errno;
        buf_addf(error, "%s", strerror(-result));
        return result;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) == -1) {
        result = -errno;
        if (result == -EWOULDBLOCK) {
            add_holder(fd, error);
        } else {
            buf_addf(error, "cannot lock it: %s", strerror(-result));
        }
    } else if (!is_at(fd, path)) {
        result = -ESTALE;
    }
    if (result != 0) {
        fd_close(&fd);
        return result;
    }
    *ret_fd = fd;
    return 0;
}

int
pidfile_open(struct pidfile *pidfile, const char *path, struct buf *error)
{
    int fd = -1;
    int result = -ESTALE;
    char text[32];

    for (int i = 0; i < ATTEMPTS_MAX && result == -ESTALE; i++) {
        result = open_locked(path, &fd, error);
    }
    if (result == -ESTALE) {
        buf_addf(error, "the file is being replaced all the time");
    }
    if (result != 0) {
        return result;
    }
    int length = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    if (ftruncate(fd, 0) == -1) {
        result = -errno;
    } else {
        result = fd_write_all(fd, text, (size_t)length);
    }
    if (result != 0) {
        buf_addf(error, "cannot write it: %s", strerror(-result));
        fd_close(&fd);
        return result;
    }
    pidfile->fd = fd;
    pidfile->path = xstrdup(path);
    return 0;
}

void
pidfile_close(struct pidfile *pidfile)
{
    if (pidfile->fd != -1 && is_at(pidfile->fd, pidfile->path)) {
        (void)unlink(pidfile->path); /* the lock goes too: a file left behind is a stale one */
    }
    fd_close(&pidfile->fd);
    free(pidfile->path);
    pidfile->path = NULL;
}
