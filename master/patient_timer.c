/* SPDX-License-Identifier: Apache-2.0
 *
 * See patient_timer.h. Runs in the master.
 */
#include "master/patient_timer.h"

#include "config/base/clock.h"

static void
arm(struct patient_timer *timer, struct ev_loop *loop)
{
    int64_t left_ms = timer->at_ms - clock_mono_ms();

    /* Counted from now, not from when this turn of the loop began. */
    ev_now_update(loop);
    ev_timer_stop(loop, &timer->timer);
    ev_timer_set(&timer->timer, ms_to_seconds(left_ms > 0 ? left_ms : 0), 0.);
    ev_timer_start(loop, &timer->timer);
}

void
patient_timer_init(struct patient_timer *timer,
                   void (*on_end)(struct ev_loop *loop, ev_timer *timer, int revents))
{
    timer->at_ms = 0;
    timer->prolonged = false;
    ev_timer_init(&timer->timer, on_end, 0., 0.);
}

void
patient_timer_start(struct patient_timer *timer, struct ev_loop *loop, int64_t at_ms)
{
    timer->at_ms = at_ms;
    timer->prolonged = false;
    arm(timer, loop);
}

void
patient_timer_stop(struct patient_timer *timer, struct ev_loop *loop)
{
    ev_timer_stop(loop, &timer->timer);
}

bool
patient_timer_goes_on(struct patient_timer *timer, struct ev_loop *loop)
{
    int64_t now_ms = clock_mono_ms();
    int64_t late_ms = now_ms - timer->at_ms;

    if (timer->prolonged || late_ms <= PATIENT_LATE_MS) {
        return false;
    }
    timer->prolonged = true;
    timer->at_ms = now_ms + (late_ms < PATIENT_LONGEST_MS ? late_ms : PATIENT_LONGEST_MS);
    arm(timer, loop);
    return true;
}
