/* SPDX-License-Identifier: Apache-2.0
 *
 * Making, locking, making again and removing the folder of instance sockets. Invariant: path and fd
 * are set together, and fd has the lock of what was at path when it was opened. Runs in the master.
 */
#include "master/runtime_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/base/fd.h"
#include "config/base/log.h"
#include "config/config.h"
#include "master/identity.h"

#define PRIVATE_MODE 0700
/* A folder that is removed under us so often is not ours to use. */
#define ATTEMPTS_MAX 8

static bool
is_at(int fd, const char *path)
{
    struct stat here;
    struct stat there;

    return fd != -1 && fstat(fd, &here) == 0 && lstat(path, &there) == 0 &&
           here.st_dev == there.st_dev && here.st_ino == there.st_ino;
}

/* The process that has the lock, by /proc/locks (proc(5)); 0 when it cannot be seen from here. */
static int
lock_holder(int fd)
{
    struct stat st;
    char line[256];
    int found = 0;
    FILE *locks = fopen("/proc/locks", "re");

    if (locks == NULL) {
        return 0;
    }
    if (fstat(fd, &st) == 0) {
        while (found == 0 && fgets(line, sizeof(line), locks) != NULL) {
            int pid;
            unsigned int major_number;
            unsigned int minor_number;
            uint64_t inode;
            if (sscanf(line, "%*s FLOCK %*s %*s %d %x:%x:%" SCNu64, &pid, &major_number,
                       &minor_number, &inode) == 4 &&
                inode == st.st_ino && major_number == major(st.st_dev) &&
                minor_number == minor(st.st_dev) && pid > 0) {
                found = pid;
            }
        }
    }
    (void)fclose(locks);
    return found;
}

static void
explain_lock(int fd, const char *path, int error_number, struct buf *error)
{
    if (error_number != EWOULDBLOCK) {
        buf_addf(error, "cannot lock %s: %s", path, strerror(error_number));
        return;
    }
    int pid = lock_holder(fd);
    buf_addf(error, "another master, ");
    if (pid != 0) {
        buf_addf(error, "pid %d, ", pid);
    } else {
        buf_add_text(error, "which cannot be seen from here (try: lslocks), ");
    }
    buf_addf(error,
             "uses %s (exit status 73); stop it first, or give each its own runtime_dir=", path);
}

/* Owner and mode are set through a descriptor that refuses symbolic links, so that nobody can put
 * another folder in the way. */
static int
open_private(const char *path, const struct identity *identity, bool may_take_over, int *ret_fd,
             struct buf *error)
{
    struct stat st;
    int result = 0;

    if (mkdir(path, PRIVATE_MODE) == -1 && errno != EEXIST) {
        result = -errno;
        buf_addf(error, "cannot make %s: %s", path, strerror(-result));
        return result;
    }
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd == -1 || fstat(fd, &st) == -1) {
        result = -errno;
        buf_addf(error, "cannot open %s as a folder: %s", path, strerror(-result));
    } else if (st.st_uid != geteuid() && !(identity->drop && st.st_uid == identity->uid) &&
               !may_take_over) {
        result = -EPERM;
        buf_addf(error, "%s belongs to uid %u, not to narwhal; remove it", path,
                 (unsigned int)st.st_uid);
    } else if (flock(fd, LOCK_EX | LOCK_NB) == -1) {
        result = -errno;
        explain_lock(fd, path, -result, error);
    } else if (!is_at(fd, path)) {
        result = -ESTALE;
    } else if (fchmod(fd, PRIVATE_MODE) == -1 ||
               (identity->drop && fchown(fd, identity->uid, identity->gid) == -1)) {
        result = -errno;
        buf_addf(error, "cannot make %s private: %s", path, strerror(-result));
    }
    if (result != 0) {
        fd_close(&fd);
        return result;
    }
    *ret_fd = fd;
    return 0;
}

/* -ESTALE is the other side of runtime_dir_release(): a master that stops removes what we opened.
 */
static int
open_locked(const char *path, const struct identity *identity, bool may_take_over, int *ret_fd,
            struct buf *error)
{
    int result = -ESTALE;

    for (int i = 0; i < ATTEMPTS_MAX && result == -ESTALE; i++) {
        result = open_private(path, identity, may_take_over, ret_fd, error);
    }
    if (result == -ESTALE) {
        buf_addf(error, "%s is being removed all the time", path);
    }
    return result;
}

/* Where the folder goes, or NULL for a new one in /tmp. For free(). */
static char *
parent_folder(const struct config *config)
{
    const char *from_systemd = getenv("RUNTIME_DIRECTORY");

    if (config->master.runtime_dir_path != NULL) {
        return xstrdup(config->master.runtime_dir_path);
    }
    if (from_systemd != NULL && from_systemd[0] == '/') {
        return xstrndup(from_systemd, strcspn(from_systemd, ":")); /* a list: the first */
    }
    return NULL;
}

static int
make_parent(const char *parent, struct buf *error)
{
    if (mkdir(parent, 0755) == -1 && errno != EEXIST) {
        int result = -errno;
        buf_addf(error, "cannot make %s: %s", parent, strerror(-result));
        return result;
    }
    return 0;
}

static int
make_below(struct runtime_dir *dir, const char *parent, const struct identity *identity,
           struct buf *error)
{
    int result = make_parent(parent, error);

    if (result != 0) {
        return result;
    }
    char *path = xasprintf("%s/instances", parent);
    /* root may have run as another user before; the operator chose the folder above it. */
    result = open_locked(path, identity, geteuid() == 0, &dir->fd, error);
    if (result != 0) {
        free(path);
        return result;
    }
    dir->path = path;
    dir->in_tmp = false;
    return 0;
}

static int
make_in_tmp(struct runtime_dir *dir, const struct identity *identity, struct buf *error)
{
    char path[] = "/tmp/narwhal.XXXXXX";

    if (mkdtemp(path) == NULL) {
        int result = -errno;
        buf_addf(error, "cannot make %s: %s", path, strerror(-result));
        return result;
    }
    int result = open_locked(path, identity, false, &dir->fd, error);
    if (result != 0) {
        (void)rmdir(path);
        return result;
    }
    dir->path = xstrdup(path);
    dir->in_tmp = true;
    return 0;
}

/* Somebody removed it, as cleaners of /tmp do: the sockets in it are gone too, and each instance
 * gets a new one with its next life. */
static int
make_again(struct runtime_dir *dir, const struct identity *identity, struct buf *error)
{
    int fd = -1;
    int result = 0;

    if (!dir->in_tmp) {
        char *parent = xstrndup(dir->path, (size_t)(strrchr(dir->path, '/') - dir->path));
        result = make_parent(parent, error);
        free(parent);
    }
    if (result == 0) {
        result = open_locked(dir->path, identity, false, &fd, error);
    }
    if (result == 0) {
        fd_close(&dir->fd);
        dir->fd = fd;
        log_warn("the folder of instance sockets was removed by somebody and is made again path=%s",
                 dir->path);
    }
    return result;
}

int
runtime_dir_ensure(struct runtime_dir *dir, const struct config *config,
                   const struct identity *identity, struct buf *error)
{
    struct buf reason = {0};
    int result = 0;

    if (dir->path != NULL) {
        if (is_at(dir->fd, dir->path)) {
            return 0;
        }
        result = make_again(dir, identity, &reason);
    } else {
        char *parent = parent_folder(config);
        result = parent != NULL ? make_below(dir, parent, identity, &reason)
                                : make_in_tmp(dir, identity, &reason);
        free(parent);
    }
    if (result != 0) {
        buf_addf(error,
                 "%s: runtime_dir: there is no private folder for the sockets of app instances: %s",
                 config_origin(config, "master", NULL, "runtime_dir"), reason.ptr);
    }
    buf_release(&reason);
    return result;
}

void
runtime_dir_release(struct runtime_dir *dir)
{
    if (dir->path != NULL && is_at(dir->fd, dir->path)) {
        (void)rmdir(dir->path); /* not empty: an application left something of its own */
    }
    fd_close(&dir->fd);
    free(dir->path);
    dir->path = NULL;
}
