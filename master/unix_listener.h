/* SPDX-License-Identifier: Apache-2.0
 *
 * A listening unix socket with a path: of a lane, of an app instance, of the control channel. The
 * path belongs to us only while it is the node that we made. Runs in the master.
 */
#pragma once

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/un.h>

struct buf;

struct unix_listener {
    int fd;    /* owned; -1: closed */
    dev_t dev; /* of the node at path */
    ino_t ino;
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
};

struct unix_listener_options {
    mode_t mode;
    bool change_owner;
    uid_t uid;
    gid_t gid;
    int backlog;
    bool blocking; /* for a program that does not expect O_NONBLOCK; the master never accepts */
    bool in_place; /* bound at path itself: a program that asks for the name shall see that one */
};

/* Makes path a listening socket, in place of a stale one; one that somebody listens on is never
 * taken. The node appears complete (bound, listening, mode, owner) by a rename, unless in_place.
 * 0 or a negative errno with a text in error. */
int unix_listener_open(struct unix_listener *ret_listener, const char *path,
                       const struct unix_listener_options *options, struct buf *error);
/* Gives the node of one that was opened before the mode, owner and group of the options. 0, -ESTALE
 * when path is another node by now, or another negative errno. */
int unix_listener_set_access(const struct unix_listener *listener,
                             const struct unix_listener_options *options);
/* Whether path is still the node that we made. */
bool unix_listener_is_ours(const struct unix_listener *listener);
/* Closes the socket and removes the node if it is still ours. */
void unix_listener_close(struct unix_listener *listener);
