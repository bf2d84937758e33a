/* SPDX-License-Identifier: Apache-2.0
 *
 * The budget: who is replaced next, and that never more are missing or extra than allowed.
 */
#include <criterion/criterion.h>

#include "master/roll_plan.h"

#define SLOTS 4

static const struct roll_slot serving = {.is_wanted = true, .is_ready = true};

static void
fill(struct roll_slot slots[SLOTS])
{
    for (size_t i = 0; i < SLOTS; i++) {
        slots[i] = serving;
    }
}

static void
expect_step(const struct roll_slot slots[SLOTS], uint32_t surge, uint32_t unavailable,
            enum roll_action action, size_t slot)
{
    struct roll_budget budget = {surge, unavailable};
    struct roll_step step = roll_plan(slots, SLOTS, &budget);

    cr_expect_eq(step.action, action, "action %d", (int)step.action);
    cr_expect(action == ROLL_NOTHING || step.slot == slot, "slot %zu", step.slot);
}

Test(roll_plan, nobody_due_nothing_happens)
{
    struct roll_slot slots[SLOTS];

    fill(slots);
    expect_step(slots, 1, 0, ROLL_NOTHING, 0);
    expect_step(slots, 9, 9, ROLL_NOTHING, 0);
}

Test(roll_plan, the_lowest_due_comes_first)
{
    struct roll_slot slots[SLOTS];

    fill(slots);
    slots[0].due = 30;
    slots[2].due = 7;
    slots[3].due = 8;
    expect_step(slots, 1, 0, ROLL_START_SUCCESSOR, 2);
}

Test(roll_plan, max_surge_bounds_the_successors)
{
    struct roll_slot slots[SLOTS];

    fill(slots);
    slots[0].due = 1;
    slots[1].due = 2;
    slots[0].has_successor = true;
    expect_step(slots, 1, 0, ROLL_NOTHING, 0);
    expect_step(slots, 2, 0, ROLL_START_SUCCESSOR, 1);
    slots[3].has_successor = true;
    expect_step(slots, 2, 0, ROLL_NOTHING, 0);
}

Test(roll_plan, an_old_one_goes_first_only_where_workers_may_be_missing)
{
    struct roll_slot slots[SLOTS];

    fill(slots);
    slots[1].due = 1;
    slots[2].due = 2;
    expect_step(slots, 0, 1, ROLL_RETIRE, 1);
    slots[0].is_ready = false; /* it crashed: nobody else may be missing */
    expect_step(slots, 0, 1, ROLL_NOTHING, 0);
    expect_step(slots, 0, 2, ROLL_RETIRE, 1);
    slots[0].is_wanted = false; /* it was one too many: nobody misses it */
    expect_step(slots, 0, 1, ROLL_RETIRE, 1);
}

Test(roll_plan, the_surge_is_used_before_anybody_is_missing)
{
    struct roll_slot slots[SLOTS];

    fill(slots);
    slots[1].due = 1;
    slots[2].due = 2;
    expect_step(slots, 1, 1, ROLL_START_SUCCESSOR, 1);
    slots[1].has_successor = true;
    expect_step(slots, 1, 1, ROLL_RETIRE, 2);
}

Test(roll_plan, one_that_does_not_serve_is_not_waited_for_without_surge)
{
    struct roll_slot slots[SLOTS];

    fill(slots);
    slots[1].due = 1;
    slots[1].is_ready = false;
    expect_step(slots, 0, 1, ROLL_RETIRE, 1);
    expect_step(slots, 1, 0, ROLL_START_SUCCESSOR, 1);
}

Test(roll_plan, unwanted_slots_are_left_alone)
{
    struct roll_slot slots[SLOTS];

    fill(slots);
    slots[3].due = 1;
    slots[3].is_wanted = false;
    expect_step(slots, 1, 1, ROLL_NOTHING, 0);
}

/* Every budget, played to the end: in each turn one of those that are under way becomes READY. */
Test(roll_plan, a_whole_roll_stays_within_its_budget)
{
    for (uint32_t surge = 0; surge <= SLOTS; surge++) {
        for (uint32_t unavailable = surge == 0 ? 1 : 0; unavailable <= SLOTS; unavailable++) {
            struct roll_budget budget = {surge, unavailable};
            struct roll_slot slots[SLOTS];
            size_t turns = 0;
            bool rolling = true;
            fill(slots);
            for (size_t i = 0; i < SLOTS; i++) {
                slots[i].due = i + 1;
            }
            for (; rolling && turns < 100; turns++) {
                struct roll_step step;
                uint32_t successors = 0;
                uint32_t missing = 0;
                while ((step = roll_plan(slots, SLOTS, &budget)).action != ROLL_NOTHING) {
                    if (step.action == ROLL_START_SUCCESSOR) {
                        slots[step.slot].has_successor = true;
                    } else {
                        slots[step.slot] = (struct roll_slot){.is_wanted = true};
                    }
                }
                for (size_t i = 0; i < SLOTS; i++) {
                    successors += slots[i].has_successor ? 1 : 0;
                    missing += slots[i].is_ready ? 0 : 1;
                }
                cr_assert(successors <= surge && missing <= unavailable,
                          "surge %u unavailable %u: %u and %u", surge, unavailable, successors,
                          missing);
                rolling = successors > 0 || missing > 0;
                for (size_t i = 0; i < SLOTS; i++) {
                    if (slots[i].has_successor || !slots[i].is_ready) {
                        slots[i] = serving;
                        break; /* one of them in each turn */
                    }
                }
            }
            cr_expect(turns < 100, "surge %u unavailable %u never ends", surge, unavailable);
            for (size_t i = 0; i < SLOTS; i++) {
                cr_expect_eq(slots[i].due, 0);
            }
        }
    }
}
