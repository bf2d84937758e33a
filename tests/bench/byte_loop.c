/* SPDX-License-Identifier: Apache-2.0
 *
 * What parser.c compares with: the method of picohttpparser as its authors published it, for a CPU
 * without SSE4.2, written anew. One pass; each byte of a name is looked up in a table of token
 * characters, each byte of the target and of the values is compared, the values eight at a time
 * without a loop condition between them; the result is pointers into the input. That is all it
 * does: fields have no id, Host, framing, Connection and the parts of the target are left to the
 * caller, an unfinished head is read from its begin again. Not part of narwhal.
 */
#include "tests/bench/byte_loop.h"

#include <stdbool.h>
#include <string.h>

#define WHOLE_NOT (-2)
#define MALFORMED (-1)

static bool
is_token(unsigned char c)
{
    static const char table[256] = {
        ['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1,         ['&'] = 1,         ['\''] = 1,
        ['*'] = 1, ['+'] = 1, ['-'] = 1, ['.'] = 1,         ['^'] = 1,         ['_'] = 1,
        ['`'] = 1, ['|'] = 1, ['~'] = 1, ['0' ... '9'] = 1, ['A' ... 'Z'] = 1, ['a' ... 'z'] = 1,
    };

    return table[c];
}

static bool
is_printable(unsigned char c)
{
    return (unsigned char)(c - 0x20u) < 0x5fu;
}

/* The value of a field up to its line end, which is skipped; NULL with *result when there is none.
 */
static const char *
value_to_end(const char *p, const char *end, struct byte_loop_text *value, long *result)
{
    const char *start = p;

    for (;;) {
        while (end - p >= 8) {
#define STEP                                                                                       \
    if (__builtin_expect(!is_printable((unsigned char)*p), 0)) {                                   \
        goto not_printable;                                                                        \
    }                                                                                              \
    p++;
            STEP STEP STEP STEP STEP STEP STEP STEP
#undef STEP
                continue;
        not_printable:
            if (((unsigned char)*p < 0x20 && *p != '\t') || *p == 0x7f) {
                goto found;
            }
            p++;
        }
        if (p == end) {
            *result = WHOLE_NOT;
            return NULL;
        }
        if (!is_printable((unsigned char)*p) &&
            (((unsigned char)*p < 0x20 && *p != '\t') || *p == 0x7f)) {
            goto found;
        }
        p++;
    }
found:
    if (*p == '\r') {
        p++;
        if (p == end) {
            *result = WHOLE_NOT;
            return NULL;
        }
        if (*p++ != '\n') {
            *result = MALFORMED;
            return NULL;
        }
        value->len = (size_t)(p - 2 - start);
    } else if (*p == '\n') {
        value->len = (size_t)(p - start);
        p++;
    } else {
        *result = MALFORMED;
        return NULL;
    }
    value->ptr = start;
    return p;
}

static const char *
fields(const char *p, const char *end, struct byte_loop_head *head, long *result)
{
    for (;; head->field_count++) {
        if (p == end) {
            *result = WHOLE_NOT;
            return NULL;
        }
        if (*p == '\r') {
            p++;
            if (p == end) {
                *result = WHOLE_NOT;
                return NULL;
            }
            *result = MALFORMED;
            return *p++ == '\n' ? p : NULL;
        }
        if (*p == '\n') {
            return p + 1;
        }
        if (head->field_count == BYTE_LOOP_FIELDS_MAX) {
            *result = MALFORMED;
            return NULL;
        }
        struct byte_loop_text *name = &head->fields[head->field_count].name;
        struct byte_loop_text *value = &head->fields[head->field_count].value;
        name->ptr = p;
        while (*p != ':') {
            if (!is_token((unsigned char)*p)) {
                *result = MALFORMED;
                return NULL;
            }
            if (++p == end) {
                *result = WHOLE_NOT;
                return NULL;
            }
        }
        name->len = (size_t)(p - name->ptr);
        *result = name->len > 0 ? WHOLE_NOT : MALFORMED;
        if (name->len == 0) {
            return NULL;
        }
        do {
            if (++p == end) {
                return NULL;
            }
        } while (*p == ' ' || *p == '\t');
        p = value_to_end(p, end, value, result);
        if (p == NULL) {
            return NULL;
        }
        while (value->len > 0 &&
               (value->ptr[value->len - 1] == ' ' || value->ptr[value->len - 1] == '\t')) {
            value->len--;
        }
    }
}

long
byte_loop_parse(struct byte_loop_head *head, const char *bytes, size_t len)
{
    const char *p = bytes;
    const char *end = bytes + len;
    long result = WHOLE_NOT;

    head->field_count = 0;
    head->method.ptr = p;
    for (;; p++) {
        if (p == end) {
            return WHOLE_NOT;
        }
        if (*p == ' ') {
            break;
        }
        if (!is_token((unsigned char)*p)) {
            return MALFORMED;
        }
    }
    head->method.len = (size_t)(p - bytes);
    do {
        if (++p == end) {
            return WHOLE_NOT;
        }
    } while (*p == ' ');
    head->target.ptr = p;
    while (*p != ' ') {
        if (!is_printable((unsigned char)*p) && ((unsigned char)*p < 0x20 || *p == 0x7f)) {
            return MALFORMED;
        }
        if (++p == end) {
            return WHOLE_NOT;
        }
    }
    head->target.len = (size_t)(p - head->target.ptr);
    p++;
    if (end - p < 10) {
        return WHOLE_NOT;
    }
    if (memcmp(p, "HTTP/1.", 7) != 0 || p[7] < '0' || p[7] > '9' || memcmp(p + 8, "\r\n", 2) != 0) {
        return MALFORMED;
    }
    head->minor_version = p[7] - '0';
    p = fields(p + 10, end, head, &result);
    return p != NULL ? p - bytes : result;
}
