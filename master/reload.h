/* SPDX-License-Identifier: Apache-2.0
 *
 * New settings as a transaction: load, check, compare, prepare (whatever can fail), boot
 * the applications of new backends, let one worker try the settings (it may see less of the system
 * than the master), commit; or nothing at all. The first settings go the same way without the two
 * steps that need somebody who serves meanwhile. Runs in the master.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "master/patient_timer.h"

struct config;
struct config_errors;
struct master;
struct prepared;
struct worker_child;

enum reload_state {
    RELOAD_IDLE = 0,
    RELOAD_STARTING, /* prepared; applications of new backends boot */
    RELOAD_TRYING,   /* one worker, the canary, tries them */
    RELOAD_APPLYING  /* committed; workers take it over */
};

/* What came of the try. */
enum canary_verdict {
    CANARY_NONE = 0, /* nothing yet */
    CANARY_APPLIED,
    CANARY_REFUSED,
    CANARY_LOST, /* it died */
    CANARY_LATE  /* it does not answer */
};

struct reload {
    enum reload_state state;
    bool queued;               /* one more after this one */
    uint64_t operation;        /* its number in operations.h */
    uint64_t queued_operation; /* of the one more */
    size_t changes;
    uint64_t last_serial;        /* of settings that were ever sent; none is used twice */
    struct prepared *prepared;   /* owned; STARTING and TRYING */
    struct worker_child *canary; /* TRYING; NULL once there is a verdict */
    unsigned int canaries;       /* workers that were asked */
    enum canary_verdict verdict;
    char *why;                     /* owned; a line for the log when the verdict is not APPLIED */
    struct patient_timer deadline; /* of TRYING and of APPLYING: [master] timeout */
};

void reload_init(struct master *master);
void reload_stop(struct master *master);
/* Uses the first settings (taken over on success): opens logs and addresses, resolves users.
 * 0, or an exit status of sysexits.h with every reason in errors. */
int reload_first(struct master *master, struct config *config, struct config_errors *errors);
/* SIGHUP: starts a reload, or notes that one more is wanted. Ends a pause in any case. Returns the
 * number of the operation, which may have ended already; 0: narwhal is stopping. */
uint64_t reload_request(struct master *master);
/* Takes a reload one state further when its workers have answered; starts a queued one. */
void reload_reconcile(struct master *master);
/* A worker applied the settings with this serial (why is NULL) or refused them. Returns whether it
 * was asked to try them. */
bool reload_on_answer(struct master *master, const struct worker_child *worker, uint64_t serial,
                      const char *why);
/* The process of a worker ended. */
void reload_on_worker_gone(struct master *master, const struct worker_child *worker);
