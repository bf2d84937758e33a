/* SPDX-License-Identifier: Apache-2.0
 *
 * The policy of the adaptive number of workers: one more when all of them are busy or clients wait,
 * one less when the rest can carry the load; both only after it has been so for a while. Pure;
 * runs in the master.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* All workers busier than this: one more. Between the two nothing changes, so that the count comes
 * to rest: with one more, or one less, the other threshold is not met at once. */
#define ADAPT_BUSY_PERMILLE 750
/* The load, spread over one worker less, keeps each of them below this: one less. */
#define ADAPT_IDLE_PERMILLE 500

struct adapt_limits {
    uint32_t min; /* at least 1 */
    uint32_t max;
    int64_t grow_after_ms;
    int64_t shrink_after_ms;
};

struct adapt_sample {
    int64_t now_ms;
    uint32_t workers;        /* wanted now */
    uint32_t measured;       /* of them, those that serve: their busy time is known */
    uint32_t least_permille; /* busy time of the least busy one */
    uint32_t sum_permille;   /* busy time of all, added up */
    uint32_t waiting;        /* clients in the accept queues */
};

/* Zero is the begin. */
struct adapt {
    bool is_hot;
    bool is_cold;
    int64_t hot_since_ms;
    int64_t cold_since_ms;
};

enum adapt_reason {
    ADAPT_STAY = 0,
    ADAPT_BOUNDS,  /* outside min and max */
    ADAPT_BUSY,    /* all workers are busy */
    ADAPT_WAITING, /* clients wait in the queues */
    ADAPT_IDLE     /* the rest can carry the load */
};

struct adapt_verdict {
    enum adapt_reason reason;
    uint32_t wanted;
};

struct adapt_verdict adapt_judge(struct adapt *adapt, const struct adapt_limits *limits,
                                 const struct adapt_sample *sample);
