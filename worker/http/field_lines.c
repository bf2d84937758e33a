/* SPDX-License-Identifier: Apache-2.0
 *
 * The loop over field lines, compiled once for each scan level from field_lines_loop.h, so that
 * the scans are inlined. Runs in worker processes.
 */
#include "worker/http/field_lines.h"

#include "worker/http/field_id.h"
#include "worker/http/scan_inline.h"

/* The reasons, out of the way of the loop. */
static __attribute__((cold, noinline)) const char *
reason_for_start(char c)
{
    if (char_is_blank(c)) {
        /* RFC 9112 section 5.2 (obs-fold) and section 2.2 (white space before the first field):
         * a server rejects; parsers that join the lines disagree with those that do not. */
        return "a field line that begins with white space (obs-fold)";
    }
    if (c == ':') {
        return "an empty field name";
    }
    return c == '\n' ? "a bare LF among the fields" : "a byte that may not begin a field name";
}

static __attribute__((cold, noinline)) const char *
reason_for_name(char c)
{
    if (char_is_blank(c)) {
        /* RFC 9112 section 5.1: no white space is allowed, a server MUST reject. */
        return "white space between a field name and its colon";
    }
    if (c == '\r' || c == '\n') {
        return "a field line without a colon";
    }
    return "a byte that may not stand in a field name";
}

static __attribute__((cold, noinline)) const char *
reason_for_value(char c)
{
    /* RFC 9110 section 5.5: CR, LF and NUL in a value are dangerous, reject. */
    if (c == '\n') {
        return "a bare LF in a field value";
    }
    return c == '\0' ? "a NUL in a field value" : "a control byte in a field value";
}

#define FIELD_LINES_FN field_lines_scalar
#define FIELD_LINES_TARGET
#define FIELD_LINES_TOKEN scan_token_scalar
#define FIELD_LINES_FIELD_VALUE scan_field_value_scalar
#include "worker/http/field_lines_loop.h"

#if defined(__x86_64__)
#define FIELD_LINES_FN field_lines_sse42
#define FIELD_LINES_TARGET SCAN_FOR_SSE42
#define FIELD_LINES_TOKEN scan_token_sse42
#define FIELD_LINES_FIELD_VALUE scan_field_value_sse42
#include "worker/http/field_lines_loop.h"

#define FIELD_LINES_FN field_lines_avx2
#define FIELD_LINES_TARGET SCAN_FOR_AVX2
#define FIELD_LINES_TOKEN scan_token_avx2
#define FIELD_LINES_FIELD_VALUE scan_field_value_avx2
#include "worker/http/field_lines_loop.h"
#endif
