/* SPDX-License-Identifier: Apache-2.0
 *
 * Heads as a server and a client get them: rewritten from what was parsed.
 */
#include "worker/proxy/forward.h"

#include <criterion/criterion.h>
#include <netinet/in.h>
#include <stdio.h>
#include <arpa/inet.h>
#include <string.h>

#include "worker/http/scan.h"

static struct request_parser parser;
static struct response_parser answer;
static const struct network_list trusted;
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
    input.trusted = &trusted;
    input.client = input.client != NULL ? input.client : input.peer;
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
     "X-Forwarded-Proto: http\r\nX-Forwarded-Host: h.example:80\r\nX-Forwarded-Port: 80\r\n\r\n"},
    {"fields of one hop stay",
     "GET / HTTP/1.1\r\nHost: h\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\n"
     "TE: trailers\r\nProxy-Connection: x\r\nProxy-Authorization: y\r\nX-Other: 2\r\n\r\n",
     "GET / HTTP/1.1\r\nHost: h\r\nX-Other: 2\r\nX-Forwarded-For: 192.0.2.7\r\n"
     "X-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\nX-Forwarded-Port: 80\r\n\r\n"},
    {"a length is written anew, an expectation is ours",
     "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 005\r\nExpect: 100-continue\r\n\r\n",
     "POST / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n"
     "X-Forwarded-Host: h\r\nX-Forwarded-Port: 80\r\nContent-Length: 5\r\n\r\n"},
    {"chunks stay chunks", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n",
     "POST / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n"
     "X-Forwarded-Host: h\r\nX-Forwarded-Port: 80\r\nTransfer-Encoding: chunked\r\n\r\n"},
    {"an upgrade is passed on",
     "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n",
     "GET /ws HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n"
     "X-Forwarded-Host: h\r\nX-Forwarded-Port: 80\r\nUpgrade: websocket\r\nConnection: "
     "upgrade\r\n\r\n"},
    {"absolute-form becomes origin-form, HTTP/1.0 becomes 1.1",
     "GET http://h/x HTTP/1.0\r\nHost: h\r\n\r\n",
     "GET /x HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n"
     "X-Forwarded-Host: h\r\nX-Forwarded-Port: 80\r\n\r\n"},
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

struct believed_case {
    const char *shows;
    enum told_by told_by;
    bool forwarded; /* wanted by the backend */
    const char *peer;
    const char *client;
    const char *request;  /* its fields behind Host */
    const char *expected; /* those that the server gets behind Host */
};

static const struct believed_case believed_cases[] = {
    {"a list is kept, the proxy is appended, what is told stays", TOLD_BY_X_FORWARDED, false,
     "10.0.0.1", "203.0.113.9",
     "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: a\r\n"
     "X-Forwarded-Port: 8443\r\nX-Forwarded-Prefix: /p\r\n",
     "X-Forwarded-Proto: https\r\nX-Forwarded-Host: a\r\nX-Forwarded-Port: 8443\r\n"
     "X-Forwarded-Prefix: /p\r\nX-Forwarded-For: 203.0.113.9, 10.0.0.1\r\n"},
    {"several lines become one", TOLD_BY_X_FORWARDED, false, "10.0.0.1", "3.3.3.3",
     "X-Forwarded-For: 1.1.1.1, 2.2.2.2\r\nX-Forwarded-For: 3.3.3.3\r\n",
     "X-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3, 10.0.0.1\r\nX-Forwarded-Proto: http\r\n"
     "X-Forwarded-Host: h\r\nX-Forwarded-Port: 80\r\n"},
    {"the port follows what is told", TOLD_BY_X_FORWARDED, false, "10.0.0.1", "3.3.3.3",
     "X-Forwarded-For: 3.3.3.3\r\nX-Forwarded-Proto: https\r\n",
     "X-Forwarded-Proto: https\r\nX-Forwarded-For: 3.3.3.3, 10.0.0.1\r\n"
     "X-Forwarded-Host: h\r\nX-Forwarded-Port: 443\r\n"},
    {"Forwarded of a peer that speaks X-Forwarded is the client's invention", TOLD_BY_X_FORWARDED,
     true, "10.0.0.1", "3.3.3.3", "X-Forwarded-For: 3.3.3.3\r\nForwarded: for=6.6.6.6\r\n",
     "X-Forwarded-For: 3.3.3.3, 10.0.0.1\r\nX-Forwarded-Proto: http\r\n"
     "X-Forwarded-Host: h\r\nX-Forwarded-Port: 80\r\n"
     "Forwarded: for=3.3.3.3;host=\"h\";proto=http\r\n"},
    {"a peer on a unix socket has no address to append", TOLD_BY_X_FORWARDED, false, "unix",
     "203.0.113.9", "X-Forwarded-For: 203.0.113.9\r\n",
     "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\n"
     "X-Forwarded-Port: 80\r\n"},
    {"and says nothing of a client it does not tell", TOLD_BY_X_FORWARDED, true, "unix", "unix",
     "Accept: */*\r\n",
     "Accept: */*\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\n"
     "X-Forwarded-Port: 80\r\nForwarded: for=unknown;host=\"h\";proto=http\r\n"},
    {"Forwarded is kept, and X-Forwarded is made of it", TOLD_BY_FORWARDED, false, "10.0.0.1",
     "3.3.3.3",
     "Forwarded: for=3.3.3.3;proto=https;host=\"a.example:8443\"\r\n"
     "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: gopher\r\n",
     "X-Forwarded-For: 3.3.3.3\r\nX-Forwarded-Proto: https\r\n"
     "X-Forwarded-Host: a.example:8443\r\nX-Forwarded-Port: 8443\r\n"
     "Forwarded: for=3.3.3.3;proto=https;host=\"a.example:8443\", "
     "for=10.0.0.1;host=\"h\";proto=http\r\n"},
};

Test(forward, trusted_peers_are_believed)
{
    char out[8192];
    char request[1024];
    char expected[1024];

    for (size_t i = 0; i < sizeof(believed_cases) / sizeof(believed_cases[0]); i++) {
        const struct believed_case *c = &believed_cases[i];
        struct peer peer =
            strcmp(c->peer, "unix") == 0 ? (struct peer){.family = PEER_UNIX} : peer_of(c->peer);
        struct peer client = strcmp(c->client, "unix") == 0 ? (struct peer){.family = PEER_UNIX}
                                                            : peer_of(c->client);
        (void)snprintf(request, sizeof(request), "GET / HTTP/1.1\r\nHost: h\r\n%s\r\n", c->request);
        (void)snprintf(expected, sizeof(expected), "GET / HTTP/1.1\r\nHost: h\r\n%s\r\n",
                       c->expected);
        forward(request,
                (struct forward_input){.peer = &peer,
                                       .client = &client,
                                       .believed = true,
                                       .told_by = c->told_by,
                                       .forwarded = c->forwarded},
                out, sizeof(out));
        cr_expect_str_eq(out, expected, "%s:\n%s", c->shows, out);
    }
}

Test(forward, outer_prefix_stands_before_ours)
{
    char out[8192];
    struct peer peer = peer_of("10.0.0.1");

    forward(
        "GET /app/x HTTP/1.1\r\nHost: h\r\nX-Forwarded-Prefix: /outer/\r\n\r\n",
        (struct forward_input){.peer = &peer, .believed = true, .path = STR("/app/x"), .cut = 4},
        out, sizeof(out));
    cr_expect_not_null(strstr(out, "X-Forwarded-Prefix: /outer/app\r\n"), "%s", out);
    cr_expect_null(strstr(out, "Prefix: /outer/\r\n"), "%s", out);
}

Test(forward, host_is_set_and_the_clients_own_is_told)
{
    char out[8192];
    struct peer peer = peer_of("192.0.2.7");

    forward("GET / HTTP/1.1\r\nHost: public.example:8080\r\n\r\n",
            (struct forward_input){.peer = &peer, .host = STR("inner.example"), .forwarded = true},
            out, sizeof(out));
    cr_expect_str_eq(out, "GET / HTTP/1.1\r\nHost: inner.example\r\nX-Forwarded-For: 192.0.2.7\r\n"
                          "X-Forwarded-Proto: http\r\nX-Forwarded-Host: public.example:8080\r\n"
                          "X-Forwarded-Port: 8080\r\n"
                          "Forwarded: for=192.0.2.7;host=\"public.example:8080\";proto=http\r\n"
                          "\r\n");
}

/* The most that fields of one byte can grow by being written anew must be foreseen. */
Test(forward, size_is_foreseen_for_many_lines)
{
    static char request[8192];
    char out[16384];
    struct peer peer = peer_of("255.255.255.255");
    size_t length = (size_t)sprintf(request, "GET / HTTP/1.1\r\nHost: h\r\n");

    for (int i = 0; i < 45; i++) {
        length += (size_t)sprintf(request + length, "Forwarded:a=b\r\nX-Forwarded-For:1\r\n");
    }
    (void)sprintf(request + length, "\r\n");
    for (int told_by = 0; told_by < TOLD_BY_COUNT; told_by++) {
        forward(request,
                (struct forward_input){.peer = &peer,
                                       .believed = true,
                                       .told_by = (enum told_by)told_by,
                                       .forwarded = true},
                out, sizeof(out));
    }
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
