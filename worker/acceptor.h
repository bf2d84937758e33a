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

/* Why connections were turned away, and how many since it was last told: once a second at most. */
struct turned_away {
    uint64_t count;
    int64_t told_ms;
};

struct acceptor {
    struct list_node lanes; /* struct lane */
    ev_timer pause;         /* running while accepting rests after EMFILE and the like */
    bool paused;
    int64_t exhausted_ms; /* when accepting last failed for want of something; 0: it works */
    struct turned_away all_in_use;  /* setting connections */
    struct turned_away client_full; /* setting connections_per_client */
    struct turned_away no_memory;
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
