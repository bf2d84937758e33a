/* SPDX-License-Identifier: Apache-2.0
 *
 * Which worker is replaced next: a reload that needs new workers and recycling (max_requests,
 * max_lifetime, max_memory) share one budget. Pure; runs in the master.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A slot as the planner sees it. */
struct roll_slot {
    bool is_wanted;     /* it shall have a worker */
    bool is_ready;      /* its worker serves */
    bool has_successor; /* one boots, or waits for its next try */
    uint64_t due;       /* 0: it stays; otherwise lower ones are replaced first */
};

struct roll_budget {
    uint32_t surge;       /* [master] max_surge */
    uint32_t unavailable; /* [master] max_unavailable */
};

enum roll_action {
    ROLL_NOTHING = 0,
    ROLL_START_SUCCESSOR, /* beside the old worker, which goes when the new one is READY */
    ROLL_RETIRE           /* the old worker goes at once, and its slot is filled again */
};

struct roll_step {
    enum roll_action action;
    size_t slot;
};

/* The next step, to be asked again after it was taken. A successor is preferred, because it takes
 * nothing away; an old worker goes first only where workers may be missing, counting those that
 * are missing anyhow. */
struct roll_step roll_plan(const struct roll_slot *slots, size_t count,
                           const struct roll_budget *budget);
