/* SPDX-License-Identifier: Apache-2.0
 *
 * A deadline that ends on time ends; one that the loop comes to late goes on once, as long as it
 * was late.
 */
#include <criterion/criterion.h>
#include <time.h>

#include "config/base/clock.h"
#include "master/patient_timer.h"

static unsigned int ends;

static void
on_end(struct ev_loop *loop, ev_timer *timer, int revents)
{
    (void)loop;
    (void)timer;
    (void)revents;
    ends++;
}

static void
wait_ms(int64_t ms)
{
    int64_t until_ms = clock_mono_ms() + ms;

    while (clock_mono_ms() < until_ms) {
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

Test(patient_timer, ends_on_time)
{
    struct ev_loop *loop = ev_loop_new(0);
    struct patient_timer timer;

    patient_timer_init(&timer, on_end);
    patient_timer_start(&timer, loop, clock_mono_ms() + 3600 * 1000);
    patient_timer_start(&timer, loop, clock_mono_ms() + 10); /* instead */
    (void)ev_run(loop, 0);
    cr_expect_eq(ends, 1);
    /* On a machine that is loaded it may be late, and then by no more than it was. */
    timer.at_ms = clock_mono_ms();
    cr_expect(!patient_timer_goes_on(&timer, loop));
    patient_timer_stop(&timer, loop);
    ev_loop_destroy(loop);
}

Test(patient_timer, goes_on_once_as_long_as_it_was_late)
{
    const int64_t late_ms = 4 * PATIENT_LATE_MS;
    struct ev_loop *loop = ev_loop_new(0);
    struct patient_timer timer;

    patient_timer_init(&timer, on_end);
    patient_timer_start(&timer, loop, clock_mono_ms() + 10);
    wait_ms(10 + late_ms);
    (void)ev_run(loop, EVRUN_ONCE);
    cr_expect_eq(ends, 1);
    cr_assert(patient_timer_goes_on(&timer, loop));
    int64_t left_ms = timer.at_ms - clock_mono_ms();
    cr_expect(left_ms > late_ms - PATIENT_LATE_MS, "%lld", (long long)left_ms);
    wait_ms(left_ms + late_ms);
    (void)ev_run(loop, EVRUN_ONCE);
    cr_expect_eq(ends, 2);
    cr_expect(!patient_timer_goes_on(&timer, loop), "late again, and still over");
    cr_expect(!ev_is_active(&timer.timer));
    ev_loop_destroy(loop);
}

Test(patient_timer, is_not_prolonged_without_bounds)
{
    struct ev_loop *loop = ev_loop_new(0);
    struct patient_timer timer;

    patient_timer_init(&timer, on_end);
    patient_timer_start(&timer, loop, clock_mono_ms() - 24 * 3600 * 1000);
    cr_assert(patient_timer_goes_on(&timer, loop));
    cr_expect(timer.at_ms - clock_mono_ms() <= PATIENT_LONGEST_MS);
    patient_timer_stop(&timer, loop);
    ev_loop_destroy(loop);
}
