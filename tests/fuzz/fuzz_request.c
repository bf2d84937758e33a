/* SPDX-License-Identifier: Apache-2.0
 *
 * Request heads. The input is what a client sends; what follows the head chooses the cuts and the
 * second set of limits. An accepted head is read once more in the plainest way there is, written
 * anew from its parts and parsed again, and sent on as proxy/forward.c does, where it must be one
 * request with the same framing.
 */
#include <stdlib.h>

#include "config/base/check.h"
#include "tests/fuzz/delivery.h"
#include "worker/http/connection_field.h"
#include "worker/http/request.h"
#include "worker/http/scan.h"
#include "worker/http/target.h"
#include "worker/forwarded.h"
#include "worker/proxy/forward.h"

static void
kind_init(void *parser)
{
    request_parser_init(parser);
}

static enum parse_result
kind_run(void *parser, const void *how, const char *base, size_t len)
{
    return request_parser_run(parser, how, base, len);
}

static void
kind_copy(void *to, const void *from)
{
    request_parser_copy(to, from);
}

static bool
kind_equal(enum parse_result result, const void *a_parser, const void *b_parser)
{
    const struct request_parser *a = a_parser;
    const struct request_parser *b = b_parser;

    if (result == PARSE_BAD) {
        return a->error.status == b->error.status && a->error.reason == b->error.reason &&
               a->error.setting == b->error.setting;
    }
    return memcmp(&a->head, &b->head, offsetof(struct request_head, fields)) == 0 &&
           memcmp(a->head.fields, b->head.fields, a->head.field_count * sizeof(struct field)) == 0;
}

static uint64_t
kind_seen(const void *parser)
{
    return ((const struct request_parser *)parser)->seen;
}

static size_t
kind_length(const void *parser)
{
    return ((const struct request_parser *)parser)->head.length;
}

static const char *
kind_reason(const void *parser)
{
    return ((const struct request_parser *)parser)->error.reason;
}

static const struct delivery_kind kind = {
    .parser_size = sizeof(struct request_parser),
    .init = kind_init,
    .run = kind_run,
    .copy = kind_copy,
    .equal = kind_equal,
    .seen = kind_seen,
    .length = kind_length,
    .reason = kind_reason,
};

/* ---- what an accepted head looks like ------------------------------------------------------- */

/* In the bytes themselves, whatever the parser made of them: RFC 9112 section 2.2 and 5. */
static void
check_bytes(const struct request_head *head, const char *base)
{
    size_t lines = 0;
    size_t start = base[0] == '\r' ? 2 : 0;

    for (size_t i = 0; i < head->length; i++) {
        unsigned char c = (unsigned char)base[i];
        if (c == '\r') {
            FUZZ_CHECK(i + 1 < head->length && base[i + 1] == '\n', "a bare CR at %zu", i);
        } else if (c == '\n') {
            FUZZ_CHECK(i > 0 && base[i - 1] == '\r', "a bare LF at %zu", i);
            lines++;
            FUZZ_CHECK(i + 1 >= head->length || (base[i + 1] != ' ' && base[i + 1] != '\t'),
                       "a line that begins with a blank at %zu", i + 1);
        } else {
            FUZZ_CHECK((c >= 0x20 && c != 0x7f) || c == '\t', "a control byte at %zu", i);
        }
        if (i >= start + 4 && i + 1 < head->length) {
            FUZZ_CHECK(memcmp(base + i - 3, "\r\n\r\n", 4) != 0, "the head went on at %zu", i);
        }
    }
    FUZZ_CHECK(memcmp(base + head->length - 4, "\r\n\r\n", 4) == 0, "a head without its end");
    FUZZ_CHECK(lines == head->field_count + 2u + start / 2, "%zu lines, %u fields", lines,
               head->field_count);
}

static void
check_span(struct span span, struct span within, const char *what)
{
    FUZZ_CHECK(span.len == 0 || (span.off >= within.off && span.off - within.off <= within.len &&
                                 span.len <= within.len - (span.off - within.off)),
               "%s is %u+%u, outside of %u+%u", what, span.off, span.len, within.off, within.len);
}

static void
check_spans(const struct request_head *head, const char *base)
{
    struct span whole = {0, head->length};
    uint32_t end = 0;

    check_span(head->method_text, whole, "the method");
    check_span(head->target, whole, "the target");
    check_span(head->path, head->target, "the path");
    check_span(head->query, head->target, "the query");
    check_span(head->authority, whole, "the authority");
    check_span(head->host, head->authority, "the host");
    FUZZ_CHECK(head->method_text.len > 0 && head->target.len > 0, "an empty part");
    FUZZ_CHECK(head->target.off == head->method_text.off + head->method_text.len + 1,
               "the target does not follow the method");
    FUZZ_CHECK(head->query.len == 0 || (base[head->query.off] == '?' &&
                                        head->query.off == head->path.off + head->path.len),
               "a query that does not follow the path");
    FUZZ_CHECK(memchr(base + head->path.off, '?', head->path.len) == NULL, "a '?' in the path");
    end = head->target.off + head->target.len;
    for (size_t i = 0; i < head->field_count; i++) {
        const struct field *field = &head->fields[i];
        struct str name = span_str(field->name, base);
        struct str value = span_str(field->value, base);
        check_span(field->name, whole, "a name");
        check_span(field->value, whole, "a value");
        FUZZ_CHECK(name.len > 0 && field->name.off > end, "field %zu is not behind the last", i);
        FUZZ_CHECK(field->value.off > field->name.off + field->name.len, "a value in its name");
        end = field->value.off + field->value.len;
        FUZZ_CHECK(scan_token(name.ptr, name.ptr + name.len) == name.ptr + name.len &&
                       name.ptr[name.len] == ':',
                   "name %zu is no token", i);
        FUZZ_CHECK(value.len == 0 || (strchr(" \t", value.ptr[0]) == NULL &&
                                      strchr(" \t", value.ptr[value.len - 1]) == NULL),
                   "value %zu has blanks around it", i);
        FUZZ_CHECK(field->id == field_id_of(name), "field %zu has the id of another", i);
    }
}

/* The fields that frame and route, found by comparing text and by nothing else. */
static void
check_meaning(const struct request_head *head, const char *base)
{
    uint64_t length = 0;
    size_t lengths = 0;
    size_t codings = 0;
    size_t hosts = 0;

    for (size_t i = 0; i < head->field_count; i++) {
        struct str name = span_str(head->fields[i].name, base);
        struct str value = span_str(head->fields[i].value, base);
        if (str_equal_nocase(name, STR("content-length"))) {
            lengths++;
            FUZZ_CHECK(value.len > 0, "an empty Content-Length");
            for (size_t k = 0; k < value.len; k++) {
                FUZZ_CHECK(value.ptr[k] >= '0' && value.ptr[k] <= '9', "Content-Length %.*s",
                           STR_ARG(value));
                FUZZ_CHECK(
                    !__builtin_mul_overflow(length, (uint64_t)10, &length) &&
                        !__builtin_add_overflow(length, (uint64_t)(value.ptr[k] - '0'), &length) &&
                        length <= INT64_MAX,
                    "Content-Length %.*s", STR_ARG(value));
            }
        } else if (str_equal_nocase(name, STR("transfer-encoding"))) {
            codings++;
            FUZZ_CHECK(str_equal_nocase(value, STR("chunked")), "Transfer-Encoding %.*s",
                       STR_ARG(value));
        } else if (str_equal_nocase(name, STR("host"))) {
            hosts++;
            FUZZ_CHECK(value.len > 0 && memchr(value.ptr, '@', value.len) == NULL &&
                           memchr(value.ptr, '/', value.len) == NULL &&
                           memchr(value.ptr, ' ', value.len) == NULL,
                       "Host %.*s", STR_ARG(value));
        }
    }
    FUZZ_CHECK(lengths + codings <= 1, "%zu Content-Length, %zu Transfer-Encoding", lengths,
               codings);
    FUZZ_CHECK(head->minor_version <= 1, "version 1.%u", head->minor_version);
    FUZZ_CHECK(codings == 0 || head->minor_version == 1, "Transfer-Encoding in HTTP/1.0");
    FUZZ_CHECK(hosts <= 1 && (hosts == 1 || head->minor_version == 0), "%zu Host", hosts);
    FUZZ_CHECK((head->framing == BODY_CHUNKED) == (codings == 1) &&
                   (head->framing == BODY_LENGTH) == (lengths == 1) &&
                   head->framing != BODY_UNTIL_CLOSE,
               "framing %d with %zu Content-Length, %zu Transfer-Encoding", (int)head->framing,
               lengths, codings);
    FUZZ_CHECK(lengths == 0 || head->content_length == length, "length %llu of %llu",
               (unsigned long long)head->content_length, (unsigned long long)length);
    switch (head->form) {
    case TARGET_ORIGIN:
        FUZZ_CHECK(base[head->target.off] == '/' && head->path.off == head->target.off,
                   "an origin form without '/'");
        break;
    case TARGET_ABSOLUTE:
        FUZZ_CHECK(head->path.len == 0 || base[head->path.off] == '/', "a path without '/'");
        FUZZ_CHECK(head->host.len > 0, "an absolute form without a host");
        break;
    case TARGET_AUTHORITY:
        FUZZ_CHECK(head->method == METHOD_CONNECT, "an authority form without CONNECT");
        break;
    case TARGET_ASTERISK:
        FUZZ_CHECK(head->method == METHOD_OPTIONS && head->target.len == 1, "no OPTIONS *");
        break;
    }
}

/* ---- the same request once more -------------------------------------------------------------- */

static void
must_equal_text(struct span a, const char *a_base, struct span b, const char *b_base,
                const char *what)
{
    FUZZ_CHECK(str_equal(span_str(a, a_base), span_str(b, b_base)), "%s: '%.*s' became '%.*s'",
               what, STR_ARG(span_str(a, a_base)), STR_ARG(span_str(b, b_base)));
}

/* Written anew from its parts it is the same request. */
static void
check_written_anew(const struct request_head *head, const struct request_limits *limits,
                   const char *base)
{
    static struct request_parser parser;
    struct head_writer writer;
    char *out = malloc(head->length);

    CHECK(out != NULL);
    head_writer_init(&writer, out, head->length);
    head_put(&writer, span_str(head->method_text, base));
    head_put(&writer, STR(" "));
    head_put(&writer, span_str(head->target, base));
    head_put(&writer, head->minor_version == 0 ? STR(" HTTP/1.0\r\n") : STR(" HTTP/1.1\r\n"));
    for (size_t i = 0; i < head->field_count; i++) {
        head_put(&writer, span_str(head->fields[i].name, base));
        head_put(&writer, STR(":"));
        head_put(&writer, span_str(head->fields[i].value, base));
        head_put(&writer, STR("\r\n"));
    }
    head_put_end(&writer);
    FUZZ_CHECK(head_writer_ok(&writer), "the parts are longer than the whole");
    size_t length = head_writer_length(&writer);
    request_parser_init(&parser);
    enum parse_result result = request_parser_run(&parser, limits, out, length);
    FUZZ_CHECK(result == PARSE_OK, "written anew it is refused: %s", parser.error.reason);
    const struct request_head *again = &parser.head;
    FUZZ_CHECK(again->length == length, "%u of %zu bytes", again->length, length);
    FUZZ_CHECK(
        again->method == head->method && again->form == head->form &&
            again->minor_version == head->minor_version && again->keep_alive == head->keep_alive &&
            again->expect_continue == head->expect_continue &&
            again->expect_other == head->expect_other && again->upgrade == head->upgrade &&
            again->framing == head->framing && again->content_length == head->content_length &&
            again->field_count == head->field_count,
        "written anew it means something else");
    must_equal_text(head->path, base, again->path, out, "path");
    must_equal_text(head->query, base, again->query, out, "query");
    must_equal_text(head->authority, base, again->authority, out, "authority");
    must_equal_text(head->host, base, again->host, out, "host");
    free(out);
}

/* What a server behind narwhal gets: one request, the same one, that no other can hide in. */
static void
check_forwarded(const struct request_head *head, const char *base)
{
    static const struct request_limits any = {
        .line = 1 << 20, .fields = HTTP_FIELDS_MAX, .head = 1 << 21};
    static const struct peer peer = {.family = PEER_IPV4, .address = {192, 0, 2, 7}};
    static struct request_parser parser;
    struct head_writer writer;
    struct str path = span_str(head->path, base);
    char *normal = malloc(path.len + 1 + (path.len == 0));
    size_t normal_length;
    bool rewritten;

    CHECK(normal != NULL);
    if ((head->form != TARGET_ORIGIN && head->form != TARGET_ABSOLUTE) || head->host.len == 0 ||
        target_normalise(path, normal, path.len + 1 + (path.len == 0), &normal_length,
                         &rewritten) != NULL) {
        free(normal);
        return;
    }
    static struct network network = {.family = NETWORK_IPV4, .bits = 8, .address = {192}};
    static const struct network_list trusted = {1, &network};
    struct peer client = peer;
    /* By what the request has, so that a plain file is an input of every kind. */
    unsigned int trust = head->length % 5;
    enum told_by told_by = trust < 3 ? TOLD_BY_X_FORWARDED : TOLD_BY_FORWARDED;
    if (trust > 0) {
        forwarded_find_client(head, base, told_by, &trusted, &peer, &client);
    }
    struct forward_input input = {.head = head,
                                  .base = base,
                                  .path = {normal, normal_length},
                                  .path_rewritten = rewritten,
                                  .peer = &peer,
                                  .client = &client,
                                  .believed = trust > 0,
                                  .told_by = told_by,
                                  .trusted = &trusted,
                                  .forwarded = trust % 2 == 0,
                                  .host = STR("")};
    size_t capacity = forward_request_size_max(&input);
    char *out = malloc(capacity);
    CHECK(out != NULL);
    head_writer_init(&writer, out, capacity);
    forward_request_head(&writer, &input);
    FUZZ_CHECK(head_writer_ok(&writer), "the forwarded head is longer than its bound");
    size_t length = head_writer_length(&writer);
    request_parser_init(&parser);
    enum parse_result result = request_parser_run(&parser, &any, out, length);
    const struct request_head *sent = &parser.head;
    FUZZ_CHECK(result == PARSE_OK || head->field_count + 8 > HTTP_FIELDS_MAX,
               "forwarded it is refused: %s", parser.error.reason);
    if (result == PARSE_OK) {
        FUZZ_CHECK(sent->length == length, "%u of %zu forwarded bytes", sent->length, length);
        FUZZ_CHECK(sent->framing == head->framing && sent->content_length == head->content_length &&
                       sent->method == head->method && sent->form == TARGET_ORIGIN,
                   "forwarded it means something else");
        FUZZ_CHECK(!sent->expect_continue && !sent->expect_other, "Expect was passed on");
        must_equal_text(head->method_text, base, sent->method_text, out, "forwarded method");
        must_equal_text(head->query, base, sent->query, out, "forwarded query");
        must_equal_text(head->authority, base, sent->authority, out, "forwarded Host");
        for (size_t i = 0; i < sent->field_count; i++) {
            FUZZ_CHECK(
                sent->fields[i].id == FIELD_TRANSFER_ENCODING ||
                    (sent->upgrade && (sent->fields[i].id == FIELD_CONNECTION ||
                                       sent->fields[i].id == FIELD_UPGRADE)) ||
                    !field_is_hop_by_hop(&sent->fields[i], sent->fields, sent->field_count, out),
                "hop-by-hop field %.*s was passed on",
                STR_ARG(span_str(sent->fields[i].name, out)));
        }
        /* The server sees the path that the route was chosen by. */
        struct str sent_path = span_str(sent->path, out);
        char *seen = malloc(sent_path.len + 1);
        size_t seen_length;
        CHECK(seen != NULL);
        FUZZ_CHECK(target_normalise(sent_path, seen, sent_path.len + 1, &seen_length, &rewritten) ==
                           NULL &&
                       str_equal((struct str){seen, seen_length}, input.path),
                   "path '%.*s' was forwarded as '%.*s'", STR_ARG(input.path), STR_ARG(sent_path));
        free(seen);
    }
    free(out);
    free(normal);
}

static void
check_refusal(const struct parse_error *error)
{
    switch (error->status) {
    case 400:
    case 501:
    case 505:
        FUZZ_CHECK(error->setting == NULL, "%d names a limit", error->status);
        break;
    case 414:
        FUZZ_CHECK(error->setting != NULL, "414 without the limit's name");
        break;
    case 431:
        break;
    default:
        fuzz_fail(__FILE__, __LINE__, "status %d: %s", error->status, error->reason);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct request_parser parser;
    struct fuzz_cuts cuts = fuzz_cuts_of(data, size);
    const struct request_limits limits[] = {
        {.line = 8192, .fields = 100, .head = 32768},
        {.line = 16 + fuzz_tail(data, size, 0) % 128u,
         .fields = fuzz_tail(data, size, 1) % 16u,
         .head = 32 + fuzz_tail(data, size, 2) * 8u},
    };
    char *base = fuzz_copy(data, size);

    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        enum parse_result result = delivery_check(&kind, &limits[i], base, size, &cuts, &parser);
        if (result == PARSE_BAD) {
            check_refusal(&parser.error);
        } else if (result == PARSE_OK) {
            FUZZ_CHECK(parser.head.length <= limits[i].head &&
                           parser.head.field_count <= limits[i].fields,
                       "%u bytes and %u fields are beyond the limits", parser.head.length,
                       parser.head.field_count);
            check_bytes(&parser.head, base);
            check_spans(&parser.head, base);
            check_meaning(&parser.head, base);
            check_written_anew(&parser.head, &limits[i], base);
            check_forwarded(&parser.head, base);
        } else {
            FUZZ_CHECK(size < limits[i].head, "more is wanted beyond the limit");
        }
    }
    free(base);
    return 0;
}
