/* SPDX-License-Identifier: Apache-2.0
 *
 * The private folder of app instances' sockets: only the master and the identity that workers and
 * instances run as may enter. Runs in the master.
 */
#pragma once

struct buf;
struct config;
struct identity;

struct runtime_dir {
    char *path; /* owned; NULL: not made yet */
};

/* Makes the folder, if it is not made yet: below [master] runtime_dir, else below
 * $RUNTIME_DIRECTORY (systemd.exec(5)), else in /tmp. 0, or a negative errno with a whole sentence
 * in error. */
int runtime_dir_ensure(struct runtime_dir *dir, const struct config *config,
                       const struct identity *identity, struct buf *error);
/* Removes the folder when it is empty, as it is once every instance is gone. */
void runtime_dir_release(struct runtime_dir *dir);
