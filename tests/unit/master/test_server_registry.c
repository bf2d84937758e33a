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
