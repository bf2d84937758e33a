/* SPDX-License-Identifier: Apache-2.0
 *
 * Who the client is, by what trusted proxies say.
 */
#include "worker/forwarded.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/http/scan.h"

static struct request_parser parser;
static const struct request_limits limits = {.line = 8192, .fields = 100, .head = 32768};
static struct network networks[3];
static const struct network_list trusted = {3, networks};

static void
set_up(void)
{
    scan_init();
    cr_assert_null(network_parse("10.0.0.0/8", &networks[0]));
    cr_assert_null(network_parse("fd00::/8", &networks[1]));
    cr_assert_null(network_parse("unix", &networks[2]));
}

TestSuite(forwarded, .init = set_up);

static const char *
parse(const char *fields)
{
    static char request[16384];

    (void)snprintf(request, sizeof(request), "GET / HTTP/1.1\r\nHost: h\r\n%s\r\n", fields);
    request_parser_init(&parser);
    cr_assert_eq(request_parser_run(&parser, &limits, request, strlen(request)), PARSE_OK, "%s",
                 parser.error.reason);
    return request;
}

static const char *
client_of(enum told_by told_by, const char *fields)
{
    static char text[PEER_TEXT_MAX + 8];
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(4711)};
    struct peer peer;
    struct peer client;
    const char *request = parse(fields);

    inet_pton(AF_INET, "10.0.0.1", &in.sin_addr);
    peer_from_sockaddr(&peer, (const struct sockaddr *)&in, sizeof(in));
    forwarded_find_client(&parser.head, request, told_by, &trusted, &peer, &client);
    size_t length = peer_format(&client, text);
    (void)snprintf(text + length, sizeof(text) - length, " %u", client.port);
    return text;
}

static const char *const x_cases[][2] = {
    {"", "10.0.0.1 4711"},
    {"X-Forwarded-For: 203.0.113.9\r\n", "203.0.113.9 0"},
    {"X-Forwarded-For: 203.0.113.9:80\r\n", "203.0.113.9 80"},
    {"X-Forwarded-For: 6.6.6.6, 203.0.113.9\r\n", "203.0.113.9 0"},
    {"X-Forwarded-For: 203.0.113.9, 10.1.1.1\r\n", "203.0.113.9 0"},
    {"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 203.0.113.9,10.1.1.1 ,\t10.2.2.2\r\n",
     "203.0.113.9 0"},
    {"X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-For: 10.1.1.1\r\n", "203.0.113.9 0"},
    {"X-Forwarded-For: 10.3.3.3, 10.1.1.1\r\n", "10.3.3.3 0"},
    {"X-Forwarded-For: , , 203.0.113.9 ,, \r\n", "203.0.113.9 0"},
    {"X-Forwarded-For: ,\r\n", "10.0.0.1 4711"},
    {"X-Forwarded-For: 2001:db8::7\r\n", "2001:db8::7 0"},
    {"X-Forwarded-For: [2001:db8::7]\r\n", "2001:db8::7 0"},
    {"X-Forwarded-For: [2001:db8::7]:443\r\n", "2001:db8::7 443"},
    {"X-Forwarded-For: 2001:db8::7, fd00::1\r\n", "2001:db8::7 0"},
    {"X-Forwarded-For: ::ffff:10.0.0.9\r\n", "10.0.0.9 0"},
    /* What cannot be read ends the search at the last hop that can. */
    {"X-Forwarded-For: 6.6.6.6, unknown, 10.1.1.1\r\n", "10.1.1.1 0"},
    {"X-Forwarded-For: 6.6.6.6, unknown\r\n", "10.0.0.1 4711"},
    {"X-Forwarded-For: 1.2.3.4:99999\r\n", "10.0.0.1 4711"},
    {"X-Forwarded-For: 1.2.3.4:\r\n", "10.0.0.1 4711"},
    {"X-Forwarded-For: [2001:db8::7\r\n", "10.0.0.1 4711"},
    {"X-Forwarded-For: [2001:db8::7]x\r\n", "10.0.0.1 4711"},
    {"X-Forwarded-For: [1.2.3.4]\r\n", "10.0.0.1 4711"},
    {"X-Forwarded-For: 01.2.3.4\r\n", "10.0.0.1 4711"},
    {"X-Forwarded-For: fe80::1%eth0\r\n", "10.0.0.1 4711"},
    {"Forwarded: for=6.6.6.6\r\n", "10.0.0.1 4711"},
};

Test(forwarded, client_by_x_forwarded_for)
{
    for (size_t i = 0; i < sizeof(x_cases) / sizeof(x_cases[0]); i++) {
        cr_expect_str_eq(client_of(TOLD_BY_X_FORWARDED, x_cases[i][0]), x_cases[i][1], "%s -> %s",
                         x_cases[i][0], client_of(TOLD_BY_X_FORWARDED, x_cases[i][0]));
    }
}

static const char *const forwarded_cases[][2] = {
    {"", "10.0.0.1 4711"},
    {"Forwarded: for=203.0.113.9\r\n", "203.0.113.9 0"},
    {"Forwarded: For=203.0.113.9;proto=https;by=10.0.0.1\r\n", "203.0.113.9 0"},
    {"Forwarded: for=6.6.6.6, for=203.0.113.9\r\n", "203.0.113.9 0"},
    {"Forwarded: for=6.6.6.6\r\nForwarded: for=203.0.113.9, for=10.9.9.9\r\n", "203.0.113.9 0"},
    {"Forwarded: for=\"203.0.113.9:4711\"\r\n", "203.0.113.9 4711"},
    {"Forwarded: for=\"[2001:db8:cafe::17]:4711\"\r\n", "2001:db8:cafe::17 4711"},
    {"Forwarded: for=\"[2001:db8:cafe::17]\";host=\"a,b;c\"\r\n", "2001:db8:cafe::17 0"},
    {"Forwarded: proto=http;for=203.0.113.9 ; host=h\r\n", "203.0.113.9 0"},
    {"Forwarded: for=_hidden\r\n", "10.0.0.1 4711"},
    {"Forwarded: for=6.6.6.6, for=unknown\r\n", "10.0.0.1 4711"},
    {"Forwarded: for=6.6.6.6, for=unknown, for=10.2.2.2\r\n", "10.2.2.2 0"},
    {"Forwarded: for=6.6.6.6, proto=http\r\n", "10.0.0.1 4711"},
    /* A line that breaks the grammar, and all to the left of it, vouches for nothing. */
    {"Forwarded: for=6.6.6.6, for=\"203.0.113.9\r\n", "10.0.0.1 4711"},
    {"Forwarded: for=6.6.6.6\r\nForwarded: x\r\n", "10.0.0.1 4711"},
    {"Forwarded: for=\"6.6.6.6\r\nForwarded: for=203.0.113.9\r\n", "203.0.113.9 0"},
    {"Forwarded: for=\"6.6\\.6.6\"\r\n", "10.0.0.1 4711"},
    {"Forwarded: for=6.6.6.6 for=7.7.7.7\r\n", "10.0.0.1 4711"},
    {"X-Forwarded-For: 6.6.6.6\r\n", "10.0.0.1 4711"},
};

Test(forwarded, client_by_forwarded)
{
    for (size_t i = 0; i < sizeof(forwarded_cases) / sizeof(forwarded_cases[0]); i++) {
        cr_expect_str_eq(client_of(TOLD_BY_FORWARDED, forwarded_cases[i][0]), forwarded_cases[i][1],
                         "%s -> %s", forwarded_cases[i][0],
                         client_of(TOLD_BY_FORWARDED, forwarded_cases[i][0]));
    }
}

Test(forwarded, hops_are_bounded)
{
    char fields[8192] = "X-Forwarded-For: 6.6.6.6";
    char other[8192] = "Forwarded: for=6.6.6.6";

    for (int i = 0; i < FORWARDED_HOPS_MAX; i++) {
        (void)sprintf(fields + strlen(fields), ", 10.1.1.%d", i);
        (void)sprintf(other + strlen(other), ", for=10.1.1.%d", i);
    }
    strcat(fields, "\r\n");
    strcat(other, "\r\n");
    cr_expect_str_eq(client_of(TOLD_BY_X_FORWARDED, fields), "10.1.1.0 0");
    cr_expect_str_eq(client_of(TOLD_BY_FORWARDED, other), "10.1.1.0 0");
}

static const struct {
    enum told_by told_by;
    const char *fields;
    const char *proto;
    const char *host;
} fact_cases[] = {
    {TOLD_BY_X_FORWARDED, "", "", ""},
    {TOLD_BY_X_FORWARDED, "X-Forwarded-Proto: https\r\nX-Forwarded-Host: a:1\r\n", "https", "a:1"},
    {TOLD_BY_X_FORWARDED, "X-Forwarded-Proto: a\"b\r\nX-Forwarded-Host: a;b\r\n", "", ""},
    {TOLD_BY_FORWARDED, "Forwarded: for=1.1.1.1;proto=gopher, for=2.2.2.2;proto=https;host=b\r\n",
     "https", "b"},
    {TOLD_BY_FORWARDED,
     "Forwarded: for=2.2.2.2;proto=https;host=\"[::1]:80\", for=10.1.1.1;proto=http\r\n", "https",
     "[::1]:80"},
    {TOLD_BY_FORWARDED, "X-Forwarded-Proto: https\r\n", "", ""},
};

Test(forwarded, facts_are_those_of_the_clients_hop)
{
    for (size_t i = 0; i < sizeof(fact_cases) / sizeof(fact_cases[0]); i++) {
        struct forwarded_facts facts;
        const char *request = parse(fact_cases[i].fields);
        forwarded_find_facts(&parser.head, request, fact_cases[i].told_by, &trusted, &facts);
        cr_expect(str_equal(facts.proto, str_from(fact_cases[i].proto)), "%zu: %.*s", i,
                  STR_ARG(facts.proto));
        cr_expect(str_equal(facts.host, str_from(fact_cases[i].host)), "%zu: %.*s", i,
                  STR_ARG(facts.host));
    }
}
