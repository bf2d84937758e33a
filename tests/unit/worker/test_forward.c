/* SPDX-License-Identifier: Apache-2.0
 *
 * Heads as a server and a client get them: rewritten from what was parsed.
 */
#include "worker/proxy/forward.h"

#include <criterion/criterion.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <string.h>

#include "worker/http/scan.h"

static struct request_parser parser;
static struct response_parser answer;
static const struct request_limits limits = {.line = 8192, .fields = 100, .head = 32768};

static struct peer
peer_of(const char *address)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(4711)};
    struct peer peer;

    inet_pton(AF_INET, address, &in.sin_addr);
    peer_from_sockaddr(&peer, (const struct sockaddr *)&in, sizeof(in));
    return peer;
}

static void
forward(const char *request, struct forward_input input, char *out, size_t size)
{
    struct head_writer writer;

    scan_init();
    request_parser_init(&parser);
    cr_assert_eq(request_parser_run(&parser, &limits, request, strlen(request)), PARSE_OK, "%s",
                 parser.error.reason);
    input.head = &parser.head;
    input.base = request;
    cr_assert_leq(forward_request_size_max(&input), size);
    head_writer_init(&writer, out, forward_request_size_max(&input));
    forward_request_head(&writer, &input);
    cr_assert(head_writer_ok(&writer));
    out[head_writer_length(&writer)] = '\0';
}

struct forward_case {
    const char *shows;
    const char *request;
    const char *expected;
};

static const struct forward_case cases[] = {
    {"client's forwarding fields are replaced",
     "GET /a?b=c HTTP/1.1\r\nHost: h.example:80\r\nX-Forwarded-For: 6.6.6.6\r\n"
     "X-Forwarded-Proto: https\r\nForwarded: for=6.6.6.6\r\nAccept: */*\r\n\r\n",
     "GET /a?b=c HTTP/1.1\r\nHost: h.example:80\r\nAccept: */*\r\nX-Forwarded-For: 192.0.2.7\r\n"
     "X-Forwarded-Proto: http\r\nX-Forwarded-Host: h.example:80\r\n\r\n"},
    {"fields of one hop stay",
     "GET / HTTP/1.1\r\nHost: h\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\n"
     "TE: trailers\r\nProxy-Connection: x\r\nProxy-Authorization: y\r\nX-Other: 2\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: h\r\nX-Other: 2\r\nX-Forwarded-For: 192.0.2.7\r\n"
     "X-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\n\r\n"},
    {"a length is written anew, an expectation is ours",
     "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 005\r\nExpect: 100-continue\r\n\r\n",
     "POST / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n"
     "X-Forwarded-Host: h\r\nContent-Length: 5\r\n\r\n"},
    {"chunks stay chunks", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n",
     "POST / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n"
     "X-Forwarded-Host: h\r\nTransfer-Encoding: chunked\r\n\r\n"},
    {"an upgrade is passed on",
     "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n",
     "GET /ws HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n"
     "X-Forwarded-Host: h\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"},
    {"absolute-form becomes origin-form, HTTP/1.0 becomes 1.1",
     "GET http://h/x HTTP/1.0\r\nHost: h\r\n\r\n",
     "GET /x HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n"
     "X-Forwarded-Host: h\r\n\r\n"},
};

Test(forward, requests)
{
    char out[8192];
    struct peer peer = peer_of("192.0.2.7");

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        forward(cases[i].request, (struct forward_input){.peer = &peer}, out, sizeof(out));
        cr_expect_str_eq(out, cases[i].expected, "%s:\n%s", cases[i].shows, out);
    }
}

Test(forward, rewritten_path_is_what_was_routed)
{
    char out[8192];
    struct peer peer = peer_of("192.0.2.7");

    forward("GET /x/../admin%20a?q HTTP/1.1\r\nHost: h\r\n\r\n",
            (struct forward_input){.peer = &peer, .path = STR("/admin a"), .path_rewritten = true},
            out, sizeof(out));
    cr_expect_eq(strncmp(out, "GET /admin%20a?q HTTP/1.1\r\n", 27), 0, "%s", out);
}

Test(forward, stripped_prefix_is_told)
{
    char out[8192];
    struct peer peer = peer_of("192.0.2.7");

    forward("GET /app/x?y HTTP/1.1\r\nHost: h\r\n\r\n",
            (struct forward_input){.peer = &peer, .path = STR("/app/x"), .cut = 4}, out,
            sizeof(out));
    cr_expect_eq(strncmp(out, "GET /x?y HTTP/1.1\r\n", 19), 0, "%s", out);
    cr_expect_not_null(strstr(out, "X-Forwarded-Prefix: /app\r\n"), "%s", out);
    forward("GET /app HTTP/1.1\r\nHost: h\r\n\r\n",
            (struct forward_input){.peer = &peer, .path = STR("/app"), .cut = 4}, out, sizeof(out));
    cr_expect_eq(strncmp(out, "GET / HTTP/1.1\r\n", 16), 0, "%s", out);
}

Test(forward, peer_on_a_unix_socket_is_believed)
{
    char out[8192];
    struct peer peer = {.family = PEER_UNIX};

    forward("GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n",
            (struct forward_input){.peer = &peer}, out, sizeof(out));
    cr_expect_str_eq(out, "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n");
}

Test(forward, response_loses_framing_and_hop_fields)
{
    const char *head = "HTTP/1.1 201 Made\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
                       "Content-Length: 3\r\nConnection: X-Own, close\r\nX-Own: 1\r\n"
                       "Keep-Alive: timeout=5\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\r\n";
    char out[4096];
    struct head_writer writer;
    bool has_date = false;

    scan_init();
    response_parser_init(&answer);
    cr_assert_eq(response_parser_run(&answer, false, head, strlen(head)), PARSE_OK);
    head_writer_init(&writer, out, sizeof(out));
    forward_response_head(&writer, &answer.head, head, &has_date);
    out[head_writer_length(&writer)] = '\0';
    cr_expect_str_eq(out, "HTTP/1.1 201 Made\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
                          "Set-Cookie: a=b\r\nSet-Cookie: c=d\r\n");
    cr_expect(has_date);
}
