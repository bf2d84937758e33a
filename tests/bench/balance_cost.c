/* SPDX-License-Identifier: Apache-2.0
 *
 * What a choice costs by the number of servers, and a wait by the number of requests that wait, on
 * a real scoreboard and without a network. One process: the lines of memory are in its cache, as
 * they are for a worker that others do not disturb. Prints two tables. Not part of narwhal;
 * backends.py compiles it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "config/base/hash.h"
#include "worker/proxy/balance.h"
#include "worker/scoreboard.h"
#include "worker/slot_queue.h"

#define NANOSECONDS_EACH 50000000

static struct scoreboard *board;
static uint32_t records[BOARD_SERVERS_MAX];
static const uint64_t tried[BOARD_SERVERS_MAX / 64];

static int64_t
now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static double
choice_ns(enum balance method, uint32_t count, uint32_t in_flight, bool is_uniform)
{
    struct balance_state state;
    struct balance_input input = {.method = method,
                                  .board = board,
                                  .records = records,
                                  .count = count,
                                  .tried = tried,
                                  .is_uniform = is_uniform,
                                  .weight_max = is_uniform ? 1 : 3,
                                  .hash_bound = 150,
                                  .now_ms = 1};
    uint64_t rounds = 0;
    uint32_t index = 0;

    for (uint32_t i = 0; i < count; i++) {
        board->servers[i].in_flight = in_flight;
        board->servers[i].weight = is_uniform ? 1 : 1 + i % 3;
    }
    balance_state_init(&state, 12345);
    int64_t begin = now_ns();
    do {
        for (int i = 0; i < 100; i++) {
            input.hash = hash_mix(rounds++, 5);
            if (balance_choose(&state, &input, &index) != BALANCE_CHOSEN) {
                abort();
            }
        }
    } while (now_ns() - begin < NANOSECONDS_EACH);
    double each = (double)(now_ns() - begin) / (double)rounds;
    balance_state_release(&state);
    return each;
}

static void
print_choices(void)
{
    static const struct {
        const char *name;
        enum balance method;
    } methods[] = {{"least_busy", BALANCE_LEAST_BUSY},
                   {"round_robin", BALANCE_ROUND_ROBIN},
                   {"hash", BALANCE_HASH},
                   {"random2", BALANCE_RANDOM2}};

    printf("| balance | servers | all idle | all busy | all busy, weights differ |\n"
           "|---|--:|--:|--:|--:|\n");
    for (size_t m = 0; m < sizeof(methods) / sizeof(methods[0]); m++) {
        for (uint32_t count = 1; count <= 1000; count *= 10) {
            printf("| %s | %u | %.0f | %.0f | %.0f |\n", methods[m].name, count,
                   choice_ns(methods[m].method, count, 0, true),
                   choice_ns(methods[m].method, count, 9, true),
                   choice_ns(methods[m].method, count, 9, false));
        }
    }
}

/* A claim handed to the oldest, taken, and a new one at the end of the queue. */
static void
print_queue(void)
{
    static uint64_t places[SLOT_QUEUE_LIMIT_MAX];
    struct board_queue *queue = &board->queues[0];
    uint32_t entered = 0;
    uint64_t first = 0;

    printf("\n| waiting | hand over, take, enter |\n|--:|--:|\n");
    if (!board_claim(board, 1, 0, 1)) {
        abort();
    }
    for (uint32_t waiting = 1; waiting <= 10000; waiting *= 10) {
        uint64_t rounds = 0;
        for (; entered < waiting; entered++) {
            if (slot_queue_enter(queue, 1, SLOT_QUEUE_LIMIT_MAX, SLOT_QUEUE_ANY,
                                 &places[(first + entered) % waiting]) != 0) {
                abort();
            }
        }
        int64_t begin = now_ns();
        do {
            for (int i = 0; i < 100; i++) {
                uint32_t cell;
                uint64_t *place = &places[first++ % waiting];
                if (!slot_queue_hand_over(board, queue, 1, 0, &cell) ||
                    slot_queue_take(board, queue, 1, *place) != 0 ||
                    slot_queue_enter(queue, 1, SLOT_QUEUE_LIMIT_MAX, SLOT_QUEUE_ANY, place) != 0) {
                    abort();
                }
                rounds++;
            }
        } while (now_ns() - begin < NANOSECONDS_EACH);
        printf("| %u | %.0f |\n", waiting, (double)(now_ns() - begin) / (double)rounds);
        /* In the order of a larger ring: the oldest first. */
        for (uint64_t i = 0; i < waiting; i++) {
            uint32_t server;
            if (!slot_queue_leave(board, queue, 1, places[i], &server)) {
                abort();
            }
        }
        entered = 0;
        first = 0;
    }
}

int
main(void)
{
    int fd;

    board = scoreboard_create(&fd);
    if (board == NULL) {
        perror("balance_cost: cannot make a scoreboard");
        return 1;
    }
    for (uint32_t i = 0; i < BOARD_SERVERS_MAX; i++) {
        records[i] = i;
        board->servers[i].state = BOARD_READY;
        board->servers[i].identity = hash_mix(i, 77);
    }
    print_choices();
    print_queue();
    return 0;
}
