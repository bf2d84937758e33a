/* SPDX-License-Identifier: Apache-2.0
 *
 * The lanes assigned to this worker: polling them and accepting. The sockets are the master's; a
 * worker holds a descriptor only while the lane is assigned to it.
 */
#pragma once

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

#include "config/base/list.h"

struct worker;

struct acceptor {
    struct list_node lanes; /* struct lane */
    ev_timer pause;         /* running while accepting rests after EMFILE and the like */
    bool paused;
    uint64_t turned_away;        /* since it was last told */
    int64_t turned_away_told_ms; /* when that was; once a second at most */
};

void acceptor_init(struct worker *worker);
/* Closes all lanes at once. */
void acceptor_release(struct worker *worker);
/* Takes fd and polls it. A lane that is already assigned keeps its place. */
void acceptor_assign(struct worker *worker, uint32_t lane, int fd);
/* Accepts what is queued (when nobody else will), then gives the lane up. */
void acceptor_revoke(struct worker *worker, uint32_t lane);
/* The same for all lanes. */
void acceptor_revoke_all(struct worker *worker);
