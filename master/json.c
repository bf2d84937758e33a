/* SPDX-License-Identifier: Apache-2.0
 *
 * JSON output. The last byte written says whether a comma is due, so no state is kept.
 */
#include "master/json.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "config/base/buf.h"
#include "config/base/utf8.h"

/* Control characters are escaped, those of ISO 6429 from U+0080 on too: an answer may be shown on a
 * terminal. A byte that is no UTF-8 is taken for ISO-8859-1, as in the access log. */
static size_t
quote_one(struct buf *out, const unsigned char *p, size_t left)
{
    size_t length = utf8_length(p, left);

    if (*p == '"' || *p == '\\') {
        buf_addf(out, "\\%c", *p);
    } else if (length == 2 && p[0] == 0xc2 && p[1] < 0xa0) {
        buf_addf(out, "\\u%04x", p[1]);
    } else if (length > 0) {
        buf_add(out, p, length);
    } else if (*p < 0x20 || *p >= 0x7f) {
        buf_addf(out, "\\u%04x", *p);
    } else {
        buf_add(out, p, 1);
    }
    return length > 0 ? length : 1;
}

static void
quote(struct buf *out, const char *text)
{
    size_t left = strlen(text);

    buf_add(out, "\"", 1);
    while (left > 0) {
        size_t taken = quote_one(out, (const unsigned char *)text, left);
        text += taken;
        left -= taken;
    }
    buf_add(out, "\"", 1);
}

static void
begin(struct buf *out, const char *key)
{
    char last = out->len > 0 ? out->ptr[out->len - 1] : '{';

    if (last != '{' && last != '[') {
        buf_add(out, ",", 1);
    }
    if (key != NULL) {
        quote(out, key);
        buf_add(out, ":", 1);
    }
}

void
json_open(struct buf *out, const char *key, char bracket)
{
    if (out->len > 0) {
        begin(out, key);
    }
    buf_add(out, &bracket, 1);
}

void
json_close(struct buf *out, char bracket)
{
    buf_add(out, &bracket, 1);
}

void
json_text(struct buf *out, const char *key, const char *text)
{
    begin(out, key);
    quote(out, text);
}

void
json_number(struct buf *out, const char *key, int64_t number)
{
    begin(out, key);
    buf_addf(out, "%" PRId64, number);
}

void
json_bool(struct buf *out, const char *key, bool value)
{
    begin(out, key);
    buf_add_text(out, value ? "true" : "false");
}

void
json_none(struct buf *out, const char *key)
{
    begin(out, key);
    buf_add_text(out, "null");
}
