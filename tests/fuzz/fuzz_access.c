/* SPDX-License-Identifier: Apache-2.0
 *
 * Lines of the access log. The input is a line with an access_format, and a request head. Whatever
 * a client sends and an operator writes, one request is one line, within its room, without a
 * control byte, and with "json" it is JSON.
 */
#include <stdlib.h>

#include "config/base/check.h"
#include "tests/fuzz/fuzz.h"
#include "worker/access_log.h"

/* ---- JSON (RFC 8259), as far as a line of the log needs it ----------------------------------- */

static bool
take_char(struct str *text, char c)
{
    if (text->len == 0 || text->ptr[0] != c) {
        return false;
    }
    *text = (struct str){text->ptr + 1, text->len - 1};
    return true;
}

static bool
take_word(struct str *text, struct str word)
{
    if (!str_starts_with(*text, word)) {
        return false;
    }
    *text = (struct str){text->ptr + word.len, text->len - word.len};
    return true;
}

/* Bytes of the UTF-8 sequence at text (RFC 3629 section 4), or 0. */
static size_t
utf8_sequence(struct str text)
{
    const unsigned char *p = (const unsigned char *)text.ptr;
    uint32_t code = p[0];
    size_t length = code < 0x80   ? 1
                    : code < 0xc0 ? 0
                    : code < 0xe0 ? 2
                    : code < 0xf0 ? 3
                    : code < 0xf8 ? 4
                                  : 0;
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};

    if (length == 0 || length > text.len) {
        return 0;
    }
    if (length > 1) {
        code &= 0x7fu >> length;
    }
    for (size_t i = 1; i < length; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
        code = code << 6 | (p[i] & 0x3f);
    }
    return code < least[length] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ? 0
                                                                                        : length;
}

static bool
take_string(struct str *text)
{
    if (!take_char(text, '"')) {
        return false;
    }
    while (text->len > 0 && text->ptr[0] != '"') {
        size_t length = utf8_sequence(*text);
        if (length == 0 || (unsigned char)text->ptr[0] < 0x20) {
            return false;
        }
        if (text->ptr[0] == '\\') {
            if (text->len < 2 || strchr("\"\\/bfnrtu", text->ptr[1]) == NULL) {
                return false;
            }
            length = text->ptr[1] == 'u' ? 6 : 2;
            if (text->len < length ||
                (length == 6 && strspn(text->ptr + 2, "0123456789abcdefABCDEF") < 4)) {
                return false;
            }
        }
        *text = (struct str){text->ptr + length, text->len - length};
    }
    return take_char(text, '"');
}

static bool
take_number(struct str *text)
{
    size_t digits = 0;

    while (digits < text->len && text->ptr[digits] >= '0' && text->ptr[digits] <= '9') {
        digits++;
    }
    if (digits == 0 || (digits > 1 && text->ptr[0] == '0')) {
        return false;
    }
    *text = (struct str){text->ptr + digits, text->len - digits};
    return true;
}

/* { "key": value, … } with strings, whole numbers and null. */
static bool
is_json_object(struct str text)
{
    if (!take_char(&text, '{')) {
        return false;
    }
    do {
        if (!take_string(&text) || !take_char(&text, ':') ||
            !(take_string(&text) || take_number(&text) || take_word(&text, STR("null")))) {
            return false;
        }
    } while (take_char(&text, ','));
    return take_char(&text, '}') && text.len == 0;
}

/* ---- the lines ------------------------------------------------------------------------------ */

/* bare: the format holds nothing that would be a control byte in the line by itself. */
static void
check_line(const struct access_format *format, const struct access_record *record, size_t capacity,
           bool bare, bool json)
{
    char *out = malloc(capacity + 1);

    CHECK(out != NULL);
    memset(out, '\0', capacity + 1);
    size_t length = access_format_line(format, record, 4711, out, capacity);
    FUZZ_CHECK(length <= capacity && out[length] == '\0', "%zu bytes of %zu", length, capacity);
    FUZZ_CHECK(capacity == 0 || (length > 0 && out[length - 1] == '\n'), "no line end");
    for (size_t i = 0; bare && i + 1 < length; i++) {
        FUZZ_CHECK((unsigned char)out[i] >= 0x20 && out[i] != 0x7f, "a control byte in: %s", out);
    }
    FUZZ_CHECK(!json || is_json_object((struct str){out, length - 1}), "no JSON: %s", out);
    free(out);
}

static bool
has_control_byte(const char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f) {
            return true;
        }
    }
    return false;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct request_limits limits = {.line = 60000, .fields = 256, .head = 60000};
    static const struct peer peer = {.family = PEER_IPV6, .address = {0x20, 0x01, 0x0d, 0xb8}};
    static struct request_parser parser;
    const uint8_t *end = size == 0 ? NULL : memchr(data, '\n', size);
    size_t text_length = end == NULL ? size : (size_t)(end - data);
    size_t rest = end == NULL ? 0 : size - text_length - 1;
    char *text = xstrndup((const char *)data, text_length);
    char *base = fuzz_copy(end == NULL ? NULL : end + 1, rest);
    struct access_format *format = access_format_new(text);
    struct access_format *json = access_format_new("json");

    request_parser_init(&parser);
    bool has_head = request_parser_run(&parser, &limits, base, rest) == PARSE_OK;
    /* The numbers come from where the cuts of other targets come from. */
    uint64_t number = (uint64_t)fuzz_tail(data, size, 0) << (fuzz_tail(data, size, 1) % 64);
    struct access_record record = {.peer = &peer,
                                   .head = has_head ? &parser.head : NULL,
                                   .base = base,
                                   .status = (int)(number % 1000),
                                   .body_bytes = number,
                                   .started_real_ms = (int64_t)(number % INT64_C(253402300800000)),
                                   .duration_ms = (int64_t)(number >> 16),
                                   .backend = rest % 2 == 0 ? NULL : text,
                                   .server = rest % 3 == 0 ? NULL : text,
                                   .upstream_ms = rest % 5 == 0 ? -1 : (int64_t)(number >> 17)};
    check_line(json, &record, ACCESS_LINE_MAX, true, true);
    check_line(json, &record, fuzz_tail(data, size, 2), true, false);
    if (format != NULL) {
        check_line(format, &record, ACCESS_LINE_MAX, !has_control_byte(text), false);
        check_line(format, &record, fuzz_tail(data, size, 2) * 8u, !has_control_byte(text), false);
    }
    access_format_free(format);
    access_format_free(json);
    free(base);
    free(text);
    return 0;
}
