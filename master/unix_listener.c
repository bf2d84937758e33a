/* SPDX-License-Identifier: Apache-2.0
 *
 * Unix sockets with a path: replacing stale ones, never stealing live ones, removing only ours.
 */
#include "master/unix_listener.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "config/base/clock.h"
#include "config/base/fd.h"

/* Counted in time, not in attempts: on a busy machine who has the lock may be off its CPU for
 * longer than any number of looks takes. */
#define LOCK_WAIT_MS 500

static int
unix_address(const char *path, struct sockaddr_un *ret_address)
{
    *ret_address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(ret_address->sun_path)) {
        return -ENAMETOOLONG;
    }
    strcpy(ret_address->sun_path, path);
    return 0;
}

/* What stands at path: 0 nothing or a socket that nobody listens on, else a negative errno. */
static int
probe(const struct sockaddr_un *address, struct buf *error)
{
    struct stat st;

    if (lstat(address->sun_path, &st) == -1) {
        if (errno == ENOENT) {
            return 0;
        }
        int result = -errno;
        buf_addf(error, "%s", strerror(-result));
        return result;
    }
    if (!S_ISSOCK(st.st_mode)) {
        buf_addf(error, "the path exists and is not a socket; remove it or choose another path");
        return -EEXIST;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd == -1) {
        int result = -errno;
        buf_addf(error, "socket: %s", strerror(-result));
        return result;
    }
    int result = connect(fd, (const struct sockaddr *)address, sizeof(*address)) == -1 ? -errno : 0;
    fd_close(&fd);
    /* EAGAIN: the queue of a living listener is full (unix(7)). */
    if (result == 0 || result == -EAGAIN || result == -EINPROGRESS) {
        buf_addf(error, "%s: another process listens on this socket", strerror(EADDRINUSE));
        return -EADDRINUSE;
    }
    if (result == -ECONNREFUSED || result == -ENOENT) {
        return 0;
    }
    buf_addf(error, "cannot see whether somebody listens on this socket: %s", strerror(-result));
    return result;
}

/* A name in the same folder, so that rename() can replace the old node in one step. */
static void
temporary_path(const char *path, char *ret_path, size_t size)
{
    const char *slash = strrchr(path, '/');
    int folder = slash != NULL ? (int)(slash - path) + 1 : 0;
    int n = snprintf(ret_path, size, "%.*s.nw%d", folder, path, (int)getpid());

    if (n < 0 || (size_t)n >= size) {
        ret_path[0] = '\0';
    }
}

/* Two masters that start together could both find the same stale node, and the second would replace
 * the first one's live socket. So looking and replacing are one step, under a lock on the folder,
 * which is held for as long as that takes. Who holds it for half a second is none of us: then, and
 * where the folder cannot be opened or locked, the look before has to be enough; waiting for ever
 * would stop the master. Returns a descriptor, or -1. */
static int
lock_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    char folder[sizeof(((struct sockaddr_un *)0)->sun_path)] = ".";

    if (slash != NULL) {
        size_t length = slash > path ? (size_t)(slash - path) : 1;
        memcpy(folder, path, length);
        folder[length] = '\0';
    }
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int64_t until_ms = clock_mono_ms() + LOCK_WAIT_MS;
    while (fd != -1 && flock(fd, LOCK_EX | LOCK_NB) == -1 && errno == EWOULDBLOCK &&
           clock_mono_ms() < until_ms) {
        (void)sched_yield();
    }
    return fd;
}

static int
bind_and_listen(struct unix_listener *listener, const struct sockaddr_un *address,
                const struct unix_listener_options *options)
{
    struct stat st;

    (void)unlink(address->sun_path); /* stale; a failure shows in bind() */
    mode_t before = umask(0777 & ~options->mode);
    int result = bind(listener->fd, (const struct sockaddr *)address, sizeof(*address));
    int bind_errno = errno;
    (void)umask(before);
    if (result == -1) {
        return -bind_errno;
    }
    if ((options->change_owner && lchown(address->sun_path, options->uid, options->gid) == -1) ||
        listen(listener->fd, options->backlog) == -1 || lstat(address->sun_path, &st) == -1) {
        result = -errno;
        (void)unlink(address->sun_path);
        return result;
    }
    listener->dev = st.st_dev;
    listener->ino = st.st_ino;
    return 0;
}

static int
open_locked(struct unix_listener *ret_listener, const char *path,
            const struct unix_listener_options *options, struct buf *error)
{
    struct unix_listener listener = {.fd = -1};
    struct sockaddr_un address;
    struct sockaddr_un temporary;
    int result = unix_address(path, &address);

    if (result != 0) {
        buf_addf(error, "the path is longer than the %zu bytes that a unix socket may have",
                 sizeof(address.sun_path) - 1);
        return result;
    }
    result = probe(&address, error);
    if (result != 0) {
        return result;
    }
    strcpy(listener.path, path);
    listener.fd =
        socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (options->blocking ? 0 : SOCK_NONBLOCK), 0);
    if (listener.fd == -1) {
        result = -errno;
        buf_addf(error, "socket: %s", strerror(-result));
        return result;
    }
    temporary = address;
    temporary_path(path, temporary.sun_path, sizeof(temporary.sun_path));
    bool direct = options->in_place || temporary.sun_path[0] == '\0';
    result = bind_and_listen(&listener, direct ? &address : &temporary, options);
    if (result == 0 && !direct && rename(temporary.sun_path, path) == -1) {
        result = -errno;
        (void)unlink(temporary.sun_path);
    }
    if (result != 0) {
        buf_addf(error, "%s", strerror(-result));
        fd_close(&listener.fd);
        return result;
    }
    *ret_listener = listener;
    return 0;
}

int
unix_listener_open(struct unix_listener *ret_listener, const char *path,
                   const struct unix_listener_options *options, struct buf *error)
{
    /* in_place: in a folder that is ours alone. */
    int lock_fd = options->in_place ? -1 : lock_folder(path);
    int result = open_locked(ret_listener, path, options, error);

    fd_close(&lock_fd);
    return result;
}

bool
unix_listener_is_ours(const struct unix_listener *listener)
{
    struct stat st;

    return listener->fd != -1 && lstat(listener->path, &st) == 0 && st.st_dev == listener->dev &&
           st.st_ino == listener->ino;
}

int
unix_listener_set_access(const struct unix_listener *listener,
                         const struct unix_listener_options *options)
{
    /* By a descriptor of the node, or whoever may write to the folder could put another one there
     * between the look and the change. */
    int fd = open(listener->path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    char self[32];
    struct stat st;
    uid_t uid = options->change_owner ? options->uid : geteuid();
    int result = 0;

    if (fd == -1) {
        return -errno;
    }
    if (fstat(fd, &st) == -1) {
        result = -errno;
    } else if (st.st_dev != listener->dev || st.st_ino != listener->ino) {
        result = -ESTALE;
    }
    /* Without change_owner the group is that of the process, or of the folder (set-group-ID). */
    gid_t gid = options->change_owner ? options->gid : st.st_gid;
    if (result == 0 && (st.st_uid != uid || st.st_gid != gid) &&
        fchownat(fd, "", uid, gid, AT_EMPTY_PATH) == -1) {
        result = -errno;
    }
    /* fchmod(2) does not take such a descriptor. */
    (void)snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
    if (result == 0 && (st.st_mode & 07777) != options->mode && chmod(self, options->mode) == -1) {
        result = -errno;
    }
    fd_close(&fd);
    return result;
}

void
unix_listener_close(struct unix_listener *listener)
{
    if (unix_listener_is_ours(listener)) {
        (void)unlink(listener->path); /* gone already, or not ours to remove: nothing is lost */
    }
    fd_close(&listener->fd);
}
