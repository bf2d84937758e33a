/* SPDX-License-Identifier: Apache-2.0
 *
 * Preconditions, in their order of precedence.
 */
#include "support.h"
#include "worker/http/conditional.h"

#define CHANGED 784111777 /* Sun, 06 Nov 1994 08:49:37 GMT */
#define BEFORE "Sun, 06 Nov 1994 08:49:36 GMT"
#define EXACTLY "Sun, 06 Nov 1994 08:49:37 GMT"
#define AFTER "Sun, 06 Nov 1994 08:49:38 GMT"

static struct request_parser parser;

static const char *
parse(const char *fields)
{
    static const struct request_limits limits = {.line = 1000, .fields = 100, .head = 10000};
    static char text[2048];
    int length = snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: a\r\n%s\r\n", fields);
    const char *base = guarded_at_end(text, (size_t)length);

    request_parser_init(&parser);
    cr_assert(request_parser_run(&parser, &limits, base, (size_t)length) == PARSE_OK, "%s", fields);
    return base;
}

Test(conditional, preconditions_are_evaluated_in_their_order)
{
    static const struct {
        const char *fields;
        const char *etag;
        enum condition_result result;
    } rows[] = {
        {"", "\"a\"", CONDITION_PROCEED},
        /* If-Match: strong */
        {"If-Match: \"a\"\r\n", "\"a\"", CONDITION_PROCEED},
        {"If-Match: \"b\"\r\n", "\"a\"", CONDITION_FAILED},
        {"If-Match: *\r\n", "\"a\"", CONDITION_PROCEED},
        {"If-Match: *\r\n", "", CONDITION_PROCEED},
        {"If-Match: \"b\", \"a\"\r\n", "\"a\"", CONDITION_PROCEED},
        {"If-Match: \"b\"\r\nIf-Match: \"a\"\r\n", "\"a\"", CONDITION_PROCEED},
        {"If-Match: W/\"a\"\r\n", "\"a\"", CONDITION_FAILED},
        {"If-Match: W/\"a\"\r\n", "W/\"a\"", CONDITION_FAILED},
        {"If-Match: \"a\"\r\n", "W/\"a\"", CONDITION_FAILED},
        {"If-Match: a\r\n", "\"a\"", CONDITION_FAILED},
        {"If-Match:\r\n", "\"a\"", CONDITION_FAILED},
        {"If-Match: \"\"\r\n", "", CONDITION_FAILED},
        /* If-None-Match: weak */
        {"If-None-Match: \"a\"\r\n", "\"a\"", CONDITION_NOT_MODIFIED},
        {"If-None-Match: W/\"a\"\r\n", "\"a\"", CONDITION_NOT_MODIFIED},
        {"If-None-Match: \"a\"\r\n", "W/\"a\"", CONDITION_NOT_MODIFIED},
        {"If-None-Match: W/\"a\"\r\n", "W/\"a\"", CONDITION_NOT_MODIFIED},
        {"If-None-Match: \"b\"\r\n", "\"a\"", CONDITION_PROCEED},
        {"If-None-Match: \"A\"\r\n", "\"a\"", CONDITION_PROCEED},
        {"If-None-Match: *\r\n", "\"a\"", CONDITION_NOT_MODIFIED},
        {"If-None-Match: \"b\" , W/\"c\",\"a\"\r\n", "\"a\"", CONDITION_NOT_MODIFIED},
        {"If-None-Match: ,, \"a\" ,\r\n", "\"a\"", CONDITION_NOT_MODIFIED},
        {"If-None-Match: \"b\"\r\nIf-None-Match: \"a\"\r\n", "\"a\"", CONDITION_NOT_MODIFIED},
        {"If-None-Match: \"b,\\\"a\"\r\n", "\"a\"", CONDITION_PROCEED},
        {"If-None-Match: \"x,y\", \"a\"\r\n", "\"a\"", CONDITION_NOT_MODIFIED},
        {"If-None-Match: w/\"a\"\r\n", "\"a\"", CONDITION_PROCEED},
        {"If-None-Match: a\r\n", "\"a\"", CONDITION_PROCEED},
        {"If-None-Match: \"a\r\n", "\"a\"", CONDITION_PROCEED},
        {"If-None-Match: \"a\"x\r\n", "\"a\"", CONDITION_PROCEED},
        {"If-None-Match: W/\r\n", "\"a\"", CONDITION_PROCEED},
        {"If-None-Match: \"b c\", \"a\"\r\n", "\"a\"", CONDITION_PROCEED},
        {"If-None-Match: *, \"b\"\r\n", "\"a\"", CONDITION_PROCEED},
        /* If-Modified-Since */
        {"If-Modified-Since: " EXACTLY "\r\n", "\"a\"", CONDITION_NOT_MODIFIED},
        {"If-Modified-Since: " AFTER "\r\n", "\"a\"", CONDITION_NOT_MODIFIED},
        {"If-Modified-Since: " BEFORE "\r\n", "\"a\"", CONDITION_PROCEED},
        {"If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT\r\n", "\"a\"", CONDITION_NOT_MODIFIED},
        {"If-Modified-Since: Sun Nov  6 08:49:37 1994\r\n", "\"a\"", CONDITION_NOT_MODIFIED},
        {"If-Modified-Since: yesterday\r\n", "\"a\"", CONDITION_PROCEED},
        {"If-Modified-Since:\r\n", "\"a\"", CONDITION_PROCEED},
        {"If-Modified-Since: " AFTER "\r\nIf-Modified-Since: " AFTER "\r\n", "\"a\"",
         CONDITION_PROCEED},
        /* If-Unmodified-Since */
        {"If-Unmodified-Since: " EXACTLY "\r\n", "\"a\"", CONDITION_PROCEED},
        {"If-Unmodified-Since: " AFTER "\r\n", "\"a\"", CONDITION_PROCEED},
        {"If-Unmodified-Since: " BEFORE "\r\n", "\"a\"", CONDITION_FAILED},
        {"If-Unmodified-Since: bad\r\n", "\"a\"", CONDITION_PROCEED},
        {"If-Unmodified-Since: " BEFORE "\r\nIf-Unmodified-Since: " BEFORE "\r\n", "\"a\"",
         CONDITION_PROCEED},
        /* precedence */
        {"If-Match: \"a\"\r\nIf-Unmodified-Since: " BEFORE "\r\n", "\"a\"", CONDITION_PROCEED},
        {"If-Match: \"b\"\r\nIf-None-Match: \"a\"\r\n", "\"a\"", CONDITION_FAILED},
        {"If-Match: \"a\"\r\nIf-None-Match: \"a\"\r\n", "\"a\"", CONDITION_NOT_MODIFIED},
        {"If-None-Match: \"b\"\r\nIf-Modified-Since: " AFTER "\r\n", "\"a\"", CONDITION_PROCEED},
        {"If-None-Match: \"a\"\r\nIf-Modified-Since: " BEFORE "\r\n", "\"a\"",
         CONDITION_NOT_MODIFIED},
        {"If-Unmodified-Since: " BEFORE "\r\nIf-None-Match: \"a\"\r\n", "\"a\"", CONDITION_FAILED},
        {"If-Unmodified-Since: " AFTER "\r\nIf-Modified-Since: " AFTER "\r\n", "\"a\"",
         CONDITION_NOT_MODIFIED},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *base = parse(rows[i].fields);
        enum condition_result result =
            condition_evaluate(&parser.head, base, str_from(rows[i].etag), CHANGED);
        cr_expect_eq(result, rows[i].result, "%d with etag %s for %s", result, rows[i].etag,
                     rows[i].fields);
    }
}

Test(conditional, a_range_applies_to_this_very_representation_only)
{
    static const struct {
        const char *fields;
        const char *etag;
        bool applies;
    } rows[] = {
        {"", "\"a\"", true},
        {"If-Range: \"a\"\r\n", "\"a\"", true},
        {"If-Range: \"b\"\r\n", "\"a\"", false},
        {"If-Range: W/\"a\"\r\n", "\"a\"", false},
        {"If-Range: W/\"a\"\r\n", "W/\"a\"", false},
        {"If-Range: \"a\"\r\n", "W/\"a\"", false},
        {"If-Range: \"a\", \"b\"\r\n", "\"a\"", false},
        {"If-Range: *\r\n", "\"a\"", false},
        {"If-Range: a\r\n", "\"a\"", false},
        {"If-Range:\r\n", "\"a\"", false},
        {"If-Range:\r\n", "", false},
        {"If-Range: \"a\"\r\nIf-Range: \"a\"\r\n", "\"a\"", false},
        {"If-Range: " EXACTLY "\r\n", "\"a\"", true},
        {"If-Range: " AFTER "\r\n", "\"a\"", false},
        {"If-Range: " BEFORE "\r\n", "\"a\"", false},
        {"If-Range: Sun Nov  6 08:49:37 1994\r\n", "\"a\"", true},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *base = parse(rows[i].fields);
        cr_expect_eq(condition_range_applies(&parser.head, base, str_from(rows[i].etag), CHANGED),
                     rows[i].applies, "etag %s, %s", rows[i].etag, rows[i].fields);
    }
}
