/* SPDX-License-Identifier: Apache-2.0
 *
 * Writes heads by memcpy(). After the first part that did not fit nothing more is written, so that
 * a head is never sent with a hole in it. Runs in worker processes.
 */
#include "worker/http/head_writer.h"

#include "config/base/check.h"
#include "worker/http/scan.h"
#include "worker/http/status.h"

#define STATUS_FIRST 100
#define STATUS_LAST 599
#define DECIMAL_MAX 20 /* digits of UINT64_MAX */

void
head_writer_init(struct head_writer *writer, char *out, size_t capacity)
{
    *writer = (struct head_writer){.start = out, .pos = out, .end = out + capacity};
}

bool
head_writer_ok(const struct head_writer *writer)
{
    return !writer->overflow;
}

size_t
head_writer_length(const struct head_writer *writer)
{
    return (size_t)(writer->pos - writer->start);
}

/* NULL when there is no room. */
static inline char *
reserve(struct head_writer *writer, size_t length)
{
    char *at = writer->pos;

    if (writer->overflow || (size_t)(writer->end - at) < length) {
        writer->overflow = true;
        return NULL;
    }
    writer->pos = at + length;
    return at;
}

void
head_put(struct head_writer *writer, struct str bytes)
{
    char *at = reserve(writer, bytes.len);

    if (at != NULL && bytes.len > 0) { /* memcpy() from NULL is undefined even for no bytes */
        memcpy(at, bytes.ptr, bytes.len);
    }
}

static void
check_text(struct str text)
{
#ifndef NDEBUG
    /* A CR or LF here would begin another field, or another response. */
    CHECK(scan_field_value(text.ptr, text.ptr + text.len) == text.ptr + text.len);
#else
    (void)text;
#endif
}

void
head_put_status_line(struct head_writer *writer, int status, struct str reason)
{
    static const struct str lines[STATUS_LAST - STATUS_FIRST + 1] = {
#define STATUS(code, phrase) [code - STATUS_FIRST] = STR("HTTP/1.1 " #code " " phrase "\r\n"),
#include "worker/http/status.def"
    };

    CHECK(status >= 100 && status <= 999);
    if (reason.len == 0) {
        if (status <= STATUS_LAST && lines[status - STATUS_FIRST].len > 0) {
            head_put(writer, lines[status - STATUS_FIRST]);
            return;
        }
        reason = str_from(status_phrase(status));
    }
    check_text(reason);
    head_put(writer, STR("HTTP/1.1 "));
    head_put_number(writer, (uint64_t)status);
    head_put(writer, STR(" "));
    head_put(writer, reason);
    head_put(writer, STR("\r\n"));
}

void
head_put_field(struct head_writer *writer, struct str name, struct str value)
{
    check_text(name);
    check_text(value);
    char *at = reserve(writer, name.len + value.len + 4);
    if (at == NULL) {
        return;
    }
    memcpy(at, name.ptr, name.len);
    at += name.len;
    *at++ = ':';
    *at++ = ' ';
    if (value.len > 0) {
        memcpy(at, value.ptr, value.len);
        at += value.len;
    }
    *at++ = '\r';
    *at = '\n';
}

/* The digits end at out + DECIMAL_MAX; how many there are. */
static size_t
format_decimal(char out[DECIMAL_MAX], uint64_t value)
{
    char *at = out + DECIMAL_MAX;

    do {
        *--at = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    return (size_t)(out + DECIMAL_MAX - at);
}

void
head_put_number(struct head_writer *writer, uint64_t value)
{
    char digits[DECIMAL_MAX];
    size_t length = format_decimal(digits, value);

    head_put(writer, (struct str){digits + DECIMAL_MAX - length, length});
}

void
head_put_number_field(struct head_writer *writer, struct str name, uint64_t value)
{
    char digits[DECIMAL_MAX];
    size_t length = format_decimal(digits, value);

    head_put_field(writer, name, (struct str){digits + DECIMAL_MAX - length, length});
}

void
head_put_end(struct head_writer *writer)
{
    head_put(writer, STR("\r\n"));
}
