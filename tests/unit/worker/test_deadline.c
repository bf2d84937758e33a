/* SPDX-License-Identifier: Apache-2.0
 *
 * Deadlines: due when they are due, cheap to move. Times are given by hand, and the timer is fired
 * by hand, but for the last test.
 */
#include <criterion/criterion.h>

#include "config/base/clock.h"
#include "worker/deadline.h"

static struct ev_loop *loop;
static struct deadline deadline;
static int64_t now_ms;
static unsigned int called;
static unsigned int due;

static void
on_deadline(struct ev_loop *of, ev_timer *timer, int revents)
{
    called++;
    cr_assert_eq(timer, &deadline.timer);
    cr_assert(revents & EV_TIMER);
    if (deadline_is_due(&deadline, of, now_ms)) {
        due++;
    }
}

static void
start(void)
{
    loop = ev_loop_new(0);
    cr_assert_not_null(loop);
    deadline_init(&deadline, on_deadline);
    now_ms = 1000000;
}

static void
stop(void)
{
    deadline_stop(&deadline, loop);
    ev_loop_destroy(loop);
}

TestSuite(deadline, .init = start, .fini = stop);

/* What libev does when the timer expires: it stops one that does not repeat, then calls. */
static void
fire_at(int64_t at_ms)
{
    now_ms = at_ms;
    cr_assert(ev_is_active(&deadline.timer));
    ev_timer_stop(loop, &deadline.timer);
    ev_invoke(loop, &deadline.timer, EV_TIMER);
}

/* When the timer will fire, seen from now. */
static void
expect_timer_in(int64_t ms)
{
    cr_assert(ev_is_active(&deadline.timer));
    cr_assert_float_eq(ev_timer_remaining(loop, &deadline.timer), (double)ms / 1000.0, 0.5e-3);
}

Test(deadline, is_born_without_a_timer)
{
    cr_assert_not(ev_is_active(&deadline.timer));
    cr_assert_not(deadline_is_due(&deadline, loop, INT64_MAX - 1));
    cr_assert_not(ev_is_active(&deadline.timer));
}

Test(deadline, is_due_from_its_millisecond_on)
{
    deadline_set(&deadline, loop, now_ms, 500);
    expect_timer_in(500);
    cr_assert_not(deadline_is_due(&deadline, loop, now_ms + 499));
    cr_assert(deadline_is_due(&deadline, loop, now_ms + 500));
    cr_assert(deadline_is_due(&deadline, loop, now_ms + 501));
}

Test(deadline, firing_when_due)
{
    deadline_set(&deadline, loop, now_ms, 500);
    fire_at(now_ms + 500);
    cr_assert_eq(called, 1);
    cr_assert_eq(due, 1);
    cr_assert_not(ev_is_active(&deadline.timer));
}

Test(deadline, moving_it_later_touches_no_timer)
{
    deadline_set(&deadline, loop, now_ms, 500);
    double before = ev_timer_remaining(loop, &deadline.timer);
    for (int64_t i = 1; i <= 100; i++) {
        deadline_set(&deadline, loop, now_ms + i, 500);
        cr_assert_eq(deadline.scheduled_ms, now_ms + 500);
    }
    cr_assert_float_eq(ev_timer_remaining(loop, &deadline.timer), before, 1e-9);

    fire_at(now_ms + 500); /* 100 ms too early: starts again for the rest */
    cr_assert_eq(called, 1);
    cr_assert_eq(due, 0);
    expect_timer_in(100);
    fire_at(now_ms + 100);
    cr_assert_eq(due, 1);
}

Test(deadline, moving_it_earlier_moves_the_timer)
{
    deadline_set(&deadline, loop, now_ms, 5000);
    deadline_set(&deadline, loop, now_ms + 10, 40);
    expect_timer_in(40);
    fire_at(now_ms + 50);
    cr_assert_eq(due, 1);
}

Test(deadline, later_and_earlier_again_is_not_late)
{
    deadline_set(&deadline, loop, now_ms, 1000);
    deadline_set(&deadline, loop, now_ms, 9000); /* the timer stays at 1000 */
    deadline_set(&deadline, loop, now_ms, 2000); /* and so it may, once more */
    cr_assert_eq(deadline.scheduled_ms, now_ms + 1000);
    fire_at(now_ms + 1000);
    cr_assert_eq(due, 0);
    expect_timer_in(1000);
    deadline_set(&deadline, loop, now_ms, 300);
    expect_timer_in(300);
    fire_at(now_ms + 300);
    cr_assert_eq(due, 1);
}

Test(deadline, one_that_has_passed_is_due_at_once)
{
    deadline_set(&deadline, loop, now_ms, 0);
    expect_timer_in(0);
    fire_at(now_ms);
    cr_assert_eq(due, 1);
    deadline_set(&deadline, loop, now_ms, -50);
    expect_timer_in(0);
    fire_at(now_ms);
    cr_assert_eq(due, 2);
}

Test(deadline, a_cleared_one_fires_once_at_most_and_is_not_due)
{
    deadline_set(&deadline, loop, now_ms, 500);
    deadline_clear(&deadline);
    cr_assert(ev_is_active(&deadline.timer)); /* clearing is a store too */
    fire_at(now_ms + 500);
    cr_assert_eq(called, 1);
    cr_assert_eq(due, 0);
    cr_assert_not(ev_is_active(&deadline.timer));
    deadline_set(&deadline, loop, now_ms, 20);
    expect_timer_in(20);
    fire_at(now_ms + 20);
    cr_assert_eq(due, 1);
}

Test(deadline, set_after_clear_uses_the_running_timer_if_it_is_early_enough)
{
    deadline_set(&deadline, loop, now_ms, 500);
    deadline_clear(&deadline);
    deadline_set(&deadline, loop, now_ms, 800);
    cr_assert_eq(deadline.scheduled_ms, now_ms + 500);
    deadline_clear(&deadline);
    deadline_set(&deadline, loop, now_ms, 100);
    expect_timer_in(100);
}

Test(deadline, a_stopped_one_leaves_nothing_in_the_loop)
{
    deadline_set(&deadline, loop, now_ms, 500);
    deadline_stop(&deadline, loop);
    cr_assert_not(ev_is_active(&deadline.timer));
    cr_assert_not(deadline_is_due(&deadline, loop, now_ms + 10000));
    deadline_stop(&deadline, loop);
    deadline_set(&deadline, loop, now_ms, 500);
    expect_timer_in(500);
}

/* ---- with a real clock ---------------------------------------------------------------------- */

static int64_t due_at_ms;

static void
on_real_deadline(struct ev_loop *of, ev_timer *timer, int revents)
{
    (void)timer;
    (void)revents;
    called++;
    if (deadline_is_due(&deadline, of, clock_mono_ms())) {
        due_at_ms = clock_mono_ms();
    }
}

Test(deadline, it_is_never_early)
{
    deadline_init(&deadline, on_real_deadline);
    int64_t start_ms = clock_mono_ms();
    deadline_set(&deadline, loop, start_ms, 10);
    deadline_set(&deadline, loop, start_ms, 30);
    while (ev_run(loop, EVRUN_ONCE)) {
    }
    cr_assert_geq(due_at_ms, start_ms + 30);
    cr_assert_geq(called, 2);
    cr_assert_leq(called, 4); /* it did not spin towards its time */
}
