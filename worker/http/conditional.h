/* SPDX-License-Identifier: Apache-2.0
 *
 * Conditional requests (RFC 9110 section 13): preconditions in their order of precedence.
 */
#pragma once

#include <stdbool.h>
#include <time.h>

#include "worker/http/request.h"

enum condition_result {
    CONDITION_PROCEED = 0,
    CONDITION_NOT_MODIFIED, /* 304 */
    CONDITION_FAILED,       /* 412 */
};

/* etag: with its quotes, and W/ when weak. Only for GET and HEAD. */
enum condition_result condition_evaluate(const struct request_head *head, const char *base,
                                         struct str etag, time_t last_modified);
/* Whether a Range may be used: If-Range is absent, or names this very representation (a strong
 * etag, or the exact date). */
bool condition_range_applies(const struct request_head *head, const char *base, struct str etag,
                             time_t last_modified);
