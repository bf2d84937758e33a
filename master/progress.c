/* SPDX-License-Identifier: Apache-2.0
 *
 *          no progress                       moves
 *   FINE ─────────────► STALLED ───────────────────────► PROVING ──stall_ms without a stall──► FINE
 *                         │  ▲                              │
 *              timeout_ms ▼  └────────── no progress ───────┘
 *                        HUNG
 *
 * PROVING counts as stalled: a worker that does one slow thing after the other would get its lanes
 * and lose them again all the time.
 */
#include "master/progress.h"

#include <stddef.h>

/* A worker whose queue waited is known to move when it accepts. Its queue is with a sibling by
 * then, and with a quick one it may never get to accept: after this long it is tried again. */
#define QUEUE_RETRY_MS 5000

static const char *const stall_texts[] = {
#define PROGRESS_STALL_TEXT(name, text) [PROGRESS_STALL_##name] = text,
    PROGRESS_STALLS(PROGRESS_STALL_TEXT)
#undef PROGRESS_STALL_TEXT
};

const char *
progress_stall_text(enum progress_stall stall)
{
    return stall_texts[stall];
}

/* What this look says by itself. Two looks are needed for the queue: what waits at one of them may
 * have come a moment before it. */
static enum progress_stall
look(const struct progress *progress, const struct progress_sample *sample, int64_t stall_ms,
     int64_t *ret_since_ms)
{
    *ret_since_ms = sample->now_ms;
    if (sample->stopped) {
        return PROGRESS_STALL_STOPPED;
    }
    if (sample->turn_started_ms != 0 && sample->now_ms - sample->turn_started_ms > stall_ms) {
        *ret_since_ms = sample->turn_started_ms;
        return PROGRESS_STALL_TURN;
    }
    if (sample->queued && progress->unserved && sample->accepted == progress->accepted) {
        return PROGRESS_STALL_QUEUE;
    }
    return PROGRESS_STALL_NONE;
}

static bool
moves(const struct progress *progress, const struct progress_sample *sample)
{
    switch (progress->stall) {
    case PROGRESS_STALL_QUEUE:
        return sample->accepted != progress->accepted ||
               sample->now_ms - progress->stalled_since_ms >= QUEUE_RETRY_MS;
    case PROGRESS_STALL_TURN:
    case PROGRESS_STALL_STOPPED:
    case PROGRESS_STALL_NONE:
        return true; /* look() has found nothing */
    }
    return true;
}

enum progress_verdict
progress_judge(struct progress *progress, const struct progress_sample *sample, int64_t stall_ms,
               int64_t timeout_ms)
{
    int64_t limit_ms = stall_ms > 0 ? stall_ms : timeout_ms;
    int64_t since_ms;
    enum progress_stall found = look(progress, sample, limit_ms, &since_ms);

    if (found != PROGRESS_STALL_NONE) {
        bool goes_on = progress->stalled_since_ms != 0 && progress->moves_since_ms == 0 &&
                       (found != PROGRESS_STALL_TURN || progress->stall != PROGRESS_STALL_TURN ||
                        progress->turn_started_ms == sample->turn_started_ms);
        progress->stall = found;
        progress->moves_since_ms = 0;
        if (!goes_on) {
            progress->stalled_since_ms = since_ms;
        }
    } else if (progress->stalled_since_ms != 0 && progress->moves_since_ms == 0 &&
               moves(progress, sample)) {
        progress->moves_since_ms = sample->now_ms;
    }
    progress->turn_started_ms = sample->turn_started_ms;
    progress->unserved = sample->queued;
    progress->accepted = sample->accepted;
    if (progress->stalled_since_ms == 0) {
        return PROGRESS_FINE;
    }
    if (progress->moves_since_ms != 0) {
        if (sample->now_ms - progress->moves_since_ms < limit_ms) {
            return PROGRESS_STALLED;
        }
        *progress = (struct progress){.turn_started_ms = sample->turn_started_ms,
                                      .unserved = sample->queued,
                                      .accepted = sample->accepted};
        return PROGRESS_FINE;
    }
    /* A waiting queue alone is no reason to kill: a debugger may hold the process. */
    bool is_hung = progress->stall != PROGRESS_STALL_QUEUE &&
                   sample->now_ms - progress->stalled_since_ms > timeout_ms;
    return is_hung ? PROGRESS_HUNG : PROGRESS_STALLED;
}
