/* SPDX-License-Identifier: Apache-2.0
 *
 * Lines of the access log: each atom, JSON, what a hostile client can do to a line (nothing), and
 * that every setting which the format takes makes a line.
 */
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/access_log.h"

#define PID 4711
/* 21 November 2026, 10:40:01.123 UTC */
#define STARTED_MS INT64_C(1795257601123)

static struct request_parser parser;
static struct peer peer = {.family = PEER_IPV4, .port = 40000, .address = {192, 0, 2, 7}};
static struct access_record record;
static char line[ACCESS_LINE_MAX + 1];
static char head_bytes[65536];

/* A record of a request with these lines after the request line; each ends in CRLF. */
static void
make_record(const char *request_line, const char *fields)
{
    static const struct request_limits limits = {.line = 32768, .fields = 100, .head = 60000};
    int length = snprintf(head_bytes, sizeof(head_bytes), "%s\r\n%s\r\n", request_line, fields);

    request_parser_init(&parser);
    cr_assert_eq(request_parser_run(&parser, &limits, head_bytes, (size_t)length), PARSE_OK, "%s",
                 parser.error.reason);
    record = (struct access_record){.peer = &peer,
                                    .head = &parser.head,
                                    .base = head_bytes,
                                    .status = 200,
                                    .body_bytes = 5120,
                                    .started_real_ms = STARTED_MS,
                                    .duration_ms = 1234,
                                    .upstream_ms = -1};
}

static void
make_plain_record(void)
{
    make_record("GET /a/b?x=1&y=2 HTTP/1.1", "Host: a.example:8000\r\n"
                                             "Referer: http://b.example/\r\n"
                                             "User-Agent: curl/7.88.1 (x y)\r\n"
                                             "Authorization: Basic YWxpY2U6c2VjcmV0\r\n"
                                             "Cookie: session=secret\r\n"
                                             "X-Many: one\r\n"
                                             "X-Many: two\r\n");
}

TestSuite(access_format, .init = make_plain_record);

/* The line of a format without its line end, which must be the only one. */
static const char *
line_of(const char *text)
{
    struct access_format *format = access_format_new(text);

    cr_assert_not_null(format, "%s", text);
    size_t length = access_format_line(format, &record, PID, line, ACCESS_LINE_MAX);
    access_format_free(format);
    cr_assert_gt(length, 0);
    cr_assert_leq(length, ACCESS_LINE_MAX);
    cr_assert_eq(line[length - 1], '\n');
    line[length - 1] = '\0';
    cr_assert_eq(strlen(line), length - 1);
    cr_assert_null(strchr(line, '\n'));
    return line;
}

/* ---- atoms ---------------------------------------------------------------------------------- */

Test(access_format, each_atom)
{
    static const struct {
        const char *atom;
        const char *expected;
    } cases[] = {
        {"%(h)s", "192.0.2.7"},
        {"%(l)s", "-"},
        {"%(u)s", "-"},
        {"%(t)s", "[21/Nov/2026:10:40:01 +0000]"},
        {"%(r)s", "GET /a/b?x=1&y=2 HTTP/1.1"},
        {"%(m)s", "GET"},
        {"%(U)s", "/a/b"},
        {"%(q)s", "x=1&y=2"},
        {"%(H)s", "HTTP/1.1"},
        {"%(s)s", "200"},
        {"%(B)s", "5120"},
        {"%(b)s", "5120"},
        {"%(f)s", "http://b.example/"},
        {"\"%(a)s\"", "\"curl/7.88.1 (x y)\""},
        {"%(T)s", "1"},
        {"%(M)s", "1234"},
        {"%(D)s", "1234000"},
        {"%(L)s", "1.234000"},
        {"%(p)s", "<4711>"},
        {"%({host}i)s", "a.example:8000"},
        {"%({HOST}i)s", "a.example:8000"},
        {"%({x-many}i)s", "one,two"},
        {"\"%({X-Many}i)s\"", "\"one, two\""},
        {"%({missing}i)s", "-"},
        {"a%%b%(m)sc%%", "a%bGETc%"},
        {"%(m)s%(m)s %(s)s", "GETGET 200"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cr_expect_str_eq(line_of(cases[i].atom), cases[i].expected, "%s: %s", cases[i].atom, line);
    }
}

Test(access_format, the_named_formats)
{
    cr_expect_str_eq(line_of("common"), "192.0.2.7 - - [21/Nov/2026:10:40:01 +0000] "
                                        "\"GET /a/b?x=1&y=2 HTTP/1.1\" 200 5120");
    cr_expect_str_eq(line_of("combined"),
                     "192.0.2.7 - - [21/Nov/2026:10:40:01 +0000] "
                     "\"GET /a/b?x=1&y=2 HTTP/1.1\" 200 5120 \"http://b.example/\" "
                     "\"curl/7.88.1 (x y)\"");
    cr_expect_str_eq(line_of("json"),
                     "{\"time\":\"2026-11-21T10:40:01.123Z\",\"client\":\"192.0.2.7\","
                     "\"method\":\"GET\",\"target\":\"/a/b?x=1&y=2\",\"protocol\":\"HTTP/1.1\","
                     "\"status\":200,\"bytes\":5120,\"duration_ms\":1234,\"host\":\"a.example\","
                     "\"referer\":\"http://b.example/\",\"user_agent\":\"curl/7.88.1 (x y)\","
                     "\"backend\":null,\"server\":null,\"upstream_ms\":null,\"pid\":4711}");
    record.backend = "api";
    record.server = "unix:/run/narwhal/api.0.sock";
    record.upstream_ms = 0;
    cr_expect_not_null(strstr(line_of("json"),
                              ",\"backend\":\"api\",\"server\":\"unix:/run/narwhal/api.0.sock\","
                              "\"upstream_ms\":0,\"pid\":4711}"));
}

Test(access_format, a_request_that_could_not_be_parsed)
{
    record.head = NULL;
    record.status = 400;
    record.body_bytes = 0;
    record.duration_ms = 0;
    cr_expect_str_eq(line_of("combined"), "192.0.2.7 - - [21/Nov/2026:10:40:01 +0000] \"-\" 400 - "
                                          "\"-\" \"-\"");
    cr_expect_str_eq(line_of("%(m)s %(U)s %(q)s %(H)s %({host}i)s %(B)s %(L)s"),
                     "- - - - - 0 0.000000");
    cr_expect_str_eq(line_of("json"),
                     "{\"time\":\"2026-11-21T10:40:01.123Z\",\"client\":\"192.0.2.7\","
                     "\"method\":null,\"target\":null,\"protocol\":null,\"status\":400,\"bytes\":0,"
                     "\"duration_ms\":0,\"host\":null,\"referer\":null,\"user_agent\":null,"
                     "\"backend\":null,\"server\":null,\"upstream_ms\":null,\"pid\":4711}");
}

Test(access_format, an_old_client_without_any_field)
{
    make_record("HEAD http://a.example HTTP/1.0", "");
    record.status = 0; /* it left before it was answered */
    record.duration_ms = -5;
    cr_expect_str_eq(line_of("%(m)s %(U)s [%(q)s] %(H)s %(s)s %(f)s %(a)s %(M)s %(L)s"),
                     "HEAD / [] HTTP/1.0 - - - 0 0.000000");
    cr_expect_not_null(strstr(line_of("json"), "\"status\":null,\"bytes\":5120,\"duration_ms\":0,"
                                               "\"host\":\"a.example\",\"referer\":null"));
    make_record("OPTIONS * HTTP/1.1", "Host: a.example\r\n");
    cr_expect_str_eq(line_of("%(U)s"), "*");
}

Test(access_format, numbers_of_any_size)
{
    record.body_bytes = UINT64_MAX;
    record.duration_ms = INT64_C(86400000) * 1000 + 7;
    cr_expect_str_eq(line_of("%(B)s %(b)s"), "18446744073709551615 18446744073709551615");
    cr_expect_str_eq(line_of("%(T)s %(M)s %(L)s"), "86400000 86400000007 86400000.007000");
}

Test(access_format, times_are_right_when_the_second_changes)
{
    static const struct {
        int64_t real_ms;
        const char *clf;
        const char *json;
    } cases[] = {
        {0, "[01/Jan/1970:00:00:00 +0000]", "\"1970-01-01T00:00:00.000Z\""},
        {999, "[01/Jan/1970:00:00:00 +0000]", "\"1970-01-01T00:00:00.999Z\""},
        {1000, "[01/Jan/1970:00:00:01 +0000]", "\"1970-01-01T00:00:01.000Z\""},
        {STARTED_MS, "[21/Nov/2026:10:40:01 +0000]", "\"2026-11-21T10:40:01.123Z\""},
        {STARTED_MS + 876, "[21/Nov/2026:10:40:01 +0000]", "\"2026-11-21T10:40:01.999Z\""},
        {STARTED_MS + 877, "[21/Nov/2026:10:40:02 +0000]", "\"2026-11-21T10:40:02.000Z\""},
        {STARTED_MS, "[21/Nov/2026:10:40:01 +0000]", "\"2026-11-21T10:40:01.123Z\""},
        {INT64_C(951782400000), "[29/Feb/2000:00:00:00 +0000]", "\"2000-02-29T00:00:00.000Z\""},
    };

    cr_assert_eq(setenv("TZ", "Asia/Kathmandu", 1), 0); /* must not matter */
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        record.started_real_ms = cases[i].real_ms;
        cr_expect_str_eq(line_of("%(t)s"), cases[i].clf);
        cr_expect_eq(
            strncmp(line_of("json") + strlen("{\"time\":"), cases[i].json, strlen(cases[i].json)),
            0, "%s", line);
    }
}

/* ---- what is no format ---------------------------------------------------------------------- */

Test(access_format, what_is_no_format_is_refused)
{
    static const char *const bad[] = {
        "",        "json2",       "Combined",   "plain text",   "%",
        "%(h)s %", "%(h)s %s",    "%(x)s",      "%(h)d",        "%(h",
        "%(h)",    "%(hh)s",      "%()s",       "%({host}o)s",  "%({host}e)s",
        "%({}i)s", "%({host i)s", "%({host}is", "%({ho st}i)s", "%({host}i)",
        "%%",      "%({host}",    "%({host}i",  "%(",           "%({",
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct access_format *format = access_format_new(bad[i]);
        cr_expect_null(format, "'%s'", bad[i]);
        access_format_free(format);
    }
    cr_expect_null(access_format_new(NULL));
}

/* ---- hostile clients ------------------------------------------------------------------------ */

Test(access_format, nothing_secret_is_in_a_line_that_does_not_ask_for_it)
{
    static const char *const formats[] = {"combined", "common", "json",
                                          "%(h)s %(l)s %(u)s %(t)s %(r)s %(m)s %(U)s %(q)s %(H)s "
                                          "%(s)s %(B)s %(b)s %(f)s %(a)s %(T)s %(M)s %(D)s %(L)s "
                                          "%(p)s"};

    for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
        (void)line_of(formats[i]);
        cr_expect_null(strstr(line, "secret"), "%s", line);
        cr_expect_null(strstr(line, "YWxp"), "%s", line);
        cr_expect_null(strstr(line, "alice"), "%s", line);
    }
}

Test(access_format, a_value_cannot_end_its_quotes_or_its_line)
{
    make_record("GET /x\"y\\z HTTP/1.1", "Host: a.example\r\n"
                                         "User-Agent: a\" 200 \"b\\\tc\xe2\x82\xac\xff d\r\n");
    cr_expect_str_eq(line_of("\"%(r)s\" \"%(a)s\""),
                     "\"GET /x\\\"y\\\\z HTTP/1.1\" "
                     "\"a\\\" 200 \\\"b\\\\\\x09c\\xe2\\x82\\xac\\xff d\"");
    /* outside quotes a space would begin the next field */
    cr_expect_str_eq(line_of("%(a)s %(s)s"),
                     "a\\x22\\x20200\\x20\\x22b\\\\\\x09c\\xe2\\x82\\xac\\xff\\x20d 200");
    cr_expect_str_eq(line_of("%(r)s"), "GET /x\\x22y\\\\z HTTP/1.1");
    cr_expect_str_eq(line_of("%(m)s \"%(a)s\" %(U)s"),
                     "GET \"a\\\" 200 \\\"b\\\\\\x09c\\xe2\\x82\\xac\\xff d\" /x\\x22y\\\\z");
}

Test(access_format, json_is_json_whatever_the_bytes_are)
{
    static const struct {
        const char *value;
        const char *expected;
    } cases[] = {
        {"plain", "plain"},
        {"a\"b\\c\td", "a\\\"b\\\\c\\u0009d"},
        {"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"},
        {"\xe9t\xe9", "\\u00e9t\\u00e9"},          /* ISO-8859-1 */
        {"\xc0\xaf", "\\u00c0\\u00af"},            /* overlong */
        {"\xe0\x80\xaf", "\\u00e0\\u0080\\u00af"}, /* overlong */
        {"\xf0\x80\x80\xaf", "\\u00f0\\u0080\\u0080\\u00af"},
        {"\xed\xa0\x80", "\\u00ed\\u00a0\\u0080"},            /* surrogate */
        {"\xf4\x90\x80\x80", "\\u00f4\\u0090\\u0080\\u0080"}, /* above U+10FFFF */
        {"\xf5\x80\x80\x80", "\\u00f5\\u0080\\u0080\\u0080"},
        {"x\xe2\x82", "x\\u00e2\\u0082"}, /* ends within a character */
        {"x\xc3", "x\\u00c3"},
        {"\x80", "\\u0080"},
        {"\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf", "\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char fields[200];
        char expected[200];
        (void)snprintf(fields, sizeof(fields), "Host: a.example\r\nUser-Agent: %s\r\n",
                       cases[i].value);
        (void)snprintf(expected, sizeof(expected), "\"user_agent\":\"%s\",\"backend\"",
                       cases[i].expected);
        make_record("GET / HTTP/1.1", fields);
        cr_expect_not_null(strstr(line_of("json"), expected), "%s in %s", expected, line);
    }
}

/* A client that makes all it can as long and as hostile as the parser lets it. */
static void
make_huge_record(char filler)
{
    static char request_line[12000];
    static char fields[40000];
    int used = 0;

    memset(request_line, 0, sizeof(request_line));
    (void)strcpy(request_line, "GET /");
    memset(request_line + 5, filler == '\t' ? '"' : filler, 10000);
    (void)strcat(request_line, " HTTP/1.1");
    used += snprintf(fields, sizeof(fields), "Host: a.example\r\n");
    for (int i = 0; i < 6; i++) {
        static const char *const names[] = {"User-Agent", "Referer", "X-A", "X-A", "X-B", "X-C"};
        used += snprintf(fields + used, sizeof(fields) - (size_t)used, "%s: v", names[i]);
        memset(fields + used, filler, 5000);
        used += 5000;
        used += snprintf(fields + used, sizeof(fields) - (size_t)used, "v\r\n");
    }
    make_record(request_line, fields);
    record.backend = "a_backend_of_thirty_two_letters_";
    record.server = "unix:/a/very/long/path/that/a/unix/socket/may/have/up/to/one/hundred/and/"
                    "eight/bytes/or/so/it/goes/on/and/on.s";
    record.upstream_ms = INT64_MAX;
    record.duration_ms = INT64_MAX / 1000;
    record.body_bytes = UINT64_MAX;
}

Test(access_format, a_long_value_cannot_push_out_the_rest_of_its_line)
{
    static const char fillers[] = {'x', '"', '\\', '\t'};

    for (size_t f = 0; f < sizeof(fillers); f++) {
        make_huge_record(fillers[f] == '\\' ? '"' : fillers[f]);
        (void)line_of("\"%(r)s\" \"%(f)s\" \"%(a)s\" \"%({x-a}i)s\" \"%({x-b}i)s\" "
                      "\"%({x-c}i)s\" \"%(q)s\" %(s)s %(h)s end");
        const char *end = line + strlen(line);
        cr_expect_str_eq(end - strlen(" 200 192.0.2.7 end"), " 200 192.0.2.7 end");
        cr_expect_not_null(strstr(line, "... HTTP/1.1\""));
        size_t quotes = 0;
        for (const char *c = line; *c != '\0'; c++) {
            if (*c == '\\') {
                c++;
            } else if (*c == '"') {
                quotes++;
            }
        }
        cr_expect_eq(quotes, 14);
        (void)line_of("json");
        end = line + strlen(line);
        cr_expect_str_eq(end - strlen(",\"pid\":4711}"), ",\"pid\":4711}");
        cr_expect_not_null(strstr(line, "...\",\"protocol\":\"HTTP/1.1\",\"status\":200,"));
        cr_expect_not_null(strstr(line, "...\",\"backend\":\"a_backend_of_thirty_two_letters_\""));
        cr_expect_not_null(strstr(line, "on/and/on.s\""));
    }
}

Test(access_format, a_value_that_fits_is_whole_and_one_byte_more_is_marked)
{
    static char agent[9000];
    static char fields[9100];
    size_t longest = 0;

    for (size_t length = 1; length < 8300; length++) {
        memset(agent, 'x', length);
        agent[length] = '\0';
        (void)snprintf(fields, sizeof(fields), "Host: a.example\r\nUser-Agent: %s\r\n", agent);
        make_record("GET / HTTP/1.1", fields);
        (void)line_of("%(a)s");
        if (strcmp(line, agent) == 0) {
            cr_assert_eq(longest, length - 1);
            longest = length;
        } else {
            cr_assert_eq(strlen(line), longest + 3);
            cr_assert_str_eq(line + longest, "...");
        }
    }
    cr_expect_gt(longest, 8000);
    cr_expect_leq(longest + 4, ACCESS_LINE_MAX);
}

/* Writes no byte beyond capacity, ends in a line end, and is the beginning of the whole line when
 * that does not fit. */
Test(access_format, any_capacity_is_kept)
{
    static const char *const formats[] = {"combined", "json", "%(r)s \"%(a)s\" %({x-many}i)s"};

    make_huge_record('"');
    for (size_t f = 0; f < sizeof(formats) / sizeof(formats[0]); f++) {
        struct access_format *format = access_format_new(formats[f]);
        cr_assert_eq(access_format_line(format, &record, PID, line, 0), 0);
        for (size_t capacity = 1; capacity <= ACCESS_LINE_MAX; capacity += 1 + capacity / 16) {
            char *out = malloc(capacity);
            size_t length = access_format_line(format, &record, PID, out, capacity);
            cr_assert_gt(length, 0);
            cr_assert_leq(length, capacity);
            cr_assert_eq(memchr(out, '\n', length), out + length - 1);
            if (capacity > 1024) {
                cr_assert_eq(out[length - 2], formats[f][0] == 'j' ? '}' : out[length - 2]);
            }
            free(out);
        }
        access_format_free(format);
    }
}
