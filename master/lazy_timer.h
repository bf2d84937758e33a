/* SPDX-License-Identifier: Apache-2.0
 *
 * A repeated look that may be late by a quarter: it is done when the master wakes up for something
 * else, and only when nothing did it wakes up itself. So an idle master with many looks does not
 * wake up more often than with the most frequent one. Runs in the master.
 */
#pragma once

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

struct lazy_timer {
    ev_timer latest;
    int64_t interval_ms; /* 0: it does not run */
    int64_t next_ms;
};

void lazy_timer_init(struct lazy_timer *timer);
/* Starts it; one that runs with that interval goes on. */
void lazy_timer_start(struct lazy_timer *timer, struct ev_loop *loop, int64_t interval_ms);
void lazy_timer_stop(struct lazy_timer *timer, struct ev_loop *loop);
/* To be asked whenever the loop is about to wait. True: the look is due, and the next one counts
 * from now. */
bool lazy_timer_take(struct lazy_timer *timer, struct ev_loop *loop);
