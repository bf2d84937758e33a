/* SPDX-License-Identifier: Apache-2.0
 *
 * See lazy_timer.h. Runs in the master.
 */
#include "master/lazy_timer.h"

#include "config/base/clock.h"

static void
on_latest(struct ev_loop *loop, ev_timer *timer, int revents)
{
    (void)loop;
    (void)timer;
    (void)revents; /* to be awake is all: lazy_timer_take() is asked next */
}

static void
arm(struct lazy_timer *timer, struct ev_loop *loop)
{
    int64_t latest_ms = timer->interval_ms + timer->interval_ms / 4;

    timer->next_ms = clock_mono_ms() + timer->interval_ms;
    ev_now_update(loop);
    ev_timer_stop(loop, &timer->latest);
    ev_timer_set(&timer->latest, ms_to_seconds(latest_ms), 0.);
    ev_timer_start(loop, &timer->latest);
}

void
lazy_timer_init(struct lazy_timer *timer)
{
    *timer = (struct lazy_timer){.interval_ms = 0};
    ev_timer_init(&timer->latest, on_latest, 0., 0.);
}

void
lazy_timer_start(struct lazy_timer *timer, struct ev_loop *loop, int64_t interval_ms)
{
    if (timer->interval_ms != interval_ms) {
        timer->interval_ms = interval_ms;
        arm(timer, loop);
    }
}

void
lazy_timer_stop(struct lazy_timer *timer, struct ev_loop *loop)
{
    timer->interval_ms = 0;
    ev_timer_stop(loop, &timer->latest);
}

bool
lazy_timer_take(struct lazy_timer *timer, struct ev_loop *loop)
{
    if (timer->interval_ms == 0 || clock_mono_ms() < timer->next_ms) {
        return false;
    }
    arm(timer, loop);
    return true;
}
