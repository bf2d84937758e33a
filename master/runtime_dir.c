/* SPDX-License-Identifier: Apache-2.0
 *
 * Making and removing the folder of instance sockets.
 */
#include "master/runtime_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/base/fd.h"
#include "config/config.h"
#include "master/identity.h"

#define PRIVATE_MODE 0700

/* Owner and mode are set through a descriptor that refuses symbolic links, so that nobody can put
 * another folder in the way. */
static int
make_private(const char *path, const struct identity *identity)
{
    if (mkdir(path, PRIVATE_MODE) == -1 && errno != EEXIST) {
        return -errno;
    }
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd == -1) {
        return -errno;
    }
    int result = 0;
    if (fchmod(fd, PRIVATE_MODE) == -1 ||
        (identity->drop && fchown(fd, identity->uid, identity->gid) == -1)) {
        result = -errno;
    }
    fd_close(&fd);
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
ensure_below(const char *parent, const struct identity *identity, char **ret_path)
{
    if (mkdir(parent, 0755) == -1 && errno != EEXIST) {
        return -errno;
    }
    char *path = xasprintf("%s/instances", parent);
    int result = make_private(path, identity);
    if (result != 0) {
        free(path);
        return result;
    }
    *ret_path = path;
    return 0;
}

static int
make_in_tmp(const struct identity *identity, char **ret_path)
{
    char path[] = "/tmp/narwhal.XXXXXX";

    if (mkdtemp(path) == NULL) {
        return -errno;
    }
    int result = make_private(path, identity);
    if (result != 0) {
        (void)rmdir(path);
        return result;
    }
    *ret_path = xstrdup(path);
    return 0;
}

int
runtime_dir_ensure(struct runtime_dir *dir, const struct config *config,
                   const struct identity *identity, struct buf *error)
{
    if (dir->path != NULL) {
        return 0;
    }
    char *parent = parent_folder(config);
    int result = parent != NULL ? ensure_below(parent, identity, &dir->path)
                                : make_in_tmp(identity, &dir->path);
    if (result != 0) {
        buf_addf(error,
                 "%s: runtime_dir: cannot make a private folder in %s for the sockets of app "
                 "instances: %s",
                 config_origin(config, "master", NULL, "runtime_dir"),
                 parent != NULL ? parent : "/tmp", strerror(-result));
    }
    free(parent);
    return result;
}

void
runtime_dir_release(struct runtime_dir *dir)
{
    if (dir->path != NULL) {
        (void)rmdir(dir->path); /* not empty: an application left something of its own */
        free(dir->path);
        dir->path = NULL;
    }
}
