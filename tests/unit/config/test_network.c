/* SPDX-License-Identifier: Apache-2.0
 *
 * Networks: what is taken, how it is printed, what is in it.
 */
#include "config/network.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/buf.h"

TestSuite(network);

static const char *const good[][2] = {
    {"10.0.0.0/8", "10.0.0.0/8"},
    {"192.0.2.7", "192.0.2.7"},
    {"192.0.2.7/32", "192.0.2.7"},
    {"0.0.0.0/0", "0.0.0.0/0"},
    {"::/0", "::/0"},
    {"2001:DB8::/32", "2001:db8::/32"},
    {"::1", "::1"},
    {"fe80::/10", "fe80::/10"},
    {"172.16.0.0/12", "172.16.0.0/12"},
    {"unix", "unix"},
};

Test(network, texts_that_are_taken)
{
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct network network;
        struct buf out = {0};
        char *error = network_parse(good[i][0], &network);
        cr_assert_null(error, "%s", error);
        network_print(&network, &out);
        cr_expect_str_eq(out.ptr, good[i][1]);
        buf_release(&out);
    }
}

static const char *const refused[][2] = {
    {"10.0.0.1/8", "write 10.0.0.0/8"},
    {"2001:db8::1/32", "write 2001:db8::/32"},
    {"10.0.0.0/33", "from 0 to 32"},
    {"::/129", "from 0 to 128"},
    {"10.0.0.0/", "from 0 to 32"},
    {"10.0.0.0/8 ", "from 0 to 32"},
    {"10.0.0.0/-1", "from 0 to 32"},
    {"10.0.0/8", "is no network"},
    {"010.0.0.1", "is no network"},
    {"::ffff:10.0.0.1", "write it as IPv4"},
    {"::ffff:10.0.0.0/104", "write it as IPv4"},
    {"fe80::1%eth0", "is no network"},
    {"localhost", "is no network"},
    {"unix:/run/x", "is no network"},
    {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "is no network"},
};

Test(network, texts_that_are_refused)
{
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        struct network network;
        char *error = network_parse(refused[i][0], &network);
        cr_assert_not_null(error, "%s", refused[i][0]);
        cr_expect_not_null(strstr(error, refused[i][1]), "%s", error);
        free(error);
    }
}

static bool
has(const char *network_text, const char *address_text)
{
    struct network network;
    struct network_list list = {1, &network};
    uint8_t address[16] = {0};
    char *error = network_parse(network_text, &network);

    cr_assert_null(error, "%s", error);
    if (inet_pton(AF_INET, address_text, address) == 1) {
        return network_list_has(&list, NETWORK_IPV4, address);
    }
    if (inet_pton(AF_INET6, address_text, address) == 1) {
        return network_list_has(&list, NETWORK_IPV6, address);
    }
    return network_list_has(&list, NETWORK_UNIX, address);
}

Test(network, holds_its_addresses_and_no_others)
{
    cr_expect(has("10.0.0.0/8", "10.255.255.255"));
    cr_expect_not(has("10.0.0.0/8", "11.0.0.0"));
    cr_expect_not(has("10.0.0.0/8", "9.255.255.255"));
    cr_expect(has("172.16.0.0/12", "172.31.255.255"));
    cr_expect_not(has("172.16.0.0/12", "172.32.0.0"));
    cr_expect(has("192.0.2.7", "192.0.2.7"));
    cr_expect_not(has("192.0.2.7", "192.0.2.6"));
    cr_expect(has("0.0.0.0/0", "255.1.2.3"));
    cr_expect_not(has("0.0.0.0/0", "::1"));
    cr_expect_not(has("::/0", "1.2.3.4"));
    cr_expect_not(has("::/0", "unix"));
    cr_expect_not(has("0.0.0.0/0", "unix"));
    cr_expect(has("2001:db8::/33", "2001:db8:7fff::1"));
    cr_expect_not(has("2001:db8::/33", "2001:db8:8000::1"));
    cr_expect(has("::1", "::1"));
    cr_expect_not(has("::1", "::2"));
    cr_expect(has("unix", "unix"));
    cr_expect_not(has("unix", "0.0.0.0"));
    cr_expect_not(network_list_has(&(struct network_list){0}, NETWORK_UNIX, (uint8_t[16]){0}));
}
