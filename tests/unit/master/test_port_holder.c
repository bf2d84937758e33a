/* SPDX-License-Identifier: Apache-2.0
 *
 * Who holds a port: this very process does.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "config/value.h"
#include "master/port_holder.h"

static struct port_listener
listener_of(const char *local)
{
    struct port_listener listener = {0};
    char line[256];

    (void)snprintf(
        line, sizeof(line),
        "  12: %s 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 "
        "123456789 1 0000000000000000 100 0 0 10 0\n",
        local);
    cr_assert(port_holder_parse_line(line, &listener), "%s", line);
    return listener;
}

Test(port_holder, lines_of_proc_net_tcp)
{
    struct port_listener listener = listener_of("0100007F:1F40");

    cr_expect_eq(listener.port, 8000);
    cr_expect_eq(listener.inode, 123456789);
    cr_expect_eq(listener.host_size, 4);
    listener = listener_of("00000000000000000000000000000000:0050");
    cr_expect_eq(listener.port, 80);
    cr_expect_eq(listener.host_size, 16);
}

/* Somebody on the same port of another address is in nobody's way. Written as a machine does that
 * counts from the little end, which is what the tests run on. */
Test(port_holder, who_is_in_the_way)
{
#define ANY6 "00000000000000000000000000000000"
#define LOOP6 "00000000000000000000000001000000"
    static const struct {
        const char *local;
        const char *wanted;
        bool is_in_the_way;
    } cases[] = {{"0100007F:0050", "127.0.0.1:80", true},  {"0100007F:0051", "127.0.0.1:80", false},
                 {"0200007F:0050", "127.0.0.1:80", false}, {"00000000:0050", "127.0.0.1:80", true},
                 {"0100007F:0050", "0.0.0.0:80", true},    {LOOP6 ":0050", "[::1]:80", true},
                 {LOOP6 ":0050", "[::2]:80", false},       {ANY6 ":0050", "[::1]:80", true},
                 {LOOP6 ":0050", "[::]:80", true},         {ANY6 ":0050", "127.0.0.1:80", true},
                 {LOOP6 ":0050", "127.0.0.1:80", false},   {"0100007F:0050", "[::1]:80", false},
                 {"00000000:0050", "[::]:80", false}};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct port_listener listener = listener_of(cases[i].local);
        struct address address = {.kind = ADDRESS_TCP};
        char *error = address_parse(cases[i].wanted, &address);
        cr_assert_null(error);
        cr_expect_eq(port_holder_is_in_the_way(&listener, &address), cases[i].is_in_the_way,
                     "%s and %s", cases[i].local, cases[i].wanted);
    }
}

Test(port_holder, other_lines_are_not_listeners)
{
    static const char *const lines[] = {
        "",
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n",
        /* established */
        "   1: 0100007F:1F40 0100007F:0050 01 00000000:00000000 00:00000000 00000000 0 0 5 1\n",
        /* listening, but its process is gone */
        "   1: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 0 1\n",
        "   1: 0100007F:1F40 00000000:0000 0A 00000000",
        /* no address */
        "   1: 0100:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 5 1\n",
    };
    struct port_listener listener;

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        cr_expect(!port_holder_parse_line(lines[i], &listener), "%s", lines[i]);
    }
}

static void
expect_found(int family, const char *text)
{
    struct address address = {.kind = ADDRESS_TCP};
    struct buf found = {0};
    char wanted[32];
    char with_port[64];
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char *error = address_parse(text, &address);

    cr_assert_null(error);
    if (fd == -1 || bind(fd, &address.sa, address.length) == -1) {
        cr_skip_test("this machine has no such address: %s", text);
    }
    cr_assert_eq(listen(fd, 1), 0);
    socklen_t size = sizeof(address.in6);
    cr_assert_eq(getsockname(fd, &address.sa, &size), 0);
    (void)snprintf(with_port, sizeof(with_port), "port of %s", text);
    cr_assert(port_holder_find(&address, &found), "%s", with_port);
    (void)snprintf(wanted, sizeof(wanted), "pid %d (", (int)getpid());
    cr_expect_eq(strncmp(found.ptr, wanted, strlen(wanted)), 0, "%s", found.ptr);
    buf_release(&found);
    (void)close(fd);
    cr_expect(!port_holder_find(&address, &found), "after closing: %s", found.ptr);
    buf_release(&found);
}

Test(port_holder, finds_this_process)
{
    expect_found(AF_INET, "127.0.0.1:0");
}

Test(port_holder, finds_this_process_on_ipv6)
{
    expect_found(AF_INET6, "[::1]:0");
}
