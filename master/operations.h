/* SPDX-License-Identifier: Apache-2.0
 *
 * What the operator ordered and takes longer than an answer: reload, restart, scale, drain,
 * upgrade. Each gets a number, by which `narwhalctl --wait` asks what came of it, also after an
 * upgrade has exchanged the program. Only watches: slots.c, apps.c, reload.c and upgrade.c act.
 * Runs in the master.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct buf;
struct master;
struct state;

/* X(name, word in answers and events) */
#define OPERATION_KINDS(X)                                                                         \
    X(RELOAD, "reload")                                                                            \
    X(RESTART, "restart") /* of a backend's instances */                                           \
    X(SCALE, "scale")     /* of the number of workers */                                           \
    X(DRAIN, "drain")     /* of a worker slot */                                                   \
    X(UPGRADE, "upgrade")

enum operation_kind {
#define OPERATION_KIND_ENUM(name, word) OPERATION_##name,
    OPERATION_KINDS(OPERATION_KIND_ENUM)
#undef OPERATION_KIND_ENUM
        OPERATION_KIND_COUNT
};

enum operation_state {
    OPERATION_FREE = 0,
    OPERATION_RUNNING,
    OPERATION_DONE,
    OPERATION_FAILED,
    OPERATION_STATE_COUNT
};

/* How many are remembered: the oldest gives way, one that ended before one that runs. */
#define OPERATIONS_MAX 64
#define OPERATION_SUBJECT_MAX 64

struct operation {
    uint64_t number;
    enum operation_kind kind;
    enum operation_state state;
    char subject[OPERATION_SUBJECT_MAX]; /* RESTART: the backend; "" else */
    int64_t target;   /* SCALE: workers; DRAIN: the slot; RELOAD: the settings, once in use */
    int64_t mark;     /* RESTART: the generation wanted; DRAIN: pid of the worker that leaves;
                         RELOAD: what changed in the settings */
    int64_t failures; /* DRAIN: successors that had failed when it began */
    int64_t began_ms;
    int64_t ended_ms;
    char *text; /* owned; what came of it; NULL while it runs */
};

struct operations {
    uint64_t last; /* number */
    struct operation ring[OPERATIONS_MAX];
};

/* A new one that runs; the fields behind subject are the caller's to set before the loop comes
 * round. subject may be "". Valid until the next one begins. */
struct operation *operation_begin(struct master *master, enum operation_kind kind,
                                  const char *subject);
/* The operation ended; text is copied, one line for each thing to say. Nothing happens when it is
 * not running any more. */
void operation_end(struct master *master, uint64_t number, enum operation_state state,
                   const char *text);
/* The settings of a reload are in use by the workers; it ends when the instances are replaced. */
void operation_note_settings(struct master *master, uint64_t number, uint64_t serial,
                             size_t changes);
/* The upgrade came to nothing after the exec. */
void operations_fail_upgrade(struct master *master, const char *text);
/* narwhal is to stop. */
void operations_cancel(struct master *master);
/* Ends those whose aim is reached, or cannot be reached. Idempotent. */
void operations_reconcile(struct master *master);
/* NULL: not known, or not any more. */
const struct operation *operation_find(const struct master *master, uint64_t number);
/* As JSON, with how far it is. */
void operation_print(struct master *master, const struct operation *operation, struct buf *out);
const char *operation_kind_name(enum operation_kind kind);
const char *operation_state_name(enum operation_state state);

void operations_release(struct master *master);
/* Over an upgrade. */
void operations_fill(const struct master *master, struct state *state);
void operations_restore(const struct state *state, struct master *master);
