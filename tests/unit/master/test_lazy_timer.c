/* SPDX-License-Identifier: Apache-2.0
 *
 * A look that may be late: not before its time, with somebody else's wake-up after it, by itself a
 * quarter later.
 */
#include <criterion/criterion.h>
#include <time.h>

#include "config/base/clock.h"
#include "master/lazy_timer.h"

#define INTERVAL_MS 80

static void
wait_until_ms(int64_t until_ms)
{
    while (clock_mono_ms() < until_ms) {
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

Test(lazy_timer, is_taken_by_any_wake_up_once_it_is_due)
{
    struct ev_loop *loop = ev_loop_new(0);
    struct lazy_timer timer;

    lazy_timer_init(&timer);
    cr_expect(!lazy_timer_take(&timer, loop), "it does not run");
    int64_t before_ms = clock_mono_ms();
    lazy_timer_start(&timer, loop, INTERVAL_MS);
    bool early = lazy_timer_take(&timer, loop);
    cr_expect(!early || clock_mono_ms() - before_ms >= INTERVAL_MS);
    wait_until_ms(clock_mono_ms() + INTERVAL_MS);
    lazy_timer_start(&timer, loop, INTERVAL_MS); /* goes on, does not begin anew */
    cr_expect(lazy_timer_take(&timer, loop));
    before_ms = clock_mono_ms();
    early = lazy_timer_take(&timer, loop);
    cr_expect(!early || clock_mono_ms() - before_ms >= INTERVAL_MS, "counted from the last look");
    lazy_timer_stop(&timer, loop);
    wait_until_ms(clock_mono_ms() + INTERVAL_MS);
    cr_expect(!lazy_timer_take(&timer, loop));
    ev_loop_destroy(loop);
}

Test(lazy_timer, wakes_up_by_itself_a_quarter_later)
{
    struct ev_loop *loop = ev_loop_new(0);
    struct lazy_timer timer;

    lazy_timer_init(&timer);
    lazy_timer_start(&timer, loop, INTERVAL_MS);
    int64_t before_ms = clock_mono_ms();
    (void)ev_run(loop, EVRUN_ONCE);
    /* libev may be early by its own clock's granularity, never by the quarter. */
    cr_expect(clock_mono_ms() - before_ms >= INTERVAL_MS);
    cr_expect(lazy_timer_take(&timer, loop));
    lazy_timer_stop(&timer, loop);
    ev_loop_destroy(loop);
}
