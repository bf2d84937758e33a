/* SPDX-License-Identifier: Apache-2.0
 *
 * From a request to an answer: methods, the folder without its slash, preconditions, ranges. The
 * order is that of RFC 9110 section 13.2.2: a status that the file alone decides comes first, then
 * preconditions, then the range.
 *
 * Runs in worker processes.
 */
#include "worker/static/static_file.h"

#include <stdlib.h>
#include <string.h>

#include "config/base/check.h"
#include "worker/http/conditional.h"
#include "worker/http/range.h"
#include "worker/http/target.h"
#include "worker/static/static_private.h"

static const char allowed_methods[] = "GET, HEAD, OPTIONS";

_Static_assert(FIELD_ID_COUNT <= 64, "a set of field ids is one word");
#define FIELD_BIT(id) (UINT64_C(1) << (id))
#define FIELDS_CONDITIONAL                                                                         \
    (FIELD_BIT(FIELD_IF_MATCH) | FIELD_BIT(FIELD_IF_NONE_MATCH) |                                  \
     FIELD_BIT(FIELD_IF_MODIFIED_SINCE) | FIELD_BIT(FIELD_IF_UNMODIFIED_SINCE))

static void
answer_set_status(struct static_answer *answer, int status, enum static_body body,
                  const char *reason)
{
    answer->status = status;
    answer->body = body;
    answer->reason = reason;
}

/* To the same path with a '/' behind it, and the same query (RFC 9110 section 10.2.2: a relative
 * reference). path is normal: it begins with exactly one '/', so that the reference can never be
 * read as "//host". */
static void
answer_redirect(struct static_answer *answer, struct str path, struct str query)
{
    char *location = xcalloc(1, 3 * path.len + 1 + query.len + 1);
    size_t length = target_encode(path, location);

    location[length++] = '/';
    if (query.len > 0) {
        memcpy(location + length, query.ptr, query.len);
    }
    answer_set_status(answer, 301, STATIC_BODY_PAGE, NULL);
    answer->location = location;
}

/* Which of the fields that matter here are there, in one pass; *ret_repeated: Range is there more
 * than once. */
static uint64_t
fields_present(const struct request_head *head, bool *ret_repeated)
{
    uint64_t present = 0;

    *ret_repeated = false;
    for (size_t i = 0; i < head->field_count; i++) {
        enum field_id id = head->fields[i].id;
        *ret_repeated |= id == FIELD_RANGE && (present & FIELD_BIT(FIELD_RANGE)) != 0;
        present |= FIELD_BIT(id);
    }
    return present;
}

/* Narrows a 200 to what the Range field asks for. */
static void
answer_apply_range(struct static_answer *answer, struct str value)
{
    struct byte_range range;

    switch (range_parse(value, answer->file->size, &range)) {
    case RANGE_IGNORE:
        break;
    case RANGE_ONE:
        answer_set_status(answer, 206, STATIC_BODY_FILE, NULL);
        answer->first = range.first;
        answer->length = range.last - range.first + 1;
        break;
    case RANGE_UNSATISFIABLE:
        answer_set_status(answer, 416, STATIC_BODY_PAGE, "the range begins behind the file's end");
        break;
    }
}

/* The file is there, and may be read. */
static void
answer_from_file(struct static_answer *answer, const struct request_head *head, const char *base)
{
    struct static_file *file = answer->file;
    bool range_repeated;
    uint64_t present = fields_present(head, &range_repeated);

    answer_set_status(answer, 200, STATIC_BODY_FILE, NULL);
    answer->length = file->size;
    if ((present & FIELDS_CONDITIONAL) != 0) {
        switch (condition_evaluate(head, base, file->etag, file->last_modified)) {
        case CONDITION_PROCEED:
            break;
        case CONDITION_NOT_MODIFIED:
            answer_set_status(answer, 304, STATIC_BODY_NONE, NULL);
            break;
        case CONDITION_FAILED:
            answer_set_status(answer, 412, STATIC_BODY_PAGE,
                              "the file is not in the state that the client named");
            break;
        }
    }
    /* Range has a meaning for GET only (RFC 9110 section 14.2), and is one field, not a list. */
    if (answer->status == 200 && head->method == METHOD_GET && !range_repeated &&
        (present & FIELD_BIT(FIELD_RANGE)) != 0 &&
        condition_range_applies(head, base, file->etag, file->last_modified)) {
        answer_apply_range(answer, span_str(request_field(head, FIELD_RANGE)->value, base));
    }
    if (answer->body != STATIC_BODY_FILE) {
        answer->length = 0;
    }
    answer->send_length = head->method == METHOD_HEAD ? 0 : answer->length;
}

void
static_answer_make(struct static_root *root, struct str path, size_t cut,
                   const struct request_head *head, const char *base, int64_t now_ms,
                   int64_t cache_ms, struct static_answer *ret)
{
    struct static_lookup lookup;

    CHECK(cut <= path.len && path.len > 0);
    *ret = (struct static_answer){0};
    if (head->method != METHOD_GET && head->method != METHOD_HEAD) {
        ret->allow = allowed_methods;
        if (head->method == METHOD_OPTIONS) {
            answer_set_status(ret, 204, STATIC_BODY_NONE, NULL);
        } else {
            answer_set_status(ret, 405, STATIC_BODY_PAGE,
                              "static files are for GET, HEAD and OPTIONS");
        }
        return;
    }

    struct str below = {path.ptr + cut, path.len - cut};
    if (below.len > 0 && below.ptr[0] == '/') {
        below = (struct str){below.ptr + 1, below.len - 1};
    }
    if (below.len == 0 && path.ptr[path.len - 1] != '/') {
        /* The root itself, under a route whose path does not end with '/'. */
        answer_redirect(ret, path, span_str(head->query, base));
        return;
    }
    static_root_lookup(root, below, now_ms, cache_ms, &lookup);
    if (lookup.status == 200) {
        ret->file = lookup.file;
        answer_from_file(ret, head, base);
    } else if (lookup.status == 301) {
        answer_redirect(ret, path, span_str(head->query, base));
    } else {
        answer_set_status(ret, lookup.status, STATIC_BODY_PAGE, lookup.reason);
        ret->error = lookup.error;
    }
}

void
static_answer_release(struct static_answer *answer)
{
    static_file_unref(&answer->file);
    free(answer->location);
    answer->location = NULL;
}
