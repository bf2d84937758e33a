/* SPDX-License-Identifier: Apache-2.0
 *
 * What each byte may be in HTTP, as one table of bits: the scalar truth that every SIMD form in
 * scan_inline.h must agree with (tests/unit/http/test_scan.c compares all 256 bytes). Constant,
 * any process. Private to worker/http.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum char_class {
    CHAR_TOKEN = 1 << 0,    /* tchar, RFC 9110 section 5.6.2 */
    CHAR_VALUE = 1 << 1,    /* field-vchar / SP / HTAB / obs-text, RFC 9110 section 5.5 */
    CHAR_TARGET = 1 << 2,   /* printable ASCII but SP and '#', see scan.h */
    CHAR_REG_NAME = 1 << 3, /* unreserved / sub-delims, RFC 3986 section 3.2.2, without '%' */
    CHAR_PATH = 1 << 4,     /* pchar without '%', and '/', RFC 3986 section 3.3 */
    CHAR_DIGIT = 1 << 5,
    CHAR_ETAG = 1 << 6, /* etagc, RFC 9110 section 8.8.3 */
};

extern const uint8_t char_classes[256];

static inline bool
char_is(char c, enum char_class wanted)
{
    return (char_classes[(unsigned char)c] & wanted) != 0;
}

/* OWS, RFC 9110 section 5.6.3. */
static inline bool
char_is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* -1 when c is no hexadecimal digit. */
static inline int
char_hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    char lower = (char)(c | 0x20);
    if (lower >= 'a' && lower <= 'f') {
        return lower - 'a' + 10;
    }
    return -1;
}
