/* SPDX-License-Identifier: Apache-2.0
 *
 * Workers that make no progress: one turn of their loop lasts longer than [master] timeout. An
 * idle worker is not one of them; it never has to wake up to say that it lives. Runs in the master.
 */
#pragma once

#include <ev.h>
#include <stdint.h>

struct master;

struct hang_watch {
    ev_timer timer;
    int64_t expected_ms; /* when the timer should fire next */
};

void hang_watch_start(struct master *master);
void hang_watch_stop(struct master *master);
