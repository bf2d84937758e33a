/* SPDX-License-Identifier: Apache-2.0
 *
 * struct action: what a route does with a request, as a table of functions. To add one: a file
 * with its table, a key of [route] in settings.def, a row in live.c. See CONTRIBUTING.md.
 *
 * The connection owns the exchange and calls; the action answers with the exchange_… functions.
 */
#pragma once

#include <stdbool.h>

#include "config/base/str.h"

struct exchange;
struct live;

struct action {
    const char *name;
    /* The head is complete. May answer at once. Must not keep pointers into the head unless it
     * calls exchange_keep_head(). */
    void (*start)(struct exchange *exchange);
    /* Only for actions that take request bodies (NULL: the body is dropped): a decoded piece, all
     * of which is taken; bytes are valid during the call. */
    void (*body)(struct exchange *exchange, struct str bytes);
    void (*body_end)(struct exchange *exchange);
    /* Whether more of the body may come now: back-pressure. */
    bool (*wants_body)(const struct exchange *exchange);
    /* The client took some of what was queued for it: the action may go on. May be NULL. */
    void (*drained)(struct exchange *exchange);
    /* New settings came while this exchange, a tunnel, is open: it goes on under them, or leaves
     * when its route is gone. May be NULL. */
    void (*reload)(struct exchange *exchange, struct live *live);
    /* The exchange ends now, whole or not: release exchange->state. May be NULL. */
    void (*end)(struct exchange *exchange);
};

extern const struct action action_respond;
extern const struct action action_redirect;
#ifdef NARWHAL_TEST_ROUTES
extern const struct action action_spin;
extern const struct action action_attempt;
#endif
extern const struct action action_static;
extern const struct action action_backend;
