/* SPDX-License-Identifier: Apache-2.0
 *
 * Preconditions of GET and HEAD. Runs in worker processes.
 */
#include "worker/http/conditional.h"

#include "worker/http/char_class.h"
#include "worker/http/date.h"

enum etag_comparison { ETAG_STRONG = 0, ETAG_WEAK };

static bool
etag_is_weak(struct str etag)
{
    return str_starts_with(etag, STR("W/"));
}

/* The part in quotes, with them. */
static struct str
etag_opaque(struct str etag)
{
    return etag_is_weak(etag) ? (struct str){etag.ptr + 2, etag.len - 2} : etag;
}

/* RFC 9110 section 8.8.3.2. */
static bool
etag_equal(struct str a, struct str b, enum etag_comparison comparison)
{
    if (comparison == ETAG_STRONG && (etag_is_weak(a) || etag_is_weak(b))) {
        return false;
    }
    return str_equal(etag_opaque(a), etag_opaque(b));
}

/* Takes the next entity tag off a list. false at its end, or where it is malformed: what follows
 * cannot be read then, and counts as no match. */
static bool
etag_list_next(struct str *list, struct str *ret_etag)
{
    const char *p = list->ptr;
    const char *end = p + list->len;

    while (p < end && (*p == ',' || char_is_blank(*p))) {
        p++;
    }
    const char *start = p;
    if (end - p >= 2 && p[0] == 'W' && p[1] == '/') { /* case-sensitive, section 8.8.3 */
        p += 2;
    }
    if (p == end || *p != '"') {
        return false;
    }
    p++;
    while (p < end && char_is(*p, CHAR_ETAG)) {
        p++;
    }
    if (p == end || *p != '"') {
        return false;
    }
    p++;
    *ret_etag = (struct str){start, (size_t)(p - start)};
    while (p < end && char_is_blank(*p)) {
        p++;
    }
    if (p < end && *p != ',') {
        return false;
    }
    *list = (struct str){p, (size_t)(end - p)};
    return true;
}

/* Whether any field of that id is "*" or lists etag; several fields are one list (section 5.3). */
static bool
etag_fields_match(const struct request_head *head, const char *base, enum field_id id,
                  struct str etag, enum etag_comparison comparison)
{
    for (size_t i = 0; i < head->field_count; i++) {
        struct str candidate;

        if (head->fields[i].id != id) {
            continue;
        }
        struct str list = span_str(head->fields[i].value, base);
        if (str_equal(list, STR("*"))) {
            return true; /* there is a representation, or nobody would ask */
        }
        while (etag.len > 0 && etag_list_next(&list, &candidate)) {
            if (etag_equal(candidate, etag, comparison)) {
                return true;
            }
        }
    }
    return false;
}

enum date_condition { DATE_ABSENT = 0, DATE_UNCHANGED, DATE_CHANGED };

/* Whether last_modified is after the date in the field. RFC 9110 section 13.1.3 and 13.1.4: a
 * field that is no valid date, or more than one, is ignored. */
static enum date_condition
date_field_compare(const struct request_head *head, const char *base, enum field_id id,
                   time_t last_modified)
{
    enum date_condition condition = DATE_ABSENT;
    size_t count = 0;

    for (size_t i = 0; i < head->field_count; i++) {
        time_t since;

        if (head->fields[i].id != id) {
            continue;
        }
        if (++count > 1 || !http_date_parse(span_str(head->fields[i].value, base), &since)) {
            return DATE_ABSENT;
        }
        condition = last_modified > since ? DATE_CHANGED : DATE_UNCHANGED;
    }
    return condition;
}

enum condition_result
condition_evaluate(const struct request_head *head, const char *base, struct str etag,
                   time_t last_modified)
{
    /* RFC 9110 section 13.2.2, in its order. */
    if (request_field(head, FIELD_IF_MATCH) != NULL) {
        if (!etag_fields_match(head, base, FIELD_IF_MATCH, etag, ETAG_STRONG)) {
            return CONDITION_FAILED;
        }
    } else if (date_field_compare(head, base, FIELD_IF_UNMODIFIED_SINCE, last_modified) ==
               DATE_CHANGED) {
        return CONDITION_FAILED;
    }
    if (request_field(head, FIELD_IF_NONE_MATCH) != NULL) {
        if (etag_fields_match(head, base, FIELD_IF_NONE_MATCH, etag, ETAG_WEAK)) {
            return CONDITION_NOT_MODIFIED;
        }
    } else if (date_field_compare(head, base, FIELD_IF_MODIFIED_SINCE, last_modified) ==
               DATE_UNCHANGED) {
        return CONDITION_NOT_MODIFIED;
    }
    return CONDITION_PROCEED;
}

bool
condition_range_applies(const struct request_head *head, const char *base, struct str etag,
                        time_t last_modified)
{
    const struct field *found = NULL;
    struct str candidate;
    time_t when;

    for (size_t i = 0; i < head->field_count; i++) {
        if (head->fields[i].id == FIELD_IF_RANGE) {
            if (found != NULL) {
                return false; /* If-Range has one validator; which one is meant is unknown */
            }
            found = &head->fields[i];
        }
    }
    if (found == NULL) {
        return true;
    }
    /* RFC 9110 section 13.1.5: a date is no entity tag, and is told from one by its first three
     * bytes. The whole representation is the safe answer to all that is not an exact match. */
    struct str value = span_str(found->value, base);
    if (http_date_parse(value, &when)) {
        return when == last_modified;
    }
    return etag_list_next(&value, &candidate) && value.len == 0 &&
           etag_equal(candidate, etag, ETAG_STRONG);
}
