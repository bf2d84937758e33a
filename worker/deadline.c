/* SPDX-License-Identifier: Apache-2.0
 *
 * Lazily moved deadlines over libev timers. Runs in workers.
 */
#include "worker/deadline.h"

#include "config/base/clock.h"

static void
schedule(struct deadline *deadline, struct ev_loop *loop, int64_t now_ms)
{
    int64_t after_ms = deadline->at_ms > now_ms ? deadline->at_ms - now_ms : 0;

    ev_timer_stop(loop, &deadline->timer);
    ev_timer_set(&deadline->timer, ms_to_seconds(after_ms), 0.0);
    ev_timer_start(loop, &deadline->timer);
    deadline->scheduled_ms = deadline->at_ms;
}

void
deadline_init(struct deadline *deadline, deadline_fn callback)
{
    ev_timer_init(&deadline->timer, callback, 0.0, 0.0);
    deadline->at_ms = INT64_MAX;
    deadline->scheduled_ms = 0;
}

void
deadline_set(struct deadline *deadline, struct ev_loop *loop, int64_t now_ms, int64_t after_ms)
{
    deadline->at_ms = now_ms + after_ms;
    if (!ev_is_active(&deadline->timer) || deadline->scheduled_ms > deadline->at_ms) {
        schedule(deadline, loop, now_ms);
    }
}

void
deadline_clear(struct deadline *deadline)
{
    deadline->at_ms = INT64_MAX;
}

void
deadline_stop(struct deadline *deadline, struct ev_loop *loop)
{
    ev_timer_stop(loop, &deadline->timer);
    deadline->at_ms = INT64_MAX;
}

bool
deadline_is_due(struct deadline *deadline, struct ev_loop *loop, int64_t now_ms)
{
    if (now_ms >= deadline->at_ms) {
        return true;
    }
    if (deadline->at_ms != INT64_MAX) {
        schedule(deadline, loop, now_ms);
    }
    return false;
}
