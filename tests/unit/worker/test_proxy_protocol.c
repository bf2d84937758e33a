/* SPDX-License-Identifier: Apache-2.0
 *
 * PROXY protocol headers: what is taken and what is refused, at every length; what is written.
 */
#include "worker/proxy_protocol.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define BYTES(literal) literal, sizeof(literal) - 1

/* Every beginning of a good header asks for more, and what follows it does not matter. */
static void
expect_good(const char *bytes, size_t length, const char *client)
{
    char longer[PROXY_HEADER_MAX + 64];
    char text[PEER_TEXT_MAX + 8] = "none";
    struct proxy_header header;

    for (size_t i = 0; i < length; i++) {
        cr_assert_eq(proxy_header_parse(bytes, i, &header), PARSE_MORE, "%s at %zu: %s", client, i,
                     header.reason);
    }
    memset(longer, '\n', sizeof(longer));
    memcpy(longer, bytes, length);
    cr_assert_eq(proxy_header_parse(longer, length + 64, &header), PARSE_OK, "%s: %s", client,
                 header.reason);
    cr_assert_eq(proxy_header_parse(bytes, length, &header), PARSE_OK, "%s", header.reason);
    cr_expect_eq(header.length, length);
    if (header.tells_client) {
        size_t used = peer_format(&header.client, text);
        (void)snprintf(text + used, sizeof(text) - used, " %u", header.client.port);
    }
    cr_expect_str_eq(text, client);
}

Test(proxy_protocol, good_headers_of_version_1)
{
    expect_good(BYTES("PROXY TCP4 203.0.113.9 192.0.2.1 56324 443\r\n"), "203.0.113.9 56324");
    expect_good(BYTES("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"),
                "255.255.255.255 65535");
    expect_good(BYTES("PROXY TCP4 1.2.3.4 1.2.3.4 0 0\r\n"), "1.2.3.4 0");
    expect_good(BYTES("PROXY TCP6 2001:db8::9 ::1 1 2\r\n"), "2001:db8::9 1");
    expect_good(BYTES("PROXY TCP6 ::ffff:203.0.113.9 ::1 1 2\r\n"), "203.0.113.9 1");
    expect_good(BYTES("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
                      "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"),
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535");
    expect_good(BYTES("PROXY UNKNOWN\r\n"), "none");
    expect_good(BYTES("PROXY UNKNOWN ffff:: what ever 65535\r\n"), "none");
}

Test(proxy_protocol, good_headers_of_version_2)
{
    expect_good(BYTES(SIGNATURE "\x21\x11\0\x0c\xcb\0\x71\x09\xc0\0\x02\x01\xdc\x04\x01\xbb"),
                "203.0.113.9 56324");
    expect_good(BYTES(SIGNATURE "\x21\x21\0\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x09"
                                "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x07\0\x50"),
                "2001:db8::9 7");
    expect_good(BYTES(SIGNATURE "\x20\0\0\0"), "none");
    expect_good(BYTES(SIGNATURE "\x20\x11\0\x03xyz"), "none"); /* LOCAL: whatever comes with it */
    expect_good(BYTES(SIGNATURE "\x21\0\0\x02xy"), "none");
    expect_good(BYTES(SIGNATURE "\x21\x11\0\x14\xcb\0\x71\x09\xc0\0\x02\x01\xdc\x04\x01\xbb"
                                "\x04\0\x01\0\xea\0\x01x"),
                "203.0.113.9 56324");
    char unix_header[16 + 216] = SIGNATURE "\x21\x31\0\xd8/run/client";
    expect_good(unix_header, sizeof(unix_header), "unix: 0");
}

Test(proxy_protocol, checksum_is_checked)
{
    char header[] = SIGNATURE "\x21\x11\0\x13\xcb\0\x71\x09\xc0\0\x02\x01\xdc\x04\x01\xbb"
                              "\x03\0\x04\xff\xff\xff\xff";
    struct proxy_header parsed;
    size_t length = sizeof(header) - 1;

    cr_expect_eq(proxy_header_parse(header, length, &parsed), PARSE_BAD);
    cr_expect_str_eq(parsed.reason, "a wrong checksum");
    /* Reckoned apart from the code under test, by the table of RFC 3720 appendix B.4: */
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < length; i++) {
        uint32_t byte = i < length - 4 ? (unsigned char)header[i] : 0;
        for (int bit = 0; bit < 8; bit++) {
            uint32_t in = (byte >> bit) & 1;
            crc = (crc & 1) ^ in ? (crc >> 1) ^ UINT32_C(0x82f63b78) : crc >> 1;
        }
    }
    crc = htonl(~crc);
    memcpy(header + length - 4, &crc, sizeof(crc));
    cr_expect_eq(proxy_header_parse(header, length, &parsed), PARSE_OK, "%s", parsed.reason);
}

/* Refused, and not before the byte that makes it so; refused for ever after. */
static void
expect_bad(const char *bytes, size_t length, const char *reason)
{
    struct proxy_header header;
    bool is_bad = false;

    for (size_t i = 0; i <= length; i++) {
        enum parse_result result = proxy_header_parse(bytes, i, &header);
        cr_assert_neq(result, PARSE_OK, "%s at %zu", reason, i);
        cr_assert(!is_bad || result == PARSE_BAD, "%s: forgiven at %zu", reason, i);
        is_bad = result == PARSE_BAD;
    }
    cr_assert(is_bad, "%s: not refused", reason);
    cr_expect_not_null(strstr(header.reason, reason), "%s, not %s", header.reason, reason);
}

Test(proxy_protocol, bad_headers)
{
    char line[PROXY_HEADER_MAX];
    static const char *const no_headers[] = {"GET / HTTP/1.1\r\n", "proxy TCP4 ", "PROXYTCP4",
                                             "\r\n\r\nGET",        "\n",          " PROXY TCP4"};
    static const char *const lines[][2] = {
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", "without its CR"},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\r\n", "without its LF"},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", "no port"},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", "no port"},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n", "no port"},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", "no port"},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", "no port"},
        {"PROXY TCP4 1.2.3.4 1.2.3.4  1 2\r\n", "no port"},
        {"PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n", "no address"},
        {"PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n", "no address"},
        {"PROXY TCP4 ::1 ::1 1 2\r\n", "no address"},
        {"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", "no address"},
        {"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n", "no address"},
        {"PROXY TCP4\r\n", "no protocol"},
        {"PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n", "a protocol that"},
        {"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", "a protocol that"},
        {"PROXY UNKNOWNX\r\n", "no protocol"},
        {"PROXY \r\n", "no protocol"},
    };

    for (size_t i = 0; i < sizeof(no_headers) / sizeof(no_headers[0]); i++) {
        expect_bad(no_headers[i], strlen(no_headers[i]), "no PROXY protocol header");
    }
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        expect_bad(lines[i][0], strlen(lines[i][0]), lines[i][1]);
    }
    memset(line, 'x', sizeof(line));
    memcpy(line, "PROXY UNKNOWN ", 14);
    expect_bad(line, sizeof(line), "more than 107 bytes");
    memcpy(line + 106, "\r\n", 2); /* 108 in all */
    expect_bad(line, 108, "more than 107 bytes");

    expect_bad(BYTES(SIGNATURE "\x11\x11\0\0"), "a version");
    expect_bad(BYTES(SIGNATURE "\x22\x11\0\0"), "a command");
    expect_bad(BYTES(SIGNATURE "\x21\x11\x10\0"), "longer than");
    expect_bad(BYTES(SIGNATURE "\x21\x11\0\x0b"
                               "12345678901"),
               "too short");
    expect_bad(BYTES(SIGNATURE "\x21\x21\0\x0c"
                               "123456789012"),
               "too short");
    expect_bad(BYTES(SIGNATURE "\x21\x31\0\x0c"
                               "123456789012"),
               "too short");
    expect_bad(BYTES(SIGNATURE "\x21\x12\0\x0c"
                               "123456789012"),
               "no stream");
    expect_bad(BYTES(SIGNATURE "\x21\x41\0\x0c"
                               "123456789012"),
               "no stream");
    expect_bad(BYTES(SIGNATURE "\x21\x11\0\x0d"
                               "1234567890123"),
               "beyond its header");
    expect_bad(BYTES(SIGNATURE "\x21\x11\0\x10"
                               "123456789012\x04\0\x02x"),
               "beyond its header");
    expect_bad(BYTES(SIGNATURE "\x21\x11\0\x10"
                               "123456789012\x03\0\x01x"),
               "four bytes");
}

static struct peer
peer_of(const char *address, uint16_t port)
{
    struct peer peer = {.family = PEER_UNIX};

    if (inet_pton(AF_INET, address, peer.address) == 1) {
        peer.family = PEER_IPV4;
        peer.port = port;
    } else if (inet_pton(AF_INET6, address, peer.address) == 1) {
        peer.family = PEER_IPV6;
        peer.port = port;
    }
    return peer;
}

Test(proxy_protocol, written_headers)
{
    const struct peer v4 = peer_of("203.0.113.9", 56324);
    const struct peer local4 = peer_of("192.0.2.1", 443);
    const struct peer v6 = peer_of("2001:db8::9", 7);
    const struct peer local6 = peer_of("::1", 80);
    const struct peer nobody = peer_of("unix", 0);
    static const struct {
        int version;
        const char *bytes;
        size_t length;
    } wanted[] = {
        {PROXY_V1, BYTES("PROXY TCP4 203.0.113.9 192.0.2.1 56324 443\r\n")},
        {PROXY_V2, BYTES(SIGNATURE "\x21\x11\0\x0c\xcb\0\x71\x09\xc0\0\x02\x01\xdc\x04\x01\xbb")},
        {PROXY_V1, BYTES("PROXY TCP6 2001:db8::9 ::1 7 80\r\n")},
        {PROXY_V2, BYTES(SIGNATURE "\x21\x21\0\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x09"
                                   "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x07\0\x50")},
        {PROXY_V1, BYTES("PROXY TCP6 ::ffff:203.0.113.9 ::1 56324 80\r\n")},
        {PROXY_V2, BYTES(SIGNATURE "\x21\x21\0\x24\0\0\0\0\0\0\0\0\0\0\xff\xff\xcb\0\x71\x09"
                                   "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\xdc\x04\0\x50")},
        {PROXY_V1, BYTES("PROXY UNKNOWN\r\n")},
        {PROXY_V2, BYTES(SIGNATURE "\x21\0\0\0")},
    };
    const struct peer *clients[] = {&v4, &v6, &v4, &nobody};
    const struct peer *locals[] = {&local4, &local6, &local6, &local4};

    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        char out[PROXY_HEADER_WRITE_MAX];
        size_t length = proxy_header_write((enum proxy_version)wanted[i].version, clients[i / 2],
                                           locals[i / 2], out);
        cr_expect_eq(length, wanted[i].length, "%zu", i);
        cr_expect_eq(memcmp(out, wanted[i].bytes, wanted[i].length), 0, "%zu: %.*s", i, (int)length,
                     out);
    }
}

Test(proxy_protocol, written_for_its_own_connections)
{
    char out[PROXY_HEADER_WRITE_MAX];
    struct proxy_header header;

    for (int version = PROXY_V1; version <= PROXY_V2; version++) {
        size_t length = proxy_header_write_local((enum proxy_version)version, out);
        cr_expect_eq(proxy_header_parse(out, length, &header), PARSE_OK, "%s", header.reason);
        cr_expect_eq(header.length, length);
        cr_expect_not(header.tells_client);
    }
}
