/* SPDX-License-Identifier: Apache-2.0
 *
 * A master that never was root has the user of its children, so the user alone does not tell an
 * operator from a worker that was taken over. Of a worker and the resolver the pid does: their
 * sandbox lets them neither fork nor execute. App instances are refused with all that they start,
 * because under a root master they are as well (by their user), and what faces strangers has no
 * business with orders; for them it is a fence and no wall, since code of the same user that forks
 * twice is nobody's child, and could signal the master anyway. Runs in the master.
 */
#include "master/control_peer.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "config/base/fd.h"
#include "master/child.h"
#include "master/master.h"

/* Generations of processes between an instance and the client that are looked at. */
#define ANCESTORS_MAX 32

pid_t
control_peer_parse_parent(const char *stat)
{
    /* The name in parentheses may have parentheses and blanks itself: the last one ends it. */
    const char *end = strrchr(stat, ')');
    int parent = 0;

    return end != NULL && sscanf(end, ") %*c %d", &parent) == 1 && parent > 0 ? parent : 0;
}

static pid_t
parent_of(pid_t pid)
{
    char path[32];
    char text[1024];

    (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    return fd_read_text(path, text, sizeof(text)) ? control_peer_parse_parent(text) : 0;
}

static const struct child *
child_of_line(struct master *master, pid_t pid)
{
    for (int i = 0; i < ANCESTORS_MAX && pid > 1 && pid != master->pid; i++) {
        const struct child *child = child_by_pid(master, pid);
        if (child != NULL) {
            return child;
        }
        pid = parent_of(pid);
    }
    return NULL;
}

void
control_peer_judge(struct master *master, int fd, struct control_peer *ret_peer)
{
    struct ucred credentials;
    socklen_t size = sizeof(credentials);

    *ret_peer = (struct control_peer){.uid = (uid_t)-1};
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) == -1) {
        ret_peer->why = "the kernel does not say who you are";
        return;
    }
    ret_peer->pid = credentials.pid;
    ret_peer->uid = credentials.uid;
    if (credentials.uid != 0 && credentials.uid != geteuid()) {
        ret_peer->why = "only root and the user that narwhal runs as may use the control socket";
        return;
    }
    if (credentials.pid == 0 || credentials.uid != geteuid()) {
        return; /* out of this container, or root, which no child of this master can be */
    }
    const struct child *child = child_of_line(master, credentials.pid);
    if (child != NULL) {
        ret_peer->child = child->name;
        ret_peer->why = "a process that narwhal started may not use the control socket";
    } else if (kill(credentials.pid, 0) == -1 && errno == ESRCH) {
        /* It left orders and went, and may have been a worker that is reaped by now. */
        ret_peer->why = "the client is gone: stay until the answer is there";
    }
}
