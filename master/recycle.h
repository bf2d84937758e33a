/* SPDX-License-Identifier: Apache-2.0
 *
 * Recycling: when the life of a worker or an app instance is over although nothing is wrong, by
 * max_requests, max_lifetime or max_memory. Decides who is due, and when it is tried again after a
 * successor failed or did not help; slots.c and apps.c replace. Runs in the master.
 *
 * Invariant: the timer runs only while a setting needs looks or a pause waits for its end.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "master/lazy_timer.h"

struct backend_settings;
struct child;
struct master;
struct master_settings;

#define RECYCLE_LOOK_MS 1000
/* Looks in a row that must find too much memory: one peak is not a reason. */
#define RECYCLE_MEMORY_LOOKS 3
/* The pause after a successor that failed, or that had too much memory from the start: doubling. */
#define RECYCLE_FIRST_PAUSE_MS 1000
#define RECYCLE_LONGEST_PAUSE_MS (10 * 60 * 1000)

struct recycle_limits {
    const char *section; /* "[master]": for the log */
    int64_t max_requests;
    int64_t max_requests_jitter;
    int64_t max_lifetime_ms;
    int64_t max_lifetime_jitter_ms;
    int64_t max_memory_bytes;
};

/* Of one life of a process. */
struct recycle_life {
    uint32_t random;     /* its own part of each jitter */
    const char *reason;  /* static text: why it is due; NULL: it is not */
    uint64_t order;      /* when it became due, against others; not 0 once due */
    uint64_t requests;   /* the counter of its record when it was born */
    uint32_t looks;      /* at its memory */
    uint32_t looks_over; /* the last of them that found too much, in a row */
};

/* Of a slot, over the lives in it. */
struct recycle_history {
    uint32_t failed;  /* successors in a row that did not become READY */
    uint32_t useless; /* lives in a row that had too much memory from the start */
    int64_t pause_until_ms;
};

struct recycle {
    struct lazy_timer timer;
    uint64_t last_order;
    bool told_inexact; /* that the PSS cannot be read */
    bool waits;        /* somebody who is due waits for the end of a pause */
};

void recycle_init(struct master *master);
void recycle_stop(struct master *master);
/* Starts or stops the timer as the settings in use need it. Idempotent. */
void recycle_reconcile(struct master *master);
/* Looks, if it is time. */
void recycle_look(struct master *master);

/* A new life begins. requests: see struct recycle_life. */
void recycle_life_begin(struct recycle_life *life, uint64_t requests);
/* The process is due, if it is not yet. reason is a static text. */
void recycle_mark(struct master *master, const struct child *child, struct recycle_life *life,
                  const char *reason);
/* 0: not due, or not before a pause is over; otherwise its place among those that are due. */
uint64_t recycle_due(struct master *master, const struct recycle_life *life,
                     const struct recycle_history *history);

/* A successor became READY, or did not; the latter says when it is tried again. */
void recycle_succeeded(struct recycle_history *history);
void recycle_failed(struct master *master, const struct child *old, const struct recycle_life *life,
                    struct recycle_history *history);

/* ---- pure, for tests ------------------------------------------------------------------------- */

/* 1 s, doubling: the pause after that many in a row (1, 2, …). */
int64_t recycle_pause_ms(uint32_t in_a_row);
/* The setting that a life has reached, or NULL. requests are those of this life. */
const char *recycle_reached(const struct recycle_limits *limits, const struct recycle_life *life,
                            int64_t lived_ms, uint64_t requests);
/* Takes a look at the memory into account; true: it is due. */
bool recycle_memory_over(struct recycle_life *life, int64_t bytes, int64_t limit_bytes);
struct recycle_limits recycle_limits_of_workers(const struct master_settings *settings);
struct recycle_limits recycle_limits_of_instances(const struct backend_settings *settings);
