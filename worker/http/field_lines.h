/* SPDX-License-Identifier: Apache-2.0
 *
 * The field lines of a head (RFC 9112 section 5), for requests and responses alike: from after the
 * first line to the empty line, into a table of spans. Resumable at every byte. Private to
 * worker/http.
 */
#pragma once

#include "worker/http/head.h"

enum field_lines_state {
    FIELD_LINES_START = 0, /* at the first byte of a line */
    FIELD_LINES_NAME,
    FIELD_LINES_BLANK, /* between the colon and the value */
    FIELD_LINES_VALUE,
    FIELD_LINES_LF,     /* the CR of a field line was seen */
    FIELD_LINES_END_LF, /* the CR of the empty line was seen */
    FIELD_LINES_STATE_COUNT
};

enum field_lines_result {
    FIELD_LINES_MORE = 0,
    FIELD_LINES_DONE,
    FIELD_LINES_BAD,     /* reason says why */
    FIELD_LINES_TOO_MANY /* a line begins beyond max */
};

struct field_lines {
    struct field *fields; /* of the caller; entry [count] holds the unfinished line's spans */
    uint32_t count;
    uint32_t max;
    uint32_t pos;  /* first byte not yet looked at */
    uint32_t seen; /* bytes passed over so far, counted where they are passed over */
    uint8_t state; /* enum field_lines_state */
    const char *reason;
};

/* Reads base[lines->pos..len). Looks at no byte before pos, but for the name of a line that just
 * ended, to find its id. */
typedef enum field_lines_result (*field_lines_fn)(struct field_lines *lines, const char *base,
                                                  uint32_t len);
/* The form of the scan level in use. */
extern field_lines_fn field_lines_run;

enum field_lines_result field_lines_scalar(struct field_lines *lines, const char *base,
                                           uint32_t len);
#if defined(__x86_64__)
enum field_lines_result field_lines_sse42(struct field_lines *lines, const char *base,
                                          uint32_t len);
enum field_lines_result field_lines_avx2(struct field_lines *lines, const char *base, uint32_t len);
#endif
