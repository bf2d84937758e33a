/* SPDX-License-Identifier: Apache-2.0
 *
 * The scoreboard: one shared memory mapping (memfd) that the master creates and every worker has
 * from birth. Fixed-size records, no pointers, 64-byte lines, one writer per line unless said,
 * relaxed atomics, no locks. Everything that shows or balances reads this one thing.
 *
 * A worker process owns one cell, from fork to reaping; a slot (the stable number 0..N-1) has one
 * serving worker and, while it is being replaced, a second one in another cell. When a worker dies
 * the master folds its counters into totals and gives back what it had claimed.
 *
 * Servers of backends have records too, so that "how busy is it" is one number for all workers.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "config/value.h"

#define BOARD_LINE 64
#define BOARD_SLOTS_MAX 256
#define BOARD_CELLS_MAX (2 * BOARD_SLOTS_MAX) /* each slot may have one worker leaving */
#define BOARD_SERVERS_MAX 1024
#define BOARD_NAME_MAX 33 /* name of a backend with its NUL */

/* Life of a child, worker or app instance; DESIGN: STARTING -> READY -> DRAINING -> GONE. */
#define BOARD_STATES(X) X(FREE) X(STARTING) X(READY) X(DRAINING) X(BACKOFF) X(DOWN)
enum board_state {
#define BOARD_STATE_ENUM(name) BOARD_##name,
    BOARD_STATES(BOARD_STATE_ENUM)
#undef BOARD_STATE_ENUM
        BOARD_STATE_COUNT
};
const char *board_state_name(enum board_state state);

/* Counters of one worker: written by that worker alone. X(field, text for status) */
#define BOARD_COUNTERS(X)                                                                          \
    X(accepted, "connections accepted")                                                            \
    X(closed, "connections closed")                                                                \
    X(requests, "requests answered")                                                               \
    X(bytes_in, "bytes read from clients")                                                         \
    X(bytes_out, "bytes written to clients")                                                       \
    X(status_1xx, "")                                                                              \
    X(status_2xx, "")                                                                              \
    X(status_3xx, "")                                                                              \
    X(status_4xx, "")                                                                              \
    X(status_5xx, "")                                                                              \
    X(bad_requests, "requests refused by the parser")                                              \
    X(tunnels, "connections upgraded")                                                             \
    X(upstream_connects, "connections opened to servers")                                          \
    X(upstream_reused, "requests sent on a kept connection")                                       \
    X(upstream_failures, "exchanges that a server broke")

struct board_counters {
#define BOARD_COUNTER_FIELD(name, text) _Atomic uint64_t name;
    BOARD_COUNTERS(BOARD_COUNTER_FIELD)
#undef BOARD_COUNTER_FIELD
};

struct board_worker {
    /* line: written by the master */
    _Alignas(BOARD_LINE) _Atomic uint32_t state; /* enum board_state */
    _Atomic uint32_t pid;
    _Atomic uint32_t slot;
    _Atomic uint32_t generation;
    _Atomic int64_t started_ms; /* clock_mono_ms() */
    /* line: progress, written by the worker. Stamped when the loop starts handling events
     * (ev_check), cleared before it waits (ev_prepare). */
    _Alignas(BOARD_LINE) _Atomic int64_t turn_started_ms; /* 0: waiting for events */
    _Atomic uint64_t settings_serial;                     /* of the settings in use */
    /* lines: written by the worker */
    _Alignas(BOARD_LINE) struct board_counters counters;
    /* Requests this worker has open at each server: what to give back when it dies. */
    _Alignas(BOARD_LINE) _Atomic uint32_t claims[BOARD_SERVERS_MAX];
};

struct board_server {
    /* lines: written by the master; the address before the state becomes READY */
    _Alignas(BOARD_LINE) _Atomic uint32_t state; /* enum board_state */
    _Atomic uint32_t life; /* counts the uses of this record and its address */
    _Atomic uint32_t pid;  /* of an app instance, else 0 */
    uint32_t weight;
    char backend[BOARD_NAME_MAX];
    struct address address;
    /* line: written by all workers */
    _Alignas(BOARD_LINE) _Atomic uint32_t in_flight; /* requests open, over all workers */
    _Atomic uint32_t failures;                       /* connection failures in a row */
    _Atomic int64_t down_until_ms;                   /* not chosen before, unless all are down */
};

struct scoreboard {
    _Alignas(BOARD_LINE) uint64_t magic;
    uint32_t version;
    uint32_t size;
    _Atomic int64_t started_ms;                         /* of the master */
    _Alignas(BOARD_LINE) struct board_counters retired; /* of workers that are gone: the master's */
    struct board_worker workers[BOARD_CELLS_MAX];
    struct board_server servers[BOARD_SERVERS_MAX];
};

/* Creates the memfd and maps it, all zero but the header. Pages are touched on use only. NULL with
 * errno set. *ret_fd is the caller's. Master only. */
struct scoreboard *scoreboard_create(int *ret_fd);

/* Maps a board that another program of narwhal made. NULL with errno set, EPROTO when its layout is
 * another; does not take the descriptor. Master only. */
struct scoreboard *scoreboard_adopt(int fd);

/* Adds without a locked instruction: right because each counter has one writer (an atomic store,
 * so that readers see whole values). */
static inline void
board_count(_Atomic uint64_t *counter, uint64_t more)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + more,
                          memory_order_relaxed);
}

/* Claims one request at a server for a cell: false when slots (0: no limit) are taken. Exact
 * across workers. The claim is noted in the cell first, so that a worker dying in between can only
 * make the master give back one too many, which it clamps. Worker. */
bool board_claim(struct scoreboard *board, uint32_t cell, uint32_t server, uint32_t slots);
/* Gives one claim back. Worker. */
void board_unclaim(struct scoreboard *board, uint32_t cell, uint32_t server);
/* Folds the counters of a dead worker into the retired totals, gives back its claims, frees the
 * cell. Master only, after the process is reaped. */
void board_retire_worker(struct scoreboard *board, uint32_t cell);
/* Sum of a counter over the living and the retired, by its offset in struct board_counters. */
uint64_t board_total(const struct scoreboard *board, size_t counter_offset);
