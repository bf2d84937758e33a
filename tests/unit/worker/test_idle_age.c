/* SPDX-License-Identifier: Apache-2.0
 *
 * How long idle connections are trusted: rows of ages, and the course of learning.
 */
#include <criterion/criterion.h>

#include "worker/proxy/idle_age.h"

#define MS(n) (INT64_C(1000) * (n))
#define KEEP MS(1500)

static const struct {
    const char *what;
    struct idle_facts facts;
    bool idempotent;
    bool other;
} cases[] = {
    {"nothing learned, no time idle", {0, KEEP, 0, 0}, true, false},
    {"nothing learned, in use all the time", {MS(1), KEEP, 0, 0}, true, false},
    {"others lived longer", {MS(500), KEEP, 0, MS(1000)}, true, true},
    {"others lived a bit longer", {MS(501), KEEP, 0, MS(1000)}, true, false},
    {"others lived for a moment", {MS(1), KEEP, 0, MS(250)}, true, false},
    {"at idle_timeout", {KEEP, KEEP, 0, MS(9000)}, true, true},
    {"beyond idle_timeout", {KEEP + 1, KEEP, 0, MS(9000)}, false, false},
    {"closes after 4 ms", {MS(1), KEEP, MS(4), MS(900)}, true, false},
    {"closes after 4 ms, new to us", {0, KEEP, MS(4), 0}, true, false},
    {"closes after 4 ms, late", {MS(3) + 201, KEEP, MS(4), 0}, false, false},
    {"closes after 400 ms", {MS(150), KEEP, MS(400), 0}, true, true},
    {"closes after 400 ms, old", {MS(151), KEEP, MS(400), 0}, true, false},
    {"closes after 5 s", {MS(1500), KEEP, MS(5000), 0}, true, true},
    {"closes after 2 s", {MS(1000), KEEP, MS(2000), 0}, true, true},
    {"closes after 2 s, older than half", {MS(1001), KEEP, MS(2000), 0}, true, false},
    {"closes after 2 s, kept for longer", {MS(1600), MS(9000), MS(2000), 0}, true, false},
    {"closes after 2 s, too old", {MS(1601), MS(9000), MS(2000), 0}, false, false},
};

Test(idle_age, table)
{
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cr_expect_eq(idle_age_allows(&cases[i].facts, true), cases[i].idempotent, "%s: idempotent",
                     cases[i].what);
        cr_expect_eq(idle_age_allows(&cases[i].facts, false), cases[i].other, "%s: other",
                     cases[i].what);
    }
}

Test(idle_age, a_connection_is_not_kept_for_longer_than_it_may_be_used)
{
    static const int64_t closes_after_us[] = {0, MS(1), MS(4), MS(400), MS(2000), MS(86400000)};

    for (size_t i = 0; i < sizeof(closes_after_us) / sizeof(closes_after_us[0]); i++) {
        int64_t keep_us = idle_age_keep_us(KEEP, closes_after_us[i]);
        struct idle_facts facts = {keep_us, KEEP, closes_after_us[i], MS(86400000)};
        cr_expect(idle_age_allows(&facts, true));
        facts.age_us++;
        cr_expect_not(idle_age_allows(&facts, true));
        cr_expect_not(idle_age_allows(&facts, false));
        cr_expect_leq(keep_us, KEEP);
    }
    cr_expect_eq(idle_age_keep_us(0, MS(5000)), 0, "idle_timeout = 0 keeps none");
}

Test(idle_age, the_earliest_close_counts)
{
    int64_t learned_us = idle_age_closed(0, MS(5));

    cr_expect_eq(learned_us, MS(5));
    cr_expect_eq(idle_age_closed(learned_us, MS(4)), MS(4));
    cr_expect_eq(idle_age_closed(MS(4), MS(9)), MS(4));
    cr_expect_eq(idle_age_told(0, MS(5000)), MS(5000));
    cr_expect_eq(idle_age_told(MS(7000), MS(5000)), MS(5000));
    cr_expect_eq(idle_age_told(MS(4), MS(5000)), MS(4), "it does not do what it says");
    cr_expect_eq(idle_age_closed(0, 0), MS(1), "a close at once can be forgotten");
}

/* A restart closes connections of any age: that must not last. */
Test(idle_age, a_wrong_lesson_is_forgotten)
{
    int64_t learned_us = idle_age_closed(0, 0);
    int steps = 0;

    cr_expect_eq(idle_age_outlived(0, MS(5)), 0, "nothing stays nothing");
    while (idle_age_keep_us(KEEP, learned_us) < KEEP) {
        learned_us = idle_age_outlived(learned_us, idle_age_keep_us(KEEP, learned_us));
        cr_assert_lt(++steps, 100);
    }
    for (int i = 0; i < 10000; i++) {
        learned_us = idle_age_outlived(learned_us, idle_age_keep_us(INT64_MAX, learned_us));
        cr_assert_gt(learned_us, 0);
    }
    cr_expect_gt(idle_age_outlived(MS(4), INT64_MAX), 0);
}

/* Many that were begun together end together. */
Test(idle_age, one_generation_moves_the_guess_once)
{
    int64_t learned_us = MS(400);
    int64_t keep_us = idle_age_keep_us(KEEP, learned_us);

    for (int i = 0; i < 1000; i++) {
        learned_us = idle_age_outlived(learned_us, keep_us);
    }
    cr_expect_eq(learned_us, MS(450));
    cr_expect_eq(idle_age_outlived(learned_us, MS(1)), learned_us);
}

/* While the guess creeps up to the next close, requests that must not be lost stay below it. */
Test(idle_age, the_guess_never_endangers_what_cannot_be_repeated)
{
    static const int64_t closes_us[] = {MS(4), MS(100), MS(600), MS(2000), MS(5000)};

    for (size_t i = 0; i < sizeof(closes_us) / sizeof(closes_us[0]); i++) {
        int64_t learned_us = idle_age_closed(0, closes_us[i]);
        for (int life = 0; life < 1000; life++) {
            struct idle_facts facts = {closes_us[i] * 4 / 5, MS(60000), learned_us, MS(60000)};
            cr_expect_not(idle_age_allows(&facts, false), "closes after %lld us, learned %lld",
                          (long long)closes_us[i], (long long)learned_us);
            bool is_closed = idle_age_keep_us(MS(60000), learned_us) >= closes_us[i];
            learned_us =
                is_closed ? idle_age_closed(learned_us, closes_us[i])
                          : idle_age_outlived(learned_us, idle_age_keep_us(MS(60000), learned_us));
        }
    }
}
