/* SPDX-License-Identifier: Apache-2.0
 *
 * Lanes are real sockets: who gets the connections, what outlives a close, what is refused.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "master/identity.h"
#include "master/lane.h"

static const struct identity own = {.drop = false};
static struct lane_set lanes;
static struct buf error;

static void
begin(void)
{
    lane_set_init(&lanes);
}

static void
end(void)
{
    LIST_FOR_EACH_SAFE (node, &lanes.addresses) {
        listen_address_close(listen_address_from(node));
    }
    buf_release(&error);
}

TestSuite(lane, .init = begin, .fini = end);

static struct listen_address *
open_address(const char *text, uint32_t slots, int *ret_errno)
{
    struct address address;
    char *parse_error = address_parse(text, &address);

    cr_assert_null(parse_error);
    struct listen_address *opened =
        listen_address_open(&lanes, &address, slots, 64, &own, ret_errno, &error);
    if (opened != NULL) {
        list_push_back(&lanes.addresses, &opened->node);
    }
    return opened;
}

static int
connect_to(const struct address *address)
{
    int fd = socket(address->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (connect(fd, &address->sa, address->length) == -1) {
        int result = -errno;
        (void)close(fd);
        return result;
    }
    return fd;
}

static int
tcp_option(int fd, int option)
{
    int value = -1;
    socklen_t size = sizeof(value);

    return getsockopt(fd, IPPROTO_TCP, option, &value, &size) == 0 ? value : -1;
}

Test(lane, port_0_gives_all_lanes_one_real_port)
{
    int result = 0;
    struct listen_address *address = open_address("127.0.0.1:0", 4, &result);

    cr_assert_not_null(address);
    cr_expect_eq(address->lane_count, 4);
    cr_expect_null(strstr(address->bound.text, ":0"));
    for (size_t i = 0; i < 4; i++) {
        struct sockaddr_in name;
        socklen_t size = sizeof(name);
        cr_assert_eq(getsockname(address->lanes[i].fd, (struct sockaddr *)&name, &size), 0);
        cr_expect_eq(name.sin_port, address->bound.in.sin_port);
        cr_expect_eq(address->lanes[i].home, i);
        cr_expect_neq(fcntl(address->lanes[i].fd, F_GETFD) & FD_CLOEXEC, 0);
        cr_expect_neq(fcntl(address->lanes[i].fd, F_GETFL) & O_NONBLOCK, 0);
        cr_expect_gt(tcp_option(address->lanes[i].fd, TCP_NODELAY), 0);
        cr_expect_gt(tcp_option(address->lanes[i].fd, TCP_DEFER_ACCEPT), 0);
    }
    cr_expect_eq(lane_set_find(&lanes, &address->wanted), address);
}

Test(lane, connections_are_spread_over_the_lanes)
{
    int result = 0;
    struct listen_address *address = open_address("127.0.0.1:0", 2, &result);
    int counts[2] = {0};
    int clients[60];

    cr_assert_not_null(address);
    for (size_t i = 0; i < 60; i++) {
        clients[i] = connect_to(&address->bound);
        cr_assert_gt(clients[i], 0);
        cr_assert_eq(write(clients[i], "x", 1), 1); /* the kernel waits for it (TCP_DEFER_ACCEPT) */
    }
    for (size_t lane = 0; lane < 2; lane++) {
        int fd;
        while ((fd = accept(address->lanes[lane].fd, NULL, NULL)) != -1) {
            counts[lane]++;
            (void)close(fd);
        }
    }
    cr_expect_eq(counts[0] + counts[1], 60);
    cr_expect(counts[0] > 5 && counts[1] > 5, "%d and %d", counts[0], counts[1]);
    for (size_t i = 0; i < 60; i++) {
        (void)close(clients[i]);
    }
}

Test(lane, growing_keeps_the_lanes_that_stand)
{
    int result = 0;
    struct listen_address *address = open_address("127.0.0.1:0", 1, &result);

    cr_assert_not_null(address);
    int fd = address->lanes[0].fd;
    uint32_t id = address->lanes[0].id;
    cr_assert_eq(listen_address_grow(&lanes, address, 3, 64, &error), 0);
    cr_expect_eq(address->lane_count, 3);
    cr_expect_eq(address->lanes[0].fd, fd);
    cr_expect_eq(address->lanes[0].id, id);
    cr_assert_eq(listen_address_grow(&lanes, address, 2, 64, &error), 0);
    cr_expect_eq(address->lane_count, 3, "fewer slots close nothing");
}

/* A stranger that listens with SO_REUSEPORT would share the port without anybody noticing. */
Test(lane, a_port_of_somebody_else_is_never_shared)
{
    const int on = 1;
    struct address address;
    int result = 0;
    char text[64];
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char *parse_error = address_parse("127.0.0.1:0", &address);

    cr_assert_null(parse_error);
    cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)), 0);
    cr_assert_eq(bind(fd, &address.sa, address.length), 0);
    cr_assert_eq(listen(fd, 1), 0);
    socklen_t size = sizeof(address.in);
    cr_assert_eq(getsockname(fd, &address.sa, &size), 0);
    (void)snprintf(text, sizeof(text), "127.0.0.1:%u", ntohs(address.in.sin_port));
    cr_expect_null(open_address(text, 2, &result));
    cr_expect_eq(result, -EADDRINUSE);
    cr_expect_not_null(strstr(error.ptr, text));
    cr_expect_not_null(strstr(error.ptr, "held by pid "));
    (void)close(fd);
}

Test(lane, a_reload_may_widen_an_address_of_ours)
{
    int result = 0;
    char text[64];
    struct listen_address *narrow = open_address("127.0.0.1:0", 2, &result);

    cr_assert_not_null(narrow);
    (void)snprintf(text, sizeof(text), "0.0.0.0:%u", ntohs(narrow->bound.in.sin_port));
    struct listen_address *wide = open_address(text, 2, &result);
    cr_assert_not_null(wide, "%s", error.ptr);
    int client = connect_to(&narrow->bound);
    cr_expect_gt(client, 0);
    (void)close(client);
    listen_address_close(narrow);
    int other = connect_to(&wide->bound);
    cr_expect_gt(other, 0);
    (void)close(other);
}

/* What the whole design rests on: a queue lives as long as anybody has its socket. */
Test(lane, a_queue_survives_the_one_who_served_it)
{
    int result = 0;
    struct listen_address *address = open_address("127.0.0.1:0", 1, &result);

    cr_assert_not_null(address);
    int served_by = dup(address->lanes[0].fd);
    int client = connect_to(&address->bound);
    cr_assert_gt(client, 0);
    cr_assert_eq(send(client, "x", 1, 0), 1);
    (void)close(served_by);
    int accepted = accept(address->lanes[0].fd, NULL, NULL);
    char byte = 0;
    cr_assert_neq(accepted, -1);
    cr_expect_eq(recv(accepted, &byte, 1, 0), 1);
    cr_expect_eq(byte, 'x');
    (void)close(accepted);
    (void)close(client);
}

Test(lane, what_cannot_be_listened_on_says_why)
{
    static const char *const texts[] = {"unix:/nonexistent/http.sock", "fd://99", "192.0.2.1:0"};

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        int result = 0;
        cr_expect_null(open_address(texts[i], 1, &result), "%s", texts[i]);
        cr_expect_lt(result, 0);
        cr_expect_not_null(strstr(error.ptr, texts[i]));
        buf_clear(&error);
    }
}
