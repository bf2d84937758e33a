/* SPDX-License-Identifier: Apache-2.0
 *
 * Which looks at a worker make it stalled, hung, or fine again. Looks come every 125 ms.
 */
#include <criterion/criterion.h>

#include "master/progress.h"

#define LOOK_MS 125
#define STALL_MS 250
#define TIMEOUT_MS 30000

static struct progress progress;
static struct progress_sample sample;

static void
begin(void)
{
    progress = (struct progress){0};
    sample = (struct progress_sample){.now_ms = 1000000};
}

TestSuite(progress, .init = begin);

static enum progress_verdict
look(void)
{
    sample.now_ms += LOOK_MS;
    return progress_judge(&progress, &sample, STALL_MS, TIMEOUT_MS);
}

/* Looks that all say the same for so long. */
static void
expect_for(enum progress_verdict verdict, int64_t ms)
{
    for (int64_t end_ms = sample.now_ms + ms; sample.now_ms < end_ms;) {
        enum progress_verdict found = look();
        cr_assert_eq(found, verdict, "%d, not %d, at %lld", (int)found, (int)verdict,
                     (long long)sample.now_ms);
    }
}

Test(progress, an_idle_worker_is_fine_for_ever)
{
    expect_for(PROGRESS_FINE, 10 * TIMEOUT_MS);
}

Test(progress, short_turns_are_fine)
{
    for (int i = 0; i < 1000; i++) {
        sample.turn_started_ms = sample.now_ms + LOOK_MS - STALL_MS;
        cr_assert_eq(look(), PROGRESS_FINE);
    }
}

Test(progress, a_long_turn_stalls_and_then_hangs)
{
    sample.turn_started_ms = sample.now_ms;
    cr_expect_eq(look(), PROGRESS_FINE);
    cr_expect_eq(look(), PROGRESS_FINE);
    cr_expect_eq(look(), PROGRESS_STALLED);
    cr_expect_eq(progress.stalled_since_ms, sample.turn_started_ms);
    expect_for(PROGRESS_STALLED, TIMEOUT_MS - 3 * LOOK_MS);
    cr_expect_eq(look(), PROGRESS_HUNG);
}

Test(progress, one_that_moves_again_proves_itself_first)
{
    sample.turn_started_ms = sample.now_ms;
    (void)look();
    (void)look();
    (void)look();
    sample.turn_started_ms = 0;
    cr_expect_eq(look(), PROGRESS_STALLED);
    cr_expect_eq(look(), PROGRESS_STALLED);
    cr_expect_eq(look(), PROGRESS_FINE);
}

Test(progress, one_slow_thing_after_the_other_is_one_stall_but_no_hang)
{
    for (int i = 0; i < 200; i++) {
        sample.turn_started_ms = sample.now_ms;
        (void)look();
        (void)look();
        cr_assert_eq(look(), PROGRESS_STALLED);
        cr_assert_eq(look(), PROGRESS_STALLED);
        sample.turn_started_ms = 0;
        cr_assert_eq(look(), PROGRESS_STALLED, "it has to prove itself");
    }
}

Test(progress, a_queue_counts_from_the_second_look_on)
{
    sample.queued = true;
    cr_expect_eq(look(), PROGRESS_FINE, "it may have come a moment ago");
    cr_expect_eq(look(), PROGRESS_STALLED);
    cr_expect_eq(progress.stall, PROGRESS_STALL_QUEUE);
}

Test(progress, a_queue_that_moves_is_fine)
{
    sample.queued = true;
    for (int i = 0; i < 1000; i++) {
        sample.accepted++;
        cr_assert_eq(look(), PROGRESS_FINE);
    }
}

Test(progress, a_queue_alone_never_hangs_and_is_tried_again)
{
    sample.queued = true;
    (void)look();
    (void)look();
    sample.queued = false; /* a sibling serves it */
    int64_t begin_ms = sample.now_ms;
    while (look() == PROGRESS_STALLED) {
        cr_assert_lt(sample.now_ms - begin_ms, TIMEOUT_MS);
    }
    cr_expect_geq(sample.now_ms - begin_ms, 5000);
}

Test(progress, accepting_ends_the_stall_of_a_queue)
{
    sample.queued = true;
    (void)look();
    (void)look();
    sample.queued = false;
    expect_for(PROGRESS_STALLED, 1000);
    sample.accepted++;
    expect_for(PROGRESS_STALLED, STALL_MS);
    cr_expect_eq(look(), PROGRESS_FINE);
}

Test(progress, a_stopped_one_stalls_at_once_and_hangs_in_the_end)
{
    sample.stopped = true;
    expect_for(PROGRESS_STALLED, TIMEOUT_MS + LOOK_MS);
    cr_expect_eq(look(), PROGRESS_HUNG);
}

Test(progress, a_continued_one_is_fine_again)
{
    sample.stopped = true;
    expect_for(PROGRESS_STALLED, 2000);
    sample.stopped = false;
    expect_for(PROGRESS_STALLED, STALL_MS);
    cr_expect_eq(look(), PROGRESS_FINE);
}

Test(progress, without_stall_timeout_only_the_timeout_counts)
{
    sample.turn_started_ms = sample.now_ms;
    for (int64_t end_ms = sample.now_ms + TIMEOUT_MS; sample.now_ms < end_ms;) {
        sample.now_ms += LOOK_MS;
        cr_assert_eq(progress_judge(&progress, &sample, 0, TIMEOUT_MS), PROGRESS_FINE);
    }
    sample.now_ms += LOOK_MS;
    cr_expect_eq(progress_judge(&progress, &sample, 0, TIMEOUT_MS), PROGRESS_HUNG);
}
