/* SPDX-License-Identifier: Apache-2.0
 *
 * The respawn policy: delays, jitter, what ends a row of deaths, what is told of it.
 */
#include <criterion/criterion.h>

#include "master/respawn.h"

/* The delays without jitter. */
Test(respawn, delays_double_up_to_the_longest)
{
    static const int64_t delays[] = {0,    100,  200,   400,   800,   1600,
                                     3200, 6400, 12800, 25600, 30000, 30000};
    struct respawn history = {0};

    for (size_t i = 0; i < sizeof(delays) / sizeof(delays[0]); i++) {
        struct respawn_verdict verdict =
            respawn_after_death(&history, 1000 + (int64_t)i, 0, false, 0);
        cr_expect_eq(verdict.delay_ms, delays[i], "death %zu: %lld", i + 1,
                     (long long)verdict.delay_ms);
        cr_expect_eq(verdict.deaths, i + 1);
    }
}

Test(respawn, jitter_takes_up_to_a_quarter_and_never_adds)
{
    for (uint32_t random = 0; random < 512; random++) {
        struct respawn history = {.deaths = 20};
        int64_t delay_ms = respawn_after_death(&history, 1, 0, false, random).delay_ms;
        cr_expect(delay_ms <= RESPAWN_LONGEST_DELAY_MS &&
                      delay_ms > RESPAWN_LONGEST_DELAY_MS * 3 / 4,
                  "random %u gives %lld", random, (long long)delay_ms);
    }
    struct respawn a = {.deaths = 20};
    struct respawn b = {.deaths = 20};
    cr_expect_neq(respawn_after_death(&a, 1, 0, false, 0).delay_ms,
                  respawn_after_death(&b, 1, 0, false, 255).delay_ms);
}

Test(respawn, a_healthy_life_starts_a_new_row)
{
    struct respawn history = {.deaths = 7, .row_ms = 5};
    struct respawn_verdict verdict =
        respawn_after_death(&history, 100000, RESPAWN_SETTLED_MS, false, 0);

    cr_expect_eq(verdict.delay_ms, 0);
    cr_expect_eq(verdict.deaths, 1);
    cr_expect_eq(verdict.row_ms, 0);
    cr_expect_eq(verdict.report, RESPAWN_TELL);
}

Test(respawn, a_short_life_does_not)
{
    struct respawn history = {.deaths = 7, .row_ms = 5};
    struct respawn_verdict verdict =
        respawn_after_death(&history, 100000, RESPAWN_SETTLED_MS - 1, false, 0);

    cr_expect_eq(verdict.deaths, 8);
    cr_expect_eq(verdict.delay_ms, 6400);
}

Test(respawn, to_be_killed_is_no_fault)
{
    struct respawn history = {.deaths = 7, .row_ms = 5};
    struct respawn_verdict verdict =
        respawn_after_death(&history, 100000, RESPAWN_SETTLED_KILLED_MS, true, 0);

    cr_expect_eq(verdict.delay_ms, 0);
    cr_expect_eq(verdict.deaths, 1);
    verdict = respawn_after_death(&history, 100001, RESPAWN_SETTLED_KILLED_MS - 1, true, 0);
    cr_expect_eq(verdict.deaths, 2, "killed at once, again and again, it rests");
    cr_expect_eq(verdict.delay_ms, 100);
}

Test(respawn, a_crash_loop_is_folded_into_summaries)
{
    struct respawn history = {0};
    int64_t now_ms = 1000;
    int told = 0;
    int folded = 0;
    int summaries = 0;

    /* half an hour of a program that dies at once */
    while (now_ms < 1000 + 30 * 60 * 1000) {
        struct respawn_verdict verdict = respawn_after_death(&history, now_ms, 0, false, 0);
        told += verdict.report == RESPAWN_TELL;
        folded += verdict.report == RESPAWN_FOLD;
        summaries += verdict.report == RESPAWN_SUMMARIZE;
        now_ms += verdict.delay_ms + 1;
    }
    cr_expect_eq(told, RESPAWN_TOLD_ONE_BY_ONE);
    cr_expect(summaries >= 20 && summaries <= 30, "%d summaries", summaries);
    cr_expect_gt(folded, 20);
}
