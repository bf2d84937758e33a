/* SPDX-License-Identifier: Apache-2.0
 *
 * Response heads, as answers to HEAD and to another method. What follows the head chooses the
 * cuts. The framing of an accepted head is derived once more from RFC 9112 section 6.3 alone, and
 * the head that proxy/forward.c makes of it is parsed again.
 */
#include "worker/http/response.h"

#include <stdio.h>
#include <stdlib.h>

#include "config/base/check.h"
#include "tests/fuzz/delivery.h"
#include "worker/http/connection_field.h"
#include "worker/http/scan.h"
#include "worker/proxy/forward.h"

static void
kind_init(void *parser)
{
    response_parser_init(parser);
}

static enum parse_result
kind_run(void *parser, const void *how, const char *base, size_t len)
{
    return response_parser_run(parser, *(const bool *)how, base, len);
}

static void
kind_copy(void *to, const void *from)
{
    response_parser_copy(to, from);
}

static bool
kind_equal(enum parse_result result, const void *a_parser, const void *b_parser)
{
    const struct response_parser *a = a_parser;
    const struct response_parser *b = b_parser;

    if (result == PARSE_BAD) {
        return a->error.status == b->error.status && a->error.reason == b->error.reason &&
               a->error.setting == b->error.setting;
    }
    return memcmp(&a->head, &b->head, offsetof(struct response_head, fields)) == 0 &&
           memcmp(a->head.fields, b->head.fields, a->head.field_count * sizeof(struct field)) == 0;
}

static uint64_t
kind_seen(const void *parser)
{
    return ((const struct response_parser *)parser)->scanned;
}

static size_t
kind_length(const void *parser)
{
    return ((const struct response_parser *)parser)->head.length;
}

static const char *
kind_reason(const void *parser)
{
    return ((const struct response_parser *)parser)->error.reason;
}

static const struct delivery_kind kind = {
    .parser_size = sizeof(struct response_parser),
    .init = kind_init,
    .run = kind_run,
    .copy = kind_copy,
    .equal = kind_equal,
    .seen = kind_seen,
    .length = kind_length,
    .reason = kind_reason,
};

static void
check_head(const struct response_head *head, bool head_request, const char *base)
{
    struct str whole = {base, head->length};
    struct str length_text = {NULL, 0};
    size_t lengths = 0;
    size_t codings = 0;
    uint32_t end = 12; /* of "HTTP/1.1 200" */

    FUZZ_CHECK(head->length >= 4 && memcmp(base + head->length - 4, "\r\n\r\n", 4) == 0,
               "a head without its end");
    for (uint32_t i = 0; i < head->length; i++) {
        unsigned char c = (unsigned char)base[i];
        FUZZ_CHECK(c >= 0x20 || c == '\t' || c == '\r' || c == '\n', "a control byte at %u", i);
        FUZZ_CHECK((c != '\r' || base[i + 1] == '\n') && (c != '\n' || base[i - 1] == '\r'),
                   "a bare CR or LF at %u", i);
    }
    FUZZ_CHECK(head->status >= 100 && head->status <= 999, "status %d", head->status);
    FUZZ_CHECK(fuzz_inside(whole, span_str(head->reason, base)), "the reason lies outside");
    FUZZ_CHECK(base[end] == '\r' ? head->reason.len == 0
                                 : base[end] == ' ' && head->reason.off == end + 1 &&
                                       base[end + 1 + head->reason.len] == '\r',
               "'%.*s' is not the reason", STR_ARG(span_str(head->reason, base)));
    for (size_t i = 0; i < head->field_count; i++) {
        const struct field *field = &head->fields[i];
        struct str name = span_str(field->name, base);
        struct str value = span_str(field->value, base);
        FUZZ_CHECK(fuzz_inside(whole, name) && fuzz_inside(whole, value), "field %zu is outside",
                   i);
        FUZZ_CHECK(name.len > 0 && field->name.off > end &&
                       field->value.off > field->name.off + field->name.len,
                   "field %zu overlaps", i);
        FUZZ_CHECK(scan_token(name.ptr, name.ptr + name.len) == name.ptr + name.len,
                   "name %zu is no token", i);
        FUZZ_CHECK(field->id == field_id_of(name), "field %zu has the id of another", i);
        end = field->value.off + field->value.len;
        if (str_equal_nocase(name, STR("content-length"))) {
            length_text = value;
            lengths++;
        } else if (str_equal_nocase(name, STR("transfer-encoding"))) {
            FUZZ_CHECK(str_equal_nocase(value, STR("chunked")), "Transfer-Encoding %.*s",
                       STR_ARG(value));
            codings++;
        }
    }
    FUZZ_CHECK(lengths + codings <= 1, "%zu Content-Length, %zu Transfer-Encoding", lengths,
               codings);
    /* RFC 9112 section 6.3. */
    enum body_framing wanted =
        head_request || head->status < 200 || head->status == 204 || head->status == 304 ? BODY_NONE
        : codings > 0 ? BODY_CHUNKED
        : lengths > 0 ? BODY_LENGTH
                      : BODY_UNTIL_CLOSE;
    FUZZ_CHECK(head->framing == wanted, "framing %d instead of %d", (int)head->framing,
               (int)wanted);
    FUZZ_CHECK(wanted != BODY_UNTIL_CLOSE || !head->keep_alive, "keep-alive until close");
    FUZZ_CHECK(head->has_content_length == (lengths > 0), "Content-Length is not known of");
    if (lengths > 0) {
        char digits[32];
        FUZZ_CHECK(length_text.len > 0, "an empty Content-Length");
        while (length_text.len > 1 && length_text.ptr[0] == '0') {
            length_text = (struct str){length_text.ptr + 1, length_text.len - 1};
        }
        int count =
            snprintf(digits, sizeof(digits), "%llu", (unsigned long long)head->content_length);
        FUZZ_CHECK(str_equal((struct str){digits, (size_t)count}, length_text),
                   "Content-Length %.*s became %s", STR_ARG(length_text), digits);
    }
}

/* What a client gets: the same status, no field that belongs to the server's connection. */
static void
check_forwarded(const struct response_head *head, const char *base)
{
    static struct response_parser parser;
    struct head_writer writer;
    size_t capacity = (size_t)head->length + 4 * (size_t)head->field_count + 64;
    char *out = malloc(capacity);
    bool has_date;
    bool date_is_there = false;

    CHECK(out != NULL);
    head_writer_init(&writer, out, capacity);
    forward_response_head(&writer, head, base, &has_date);
    head_put_end(&writer);
    FUZZ_CHECK(head_writer_ok(&writer), "the forwarded head is longer than what came");
    response_parser_init(&parser);
    size_t length = head_writer_length(&writer);
    enum parse_result result = response_parser_run(&parser, false, out, length);
    FUZZ_CHECK(result == PARSE_OK || length > RESPONSE_HEAD_MAX, "forwarded it is refused: %s",
               parser.error.reason);
    if (result == PARSE_OK) {
        FUZZ_CHECK(parser.head.status == head->status && parser.head.length == length,
                   "forwarded it is another response");
        for (size_t i = 0; i < parser.head.field_count; i++) {
            const struct field *field = &parser.head.fields[i];
            FUZZ_CHECK(
                field->id != FIELD_CONTENT_LENGTH && field->id != FIELD_TRANSFER_ENCODING &&
                    !field_is_hop_by_hop(field, parser.head.fields, parser.head.field_count, out),
                "hop-by-hop field %.*s was passed on", STR_ARG(span_str(field->name, out)));
            date_is_there |= field->id == FIELD_DATE;
        }
        FUZZ_CHECK(date_is_there == has_date, "a Date that is there was not told of");
    }
    free(out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct response_parser parser;
    struct fuzz_cuts cuts = fuzz_cuts_of(data, size);
    char *base = fuzz_copy(data, size);

    for (int i = 0; i < 2; i++) {
        bool head_request = i == 1;
        if (delivery_check(&kind, &head_request, base, size, &cuts, &parser) == PARSE_OK) {
            check_head(&parser.head, head_request, base);
            check_forwarded(&parser.head, base);
        } else if (parser.error.reason != NULL) {
            FUZZ_CHECK(parser.error.status == 502, "status %d", parser.error.status);
        }
    }
    free(base);
    return 0;
}
