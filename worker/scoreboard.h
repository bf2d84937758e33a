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

#include "config/base/str.h"
#include "config/value.h"

#define BOARD_LINE 64
#define BOARD_SLOTS_MAX 256
#define BOARD_CELLS_MAX (2 * BOARD_SLOTS_MAX) /* each slot may have one worker leaving */
#define BOARD_SERVERS_MAX 1024
#define BOARD_QUEUES_MAX 1024            /* each backend has a record and a queue */
#define BOARD_QUEUE_PLACES (16u * 1024u) /* a power of two; more than may wait in one queue */
#define BOARD_NAME_MAX 33                /* name of a backend with its NUL */
#define BOARD_REQUEST_MAX 192
#define BOARD_DEATHS_MAX 64
#define BOARD_WAKE_NAME 8

/* Life of a child, worker or app instance; DESIGN: STARTING -> READY -> DRAINING -> GONE. */
#define BOARD_STATES(X) X(FREE) X(STARTING) X(READY) X(DRAINING) X(BACKOFF) X(DOWN)
enum board_state {
#define BOARD_STATE_ENUM(name) BOARD_##name,
    BOARD_STATES(BOARD_STATE_ENUM)
#undef BOARD_STATE_ENUM
        BOARD_STATE_COUNT
};
const char *board_state_name(enum board_state state);

/* What the operator wants of a server (narwhalctl server). */
#define BOARD_WISHES(X) X(ENABLED) X(DRAINED) X(DISABLED)
enum board_wish {
#define BOARD_WISH_ENUM(name) BOARD_WISH_##name,
    BOARD_WISHES(BOARD_WISH_ENUM)
#undef BOARD_WISH_ENUM
        BOARD_WISH_COUNT
};
const char *board_wish_name(enum board_wish wish);

/* What asking for health_path has found out about a server. */
#define BOARD_FINDINGS(X) X(UNKNOWN) X(UP) X(DOWN)
enum board_finding {
#define BOARD_FINDING_ENUM(name) BOARD_FOUND_##name,
    BOARD_FINDINGS(BOARD_FINDING_ENUM)
#undef BOARD_FINDING_ENUM
        BOARD_FINDING_COUNT
};
const char *board_finding_name(enum board_finding finding);

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
    X(tunnels_ended, "upgraded connections that ended")                                            \
    X(upstream_connects, "connections opened to servers")                                          \
    X(upstream_reused, "requests sent on a kept connection")                                       \
    X(upstream_failures, "exchanges that a server broke")                                          \
    X(sandbox_refused, "system calls that the sandbox refused")

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
    _Atomic uint64_t busy_us;                             /* in turns of the loop that ended */
    unsigned char wake_name[BOARD_WAKE_NAME]; /* where it is woken, see wake.h; written at birth */
    _Atomic uint32_t sandbox;                 /* sandbox_pack(); written when it is READY */
    /* lines: what the worker does, written by it when it begins to answer a request and kept until
     * the next one begins: "GET /path". See board_note_request() and board_copy_request(). */
    _Alignas(BOARD_LINE) _Atomic int64_t request_began_ms; /* clock_mono_ms(); 0: none yet */
    char request[BOARD_REQUEST_MAX - sizeof(int64_t)];
    /* lines: written by the worker */
    _Alignas(BOARD_LINE) struct board_counters counters;
    /* Requests this worker has open at each server: what to give back when it dies. A word counts
     * its own changes as well, see claims_begin(). */
    _Alignas(BOARD_LINE) _Atomic uint64_t claims[BOARD_SERVERS_MAX];
    /* The idle connections to each that it keeps. */
    _Alignas(BOARD_LINE) _Atomic uint32_t idle[BOARD_SERVERS_MAX];
};

struct board_server {
    /* line: all that a choice looks at, so that it costs one line for each server. What the master
     * writes here changes with settings and lives only, the rest with every request. */
    _Alignas(BOARD_LINE) _Atomic uint32_t in_flight; /* requests open, over all workers */
    _Atomic uint32_t state;                          /* the master: enum board_state */
    _Atomic uint32_t slots;        /* the master: most that may be open; 0: no limit */
    _Atomic uint32_t weight;       /* the master */
    _Atomic uint32_t is_backup;    /* the master: chosen when no other can be */
    _Atomic uint32_t wish;         /* the master: enum board_wish */
    _Atomic uint32_t finding;      /* enum board_finding; see proxy/health.h */
    _Atomic int64_t down_until_ms; /* 0, or when its rest ends or ended */
    _Atomic int64_t full_until_ms; /* its accept queue had no room (unix(7), EAGAIN) */
    _Atomic uint64_t requests;     /* claims ever made, over all its lives */
    _Atomic uint64_t identity;     /* the master: a hash of what it is, for BALANCE_HASH */
    /* lines: written by the master; the address before the state becomes READY */
    _Alignas(BOARD_LINE) _Atomic uint32_t life; /* counts the uses of this record and its address */
    _Atomic uint32_t pid;                       /* of an app instance, else 0 */
    uint32_t queue;                             /* of its backend */
    char backend[BOARD_NAME_MAX];
    struct address address;
    /* line: idle connections, written by all workers */
    _Alignas(BOARD_LINE) _Atomic uint32_t idle; /* kept, over all workers */
    _Atomic int64_t closes_after_us; /* idle time at which it closes them, as learned; 0: unknown */
    /* line: the rest of its health, written by workers when it changes; see proxy/health.h. */
    _Alignas(BOARD_LINE) struct board_health {
        _Atomic uint32_t failures;    /* connection failures in a row */
        _Atomic uint32_t errors;      /* 5xx in a row */
        _Atomic int64_t up_since_ms;  /* when it returned: slow_start counts from it; 0: never */
        _Atomic uint32_t against;     /* probes in a row that speak against the finding */
        _Atomic int64_t probe_due_ms; /* the lease: who moves it on sends the next probe */
    } health;
};

/* Where the requests of one backend wait for a slot, over all workers; see slot_queue.h. */
struct board_queue {
    /* line: written by the master */
    _Alignas(BOARD_LINE) char backend[BOARD_NAME_MAX]; /* "": free */
    /* lines: written by whoever moves them on; head: all before it have left; tail: free from it */
    _Alignas(BOARD_LINE) _Atomic uint64_t head;
    _Alignas(BOARD_LINE) _Atomic uint64_t tail;
    /* lines: how many wait for each cell; written by its worker */
    _Alignas(BOARD_LINE) _Atomic uint32_t waiting[BOARD_CELLS_MAX];
    _Alignas(BOARD_LINE) _Atomic uint64_t place[BOARD_QUEUE_PLACES];
};

/* What is remembered of a dead child, worker or app instance; master/deaths.h fills and shows it.
 */
struct board_death {
    _Alignas(BOARD_LINE) int64_t when_real_ms;
    int64_t uptime_ms;
    int64_t ready_ms; /* how long it had been READY */
    int64_t cpu_user_ms;
    int64_t cpu_system_ms;
    int64_t maxrss_kib;
    int64_t switches_voluntary;
    int64_t switches_involuntary;
    int64_t request_age_ms; /* of request */
    uint64_t generation;
    uint32_t pid;
    uint32_t slot;
    int32_t status;    /* of wait(2) */
    uint32_t cause;    /* enum death_cause */
    uint32_t oom_kill; /* 1: the kernel counted an OOM kill in our cgroup since the last look */
    uint32_t deaths;   /* in this row, this one included; see respawn.h */
    uint8_t was_ready; /* no bool: another byte than 0 and 1 may stand here */
    char name[64];
    char reason[64];                 /* why narwhal killed it; "" else */
    char request[BOARD_REQUEST_MAX]; /* the last one that a worker began to answer; "" else */
    char words[256];                 /* the last line of an instance; "" else */
};

struct scoreboard {
    _Alignas(BOARD_LINE) uint64_t magic;
    uint32_t version;
    uint32_t size;
    _Atomic int64_t started_ms;                         /* of the master */
    _Atomic uint32_t queue_count;                       /* the master: queues that were ever used */
    _Alignas(BOARD_LINE) struct board_counters retired; /* of workers that are gone: the master's */
    struct board_worker workers[BOARD_CELLS_MAX];
    struct board_server servers[BOARD_SERVERS_MAX];
    struct board_queue queues[BOARD_QUEUES_MAX];
    uint64_t recount_due[BOARD_SERVERS_MAX / 64]; /* the master's alone: a bit each */
    /* A ring, the master's alone: the newest is before death_next. */
    _Alignas(BOARD_LINE) uint32_t death_next;
    uint32_t death_count;
    struct board_death deaths[BOARD_DEATHS_MAX];
};

/* Creates the memfd and maps it, all zero but the header. Pages are touched on use only. NULL with
 * errno set. *ret_fd is the caller's. Master only. */
struct scoreboard *scoreboard_create(int *ret_fd);

/* Maps a board that another program of narwhal made. NULL with errno set, EPROTO when its layout is
 * another; does not take the descriptor. Master only. */
struct scoreboard *scoreboard_adopt(int fd);

/* The master shares the board with workers, of which one may be taken over: what it takes from
 * there as an index or as a text goes through these. */
static inline struct board_queue *
board_queue_of(struct scoreboard *board, uint32_t server)
{
    return &board->queues[board->servers[server].queue % BOARD_QUEUES_MAX];
}

static inline uint32_t
board_queue_count(const struct scoreboard *board)
{
    uint32_t count = atomic_load_explicit(&board->queue_count, memory_order_relaxed);

    return count < BOARD_QUEUES_MAX ? count : BOARD_QUEUES_MAX;
}

/* Of both size bytes; what is copied has an end. */
static inline void
board_copy_text(const char *text, char *ret_text, size_t size)
{
    memcpy(ret_text, text, size - 1);
    ret_text[size - 1] = '\0';
}

/* Adds without a locked instruction: right because each counter has one writer (an atomic store,
 * so that readers see whole values). */
static inline void
board_count(_Atomic uint64_t *counter, uint64_t more)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + more,
                          memory_order_relaxed);
}

/* Notes what the worker answers from now on: no allocation, a bounded copy. path without the query,
 * which may hold secrets. Worker. */
static inline void
board_note_request(struct board_worker *me, struct str method, struct str path, int64_t now_ms)
{
    size_t room = sizeof(me->request) - 2; /* for the blank and the NUL */
    size_t method_length = method.len < room ? method.len : room;
    size_t path_length = path.len < room - method_length ? path.len : room - method_length;

    memcpy(me->request, method.ptr, method_length);
    me->request[method_length] = ' ';
    memcpy(me->request + method_length + 1, path.ptr, path_length);
    me->request[method_length + 1 + path_length] = '\0';
    atomic_store_explicit(&me->request_began_ms, now_ms, memory_order_relaxed);
}
/* Copies the note, with '?' for whatever could disturb a log; returns when that request began on
 * the monotonic clock, 0 and "" when there was none. The note of a worker that runs may be half of
 * one request and half of the next; one that stands still or is dead has a whole one. */
int64_t board_copy_request(const struct board_worker *worker, char ret_text[BOARD_REQUEST_MAX]);

/* ---- claims ----------------------------------------------------------------------------------
 *
 * in_flight of a server is the sum of what the cells claim and of what the queue has handed out.
 * Changing both takes two stores, and a worker may be killed between them. So it marks its word
 * before the first and unmarks it with the second: a word found unmarked tells exactly what the
 * dead had, and a marked one makes the master count anew what the server has. */
#define CLAIMS_MARK (UINT64_C(1) << 31)
#define CLAIMS_COUNT (CLAIMS_MARK - 1)

/* Marks the word of a cell; returns it as it was. In its worker. */
static inline uint64_t
claims_begin(_Atomic uint64_t *word)
{
    uint64_t was = atomic_load_explicit(word, memory_order_relaxed);

    atomic_store_explicit(word, was | CLAIMS_MARK, memory_order_relaxed);
    atomic_thread_fence(memory_order_release); /* before the exchange that this is about */
    return was;
}

/* Unmarks it with more claims than before, and counts the change in the upper half. */
static inline void
claims_end(_Atomic uint64_t *word, uint64_t was, int more)
{
    uint64_t count = (was & CLAIMS_COUNT) + (uint64_t)(int64_t)more;

    atomic_store_explicit(word, (((was >> 32) + 1) << 32) | count, memory_order_release);
}

/* Claims one request at a server for a cell: false when slots (0: no limit) are taken. Exact
 * across workers. Worker. */
bool board_claim(struct scoreboard *board, uint32_t cell, uint32_t server, uint32_t slots);
/* Gives one claim back. Worker. */
void board_unclaim(struct scoreboard *board, uint32_t cell, uint32_t server);
/* The same for an idle connection that a worker wants to keep: false when max are kept already. */
bool board_idle_claim(struct scoreboard *board, uint32_t cell, uint32_t server, uint32_t max);
void board_idle_unclaim(struct scoreboard *board, uint32_t cell, uint32_t server);
/* Forgets what was learned of a server's health and connections: its record stands for another
 * one. Master. */
void board_forget_health(struct board_server *server);
/* Folds the counters of a dead worker into the retired totals, takes its requests out of the
 * queues, gives back its claims and what it had been handed there, frees the cell. Master only,
 * after the process is reaped. Whoever waits is to be served then: slot_queue_serve(). */
void board_retire_worker(struct scoreboard *board, uint32_t cell);
/* Counts anew what servers have whose claims were just changing when a worker died. Some may be
 * left to be counted, because others kept changing theirs. Master only. */
void board_recount(struct scoreboard *board);
bool board_is_recount_due(const struct scoreboard *board);
/* Sum of a counter over the living and the retired, by its offset in struct board_counters. */
uint64_t board_total(const struct scoreboard *board, size_t counter_offset);
