/* SPDX-License-Identifier: Apache-2.0
 *
 * A deadline that moves cheaply. Moving it later is a store: the timer fires at the old time, sees
 * that the deadline has moved, and starts again (libev manual, "Be smart about timeouts"). So a
 * request that is answered at once costs no timer operation, whatever the clocks of its states are.
 */
#pragma once

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

typedef void (*deadline_fn)(struct ev_loop *loop, ev_timer *timer, int revents);

struct deadline {
    ev_timer timer;       /* first, so that the callback's watcher is the deadline */
    int64_t at_ms;        /* when it is due; INT64_MAX: never */
    int64_t scheduled_ms; /* when the timer fires; meaningless while it is stopped */
};

/* callback begins with deadline_is_due() and returns when that says no. */
void deadline_init(struct deadline *deadline, deadline_fn callback);
void deadline_set(struct deadline *deadline, struct ev_loop *loop, int64_t now_ms,
                  int64_t after_ms);
/* Never due; the timer may still fire once. */
void deadline_clear(struct deadline *deadline);
/* For the end of the object. */
void deadline_stop(struct deadline *deadline, struct ev_loop *loop);
/* Called by the callback: whether the deadline is due; if not, starts the timer again. */
bool deadline_is_due(struct deadline *deadline, struct ev_loop *loop, int64_t now_ms);
