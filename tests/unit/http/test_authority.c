/* SPDX-License-Identifier: Apache-2.0
 *
 * host[:port] by its grammar.
 */
#include "support.h"
#include "worker/http/authority.h"

Test(authority, valid_ones_are_split)
{
    static const struct {
        const char *text;
        const char *host;
        int32_t port;
    } rows[] = {
        {"a", "a", AUTHORITY_NO_PORT},
        {"example.com", "example.com", AUTHORITY_NO_PORT},
        {"example.com.", "example.com.", AUTHORITY_NO_PORT},
        {"example.com:", "example.com", AUTHORITY_NO_PORT},
        {"example.com:0", "example.com", 0},
        {"example.com:80", "example.com", 80},
        {"example.com:65535", "example.com", 65535},
        {"example.com:000080", "example.com", 80},
        {"a_b-c~d", "a_b-c~d", AUTHORITY_NO_PORT},
        {"!$&'()*+,;=", "!$&'()*+,;=", AUTHORITY_NO_PORT},
        {"ex%41mple", "ex%41mple", AUTHORITY_NO_PORT},
        {"192.0.2.1:8080", "192.0.2.1", 8080},
        {"[::]", "[::]", AUTHORITY_NO_PORT},
        {"[::1]:443", "[::1]", 443},
        {"[::1]:", "[::1]", AUTHORITY_NO_PORT},
        {"[2001:DB8:0:0:0:0:0:1]", "[2001:DB8:0:0:0:0:0:1]", AUTHORITY_NO_PORT},
        {"[1:2:3:4:5:6:7::]", "[1:2:3:4:5:6:7::]", AUTHORITY_NO_PORT},
        {"[::ffff:192.0.2.1]", "[::ffff:192.0.2.1]", AUTHORITY_NO_PORT},
        {"[v1.a:b]", "[v1.a:b]", AUTHORITY_NO_PORT},
        {"[VaF.~]:1", "[VaF.~]", 1},
        /* and those that are none */
        {"", NULL, 0},
        {":", NULL, 0},
        {":80", NULL, 0},
        {"a:b", NULL, 0},
        {"a:8 0", NULL, 0},
        {"a:65536", NULL, 0},
        {"a:99999999999999999999", NULL, 0},
        {"a:-1", NULL, 0},
        {"a:+1", NULL, 0},
        {"a:80:80", NULL, 0},
        {"a b", NULL, 0},
        {"a\tb", NULL, 0},
        {"a/b", NULL, 0},
        {"a?b", NULL, 0},
        {"a#b", NULL, 0},
        {"a@b", NULL, 0},
        {"u:p@b", NULL, 0},
        {"a\\b", NULL, 0},
        {"a\"b", NULL, 0},
        {"a<b>", NULL, 0},
        {"a^b", NULL, 0},
        {"a|b", NULL, 0},
        {"a{b}", NULL, 0},
        {"\xc3\xa4", NULL, 0},
        {"a%", NULL, 0},
        {"a%4", NULL, 0},
        {"a%4g", NULL, 0},
        {"%", NULL, 0},
        {"[", NULL, 0},
        {"[]", NULL, 0},
        {"[]:80", NULL, 0},
        {"[::1", NULL, 0},
        {"[::1]a", NULL, 0},
        {"[::1]80", NULL, 0},
        {"[::1]:x", NULL, 0},
        {"[:::1]", NULL, 0},
        {"[::1::]", NULL, 0},
        {"[1:2:3:4:5:6:7:8:9]", NULL, 0},
        {"[12345::]", NULL, 0},
        {"[192.0.2.1]", NULL, 0},
        {"[fe80::1%eth0]", NULL, 0},
        {"[fe80::1%25eth0]", NULL, 0},
        {"[example.com]", NULL, 0},
        {"[v.a]", NULL, 0},
        {"[v1.]", NULL, 0},
        {"[v1a]", NULL, 0},
        {"[v1.a b]", NULL, 0},
        {"[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000]", NULL, 0},
        {"::1", NULL, 0},
        {"a]", NULL, 0},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct authority authority = {{NULL, 0}, -2};
        size_t length = strlen(rows[i].text);
        struct str text = {guarded_at_end(rows[i].text, length), length};
        const char *reason = authority_parse(text, &authority);

        if (rows[i].host == NULL) {
            cr_expect(reason != NULL, "'%s' must be refused", rows[i].text);
            continue;
        }
        cr_expect(reason == NULL, "'%s' is refused: %s", rows[i].text, reason);
        cr_expect(str_is(authority.host, rows[i].host), "host of '%s'", rows[i].text);
        cr_expect_eq(authority.port, rows[i].port, "port of '%s' is %d", rows[i].text,
                     authority.port);
    }
}

Test(authority, a_nul_ends_nothing)
{
    struct authority authority;

    cr_expect(authority_parse(STR("a\0b"), &authority) != NULL);
    cr_expect(authority_parse(STR("[::1\0]"), &authority) != NULL);
    cr_expect(authority_parse(STR("[::1\0x]"), &authority) != NULL);
    cr_expect(authority_parse(STR("a:8\0"), &authority) != NULL);
}

Test(authority, equal_means_host_in_any_case_and_port_with_its_default)
{
    static const struct {
        const char *a;
        const char *b;
        int32_t default_port;
        bool equal;
    } rows[] = {
        {"a", "a", 80, true},         {"a", "A", 80, true},      {"a:80", "a", 80, true},
        {"a:", "a", 80, true},        {"a:443", "a", 443, true}, {"a:080", "a:80", 443, true},
        {"[::1]", "[::1]", 80, true}, {"a:443", "a", 80, false}, {"a", "b", 80, false},
        {"a:81", "a", 80, false},     {"a.", "a", 80, false},    {"aa", "a", 80, false},
        {"a:1", "a:2", 80, false},    {"%41", "a", 80, false},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct authority a;
        struct authority b;

        cr_assert(authority_parse(str_from(rows[i].a), &a) == NULL);
        cr_assert(authority_parse(str_from(rows[i].b), &b) == NULL);
        cr_expect_eq(authority_equal(&a, &b, rows[i].default_port), rows[i].equal, "%s and %s",
                     rows[i].a, rows[i].b);
    }
}
