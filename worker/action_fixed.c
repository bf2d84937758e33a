/* SPDX-License-Identifier: Apache-2.0
 *
 * The actions respond and redirect: answers that were written when the settings were loaded.
 */
#include "worker/action.h"

#include "config/base/check.h"
#include "worker/exchange.h"
#include "worker/http/target.h"
#include "worker/live.h"

static void
respond_start(struct exchange *exchange)
{
    const struct fixed_response *fixed = &exchange->route->fixed;

    exchange_answer(exchange, fixed->status, (struct str){fixed->head.ptr, fixed->head.len},
                    (struct str){fixed->body.ptr, fixed->body.len});
}

const struct action action_respond = {.name = "respond", .start = respond_start};

/* Adds location with every {path} replaced by the request's path and query. The path is the normal
 * form, encoded: with runs of '/' merged it cannot begin with "//", which a browser would take for
 * another host. */
static void
add_location(struct buf *out, struct str location, const struct exchange *exchange)
{
    static const char placeholder[] = "{path}";
    struct str query = span_str(exchange->head->query, exchange->base);

    while (location.len > 0) {
        const char *at = memmem(location.ptr, location.len, placeholder, sizeof(placeholder) - 1);
        size_t literal = at != NULL ? (size_t)(at - location.ptr) : location.len;
        buf_add(out, location.ptr, literal);
        if (at == NULL) {
            return;
        }
        char *room = buf_reserve(out, 3 * exchange->path.len);
        out->len += target_encode(exchange->path, room);
        buf_add_str(out, query);
        location.ptr += literal + sizeof(placeholder) - 1;
        location.len -= literal + sizeof(placeholder) - 1;
    }
}

/* Largest Location: a longer one would not fit the memory of one turn. */
#define LOCATION_MAX (24u * 1024u)

static void
redirect_start(struct exchange *exchange)
{
    const struct fixed_response *fixed = &exchange->route->fixed;
    struct buf head = {0};

    buf_add(&head, fixed->head.ptr, fixed->head.len);
    buf_add_text(&head, "Location: ");
    add_location(&head, fixed->location, exchange);
    buf_add_text(&head, "\r\n");
    if (head.len > LOCATION_MAX) {
        exchange_fail(exchange, 414, "the location to redirect to becomes too long", NULL, STR(""));
    } else {
        exchange_answer(exchange, fixed->status, (struct str){head.ptr, head.len}, STR(""));
    }
    buf_release(&head);
}

const struct action action_redirect = {.name = "redirect", .start = redirect_start};
