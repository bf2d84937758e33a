/* SPDX-License-Identifier: Apache-2.0
 *
 * Which server is chosen: exact for given numbers on the scoreboard, fair over many choices.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config/base/hash.h"
#include "worker/proxy/balance.h"

#define NOW_MS 1000000

static struct scoreboard *board;
static uint32_t records[BOARD_SERVERS_MAX];
static uint64_t tried[BOARD_SERVERS_MAX / 64];
static struct balance_state state;
static struct balance_input input;
static uint32_t all_slots; /* of servers that are added */

static void
make_board(void)
{
    int fd;

    board = scoreboard_create(&fd);
    cr_assert_not_null(board);
    (void)close(fd);
    balance_state_init(&state, 0);
    input = (struct balance_input){
        .board = board, .records = records, .tried = tried, .now_ms = NOW_MS};
}

static void
drop_board(void)
{
    balance_state_release(&state);
}

TestSuite(balance, .init = make_board, .fini = drop_board);

/* Adds a READY server; records are spread so that an index mixed up with a record is noticed. */
static struct board_server *
add_server(uint32_t weight, uint32_t in_flight)
{
    uint32_t record = 7 + input.count * 3 % 1000;
    struct board_server *server = &board->servers[record];

    (void)snprintf(server->address.text, sizeof(server->address.text), "10.0.0.%u:9000",
                   input.count);
    server->weight = weight;
    server->in_flight = in_flight;
    server->slots = all_slots;
    server->identity = hash_bytes(0, server->address.text, strlen(server->address.text));
    server->state = BOARD_READY;
    records[input.count++] = record;
    return server;
}

static struct board_server *
server_at(uint32_t index)
{
    return &board->servers[records[index]];
}

static uint32_t
choose(void)
{
    uint32_t index = UINT32_MAX;

    cr_assert_eq(balance_choose(&state, &input, &index), BALANCE_CHOSEN);
    cr_assert_lt(index, input.count);
    return index;
}

static enum balance_result
choose_result(void)
{
    uint32_t index = UINT32_MAX;
    enum balance_result result = balance_choose(&state, &input, &index);

    if (result != BALANCE_CHOSEN) {
        cr_assert_eq(index, UINT32_MAX, "an index without a choice");
    }
    return result;
}

/* Expects the choices to be, as letters: "aba". */
static void
expect_sequence(const char *expected)
{
    char got[128] = "";

    for (size_t i = 0; i < strlen(expected); i++) {
        got[i] = (char)('a' + choose());
    }
    cr_expect_str_eq(got, expected);
}

/* ---- all methods ---------------------------------------------------------------------------- */

static void
check_eligibility(void)
{
    cr_assert_eq(choose_result(), BALANCE_NONE); /* no servers at all */
    for (int i = 0; i < 4; i++) {
        (void)add_server(1, 0);
    }
    for (int i = 0; i < BOARD_STATE_COUNT; i++) {
        for (uint32_t s = 0; s < 4; s++) {
            server_at(s)->state = (uint32_t)i;
        }
        cr_expect_eq(choose_result(), i == BOARD_READY ? BALANCE_CHOSEN : BALANCE_NONE);
    }
    for (uint32_t s = 0; s < 4; s++) { /* the only one that is READY */
        server_at(0)->state = server_at(1)->state = BOARD_DRAINING;
        server_at(2)->state = server_at(3)->state = BOARD_STARTING;
        server_at(s)->state = BOARD_READY;
        for (int i = 0; i < 20; i++) {
            cr_expect_eq(choose(), s);
        }
    }
    for (uint32_t s = 0; s < 4; s++) {
        server_at(s)->state = BOARD_READY;
    }
    for (uint64_t bits = 0; bits < 16; bits++) { /* those that were tried */
        tried[0] = bits;
        if (bits == 15) {
            cr_expect_eq(choose_result(), BALANCE_NONE);
            continue;
        }
        for (int i = 0; i < 20; i++) {
            cr_expect_eq(bits >> choose() & 1, 0);
        }
    }
    tried[0] = 0;

    server_at(1)->down_until_ms = NOW_MS + 1; /* resting */
    server_at(2)->down_until_ms = NOW_MS;     /* rested */
    bool chosen[4] = {false};
    for (int i = 0; i < 50; i++) {
        input.hash = hash_mix((uint64_t)i, 77);
        chosen[choose()] = true;
    }
    cr_expect_not(chosen[1]);
    cr_expect(chosen[0] && chosen[2] && chosen[3]);
    tried[0] = 0xd; /* only the resting one is left */
    cr_expect_eq(choose(), 1);
    tried[0] = 0;
    for (uint32_t s = 0; s < 4; s++) {
        server_at(s)->down_until_ms = NOW_MS + 1000;
    }
    for (int i = 0; i < 50; i++) { /* all rest: all are used */
        input.hash = hash_mix((uint64_t)i, 78);
        chosen[choose()] = true;
    }
    cr_expect(chosen[0] && chosen[1] && chosen[2] && chosen[3]);

    for (uint32_t s = 0; s < 4; s++) {
        server_at(s)->down_until_ms = 0;
        server_at(s)->in_flight = 8;
    }
    cr_expect_eq(choose_result(), BALANCE_CHOSEN); /* no limit */
    for (uint32_t s = 0; s < 4; s++) {
        server_at(s)->slots = 8;
    }
    cr_expect_eq(choose_result(), BALANCE_ALL_BUSY);
    server_at(2)->in_flight = 7;
    for (int i = 0; i < 20; i++) {
        cr_expect_eq(choose(), 2);
    }
    tried[0] = 4; /* the free one was tried: wait for the others */
    cr_expect_eq(choose_result(), BALANCE_ALL_BUSY);
    tried[0] = 15;
    cr_expect_eq(choose_result(), BALANCE_NONE);
    tried[0] = 0;
    /* A busy server that works is worth waiting for; a free one that failed is a guess. */
    server_at(2)->down_until_ms = NOW_MS + 1;
    cr_expect_eq(choose_result(), BALANCE_ALL_BUSY);
}

Test(balance, least_busy_leaves_out_who_cannot_serve)
{
    input.method = BALANCE_LEAST_BUSY;
    check_eligibility();
}

Test(balance, round_robin_leaves_out_who_cannot_serve)
{
    input.method = BALANCE_ROUND_ROBIN;
    check_eligibility();
}

Test(balance, hash_leaves_out_who_cannot_serve)
{
    input.method = BALANCE_HASH;
    check_eligibility();
}

Test(balance, serves_backends_of_more_than_64_servers)
{
    for (int i = 0; i < 200; i++) {
        (void)add_server(1, 1);
    }
    memset(tried, 0xff, sizeof(tried));
    for (uint32_t s = 0; s < 200; s++) {
        tried[s / 64] &= ~(UINT64_C(1) << (s % 64));
        for (int method = 0; method < BALANCE_COUNT; method++) {
            input.method = (enum balance)method;
            cr_expect_eq(choose(), s);
        }
        tried[s / 64] |= UINT64_C(1) << (s % 64);
    }
    cr_expect_eq(choose_result(), BALANCE_NONE);
}

Test(balance, the_scan_begins_at_any_random_number)
{
    static const uint32_t starts[] = {0, 1, 2, 3, 4, UINT32_MAX - 1, UINT32_MAX};

    for (int i = 0; i < 3; i++) {
        (void)add_server(1, 0);
    }
    for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
        balance_state_release(&state);
        balance_state_init(&state, starts[i]);
        uint32_t first = starts[i] % 3;
        for (uint32_t n = 0; n < 7; n++) {
            cr_expect_eq(choose(), (first + n) % 3);
        }
    }
}

/* ---- least busy ----------------------------------------------------------------------------- */

Test(balance, the_least_busy_server_is_chosen)
{
    (void)add_server(1, 3);
    (void)add_server(1, 1);
    (void)add_server(1, 2);
    for (int i = 0; i < 10; i++) {
        cr_expect_eq(choose(), 1);
    }
    server_at(2)->in_flight = 0;
    for (int i = 0; i < 10; i++) {
        cr_expect_eq(choose(), 2);
    }
}

Test(balance, an_idle_server_wins_over_any_weight)
{
    (void)add_server(1000, 1);
    (void)add_server(1, 0);
    for (int i = 0; i < 10; i++) {
        cr_expect_eq(choose(), 1);
    }
}

Test(balance, busy_is_requests_per_weight)
{
    (void)add_server(4, 7); /* 1.75 */
    (void)add_server(1, 2); /* 2 */
    cr_expect_eq(choose(), 0);
    server_at(0)->in_flight = 9; /* 2.25 */
    cr_expect_eq(choose(), 1);
    /* no overflow, no rounding */
    server_at(0)->weight = 1000000;
    server_at(0)->in_flight = 4000000000u;
    server_at(1)->weight = 999999;
    server_at(1)->in_flight = 3999996001u; /* a 4-billionth above */
    cr_expect_eq(choose(), 0);
    server_at(1)->in_flight = 3999995999u;
    cr_expect_eq(choose(), 1);
}

Test(balance, equally_busy_servers_take_turns)
{
    (void)add_server(1, 2);
    (void)add_server(1, 2);
    (void)add_server(1, 5);
    (void)add_server(1, 2);
    expect_sequence("abdabdabdabd");
}

Test(balance, idle_servers_take_turns_by_weight)
{
    (void)add_server(3, 0);
    (void)add_server(1, 0);
    expect_sequence("aabaaabaaaba");
}

/* Against a model: requests come and go, each choice must be a minimum, and the loads stay within
 * one of each other. */
Test(balance, load_is_even_under_random_traffic)
{
    enum { SERVERS = 5 };
    uint32_t held[400];
    uint32_t held_count = 0;
    unsigned int total[SERVERS] = {0};

    for (int i = 0; i < SERVERS; i++) {
        (void)add_server(1, 0);
    }
    srandom(42);
    for (int step = 0; step < 20000; step++) {
        if (held_count < 3 || (held_count < 400 && random() % 2 == 0)) {
            uint32_t least = UINT32_MAX;
            for (uint32_t s = 0; s < SERVERS; s++) {
                least = server_at(s)->in_flight < least ? server_at(s)->in_flight : least;
            }
            uint32_t index = choose();
            cr_assert_eq(server_at(index)->in_flight, least);
            server_at(index)->in_flight++;
            held[held_count++] = index;
            total[index]++;
        } else {
            uint32_t which = (uint32_t)random() % held_count;
            server_at(held[which])->in_flight--;
            held[which] = held[--held_count];
        }
    }
    for (int i = 1; i < SERVERS; i++) {
        cr_expect_lt(abs((int)total[i] - (int)total[0]), 150, "%u and %u", total[i], total[0]);
    }
}

/* ---- round robin ---------------------------------------------------------------------------- */

Test(balance, round_robin_is_smooth)
{
    input.method = BALANCE_ROUND_ROBIN;
    (void)add_server(5, 0);
    (void)add_server(1, 9); /* how busy it is does not matter */
    (void)add_server(1, 0);
    expect_sequence("aabacaaaabacaaaabacaa");
}

Test(balance, round_robin_keeps_its_shares_when_a_server_pauses)
{
    unsigned int count[3] = {0};

    input.method = BALANCE_ROUND_ROBIN;
    (void)add_server(2, 0);
    (void)add_server(1, 0);
    (void)add_server(1, 0);
    for (int i = 0; i < 4000; i++) {
        server_at(1)->state = i % 100 < 40 ? BOARD_READY : BOARD_DOWN;
        count[choose()]++;
    }
    /* 1600 choices 2:1:1 and 2400 choices 2:1 */
    cr_expect(abs((int)count[0] - 2400) < 60, "%u", count[0]);
    cr_expect(abs((int)count[1] - 400) < 60, "%u", count[1]);
    cr_expect(abs((int)count[2] - 1200) < 60, "%u", count[2]);
}

Test(balance, a_backend_may_grow)
{
    input.method = BALANCE_ROUND_ROBIN;
    (void)add_server(1, 0);
    (void)add_server(1, 0);
    expect_sequence("abab");
    (void)add_server(1, 0);
    (void)add_server(1, 0);
    unsigned int count[4] = {0};
    for (int i = 0; i < 40; i++) {
        count[choose()]++;
    }
    for (int i = 0; i < 4; i++) {
        cr_expect_eq(count[i], 10);
    }
}

/* ---- hash ----------------------------------------------------------------------------------- */

#define CLIENTS 20000

static uint32_t
choose_for_client(uint32_t client)
{
    input.hash = hash_bytes(9, &client, sizeof(client));
    return choose();
}

Test(balance, hash_spreads_clients_and_moves_only_those_of_a_lost_server)
{
    static uint32_t before[CLIENTS];
    unsigned int count[10] = {0};
    unsigned int moved_to[10] = {0};

    input.method = BALANCE_HASH;
    for (int i = 0; i < 10; i++) {
        (void)add_server(1, (uint32_t)i);
    }
    for (uint32_t c = 0; c < CLIENTS; c++) {
        before[c] = choose_for_client(c);
        count[before[c]]++;
    }
    for (int i = 0; i < 10; i++) { /* 2000 each; 6 standard deviations are 255 */
        cr_expect_gt(count[i], CLIENTS / 10 - 255);
        cr_expect_lt(count[i], CLIENTS / 10 + 255);
    }
    server_at(3)->state = BOARD_DOWN;
    for (uint32_t c = 0; c < CLIENTS; c++) {
        uint32_t now = choose_for_client(c);
        if (before[c] != 3) {
            cr_assert_eq(now, before[c]);
        } else {
            moved_to[now]++;
        }
    }
    for (int i = 0; i < 10; i++) { /* its clients are spread over all the others */
        cr_expect(i == 3 ? moved_to[i] == 0 : moved_to[i] > 100, "%d: %u", i, moved_to[i]);
    }
    server_at(3)->state = BOARD_READY;
    for (uint32_t c = 0; c < CLIENTS; c++) {
        cr_assert_eq(choose_for_client(c), before[c]);
    }
}

Test(balance, hash_goes_by_address_not_by_order_record_or_worker)
{
    static uint32_t before[CLIENTS];
    static uint32_t moved[4];

    input.method = BALANCE_HASH;
    for (int i = 0; i < 4; i++) {
        (void)add_server(1, 0);
    }
    for (uint32_t c = 0; c < CLIENTS; c++) {
        before[c] = choose_for_client(c);
    }
    /* the same servers in another order, other records, in another worker */
    for (uint32_t i = 0; i < 4; i++) {
        moved[i] = 900 + (i + 1) % 4;
        board->servers[moved[i]] = board->servers[records[(i + 1) % 4]];
    }
    input.records = moved;
    balance_state_release(&state);
    balance_state_init(&state, 12345);
    for (uint32_t c = 0; c < CLIENTS; c++) {
        cr_assert_eq((choose_for_client(c) + 1) % 4, before[c]);
    }
}

Test(balance, hash_goes_to_the_same_next_server_when_one_is_busy)
{
    static uint32_t before[CLIENTS];
    static uint32_t next[CLIENTS];

    input.method = BALANCE_HASH;
    all_slots = 5;
    for (int i = 0; i < 4; i++) {
        (void)add_server(1, 0);
    }
    for (uint32_t c = 0; c < CLIENTS; c++) {
        before[c] = choose_for_client(c);
    }
    server_at(2)->in_flight = 5;
    for (uint32_t c = 0; c < CLIENTS; c++) {
        next[c] = choose_for_client(c);
        cr_assert(before[c] == 2 ? next[c] != 2 : next[c] == before[c]);
    }
    server_at(2)->in_flight = 0;
    server_at(2)->down_until_ms = NOW_MS + 500;
    for (uint32_t c = 0; c < CLIENTS; c++) {
        cr_assert_eq(choose_for_client(c), next[c]);
    }
}

Test(balance, hash_follows_weights_and_a_new_weight_moves_few)
{
    static uint32_t before[CLIENTS];
    unsigned int count[3] = {0};

    input.method = BALANCE_HASH;
    (void)add_server(1, 0);
    (void)add_server(2, 0);
    (void)add_server(5, 0);
    for (uint32_t c = 0; c < CLIENTS; c++) {
        before[c] = choose_for_client(c);
        count[before[c]]++;
    }
    cr_expect(abs((int)count[0] - CLIENTS / 8) < 300, "%u", count[0]);
    cr_expect(abs((int)count[1] - CLIENTS / 4) < 400, "%u", count[1]);
    cr_expect(abs((int)count[2] - CLIENTS * 5 / 8) < 450, "%u", count[2]);
    server_at(0)->weight = 2;
    for (uint32_t c = 0; c < CLIENTS; c++) { /* who moves, moves to the one that grew */
        uint32_t now = choose_for_client(c);
        cr_assert(now == before[c] || now == 0);
    }
}

/* Keys of a server that has far more than its share go to the next in their order, and come back.
 */
Test(balance, hash_is_bounded_by_the_average)
{
    static uint32_t before[CLIENTS];
    static uint32_t next[CLIENTS];

    input.method = BALANCE_HASH;
    for (int i = 0; i < 4; i++) {
        (void)add_server(1, 0);
    }
    for (uint32_t c = 0; c < CLIENTS; c++) {
        before[c] = choose_for_client(c);
    }
    server_at(2)->slots = 1;
    server_at(2)->in_flight = 1;
    for (uint32_t c = 0; c < CLIENTS; c++) {
        next[c] = choose_for_client(c);
    }
    server_at(2)->slots = 0;
    input.hash_bound = 150;
    for (uint32_t load = 0; load < 40; load++) {
        /* 30 on the others: the average with one more is (31 + load) / 4, 1.5 of it below load from
         * 19 on (19 * 4 > 1.5 * 50), and below 8 requests nothing is too many */
        server_at(0)->in_flight = server_at(1)->in_flight = server_at(3)->in_flight = 10;
        server_at(2)->in_flight = load;
        for (uint32_t c = 0; c < 2000; c++) {
            cr_assert_eq(choose_for_client(c), load >= 19 ? next[c] : before[c], "load %u", load);
        }
    }
    server_at(0)->in_flight = server_at(1)->in_flight = server_at(3)->in_flight = 0;
    server_at(2)->in_flight = BALANCE_BOUND_MIN - 1;
    for (uint32_t c = 0; c < 2000; c++) {
        cr_assert_eq(choose_for_client(c), before[c]);
    }
    server_at(2)->in_flight = 1000000;
    input.hash_bound = 0;
    for (uint32_t c = 0; c < 2000; c++) {
        cr_assert_eq(choose_for_client(c), before[c]);
    }
}

/* ---- random2 -------------------------------------------------------------------------------- */

Test(balance, random2_leaves_out_who_cannot_serve)
{
    input.method = BALANCE_RANDOM2;
    check_eligibility();
}

Test(balance, random2_takes_the_less_busy_and_spreads)
{
    unsigned int count[10] = {0};

    input.method = BALANCE_RANDOM2;
    for (int i = 0; i < 10; i++) {
        (void)add_server(1, 5);
    }
    server_at(7)->in_flight = 50;
    for (int i = 0; i < 9000; i++) {
        count[choose()]++;
    }
    cr_expect_lt(count[7], 10, "only when both draws are it: %u", count[7]);
    for (int i = 0; i < 10; i++) { /* 1000 each; 6 standard deviations are 180 */
        cr_expect(i == 7 || abs((int)count[i] - 1000) < 200, "%d: %u", i, count[i]);
    }
}

Test(balance, random2_follows_weights)
{
    unsigned int count[2] = {0};

    input.method = BALANCE_RANDOM2;
    input.weight_max = 3;
    (void)add_server(3, 0);
    (void)add_server(1, 0);
    for (int i = 0; i < 8000; i++) {
        count[choose()]++;
    }
    cr_expect(abs((int)count[0] - 6000) < 300, "%u", count[0]);
}

/* ---- ranks, and who starts where ------------------------------------------------------------ */

Test(balance, backups_serve_when_nobody_else_works)
{
    for (int method = 0; method < BALANCE_COUNT; method++) {
        input.method = (enum balance)method;
        input.count = 0;
        for (int i = 0; i < 3; i++) {
            struct board_server *server = add_server(1, 0);
            server->down_until_ms = 0;
            server->is_backup = i == 2;
            server->slots = 0;
            server->in_flight = 0;
        }
        for (int i = 0; i < 20; i++) {
            cr_expect_neq(choose(), 2);
        }
        server_at(0)->slots = server_at(1)->slots = 1;
        server_at(0)->in_flight = server_at(1)->in_flight = 1;
        cr_expect_eq(choose_result(), BALANCE_ALL_BUSY, "busy ones are worth waiting for");
        server_at(0)->down_until_ms = server_at(1)->down_until_ms = NOW_MS + 1;
        cr_expect_eq(choose(), 2);
        server_at(2)->down_until_ms = NOW_MS + 1;
        cr_expect_eq(choose(), 2, "all rest, and the others are busy");
        tried[0] = 4;
        cr_expect_eq(choose_result(), BALANCE_ALL_BUSY);
        tried[0] = 3;
        server_at(2)->down_until_ms = 0;
        cr_expect_eq(choose(), 2);
        tried[0] = 0;
    }
}

Test(balance, health_and_the_operator_decide_with_every_method)
{
    for (int method = 0; method < BALANCE_COUNT; method++) {
        input.method = (enum balance)method;
        input.count = 0;
        input.is_probed = true;
        for (int i = 0; i < 3; i++) {
            struct board_server *server = add_server(1, 0);
            server->wish = BOARD_WISH_ENABLED;
            server->finding = BOARD_FOUND_UNKNOWN;
            server->is_backup = i == 2;
        }
        server_at(0)->finding = BOARD_FOUND_DOWN;
        cr_expect_eq(choose(), 1);
        server_at(1)->wish = BOARD_WISH_DRAINED;
        cr_expect_eq(choose(), 2, "a backup is better than one that is down");
        server_at(2)->finding = BOARD_FOUND_DOWN;
        cr_expect_neq(choose(), 1, "all are down: both are used, never the one taken out");
        input.is_probed = false; /* health_path is gone from the settings */
        cr_expect_eq(choose(), 0);
        server_at(0)->wish = BOARD_WISH_DISABLED;
        cr_expect_eq(choose(), 2);
        server_at(2)->wish = BOARD_WISH_DISABLED;
        cr_expect_eq(choose_result(), BALANCE_NONE);
    }
}

Test(balance, slow_start_lowers_the_share_with_every_weighted_method)
{
    static const enum balance methods[] = {BALANCE_ROUND_ROBIN, BALANCE_RANDOM2, BALANCE_HASH};

    input.slow_start_ms = 1000;
    input.weight_max = 3;
    (void)add_server(3, 0);
    add_server(3, 0)->health.up_since_ms = NOW_MS - 250;
    for (size_t m = 0; m < sizeof(methods) / sizeof(methods[0]); m++) {
        uint32_t count = 0;
        input.method = methods[m];
        for (uint32_t i = 0; i < 4000; i++) {
            input.hash = hash_mix(i, 99);
            count += choose() == 1;
        }
        /* A quarter of the weight: a fifth of all. Of two drawn in proportion to the weights and
         * found equally busy, the first is taken. */
        cr_expect(count > 650 && count < 950, "method %d: %u", (int)methods[m], count);
    }
}

Test(balance, a_full_accept_queue_is_busy_until_it_may_have_room)
{
    for (int method = 0; method < BALANCE_COUNT; method++) {
        input.method = (enum balance)method;
        input.count = 0;
        (void)add_server(1, 0);
        (void)add_server(1, 0);
        server_at(0)->full_until_ms = NOW_MS + 7;
        cr_expect_eq(choose(), 1);
        server_at(1)->full_until_ms = NOW_MS + 5;
        cr_expect_eq(choose_result(), BALANCE_ALL_BUSY);
        cr_expect_eq(state.again_ms, NOW_MS + 5, "then it is worth a look");
        server_at(1)->full_until_ms = NOW_MS;
        server_at(0)->down_until_ms = NOW_MS + 3;
        cr_expect_eq(choose(), 1);
        server_at(1)->slots = 1;
        server_at(1)->in_flight = 1;
        cr_expect_eq(choose_result(), BALANCE_ALL_BUSY);
        cr_expect_eq(state.again_ms, NOW_MS + 3);
        server_at(0)->down_until_ms = server_at(0)->full_until_ms = 0;
        server_at(1)->slots = server_at(1)->in_flight = 0;
        (void)choose();
        cr_expect_eq(state.again_ms, 0);
    }
}

Test(balance, an_early_stop_chooses_as_a_whole_look_does)
{
    struct balance_state other;

    srandom(7);
    for (int i = 0; i < 50; i++) {
        (void)add_server(1, 0);
    }
    balance_state_init(&other, 3);
    balance_state_release(&state);
    balance_state_init(&state, 3);
    for (int i = 0; i < 5000; i++) {
        uint32_t one;
        uint32_t two;
        struct board_server *server = server_at((uint32_t)random() % 50);
        input.method = random() % 2 == 0 ? BALANCE_LEAST_BUSY : BALANCE_ROUND_ROBIN;
        server->in_flight = (uint32_t)random() % 3;
        server->state = random() % 4 == 0 ? BOARD_DOWN : BOARD_READY;
        server->down_until_ms = random() % 4 == 0 ? NOW_MS + 1 : 0;
        input.is_uniform = false;
        cr_assert_eq(balance_choose(&state, &input, &one), BALANCE_CHOSEN);
        input.is_uniform = true;
        cr_assert_eq(balance_choose(&other, &input, &two), BALANCE_CHOSEN);
        cr_assert_eq(one, two);
    }
    balance_state_release(&other);
}

Test(balance, weighted_turns_begin_anywhere_and_keep_the_shares)
{
    unsigned int first[3] = {0};

    input.method = BALANCE_ROUND_ROBIN;
    (void)add_server(5, 0);
    (void)add_server(1, 0);
    (void)add_server(1, 0);
    for (uint32_t worker = 1; worker <= 300; worker++) {
        unsigned int count[3] = {0};
        balance_state_release(&state);
        balance_state_init(&state, worker * 2654435761u);
        uint32_t begun = choose();
        first[begun]++;
        count[begun]++;
        for (int i = 1; i < 700; i++) {
            count[choose()]++;
        }
        cr_expect(abs((int)count[0] - 500) < 9 && abs((int)count[1] - 100) < 9, "%u %u %u",
                  count[0], count[1], count[2]);
    }
    cr_expect(first[1] > 10 && first[2] > 10 && first[0] < 290, "%u %u %u", first[0], first[1],
              first[2]);
}
