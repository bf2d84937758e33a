/* SPDX-License-Identifier: Apache-2.0
 *
 * The file with the master's pid. A lock on it says who is the master, not the number in it: that
 * may be of a process long gone, or reused by a stranger. Runs in the master.
 */
#pragma once

struct buf;

struct pidfile {
    int fd;     /* owned, locked; -1: none */
    char *path; /* owned */
};

/* Locks path and writes our pid. 0, or a negative errno with a text in error; -EWOULDBLOCK: the
 * master of that pid file lives. */
int pidfile_open(struct pidfile *pidfile, const char *path, struct buf *error);
/* Removes the file, if it is still ours, and the lock. */
void pidfile_close(struct pidfile *pidfile);
