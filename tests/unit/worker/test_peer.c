/* SPDX-License-Identifier: Apache-2.0
 *
 * Addresses of clients: every family, mapped and short addresses, and the text of each.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/un.h>

#include "worker/peer.h"

static struct peer
peer_of_ipv4(const char *address, uint16_t port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct peer peer;

    cr_assert_eq(inet_pton(AF_INET, address, &in.sin_addr), 1);
    peer_from_sockaddr(&peer, (const struct sockaddr *)&in, sizeof(in));
    return peer;
}

static struct peer
peer_of_ipv6(const char *address, uint16_t port)
{
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    struct peer peer;

    cr_assert_eq(inet_pton(AF_INET6, address, &in6.sin6_addr), 1);
    peer_from_sockaddr(&peer, (const struct sockaddr *)&in6, sizeof(in6));
    return peer;
}

static void
expect_text(const struct peer *peer, const char *expected)
{
    char text[PEER_TEXT_MAX + 1];

    memset(text, '#', sizeof(text));
    size_t length = peer_format(peer, text);
    cr_expect_str_eq(text, expected);
    cr_expect_eq(length, strlen(expected));
    cr_expect_eq(text[PEER_TEXT_MAX], '#');
}

Test(peer, ipv4_addresses_of_all_widths)
{
    static const char *const addresses[] = {"0.0.0.0",     "1.2.3.4",         "10.20.30.40",
                                            "127.0.0.1",   "255.255.255.255", "100.9.99.199",
                                            "192.168.0.10"};

    for (size_t i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++) {
        struct peer peer = peer_of_ipv4(addresses[i], 40001);
        cr_expect_eq(peer.family, PEER_IPV4);
        cr_expect_eq(peer.port, 40001);
        expect_text(&peer, addresses[i]);
    }
    for (uint32_t octet = 0; octet < 256; octet++) {
        char address[INET_ADDRSTRLEN];
        char expected[INET_ADDRSTRLEN];
        struct in_addr in = {.s_addr = htonl(octet << 24 | octet << 8)};
        cr_assert_not_null(inet_ntop(AF_INET, &in, expected, sizeof(expected)));
        memcpy(address, expected, sizeof(address));
        struct peer peer = peer_of_ipv4(address, 1);
        expect_text(&peer, expected);
    }
}

Test(peer, ipv6_addresses)
{
    static const char *const addresses[] = {"::", "::1", "2001:db8::1",
                                            "2001:db8:1234:5678:9abc:def0:1234:5678", "fe80::1"};

    for (size_t i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++) {
        struct peer peer = peer_of_ipv6(addresses[i], 65535);
        cr_expect_eq(peer.family, PEER_IPV6);
        cr_expect_eq(peer.port, 65535);
        expect_text(&peer, addresses[i]);
    }
}

Test(peer, a_client_is_the_same_through_a_dual_stack_socket)
{
    struct peer mapped = peer_of_ipv6("::ffff:192.0.2.33", 4000);
    struct peer plain = peer_of_ipv4("192.0.2.33", 4000);

    expect_text(&mapped, "192.0.2.33");
    cr_expect_eq(mapped.family, plain.family);
    cr_expect_eq(mapped.port, plain.port);
    cr_expect_arr_eq(mapped.address, plain.address, sizeof(plain.address));
    /* compatible and near-mapped addresses are not IPv4 */
    struct peer other = peer_of_ipv6("::fffe:192.0.2.33", 4000);
    cr_expect_eq(other.family, PEER_IPV6);
}

Test(peer, unix_clients_have_no_address)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = "/tmp/x"};
    struct peer peer;

    memset(&peer, 0xff, sizeof(peer));
    peer_from_sockaddr(&peer, (const struct sockaddr *)&un, sizeof(sa_family_t));
    cr_expect_eq(peer.family, PEER_UNIX);
    cr_expect_eq(peer.port, 0);
    expect_text(&peer, "unix:");
    peer_from_sockaddr(&peer, (const struct sockaddr *)&un, sizeof(un));
    expect_text(&peer, "unix:");
}

Test(peer, addresses_that_are_too_short_are_not_read)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(1)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(1)};
    struct peer peer;

    peer_from_sockaddr(&peer, NULL, 0);
    expect_text(&peer, "unix:");
    peer_from_sockaddr(&peer, (const struct sockaddr *)&in, sizeof(in) - 1);
    expect_text(&peer, "unix:");
    peer_from_sockaddr(&peer, (const struct sockaddr *)&in6, sizeof(in6) - 1);
    expect_text(&peer, "unix:");
}
