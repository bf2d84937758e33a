/* SPDX-License-Identifier: Apache-2.0
 *
 * Which worker slot serves which lane of one address. Pure; runs in the master. A lane has a home
 * slot; while that one has no READY worker (it boots, hangs, died, or the slot is gone and the
 * lane is parked) a sibling serves it, so that nobody waits in a queue without a server.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LANE_NOBODY UINT32_MAX

/* Fills owners[lane_count]: which slot shall serve each lane. On entry owners holds who serves now
 * (LANE_NOBODY: nobody), because a lane that may stay where it is does stay. homes[] are the home
 * slots; ready[slot_count] says which slots have a worker that takes lanes. All LANE_NOBODY when
 * none is ready. */
void lane_plan(const uint32_t *homes, size_t lane_count, const bool *ready, size_t slot_count,
               uint32_t *owners);
