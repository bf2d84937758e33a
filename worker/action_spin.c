/* SPDX-License-Identifier: Apache-2.0
 *
 * A route that blocks its worker: what stall detection, timeouts and chaos runs are tried on. Only
 * builds with NARWHAL_TEST_ROUTES have it; the binary that ships knows neither the action nor its
 * setting. It burns CPU rather than sleep, so that it looks like an endless loop in a handler.
 */
#include "worker/action.h"

#include "config/base/clock.h"
#include "worker/exchange.h"
#include "worker/live.h"
#include "worker/worker_private.h"

static void
spin_start(struct exchange *exchange)
{
    int64_t end_ms = clock_mono_ms() + exchange->route->settings->spin_ms;

    while (clock_mono_ms() < end_ms) {
        ;
    }
    action_respond.start(exchange);
}

const struct action action_spin = {.name = "spin", .start = spin_start};
