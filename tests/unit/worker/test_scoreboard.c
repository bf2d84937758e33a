/* SPDX-License-Identifier: Apache-2.0
 *
 * The scoreboard: claims that are exact across processes, and what a dead worker leaves behind.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "worker/scoreboard.h"

static struct scoreboard *board;

static void
make_board(void)
{
    int fd = -1;

    board = scoreboard_create(&fd);
    cr_assert_not_null(board);
    cr_assert_neq(fd, -1);
    (void)close(fd);
}

static void
drop_board(void)
{
    cr_assert_eq(munmap(board, sizeof(*board)), 0);
}

TestSuite(scoreboard, .init = make_board, .fini = drop_board);

/* The sum of what the cells hold of a server. */
static uint32_t
claims_of(uint32_t server)
{
    uint32_t sum = 0;

    for (uint32_t cell = 0; cell < BOARD_CELLS_MAX; cell++) {
        sum += (uint32_t)(board->workers[cell].claims[server] & CLAIMS_COUNT);
    }
    return sum;
}

#define WORKERS 4

/* Runs work(cell) in a process for each of the cells 0 to WORKERS - 1, all begun at the same time,
 * and expects each to return 0. */
static void
run_workers(int (*work)(uint32_t cell))
{
    pid_t pids[WORKERS];
    int start[2];
    char byte;

    cr_assert_eq(pipe2(start, O_CLOEXEC), 0);
    for (uint32_t cell = 0; cell < WORKERS; cell++) {
        pids[cell] = fork();
        cr_assert_neq(pids[cell], -1);
        if (pids[cell] == 0) {
            (void)close(start[1]);
            (void)!read(start[0], &byte, 1); /* until the parent closes its end */
            _exit(work(cell));
        }
    }
    (void)close(start[0]);
    (void)close(start[1]);
    for (uint32_t cell = 0; cell < WORKERS; cell++) {
        int status;
        cr_assert_eq(waitpid(pids[cell], &status, 0), pids[cell]);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "worker %u: status %#x", cell,
                  (unsigned int)status);
    }
}

/* ---- layout --------------------------------------------------------------------------------- */

/* A line that two processes write would cost both of them on every request. */
_Static_assert(offsetof(struct board_worker, turn_started_ms) % BOARD_LINE == 0, "own line");
_Static_assert(offsetof(struct board_worker, counters) % BOARD_LINE == 0, "own lines");
_Static_assert(offsetof(struct board_worker, claims) % BOARD_LINE == 0, "own lines");
_Static_assert(offsetof(struct board_server, in_flight) % BOARD_LINE == 0, "own line");
_Static_assert(offsetof(struct board_server, idle) % BOARD_LINE == 0, "own line");
_Static_assert(offsetof(struct board_server, health) % BOARD_LINE == 0, "own line");
_Static_assert(sizeof(struct board_worker) % BOARD_LINE == 0, "no line is shared");
_Static_assert(sizeof(struct board_server) % BOARD_LINE == 0, "no line is shared");

Test(scoreboard, is_born_empty_and_shared)
{
    int fd = -1;
    struct stat status;
    struct scoreboard *other = scoreboard_create(&fd);

    cr_assert_not_null(other);
    cr_assert_eq(fstat(fd, &status), 0);
    cr_assert_eq(status.st_size, (off_t)sizeof(struct scoreboard));
    cr_assert_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
    cr_assert_eq(other->size, sizeof(struct scoreboard));
    for (uint32_t cell = 0; cell < BOARD_CELLS_MAX; cell++) {
        cr_assert_eq(other->workers[cell].state, BOARD_FREE);
    }
    for (uint32_t server = 0; server < BOARD_SERVERS_MAX; server++) {
        cr_assert_eq(other->servers[server].state, BOARD_FREE);
        cr_assert_eq(other->servers[server].in_flight, 0);
    }
    struct scoreboard *again =
        mmap(NULL, sizeof(*again), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    cr_assert_neq(again, MAP_FAILED);
    cr_assert(board_claim(other, 3, 5, 0));
    cr_assert_eq(again->servers[5].in_flight, 1);
    cr_assert_eq(again->magic, other->magic);
    cr_assert_neq(again->magic, 0);
    cr_assert_eq(munmap(again, sizeof(*again)), 0);
    cr_assert_eq(munmap(other, sizeof(*other)), 0);
    (void)close(fd);
}

Test(scoreboard, states_have_names)
{
    cr_assert_str_eq(board_state_name(BOARD_FREE), "FREE");
    cr_assert_str_eq(board_state_name(BOARD_READY), "READY");
    cr_assert_str_eq(board_state_name(BOARD_DOWN), "DOWN");
    cr_assert_str_eq(board_state_name(BOARD_STATE_COUNT), "?");
    for (int i = 0; i < BOARD_STATE_COUNT; i++) {
        cr_assert_gt(strlen(board_state_name((enum board_state)i)), 1);
    }
}

/* ---- claims --------------------------------------------------------------------------------- */

Test(scoreboard, slots_are_a_limit_over_all_cells)
{
    cr_assert(board_claim(board, 0, 7, 3));
    cr_assert(board_claim(board, 1, 7, 3));
    cr_assert(board_claim(board, 1, 7, 3));
    cr_assert_not(board_claim(board, 0, 7, 3));
    cr_assert_not(board_claim(board, 2, 7, 3));
    cr_assert_eq(board->servers[7].in_flight, 3);
    cr_assert_eq(board->workers[0].claims[7] & CLAIMS_COUNT, 1); /* a refusal leaves nothing */
    cr_assert_eq(board->workers[1].claims[7] & CLAIMS_COUNT, 2);
    cr_assert_eq(board->workers[2].claims[7] & CLAIMS_COUNT, 0);
    cr_assert(board_claim(board, 2, 8, 3)); /* another server */
    cr_assert(board_claim(board, 2, 7, 4)); /* a raised limit */
    cr_assert(board_claim(board, 2, 7, 0)); /* no limit */
    cr_assert_eq(board->servers[7].in_flight, 5);
    cr_assert_not(board_claim(board, 2, 7, 4)); /* a lowered limit */
    board_unclaim(board, 1, 7);
    board_unclaim(board, 2, 7);
    cr_assert_eq(board->servers[7].in_flight, 3);
    cr_assert_eq(board->workers[1].claims[7] & CLAIMS_COUNT, 1);
    cr_assert_eq(claims_of(7), 3);
}

Test(scoreboard, giving_back_what_was_not_claimed_is_a_bug, .signal = SIGABRT)
{
    cr_assert(board_claim(board, 0, 7, 0));
    board_unclaim(board, 1, 7);
}

#define ROUNDS 20000
#define SLOTS 3

/* Makes ROUNDS claims and gives each back, holding two at times; where the slots are taken it gives
 * one back itself, so that somebody always gets on. */
static int
claim_and_unclaim(uint32_t cell)
{
    uint32_t held = 0;

    for (uint32_t claimed = 0; claimed < ROUNDS;) {
        if (board_claim(board, cell, 9, SLOTS)) {
            claimed++;
            held++;
            if (board->servers[9].in_flight > SLOTS) {
                return 1;
            }
            board_count(&board->workers[cell].counters.requests, 1);
            if (held == 1 && claimed % 3 == 0) {
                continue; /* keeps it, and tries for a second one */
            }
        }
        if (held > 0) {
            board_unclaim(board, cell, 9);
            held--;
        } else {
            (void)sched_yield();
        }
    }
    for (; held > 0; held--) {
        board_unclaim(board, cell, 9);
    }
    return (board->workers[cell].claims[9] & CLAIMS_COUNT) == 0 ? 0 : 2;
}

Test(scoreboard, claims_are_exact_across_processes)
{
    run_workers(claim_and_unclaim);
    cr_assert_eq(board->servers[9].in_flight, 0);
    for (uint32_t cell = 0; cell < WORKERS; cell++) {
        cr_expect_eq(board->workers[cell].counters.requests, ROUNDS);
    }
}

static int
claim_many(uint32_t cell)
{
    for (uint32_t i = 0; i < ROUNDS; i++) {
        if (!board_claim(board, cell, 10, 0)) {
            return 1;
        }
    }
    return 0;
}

Test(scoreboard, no_claim_is_lost_between_processes)
{
    run_workers(claim_many);
    cr_assert_eq(board->servers[10].in_flight, WORKERS * ROUNDS);
    cr_assert_eq(claims_of(10), WORKERS * ROUNDS);
}

static int
fill_slots(uint32_t cell)
{
    uint32_t got = 0;

    for (uint32_t i = 0; i < ROUNDS; i++) {
        got += board_claim(board, cell, 11, 1000);
    }
    return got <= 1000 ? 0 : 1;
}

Test(scoreboard, exactly_the_slots_are_given_away)
{
    run_workers(fill_slots);
    cr_assert_eq(board->servers[11].in_flight, 1000);
    cr_assert_eq(claims_of(11), 1000);
}

/* ---- the end of a worker -------------------------------------------------------------------- */

static int
work_and_die(uint32_t cell)
{
    board->workers[cell].pid = (uint32_t)getpid();
    for (uint32_t i = 0; i < 100 * (cell + 1); i++) {
        (void)board_claim(board, cell, 20 + i % 5, 0);
        board_count(&board->workers[cell].counters.requests, 1);
        board_count(&board->workers[cell].counters.bytes_out, 1000);
    }
    board->workers[cell].turn_started_ms = 12345;
    board->workers[cell].settings_serial = 3;
    return 0;
}

Test(scoreboard, a_dead_worker_gives_back_its_claims_and_leaves_its_counts)
{
    size_t requests = offsetof(struct board_counters, requests);
    size_t bytes_out = offsetof(struct board_counters, bytes_out);

    for (uint32_t cell = 0; cell < WORKERS; cell++) {
        board->workers[cell].state = BOARD_READY;
    }
    run_workers(work_and_die);
    cr_assert_eq(board_total(board, requests), 1000);
    for (uint32_t cell = 0; cell < WORKERS; cell++) {
        uint32_t left = 0;
        board_retire_worker(board, cell);
        for (uint32_t other = cell + 1; other < WORKERS; other++) {
            left += 20 * (other + 1);
        }
        for (uint32_t server = 20; server < 25; server++) {
            cr_assert_eq(board->servers[server].in_flight, left);
            cr_assert_eq(claims_of(server), left);
        }
        cr_assert_eq(board_total(board, requests), 1000);
        cr_assert_eq(board_total(board, bytes_out), 1000000);
        cr_assert_eq(board->workers[cell].state, BOARD_FREE);
        cr_assert_eq(board->workers[cell].pid, 0);
        cr_assert_eq(board->workers[cell].turn_started_ms, 0);
        cr_assert_eq(board->workers[cell].settings_serial, 0);
        cr_assert_eq(board->workers[cell].counters.requests, 0);
    }
    cr_assert_eq(board->retired.requests, 1000);
    board_retire_worker(board, 0); /* nothing is given back or counted twice */
    cr_assert_eq(board->retired.requests, 1000);
    cr_assert_eq(board->servers[20].in_flight, 0);

    /* the cell is used again */
    board->workers[0].state = BOARD_READY;
    board_count(&board->workers[0].counters.requests, 5);
    cr_assert_eq(board_total(board, requests), 1005);
}

/* Killed between the two stores of a claim, on either side of the first: the count is right. */
Test(scoreboard, a_death_inside_a_claim_is_counted_anew)
{
    board->workers[0].state = BOARD_READY;
    board->workers[1].state = BOARD_READY;
    for (uint32_t counted = 0; counted < 2; counted++) {
        cr_assert(board_claim(board, 1, 30, 0));
        cr_assert(board_claim(board, 0, 30, 0));
        (void)claims_begin(&board->workers[0].claims[30]);
        board->servers[30].in_flight += counted;
        board_retire_worker(board, 0);
        cr_expect_eq(board->servers[30].in_flight, 1, "only the other worker's is left");
        cr_expect_not(board_is_recount_due(board));
        board_unclaim(board, 1, 30);
        cr_expect_eq(board->servers[30].in_flight, 0);
        board->workers[0].state = BOARD_READY;
    }
}

Test(scoreboard, what_changes_while_it_is_counted_is_counted_later)
{
    board->workers[0].state = BOARD_READY;
    board->workers[1].state = BOARD_READY;
    (void)claims_begin(&board->workers[0].claims[30]);
    board->servers[30].in_flight++;
    uint64_t was = claims_begin(&board->workers[1].claims[30]); /* stopped there */
    board_retire_worker(board, 0);
    cr_expect(board_is_recount_due(board));
    cr_expect_eq(board->servers[30].in_flight, 1);
    board_recount(board);
    cr_expect(board_is_recount_due(board));
    board->servers[30].in_flight++;
    claims_end(&board->workers[1].claims[30], was, 1);
    board_recount(board);
    cr_expect_not(board_is_recount_due(board));
    cr_expect_eq(board->servers[30].in_flight, 1);
}

static const size_t all_counters[] = {
#define OFFSET(name, text) offsetof(struct board_counters, name),
    BOARD_COUNTERS(OFFSET)
#undef OFFSET
};

Test(scoreboard, every_counter_is_folded_and_summed)
{
    enum { COUNT = sizeof(all_counters) / sizeof(all_counters[0]) };

    board->workers[0].state = BOARD_READY;
    board->workers[BOARD_CELLS_MAX - 1].state = BOARD_DRAINING;
    for (uint32_t i = 0; i < COUNT; i++) {
        char *first = (char *)&board->workers[0].counters + all_counters[i];
        char *last = (char *)&board->workers[BOARD_CELLS_MAX - 1].counters + all_counters[i];
        board_count((_Atomic uint64_t *)(void *)first, i + 1);
        board_count((_Atomic uint64_t *)(void *)last, 1000 + i);
    }
    for (int round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < COUNT; i++) {
            cr_assert_eq(board_total(board, all_counters[i]), 1001 + 2 * i);
        }
        board_retire_worker(board, round == 0 ? 0 : BOARD_CELLS_MAX - 1);
    }
}

Test(scoreboard, is_adopted_by_another_program_of_the_same_layout)
{
    int fd = -1;
    struct scoreboard *first = scoreboard_create(&fd);

    cr_assert_not_null(first);
    first->workers[3].claims[2] = 5;
    struct scoreboard *second = scoreboard_adopt(fd);
    cr_assert_not_null(second);
    cr_expect_eq(second->workers[3].claims[2], 5);
    cr_expect_eq(munmap(second, sizeof(*second)), 0);
    first->version++;
    cr_expect_null(scoreboard_adopt(fd), "of another layout");
    cr_expect_eq(errno, EPROTO);
    first->version--;
    cr_expect_eq(munmap(first, sizeof(*first)), 0);
    cr_assert_eq(ftruncate(fd, 4096), 0);
    cr_expect_null(scoreboard_adopt(fd), "of another size");
    (void)close(fd);
    cr_expect_null(scoreboard_adopt(fd), "not there");
    cr_expect_eq(errno, EBADF);
}

/* ---- idle connections ------------------------------------------------------------------------ */

Test(scoreboard, idle_connections_are_bounded_over_all_cells)
{
    cr_assert(board_idle_claim(board, 0, 7, 2));
    cr_assert(board_idle_claim(board, 1, 7, 2));
    cr_assert_not(board_idle_claim(board, 1, 7, 2));
    cr_assert_not(board_idle_claim(board, 2, 9, 0), "0 keeps none");
    cr_assert_eq(board->servers[7].idle, 2);
    cr_assert_eq(board->servers[7].in_flight, 0);
    board_idle_unclaim(board, 0, 7);
    cr_assert(board_idle_claim(board, 1, 7, 2));
    cr_assert_eq(board->workers[1].idle[7], 2);
}

Test(scoreboard, dead_worker_keeps_no_idle_connections)
{
    cr_assert(board_idle_claim(board, 0, 7, 9));
    cr_assert(board_idle_claim(board, 1, 7, 9));
    cr_assert(board_idle_claim(board, 1, 7, 9));
    board_retire_worker(board, 1);
    cr_assert_eq(board->servers[7].idle, 1);
    cr_assert_eq(board->workers[1].idle[7], 0);
}

#define IDLE_MAX 3

static int
work_with_idle(uint32_t cell)
{
    for (int i = 0; i < 20000; i++) {
        if (board_idle_claim(board, cell, 7, IDLE_MAX)) {
            if (board->servers[7].idle > IDLE_MAX) {
                return 1;
            }
            board_idle_unclaim(board, cell, 7);
        }
    }
    return 0;
}

Test(scoreboard, idle_connections_are_exact_across_processes)
{
    run_workers(work_with_idle);
    cr_assert_eq(board->servers[7].idle, 0);
}
