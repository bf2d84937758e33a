/* SPDX-License-Identifier: Apache-2.0
 *
 * The plan of roll_plan.h. Pure; runs in the master.
 */
#include "master/roll_plan.h"

static size_t
first_due(const struct roll_slot *slots, size_t count)
{
    size_t best = count;

    for (size_t i = 0; i < count; i++) {
        if (slots[i].due > 0 && slots[i].is_wanted && !slots[i].has_successor &&
            (best == count || slots[i].due < slots[best].due)) {
            best = i;
        }
    }
    return best;
}

struct roll_step
roll_plan(const struct roll_slot *slots, size_t count, const struct roll_budget *budget)
{
    size_t slot = first_due(slots, count);
    uint32_t successors = 0;
    uint32_t missing = 0;

    for (size_t i = 0; i < count; i++) {
        successors += slots[i].has_successor ? 1 : 0;
        missing += slots[i].is_wanted && !slots[i].is_ready ? 1 : 0;
    }
    if (slot == count) {
        return (struct roll_step){.action = ROLL_NOTHING};
    }
    if (successors < budget->surge) {
        return (struct roll_step){.action = ROLL_START_SUCCESSOR, .slot = slot};
    }
    /* Where no successor ever stands beside, one that does not serve is not worth waiting for. */
    if ((slots[slot].is_ready && missing < budget->unavailable) ||
        (!slots[slot].is_ready && budget->surge == 0)) {
        return (struct roll_step){.action = ROLL_RETIRE, .slot = slot};
    }
    return (struct roll_step){.action = ROLL_NOTHING};
}
