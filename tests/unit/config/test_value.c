/* SPDX-License-Identifier: Apache-2.0
 *
 * Every type of value: what is taken, how it is printed again, what is refused and why.
 */
#include "tests/unit/config/support.h"

#include <arpa/inet.h>

#include "config/value.h"

TestSuite(value);

union any_value {
    int64_t number;
    bool flag;
    char *text;
    enum log_level level;
    enum balance balance;
    enum listen_mode listen;
    struct log_target target;
    struct address_list addresses;
    struct server_list servers;
    struct text_list texts;
    struct network_list networks;
    enum proxy_version proxy;
    enum told_by told;
    struct path_pattern pattern;
    struct redirect redirect;
    struct respond respond;
};

struct good {
    enum value_type type;
    int64_t min;
    int64_t max;
    const char *text;
    const char *printed; /* NULL: not set */
};

static const struct good goods[] = {
    {VALUE_COUNT, 1, 65535, "1", "1"},
    {VALUE_COUNT, 1, 65535, "65535", "65535"},
    {VALUE_COUNT, 0, 9, "0", "0"},
    {VALUE_COUNT, 0, 9, "0000000000000000000000007", "7"},
    {VALUE_COUNT, 0, INT64_MAX, "9223372036854775807", "9223372036854775807"},
    {VALUE_WORKERS, 1, 256, "auto", "auto"},
    {VALUE_WORKERS, 1, 256, "1", "1"},
    {VALUE_WORKERS, 1, 256, "256", "256"},
    {VALUE_DURATION, 0, 3600000, "0", "0"},
    {VALUE_DURATION, 0, 3600000, "0s", "0"},
    {VALUE_DURATION, 100, 3600000, "100ms", "100ms"},
    {VALUE_DURATION, 100, 3600000, "1500ms", "1500ms"},
    {VALUE_DURATION, 100, 3600000, "2000ms", "2s"},
    {VALUE_DURATION, 100, 3600000, "75s", "75s"},
    {VALUE_DURATION, 100, 3600000, "60s", "1m"},
    {VALUE_DURATION, 100, 3600000, "90m", NULL},
    {VALUE_DURATION, 100, 86400000, "90m", "90m"},
    {VALUE_DURATION, 100, 86400000, "24h", "24h"},
    {VALUE_DURATION, 100, 86400000, "5M", "5m"},
    {VALUE_SIZE, 0, INT64_C(1) << 40, "0", "0"},
    {VALUE_SIZE, 0, INT64_C(1) << 40, "255", "255"},
    {VALUE_SIZE, 0, INT64_C(1) << 40, "8k", "8k"},
    {VALUE_SIZE, 0, INT64_C(1) << 40, "8192", "8k"},
    {VALUE_SIZE, 0, INT64_C(1) << 40, "16M", "16m"},
    {VALUE_SIZE, 0, INT64_C(1) << 40, "1024g", "1024g"},
    {VALUE_BOOL, 0, 0, "on", "on"},
    {VALUE_BOOL, 0, 0, "off", "off"},
    {VALUE_BOOL, 0, 0, "yes", "on"},
    {VALUE_BOOL, 0, 0, "no", "off"},
    {VALUE_BOOL, 0, 0, "True", "on"},
    {VALUE_BOOL, 0, 0, "false", "off"},
    {VALUE_TEXT, 0, 0, "a  b\tc ; d", "a  b\tc ; d"},
    {VALUE_TEXT, 0, 0, "\xc3\xa4", "\xc3\xa4"},
    {VALUE_TEXT, 0, 0, "", NULL},
    {VALUE_PATH, 0, 0, "/run/x", "/run/x"},
    {VALUE_PATH, 0, 0, "//run/./x//y/.", "/run/x/y"},
    {VALUE_PATH, 0, 0, "/", "/"},
    {VALUE_PATH, 0, 0, "x", "/home/x"},
    {VALUE_PATH, 0, 0, ".", "/home"},
    {VALUE_PATH, 0, 0, "../x", "/home/../x"},
    {VALUE_PATH, 0, 0, "", NULL},
    {VALUE_LEVEL, 0, 0, "error", "error"},
    {VALUE_LEVEL, 0, 0, "DEBUG", "debug"},
    {VALUE_BALANCE, 0, 0, "least_busy", "least_busy"},
    {VALUE_BALANCE, 0, 0, "round_robin", "round_robin"},
    {VALUE_BALANCE, 0, 0, "hash", "hash"},
    {VALUE_LISTEN, 0, 0, "auto", "auto"},
    {VALUE_LISTEN, 0, 0, "fd", "fd"},
    {VALUE_LISTEN, 0, 0, "socket", "socket"},
    {VALUE_LISTEN, 0, 0, "port", "port"},
    {VALUE_TARGET, 0, 0, "off", "off"},
    {VALUE_TARGET, 1, 0, "stdout", "stdout"},
    {VALUE_TARGET, 1, 0, "stderr", "stderr"},
    {VALUE_TARGET, 1, 0, "syslog", "syslog"},
    {VALUE_TARGET, 0, 0, "journald", "journald"},
    {VALUE_TARGET, 1, 0, "/var/log/n.log", "/var/log/n.log"},
    {VALUE_TARGET, 1, 0, "./off", "/home/off"},
    {VALUE_ADDRESSES, 0, 0, "127.0.0.1:8000", "127.0.0.1:8000"},
    {VALUE_ADDRESSES, 0, 0, "localhost:1", "127.0.0.1:1"},
    {VALUE_ADDRESSES, 0, 0, "0.0.0.0:65535", "0.0.0.0:65535"},
    {VALUE_ADDRESSES, 0, 0, ":8000", "0.0.0.0:8000"},
    {VALUE_ADDRESSES, 0, 0, "127.0.0.1:0", "127.0.0.1:0"},
    {VALUE_ADDRESSES, 0, 0, "[::]:8080", "[::]:8080"},
    {VALUE_ADDRESSES, 0, 0, "[0:0:0:0:0:0:0:1]:80", "[::1]:80"},
    {VALUE_ADDRESSES, 0, 0, "unix:/run/n.sock", "unix:/run/n.sock"},
    {VALUE_ADDRESSES, 0, 0, "fd://3", "fd://3"},
    {VALUE_ADDRESSES, 0, 0, "fd://65535", "fd://65535"},
    {VALUE_ADDRESSES, 0, 0, "systemd:http", "systemd:http"},
    {VALUE_ADDRESSES, 0, 0, "systemd:narwhal.socket", "systemd:narwhal.socket"},
    {VALUE_ADDRESSES, 0, 0, "", NULL},
    {VALUE_SERVERS, 0, 0, "api.internal:8000", "dns:api.internal:8000"},
    {VALUE_SERVERS, 0, 0, "DNS-1.Example.:80", "dns:dns-1.example.:80"},
    {VALUE_SERVERS, 0, 0, "dns:a:1 weight=3", "dns:a:1 weight=3"},
    {VALUE_SERVERS, 0, 0, "dns+srv:_http._tcp.api.internal", "dns+srv:_http._tcp.api.internal"},
    {VALUE_NETWORKS, 0, 0, "10.0.0.0/8", "10.0.0.0/8"},
    {VALUE_NETWORKS, 0, 0, "unix", "unix"},
    {VALUE_NETWORKS, 0, 0, "", NULL},
    {VALUE_PROXY, 0, 0, "v2", "v2"},
    {VALUE_TOLD, 0, 0, "forwarded", "forwarded"},
    {VALUE_SERVERS, 0, 0, "127.0.0.1:9000", "127.0.0.1:9000"},
    {VALUE_SERVERS, 0, 0, "[::1]:9000  \t weight=1", "[::1]:9000"},
    {VALUE_SERVERS, 0, 0, "unix:/run/l.sock weight=2", "unix:/run/l.sock weight=2"},
    {VALUE_SERVERS, 0, 0, "127.0.0.1:9000 weight=1000", "127.0.0.1:9000 weight=1000"},
    {VALUE_SERVERS, 0, 0, "127.0.0.1:9000 slots=0", "127.0.0.1:9000 slots=0"},
    {VALUE_SERVERS, 0, 0, "unix:/s backup \t slots=65535  weight=1", "unix:/s slots=65535 backup"},
    {VALUE_SERVERS, 0, 0, "[::1]:1 weight=3 backup slots=7", "[::1]:1 weight=3 slots=7 backup"},
    {VALUE_TEXTS, 0, 0, "A=1", "A=1"},
    {VALUE_TEXTS, 0, 0, "", NULL},
    {VALUE_PATTERN, 0, 0, "/", "/"},
    {VALUE_PATTERN, 0, 0, "/assets/", "/assets/"},
    {VALUE_PATTERN, 0, 0, "=/healthz", "=/healthz"},
    {VALUE_PATTERN, 0, 0, "/.well-known/x..y", "/.well-known/x..y"},
    {VALUE_PATTERN, 0, 0, "/100%", "/100%"},
    {VALUE_REDIRECT, 0, 0, "/new", "308 /new"},
    {VALUE_REDIRECT, 0, 0, "301  /new", "301 /new"},
    {VALUE_REDIRECT, 0, 0, "307 https://a.example{path}", "307 https://a.example{path}"},
    {VALUE_REDIRECT, 0, 0, "", NULL},
    {VALUE_RESPOND, 0, 0, "200 ok", "200 ok"},
    {VALUE_RESPOND, 0, 0, "204", "204"},
    {VALUE_RESPOND, 0, 0, "200", "200"},
    {VALUE_RESPOND, 0, 0, "599   two  words", "599 two  words"},
    {VALUE_RESPOND, 0, 0, "", NULL},
};

Test(value, good_texts_are_taken_and_print_as_they_read_back)
{
    for (size_t i = 0; i < sizeof(goods) / sizeof(goods[0]); i++) {
        const struct good *good = &goods[i];
        struct value_rules rules = {good->min, good->max, "/home"};
        union any_value value = {0};
        union any_value again = {0};
        char *error = value_parse(good->type, &rules, good->text, &value);
        if (good->printed == NULL && good->text[0] != '\0') {
            cr_expect_not_null(error, "\"%s\" must be out of bounds", good->text);
            free(error);
            continue;
        }
        cr_assert_null(error, "\"%s\": %s", good->text, error);
        if (good->printed == NULL) {
            cr_expect_eq(value_count(good->type, &value), 0, "\"%s\"", good->text);
            value_release(good->type, &value);
            continue;
        }
        struct buf printed = {0};
        cr_assert_eq(value_count(good->type, &value), 1, "\"%s\"", good->text);
        value_print(good->type, &value, 0, &printed);
        cr_expect_str_eq(printed.ptr, good->printed);
        rules.folder = NULL; /* what is printed needs no folder */
        error = value_parse(good->type, &rules, printed.ptr, &again);
        cr_assert_null(error, "\"%s\" reads back: %s", printed.ptr, error);
        cr_expect(value_equal(good->type, &value, &again), "\"%s\"", good->text);
        value_release(good->type, &value);
        value_release(good->type, &again);
        cr_expect_eq(value_count(good->type, &value),
                     good->type <= VALUE_BOOL ||
                             (good->type >= VALUE_LEVEL && good->type <= VALUE_TARGET)
                         ? 1
                         : 0);
        buf_release(&printed);
    }
}

struct bad {
    enum value_type type;
    int64_t min;
    int64_t max;
    const char *text;
    const char *error;
};

#define DURATION_RULE ", a whole number with the unit ms, s, m or h"
#define SIZE_RULE ", a whole number of bytes or with k, m or g"
#define ADDRESS_RULE "allowed are HOST:PORT, [IPV6]:PORT, :PORT, unix:/PATH, systemd:NAME or fd://N"

static const struct bad bads[] = {
    {VALUE_COUNT, 1, 5, "6", "\"6\" is out of range; it must be from 1 to 5"},
    {VALUE_COUNT, 1, 5, "+1", "\"+1\" is not a whole number; it must be from 1 to 5"},
    {VALUE_COUNT, 1, 5, " 1", "\" 1\" is not a whole number; it must be from 1 to 5"},
    {VALUE_COUNT, 1, 5, "1.0", "\"1.0\" is not a whole number; it must be from 1 to 5"},
    {VALUE_COUNT, 1, 5, "0x1", "\"0x1\" is not a whole number; it must be from 1 to 5"},
    {VALUE_COUNT, 0, INT64_MAX, "9223372036854775808",
     "\"9223372036854775808\" is out of range; it must be from 0 to 9223372036854775807"},
    {VALUE_WORKERS, 1, 4, "5", "\"5\" is out of range; it must be auto or 1 to 4"},
    {VALUE_WORKERS, 1, 4, "AUTO", "\"AUTO\" is not a whole number; it must be auto or 1 to 4"},
    {VALUE_DURATION, 100, 3600000, "99ms",
     "\"99ms\" is out of range; it must be from 100ms to 1h" DURATION_RULE},
    {VALUE_DURATION, 100, 3600000, "3600001ms",
     "\"3600001ms\" is out of range; it must be from 100ms to 1h" DURATION_RULE},
    {VALUE_DURATION, 100, 3600000, "0",
     "\"0\" is out of range; it must be from 100ms to 1h" DURATION_RULE},
    {VALUE_DURATION, 100, 3600000, "5",
     "\"5\" has no unit; it must be from 100ms to 1h" DURATION_RULE},
    {VALUE_DURATION, 100, 3600000, "s",
     "\"s\" is not a duration; it must be from 100ms to 1h" DURATION_RULE},
    {VALUE_DURATION, 0, INT64_MAX, "9223372036854775807s",
     "\"9223372036854775807s\" is out of range; it must be from 0 to "
     "9223372036854775807ms" DURATION_RULE},
    {VALUE_SIZE, 256, 32768, "33k",
     "\"33k\" is out of range; it must be from 256 to 32k" SIZE_RULE},
    {VALUE_SIZE, 256, 32768, "1 k", "\"1 k\" is not a size; it must be from 256 to 32k" SIZE_RULE},
    {VALUE_BOOL, 0, 0, "", "\"\" is not allowed; it must be off or on"},
    {VALUE_BOOL, 0, 0, "offf",
     "\"offf\" is not allowed; it must be off or on; did you mean \"off\"?"},
    {VALUE_TEXT, 0, 0, "a\nb",
     "\"a?b\" has the control byte 0x0a at position 2; only printable text is allowed"},
    {VALUE_TEXT, 0, 0, "\x7f",
     "\"?\" has the control byte 0x7f at position 1; only printable text is allowed"},
    {VALUE_LEVEL, 0, 0, "warning",
     "\"warning\" is not allowed; it must be error, warn, info or debug"},
    {VALUE_LEVEL, 0, 0, "wrn",
     "\"wrn\" is not allowed; it must be error, warn, info or debug; did you mean \"warn\"?"},
    {VALUE_TARGET, 1, 0, "",
     "\"\" is not allowed; it must be stdout, stderr, syslog, journald, or the path of a file "
     "with a '/' in it"},
    {VALUE_ADDRESSES, 0, 0, "8000", "\"8000\" is no address; " ADDRESS_RULE},
    {VALUE_ADDRESSES, 0, 0, "1.2.3:80",
     "\"1.2.3:80\" must have a numeric host such as 127.0.0.1; names other than localhost are not "
     "resolved"},
    {VALUE_ADDRESSES, 0, 0,
     "127.0.0.1:", "\"127.0.0.1:\" must end in a port number from 0 to 65535; " ADDRESS_RULE},
    {VALUE_ADDRESSES, 0, 0, "127.0.0.1:+1",
     "\"127.0.0.1:+1\" must end in a port number from 0 to 65535; " ADDRESS_RULE},
    {VALUE_ADDRESSES, 0, 0, "[::1]80", "\"[::1]80\" must be [IPV6]:PORT, for example [::1]:8000"},
    {VALUE_ADDRESSES, 0, 0, "[127.0.0.1]:80",
     "\"[127.0.0.1]:80\" must have a numeric IPv6 address without a zone in its brackets, for "
     "example [::1]:8000"},
    {VALUE_ADDRESSES, 0, 0, "unix:",
     "\"unix:\" must be unix: and an absolute path, for example unix:/run/narwhal/http.sock"},
    {VALUE_ADDRESSES, 0, 0, "unix:@abstract",
     "\"unix:@abstract\" must be unix: and an absolute path, for example "
     "unix:/run/narwhal/http.sock"},
    {VALUE_ADDRESSES, 0, 0, "fd://65536",
     "\"fd://65536\" must be fd:// and a descriptor number from 3 to 65535"},
    {VALUE_ADDRESSES, 0, 0, "systemd:",
     "\"systemd:\" must be systemd: and the name that FileDescriptorName= of a .socket unit gives "
     "to its sockets (at most 111 characters, no ':'), for example systemd:http"},
    {VALUE_ADDRESSES, 0, 0, "systemd:a:b",
     "\"systemd:a:b\" must be systemd: and the name that FileDescriptorName= of a .socket unit "
     "gives to its sockets (at most 111 characters, no ':'), for example systemd:http"},
    {VALUE_SERVERS, 0, 0, "dns:1.2.3.4:80",
     "\"dns:1.2.3.4:80\" must be dns:HOST:PORT with the name of a host, for example "
     "dns:api.internal:8000"},
    {VALUE_SERVERS, 0, 0, "a.internal:0",
     "\"a.internal:0\" must have a port from 1 to 65535 behind its name"},
    {VALUE_SERVERS, 0, 0, "dns+srv:a..b",
     "\"dns+srv:a..b\" must be dns+srv: and the name of a service, for example "
     "dns+srv:_http._tcp.api.internal"},
    {VALUE_NETWORKS, 0, 0, "10.0.0.1/8",
     "\"10.0.0.1/8\" has bits behind its prefix: write 10.0.0.0/8 for that network, or leave the "
     "slash away for one address"},
    {VALUE_PROXY, 0, 0, "v3",
     "\"v3\" is not allowed; it must be off, v1 or v2; did you mean \"v1\"?"},
    {VALUE_SERVERS, 0, 0, "127.0.0.1:1 weight=1001",
     "\"127.0.0.1:1 weight=1001\" may have nothing but weight=N (1 to 1000), slots=N (0 to 65535) "
     "and backup behind the address, each once"},
    {VALUE_SERVERS, 0, 0, "127.0.0.1:1 slots=65536",
     "\"127.0.0.1:1 slots=65536\" may have nothing but weight=N (1 to 1000), slots=N (0 to 65535) "
     "and backup behind the address, each once"},
    {VALUE_SERVERS, 0, 0, "127.0.0.1:1 backup backup",
     "\"127.0.0.1:1 backup backup\" may have nothing but weight=N (1 to 1000), slots=N (0 to "
     "65535) and backup behind the address, each once"},
    {VALUE_SERVERS, 0, 0, "127.0.0.1:1 weight=2 x",
     "\"127.0.0.1:1 weight=2 x\" may have nothing but weight=N (1 to 1000), slots=N (0 to 65535) "
     "and backup behind the address, each once"},
    {VALUE_PATTERN, 0, 0, "=x", "\"=x\" must begin with '/', or with '=/' for that path only"},
    {VALUE_PATTERN, 0, 0, "/a#b", "\"/a#b\" must be a path alone, without '?' and '#'"},
    {VALUE_PATTERN, 0, 0, "/.",
     "\"/.\" must not have '.' or '..' as a part: requests are matched after those are resolved"},
    {VALUE_PATTERN, 0, 0, "/a/..",
     "\"/a/..\" must not have '.' or '..' as a part: requests are matched after those are "
     "resolved"},
    {VALUE_PATTERN, 0, 0, "//", "\"//\" must not have '//': no request is matched by it"},
    {VALUE_REDIRECT, 0, 0, "301",
     "\"301\" must have a LOCATION that begins with '/', http:// or "
     "https://"},
    {VALUE_REDIRECT, 0, 0, "200 /x",
     "\"200 /x\" must begin with the status 301, 302, 303, 307 or "
     "308, or with LOCATION"},
    {VALUE_REDIRECT, 0, 0, "301/x",
     "\"301/x\" must begin with the status 301, 302, 303, 307 or 308, or with LOCATION"},
    {VALUE_RESPOND, 0, 0, "200ok",
     "\"200ok\" must be a status from 200 to 599 and a text, for example 200 ok"},
    {VALUE_RESPOND, 0, 0, "304 x", "\"304 x\" must not have a text: a 304 response has no content"},
};

Test(value, bad_texts_are_refused_with_what_is_allowed)
{
    for (size_t i = 0; i < sizeof(bads) / sizeof(bads[0]); i++) {
        const struct bad *bad = &bads[i];
        struct value_rules rules = {bad->min, bad->max, "/home"};
        union any_value value = {0};
        union any_value untouched = {0};
        char *error = value_parse(bad->type, &rules, bad->text, &value);
        cr_assert_not_null(error, "\"%s\" was taken", bad->text);
        cr_expect_str_eq(error, bad->error);
        cr_expect_eq(memcmp(&value, &untouched, sizeof(value)), 0, "\"%s\" changed the field",
                     bad->text);
        free(error);
    }
}

Test(value, relative_paths_need_a_folder)
{
    struct value_rules rules = {0};
    char *path = NULL;
    char *error = value_parse(VALUE_PATH, &rules, "x", &path);

    cr_assert_not_null(error);
    cr_expect_str_eq(error, "\"x\" must be an absolute path");
    cr_expect_null(path);
    free(error);
}

Test(value, path_is_refused_only_above_4095_bytes)
{
    struct value_rules rules = {0};
    char text[4097];
    char *path = NULL;

    memset(text, 'p', sizeof(text));
    text[0] = '/';
    text[4095] = '\0';
    cr_assert_null(value_parse(VALUE_PATH, &rules, text, &path));
    cr_expect_eq(strlen(path), 4095);
    text[4095] = 'p';
    text[4096] = '\0';
    char *error = value_parse(VALUE_PATH, &rules, text, &path);
    cr_assert_not_null(error);
    cr_expect_not_null(strstr(error, "is longer than the 4095 bytes of a path"));
    cr_expect_eq(strlen(path), 4095, "the value before is kept");
    free(error);
    free(path);
}

Test(value, unix_path_is_refused_only_above_107_bytes)
{
    struct address address;
    char text[5 + 109];

    memset(text, 'u', sizeof(text));
    memcpy(text, "unix:/", 6);
    text[5 + 107] = '\0';
    cr_assert_null(address_parse(text, &address));
    cr_expect_eq(address.kind, ADDRESS_UNIX);
    cr_expect_str_eq(address.un.sun_path, text + 5);
    cr_expect_str_eq(address.text, text);
    cr_expect_eq(address.length, offsetof(struct sockaddr_un, sun_path) + 108);
    text[5 + 107] = 'u';
    text[5 + 108] = '\0';
    char *error = address_parse(text, &address);
    cr_assert_not_null(error);
    cr_expect_not_null(strstr(error, "has a path of 108 bytes; the kernel takes at most 107"));
    free(error);
}

Test(value, addresses_have_the_socket_address_the_kernel_wants)
{
    struct address address;

    cr_assert_null(address_parse("127.0.0.2:258", &address));
    cr_expect_eq(address.kind, ADDRESS_TCP);
    cr_expect_eq(address.fd, -1);
    cr_expect_eq(address.length, sizeof(struct sockaddr_in));
    cr_expect_eq(address.in.sin_family, AF_INET);
    cr_expect_eq(address.in.sin_addr.s_addr, htonl(0x7f000002));
    cr_expect_eq(address.in.sin_port, htons(258));

    cr_assert_null(address_parse("[::1]:443", &address));
    cr_expect_eq(address.length, sizeof(struct sockaddr_in6));
    cr_expect_eq(address.in6.sin6_family, AF_INET6);
    cr_expect_eq(memcmp(&address.in6.sin6_addr, &in6addr_loopback, sizeof(struct in6_addr)), 0);
    cr_expect_eq(address.in6.sin6_port, htons(443));

    cr_assert_null(address_parse("fd://7", &address));
    cr_expect_eq(address.kind, ADDRESS_FD);
    cr_expect_eq(address.fd, 7);
    cr_expect_eq(address.length, 0);
}

Test(value, lists_take_256_items_and_no_more)
{
    struct value_rules rules = {0};
    struct text_list list = {0};

    for (int i = 0; i < VALUE_LIST_MAX; i++) {
        cr_assert_null(value_parse(VALUE_TEXTS, &rules, "A=1", &list));
    }
    char *error = value_parse(VALUE_TEXTS, &rules, "B=2", &list);
    cr_assert_not_null(error);
    cr_expect_str_eq(error, "\"B=2\" is one too many; at most 256 are allowed");
    cr_expect_eq(list.count, VALUE_LIST_MAX);
    free(error);
    value_release(VALUE_TEXTS, &list);
    cr_expect_null(list.item);
}

Test(value, long_texts_are_cut_in_errors)
{
    char text[200];
    struct buf quoted = {0};

    memset(text, 'x', sizeof(text));
    text[80] = '\0';
    value_quote(text, &quoted);
    cr_expect_eq(quoted.len, 82);
    buf_clear(&quoted);
    text[80] = 'x';
    text[81] = '\0';
    value_quote(text, &quoted);
    cr_expect_eq(quoted.len, 85);
    cr_expect_str_eq(quoted.ptr + 80, "x...\"");
    buf_release(&quoted);
}

Test(value, lists_of_other_length_or_order_are_not_equal)
{
    struct value_rules rules = {0};
    struct text_list a = {0};
    struct text_list b = {0};

    cr_assert_null(value_parse(VALUE_TEXTS, &rules, "A=1", &a));
    cr_assert_null(value_parse(VALUE_TEXTS, &rules, "B=2", &a));
    cr_assert_null(value_parse(VALUE_TEXTS, &rules, "B=2", &b));
    cr_expect_not(value_equal(VALUE_TEXTS, &a, &b));
    cr_assert_null(value_parse(VALUE_TEXTS, &rules, "A=1", &b));
    cr_expect_not(value_equal(VALUE_TEXTS, &a, &b));
    value_release(VALUE_TEXTS, &b);
    cr_assert_null(value_parse(VALUE_TEXTS, &rules, "A=1", &b));
    cr_assert_null(value_parse(VALUE_TEXTS, &rules, "B=2", &b));
    cr_expect(value_equal(VALUE_TEXTS, &a, &b));
    value_release(VALUE_TEXTS, &a);
    value_release(VALUE_TEXTS, &b);
}
