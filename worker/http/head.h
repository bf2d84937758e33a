/* SPDX-License-Identifier: Apache-2.0
 *
 * A parsed message head: where its parts are. Parts are spans, offsets from the head's first byte,
 * not pointers, so that an unfinished head may move to other memory while it is being parsed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/base/str.h"

struct span {
    uint32_t off;
    uint32_t len;
};

static inline struct str
span_str(struct span s, const char *base)
{
    return (struct str){base + s.off, s.len};
}

enum field_id {
    FIELD_OTHER = 0,
#define FIELD(name, text) FIELD_##name,
#include "worker/http/field.def"
    FIELD_ID_COUNT
};

/* The id of a field name in any case; FIELD_OTHER for names that are not in field.def. */
enum field_id field_id_of(struct str name);
/* Its lower-case name; NULL for FIELD_OTHER. */
const char *field_name(enum field_id id);

struct field {
    struct span name;
    struct span value; /* without the white space around it */
    enum field_id id;
};

enum parse_result { PARSE_MORE = 0, PARSE_OK, PARSE_BAD };

/* Why a head was refused. Texts are constants. */
struct parse_error {
    int status;          /* what a server answers: 400, 414, 431, 501, 505; 502 for responses */
    const char *reason;  /* for the log: "bare LF in the request line" */
    const char *setting; /* the limit that was hit ("limit_request_line"), or NULL */
};

/* How the end of a body is known (RFC 9112 section 6.3). */
enum body_framing { BODY_NONE = 0, BODY_LENGTH, BODY_CHUNKED, BODY_UNTIL_CLOSE };

/* Most fields any head may have; settings may ask for fewer. */
#define HTTP_FIELDS_MAX 256
