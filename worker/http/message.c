/* SPDX-License-Identifier: Apache-2.0
 *
 * One walk over the fields of a head. Runs in worker processes.
 */
#include "worker/http/message.h"

#include "worker/http/char_class.h"
#include "worker/http/connection_field.h"

/* RFC 9112 section 6.3: a list of equal values may be taken as one, but parsers differ in which
 * lists they take; none is. */
static const char *
content_length_parse(struct str text, uint64_t *ret_length)
{
    uint64_t length = 0;

    if (text.len == 0) {
        return "an empty Content-Length";
    }
    for (size_t i = 0; i < text.len; i++) {
        if (!char_is(text.ptr[i], CHAR_DIGIT)) {
            return "a Content-Length that is no number";
        }
        uint64_t digit = (uint64_t)(text.ptr[i] - '0');
        /* Not above INT64_MAX: it becomes an off_t. */
        if (length > ((uint64_t)INT64_MAX - digit) / 10) {
            return "a Content-Length that is too large for any machine";
        }
        length = length * 10 + digit;
    }
    *ret_length = length;
    return NULL;
}

static bool
is_token(struct str text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (!char_is(text.ptr[i], CHAR_TOKEN)) {
            return false;
        }
    }
    return text.len > 0;
}

static enum transfer_coding
transfer_coding_parse(struct str text)
{
    const struct str chunked = STR("chunked");
    struct str element;
    bool last_is_chunked = false;
    size_t commas = 0;
    size_t elements = 0;

    if (str_equal_nocase(text, chunked)) {
        return CODING_CHUNKED;
    }
    for (size_t i = 0; i < text.len; i++) {
        commas += text.ptr[i] == ',' ? 1 : 0;
    }
    while (token_list_next(&text, &element)) {
        if (last_is_chunked) {
            /* RFC 9112 section 6.1: chunked once, and last. */
            return CODING_MALFORMED;
        }
        /* Parameters: "gzip;q=1" is a coding we do not know, "chunked;q=1" should be treated as
         * an error (RFC 9112 section 7.1). */
        const char *semicolon = memchr(element.ptr, ';', element.len);
        struct str name = element;
        if (semicolon != NULL) {
            name.len = (size_t)(semicolon - element.ptr);
            while (name.len > 0 && char_is_blank(name.ptr[name.len - 1])) {
                name.len--;
            }
        }
        if (!is_token(name) || (semicolon != NULL && str_equal_nocase(name, chunked))) {
            return CODING_MALFORMED;
        }
        last_is_chunked = str_equal_nocase(name, chunked);
        elements++;
    }
    /* Empty elements ("chunked,", ",chunked", "") are how the readers of this field were told
     * apart again and again; they never stand for anything. */
    if (elements == 0 || commas != elements - 1) {
        return CODING_MALFORMED;
    }
    return CODING_OTHER;
}

/* keepalive-info = keepalive-param *( "," param ), as HTTP/1.1 servers in the field send it
 * (RFC 2068 section 19.7.1.1): "timeout=5, max=100". */
static int64_t
keep_alive_parse_ms(struct str text)
{
    const struct str key = STR("timeout=");
    struct str element;

    while (token_list_next(&text, &element)) {
        if (element.len <= key.len || !str_equal_nocase((struct str){element.ptr, key.len}, key)) {
            continue;
        }
        int64_t seconds = 0;
        for (size_t i = key.len; i < element.len; i++) {
            if (!char_is(element.ptr[i], CHAR_DIGIT)) {
                return -1;
            }
            seconds = seconds * 10 + (element.ptr[i] - '0');
            if (seconds > INT32_MAX) {
                seconds = INT32_MAX; /* longer than anybody waits, and no overflow */
            }
        }
        return seconds * 1000;
    }
    return -1;
}

static void
connection_parse(struct message_facts *facts, struct str text)
{
    struct str option;

    facts->connection_bytes += (uint32_t)text.len;
    /* What almost every request says, without the walk over a list. */
    if (text.len == 10 && memcmp(text.ptr, "keep-alive", 10) == 0) {
        facts->connection_keep_alive = true;
        return;
    }
    while (token_list_next(&text, &option)) {
        facts->connection_close |= str_equal_nocase(option, STR("close"));
        facts->connection_keep_alive |= str_equal_nocase(option, STR("keep-alive"));
        facts->connection_upgrade |= str_equal_nocase(option, STR("upgrade"));
    }
}

static void
expect_parse(struct message_facts *facts, struct str text)
{
    struct str expectation;

    while (token_list_next(&text, &expectation)) {
        /* RFC 9110 section 10.1.1: case-insensitive, and the only one there is. */
        if (str_equal_nocase(expectation, STR("100-continue"))) {
            facts->expect_continue = true;
        } else {
            facts->expect_other = true;
        }
    }
}

void
message_facts_collect(struct message_facts *facts, const struct field *fields, size_t count,
                      const char *base)
{
    *facts = (struct message_facts){.keep_alive_ms = -1};
    for (const struct field *field = fields; field < fields + count; field++) {
        uint32_t line_bytes = field->value.off + field->value.len - field->name.off;
        struct str value;

        if (line_bytes > facts->longest_bytes) {
            facts->longest_bytes = line_bytes;
        }
        if (field->id == FIELD_OTHER) {
            continue;
        }
        value = span_str(field->value, base);
        switch (field->id) {
        case FIELD_HOST:
            if (facts->host_count++ == 0) {
                facts->host = field;
            }
            break;
        case FIELD_CONTENT_LENGTH:
            facts->content_length_count++;
            facts->content_length_bad = content_length_parse(value, &facts->content_length);
            break;
        case FIELD_TRANSFER_ENCODING:
            /* Several fields are one list (RFC 9110 section 5.3), in which nothing but a single
             * "chunked" is taken. */
            facts->coding = facts->transfer_encoding_count++ == 0 ? transfer_coding_parse(value)
                                                                  : CODING_MALFORMED;
            break;
        case FIELD_CONNECTION:
            connection_parse(facts, value);
            break;
        case FIELD_EXPECT:
            expect_parse(facts, value);
            break;
        case FIELD_UPGRADE:
            facts->upgrade |= value.len > 0;
            break;
        case FIELD_KEEP_ALIVE:
            facts->keep_alive_ms = keep_alive_parse_ms(value);
            break;
        default:
            break; /* says nothing about framing or connection */
        }
    }
}
