/* SPDX-License-Identifier: Apache-2.0
 *
 * Response heads of application servers: what is taken, how the body ends, what is refused; each
 * case in every delivery and at every scan level (deliver.h).
 */
#include "deliver.h"

static struct response_parser parser;

#define NO_LENGTH UINT64_MAX

static const struct {
    const char *text;
    bool head_request;
    int status;
    const char *reason;
    bool keep_alive;
    bool upgrade;
    enum body_framing framing;
    uint64_t content_length;
    int64_t keep_alive_ms;
} taken[] = {
    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false, 200, "OK", true, false, BODY_LENGTH, 5,
     -1},
    {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false, 200, "OK", true, false, BODY_LENGTH, 0,
     -1},
    {"HTTP/1.1 404 Not Found at all\r\ntransfer-encoding: Chunked\r\n\r\n", false, 404,
     "Not Found at all", true, false, BODY_CHUNKED, NO_LENGTH, -1},
    /* the reason phrase: empty, absent with its space, any text */
    {"HTTP/1.1 200 \r\nContent-Length: 1\r\n\r\n", false, 200, "", true, false, BODY_LENGTH, 1, -1},
    {"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\n", false, 200, "", true, false, BODY_LENGTH, 1, -1},
    {"HTTP/1.1 200 J\xf6\xc3\xb6\t \r\nContent-Length: 1\r\n\r\n", false, 200, "J\xf6\xc3\xb6\t ",
     true, false, BODY_LENGTH, 1, -1},
    {"HTTP/1.1 999 \r\nContent-Length: 1\r\n\r\n", false, 999, "", true, false, BODY_LENGTH, 1, -1},
    /* no framing field: until the end of the connection */
    {"HTTP/1.1 200 OK\r\n\r\n", false, 200, "OK", false, false, BODY_UNTIL_CLOSE, NO_LENGTH, -1},
    {"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n", false, 200, "OK", false, false,
     BODY_UNTIL_CLOSE, NO_LENGTH, -1},
    /* no body whatever the fields say */
    {"HTTP/1.1 200 OK\r\n\r\n", true, 200, "OK", true, false, BODY_NONE, NO_LENGTH, -1},
    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, 200, "OK", true, false, BODY_NONE, 5,
     -1},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true, 200, "OK", true, false,
     BODY_NONE, NO_LENGTH, -1},
    {"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", false, 304, "Not Modified", true,
     false, BODY_NONE, 5, -1},
    {"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", false, 304, "Not Modified",
     true, false, BODY_NONE, NO_LENGTH, -1},
    {"HTTP/1.1 204 No Content\r\n\r\n", false, 204, "No Content", true, false, BODY_NONE, NO_LENGTH,
     -1},
    {"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", false, 204, "No Content", true, false,
     BODY_NONE, 0, -1},
    {"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", false, 204, "No Content", false, false,
     BODY_NONE, 5, -1},
    {"HTTP/1.1 100 Continue\r\n\r\n", false, 100, "Continue", true, false, BODY_NONE, NO_LENGTH,
     -1},
    {"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", false, 103, "Early Hints", true, false,
     BODY_NONE, NO_LENGTH, -1},
    {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", false,
     101, "Switching Protocols", true, true, BODY_NONE, NO_LENGTH, -1},
    {"HTTP/1.1 101 Switching Protocols\r\n\r\n", false, 101, "Switching Protocols", true, false,
     BODY_NONE, NO_LENGTH, -1},
    {"HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n", false, 200, "OK", true, false,
     BODY_LENGTH, 0, -1},
    /* persistence */
    {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", false, 200, "OK", false,
     false, BODY_LENGTH, 0, -1},
    {"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false, 200, "OK", false, false, BODY_LENGTH, 0,
     -1},
    {"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n", false, 200, "OK",
     true, false, BODY_LENGTH, 0, -1},
    {"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5, max=100\r\nContent-Length: 0\r\n\r\n", false, 200,
     "OK", true, false, BODY_LENGTH, 0, 5000},
    {"HTTP/1.1 200 OK\r\nKeep-Alive: max=1,Timeout=0\r\nContent-Length: 0\r\n\r\n", false, 200,
     "OK", true, false, BODY_LENGTH, 0, 0},
    {"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=99999999999999999999\r\nContent-Length: 0\r\n\r\n",
     false, 200, "OK", true, false, BODY_LENGTH, 0, (int64_t)INT32_MAX * 1000},
    {"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=\r\nContent-Length: 0\r\n\r\n", false, 200, "OK", true,
     false, BODY_LENGTH, 0, -1},
    {"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5s\r\nContent-Length: 0\r\n\r\n", false, 200, "OK",
     true, false, BODY_LENGTH, 0, -1},
    {"HTTP/1.1 200 OK\r\nKeep-Alive: 5\r\nContent-Length: 0\r\n\r\n", false, 200, "OK", true, false,
     BODY_LENGTH, 0, -1},
};

Test(response, the_parts_and_the_framing_of_a_head_are_found)
{
    for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++) {
        const struct response_head *head = &parser.head;
        const char *text = taken[i].text;
        size_t length = strlen(text);
        enum parse_result result =
            response_deliver(&parser, taken[i].head_request, text, length, 1);

        cr_assert(result == PARSE_OK, "%s: %s", text, parser.error.reason);
        cr_expect_eq(head->status, taken[i].status, "%s", text);
        cr_expect(str_is(span_str(head->reason, text), taken[i].reason), "%s", text);
        cr_expect_eq(head->keep_alive, taken[i].keep_alive, "%s", text);
        cr_expect_eq(head->upgrade, taken[i].upgrade, "%s", text);
        cr_expect_eq(head->framing, taken[i].framing, "%s", text);
        cr_expect_eq(head->has_content_length, taken[i].content_length != NO_LENGTH, "%s", text);
        cr_expect(!head->has_content_length || head->content_length == taken[i].content_length,
                  "%s", text);
        cr_expect_eq(head->keep_alive_ms, taken[i].keep_alive_ms, "%s", text);
        cr_expect_eq(head->length, length, "%s", text);
        cr_expect_eq(head->minor_version, text[7] - '0', "%s", text);
    }
}

static const struct {
    const char *text;
    const char *reason;
} refused[] = {
    {"\r", "a first byte that is not of HTTP"},
    {"<", "a first byte that is not of HTTP"},
    {"HTTP/2", "a malformed status line"},
    {"h", "a first byte that is not of HTTP"},
    {"HTTP/1.2", "a version that is not HTTP/1.0 or HTTP/1.1"},
    {"HTTP/1.1\t", "a malformed status line"},
    {"HTTP/1.1  ", "a status that is not three digits from 100 on"},
    {"HTTP/1.1 0", "a status that is not three digits from 100 on"},
    {"HTTP/1.1 2x", "a status that is not three digits from 100 on"},
    {"HTTP/1.1 20 ", "a status that is not three digits from 100 on"},
    {"HTTP/1.1 -", "a status that is not three digits from 100 on"},
    {"HTTP/1.1 2000", "a malformed status line"},
    {"HTTP/1.1 200\n", "a malformed status line"},
    {"HTTP/1.1 200 OK\n", "a bare LF in the status line"},
    {"HTTP/1.1 200 O\x01", "a control byte in the reason phrase"},
    {"HTTP/1.1 200 OK\rX", "a bare CR in the status line"},
    {"HTTP/1.1 200\rX", "a bare CR in the status line"},
    {"HTTP/1.1 200 OK\r\n ", "a field line that begins with white space (obs-fold)"},
    {"HTTP/1.1 200 OK\r\nA ", "white space between a field name and its colon"},
    {"HTTP/1.1 200 OK\r\nA: b\r\n ", "a field line that begins with white space (obs-fold)"},
    {"HTTP/1.1 200 OK\r\nA: b\n", "a bare LF in a field value"},
    {"HTTP/1.1 200 OK\r\n\n", "a bare LF among the fields"},
    {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
     "more than one Content-Length"},
    {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
     "more than one Content-Length"},
    {"HTTP/1.1 304 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
     "more than one Content-Length"},
    {"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n", "a Content-Length that is no number"},
    {"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "a Content-Length that is no number"},
    {"HTTP/1.1 204 OK\r\nContent-Length: x\r\n\r\n", "a Content-Length that is no number"},
    {"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", "an empty Content-Length"},
    {"HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\n",
     "a Content-Length that is too large for any machine"},
    {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
     "Transfer-Encoding together with Content-Length"},
    {"HTTP/1.1 304 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
     "Transfer-Encoding together with Content-Length"},
    {"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding in HTTP/1.0"},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
     "a Transfer-Encoding that is not exactly \"chunked\""},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
     "a Transfer-Encoding that is not exactly \"chunked\""},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\n",
     "a Transfer-Encoding that is not exactly \"chunked\""},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
     "a Transfer-Encoding that is not exactly \"chunked\""},
    {"HTTP/1.1 204 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
     "Transfer-Encoding in a 1xx or 204 response"},
    {"HTTP/1.1 100 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
     "Transfer-Encoding in a 1xx or 204 response"},
};

Test(response, each_fault_is_refused_at_its_byte_with_its_reason)
{
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        size_t length = strlen(refused[i].text);
        enum parse_result result = response_deliver(&parser, false, refused[i].text, length, 1);

        cr_assert(result == PARSE_BAD, "%s is taken", printable(refused[i].text, length));
        cr_expect_eq(parser.error.status, 502);
        cr_expect_str_eq(parser.error.reason, refused[i].reason);

        response_parser_init(&parser);
        cr_expect(response_parser_run(&parser, false, refused[i].text, length - 1) == PARSE_MORE,
                  "%s is refused a byte early", printable(refused[i].text, length));
        response_parser_init(&parser);
        cr_expect(response_parser_run(&parser, true, refused[i].text, length) == PARSE_BAD,
                  "%s is taken for HEAD", printable(refused[i].text, length));
    }
}

Test(response, fields_are_found_by_id)
{
    static const char text[] = "HTTP/1.1 200 OK\r\nServer: a\r\nDate: b\r\nserver: c\r\n\r\n";

    cr_assert(response_deliver(&parser, false, text, sizeof(text) - 1, 1) == PARSE_OK);
    cr_expect_eq(parser.head.field_count, 3);
    cr_expect(response_field(&parser.head, FIELD_SERVER) == &parser.head.fields[0]);
    cr_expect(response_field(&parser.head, FIELD_DATE) == &parser.head.fields[1]);
    cr_expect(response_field(&parser.head, FIELD_HOST) == NULL);
}

Test(response, a_head_is_bounded_in_bytes_and_fields)
{
    static char text[RESPONSE_HEAD_MAX + 1000];
    size_t start = (size_t)snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\nX: ");

    memset(text + start, 'a', sizeof(text) - start);
    memcpy(text + RESPONSE_HEAD_MAX - 4, "\r\n\r\n", 4);
    cr_expect(response_deliver(&parser, false, text, RESPONSE_HEAD_MAX, 7919) == PARSE_OK);
    text[RESPONSE_HEAD_MAX - 4] = 'a';
    memcpy(text + RESPONSE_HEAD_MAX - 3, "\r\n\r\n", 4);
    cr_expect(response_deliver(&parser, false, text, RESPONSE_HEAD_MAX + 1, 7919) == PARSE_BAD);
    cr_expect_str_eq(parser.error.reason, "a response head of more than 60000 bytes");

    size_t at = (size_t)snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\n");
    for (int i = 0; i < HTTP_FIELDS_MAX; i++) {
        at += (size_t)snprintf(text + at, sizeof(text) - at, "a:\r\n");
    }
    memcpy(text + at, "\r\n", 2);
    cr_expect(response_deliver(&parser, false, text, at + 2, 101) == PARSE_OK);
    memcpy(text + at, "b:\r\n\r\n", 6);
    cr_expect(response_deliver(&parser, false, text, at + 6, 101) == PARSE_BAD);
    cr_expect_str_eq(parser.error.reason, "more than 256 header fields");
}

Test(response, connection_options_are_bounded)
{
    static char text[4096];
    int start = snprintf(text, sizeof(text), "HTTP/1.1 204 OK\r\nConnection: ");
    size_t at = (size_t)start;

    memset(text + at, 'x', 1024);
    memcpy(text + at + 1024, "\r\n\r\n", 4);
    cr_expect(response_deliver(&parser, false, text, at + 1028, 97) == PARSE_OK);
    memset(text + at, 'x', 1025);
    memcpy(text + at + 1025, "\r\n\r\n", 4);
    cr_expect(response_deliver(&parser, false, text, at + 1029, 97) == PARSE_BAD);
    cr_expect_str_eq(parser.error.reason, "more than 1024 bytes of Connection options");
}

Test(response, mutated_heads_give_the_same_result_in_every_delivery, .timeout = 60)
{
    static const char *const seeds[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nServer: uvicorn\r\nConnection: close\r\n\r\n",
        "HTTP/1.0 302 Found\r\nLocation: /a\r\nKeep-Alive: timeout=5\r\n\r\n",
        "HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\nX:\ty \r\n\r\n",
        "HTTP/1.1 101\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    };
    static const char spice[] = "\r\n\t :,;/\0\x01\x7f\x80\xff"
                                "Aa012HTTP/1.";
    uint64_t seed = 4711;
    size_t taken_count = 0;

    for (int round = 0; round < 1200; round++) {
        const char *original = seeds[next_below(&seed, sizeof(seeds) / sizeof(seeds[0]))];
        size_t length = strlen(original);
        char text[256];

        memcpy(text, original, length);
        for (size_t n = next_below(&seed, 4); n > 0; n--) {
            size_t at = next_below(&seed, length);
            if (next_below(&seed, 2) == 0) {
                text[at] = spice[next_below(&seed, sizeof(spice))];
            } else {
                memmove(text + at + 1, text + at, length - at);
                text[at] = spice[next_below(&seed, sizeof(spice))];
                length++;
            }
        }
        taken_count += response_deliver(&parser, next_below(&seed, 2) == 0, text, length,
                                        1 + next_below(&seed, 5)) == PARSE_OK;
    }
    cr_expect(taken_count > 200 && taken_count < 1100, "%zu were taken", taken_count);
}
