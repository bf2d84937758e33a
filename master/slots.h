/* SPDX-License-Identifier: Apache-2.0
 *
 * Worker slots: the stable numbers 0 … N-1, each with one serving worker and, while it is being
 * replaced, its successor and those that still finish their requests. Decides who is started,
 * drained and given which lane. Runs in the master.
 */
#pragma once

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

#include "config/base/list.h"
#include "master/recycle.h"
#include "master/respawn.h"
#include "worker/scoreboard.h"

struct master;
struct worker_child;

struct slot {
    uint32_t number;
    uint32_t generation;          /* counts its processes */
    struct worker_child *serving; /* owned; STARTING, READY, BACKOFF; NULL: none wanted */
    struct worker_child *next;    /* owned; STARTING: will serve when READY */
    struct list_node leaving;     /* of struct worker_child, owned */
    struct respawn respawn;
    uint32_t failed_successors; /* in a row */
    struct recycle_history recycle;
    bool retired_first; /* by a reload: its worker went before a new one was there */
};

enum roll_result { ROLL_RUNNING = 0, ROLL_DONE, ROLL_FAILED };

struct slot_set {
    struct slot slots[BOARD_SLOTS_MAX];
    uint32_t epoch;      /* workers of an older one are replaced: roll_plan.h */
    bool roll_failed;    /* a new worker could not boot: the old ones go on */
    ev_timer first_boot; /* runs while a lane waits for the first boot of its own worker */
    bool lanes_short;    /* not every slot could get lanes: told once */
};

void slots_init(struct master *master);
/* Starts, drains and replaces workers, and hands out lanes. Idempotent. */
void slots_reconcile(struct master *master);
/* Every worker is to be replaced, within the budget of max_surge and max_unavailable. */
void slots_roll(struct master *master);
enum roll_result slots_roll_state(const struct master *master);

/* Sends the settings in use to every worker that has older ones. */
void slots_send_settings(struct master *master);
/* Sends the open logs to every worker. */
void slots_send_logs(struct master *master);
/* Starts the workers that wait for their next try at once: what they died of may be corrected. */
void slots_retry(struct master *master);
/* A worker that serves and was started with all that only a start can change, or NULL. */
struct worker_child *slots_canary(const struct master *master);
/* Whether every worker that serves has the settings in use, or has refused them: those are
 * replaced, see slots_roll_state(). */
bool slots_settings_applied(const struct master *master);
/* Replaces the workers that serve and have not taken the settings in use over. */
void slots_replace_unapplied(struct master *master);
/* The oldest settings that any living worker uses. */
uint64_t slots_oldest_serial(const struct master *master);

/* The operator wants the worker of a slot replaced, within the budget of max_surge and
 * max_unavailable: by a successor, or before one is there. 0, or a negative errno with a whole
 * sentence in error. */
struct buf;
int slots_drain(struct master *master, int64_t number, struct buf *error);
/* Workers that a roll has still to replace. */
uint32_t slots_outdated_count(const struct master *master);
uint32_t slots_ready_count(const struct master *master);
/* Whether any worker process is left. */
bool slots_any_left(const struct master *master);
/* The address is no longer wanted: workers take what is queued and let go. */
struct listen_address;
void slots_revoke_address(struct master *master, struct listen_address *address);
/* Tells all workers to leave, gracefully or not. */
void slots_stop(struct master *master, bool quick);
/* Frees what is left at the end. */
void slots_release(struct master *master);

/* Callbacks of worker_child.c: its worker became READY, died, … */
void slot_on_ready(struct master *master, struct worker_child *worker);
void slot_on_gone(struct master *master, struct worker_child *worker);
/* It serves and cannot use the settings in use: a successor takes its place, if one can boot. */
void slot_on_refused(struct master *master, struct worker_child *worker);
