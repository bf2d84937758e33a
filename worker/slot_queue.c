/* SPDX-License-Identifier: Apache-2.0
 *
 * The ring of tickets. Places are numbered 0, 1, 2, … without end; place p is word p modulo the
 * size of the ring, in lap p / size + 1. One word:
 *
 *   state   GONE, WAITING or HANDED
 *   server  + 1; WAITING: the one it must not be handed; HANDED: the one it was; 0: none
 *   cell    whose ticket it is
 *   voids   how many places behind it, one in each lap that follows, are no places
 *   lap     of this ticket
 *
 *   place p is free       when its word is GONE and of the lap before
 *   enter                 free -> WAITING, by whoever finds it free at the tail
 *   hand over             WAITING -> HANDED, by whoever has the slot
 *   take, leave, retire   WAITING or HANDED -> GONE, by the ticket's worker or after its death
 *
 * head and tail are hints that everybody moves on over places that are used up; a worker that dies
 * before it moved them leaves that to the next. head never passes a place that is free or WAITING.
 *
 * A ticket that stays while all others come and go (a worker that hangs has not taken it, or no
 * slot becomes free for a long time) would stop the tail after one lap. Its place of the
 * next lap is made void instead, and the tail passes.
 *
 * The order of stores, for readers of other processes: a worker marks its claims before it changes
 * a ticket that is about them. Exchanges of tickets and of in_flight are seq_cst, see board_claim.
 */
#include "worker/slot_queue.h"

#include <errno.h>
#include <string.h>

#include "config/base/check.h"
#include "worker/proxy/health.h"

#define PLACE_MASK (BOARD_QUEUE_PLACES - 1u)
#define VOIDS_MAX 63u
#define ENTER_TRIES 4
/* No queue is longer than its laps; head and tail may be anything, though, when a worker was taken
 * over. */
#define LOOKED_AT_MAX (BOARD_QUEUE_PLACES * (VOIDS_MAX + 2u))

enum ticket_state { TICKET_GONE = 0, TICKET_WAITING, TICKET_HANDED };

struct ticket {
    enum ticket_state state;
    uint32_t server; /* + 1 */
    uint32_t cell;
    uint32_t voids;
    uint64_t lap;
};

_Static_assert((BOARD_QUEUE_PLACES & PLACE_MASK) == 0, "a power of two");
_Static_assert(SLOT_QUEUE_LIMIT_MAX < BOARD_QUEUE_PLACES, "who may wait has a place");
_Static_assert(BOARD_SERVERS_MAX + 1 < 1 << 11 && BOARD_CELLS_MAX <= 1 << 9, "fit into a ticket");

static uint64_t
pack(struct ticket ticket)
{
    return (uint64_t)ticket.state | (uint64_t)ticket.server << 2 | (uint64_t)ticket.cell << 13 |
           (uint64_t)ticket.voids << 22 | ticket.lap << 30;
}

static struct ticket
unpack(uint64_t word)
{
    return (struct ticket){.state = (enum ticket_state)(word & 3),
                           .server = (uint32_t)(word >> 2 & 0x7ff),
                           .cell = (uint32_t)(word >> 13 & 0x1ff),
                           .voids = (uint32_t)(word >> 22 & 0xff),
                           .lap = word >> 30};
}

static uint64_t
lap_of(uint64_t place)
{
    return place / BOARD_QUEUE_PLACES + 1;
}

static _Atomic uint64_t *
word_at(struct board_queue *queue, uint64_t place)
{
    return &queue->place[place & PLACE_MASK];
}

static bool
swap(_Atomic uint64_t *word, uint64_t *expected, uint64_t wanted)
{
    return atomic_compare_exchange_strong_explicit(word, expected, wanted, memory_order_seq_cst,
                                                   memory_order_seq_cst);
}

static void
move_on(_Atomic uint64_t *hint, uint64_t place)
{
    (void)swap(hint, &place, place + 1); /* failing: somebody else has done it */
}

/* The word of a ticket that is gone: its void places are used up with it. */
static uint64_t
gone(struct ticket ticket)
{
    return pack((struct ticket){.state = TICKET_GONE, .lap = ticket.lap + ticket.voids});
}

/* ---- entering ------------------------------------------------------------------------------- */

uint32_t
slot_queue_waiting(const struct board_queue *queue)
{
    uint32_t sum = 0;

    for (uint32_t cell = 0; cell < BOARD_CELLS_MAX; cell++) {
        sum += atomic_load_explicit(&queue->waiting[cell], memory_order_relaxed);
    }
    return sum;
}

static void
count_waiting(struct board_queue *queue, uint32_t cell, int more)
{
    _Atomic uint32_t *mine = &queue->waiting[cell];
    uint32_t now = atomic_load_explicit(mine, memory_order_relaxed);

    atomic_store_explicit(mine, now + (uint32_t)more, memory_order_seq_cst);
}

static int
take_place(struct board_queue *queue, uint32_t cell, uint32_t but, uint64_t *ret_place)
{
    for (;;) {
        uint64_t place = atomic_load_explicit(&queue->tail, memory_order_seq_cst);
        _Atomic uint64_t *at = word_at(queue, place);
        uint64_t word = atomic_load_explicit(at, memory_order_seq_cst);
        struct ticket before = unpack(word);
        if (before.lap + before.voids >= lap_of(place)) {
            move_on(&queue->tail, place); /* used, or void; or the tail has moved long since */
            continue;
        }
        if (before.state == TICKET_GONE) {
            struct ticket mine = {.state = TICKET_WAITING,
                                  .server = but == SLOT_QUEUE_ANY ? 0 : but + 1,
                                  .cell = cell,
                                  .lap = lap_of(place)};
            if (swap(at, &word, pack(mine))) {
                move_on(&queue->tail, place);
                *ret_place = place;
                return 0;
            }
        } else if (before.voids < VOIDS_MAX) {
            before.voids++;
            (void)swap(at, &word, pack(before));
        } else {
            return -ENOSPC;
        }
    }
}

int
slot_queue_enter(struct board_queue *queue, uint32_t cell, uint32_t limit, uint32_t but,
                 uint64_t *ret_place)
{
    int result = -ENOSPC;

    /* Counted first: so all together never exceed the limit. That others did the same at this
     * moment is no reason to be refused, unless it happens again and again. */
    for (int i = 0; i < ENTER_TRIES && result != 0 && slot_queue_waiting(queue) < limit; i++) {
        count_waiting(queue, cell, 1);
        if (slot_queue_waiting(queue) <= limit) {
            result = take_place(queue, cell, but, ret_place);
        }
        if (result != 0) {
            count_waiting(queue, cell, -1);
        }
    }
    return result;
}

/* ---- handing over --------------------------------------------------------------------------- */

/* The oldest ticket that may be handed server. Moves the head over what is gone. */
static bool
find_oldest(struct board_queue *queue, uint32_t server, uint64_t *ret_place, uint64_t *ret_word)
{
    uint64_t place = atomic_load_explicit(&queue->head, memory_order_seq_cst);
    bool is_head = true;

    /* A ticket whose worker did not move the tail on is not seen yet. That worker looks for a free
     * slot itself after it has; or it is dead, and the ticket with it. */
    for (uint32_t i = 0;
         i < LOOKED_AT_MAX && place < atomic_load_explicit(&queue->tail, memory_order_seq_cst);
         i++) {
        uint64_t word = atomic_load_explicit(word_at(queue, place), memory_order_seq_cst);
        struct ticket ticket = unpack(word);
        if (ticket.lap == lap_of(place) && ticket.state == TICKET_WAITING) {
            if (server == SLOT_QUEUE_ANY || ticket.server != server + 1) {
                *ret_place = place;
                *ret_word = word;
                return true;
            }
            is_head = false;
        } else if (is_head) {
            move_on(&queue->head, place);
        }
        place++;
    }
    return false;
}

bool
slot_queue_wants(struct board_queue *queue, uint32_t server)
{
    uint64_t place;
    uint64_t word;

    return find_oldest(queue, server, &place, &word);
}

/* WAITING -> HANDED of the oldest; *ret_cell is whose. */
static bool
hand_to_oldest(struct board_queue *queue, uint32_t server, uint32_t *ret_cell)
{
    uint64_t place;
    uint64_t word;

    while (find_oldest(queue, server, &place, &word)) {
        struct ticket ticket = unpack(word);
        ticket.state = TICKET_HANDED;
        ticket.server = server + 1;
        if (swap(word_at(queue, place), &word, pack(ticket))) {
            *ret_cell = ticket.cell;
            return true;
        }
    }
    return false;
}

bool
slot_queue_hand_over(struct scoreboard *board, struct board_queue *queue, uint32_t cell,
                     uint32_t server, uint32_t *ret_cell)
{
    if (!slot_queue_wants(queue, server)) {
        return false;
    }
    _Atomic uint64_t *claims = &board->workers[cell].claims[server];
    uint64_t was = claims_begin(claims);
    CHECK((was & CLAIMS_COUNT) > 0);
    bool handed = hand_to_oldest(queue, server, ret_cell);
    claims_end(claims, was, handed ? -1 : 0);
    if (handed) {
        atomic_fetch_add_explicit(&board->servers[server].requests, 1, memory_order_relaxed);
    }
    return handed;
}

/* ---- one's own tickets ---------------------------------------------------------------------- */

bool
slot_queue_is_handed(const struct board_queue *queue, uint64_t place, uint32_t *ret_server)
{
    struct ticket ticket =
        unpack(atomic_load_explicit(&queue->place[place & PLACE_MASK], memory_order_seq_cst));

    CHECK(ticket.lap == lap_of(place) && ticket.state != TICKET_GONE);
    *ret_server = ticket.server - 1;
    return ticket.state == TICKET_HANDED;
}

uint32_t
slot_queue_take(struct scoreboard *board, struct board_queue *queue, uint32_t cell, uint64_t place)
{
    _Atomic uint64_t *at = word_at(queue, place);
    uint64_t word = atomic_load_explicit(at, memory_order_seq_cst);
    struct ticket ticket = unpack(word);

    CHECK(ticket.state == TICKET_HANDED && ticket.cell == cell && ticket.lap == lap_of(place));
    uint32_t server = ticket.server - 1;
    _Atomic uint64_t *claims = &board->workers[cell].claims[server];
    uint64_t was = claims_begin(claims);
    while (!swap(at, &word, gone(unpack(word)))) {
        /* somebody made another place void */
    }
    claims_end(claims, was, 1);
    count_waiting(queue, cell, -1);
    return server;
}

bool
slot_queue_leave(struct scoreboard *board, struct board_queue *queue, uint32_t cell, uint64_t place,
                 uint32_t *ret_server)
{
    _Atomic uint64_t *at = word_at(queue, place);
    uint64_t word = atomic_load_explicit(at, memory_order_seq_cst);

    CHECK(unpack(word).cell == cell && unpack(word).lap == lap_of(place));
    while (unpack(word).state == TICKET_WAITING) {
        if (swap(at, &word, gone(unpack(word)))) {
            count_waiting(queue, cell, -1);
            return true;
        }
    }
    *ret_server = slot_queue_take(board, queue, cell, place);
    return false;
}

/* ---- the master ----------------------------------------------------------------------------- */

uint32_t
slot_queue_handed_out(const struct board_queue *queue, uint32_t server)
{
    uint64_t tail = atomic_load_explicit(&queue->tail, memory_order_acquire);
    uint32_t count = 0;

    for (uint64_t i = 0; i < BOARD_QUEUE_PLACES && i <= tail; i++) {
        struct ticket ticket = unpack(atomic_load_explicit(&queue->place[i], memory_order_acquire));
        count += ticket.state == TICKET_HANDED && ticket.server == server + 1 ? 1 : 0;
    }
    return count;
}

uint32_t
slot_queue_find(const struct scoreboard *board, const char *backend)
{
    for (uint32_t queue = 0; queue < board_queue_count(board); queue++) {
        if (strcmp(board->queues[queue].backend, backend) == 0) {
            return queue;
        }
    }
    return BOARD_QUEUES_MAX;
}

void
slot_queue_retire_cell(struct board_queue *queue, uint32_t cell, uint32_t handed[BOARD_SERVERS_MAX])
{
    uint64_t tail = atomic_load_explicit(&queue->tail, memory_order_acquire);

    for (uint64_t i = 0; i < BOARD_QUEUE_PLACES && i <= tail; i++) {
        _Atomic uint64_t *at = &queue->place[i];
        uint64_t word = atomic_load_explicit(at, memory_order_seq_cst);
        while (unpack(word).state != TICKET_GONE && unpack(word).cell == cell) {
            struct ticket ticket = unpack(word);
            if (swap(at, &word, gone(ticket))) {
                /* The master runs this, on what a worker may have spoilt. */
                if (ticket.state == TICKET_HANDED && ticket.server - 1 < BOARD_SERVERS_MAX) {
                    handed[ticket.server - 1]++;
                }
                break;
            }
        }
    }
    atomic_store_explicit(&queue->waiting[cell], 0, memory_order_relaxed);
}

void
slot_queue_wake_all(const struct board_queue *queue, void (*wake)(void *context, uint32_t cell),
                    void *context)
{
    for (uint32_t cell = 0; cell < BOARD_CELLS_MAX; cell++) {
        if (atomic_load_explicit(&queue->waiting[cell], memory_order_seq_cst) > 0) {
            wake(context, cell);
        }
    }
}

/* As the balancer ranks them: 0 is not READY, or taken out. A server that is busy keeps those of
 * lower rank out: it is worth waiting for. One whose rest is over is left to a worker's choice, for
 * only one request at a time is to try it. */
static unsigned
rank_of(const struct board_server *server, bool is_probed, int64_t now_ms)
{
    if (atomic_load_explicit(&server->state, memory_order_seq_cst) != BOARD_READY) {
        return 0;
    }
    switch (health_standing(server, is_probed, now_ms)) {
    case HEALTH_OUT:
        return 0;
    case HEALTH_RESTING:
    case HEALTH_TRIAL:
        return 1;
    case HEALTH_UP:
        break;
    }
    return atomic_load_explicit(&server->is_backup, memory_order_relaxed) != 0 ? 2 : 3;
}

static bool
is_free(const struct board_server *server, int64_t now_ms)
{
    uint32_t slots = atomic_load_explicit(&server->slots, memory_order_relaxed);

    return (slots == 0 || atomic_load_explicit(&server->in_flight, memory_order_seq_cst) < slots) &&
           atomic_load_explicit(&server->full_until_ms, memory_order_relaxed) <= now_ms;
}

/* The least busy of those of the highest rank that are free and wanted. */
static uint32_t
best_of(const struct scoreboard *board, struct board_queue *queue, const uint32_t *records,
        uint32_t count, bool is_probed, int64_t now_ms)
{
    uint32_t best = SLOT_QUEUE_ANY;
    unsigned highest = 1;
    uint32_t best_load = 0;

    for (uint32_t i = 0; i < count; i++) {
        const struct board_server *server = &board->servers[records[i]];
        unsigned rank = rank_of(server, is_probed, now_ms);
        uint32_t load = atomic_load_explicit(&server->in_flight, memory_order_relaxed);
        if (rank > highest) {
            highest = rank;
            best = SLOT_QUEUE_ANY;
        }
        if (rank == highest && (best == SLOT_QUEUE_ANY || load < best_load) &&
            is_free(server, now_ms) && slot_queue_wants(queue, records[i])) {
            best = records[i];
            best_load = load;
        }
    }
    return best;
}

void
slot_queue_serve(struct scoreboard *board, struct board_queue *queue, const uint32_t *records,
                 uint32_t count, bool is_probed, int64_t now_ms,
                 void (*wake)(void *context, uint32_t cell), void *context)
{
    while (slot_queue_wants(queue, SLOT_QUEUE_ANY)) {
        uint32_t record = best_of(board, queue, records, count, is_probed, now_ms);
        uint32_t cell;
        if (record == SLOT_QUEUE_ANY) {
            return;
        }
        struct board_server *server = &board->servers[record];
        uint32_t slots = atomic_load_explicit(&server->slots, memory_order_relaxed);
        uint32_t now = atomic_load_explicit(&server->in_flight, memory_order_seq_cst);
        if ((slots > 0 && now >= slots) ||
            !atomic_compare_exchange_strong_explicit(&server->in_flight, &now, now + 1,
                                                     memory_order_seq_cst, memory_order_relaxed)) {
            continue; /* it changed meanwhile: look again */
        }
        if (hand_to_oldest(queue, record, &cell)) {
            atomic_fetch_add_explicit(&server->requests, 1, memory_order_relaxed);
            wake(context, cell);
        } else {
            atomic_fetch_sub_explicit(&server->in_flight, 1, memory_order_seq_cst);
        }
    }
}
