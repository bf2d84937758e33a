/* SPDX-License-Identifier: Apache-2.0
 *
 * A recursive descent parser with a bounded depth. Pure; runs in narwhalctl.
 */
#include "master/ctl_json.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/buf.h"
#include "config/base/check.h"

struct reader {
    const char *next;
    const char *end;
    int depth;
};

static struct ctl_value *read_value(struct reader *reader);

static void
skip_blanks(struct reader *reader)
{
    while (reader->next < reader->end && strchr(" \t\r\n", *reader->next) != NULL &&
           *reader->next != '\0') {
        reader->next++;
    }
}

static bool
take(struct reader *reader, char c)
{
    if (reader->next < reader->end && *reader->next == c) {
        reader->next++;
        return true;
    }
    return false;
}

static bool
take_word(struct reader *reader, const char *word)
{
    size_t length = strlen(word);

    if ((size_t)(reader->end - reader->next) < length || memcmp(reader->next, word, length) != 0) {
        return false;
    }
    reader->next += length;
    return true;
}

/* ---- texts ----------------------------------------------------------------------------------- */

static int
hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool
read_unicode(struct reader *reader, struct buf *out)
{
    unsigned int code = 0;

    if (reader->end - reader->next < 4) {
        return false;
    }
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(*reader->next++);
        if (digit < 0) {
            return false;
        }
        code = code * 16 + (unsigned int)digit;
    }
    char bytes[3];
    size_t length = 1;
    if (code == 0) {
        bytes[0] = '?';
    } else if (code < 0x100) {
        bytes[0] = (char)code;
    } else if (code < 0x800) {
        bytes[0] = (char)(0xc0 | (code >> 6));
        bytes[1] = (char)(0x80 | (code & 0x3f));
        length = 2;
    } else {
        bytes[0] = (char)(0xe0 | (code >> 12));
        bytes[1] = (char)(0x80 | ((code >> 6) & 0x3f));
        bytes[2] = (char)(0x80 | (code & 0x3f));
        length = 3;
    }
    buf_add(out, bytes, length);
    return true;
}

static bool
read_escape(struct reader *reader, struct buf *out)
{
    static const char letters[] = "\"\\/bfnrt";
    static const char meanings[] = "\"\\/\b\f\n\r\t";

    if (reader->next == reader->end) {
        return false;
    }
    char c = *reader->next++;
    if (c == 'u') {
        return read_unicode(reader, out);
    }
    const char *found = c != '\0' ? strchr(letters, c) : NULL;
    if (found == NULL) {
        return false;
    }
    buf_add(out, &meanings[found - letters], 1);
    return true;
}

/* What stands between quotes, the caller's; NULL: it does not. */
static char *
read_text(struct reader *reader)
{
    struct buf out = {0};

    if (!take(reader, '"')) {
        return NULL;
    }
    buf_add(&out, "", 0);
    while (reader->next < reader->end) {
        char c = *reader->next++;
        if (c == '"') {
            return out.ptr != NULL ? buf_take(&out) : xstrdup("");
        }
        if (c == '\\') {
            if (!read_escape(reader, &out)) {
                break;
            }
        } else if ((unsigned char)c < 0x20) {
            break;
        } else {
            buf_add(&out, &c, 1);
        }
    }
    buf_release(&out);
    return NULL;
}

/* ---- values ---------------------------------------------------------------------------------- */

static struct ctl_value *
value_new(enum ctl_kind kind)
{
    struct ctl_value *value = xcalloc(1, sizeof(*value));

    value->kind = kind;
    return value;
}

static struct ctl_value *
read_number(struct reader *reader)
{
    size_t length = 0;
    size_t room = (size_t)(reader->end - reader->next);

    while (length < room && strchr("+-0123456789.eE", reader->next[length]) != NULL &&
           reader->next[length] != '\0') {
        length++;
    }
    char *text = xstrndup(reader->next, length);
    char *end = NULL;
    double number = strtod(text, &end);
    if (length == 0 || *end != '\0') {
        free(text);
        return NULL;
    }
    struct ctl_value *value = value_new(CTL_NUMBER);
    value->text = text;
    long long whole = strtoll(text, &end, 10);
    value->number = *end == '\0' ? whole : number > -9e18 && number < 9e18 ? (int64_t)number : 0;
    reader->next += length;
    return value;
}

static bool
read_members(struct reader *reader, struct ctl_value *parent, char close)
{
    struct ctl_value **last = &parent->child;

    skip_blanks(reader);
    if (take(reader, close)) {
        return true;
    }
    do {
        char *key = NULL;
        skip_blanks(reader);
        if (parent->kind == CTL_OBJECT) {
            key = read_text(reader);
            skip_blanks(reader);
            if (key == NULL || !take(reader, ':')) {
                free(key);
                return false;
            }
        }
        struct ctl_value *value = read_value(reader);
        if (value == NULL) {
            free(key);
            return false;
        }
        value->key = key;
        *last = value;
        last = &value->next;
        skip_blanks(reader);
    } while (take(reader, ','));
    return take(reader, close);
}

static struct ctl_value *
read_nested(struct reader *reader, enum ctl_kind kind, char close)
{
    struct ctl_value *value;

    if (++reader->depth > CTL_JSON_DEPTH_MAX) {
        return NULL;
    }
    value = value_new(kind);
    if (!read_members(reader, value, close)) {
        ctl_json_free(value);
        return NULL;
    }
    reader->depth--;
    return value;
}

static struct ctl_value *
read_value(struct reader *reader)
{
    skip_blanks(reader);
    if (take(reader, '{')) {
        return read_nested(reader, CTL_OBJECT, '}');
    }
    if (take(reader, '[')) {
        return read_nested(reader, CTL_ARRAY, ']');
    }
    if (reader->next < reader->end && *reader->next == '"') {
        char *text = read_text(reader);
        struct ctl_value *value = text != NULL ? value_new(CTL_TEXT) : NULL;
        if (value != NULL) {
            value->text = text;
        }
        return value;
    }
    bool is_true = take_word(reader, "true");
    if (is_true || take_word(reader, "false")) {
        struct ctl_value *value = value_new(CTL_BOOL);
        value->number = is_true;
        return value;
    }
    return take_word(reader, "null") ? value_new(CTL_NULL) : read_number(reader);
}

struct ctl_value *
ctl_json_parse(const char *text, size_t length)
{
    struct reader reader = {.next = text, .end = text + length};
    struct ctl_value *value = read_value(&reader);

    skip_blanks(&reader);
    if (value != NULL && reader.next != reader.end) {
        ctl_json_free(value);
        return NULL;
    }
    return value;
}

void
ctl_json_free(struct ctl_value *value)
{
    while (value != NULL) {
        struct ctl_value *next = value->next;
        ctl_json_free(value->child); /* as deep as it was read */
        free(value->key);
        free(value->text);
        free(value);
        value = next;
    }
}

/* ---- looking things up ----------------------------------------------------------------------- */

const struct ctl_value *
ctl_get(const struct ctl_value *object, const char *key)
{
    if (object == NULL || object->kind != CTL_OBJECT) {
        return NULL;
    }
    CTL_FOR_EACH(member, object)
    {
        if (strcmp(member->key, key) == 0) {
            return member;
        }
    }
    return NULL;
}

const char *
ctl_text(const struct ctl_value *object, const char *key, const char *absent)
{
    const struct ctl_value *member = ctl_get(object, key);

    return member != NULL && member->text != NULL ? member->text : absent;
}

int64_t
ctl_number(const struct ctl_value *object, const char *key, int64_t absent)
{
    const struct ctl_value *member = ctl_get(object, key);

    return member != NULL && (member->kind == CTL_NUMBER || member->kind == CTL_BOOL)
               ? member->number
               : absent;
}
