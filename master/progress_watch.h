/* SPDX-License-Identifier: Apache-2.0
 *
 * Looks at the workers' progress: siblings serve the lanes of one that stalls, one that hangs is
 * killed with the evidence in the log. Runs in the master.
 */
#pragma once

#include <ev.h>
#include <stdint.h>

struct master;

struct progress_watch {
    ev_timer timer;
    int64_t expected_ms; /* when the timer should fire next */
};

void progress_watch_start(struct master *master);
void progress_watch_stop(struct master *master);
/* Looks now: a child was stopped or continued. */
void progress_watch_look(struct master *master);
