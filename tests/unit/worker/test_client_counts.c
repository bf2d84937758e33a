/* SPDX-License-Identifier: Apache-2.0
 *
 * Connections per client address: limits, networks of IPv6, and a table that stays right through
 * many additions and removals.
 */
#include "worker/client_counts.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

static struct peer
ipv4(uint32_t number)
{
    struct peer peer = {.family = PEER_IPV4, .port = (uint16_t)number};

    memcpy(peer.address, &number, sizeof(number));
    return peer;
}

Test(client_counts, a_client_has_its_limit_and_no_more)
{
    struct client_counts counts;
    struct peer one = ipv4(1);
    struct peer other = ipv4(2);

    client_counts_init(&counts, 7);
    cr_expect_eq(client_counts_add(&counts, &one, 2), 0);
    one.port++;
    cr_expect_eq(client_counts_add(&counts, &one, 2), 0);
    cr_expect_eq(client_counts_add(&counts, &one, 2), -EDQUOT);
    cr_expect_eq(client_counts_add(&counts, &other, 2), 0);
    client_counts_remove(&counts, &one);
    cr_expect_eq(client_counts_add(&counts, &one, 2), 0);
    cr_expect_eq(client_counts_add(&counts, &one, 2), -EDQUOT);
    client_counts_release(&counts);
}

Test(client_counts, a_limit_that_was_lowered_holds_for_the_next)
{
    struct client_counts counts;
    struct peer one = ipv4(1);

    client_counts_init(&counts, 7);
    for (int i = 0; i < 5; i++) {
        cr_expect_eq(client_counts_add(&counts, &one, 5), 0);
    }
    cr_expect_eq(client_counts_add(&counts, &one, 2), -EDQUOT);
    for (int i = 0; i < 4; i++) {
        client_counts_remove(&counts, &one);
    }
    cr_expect_eq(client_counts_add(&counts, &one, 2), 0);
    client_counts_release(&counts);
}

Test(client_counts, ipv6_counts_by_its_network_and_never_as_ipv4)
{
    struct client_counts counts;
    struct peer a = {.family = PEER_IPV6, .address = {0x20, 1, 0xd, 0xb8, 0, 0, 0, 1, [15] = 1}};
    struct peer b = a;
    struct peer c = a;
    struct peer like_a = {.family = PEER_IPV4};

    b.address[15] = 2;
    c.address[7] = 2;
    memcpy(like_a.address, a.address, 4);
    client_counts_init(&counts, 7);
    cr_expect_eq(client_counts_add(&counts, &a, 1), 0);
    cr_expect_eq(client_counts_add(&counts, &b, 1), -EDQUOT);
    cr_expect_eq(client_counts_add(&counts, &c, 1), 0);
    cr_expect_eq(client_counts_add(&counts, &like_a, 1), 0);
    client_counts_release(&counts);
}

Test(client_counts, nothing_is_lost_or_left_in_a_table_that_grows_and_empties)
{
    enum { CLIENTS = 3000 };
    static uint8_t open[CLIENTS];
    struct client_counts counts;
    uint32_t random = 1;
    uint32_t total = 0;

    client_counts_init(&counts, 12345);
    for (int step = 0; step < 200000; step++) {
        random = random * 1664525u + 1013904223u;
        uint32_t number = (random >> 8) % CLIENTS;
        struct peer peer = ipv4(number);
        bool add = step < 100000 ? (random >> 28) < 10 : (random >> 28) < 6;
        if (add) {
            int result = client_counts_add(&counts, &peer, 3);
            cr_assert_eq(result, open[number] < 3 ? 0 : -EDQUOT, "step %d", step);
            open[number] = (uint8_t)(open[number] + (result == 0 ? 1 : 0));
            total += result == 0 ? 1 : 0;
        } else if (open[number] > 0) {
            client_counts_remove(&counts, &peer);
            open[number]--;
            total--;
        }
        cr_assert(counts.used <= total && counts.used * 2 <= counts.capacity + 1, "step %d", step);
    }
    for (uint32_t number = 0; number < CLIENTS; number++) {
        struct peer peer = ipv4(number);
        for (; open[number] > 0; open[number]--) {
            client_counts_remove(&counts, &peer);
        }
    }
    cr_expect_eq(counts.used, 0);
    cr_expect_null(counts.place, "an empty table holds no memory");
    client_counts_release(&counts);
}
