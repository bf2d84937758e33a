/* SPDX-License-Identifier: Apache-2.0
 *
 * When a life is over: thresholds with their jitter, looks at the memory, pauses.
 */
#include <criterion/criterion.h>

#include "master/recycle.h"

Test(recycle, nothing_is_reached_while_all_is_off)
{
    const struct recycle_limits limits = {.section = "[master]"};
    const struct recycle_life life = {.random = 7};

    cr_expect_null(recycle_reached(&limits, &life, INT64_MAX, UINT64_MAX));
}

Test(recycle, a_limit_without_jitter_is_exact)
{
    const struct recycle_limits limits = {.max_lifetime_ms = 1000, .max_requests = 10};

    for (uint32_t random = 0; random < 1000; random += 37) {
        const struct recycle_life life = {.random = random};
        cr_expect_null(recycle_reached(&limits, &life, 999, 9));
        cr_expect_str_eq(recycle_reached(&limits, &life, 1000, 0), "max_lifetime");
        cr_expect_str_eq(recycle_reached(&limits, &life, 0, 10), "max_requests");
    }
}

Test(recycle, jitter_only_adds_and_spreads_over_all_of_it)
{
    const struct recycle_limits limits = {.max_lifetime_ms = 1000, .max_lifetime_jitter_ms = 1000};
    unsigned int by_quarter[4] = {0};

    for (uint32_t i = 0; i < 4000; i++) {
        const struct recycle_life life = {.random = i * 1000003u};
        cr_expect_null(recycle_reached(&limits, &life, 999, 0));
        cr_expect_not_null(recycle_reached(&limits, &life, 2000, 0));
        for (unsigned int quarter = 0; quarter < 4; quarter++) {
            if (recycle_reached(&limits, &life, 1249 + quarter * 250, 0) != NULL) {
                by_quarter[quarter]++;
                break;
            }
        }
    }
    for (size_t i = 0; i < 4; i++) {
        cr_expect(by_quarter[i] > 700 && by_quarter[i] < 1300, "quarter %zu: %u", i, by_quarter[i]);
    }
}

Test(recycle, long_jitter_is_used_up_to_its_end)
{
    /* A year in ms has more bits than the random number. */
    const int64_t year_ms = INT64_C(365) * 24 * 3600 * 1000;
    const struct recycle_limits limits = {.max_lifetime_ms = 1, .max_lifetime_jitter_ms = year_ms};
    unsigned int late = 0;

    for (uint32_t i = 0; i < 1000; i++) {
        const struct recycle_life life = {.random = i * 4294967u};
        late += recycle_reached(&limits, &life, year_ms / 2, 0) == NULL ? 1 : 0;
    }
    cr_expect(late > 300 && late < 700, "%u", late);
}

Test(recycle, memory_is_too_much_only_in_a_row)
{
    struct recycle_life life = {0};

    cr_expect(!recycle_memory_over(&life, 101, 100));
    cr_expect(!recycle_memory_over(&life, 101, 100));
    cr_expect(!recycle_memory_over(&life, 100, 100), "the limit itself is allowed");
    cr_expect(!recycle_memory_over(&life, 101, 100));
    cr_expect(!recycle_memory_over(&life, 101, 100));
    cr_expect(recycle_memory_over(&life, 101, 100));
    cr_expect_eq(life.looks, 6);
    cr_expect_eq(life.looks_over, 3);
}

Test(recycle, pauses_double_up_to_the_longest)
{
    static const int64_t pauses[] = {1000,  2000,   4000,   8000,   16000, 32000,
                                     64000, 128000, 256000, 512000, 600000};

    for (uint32_t i = 0; i < sizeof(pauses) / sizeof(pauses[0]); i++) {
        cr_expect_eq(recycle_pause_ms(i + 1), pauses[i]);
    }
    cr_expect_eq(recycle_pause_ms(UINT32_MAX), RECYCLE_LONGEST_PAUSE_MS);
}
