/* SPDX-License-Identifier: Apache-2.0
 *
 * The adaptive number of workers on a simulated clock: thresholds, patience, bounds, and that it
 * comes to rest under any constant load.
 */
#include <criterion/criterion.h>

#include "master/adapt.h"

#define SECOND 1000

static const struct adapt_limits limits = {
    .min = 1, .max = 8, .grow_after_ms = 3 * SECOND, .shrink_after_ms = 60 * SECOND};

/* A load, in permille of one worker, spread evenly. */
static struct adapt_sample
even_load(int64_t now_ms, uint32_t workers, uint32_t load)
{
    uint32_t each = load / workers < 1000 ? load / workers : 1000;

    return (struct adapt_sample){.now_ms = now_ms,
                                 .workers = workers,
                                 .measured = workers,
                                 .least_permille = each,
                                 .sum_permille = each * workers};
}

/* Runs until the number changes or until_ms; returns when and to what. */
static int64_t
run(struct adapt *adapt, int64_t now_ms, int64_t until_ms, struct adapt_sample sample,
    struct adapt_verdict *ret_verdict)
{
    for (; now_ms <= until_ms; now_ms += SECOND) {
        sample.now_ms = now_ms;
        *ret_verdict = adapt_judge(adapt, &limits, &sample);
        if (ret_verdict->reason != ADAPT_STAY) {
            return now_ms;
        }
    }
    return now_ms;
}

Test(adapt, grows_by_one_when_all_were_busy_for_long_enough)
{
    struct adapt adapt = {0};
    struct adapt_verdict verdict;
    int64_t at_ms = run(&adapt, 0, 100 * SECOND, even_load(0, 2, 1600), &verdict);

    cr_expect_eq(at_ms, 3 * SECOND);
    cr_expect_eq(verdict.reason, ADAPT_BUSY);
    cr_expect_eq(verdict.wanted, 3);
    /* And not again before it was seen for as long. */
    at_ms = run(&adapt, 4 * SECOND, 100 * SECOND, even_load(0, 3, 2900), &verdict);
    cr_expect_eq(at_ms, 7 * SECOND);
    cr_expect_eq(verdict.wanted, 4);
}

Test(adapt, one_worker_that_is_not_busy_is_enough_to_stay)
{
    struct adapt adapt = {0};
    struct adapt_verdict verdict;
    struct adapt_sample sample = even_load(0, 2, 2000);

    sample.least_permille = 100;
    run(&adapt, 0, 100 * SECOND, sample, &verdict);
    cr_expect_eq(verdict.reason, ADAPT_STAY);
}

Test(adapt, a_pause_in_the_load_begins_the_count_anew)
{
    struct adapt adapt = {0};
    struct adapt_verdict verdict;

    run(&adapt, 0, 2 * SECOND, even_load(0, 1, 1000), &verdict);
    run(&adapt, 3 * SECOND, 3 * SECOND, even_load(0, 1, 600), &verdict);
    int64_t at_ms = run(&adapt, 4 * SECOND, 100 * SECOND, even_load(0, 1, 1000), &verdict);
    cr_expect_eq(at_ms, 7 * SECOND);
}

Test(adapt, clients_that_wait_make_it_grow)
{
    struct adapt adapt = {0};
    struct adapt_verdict verdict;
    struct adapt_sample sample = even_load(0, 2, 200);

    sample.waiting = 1; /* passing by */
    run(&adapt, 0, 100 * SECOND, sample, &verdict);
    cr_expect_eq(verdict.reason, ADAPT_STAY);
    sample.waiting = 2;
    int64_t at_ms = run(&adapt, 200 * SECOND, 300 * SECOND, sample, &verdict);
    cr_expect_eq(at_ms, 203 * SECOND);
    cr_expect_eq(verdict.reason, ADAPT_WAITING);
    cr_expect_eq(verdict.wanted, 3);
}

Test(adapt, shrinks_by_one_when_the_rest_could_carry_the_load_for_a_minute)
{
    struct adapt adapt = {0};
    struct adapt_verdict verdict;
    int64_t at_ms = run(&adapt, 0, 200 * SECOND, even_load(0, 4, 1400), &verdict);

    cr_expect_eq(at_ms, 60 * SECOND);
    cr_expect_eq(verdict.reason, ADAPT_IDLE);
    cr_expect_eq(verdict.wanted, 3);
    run(&adapt, 100 * SECOND, 300 * SECOND, even_load(0, 4, 1600), &verdict);
    cr_expect_eq(verdict.reason, ADAPT_STAY, "three would be above one half");
}

Test(adapt, a_queue_keeps_it_from_shrinking)
{
    struct adapt adapt = {0};
    struct adapt_verdict verdict;
    struct adapt_sample sample = even_load(0, 4, 0);

    sample.waiting = 1;
    run(&adapt, 0, 300 * SECOND, sample, &verdict);
    cr_expect_eq(verdict.reason, ADAPT_STAY);
}

Test(adapt, bounds_hold_and_are_taken_at_once)
{
    struct adapt adapt = {0};
    struct adapt_verdict verdict;

    run(&adapt, 0, 100 * SECOND, even_load(0, 8, 8000), &verdict);
    cr_expect_eq(verdict.reason, ADAPT_STAY);
    run(&adapt, 0, 300 * SECOND, even_load(0, 1, 0), &verdict);
    cr_expect_eq(verdict.reason, ADAPT_STAY);
    cr_expect_eq(run(&adapt, 0, 0, even_load(0, 9, 0), &verdict), 0);
    cr_expect_eq(verdict.reason, ADAPT_BOUNDS);
    cr_expect_eq(verdict.wanted, 8);
    const struct adapt_limits two = {.min = 2, .max = 3};
    struct adapt_sample sample = even_load(0, 1, 0);
    verdict = adapt_judge(&adapt, &two, &sample);
    cr_expect(verdict.reason == ADAPT_BOUNDS && verdict.wanted == 2);
}

Test(adapt, nothing_is_judged_before_every_worker_was_measured)
{
    struct adapt adapt = {0};
    struct adapt_verdict verdict;
    struct adapt_sample sample = even_load(0, 2, 2000);

    sample.measured = 1;
    run(&adapt, 0, 100 * SECOND, sample, &verdict);
    cr_expect_eq(verdict.reason, ADAPT_STAY);
    sample.measured = 2;
    cr_expect_eq(run(&adapt, 101 * SECOND, 200 * SECOND, sample, &verdict), 104 * SECOND);
}

Test(adapt, comes_to_rest_under_any_constant_load)
{
    for (uint32_t load = 0; load <= 9000; load += 50) {
        for (uint32_t begin = 1; begin <= 8; begin++) {
            struct adapt adapt = {0};
            uint32_t workers = begin;
            unsigned int changes = 0;
            bool grew = false;
            bool shrank = false;
            for (int64_t now_ms = 0; now_ms < 3600 * SECOND; now_ms += SECOND) {
                struct adapt_sample sample = even_load(now_ms, workers, load);
                struct adapt_verdict verdict = adapt_judge(&adapt, &limits, &sample);
                changes += verdict.wanted != workers ? 1 : 0;
                grew = grew || verdict.wanted > workers;
                shrank = shrank || verdict.wanted < workers;
                workers = verdict.wanted;
            }
            cr_assert(changes <= 7 && !(grew && shrank), "load %u from %u: %u changes", load, begin,
                      changes);
            cr_assert(workers == 8 || load / workers <= ADAPT_BUSY_PERMILLE, "load %u: %u", load,
                      workers);
        }
    }
}
