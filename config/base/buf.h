/* SPDX-License-Identifier: Apache-2.0
 *
 * struct buf: a growing run of bytes that its holder owns. Always followed by a NUL once anything
 * was added, so that it may be read as text.
 */
#pragma once

#include <stdarg.h>
#include <stddef.h>

#include "config/base/str.h"

struct buf {
    char *ptr;
    size_t len;
    size_t cap;
};

void buf_release(struct buf *buf);
/* Forgets the content, keeps the memory. */
void buf_clear(struct buf *buf);
/* Makes room for more bytes after len and returns where they go. */
char *buf_reserve(struct buf *buf, size_t more);
void buf_add(struct buf *buf, const void *bytes, size_t length);
void buf_add_str(struct buf *buf, struct str s);
void buf_add_text(struct buf *buf, const char *text);
void buf_addf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Gives the bytes to the caller, who frees them; the buf is empty afterwards. */
char *buf_take(struct buf *buf);
