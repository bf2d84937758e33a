/* SPDX-License-Identifier: Apache-2.0
 *
 * One child process, worker or app instance: its states, its deadlines, its end. What the two do
 * differently is behind child_ops. Runs in the master.
 */
#pragma once

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "config/base/list.h"
#include "master/patient_timer.h"
#include "master/respawn.h"
#include "worker/scoreboard.h"

struct master;
struct child;

/* state, what the scoreboard shows, deadline: what ends the state when it takes too long. */
#define CHILD_STATES(X)                                                                            \
    X(GONE, FREE)         /* no process, none wanted */                                            \
    X(STARTING, STARTING) /* boot_timeout: SIGKILL */                                              \
    X(READY, READY)       /* none */                                                               \
    X(DRAINING, DRAINING) /* graceful_timeout: SIGKILL */                                          \
    X(ABORTED, DRAINING)  /* CHILD_ABORT_MS after SIGABRT or a suspicion: SIGKILL */               \
    X(KILLED, DRAINING)   /* CHILD_KILL_MS after SIGKILL: said in the log, sent again */           \
    X(BACKOFF, BACKOFF)   /* the pause before the next life: start */

enum child_state {
#define CHILD_STATE_ENUM(name, board) CHILD_##name,
    CHILD_STATES(CHILD_STATE_ENUM)
#undef CHILD_STATE_ENUM
        CHILD_STATE_COUNT
};

#define CHILD_NO_DEADLINE (-1)
#define CHILD_ABORT_MS 1000
#define CHILD_KILL_MS 5000
#define CHILD_NAME_MAX 64

struct child_death {
    pid_t pid;
    int status; /* of waitpid() */
    int64_t uptime_ms;
    int64_t ready_ms;           /* how long it had been READY; 0: never */
    enum child_state before;    /* the state that death met */
    const char *ours;           /* why the master killed it, or NULL */
    struct board_death *record; /* with all that is known of any child; to be completed */
};

struct child_ops {
    /* The state changed: show it. */
    void (*on_state)(struct child *child);
    /* The process is reaped. Decides about the next life, or frees the child. */
    void (*on_death)(struct child *child, const struct child_death *death);
    /* The pause of BACKOFF is over. */
    void (*on_start)(struct child *child);
};

struct child {
    /* configuration fields */
    struct master *master;
    const struct child_ops *ops;
    char name[CHILD_NAME_MAX]; /* "worker slot=2", "instance api/0": begins its log lines */
    bool leads_group;          /* signals go to its process group */
    const char *boot_setting;  /* what to say when boot takes too long */
    /* runtime fields */
    enum child_state state;
    pid_t pid;    /* 0: no process */
    bool stopped; /* by SIGSTOP and the like; not yet continued */
    int64_t started_ms;
    int64_t ready_since_ms; /* 0: not READY in this life */
    const char *ours;       /* static text: why we killed it */
    const char *suspicion;  /* static text: why it is killed when ABORTED ends, if it is not dead */
    struct patient_timer deadline;
    struct list_node node; /* in master.children */
};

const char *child_state_name(enum child_state state);
enum board_state child_board_state(enum child_state state);

void child_init(struct child *child, struct master *master, const struct child_ops *ops);
/* Stops the timer and takes the child off the master's list; it must have no process. */
void child_release(struct child *child);

/* The only writer of state. deadline_ms from now, or CHILD_NO_DEADLINE. */
void child_set_state(struct child *child, enum child_state state, int64_t deadline_ms);
/* A process was started: STARTING. */
void child_born(struct child *child, pid_t pid, int64_t boot_timeout_ms);
/* A child of a predecessor, as it was: pid 0 is in GONE or BACKOFF. texts are static. deadline_ms
 * is on the monotonic clock, CHILD_NO_DEADLINE: none. */
struct child_memory {
    enum child_state state;
    pid_t pid;
    int64_t started_ms;
    int64_t ready_since_ms;
    const char *ours;
    const char *suspicion;
    int64_t deadline_ms;
    bool stopped;
};
void child_remember(const struct child *child, struct child_memory *ret_memory);
void child_restore(struct child *child, const struct child_memory *memory);
/* Sends a signal to the process, or to its group. */
void child_signal(struct child *child, int signal_number);
/* SIGKILL, and KILLED; why is a static text. */
void child_kill(struct child *child, const char *why);
/* SIGABRT, and ABORTED: a core or a stack before the end. */
void child_abort(struct child *child, const char *why);

/* It cannot be managed any more; it is most likely dying, and is killed if it is not. */
void child_suspect(struct child *child, const char *why);

/* Why a process could not be started, as the end of a sentence: which limit it was; "" when there
 * is nothing to say beyond strerror(). */
const char *child_start_hint(int error_number);

/* It was asked to leave and left: not a death. An application may exit with any status, or let
 * SIGTERM end it. */
bool child_departed(const struct child_death *death);

/* Its process ended, or (NULL) could not be started: when the next one begins. */
struct respawn_verdict child_next_life(struct respawn *history, const struct child_death *death);
/* Tells that no process could be started, and why: BACKOFF. */
void child_start_failed(struct child *child, struct respawn *history, const char *why);
/* Tells the end of one that was asked to leave; with a record of it when it was a death. */
void child_tell_departure(const struct child *child, const struct child_death *death);

/* The child that has this process now, not yet reaped; NULL: a stranger. pid is not 0. */
struct child *child_by_pid(struct master *master, pid_t pid);
/* Reaps every process that ended; strangers too, as PID 1 must. */
void child_reap_all(struct master *master);

/* Notes which children were stopped and which were continued. Returns whether there was one. */
bool child_note_stops(struct master *master);

/* "exit=3", "signal=SIGKILL", "signal=SIGSEGV core=yes". */
#define CHILD_DEATH_TEXT_MAX 64
void child_describe_status(int status, char ret_text[CHILD_DEATH_TEXT_MAX]);
