/* SPDX-License-Identifier: Apache-2.0
 *
 * Request heads: what is taken, what each part is, what is refused and with which status and
 * setting; each case in every delivery and at every scan level (deliver.h).
 */
#include "deliver.h"

static struct request_parser parser;

#define HOST "Host: a.example\r\n"

/* ---- what is taken
 * -----------------------------------------------------------------------------*/

struct taken {
    const char *text;
    enum method method;
    enum target_form form;
    const char *target;
    const char *path;
    const char *query;
    const char *authority;
    const char *host;
    uint8_t minor_version;
    uint16_t field_count;
};

static const struct taken taken[] = {
    {"GET / HTTP/1.1\r\n" HOST "\r\n", METHOD_GET, TARGET_ORIGIN, "/", "/", "", "a.example",
     "a.example", 1, 1},
    {"\r\nGET / HTTP/1.1\r\n" HOST "\r\n", METHOD_GET, TARGET_ORIGIN, "/", "/", "", "a.example",
     "a.example", 1, 1},
    {"GET /a/b?c=d?e HTTP/1.0\r\n\r\n", METHOD_GET, TARGET_ORIGIN, "/a/b?c=d?e", "/a/b", "?c=d?e",
     "", "", 0, 0},
    {"GET /? HTTP/1.0\r\n\r\n", METHOD_GET, TARGET_ORIGIN, "/?", "/", "?", "", "", 0, 0},
    {"GET //x/../y HTTP/1.0\r\n\r\n", METHOD_GET, TARGET_ORIGIN, "//x/../y", "//x/../y", "", "", "",
     0, 0},
    {"HEAD / HTTP/1.0\r\n\r\n", METHOD_HEAD, TARGET_ORIGIN, "/", "/", "", "", "", 0, 0},
    {"POST / HTTP/1.0\r\n\r\n", METHOD_POST, TARGET_ORIGIN, "/", "/", "", "", "", 0, 0},
    {"PUT / HTTP/1.0\r\n\r\n", METHOD_PUT, TARGET_ORIGIN, "/", "/", "", "", "", 0, 0},
    {"DELETE / HTTP/1.0\r\n\r\n", METHOD_DELETE, TARGET_ORIGIN, "/", "/", "", "", "", 0, 0},
    {"TRACE / HTTP/1.0\r\n\r\n", METHOD_TRACE, TARGET_ORIGIN, "/", "/", "", "", "", 0, 0},
    {"PATCH / HTTP/1.0\r\n\r\n", METHOD_PATCH, TARGET_ORIGIN, "/", "/", "", "", "", 0, 0},
    {"OPTIONS / HTTP/1.0\r\n\r\n", METHOD_OPTIONS, TARGET_ORIGIN, "/", "/", "", "", "", 0, 0},
    {"get / HTTP/1.0\r\n\r\n", METHOD_OTHER, TARGET_ORIGIN, "/", "/", "", "", "", 0, 0},
    {"GETS / HTTP/1.0\r\n\r\n", METHOD_OTHER, TARGET_ORIGIN, "/", "/", "", "", "", 0, 0},
    {"G / HTTP/1.0\r\n\r\n", METHOD_OTHER, TARGET_ORIGIN, "/", "/", "", "", "", 0, 0},
    {"M-SEARCH / HTTP/1.0\r\n\r\n", METHOD_OTHER, TARGET_ORIGIN, "/", "/", "", "", "", 0, 0},
    {"OPTIONS * HTTP/1.1\r\n" HOST "\r\n", METHOD_OPTIONS, TARGET_ASTERISK, "*", "", "",
     "a.example", "a.example", 1, 1},
    {"CONNECT b.example:443 HTTP/1.1\r\n" HOST "\r\n", METHOD_CONNECT, TARGET_AUTHORITY,
     "b.example:443", "", "", "a.example", "a.example", 1, 1},
    {"GET http://A.example:80/p?q HTTP/1.1\r\n" HOST "\r\n", METHOD_GET, TARGET_ABSOLUTE,
     "http://A.example:80/p?q", "/p", "?q", "A.example:80", "A.example", 1, 1},
    {"GET http://a.example HTTP/1.1\r\n" HOST "\r\n", METHOD_GET, TARGET_ABSOLUTE,
     "http://a.example", "", "", "a.example", "a.example", 1, 1},
    {"GET http://a.example?q HTTP/1.1\r\n" HOST "\r\n", METHOD_GET, TARGET_ABSOLUTE,
     "http://a.example?q", "", "?q", "a.example", "a.example", 1, 1},
    {"GET hTTpS://[::1]:8443/ HTTP/1.1\r\nHost: [::1]:8443\r\n\r\n", METHOD_GET, TARGET_ABSOLUTE,
     "hTTpS://[::1]:8443/", "/", "", "[::1]:8443", "[::1]", 1, 1},
    {"GET https://a.example:443/ HTTP/1.1\r\n" HOST "\r\n", METHOD_GET, TARGET_ABSOLUTE,
     "https://a.example:443/", "/", "", "a.example:443", "a.example", 1, 1},
    {"GET http://b.example/ HTTP/1.0\r\n\r\n", METHOD_GET, TARGET_ABSOLUTE, "http://b.example/",
     "/", "", "b.example", "b.example", 0, 0},
    {"GET / HTTP/1.1\r\nhost:  [::1]:80 \t\r\n\r\n", METHOD_GET, TARGET_ORIGIN, "/", "/", "",
     "[::1]:80", "[::1]", 1, 1},
    {"GET / HTTP/1.1\r\nA: 1\r\nB:2\r\nHost: a.example:80\r\nC:\r\n\r\n", METHOD_GET, TARGET_ORIGIN,
     "/", "/", "", "a.example:80", "a.example", 1, 4},
};

Test(request, the_parts_of_a_head_are_found)
{
    for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++) {
        const struct taken *row = &taken[i];
        const struct request_head *head = &parser.head;
        size_t length = strlen(row->text);
        enum parse_result result = request_deliver(&parser, &default_limits, row->text, length, 1);

        cr_assert(result == PARSE_OK, "%s: %s", printable(row->text, length), parser.error.reason);
        cr_expect_eq(head->method, row->method, "%s", row->text);
        cr_expect_eq(head->form, row->form, "%s", row->text);
        cr_expect(str_is(span_str(head->target, row->text), row->target), "%s", row->text);
        cr_expect(str_is(span_str(head->path, row->text), row->path), "%s", row->text);
        cr_expect(str_is(span_str(head->query, row->text), row->query), "%s", row->text);
        cr_expect(str_is(span_str(head->authority, row->text), row->authority), "%s", row->text);
        cr_expect(str_is(span_str(head->host, row->text), row->host), "%s", row->text);
        cr_expect_eq(head->minor_version, row->minor_version, "%s", row->text);
        cr_expect_eq(head->field_count, row->field_count, "%s", row->text);
        cr_expect_eq(head->length, length, "%s", row->text);
        struct str method = span_str(head->method_text, row->text);
        cr_expect(row->method == METHOD_OTHER || str_is(method, method_name(row->method)), "%s",
                  row->text);
    }
}

Test(request, fields_are_spans_without_the_white_space_around_them)
{
    static const char text[] =
        "GET / HTTP/1.1\r\n"
        "HOST:a.example\r\n"
        "X-Empty:\r\n"
        "X-Blank: \t \r\n"
        "X-Tabs:\t a\tb \t\r\n"
        "X-Obs: \xe4\xff\r\n"
        "X-Colon:: :\r\n"
        "User-Agent: a-long-value-that-is-more-than-one-block-of-any-kind\r\n"
        "\r\n";
    static const struct {
        enum field_id id;
        const char *name;
        const char *value;
    } wanted[] = {
        {FIELD_HOST, "HOST", "a.example"},
        {FIELD_OTHER, "X-Empty", ""},
        {FIELD_OTHER, "X-Blank", ""},
        {FIELD_OTHER, "X-Tabs", "a\tb"},
        {FIELD_OTHER, "X-Obs", "\xe4\xff"},
        {FIELD_OTHER, "X-Colon", ": :"},
        {FIELD_USER_AGENT, "User-Agent", "a-long-value-that-is-more-than-one-block-of-any-kind"},
    };

    cr_assert(request_deliver(&parser, &default_limits, text, sizeof(text) - 1, 1) == PARSE_OK);
    cr_assert_eq(parser.head.field_count, sizeof(wanted) / sizeof(wanted[0]));
    for (size_t i = 0; i < parser.head.field_count; i++) {
        const struct field *field = &parser.head.fields[i];
        cr_expect_eq(field->id, wanted[i].id, "%s", wanted[i].name);
        cr_expect(str_is(span_str(field->name, text), wanted[i].name), "%s", wanted[i].name);
        cr_expect(str_is(span_str(field->value, text), wanted[i].value), "%s", wanted[i].name);
    }
    cr_expect(request_field(&parser.head, FIELD_USER_AGENT) == &parser.head.fields[6]);
    cr_expect(request_field(&parser.head, FIELD_RANGE) == NULL);
}

Test(request, what_follows_the_head_is_not_looked_at)
{
    static const char text[] = "POST / HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\n"
                               "\0\r\nGET / HTTP/9.9\r\n\r\n";
    size_t head_length = sizeof("POST / HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\n") - 1;

    cr_assert(request_deliver(&parser, &default_limits, text, sizeof(text) - 1, 1) == PARSE_OK);
    cr_expect_eq(parser.head.length, head_length);
}

/* ---- connection and framing
 * --------------------------------------------------------------------*/

static const struct {
    const char *fields; /* of a POST with Host */
    int minor_version;
    bool keep_alive;
    bool expect_continue;
    bool expect_other;
    bool upgrade;
    enum body_framing framing;
    uint64_t content_length;
} meanings[] = {
    {"", 1, true, false, false, false, BODY_NONE, 0},
    {"", 0, false, false, false, false, BODY_NONE, 0},
    {"Connection: close\r\n", 1, false, false, false, false, BODY_NONE, 0},
    {"Connection: CLOSE\r\n", 1, false, false, false, false, BODY_NONE, 0},
    {"Connection: closed\r\n", 1, true, false, false, false, BODY_NONE, 0},
    {"Connection: keep-alive\r\n", 1, true, false, false, false, BODY_NONE, 0},
    {"Connection: keep-alive\r\n", 0, true, false, false, false, BODY_NONE, 0},
    {"Connection: Keep-Alive, close\r\n", 0, false, false, false, false, BODY_NONE, 0},
    {"Connection: keep-alive\r\nConnection: x, close\r\n", 1, false, false, false, false, BODY_NONE,
     0},
    {"Connection: x\r\nConnection: keep-alive\r\n", 0, true, false, false, false, BODY_NONE, 0},
    {"Proxy-Connection: keep-alive\r\n", 0, false, false, false, false, BODY_NONE, 0},
    {"Expect: 100-continue\r\n", 1, true, true, false, false, BODY_NONE, 0},
    {"Expect: 100-Continue\r\n", 1, true, true, false, false, BODY_NONE, 0},
    {"Expect: 100-continue\r\n", 0, false, false, false, false, BODY_NONE, 0},
    {"Expect: 100-continue, x=y\r\n", 1, true, true, true, false, BODY_NONE, 0},
    {"Expect: a\r\nExpect: 100-continue\r\n", 1, true, true, true, false, BODY_NONE, 0},
    {"Expect: 200-ok\r\n", 1, true, false, true, false, BODY_NONE, 0},
    {"Expect:\r\n", 1, true, false, false, false, BODY_NONE, 0},
    {"Connection: upgrade\r\nUpgrade: websocket\r\n", 1, true, false, false, true, BODY_NONE, 0},
    {"Upgrade: a, b\r\nConnection: keep-alive, Upgrade\r\n", 1, true, false, false, true, BODY_NONE,
     0},
    {"Connection: upgrade\r\n", 1, true, false, false, false, BODY_NONE, 0},
    {"Connection: upgrade\r\nUpgrade:\r\n", 1, true, false, false, false, BODY_NONE, 0},
    {"Upgrade: websocket\r\n", 1, true, false, false, false, BODY_NONE, 0},
    {"Connection: upgrade\r\nUpgrade: websocket\r\n", 0, false, false, false, false, BODY_NONE, 0},
    {"Content-Length: 0\r\n", 1, true, false, false, false, BODY_LENGTH, 0},
    {"Content-Length: 12\r\n", 0, false, false, false, false, BODY_LENGTH, 12},
    {"Content-Length:\t 0012 \t\r\n", 1, true, false, false, false, BODY_LENGTH, 12},
    {"Content-Length: 9223372036854775807\r\n", 1, true, false, false, false, BODY_LENGTH,
     INT64_MAX},
    {"Transfer-Encoding: chunked\r\n", 1, true, false, false, false, BODY_CHUNKED, 0},
    {"TRANSFER-ENCODING:\tChUnKeD \r\n", 1, true, false, false, false, BODY_CHUNKED, 0},
};

Test(request, connection_and_framing_are_read_from_the_fields)
{
    for (size_t i = 0; i < sizeof(meanings) / sizeof(meanings[0]); i++) {
        char text[512];
        int length = snprintf(text, sizeof(text), "POST / HTTP/1.%d\r\n" HOST "%s\r\n",
                              meanings[i].minor_version, meanings[i].fields);
        enum parse_result result =
            request_deliver(&parser, &default_limits, text, (size_t)length, 1);
        const struct request_head *head = &parser.head;

        cr_assert(result == PARSE_OK, "%s: %s", text, parser.error.reason);
        cr_expect_eq(head->keep_alive, meanings[i].keep_alive, "keep-alive of %s", text);
        cr_expect_eq(head->expect_continue, meanings[i].expect_continue, "Expect of %s", text);
        cr_expect_eq(head->expect_other, meanings[i].expect_other, "other Expect of %s", text);
        cr_expect_eq(head->upgrade, meanings[i].upgrade, "upgrade of %s", text);
        cr_expect_eq(head->framing, meanings[i].framing, "framing of %s", text);
        cr_expect_eq(head->content_length, meanings[i].content_length, "length of %s", text);
    }
}

/* ---- what is refused
 * ---------------------------------------------------------------------------*/

/* Those that the files of tests/fixtures/requests do not hold: that each is refused for its own
 * reason, and at the byte that is wrong, not later. */
static const struct {
    const char *text;
    int status;
    const char *reason;
} refused[] = {
    {"\n", 400, "a bare LF before the request line"},
    {"\rG", 400, "a bare CR before the request line"},
    {"\r\n\r", 400, "more than one empty line before the request line"},
    {"\x16", 400, "a TLS handshake on a port that speaks plain HTTP"},
    {" ", 400, "a first byte that no method begins with"},
    {"\xff", 400, "a first byte that no method begins with"},
    {"GE:", 400, "a byte that may not stand in a method"},
    {"GET\r", 400, "a byte that may not stand in a method"},
    {"GET  ", 400, "an empty request target"},
    {"GET /\r", 400, "a request line without a version (HTTP/0.9)"},
    {"GET /\n", 400, "a request line without a version (HTTP/0.9)"},
    {"GET /#", 400, "a fragment in the request target"},
    {"GET /\t", 400, "a byte that may not stand in a request target"},
    {"GET /\x80", 400, "a byte that may not stand in a request target"},
    {"GET / h", 400, "a version that is not HTTP/1.0 or HTTP/1.1"},
    {"GET / HTTP ", 400, "a version that is not HTTP/1.0 or HTTP/1.1"},
    {"GET / HTTP/1\r", 400, "a version that is not HTTP/1.0 or HTTP/1.1"},
    {"GET / HTTP/2.0", 505, "a version that is not HTTP/1.0 or HTTP/1.1"},
    {"GET / HTTP/1.2", 505, "a version that is not HTTP/1.0 or HTTP/1.1"},
    {"GET / HTTP/1.1\n", 400, "a bare LF in the request line"},
    {"GET / HTTP/1.1 ", 400, "bytes after the version"},
    {"GET / HTTP/1.11", 400, "bytes after the version"},
    {"GET / HTTP/1.1\rH", 400, "a bare CR in the request line"},
    {"GET * HTTP/1.1\r\n", 400, "the target * with another method than OPTIONS"},
    {"OPTIONS ** HTTP/1.1\r\n", 400, "a request target that is none of the four forms"},
    {"GET a HTTP/1.1\r\n", 400, "a request target that is none of the four forms"},
    {"GET http: HTTP/1.1\r\n", 400, "a request target that is none of the four forms"},
    {"CONNECT /a HTTP/1.1\r\n", 400, "a CONNECT target that is not host:port"},
    {"CONNECT a: HTTP/1.1\r\n", 400, "a CONNECT target that is not host:port"},
    {"GET / HTTP/1.1\r\n ", 400, "a field line that begins with white space (obs-fold)"},
    {"GET / HTTP/1.1\r\nA: b\r\n\t", 400, "a field line that begins with white space (obs-fold)"},
    {"GET / HTTP/1.1\r\n:", 400, "an empty field name"},
    {"GET / HTTP/1.1\r\n\n", 400, "a bare LF among the fields"},
    {"GET / HTTP/1.1\r\n(", 400, "a byte that may not begin a field name"},
    {"GET / HTTP/1.1\r\nA ", 400, "white space between a field name and its colon"},
    {"GET / HTTP/1.1\r\nA\r", 400, "a field line without a colon"},
    {"GET / HTTP/1.1\r\nA(", 400, "a byte that may not stand in a field name"},
    {"GET / HTTP/1.1\r\nA: \n", 400, "a bare LF in a field value"},
    {"GET / HTTP/1.1\r\nA: b\n", 400, "a bare LF in a field value"},
    {"GET / HTTP/1.1\r\nA: b\rc", 400, "a bare CR in a field value"},
    {"GET / HTTP/1.1\r\nA: b\x7f", 400, "a control byte in a field value"},
    {"GET / HTTP/1.1\r\n\rA", 400, "a bare CR at the end of the head"},
    {"GET / HTTP/1.1\r\n\r\n", 400, "a request of HTTP/1.1 without Host"},
    {"GET / HTTP/1.0\r\nHost:a\r\nHost:a\r\n\r\n", 400, "more than one Host"},
    {"GET / HTTP/1.0\r\nHost:\r\n\r\n", 400, "an empty or malformed host"},
    {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "a byte that may not stand in a host"},
    {"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400, "user information before the host"},
    {"GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n", 400, "user information before the host"},
    {"GET http://a:b@c/ HTTP/1.1\r\nHost: c\r\n\r\n", 400, "a port that is no number"},
    {"GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n", 400, "an empty or malformed host"},
    {"GET http://a/ HTTP/1.1\r\n\r\n", 400, "a request of HTTP/1.1 without Host"},
    {"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", 400,
     "an absolute target that names another host than Host"},
    {"GET https://a/ HTTP/1.0\r\nHost: a:80\r\n\r\n", 400,
     "an absolute target that names another host than Host"},
    {"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "Transfer-Encoding in HTTP/1.0"},
    {"GET / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", 400,
     "Transfer-Encoding together with Content-Length"},
    {"GET / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked,\r\n\r\n", 400,
     "a Transfer-Encoding that is not exactly \"chunked\""},
    {"GET / HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip;q=1, chunked\r\n\r\n", 501,
     "a transfer coding that is not implemented"},
    {"GET / HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip;q=1, chunked ;a\r\n\r\n", 400,
     "a Transfer-Encoding that is not exactly \"chunked\""},
    {"GET / HTTP/1.1\r\n" HOST "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", 400,
     "more than one Content-Length"},
    {"GET / HTTP/1.1\r\n" HOST "Content-Length:\r\n\r\n", 400, "an empty Content-Length"},
    {"GET / HTTP/1.1\r\n" HOST "Content-Length: 1,1\r\n\r\n", 400,
     "a Content-Length that is no number"},
    {"GET / HTTP/1.1\r\n" HOST "Content-Length: 9223372036854775808\r\n\r\n", 400,
     "a Content-Length that is too large for any machine"},
};

Test(request, each_fault_is_refused_at_its_byte_with_its_reason)
{
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        size_t length = strlen(refused[i].text);
        enum parse_result result =
            request_deliver(&parser, &default_limits, refused[i].text, length, 1);

        cr_assert(result == PARSE_BAD, "%s is taken", printable(refused[i].text, length));
        cr_expect_eq(parser.error.status, refused[i].status, "%s: %d",
                     printable(refused[i].text, length), parser.error.status);
        cr_expect_str_eq(parser.error.reason, refused[i].reason);
        cr_expect(parser.error.setting == NULL);

        request_parser_init(&parser);
        result = request_parser_run(&parser, &default_limits, refused[i].text, length - 1);
        cr_expect(result == PARSE_MORE, "%s is refused a byte early",
                  printable(refused[i].text, length));
    }
}

Test(request, a_refused_head_stays_refused_and_a_taken_one_taken)
{
    static const char bad[] = "GET / HTTP/1.1\r\nA b\r\n\r\n";
    static const char good[] = "GET / HTTP/1.0\r\n\r\n";

    request_parser_init(&parser);
    cr_assert(request_parser_run(&parser, &default_limits, bad, sizeof(bad) - 1) == PARSE_BAD);
    cr_expect(request_parser_run(&parser, &default_limits, good, sizeof(good) - 1) == PARSE_BAD);
    request_parser_init(&parser);
    cr_assert(request_parser_run(&parser, &default_limits, good, sizeof(good) - 1) == PARSE_OK);
    cr_expect(request_parser_run(&parser, &default_limits, good, sizeof(good) - 1) == PARSE_OK);
    cr_expect_eq(parser.head.length, sizeof(good) - 1);
}

/* ---- limits
 * ------------------------------------------------------------------------------------*/

static enum parse_result
run_limits(struct request_limits limits, const char *text)
{
    return request_deliver(&parser, &limits, text, strlen(text), 1);
}

Test(request, the_line_may_be_as_long_as_its_limit_and_no_longer)
{
    static const char line[] = "GET /0123456789 HTTP/1.0";
    struct request_limits limits = {.line = sizeof(line) - 1, .fields = 10, .head = 1000};
    char text[128];

    snprintf(text, sizeof(text), "%s\r\n\r\n", line);
    cr_expect(run_limits(limits, text) == PARSE_OK);
    snprintf(text, sizeof(text), "\r\n%s\r\n\r\n", line);
    cr_expect(run_limits(limits, text) == PARSE_OK, "the empty line before is no part of it");
    for (uint32_t shorter = 0; shorter < sizeof(line) - 1; shorter++) {
        limits.line = shorter;
        snprintf(text, sizeof(text), "%s\r\n\r\n", line);
        cr_assert(run_limits(limits, text) == PARSE_BAD, "limit %u", shorter);
        cr_expect_eq(parser.error.status, 414);
        cr_expect_str_eq(parser.error.setting, "limit_request_line");
        cr_assert(shorter == 0 || run_limits(limits, "GET /0123456789 HTTP/1.0") == PARSE_BAD,
                  "limit %u, unfinished", shorter);
    }
}

Test(request, the_fields_may_be_as_many_as_their_limit_and_no_more)
{
    struct request_limits limits = {.line = 100, .fields = 2, .head = 1000};

    cr_expect(run_limits(limits, "GET / HTTP/1.0\r\nA:\r\nB:\r\n\r\n") == PARSE_OK);
    cr_expect(run_limits(limits, "GET / HTTP/1.0\r\nA:\r\nB:\r\nC") == PARSE_BAD);
    cr_expect_eq(parser.error.status, 431);
    cr_expect_str_eq(parser.error.setting, "limit_request_fields");
    limits.fields = 0;
    cr_expect(run_limits(limits, "GET / HTTP/1.0\r\n\r\n") == PARSE_OK);
    cr_expect(run_limits(limits, "GET / HTTP/1.0\r\nA:\r\n\r\n") == PARSE_BAD);
}

Test(request, a_field_may_be_as_large_as_its_limit_and_no_larger)
{
    static const char line[] = "Ab: 0123456789";
    struct request_limits limits = {.line = 100, .fields = 10, .head = 1000};
    char text[128];

    snprintf(text, sizeof(text), "GET / HTTP/1.0\r\nA: b\r\n%s \r\nC:\r\n\r\n", line);
    cr_expect(run_limits(limits, text) == PARSE_OK, "0 is the limit of the head");
    limits.field = sizeof(line) - 1;
    cr_expect(run_limits(limits, text) == PARSE_OK, "the blank behind the value is no part of it");
    for (uint32_t smaller = 1; smaller < sizeof(line) - 1; smaller++) {
        limits.field = smaller;
        cr_assert(run_limits(limits, text) == PARSE_BAD, "limit %u", smaller);
        cr_expect_eq(parser.error.status, 431);
        cr_expect_str_eq(parser.error.setting, "limit_request_field_size");
    }
}

Test(request, the_table_of_fields_is_never_overrun)
{
    struct request_limits limits = {.line = 100, .fields = 100000, .head = 60000};
    static char text[8192];
    size_t at = (size_t)snprintf(text, sizeof(text), "GET / HTTP/1.0\r\n");

    for (int i = 0; i < HTTP_FIELDS_MAX; i++) {
        at += (size_t)snprintf(text + at, sizeof(text) - at, "a:%d\r\n", i);
    }
    size_t full = at;
    memcpy(text + at, "\r\n", 3);
    cr_expect(request_deliver(&parser, &limits, text, full + 2, 37) == PARSE_OK);
    cr_expect_eq(parser.head.field_count, HTTP_FIELDS_MAX);
    memcpy(text + at, "b:\r\n\r\n", 7);
    cr_expect(request_deliver(&parser, &limits, text, full + 6, 37) == PARSE_BAD);
    cr_expect_eq(parser.error.status, 431);
}

Test(request, the_head_may_be_as_large_as_its_limit_and_no_larger)
{
    static const char text[] = "GET / HTTP/1.0\r\nA: 0123456789\r\n\r\n";
    const uint32_t line = sizeof("GET / HTTP/1.0\r\n") - 1;
    struct request_limits limits = {.line = 100, .fields = 10, .head = sizeof(text) - 1};

    cr_expect(run_limits(limits, text) == PARSE_OK);
    for (uint32_t smaller = 0; smaller < sizeof(text) - 1; smaller++) {
        limits.head = smaller;
        cr_assert(run_limits(limits, text) == PARSE_BAD, "limit %u", smaller);
        cr_expect_eq(parser.error.status, smaller < line ? 414 : 431, "limit %u", smaller);
        cr_expect_str_eq(parser.error.setting, "limit_request_head");
    }
}

Test(request, a_limit_that_is_lowered_while_a_head_comes_in_holds_at_once)
{
    static const char text[] = "GET /0123456789 HTTP/1.0\r\nA: b\r\n\r\n";
    struct request_limits wide = {.line = 100, .fields = 10, .head = 100};
    struct request_limits narrow = {.line = 5, .fields = 10, .head = 100};

    request_parser_init(&parser);
    cr_assert(request_parser_run(&parser, &wide, text, 12) == PARSE_MORE);
    cr_expect(request_parser_run(&parser, &narrow, text, sizeof(text) - 1) == PARSE_BAD);
    cr_expect_eq(parser.error.status, 414);

    narrow = (struct request_limits){.line = 100, .fields = 10, .head = 5};
    request_parser_init(&parser);
    cr_assert(request_parser_run(&parser, &wide, text, 12) == PARSE_MORE);
    cr_expect(request_parser_run(&parser, &narrow, text, sizeof(text) - 1) == PARSE_BAD);
    cr_expect_str_eq(parser.error.setting, "limit_request_head");
}

/* ---- cost
 * --------------------------------------------------------------------------------------*/

Test(request, no_byte_is_looked_at_again_when_a_head_arrives_byte_by_byte)
{
    static char text[32000];
    size_t length = (size_t)snprintf(text, sizeof(text), "GET /");

    memset(text + length, 'a', 4000);
    length += 4000;
    length += (size_t)snprintf(text + length, sizeof(text) - length, " HTTP/1.1\r\n" HOST);
    for (int i = 0; i < 50; i++) {
        length += (size_t)snprintf(text + length, sizeof(text) - length, "X-%d: ", i);
        memset(text + length, 'v', 500);
        length += 500;
        length += (size_t)snprintf(text + length, sizeof(text) - length, "\r\n");
    }
    length += (size_t)snprintf(text + length, sizeof(text) - length, "\r\n");

    FOR_EACH_SCAN_LEVEL(level)
    {
        request_parser_init(&parser);
        for (size_t at = 1; at < length; at++) {
            cr_assert(request_parser_run(&parser, &default_limits, text, at) == PARSE_MORE);
            /* The count grows where bytes are passed over, so going back by one byte shows. */
            cr_assert(parser.seen <= at, "%llu bytes passed over of %zu",
                      (unsigned long long)parser.seen, at);
            cr_assert(parser.scanned == at || parser.scanned + 1 == at, "%u of %zu used",
                      parser.scanned, at);
        }
        cr_assert(request_parser_run(&parser, &default_limits, text, length) == PARSE_OK);
        /* All but the two spaces, the CRLF of the request line, which are compared one by one. */
        cr_expect_eq(parser.seen, length - 4);
    }
}

Test(request, bytes_that_were_seen_are_not_needed_until_the_head_is_whole)
{
    /* The proof without trust in the parser's own count: after each call, all that was seen is
     * overwritten with bytes that would be refused, but for the line being read, of which the name
     * and the blank at the end are looked up when it ends. Restored for the last byte only, when
     * the values that decide framing are read. */
    static const char text[] = "GET /a/long/target?with=query HTTP/1.0\r\n"
                               "X-First-Field: some value that is longer than a block of bytes\r\n"
                               "X-Second: another\r\n\r\n";
    size_t length = sizeof(text) - 1;
    char spoiled[sizeof(text)];

    FOR_EACH_SCAN_LEVEL(level)
    {
        request_parser_init(&parser);
        memcpy(spoiled, text, sizeof(text));
        size_t line = sizeof("GET /a/long/target?with=query HTTP/1.0\r\n") - 1;
        for (size_t at = 1; at < length; at++) {
            cr_assert(request_parser_run(&parser, &default_limits, spoiled, at) == PARSE_MORE,
                      "byte %zu: %s", at, parser.error.reason);
            if (at > line && text[at - 1] == '\n') {
                memset(spoiled, '\n', at); /* whole lines are over */
            }
        }
        cr_expect(request_parser_run(&parser, &default_limits, text, length) == PARSE_OK);
        cr_expect_eq(parser.head.field_count, 2);
    }
}

/* ---- adversarial input
 * -------------------------------------------------------------------------*/

Test(request, mutated_heads_give_the_same_result_in_every_delivery, .timeout = 60)
{
    static const char *const seeds[] = {
        "GET /a/b?c HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n",
        "POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: [::1]:80\r\nTransfer-Encoding: chunked\r\nX:\ty \r\n\r\n",
        "\r\nOPTIONS * HTTP/1.0\r\nUpgrade: h2c\r\nConnection: Upgrade, close\r\n\r\n",
    };
    static const char spice[] = "\r\n\t :,;/?#*%[]@\0\x01\x7f\x80\xff"
                                "Aa09HTTP/1.";
    uint64_t seed = 20261121;
    struct request_limits limits = {.line = 60, .fields = 4, .head = 140};
    size_t taken_count = 0;

    for (int round = 0; round < 1500; round++) {
        const char *original = seeds[next_below(&seed, sizeof(seeds) / sizeof(seeds[0]))];
        size_t length = strlen(original);
        char text[256];

        memcpy(text, original, length);
        for (size_t n = next_below(&seed, 4); n > 0; n--) {
            size_t at = next_below(&seed, length);
            switch (next_below(&seed, 3)) {
            case 0: /* another byte */
                text[at] = spice[next_below(&seed, sizeof(spice))];
                break;
            case 1: /* one byte less */
                memmove(text + at, text + at + 1, length - at - 1);
                length--;
                break;
            default: /* one more */
                memmove(text + at + 1, text + at, length - at);
                text[at] = spice[next_below(&seed, sizeof(spice))];
                length++;
                break;
            }
        }
        taken_count +=
            request_deliver(&parser, &limits, text, length, 1 + next_below(&seed, 5)) == PARSE_OK;
    }
    /* Were all refused, or none, the mutations would test little. */
    cr_expect(taken_count > 200 && taken_count < 1300, "%zu were taken", taken_count);
}

/* ---- methods
 * -----------------------------------------------------------------------------------*/

Test(request, methods_have_names_and_some_may_be_repeated)
{
    cr_expect_str_eq(method_name(METHOD_GET), "GET");
    cr_expect_str_eq(method_name(METHOD_PATCH), "PATCH");
    cr_expect_str_eq(method_name(METHOD_OTHER), "OTHER");
    cr_expect(method_is_idempotent(METHOD_GET));
    cr_expect(method_is_idempotent(METHOD_HEAD));
    cr_expect(method_is_idempotent(METHOD_PUT));
    cr_expect(method_is_idempotent(METHOD_DELETE));
    cr_expect(method_is_idempotent(METHOD_OPTIONS));
    cr_expect(method_is_idempotent(METHOD_TRACE));
    cr_expect(!method_is_idempotent(METHOD_POST));
    cr_expect(!method_is_idempotent(METHOD_PATCH));
    cr_expect(!method_is_idempotent(METHOD_CONNECT));
    cr_expect(!method_is_idempotent(METHOD_OTHER));
}
