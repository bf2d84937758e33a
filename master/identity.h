/* SPDX-License-Identifier: Apache-2.0
 *
 * Who workers and app instances run as. The master resolves the names (also the list of groups, so
 * that nothing is looked up after fork) and the child takes the identity on, and with it the end of
 * all privileges.
 */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct buf;
struct config;

#define IDENTITY_GROUPS_MAX 256
#define IDENTITY_NAME_MAX 256

struct identity {
    bool drop; /* false: the master's own; nothing is changed */
    bool change_user;
    mode_t umask;
    mode_t socket_mode; /* of unix sockets for clients, whose owner is the identity */
    uid_t uid;          /* of a changed user, else the master's */
    gid_t gid;
    size_t group_count;
    gid_t groups[IDENTITY_GROUPS_MAX];
    char name[IDENTITY_NAME_MAX]; /* of a changed user; the number when it has no entry */
    char home[PATH_MAX];          /* of a changed user; "/" when it has no entry */
};

/* Resolves [master] user and group. 0, or -EINVAL with a whole sentence added to error. */
int identity_resolve(const struct config *config, struct identity *ret_identity, struct buf *error);
/* Takes the identity on for good, groups first. Who is not root then has no capability in any set,
 * those that service managers hand on included. With new_privileges false there is no way back
 * either (PR_SET_NO_NEW_PRIVS, an empty bounding set); with true programs with set-user-ID work. In
 * a child. 0 or a negative errno. */
int identity_take(const struct identity *identity, bool new_privileges);
