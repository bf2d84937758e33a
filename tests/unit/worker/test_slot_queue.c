/* SPDX-License-Identifier: Apache-2.0
 *
 * The shared queue: its order, its bounds, its ring over many laps, and processes that claim, wait,
 * hand over, leave and are killed at any moment, with never more than the slots in use, none lost
 * and nobody forgotten.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "config/base/clock.h"
#include "config/base/hash.h"
#include "worker/scoreboard.h"
#include "worker/slot_queue.h"
#include "worker/wake.h"

static struct scoreboard *board;
static struct board_queue *queue;

static void
make_board(void)
{
    int fd;

    board = scoreboard_create(&fd);
    cr_assert_not_null(board);
    (void)close(fd);
    queue = &board->queues[0];
    board->queue_count = 1;
    for (uint32_t cell = 0; cell < 16; cell++) {
        board->workers[cell].state = BOARD_READY;
    }
    for (uint32_t server = 0; server < 8; server++) {
        board->servers[server].state = BOARD_READY;
        board->servers[server].slots = 1;
    }
}

static void
drop_board(void)
{
    cr_assert_eq(munmap(board, sizeof(*board)), 0);
}

TestSuite(slot_queue, .init = make_board, .fini = drop_board);

static uint64_t
enter(uint32_t cell, uint32_t but)
{
    uint64_t place;

    cr_assert_eq(slot_queue_enter(queue, cell, 1000, but, &place), 0);
    return place;
}

/* Claims server for cell 15 and hands it over; returns to whom. */
static uint32_t
hand(uint32_t server)
{
    uint32_t cell = UINT32_MAX;

    cr_assert(board_claim(board, 15, server, 0));
    if (!slot_queue_hand_over(board, queue, 15, server, &cell)) {
        board_unclaim(board, 15, server);
    }
    return cell;
}

static uint32_t
claims_of(uint32_t cell, uint32_t server)
{
    return (uint32_t)(board->workers[cell].claims[server] & CLAIMS_COUNT);
}

/* ---- order ---------------------------------------------------------------------------------- */

Test(slot_queue, first_in_first_out_over_all_cells)
{
    static const uint32_t cells[] = {3, 1, 1, 2, 3, 1};
    uint64_t places[6];
    uint32_t server;

    cr_expect_not(slot_queue_wants(queue, SLOT_QUEUE_ANY));
    for (int i = 0; i < 6; i++) {
        places[i] = enter(cells[i], SLOT_QUEUE_ANY);
    }
    cr_expect_eq(slot_queue_waiting(queue), 6);
    for (uint32_t i = 0; i < 6; i++) {
        cr_expect_not(slot_queue_is_handed(queue, places[i], &server));
        cr_expect_eq(hand(i), cells[i]);
        cr_expect(slot_queue_is_handed(queue, places[i], &server));
        cr_expect_eq(server, i);
        cr_expect_eq(claims_of(15, i), 0);
        cr_expect_eq(board->servers[i].in_flight, 1, "the ticket's");
        cr_expect_eq(slot_queue_handed_out(queue, i), 1);
    }
    cr_expect_not(slot_queue_wants(queue, SLOT_QUEUE_ANY));
    cr_expect_eq(hand(7), UINT32_MAX, "nobody waits");
    cr_expect_eq(board->servers[7].in_flight, 0);
    for (uint32_t i = 6; i-- > 0;) { /* taken in any order */
        cr_expect_eq(slot_queue_take(board, queue, cells[i], places[i]), i);
        cr_expect_eq(claims_of(cells[i], i), 1);
        cr_expect_eq(board->servers[i].in_flight, 1);
        cr_expect_eq(slot_queue_handed_out(queue, i), 0);
    }
    cr_expect_eq(slot_queue_waiting(queue), 0);
}

Test(slot_queue, who_leaves_is_passed_over)
{
    uint64_t places[4];
    uint32_t server = UINT32_MAX;

    for (uint32_t i = 0; i < 4; i++) {
        places[i] = enter(i, SLOT_QUEUE_ANY);
    }
    cr_expect(slot_queue_leave(board, queue, 0, places[0], &server));
    cr_expect(slot_queue_leave(board, queue, 2, places[2], &server));
    cr_expect_eq(server, UINT32_MAX);
    cr_expect_eq(hand(0), 1);
    /* Leaving too late: it has a slot now, and gives it on. */
    cr_expect_not(slot_queue_leave(board, queue, 1, places[1], &server));
    cr_expect_eq(server, 0);
    cr_expect_eq(claims_of(1, 0), 1);
    uint32_t whom;
    cr_expect(slot_queue_hand_over(board, queue, 1, 0, &whom));
    cr_expect_eq(whom, 3);
    cr_expect_eq(claims_of(1, 0), 0);
    cr_expect_eq(board->servers[0].in_flight, 1);
    cr_expect_eq(slot_queue_take(board, queue, 3, places[3]), 0);
}

Test(slot_queue, a_ticket_is_not_handed_the_server_it_excludes)
{
    uint64_t first = enter(1, 4);
    uint64_t second = enter(2, SLOT_QUEUE_ANY);
    uint32_t server;

    cr_expect(slot_queue_wants(queue, 4));
    cr_expect_eq(hand(4), 2, "who may have it");
    cr_expect_not(slot_queue_wants(queue, 4));
    cr_expect(slot_queue_wants(queue, 5));
    cr_expect_eq(hand(4), UINT32_MAX);
    cr_expect_not(slot_queue_is_handed(queue, first, &server));
    cr_expect_eq(hand(5), 1);
    cr_expect_eq(slot_queue_take(board, queue, 1, first), 5);
    cr_expect_eq(slot_queue_take(board, queue, 2, second), 4);
}

/* ---- bounds --------------------------------------------------------------------------------- */

Test(slot_queue, the_limit_is_for_all_cells_together)
{
    uint64_t place;
    uint32_t server;

    for (uint32_t i = 0; i < 10; i++) {
        cr_assert_eq(slot_queue_enter(queue, i % 3, 10, SLOT_QUEUE_ANY, &place), 0);
    }
    cr_expect_eq(slot_queue_enter(queue, 5, 10, SLOT_QUEUE_ANY, &place), -ENOSPC);
    cr_expect_eq(slot_queue_waiting(queue), 10);
    cr_expect(slot_queue_leave(board, queue, 0, 0, &server));
    cr_expect_eq(slot_queue_enter(queue, 5, 10, SLOT_QUEUE_ANY, &place), 0);
    cr_expect_eq(slot_queue_enter(queue, 5, 0, SLOT_QUEUE_ANY, &place), -ENOSPC);
}

Test(slot_queue, as_many_as_may_wait_have_a_place)
{
    static uint64_t places[SLOT_QUEUE_LIMIT_MAX];

    for (int lap = 0; lap < 3; lap++) {
        for (uint32_t i = 0; i < SLOT_QUEUE_LIMIT_MAX; i++) {
            cr_assert_eq(
                slot_queue_enter(queue, i % 7, SLOT_QUEUE_LIMIT_MAX, SLOT_QUEUE_ANY, &places[i]),
                0);
        }
        for (uint32_t i = 0; i < SLOT_QUEUE_LIMIT_MAX; i++) {
            cr_assert_eq(hand(0), i % 7);
            cr_assert_eq(slot_queue_take(board, queue, i % 7, places[i]), 0);
            board_unclaim(board, i % 7, 0);
        }
    }
    cr_expect_eq(board->servers[0].in_flight, 0);
}

/* One waits, or was handed a slot that its worker does not take, while others come and go. */
static void
stay_while_others_come_and_go(bool is_handed)
{
    uint64_t stays = enter(1, SLOT_QUEUE_ANY);
    uint64_t also = enter(2, 3);
    uint32_t server;

    if (is_handed) {
        cr_assert_eq(hand(6), 1);
    }
    for (uint32_t i = 0; i < 5 * BOARD_QUEUE_PLACES; i++) {
        uint64_t place = enter(4, SLOT_QUEUE_ANY);
        cr_assert(slot_queue_leave(board, queue, 4, place, &server));
    }
    cr_expect_eq(slot_queue_waiting(queue), 2);
    uint64_t last = enter(5, SLOT_QUEUE_ANY);
    if (!is_handed) {
        cr_expect_eq(hand(6), 1, "the oldest is still the first");
    }
    cr_expect_eq(hand(0), 2);
    cr_expect_eq(hand(1), 5);
    cr_expect_eq(slot_queue_take(board, queue, 1, stays), 6);
    cr_expect_eq(slot_queue_take(board, queue, 2, also), 0);
    cr_expect_eq(slot_queue_take(board, queue, 5, last), 1);
    cr_expect_not(slot_queue_wants(queue, SLOT_QUEUE_ANY));
    for (uint32_t i = 0; i < 2 * BOARD_QUEUE_PLACES; i++) { /* the ring is whole again */
        uint64_t place = enter(4, SLOT_QUEUE_ANY);
        cr_assert_eq(hand(2), 4);
        cr_assert_eq(slot_queue_take(board, queue, 4, place), 2);
        board_unclaim(board, 4, 2);
    }
}

Test(slot_queue, a_ticket_that_waits_long_does_not_stop_the_others)
{
    stay_while_others_come_and_go(false);
}

Test(slot_queue, a_worker_that_does_not_take_does_not_stop_the_others)
{
    stay_while_others_come_and_go(true);
}

Test(slot_queue, a_ring_that_cannot_go_on_is_full)
{
    uint64_t place = enter(1, SLOT_QUEUE_ANY);
    uint64_t entered = 0;
    uint32_t server;
    int result;

    while ((result = slot_queue_enter(queue, 4, 1000, SLOT_QUEUE_ANY, &place)) == 0) {
        cr_assert(slot_queue_leave(board, queue, 4, place, &server));
        entered++;
    }
    cr_expect_eq(result, -ENOSPC);
    cr_expect_geq(entered, 63ull * (BOARD_QUEUE_PLACES - 1));
    cr_expect_eq(slot_queue_waiting(queue), 1);
    cr_expect_eq(hand(0), 1);
    cr_expect_eq(slot_queue_take(board, queue, 1, 0), 0);
    place = enter(2, SLOT_QUEUE_ANY);
    cr_expect_eq(hand(1), 2);
}

/* ---- deaths --------------------------------------------------------------------------------- */

Test(slot_queue, a_dead_worker_leaves_neither_tickets_nor_slots)
{
    uint64_t places[6];

    for (uint32_t i = 0; i < 6; i++) {
        places[i] = enter(i % 2, SLOT_QUEUE_ANY);
    }
    cr_assert_eq(hand(0), 0);
    cr_assert_eq(hand(1), 1);
    cr_assert_eq(hand(2), 0);
    cr_assert_eq(slot_queue_take(board, queue, 0, places[2]), 2);
    board_retire_worker(board, 0); /* had 0 handed, 2 claimed, one more waiting */
    cr_expect_eq(board->servers[0].in_flight, 0);
    cr_expect_eq(board->servers[1].in_flight, 1);
    cr_expect_eq(board->servers[2].in_flight, 0);
    cr_expect_eq(slot_queue_waiting(queue), 3);
    cr_expect_eq(hand(0), 1);
    cr_expect_eq(hand(2), 1);
    cr_expect_eq(hand(3), UINT32_MAX);
    board_retire_worker(board, 1);
    for (uint32_t server = 0; server < 8; server++) {
        cr_expect_eq(board->servers[server].in_flight, 0);
    }
    cr_expect_eq(slot_queue_waiting(queue), 0);
}

/* What a worker that was killed inside hand over or take left: its mark, and the ticket changed or
 * not. The tickets are those of cell 3, the claim is cell 2's. */
Test(slot_queue, a_death_inside_a_hand_over_or_a_take_is_counted_anew)
{
    for (int changed = 0; changed < 2; changed++) {
        uint64_t place = enter(3, SLOT_QUEUE_ANY);
        uint32_t server;
        uint32_t whom;
        cr_assert(board_claim(board, 2, 0, 1));
        uint64_t was = board->workers[2].claims[0];
        if (changed == 1) {
            cr_assert(slot_queue_hand_over(board, queue, 2, 0, &whom));
            board->workers[2].claims[0] = was; /* it did not come to write this */
        }
        (void)claims_begin(&board->workers[2].claims[0]);
        board_retire_worker(board, 2);
        cr_expect_eq(board->servers[0].in_flight, changed == 1 ? 1 : 0);
        cr_expect_not(board_is_recount_due(board));
        if (changed == 1) {
            cr_expect_eq(slot_queue_take(board, queue, 3, place), 0);
            board_unclaim(board, 3, 0);
        } else {
            cr_expect(slot_queue_leave(board, queue, 3, place, &server));
        }
        cr_expect_eq(board->servers[0].in_flight, 0);
        board->workers[2].state = BOARD_READY;
    }
    for (int changed = 0; changed < 2; changed++) {
        uint64_t place = enter(3, SLOT_QUEUE_ANY);
        cr_assert_eq(hand(1), 3);
        uint64_t was = board->workers[3].claims[1];
        if (changed == 1) {
            (void)slot_queue_take(board, queue, 3, place);
            board->workers[3].claims[1] = was;
        }
        (void)claims_begin(&board->workers[3].claims[1]);
        board_retire_worker(board, 3);
        cr_expect_eq(board->servers[1].in_flight, 0);
        cr_expect_eq(slot_queue_waiting(queue), 0);
        board->workers[3].state = BOARD_READY;
    }
}

static uint32_t woken[BOARD_CELLS_MAX];

static void
count_wake(void *context, uint32_t cell)
{
    (void)context;
    woken[cell]++;
}

Test(slot_queue, the_master_serves_who_waits_as_the_balancer_would)
{
    static const uint32_t records[] = {0, 1, 2, 3, 4, 5};
    uint32_t server;
    uint64_t places[8];

    for (uint32_t i = 0; i < 8; i++) {
        places[i] = enter(i, SLOT_QUEUE_ANY);
    }
    board->servers[0].state = BOARD_DRAINING;
    board->servers[4].wish = BOARD_WISH_DRAINED;
    board->servers[5].wish = BOARD_WISH_DISABLED;
    board->servers[1].is_backup = 1;
    board->servers[2].slots = 2;
    board->servers[3].down_until_ms = 1001;
    slot_queue_serve(board, queue, records, 6, false, 1000, count_wake, NULL);
    cr_expect(woken[0] == 1 && woken[1] == 1 && woken[2] == 0);
    cr_expect(slot_queue_is_handed(queue, places[1], &server) && server == 2);
    board->servers[2].state = BOARD_DOWN; /* now the backup works */
    slot_queue_serve(board, queue, records, 6, false, 1000, count_wake, NULL);
    cr_expect(slot_queue_is_handed(queue, places[2], &server) && server == 1);
    cr_expect_eq(woken[3], 0);
    board->servers[1].state = BOARD_DOWN; /* nothing but one that rests */
    slot_queue_serve(board, queue, records, 6, false, 1000, count_wake, NULL);
    cr_expect(slot_queue_is_handed(queue, places[3], &server) && server == 3);
    board->servers[3].slots = 0;
    board->servers[3].full_until_ms = 1001;
    slot_queue_serve(board, queue, records, 6, false, 1000, count_wake, NULL);
    cr_expect_eq(woken[4], 0, "its accept queue is full");
    slot_queue_serve(board, queue, records, 6, false, 1001, count_wake, NULL);
    cr_expect(woken[4] == 1 && woken[7] == 1);
    cr_expect_eq(board->servers[3].in_flight, 5);
}

/* The master does not try servers: one that rests, whose rest is over or that probes found down
 * gets requests when no other is left. */
Test(slot_queue, the_master_gives_to_servers_that_are_well)
{
    static const uint32_t records[] = {0, 1, 2};
    uint32_t server;
    uint64_t first = enter(1, SLOT_QUEUE_ANY);
    uint64_t second = enter(2, SLOT_QUEUE_ANY);

    board->servers[0].down_until_ms = 999;
    board->servers[1].finding = BOARD_FOUND_DOWN;
    board->servers[2].in_flight = 1;
    slot_queue_serve(board, queue, records, 3, true, 1000, count_wake, NULL);
    cr_expect_not(slot_queue_is_handed(queue, first, &server), "the one that is well is busy");
    board->servers[2].wish = BOARD_WISH_DRAINED;
    board->servers[0].slots = 0;
    board->servers[0].full_until_ms = 1001;
    slot_queue_serve(board, queue, records, 3, true, 1000, count_wake, NULL);
    cr_expect(slot_queue_is_handed(queue, first, &server) && server == 1, "better than nothing");
    cr_expect_not(slot_queue_is_handed(queue, second, &server));
    board->servers[1].in_flight = 0; /* health_path is gone from the settings: it was never down */
    board->servers[0].full_until_ms = 0;
    slot_queue_serve(board, queue, records, 3, false, 1000, count_wake, NULL);
    cr_expect(slot_queue_is_handed(queue, second, &server) && server == 1);
}

/* ---- many processes, killed at any moment --------------------------------------------------- */

#define HAMMER_WORKERS 5
#define HAMMER_SERVERS 2
#define HAMMER_SLOTS 1
#define HAMMER_TICKETS 3 /* of one worker at a time */
#define HAMMER_MS 4000

/* Who is inside, outside of everything under test: a word for each slot of each server. */
struct inside {
    _Atomic uint32_t slot[HAMMER_SERVERS][HAMMER_SLOTS];
    _Atomic uint64_t served;
    _Atomic uint64_t waited;
    _Atomic uint32_t stop;
};
static struct inside *inside;

static uint32_t
free_server(uint64_t *random)
{
    for (uint32_t i = 0; i < HAMMER_SERVERS; i++) {
        uint32_t server = (uint32_t)((*random >> 32) + i) % HAMMER_SERVERS;
        if (board->servers[server].in_flight < HAMMER_SLOTS) {
            return server;
        }
    }
    return HAMMER_SERVERS;
}

/* As proxy_queue.c does it. */
static void
hammer_dispatch(uint32_t cell, int wake_fd, uint64_t *random)
{
    uint32_t whom;

    while (slot_queue_wants(queue, SLOT_QUEUE_ANY)) {
        uint32_t server = free_server(random);
        if (server == HAMMER_SERVERS) {
            return;
        }
        if (board_claim(board, cell, server, HAMMER_SLOTS)) {
            if (slot_queue_hand_over(board, queue, cell, server, &whom)) {
                wake_send(wake_fd, board->workers[whom].wake_name);
            } else {
                board_unclaim(board, cell, server);
            }
        }
    }
}

static void
hammer_give_back(uint32_t cell, int wake_fd, uint32_t server, uint64_t *random)
{
    uint32_t whom;

    if (slot_queue_hand_over(board, queue, cell, server, &whom)) {
        wake_send(wake_fd, board->workers[whom].wake_name);
        return;
    }
    board_unclaim(board, cell, server);
    hammer_dispatch(cell, wake_fd, random);
}

/* Uses a slot: the one thing that must never happen twice at a time. */
static void
use_slot(uint32_t cell, uint32_t server, uint64_t *random)
{
    uint32_t slot = HAMMER_SLOTS;

    for (uint32_t i = 0; i < HAMMER_SLOTS && slot == HAMMER_SLOTS; i++) {
        uint32_t nobody = 0;
        if (atomic_compare_exchange_strong(&inside->slot[server][i], &nobody, cell + 1)) {
            slot = i;
        }
    }
    if (slot == HAMMER_SLOTS) {
        _exit(2); /* more are inside than there are slots */
    }
    *random = hash_mix(*random, 3);
    for (uint64_t i = *random % 8; i > 4; i--) {
        (void)sched_yield(); /* others find it taken */
    }
    if (*random % 128 == 0) {
        struct timespec pause = {0, 50000};
        (void)nanosleep(&pause, NULL);
    }
    atomic_fetch_add(&inside->served, 1);
    atomic_store(&inside->slot[server][slot], 0);
}

static _Noreturn void
hammer_worker(uint32_t cell, uint64_t random)
{
    uint64_t places[HAMMER_TICKETS];
    uint32_t count = 0;
    int fd;

    if (wake_listen(&fd, board->workers[cell].wake_name) != 0) {
        _exit(4);
    }
    while (inside->stop == 0 || count > 0) {
        uint32_t server;
        random = hash_mix(random, 7);
        if (count < HAMMER_TICKETS && inside->stop == 0) {
            server =
                slot_queue_wants(queue, SLOT_QUEUE_ANY) ? HAMMER_SERVERS : free_server(&random);
            if (server < HAMMER_SERVERS && board_claim(board, cell, server, HAMMER_SLOTS)) {
                use_slot(cell, server, &random);
                hammer_give_back(cell, fd, server, &random);
            } else if (slot_queue_enter(queue, cell, 1000,
                                        random % 8 == 0 ? (uint32_t)(random >> 40) % HAMMER_SERVERS
                                                        : SLOT_QUEUE_ANY,
                                        &places[count]) == 0) {
                count++;
                hammer_dispatch(cell, fd, &random);
            }
        }
        bool any_handed = false;
        for (uint32_t i = 0; i < count;) {
            bool leaves = random % 256 == i;
            if (slot_queue_is_handed(queue, places[i], &server)) {
                server = slot_queue_take(board, queue, cell, places[i]);
                atomic_fetch_add(&inside->waited, 1);
                use_slot(cell, server, &random);
            } else if (!leaves || slot_queue_leave(board, queue, cell, places[i], &server)) {
                i += leaves ? 0 : 1;
                if (leaves) {
                    places[i] = places[--count];
                }
                continue;
            }
            any_handed = true;
            places[i] = places[--count];
            hammer_give_back(cell, fd, server, &random);
        }
        if (!any_handed && (count == HAMMER_TICKETS || (inside->stop != 0 && count > 0))) {
            struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
            if (poll(&poll_fd, 1, 20000) == 0) {
                _exit(3); /* forgotten: nobody wakes it */
            }
            wake_clear(fd);
        }
    }
    _exit(0);
}

static pid_t
hammer_fork(uint32_t cell, uint64_t random)
{
    board->workers[cell].state = BOARD_READY;
    pid_t pid = fork();
    cr_assert_neq(pid, -1);
    if (pid == 0) {
        hammer_worker(cell, random);
    }
    return pid;
}

static void
hammer_wake(void *context, uint32_t cell)
{
    wake_send(*(int *)context, board->workers[cell].wake_name);
}

/* What the master does after a death. */
static void
hammer_retire(uint32_t cell, int *wake_fd)
{
    static const uint32_t records[HAMMER_SERVERS] = {0, 1};

    for (uint32_t server = 0; server < HAMMER_SERVERS; server++) {
        for (uint32_t slot = 0; slot < HAMMER_SLOTS; slot++) {
            uint32_t dead = cell + 1;
            (void)atomic_compare_exchange_strong(&inside->slot[server][slot], &dead, 0);
        }
    }
    board_retire_worker(board, cell);
    board_recount(board);
    slot_queue_serve(board, queue, records, HAMMER_SERVERS, false, 0, hammer_wake, wake_fd);
    slot_queue_wake_all(queue, hammer_wake, wake_fd);
}

Test(slot_queue, nothing_is_lost_or_doubled_whoever_is_killed, .timeout = 100)
{
    pid_t pids[HAMMER_WORKERS];
    uint64_t random = hash_mix((uint64_t)clock_mono_us(), 1);
    unsigned int kills = 0;
    int wake_fd;

    inside = mmap(NULL, sizeof(*inside), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(inside, MAP_FAILED);
    cr_assert_eq(wake_open(&wake_fd), 0);
    for (uint32_t cell = 0; cell < 16; cell++) {
        board->workers[cell].state = BOARD_FREE;
    }
    for (uint32_t server = 0; server < HAMMER_SERVERS; server++) {
        board->servers[server].slots = HAMMER_SLOTS;
    }
    for (uint32_t cell = 0; cell < HAMMER_WORKERS; cell++) {
        pids[cell] = hammer_fork(cell, random + cell);
    }
    for (int64_t end_ms = clock_mono_ms() + HAMMER_MS; clock_mono_ms() < end_ms;) {
        struct timespec pause = {0, (long)((random >> 20) % 3000000)};
        random = hash_mix(random, 5);
        uint32_t cell = (uint32_t)(random >> 32) % HAMMER_WORKERS;
        int status;
        (void)nanosleep(&pause, NULL);
        (void)kill(pids[cell], SIGKILL);
        cr_assert_eq(waitpid(pids[cell], &status, 0), pids[cell]);
        cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "worker says %#x",
                  (unsigned int)status);
        hammer_retire(cell, &wake_fd);
        pids[cell] = hammer_fork(cell, random);
        kills++;
    }
    inside->stop = 1;
    for (uint32_t cell = 0; cell < HAMMER_WORKERS; cell++) {
        /* Who waits for a ticket to leave would wait for ever without traffic: wake all. */
        hammer_wake(&wake_fd, cell);
    }
    for (uint32_t cell = 0; cell < HAMMER_WORKERS; cell++) {
        int status;
        cr_assert_eq(waitpid(pids[cell], &status, 0), pids[cell]);
        cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "worker %u says %#x", cell,
                  (unsigned int)status);
        hammer_retire(cell, &wake_fd);
    }
    cr_expect_not(board_is_recount_due(board));
    for (uint32_t server = 0; server < HAMMER_SERVERS; server++) {
        cr_expect_eq(board->servers[server].in_flight, 0, "server %u: %u", server,
                     board->servers[server].in_flight);
        cr_expect_eq(slot_queue_handed_out(queue, server), 0);
    }
    cr_expect_eq(slot_queue_waiting(queue), 0);
    cr_expect_not(slot_queue_wants(queue, SLOT_QUEUE_ANY));
    cr_log_info("kills %u, served %llu, of these after a wait %llu", kills,
                (unsigned long long)inside->served, (unsigned long long)inside->waited);
    cr_expect_gt(kills, 50);
    cr_expect_gt(inside->waited, 1000);
    (void)close(wake_fd);
}
