/* SPDX-License-Identifier: Apache-2.0
 *
 * Who serves which lane, for every mix of slots that the master can be in.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "master/lane_plan.h"

#define SLOTS 8

/* Plans `lanes` lanes with homes 0, 1, 2, … ready is one character a slot: 'R' or '-'. owners is
 * in and out, one digit a lane, '.' for nobody. */
static void
expect_plan(const char *ready_text, const char *before, const char *after)
{
    uint32_t homes[16];
    uint32_t owners[16];
    bool ready[SLOTS] = {false};
    char result[17] = "";
    size_t lanes = strlen(before);

    for (size_t i = 0; ready_text[i] != '\0'; i++) {
        ready[i] = ready_text[i] == 'R';
    }
    for (size_t i = 0; i < lanes; i++) {
        homes[i] = (uint32_t)i;
        owners[i] = before[i] == '.' ? LANE_NOBODY : (uint32_t)(before[i] - '0');
    }
    lane_plan(homes, lanes, ready, SLOTS, owners);
    for (size_t i = 0; i < lanes; i++) {
        (void)snprintf(result + i, 2, "%c",
                       owners[i] == LANE_NOBODY ? '.' : (char)('0' + owners[i]));
    }
    cr_expect_str_eq(result, after, "ready %s, before %s: %s, not %s", ready_text, before, result,
                     after);
}

Test(lane_plan, everybody_at_home)
{
    expect_plan("RRRR", "....", "0123");
    expect_plan("RRRR", "0123", "0123");
}

Test(lane_plan, nobody_is_ready)
{
    expect_plan("----", "0123", "....");
}

Test(lane_plan, the_first_ready_one_serves_all)
{
    expect_plan("--R-", "....", "2222");
}

Test(lane_plan, a_sibling_serves_the_lane_of_a_dead_one_and_gives_it_back)
{
    expect_plan("RR-R", "0123", "0103");
    expect_plan("RRRR", "0103", "0123");
}

Test(lane_plan, orphans_are_spread_over_the_least_loaded)
{
    expect_plan("RR------", "01......", "01010101");
    expect_plan("R-R-", "0123", "0022");
}

Test(lane_plan, a_lent_lane_stays_where_it_is)
{
    expect_plan("RR-R", "0133", "0133");
    expect_plan("RR-R", "0113", "0113");
}

Test(lane_plan, unless_its_borrower_has_more_than_a_fair_share)
{
    /* slot 1 died and came back: it takes its own, and one of the two parked ones */
    expect_plan("RR--", "0000", "0101");
}

Test(lane_plan, an_owner_that_is_not_ready_any_more_loses_it)
{
    expect_plan("R--R", "0113", "0033");
}

/* Every combination of 4 ready slots and 6 lanes: each lane is served by a READY slot, home first,
 * and no slot has more than a fair share and its home. */
Test(lane_plan, every_combination_is_fair)
{
    for (unsigned int bits = 1; bits < 16; bits++) {
        uint32_t homes[6] = {0, 1, 2, 3, 4, 5};
        uint32_t owners[6];
        uint32_t loads[SLOTS] = {0};
        bool ready[SLOTS] = {false};
        uint32_t count = 0;
        for (uint32_t slot = 0; slot < 4; slot++) {
            ready[slot] = (bits & (1u << slot)) != 0;
            count += ready[slot];
        }
        for (size_t i = 0; i < 6; i++) {
            owners[i] = (uint32_t)(i * bits) % 7;
        }
        lane_plan(homes, 6, ready, SLOTS, owners);
        for (size_t i = 0; i < 6; i++) {
            cr_assert_lt(owners[i], SLOTS);
            cr_expect(ready[owners[i]], "bits %u: lane %zu has slot %u", bits, i, owners[i]);
            cr_expect(i >= 4 || !ready[i] || owners[i] == i);
            loads[owners[i]]++;
        }
        for (size_t slot = 0; slot < 4; slot++) {
            cr_expect_leq(loads[slot], (6 + count - 1) / count, "bits %u slot %zu", bits, slot);
        }
    }
}
