/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tests of worker/http share: input between two pages that nobody may touch, so that a
 * read one byte outside ends the test; every scan level in turn; a small generator whose numbers
 * are the same on every run.
 */
#pragma once

#include <criterion/criterion.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "config/base/str.h"
#include "worker/http/scan.h"

#define GUARDED_MAX ((size_t)128 * 1024)

/* [page without access][GUARDED_MAX bytes][page without access], made at the first use. */
static inline char *
guarded_area(void)
{
    static char *area;

    if (area == NULL) {
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        char *map = mmap(NULL, GUARDED_MAX + 2 * page, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        cr_assert(map != MAP_FAILED);
        cr_assert(mprotect(map, page, PROT_NONE) == 0);
        cr_assert(mprotect(map + page + GUARDED_MAX, page, PROT_NONE) == 0);
        area = map + page;
    }
    return area;
}

/* A copy whose last byte is the last one that may be read. */
static inline const char *
guarded_at_end(const char *bytes, size_t length)
{
    cr_assert(length <= GUARDED_MAX);
    char *at = guarded_area() + GUARDED_MAX - length;

    if (length > 0) {
        memcpy(at, bytes, length);
    }
    return at;
}

/* A copy whose first byte is the first one that may be read. */
static inline const char *
guarded_at_start(const char *bytes, size_t length)
{
    cr_assert(length <= GUARDED_MAX);
    if (length > 0) {
        memcpy(guarded_area(), bytes, length);
    }
    return guarded_area();
}

/* Runs the statement below once for each scan level that this CPU has. */
#define FOR_EACH_SCAN_LEVEL(level)                                                                 \
    for (int level = 0; level < SCAN_LEVEL_COUNT; level++)                                         \
        if (scan_use((enum scan_level)level))

/* xorshift64: not random, but the same everywhere. */
static inline uint64_t
next_number(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static inline size_t
next_below(uint64_t *state, size_t limit)
{
    return (size_t)(next_number(state) % limit);
}

/* Bytes in a form for messages; the last call's text. */
static inline const char *
printable(const char *bytes, size_t length)
{
    static char text[2048];
    size_t at = 0;

    for (size_t i = 0; i < length && at + 8 < sizeof(text); i++) {
        unsigned char c = (unsigned char)bytes[i];
        if (c >= 0x20 && c < 0x7f && c != '\\') {
            text[at++] = (char)c;
        } else {
            at += (size_t)snprintf(text + at, sizeof(text) - at, "\\x%02x", c);
        }
    }
    text[at] = '\0';
    return text;
}

static inline bool
str_is(struct str s, const char *text)
{
    return s.len == strlen(text) && memcmp(s.ptr, text, s.len) == 0;
}
