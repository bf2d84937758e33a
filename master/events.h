/* SPDX-License-Identifier: Apache-2.0
 *
 * The live stream of `narwhalctl events`: deaths, states of children, orders of the operator,
 * health of servers, numbers of workers. Costs nothing while nobody listens. What the master does
 * itself is told when it happens; what workers write into the scoreboard is looked at, because they
 * tell nobody. Runs in the master.
 */
#pragma once

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "worker/scoreboard.h"

struct child;
struct master;
struct operation;

/* How often servers and workers are looked at. */
#define EVENTS_LOOK_MS 200

struct events {
    uint32_t listeners;
    ev_timer look;
    /* what was told, or seen before anybody listened */
    struct {
        uint32_t life;
        uint32_t state; /* enum board_state; BOARD_FREE: nothing to compare with */
        uint32_t wish;
        uint32_t finding;
        bool rests;
    } servers[BOARD_SERVERS_MAX];
    bool stalled[BOARD_SLOTS_MAX];
    uint32_t workers_wanted;
    int phase;
    bool paused;
};

void events_init(struct master *master);
void events_stop(struct master *master);
/* One more, or one less, listens. */
void events_listen(struct master *master, int more);

/* The state of a child changed, from before. */
void events_child(struct master *master, const struct child *child, const char *before);
/* A child died, and this is the complete record of it. */
void events_death(struct master *master, const struct board_death *record);
/* An operation began or ended. */
void events_operation(struct master *master, const struct operation *operation);
/* Something changed: tells what can be seen of it. */
void events_look(struct master *master);
