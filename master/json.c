/* SPDX-License-Identifier: Apache-2.0
 *
 * JSON output. The last byte written says whether a comma is due, so no state is kept.
 */
#include "master/json.h"

#include <inttypes.h>
#include <stddef.h>

#include "config/base/buf.h"

static void
quote(struct buf *out, const char *text)
{
    buf_add(out, "\"", 1);
    for (const char *c = text; *c != '\0'; c++) {
        unsigned char byte = (unsigned char)*c;
        if (byte == '"' || byte == '\\') {
            buf_addf(out, "\\%c", byte);
        } else if (byte < 0x20 || byte >= 0x7f) {
            buf_addf(out, "\\u%04x", byte); /* bytes, not characters: whatever they were in */
        } else {
            buf_add(out, c, 1);
        }
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
json_null(struct buf *out, const char *key)
{
    begin(out, key);
    buf_add_text(out, "null");
}
