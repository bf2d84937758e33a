/* SPDX-License-Identifier: Apache-2.0
 *
 * The plan of lane_plan.h: home first; then what is lent out stays, as long as its borrower has no
 * more than a fair share; then the rest, each to the slot that serves least.
 */
#include "master/lane_plan.h"

#include <string.h>

#include "config/base/check.h"
#include "worker/scoreboard.h"

static bool
is_ready(const bool *ready, size_t slot_count, uint32_t slot)
{
    return slot < slot_count && ready[slot];
}

static uint32_t
least_loaded(const bool *ready, size_t slot_count, const uint32_t *loads)
{
    uint32_t best = LANE_NOBODY;

    for (uint32_t slot = 0; slot < slot_count; slot++) {
        if (ready[slot] && (best == LANE_NOBODY || loads[slot] < loads[best])) {
            best = slot;
        }
    }
    return best;
}

void
lane_plan(const uint32_t *homes, size_t lane_count, const bool *ready, size_t slot_count,
          uint32_t *owners)
{
    uint32_t loads[BOARD_SLOTS_MAX] = {0};
    size_t ready_count = 0;

    CHECK(slot_count <= BOARD_SLOTS_MAX);
    for (size_t slot = 0; slot < slot_count; slot++) {
        ready_count += ready[slot] ? 1 : 0;
    }
    for (size_t lane = 0; lane < lane_count; lane++) {
        if (is_ready(ready, slot_count, homes[lane])) {
            owners[lane] = homes[lane];
            loads[homes[lane]]++;
        }
    }
    size_t fair = ready_count > 0 ? (lane_count + ready_count - 1) / ready_count : 0;
    for (size_t lane = 0; lane < lane_count; lane++) {
        if (is_ready(ready, slot_count, homes[lane])) {
            continue;
        }
        if (is_ready(ready, slot_count, owners[lane]) && loads[owners[lane]] < fair) {
            loads[owners[lane]]++;
        } else {
            owners[lane] = LANE_NOBODY;
        }
    }
    for (size_t lane = 0; lane < lane_count; lane++) {
        if (owners[lane] == LANE_NOBODY) {
            owners[lane] = least_loaded(ready, slot_count, loads);
            if (owners[lane] != LANE_NOBODY) {
                loads[owners[lane]]++;
            }
        }
    }
}
