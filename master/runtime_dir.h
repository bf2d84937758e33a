/* SPDX-License-Identifier: Apache-2.0
 *
 * The private folder of app instances' sockets: only the master and the identity that workers and
 * instances run as may enter. Its descriptor is locked for the master's life, so that two masters
 * with one runtime_dir do not take each other's sockets away, and so that systemd-tmpfiles(8) does
 * not clean in it. Runs in the master.
 */
#pragma once

#include <stdbool.h>

struct buf;
struct config;
struct identity;

struct runtime_dir {
    char *path;  /* owned; NULL: not made yet */
    int fd;      /* owned; of the folder, locked; -1: there is none */
    bool in_tmp; /* there is no parent to make again */
};

/* Makes the folder, if it is not made yet: below [master] runtime_dir, else below
 * $RUNTIME_DIRECTORY (systemd.exec(5)), else in /tmp. Makes it again at the same path when somebody
 * removed it meanwhile; what somebody else put there is refused. 0, or a negative errno with a
 * whole sentence in error; -EWOULDBLOCK: another master holds it. */
int runtime_dir_ensure(struct runtime_dir *dir, const struct config *config,
                       const struct identity *identity, struct buf *error);
/* Removes the folder when it is empty, as it is once every instance is gone. */
void runtime_dir_release(struct runtime_dir *dir);
