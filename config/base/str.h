/* SPDX-License-Identifier: Apache-2.0
 *
 * struct str: a borrowed run of bytes, not NUL-terminated. Never owns; whoever makes one says
 * how long the bytes live.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

struct str {
    const char *ptr;
    size_t len;
};

#define STR(literal) ((struct str){("" literal), sizeof(literal) - 1})
/* For printf's "%.*s". */
#define STR_ARG(s) (int)(s).len, (s).ptr

static inline struct str
str_from(const char *text)
{
    return (struct str){text, strlen(text)};
}

static inline bool
str_equal(struct str a, struct str b)
{
    return a.len == b.len && memcmp(a.ptr, b.ptr, a.len) == 0;
}

/* ASCII case-insensitive comparison, for field names and tokens (RFC 9110 section 5.1). */
static inline bool
str_equal_nocase(struct str a, struct str b)
{
    return a.len == b.len && strncasecmp(a.ptr, b.ptr, a.len) == 0;
}

static inline bool
str_starts_with(struct str s, struct str prefix)
{
    return s.len >= prefix.len && memcmp(s.ptr, prefix.ptr, prefix.len) == 0;
}
