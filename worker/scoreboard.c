/* SPDX-License-Identifier: Apache-2.0
 *
 * Creation of the scoreboard and the few operations that touch more than one record. The master
 * runs create, retire and total; workers run claim and unclaim.
 */
#include "worker/scoreboard.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/base/check.h"
#include "config/base/fd.h"
#include "config/base/hash.h"
#include "worker/slot_queue.h"

/* "NARWHAL1" */
#define BOARD_MAGIC UINT64_C(0x314c41485752414e)
/* For a change that layout_version() does not see: another meaning of the same bytes. */
#ifndef BOARD_VERSION
#define BOARD_VERSION 3
#endif

/* Readings of one server, each of some microseconds, before the count is left for later. */
#define RECOUNT_TRIES 200

static const char *const state_names[BOARD_STATE_COUNT] = {
#define BOARD_STATE_NAME(name) [BOARD_##name] = #name,
    BOARD_STATES(BOARD_STATE_NAME)
#undef BOARD_STATE_NAME
};

const char *
board_state_name(enum board_state state)
{
    return state < BOARD_STATE_COUNT ? state_names[state] : "?";
}

static const char *const wish_names[BOARD_WISH_COUNT] = {
#define BOARD_WISH_NAME(name) [BOARD_WISH_##name] = #name,
    BOARD_WISHES(BOARD_WISH_NAME)
#undef BOARD_WISH_NAME
};

const char *
board_wish_name(enum board_wish wish)
{
    return wish < BOARD_WISH_COUNT ? wish_names[wish] : "?";
}

static const char *const finding_names[BOARD_FINDING_COUNT] = {
#define BOARD_FINDING_NAME(name) [BOARD_FOUND_##name] = #name,
    BOARD_FINDINGS(BOARD_FINDING_NAME)
#undef BOARD_FINDING_NAME
};

const char *
board_finding_name(enum board_finding finding)
{
    return finding < BOARD_FINDING_COUNT ? finding_names[finding] : "?";
}

/* Two programs share a board only if each counter and each state is the same to both. */
static uint32_t
layout_version(void)
{
    const size_t sizes[] = {BOARD_VERSION,
                            sizeof(struct board_worker),
                            sizeof(struct board_server),
                            offsetof(struct scoreboard, workers),
                            offsetof(struct scoreboard, servers),
                            offsetof(struct board_worker, counters),
                            offsetof(struct board_worker, claims),
                            offsetof(struct board_worker, idle),
                            offsetof(struct board_server, state),
                            offsetof(struct board_server, life),
                            offsetof(struct board_server, address),
                            offsetof(struct board_server, idle),
                            offsetof(struct board_server, health),
                            offsetof(struct scoreboard, queues),
                            offsetof(struct board_queue, waiting),
                            offsetof(struct board_queue, place)};
    uint64_t hash = hash_bytes(0, sizes, sizeof(sizes));

#define BOARD_COUNTER_HASH(name, text) hash = hash_bytes(hash, #name, sizeof(#name));
    BOARD_COUNTERS(BOARD_COUNTER_HASH)
#undef BOARD_COUNTER_HASH
    for (size_t i = 0; i < BOARD_STATE_COUNT; i++) {
        hash = hash_bytes(hash, state_names[i], strlen(state_names[i]));
    }
    return (uint32_t)hash;
}

struct scoreboard *
scoreboard_adopt(int fd)
{
    struct stat st;

    if (fstat(fd, &st) == -1) {
        return NULL;
    }
    if (st.st_size != (off_t)sizeof(struct scoreboard)) {
        errno = EPROTO;
        return NULL;
    }
    struct scoreboard *board =
        mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (board == MAP_FAILED) {
        return NULL;
    }
    if (board->magic != BOARD_MAGIC || board->version != layout_version() ||
        board->size != sizeof(*board)) {
        (void)munmap(board, sizeof(*board));
        errno = EPROTO;
        return NULL;
    }
    return board;
}

struct scoreboard *
scoreboard_create(int *ret_fd)
{
    int fd = memfd_create("narwhal-scoreboard", MFD_CLOEXEC);

    if (fd == -1) {
        return NULL;
    }
    if (ftruncate(fd, sizeof(struct scoreboard)) == -1) {
        fd_close(&fd);
        return NULL;
    }
    struct scoreboard *board =
        mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (board == MAP_FAILED) {
        fd_close(&fd);
        return NULL;
    }
    board->magic = BOARD_MAGIC;
    board->version = layout_version();
    board->size = sizeof(*board);
    *ret_fd = fd;
    return board;
}

int64_t
board_copy_request(const struct board_worker *worker, char ret_text[BOARD_REQUEST_MAX])
{
    int64_t began_ms = atomic_load_explicit(&worker->request_began_ms, memory_order_relaxed);
    size_t length = 0;

    while (began_ms != 0 && length < sizeof(worker->request) - 1 &&
           worker->request[length] != '\0') {
        unsigned char c = (unsigned char)worker->request[length];
        ret_text[length++] = c < 0x20 || c >= 0x7f || c == '"' ? '?' : (char)c;
    }
    ret_text[length] = '\0';
    return began_ms;
}

/* ---- claims --------------------------------------------------------------------------------- */

bool
board_claim(struct scoreboard *board, uint32_t cell, uint32_t server, uint32_t slots)
{
    _Atomic uint64_t *mine = &board->workers[cell].claims[server];
    _Atomic uint32_t *all = &board->servers[server].in_flight;
    uint64_t was = claims_begin(mine);
    uint32_t now = atomic_load_explicit(all, memory_order_relaxed);

    do {
        if (slots > 0 && now >= slots) {
            claims_end(mine, was, 0);
            return false;
        }
        /* seq_cst here and in slot_queue.c: who frees a slot and then looks for somebody who waits,
         * and who begins to wait and then looks for a free slot, must not miss each other. */
    } while (!atomic_compare_exchange_weak_explicit(all, &now, now + 1, memory_order_seq_cst,
                                                    memory_order_relaxed));
    claims_end(mine, was, 1);
    /* The line is this CPU's own since the exchange above. */
    atomic_fetch_add_explicit(&board->servers[server].requests, 1, memory_order_relaxed);
    return true;
}

/* Takes count away. Below zero only a broken worker could bring it (or, of idle connections, one
 * that died), and that worker shall not stop the others. */
static void
count_sub(_Atomic uint32_t *all, uint32_t count)
{
    uint32_t now = atomic_load_explicit(all, memory_order_relaxed);
    uint32_t less;

    do {
        less = now > count ? now - count : 0;
    } while (!atomic_compare_exchange_weak_explicit(all, &now, less, memory_order_seq_cst,
                                                    memory_order_relaxed));
}

void
board_unclaim(struct scoreboard *board, uint32_t cell, uint32_t server)
{
    _Atomic uint64_t *mine = &board->workers[cell].claims[server];
    uint64_t was = claims_begin(mine);

    CHECK((was & CLAIMS_COUNT) > 0);
    count_sub(&board->servers[server].in_flight, 1);
    claims_end(mine, was, -1);
}

/* ---- after a death -------------------------------------------------------------------------- */

/* The claims of all living cells at a server, or -1 when one of them is just being changed. What
 * was read goes to seen[], so that a second reading can be compared. */
static int64_t
claims_sum(const struct scoreboard *board, uint32_t server, uint64_t seen[BOARD_CELLS_MAX])
{
    int64_t sum = 0;

    for (uint32_t cell = 0; cell < BOARD_CELLS_MAX; cell++) {
        const struct board_worker *worker = &board->workers[cell];
        seen[cell] = 0;
        if (atomic_load_explicit(&worker->state, memory_order_acquire) == BOARD_FREE) {
            continue;
        }
        seen[cell] = atomic_load_explicit(&worker->claims[server], memory_order_acquire);
        if ((seen[cell] & CLAIMS_MARK) != 0) {
            return -1;
        }
        sum += (int64_t)(seen[cell] & CLAIMS_COUNT);
    }
    return sum;
}

/* Between two equal readings of all words nobody claimed, gave back, handed out or took: each of
 * these leaves another word behind. So what was read of in_flight and of the queue between them
 * belongs together. */
static bool
recount_server(struct scoreboard *board, uint32_t server)
{
    uint64_t before[BOARD_CELLS_MAX];
    uint64_t after[BOARD_CELLS_MAX];
    struct board_server *record = &board->servers[server];
    int64_t sum = claims_sum(board, server, before);

    if (sum < 0) {
        return false;
    }
    uint32_t shown = atomic_load_explicit(&record->in_flight, memory_order_acquire);
    sum += slot_queue_handed_out(board_queue_of(board, server), server);
    atomic_thread_fence(memory_order_acquire);
    if (claims_sum(board, server, after) < 0 || memcmp(before, after, sizeof(before)) != 0) {
        return false;
    }
    /* Who changes it from here on changes it by one from what was shown: that is still right. */
    return atomic_compare_exchange_strong_explicit(&record->in_flight, &shown, (uint32_t)sum,
                                                   memory_order_seq_cst, memory_order_relaxed);
}

void
board_recount(struct scoreboard *board)
{
    for (uint32_t word = 0; word < BOARD_SERVERS_MAX / 64; word++) {
        uint64_t due = board->recount_due[word];
        for (uint64_t left = due; left != 0; left &= left - 1) {
            uint32_t server = word * 64 + (uint32_t)__builtin_ctzll(left);
            bool counted = false;
            for (int i = 0; i < RECOUNT_TRIES && !counted; i++) {
                counted = recount_server(board, server);
            }
            if (counted) {
                board->recount_due[word] &= ~(left & -left);
            }
        }
    }
}

bool
board_is_recount_due(const struct scoreboard *board)
{
    for (uint32_t word = 0; word < BOARD_SERVERS_MAX / 64; word++) {
        if (board->recount_due[word] != 0) {
            return true;
        }
    }
    return false;
}

/* ---- idle connections ------------------------------------------------------------------------ */

bool
board_idle_claim(struct scoreboard *board, uint32_t cell, uint32_t server, uint32_t max)
{
    _Atomic uint32_t *mine = &board->workers[cell].idle[server];
    _Atomic uint32_t *all = &board->servers[server].idle;
    uint32_t held = atomic_load_explicit(mine, memory_order_relaxed);
    uint32_t now = atomic_load_explicit(all, memory_order_relaxed);

    /* Noted in the cell first: dying in between, the worker leaves a count that is one too low, not
     * one that stays too high. */
    atomic_store_explicit(mine, held + 1, memory_order_relaxed);
    do {
        if (now >= max) {
            atomic_store_explicit(mine, held, memory_order_relaxed);
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(all, &now, now + 1, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

void
board_idle_unclaim(struct scoreboard *board, uint32_t cell, uint32_t server)
{
    _Atomic uint32_t *mine = &board->workers[cell].idle[server];
    uint32_t held = atomic_load_explicit(mine, memory_order_relaxed);

    CHECK(held > 0);
    count_sub(&board->servers[server].idle, 1);
    atomic_store_explicit(mine, held - 1, memory_order_relaxed);
}

void
board_forget_health(struct board_server *server)
{
    struct board_health *health = &server->health;

    atomic_store_explicit(&server->closes_after_us, 0, memory_order_relaxed);
    atomic_store_explicit(&health->failures, 0, memory_order_relaxed);
    atomic_store_explicit(&health->errors, 0, memory_order_relaxed);
    atomic_store_explicit(&server->down_until_ms, 0, memory_order_relaxed);
    atomic_store_explicit(&health->up_since_ms, 0, memory_order_relaxed);
    atomic_store_explicit(&server->finding, BOARD_FOUND_UNKNOWN, memory_order_relaxed);
    atomic_store_explicit(&health->against, 0, memory_order_relaxed);
    atomic_store_explicit(&health->probe_due_ms, 0, memory_order_relaxed);
}

void
board_retire_worker(struct scoreboard *board, uint32_t cell)
{
    struct board_worker *worker = &board->workers[cell];
    uint32_t handed[BOARD_SERVERS_MAX] = {0};

#define BOARD_COUNTER_FOLD(name, text)                                                             \
    board_count(&board->retired.name,                                                              \
                atomic_exchange_explicit(&worker->counters.name, 0, memory_order_relaxed));
    BOARD_COUNTERS(BOARD_COUNTER_FOLD)
#undef BOARD_COUNTER_FOLD
    for (uint32_t queue = 0; queue < board_queue_count(board); queue++) {
        slot_queue_retire_cell(&board->queues[queue], cell, handed);
    }
    for (uint32_t server = 0; server < BOARD_SERVERS_MAX; server++) {
        uint64_t was = atomic_load_explicit(&worker->claims[server], memory_order_relaxed);
        uint32_t held = (uint32_t)(was & CLAIMS_COUNT) + handed[server];
        if ((was & CLAIMS_MARK) != 0) {
            board->recount_due[server / 64] |= UINT64_C(1) << (server % 64);
        } else if (held > 0) {
            count_sub(&board->servers[server].in_flight, held);
        }
        if (was != 0) {
            atomic_store_explicit(&worker->claims[server], ((was >> 32) + 1) << 32,
                                  memory_order_release);
        }
        uint32_t idle = atomic_exchange_explicit(&worker->idle[server], 0, memory_order_relaxed);
        if (idle > 0) {
            count_sub(&board->servers[server].idle, idle);
        }
    }
    atomic_store_explicit(&worker->turn_started_ms, 0, memory_order_relaxed);
    atomic_store_explicit(&worker->settings_serial, 0, memory_order_relaxed);
    atomic_store_explicit(&worker->request_began_ms, 0, memory_order_relaxed);
    atomic_store_explicit(&worker->busy_us, 0, memory_order_relaxed);
    atomic_store_explicit(&worker->pid, 0, memory_order_relaxed);
    atomic_store_explicit(&worker->state, BOARD_FREE, memory_order_release);
    board_recount(board); /* what is left is counted by a later call */
}

static uint64_t
counter_at(const struct board_counters *counters, size_t offset)
{
    const char *at = (const char *)counters + offset;
    const _Atomic uint64_t *counter = (const _Atomic uint64_t *)(const void *)at;

    return atomic_load_explicit(counter, memory_order_relaxed);
}

uint64_t
board_total(const struct scoreboard *board, size_t counter_offset)
{
    uint64_t total = counter_at(&board->retired, counter_offset);

    for (uint32_t cell = 0; cell < BOARD_CELLS_MAX; cell++) {
        if (atomic_load_explicit(&board->workers[cell].state, memory_order_relaxed) != BOARD_FREE) {
            total += counter_at(&board->workers[cell].counters, counter_offset);
        }
    }
    return total;
}
