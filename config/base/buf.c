/* SPDX-License-Identifier: Apache-2.0
 *
 * A growing byte buffer. Runs in every process; not on the request path, where memory is counted.
 */
#include "config/base/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/check.h"

void
buf_release(struct buf *buf)
{
    free(buf->ptr);
    *buf = (struct buf){0};
}

void
buf_clear(struct buf *buf)
{
    buf->len = 0;
}

char *
buf_reserve(struct buf *buf, size_t more)
{
    size_t need = buf->len + more + 1;

    if (need > buf->cap) {
        size_t cap = buf->cap * 2 > need ? buf->cap * 2 : need;
        buf->ptr = xrealloc(buf->ptr, cap);
        buf->cap = cap;
    }
    return buf->ptr + buf->len;
}

void
buf_add(struct buf *buf, const void *bytes, size_t length)
{
    char *end = buf_reserve(buf, length);

    if (length > 0) {
        memcpy(end, bytes, length);
    }
    buf->len += length;
    buf->ptr[buf->len] = '\0';
}

void
buf_add_str(struct buf *buf, struct str s)
{
    buf_add(buf, s.ptr, s.len);
}

void
buf_add_text(struct buf *buf, const char *text)
{
    buf_add(buf, text, strlen(text));
}

void
buf_addf(struct buf *buf, const char *format, ...)
{
    va_list args;
    va_list again;

    va_start(args, format);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    CHECK(length >= 0);
    char *end = buf_reserve(buf, (size_t)length);
    (void)vsnprintf(end, (size_t)length + 1, format, again);
    va_end(again);
    buf->len += (size_t)length;
}

char *
buf_take(struct buf *buf)
{
    char *bytes = buf->ptr;

    *buf = (struct buf){0};
    return bytes;
}
