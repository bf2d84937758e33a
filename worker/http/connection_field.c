/* SPDX-License-Identifier: Apache-2.0
 *
 * Lists of tokens, and what they say about the fields of one hop. Runs in worker processes.
 */
#include "worker/http/connection_field.h"

#include "worker/http/char_class.h"

bool
token_list_next(struct str *list, struct str *ret_element)
{
    const char *p = list->ptr;
    const char *end = p + list->len;

    while (p < end && (*p == ',' || char_is_blank(*p))) {
        p++;
    }
    if (p == end) {
        *list = (struct str){end, 0};
        return false;
    }
    const char *start = p;
    while (p < end && *p != ',') {
        p++;
    }
    *list = (struct str){p, (size_t)(end - p)};
    while (char_is_blank(p[-1])) {
        p--; /* stops at start at the latest, which is no blank */
    }
    *ret_element = (struct str){start, (size_t)(p - start)};
    return true;
}

bool
token_list_has(struct str list, struct str token)
{
    struct str element;

    while (token_list_next(&list, &element)) {
        if (str_equal_nocase(element, token)) {
            return true;
        }
    }
    return false;
}

bool
field_is_hop_by_hop(const struct field *field, const struct field *fields, size_t count,
                    const char *base)
{
    switch (field->id) {
    case FIELD_CONNECTION:
    case FIELD_KEEP_ALIVE:
    case FIELD_HTTP2_SETTINGS: /* RFC 9113 section 3.1: belongs to the obsolete upgrade to h2c */
    case FIELD_PROXY_CONNECTION:
    case FIELD_PROXY_AUTHORIZATION:
    case FIELD_PROXY_AUTHENTICATE:
    case FIELD_TE:
    case FIELD_TRAILER: /* trailers are dropped, so nothing may announce them */
    case FIELD_TRANSFER_ENCODING:
    case FIELD_UPGRADE:
        return true;
    case FIELD_HOST:
        /* A client that lists it would have us send an invalid request (RFC 9112 section 3.2). */
        return false;
    default:
        break;
    }
    for (size_t i = 0; i < count; i++) {
        if (fields[i].id == FIELD_CONNECTION &&
            token_list_has(span_str(fields[i].value, base), span_str(field->name, base))) {
            return true;
        }
    }
    return false;
}
