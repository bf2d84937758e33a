/* SPDX-License-Identifier: Apache-2.0
 *
 * Does a worker make progress? Pure: what one look at it shows goes in, a verdict comes out. An
 * idle worker is fine: it never has to wake up to say that it lives. Runs in the master.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* How it was seen that a worker stalls. */
#define PROGRESS_STALLS(X)                                                                         \
    X(NONE, "")                                                                                    \
    X(TURN, "one turn of its loop does not end")                                                   \
    X(QUEUE, "connections wait in its queue and it accepts none")                                  \
    X(STOPPED, "it was stopped by a signal")

enum progress_stall {
#define PROGRESS_STALL_ENUM(name, text) PROGRESS_STALL_##name,
    PROGRESS_STALLS(PROGRESS_STALL_ENUM)
#undef PROGRESS_STALL_ENUM
};

enum progress_verdict {
    PROGRESS_FINE = 0,
    PROGRESS_STALLED, /* siblings serve its lanes meanwhile */
    PROGRESS_HUNG     /* stalled for longer than a worker may be */
};

/* What a look shows. */
struct progress_sample {
    int64_t now_ms;
    int64_t turn_started_ms; /* 0: it waits for events */
    uint64_t accepted;       /* connections that it ever accepted */
    bool queued;             /* connections wait in a lane that it serves */
    bool stopped;            /* SIGSTOP and the like; not yet continued */
};

struct progress {
    enum progress_stall stall; /* NONE: it moves, or moved at the last look */
    int64_t stalled_since_ms;  /* 0: it is fine; else also while it has yet to prove itself */
    int64_t moves_since_ms;    /* since when a stalled one moves again; 0: it does not */
    int64_t turn_started_ms;   /* of the last sample */
    uint64_t accepted;         /* of the last sample */
    bool unserved;             /* its queue was waiting at the last sample */
};

/* stall_ms: longest turn that is no stall, 0: there are no stalls; timeout_ms: longest stall. Looks
 * come every half of stall_ms. */
enum progress_verdict progress_judge(struct progress *progress,
                                     const struct progress_sample *sample, int64_t stall_ms,
                                     int64_t timeout_ms);
const char *progress_stall_text(enum progress_stall stall);
