/* SPDX-License-Identifier: Apache-2.0
 *
 * Who may give orders over the control socket: root, and the user of the master, but no process
 * that the master started. Runs in the master.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

struct master;

struct control_peer {
    pid_t pid;         /* 0: of another pid namespace */
    uid_t uid;         /* (uid_t)-1: not known */
    const char *why;   /* it may not, a sentence; NULL: it may */
    const char *child; /* name of the one that it is, or that started it; NULL */
};

/* Asks the kernel who connected. Reads /proc, bounded. */
void control_peer_judge(struct master *master, int fd, struct control_peer *ret_peer);
/* The parent of a process, from the text of /proc/PID/stat (proc(5)); 0 when that is not it. */
pid_t control_peer_parse_parent(const char *stat);
