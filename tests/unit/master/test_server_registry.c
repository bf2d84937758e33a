/* SPDX-License-Identifier: Apache-2.0
 *
 * Records of servers: the same server keeps its record, another one gets it only when nobody can
 * mean the old one any more.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/config.h"
#include "master/server_registry.h"
#include "worker/resolver/answer.h"

static struct scoreboard *board;
static struct server_registry *registry;
static struct buf error;

static void
begin(void)
{
    int fd = -1;

    board = scoreboard_create(&fd);
    cr_assert_not_null(board);
    (void)close(fd);
    registry = xcalloc(1, sizeof(*registry));
    server_registry_init(registry, board);
}

static void
end(void)
{
    server_registry_release(registry);
    free(registry);
    buf_release(&error);
    (void)munmap(board, sizeof(*board));
}

TestSuite(server_registry, .init = begin, .fini = end);

/* One backend "api" with the servers of text, a list split at blanks; "*N" means N instances. */
struct one_backend {
    struct config config;
    struct backend_settings backend;
    struct server servers[8];
};

static void
make(struct one_backend *one, const char *text)
{
    char copy[256];
    char *rest = copy;
    char *word;

    memset(one, 0, sizeof(*one));
    (void)snprintf(copy, sizeof(copy), "%s", text);
    one->config.backend_count = 1;
    one->config.backends = &one->backend;
    one->backend.name = strdup("api");
    one->backend.server.item = one->servers;
    while ((word = strtok_r(rest, " ", &rest)) != NULL) {
        if (word[0] == '*') {
            one->backend.command = strdup("app");
            one->backend.instances = atoi(word + 1);
            continue;
        }
        struct server *server = &one->servers[one->backend.server.count++];
        char *parse_error = address_parse(word, &server->address);
        cr_assert_null(parse_error);
        server->weight = 1;
    }
}

static void
drop(struct one_backend *one)
{
    free(one->backend.name);
    free(one->backend.command);
    free(one->backend.records);
}

static void
use(struct one_backend *one, uint64_t serial)
{
    cr_assert_eq(server_registry_prepare(registry, &one->config, &error), 0);
    server_registry_commit(registry, &one->config, serial);
}

static uint32_t
state_of(uint32_t record)
{
    return board->servers[record].state;
}

Test(server_registry, servers_get_records_with_what_workers_need)
{
    struct one_backend one;

    make(&one, "127.0.0.1:1 unix:/x");
    use(&one, 1);
    cr_assert_eq(one.backend.record_count, 2);
    const struct board_server *server = &board->servers[one.backend.records[1]];
    cr_expect_str_eq(server->backend, "api");
    cr_expect_str_eq(server->address.text, "unix:/x");
    cr_expect_eq(server->weight, 1);
    cr_expect_eq(server->state, BOARD_READY);
    cr_expect_eq(server->life, 1);
    drop(&one);
}

Test(server_registry, a_server_keeps_its_record_wherever_it_moves_in_the_list)
{
    struct one_backend before;
    struct one_backend after;

    make(&before, "127.0.0.1:1 127.0.0.1:2");
    use(&before, 1);
    make(&after, "127.0.0.1:3 127.0.0.1:2 127.0.0.1:1");
    use(&after, 2);
    cr_expect_eq(after.backend.records[2], before.backend.records[0]);
    cr_expect_eq(after.backend.records[1], before.backend.records[1]);
    cr_expect_neq(after.backend.records[0], before.backend.records[0]);
    cr_expect_neq(after.backend.records[0], before.backend.records[1]);
    cr_expect_eq(board->servers[before.backend.records[0]].life, 1, "it is the same life");
    drop(&before);
    drop(&after);
}

Test(server_registry, equal_entries_have_records_of_their_own)
{
    struct one_backend one;

    make(&one, "127.0.0.1:1 127.0.0.1:1");
    use(&one, 1);
    cr_expect_neq(one.backend.records[0], one.backend.records[1]);
    drop(&one);
}

Test(server_registry, an_instance_has_two_and_they_start_free)
{
    struct one_backend one;

    make(&one, "*3");
    use(&one, 1);
    cr_assert_eq(one.backend.record_count, 6);
    for (uint32_t i = 0; i < 6; i++) {
        cr_expect_eq(state_of(one.backend.records[i]), BOARD_FREE);
        for (uint32_t other = 0; other < i; other++) {
            cr_expect_neq(one.backend.records[i], one.backend.records[other]);
        }
    }
    cr_expect_eq(server_registry_instance_record(2, 1), 5);
    drop(&one);
}

Test(server_registry, a_record_waits_for_workers_requests_and_process)
{
    struct one_backend before;
    struct one_backend after;

    make(&before, "127.0.0.1:1");
    use(&before, 1);
    uint32_t old = before.backend.records[0];
    make(&after, "127.0.0.1:2");
    use(&after, 2);
    cr_expect_neq(after.backend.records[0], old);

    cr_expect(server_registry_sweep(registry, 1));
    cr_expect_eq(state_of(old), BOARD_READY, "a worker with settings 1 may still choose it");
    board->servers[old].in_flight = 1;
    cr_expect(server_registry_sweep(registry, 2));
    cr_expect_eq(registry->records[old].use, RECORD_LEAVING);
    board->servers[old].in_flight = 0;
    board->servers[old].pid = 4711;
    cr_expect(server_registry_sweep(registry, 2));
    board->servers[old].pid = 0;
    cr_expect(!server_registry_sweep(registry, 2));
    cr_expect_eq(state_of(old), BOARD_FREE);

    struct one_backend third;
    make(&third, "127.0.0.1:2 127.0.0.1:3");
    use(&third, 3);
    cr_expect_eq(third.backend.records[1], old, "now it may serve another one");
    cr_expect_eq(board->servers[old].life, 2);
    drop(&before);
    drop(&after);
    drop(&third);
}

Test(server_registry, one_that_comes_back_in_time_keeps_its_record)
{
    struct one_backend with;
    struct one_backend without;
    struct one_backend again;

    make(&with, "127.0.0.1:1 127.0.0.1:2");
    use(&with, 1);
    make(&without, "127.0.0.1:2");
    use(&without, 2);
    make(&again, "127.0.0.1:1 127.0.0.1:2");
    use(&again, 3);
    cr_expect_eq(again.backend.records[0], with.backend.records[0]);
    cr_expect(!server_registry_sweep(registry, 3));
    cr_expect_eq(state_of(again.backend.records[0]), BOARD_READY);
    drop(&with);
    drop(&without);
    drop(&again);
}

Test(server_registry, a_rollback_leaves_no_trace)
{
    struct one_backend before;
    struct one_backend refused;

    make(&before, "127.0.0.1:1");
    use(&before, 1);
    make(&refused, "127.0.0.1:2 127.0.0.1:3");
    cr_assert_eq(server_registry_prepare(registry, &refused.config, &error), 0);
    server_registry_rollback(registry);
    cr_expect(!server_registry_sweep(registry, 1));
    cr_expect_eq(state_of(before.backend.records[0]), BOARD_READY);
    for (uint32_t i = 0; i < BOARD_SERVERS_MAX; i++) {
        cr_expect(registry->records[i].use == RECORD_FREE || i == before.backend.records[0]);
    }
    drop(&before);
    drop(&refused);
}

Test(server_registry, too_many_are_an_error_and_not_an_overrun)
{
    struct one_backend one;

    make(&one, "*64");
    one.backend.instances = BOARD_SERVERS_MAX / 2 + 1;
    cr_expect_eq(server_registry_prepare(registry, &one.config, &error), -ENOSPC);
    cr_expect_not_null(strstr(error.ptr, "api"));
    server_registry_rollback(registry);
    one.backend.instances = BOARD_SERVERS_MAX / 2;
    cr_expect_eq(server_registry_prepare(registry, &one.config, &error), 0);
    drop(&one);
}

/* ---- names ---------------------------------------------------------------------------------- */

static void
make_name(struct one_backend *one, int addresses)
{
    memset(one, 0, sizeof(*one));
    one->config.backend_count = 1;
    one->config.backends = &one->backend;
    one->backend.name = strdup("api");
    one->backend.addresses = addresses;
    one->backend.server.item = one->servers;
    one->backend.server.count = 2;
    cr_assert_null(address_parse("127.0.0.1:9", &one->servers[0].address));
    one->servers[0].weight = 1;
    one->servers[1].weight = 2;
    one->servers[1].address = (struct address){.kind = ADDRESS_NAME, .fd = -1};
    strcpy(one->servers[1].address.text, "dns:api.test:80");
}

/* Resolves the name to 10.0.0.N for each N of hosts. */
static struct server_change
resolve(const struct one_backend *one, const char *hosts)
{
    struct answer_address list[16] = {0};
    size_t count = strlen(hosts);

    for (size_t i = 0; i < count; i++) {
        list[i] = (struct answer_address){
            .family = 4, .port = 80, .weight = 1, .address = {10, 0, 0, (uint8_t)(hosts[i] - '0')}};
    }
    return server_registry_resolve(registry, &one->backend, 1, list, count);
}

/* The state that the server 10.0.0.host is shown in; FREE when it is nowhere. */
static struct board_server *
server_of(const struct one_backend *one, char host)
{
    char text[32];

    (void)snprintf(text, sizeof(text), "10.0.0.%c:80", host);
    for (uint32_t i = 0; i < one->backend.record_count; i++) {
        struct board_server *server = &board->servers[one->backend.records[i]];
        if (server->state != BOARD_FREE && strcmp(server->address.text, text) == 0) {
            return server;
        }
    }
    return NULL;
}

Test(server_registry, a_name_waits_until_it_has_addresses)
{
    struct one_backend one;

    make_name(&one, 4);
    use(&one, 1);
    cr_assert_eq(one.backend.record_count, 1 + 4 + 2);
    cr_expect_eq(state_of(one.backend.records[0]), BOARD_READY);
    cr_expect_eq(state_of(one.backend.records[1]), BOARD_STARTING);
    cr_expect_str_eq(board->servers[one.backend.records[1]].address.text, "dns:api.test:80");
    for (uint32_t i = 2; i < one.backend.record_count; i++) {
        cr_expect_eq(state_of(one.backend.records[i]), BOARD_FREE);
    }
    cr_expect_eq(server_registry_count_resolved(registry, &one.backend, 1), 0);
    struct server_change change = resolve(&one, "12");
    cr_expect_eq(change.added, 2);
    cr_expect_eq(state_of(one.backend.records[1]), BOARD_READY);
    cr_expect_eq(server_registry_count_resolved(registry, &one.backend, 1), 2);
    cr_assert_not_null(server_of(&one, '1'));
    cr_expect_eq(server_of(&one, '1')->weight, 2);
    cr_expect_eq(state_of(one.backend.records[0]), BOARD_READY, "the other server is untouched");
    drop(&one);
}

Test(server_registry, an_address_that_goes_drains_and_its_record_is_used_again)
{
    struct one_backend one;

    make_name(&one, 1); /* two records */
    use(&one, 1);
    (void)resolve(&one, "1");
    struct board_server *first = server_of(&one, '1');
    uint32_t life = first->life;
    first->in_flight = 1;
    struct server_change change = resolve(&one, "2");
    cr_expect_eq(change.added, 1);
    cr_expect_eq(change.removed, 1);
    cr_expect_eq(first->state, BOARD_DRAINING);
    change = resolve(&one, "3"); /* 1 has a request yet, 2 was there until now */
    cr_expect_eq(change.left_out, 1);
    cr_expect_eq(first->state, BOARD_DRAINING);
    cr_expect_str_eq(first->address.text, "10.0.0.1:80");
    first->in_flight = 0;
    change = resolve(&one, "3");
    cr_expect_eq(change.added, 1);
    cr_expect_eq(change.left_out, 0);
    cr_assert_not_null(server_of(&one, '3'));
    cr_expect(server_of(&one, '3') != first || first->life == life + 1, "another life");
    drop(&one);
}

Test(server_registry, an_address_that_returns_while_it_drains_is_the_same_life)
{
    struct one_backend one;

    make_name(&one, 2);
    use(&one, 1);
    (void)resolve(&one, "12");
    struct board_server *first = server_of(&one, '1');
    uint32_t life = first->life;
    first->in_flight = 1;
    (void)resolve(&one, "2");
    cr_expect_eq(first->state, BOARD_DRAINING);
    (void)resolve(&one, "12");
    cr_expect_eq(first->state, BOARD_READY);
    cr_expect_eq(first->life, life);
    struct server_change change = resolve(&one, "12");
    cr_expect(change.added == 0 && change.removed == 0 && change.left_out == 0);
    drop(&one);
}

Test(server_registry, addresses_beyond_the_setting_are_left_out_backups_first)
{
    struct one_backend one;
    struct answer_address list[3] = {
        {.family = 4, .port = 80, .weight = 1, .is_backup = 1, .address = {10, 0, 0, 1}},
        {.family = 4, .port = 80, .weight = 1, .is_backup = 1, .address = {10, 0, 0, 3}},
        {.family = 4, .port = 80, .weight = 7, .address = {10, 0, 0, 2}}};

    make_name(&one, 2);
    use(&one, 1);
    struct server_change change = resolve(&one, "1234");
    cr_expect_eq(change.added, 2);
    cr_expect_eq(change.left_out, 2);
    cr_expect_null(server_of(&one, '3'));
    change = server_registry_resolve(registry, &one.backend, 1, list, 3);
    cr_expect_eq(change.removed, 0);
    cr_expect_eq(change.left_out, 1);
    cr_expect_null(server_of(&one, '3'));
    cr_expect_eq(server_of(&one, '1')->is_backup, 1);
    cr_expect_eq(server_of(&one, '1')->state, BOARD_READY);
    cr_expect_eq(server_of(&one, '2')->is_backup, 0);
    cr_expect_eq(server_of(&one, '2')->weight, 14);
    drop(&one);
}

Test(server_registry, a_reload_keeps_the_addresses_of_a_name)
{
    struct one_backend before;
    struct one_backend after;

    make_name(&before, 4);
    use(&before, 1);
    (void)resolve(&before, "123");
    uint32_t life = server_of(&before, '2')->life;
    make_name(&after, 4);
    use(&after, 2);
    cr_expect_eq(server_registry_count_resolved(registry, &after.backend, 1), 3);
    cr_expect_eq(server_of(&after, '2')->life, life);
    drop(&before);
    drop(&after);
}

Test(server_registry, a_successor_gets_the_addresses_on_a_board_that_knows_nothing)
{
    struct one_backend one;

    make_name(&one, 2);
    server_registry_restore(registry, 5, "api\nname dns:api.test:80\n1", false, RECORD_USED, 0,
                            BOARD_WISH_ENABLED);
    server_registry_restore_address(registry, 5, "10.0.0.7:80", 6, false);
    server_registry_restore(registry, 6, "api\nname dns:api.test:80\n0", false, RECORD_USED, 0,
                            BOARD_WISH_ENABLED);
    server_registry_restore_address(registry, 6, "garbage", 6, false);
    use(&one, 1);
    cr_expect_eq(one.backend.records[2], 5);
    cr_assert_not_null(server_of(&one, '7'));
    cr_expect_eq(server_of(&one, '7')->state, BOARD_READY);
    cr_expect_eq(server_of(&one, '7')->weight, 6);
    cr_expect_eq(state_of(6), BOARD_FREE);
    drop(&one);
}

/* ---- what the operator wants ----------------------------------------------------------------- */

Test(server_registry, wish_stays_with_the_server_over_reloads)
{
    struct one_backend one;
    struct one_backend other;

    make(&one, "127.0.0.1:1 127.0.0.1:2");
    use(&one, 1);
    uint32_t record = one.backend.records[0];
    server_registry_wish(registry, record, BOARD_WISH_DRAINED);
    cr_expect_eq(board->servers[record].wish, BOARD_WISH_DRAINED);
    make(&other, "127.0.0.1:3 127.0.0.1:1");
    use(&other, 2);
    cr_expect_eq(other.backend.records[1], record);
    cr_expect_eq(board->servers[record].wish, BOARD_WISH_DRAINED);
    cr_expect_eq(board->servers[other.backend.records[0]].wish, BOARD_WISH_ENABLED);
    drop(&one);
    drop(&other);
}

/* A program with another layout of the board begins with an empty one. */
Test(server_registry, wish_is_shown_on_a_new_board)
{
    struct one_backend one;

    server_registry_restore(registry, 5, "api\nserver 127.0.0.1:1\n0", false, RECORD_USED, 0,
                            BOARD_WISH_DISABLED);
    make(&one, "127.0.0.1:1 127.0.0.1:2");
    use(&one, 2);
    cr_expect_eq(one.backend.records[0], 5);
    cr_expect_eq(board->servers[5].wish, BOARD_WISH_DISABLED);
    cr_expect_eq(board->servers[one.backend.records[1]].wish, BOARD_WISH_ENABLED);
    drop(&one);
}

Test(server_registry, enabled_server_begins_anew)
{
    struct one_backend one;

    make(&one, "127.0.0.1:1");
    use(&one, 1);
    struct board_server *server = &board->servers[one.backend.records[0]];
    server_registry_wish(registry, one.backend.records[0], BOARD_WISH_DISABLED);
    server->health.failures = 9;
    server->down_until_ms = INT64_MAX;
    server->finding = BOARD_FOUND_DOWN;
    server_registry_wish(registry, one.backend.records[0], BOARD_WISH_ENABLED);
    cr_expect_eq(server->health.failures, 0);
    cr_expect_eq(server->down_until_ms, 0);
    cr_expect_eq(server->finding, BOARD_FOUND_UNKNOWN);
    cr_expect_gt(server->health.up_since_ms, 0, "slow_start");
    server->health.failures = 2;
    server_registry_wish(registry, one.backend.records[0], BOARD_WISH_ENABLED);
    cr_expect_eq(server->health.failures, 2, "it was enabled already");
    drop(&one);
}
