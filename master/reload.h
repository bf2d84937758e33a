/* SPDX-License-Identifier: Apache-2.0
 *
 * New settings as a transaction: load, check, compare, prepare (whatever can fail), commit; or
 * nothing at all. The first settings go the same way. Runs in the master.
 */
#pragma once

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct config;
struct config_errors;
struct master;

enum reload_state { RELOAD_IDLE = 0, RELOAD_APPLYING /* committed; workers take it over */ };

struct reload {
    enum reload_state state;
    bool queued; /* one more after this one */
    size_t changes;
    bool rolls_workers;
    ev_timer deadline; /* of APPLYING: [master] timeout */
};

void reload_init(struct master *master);
void reload_stop(struct master *master);
/* Uses the first settings (taken over on success): opens logs and addresses, resolves users.
 * 0, or an exit status of sysexits.h with every reason in errors. */
int reload_first(struct master *master, struct config *config, struct config_errors *errors);
/* SIGHUP: starts a reload, or notes that one more is wanted. */
void reload_request(struct master *master);
/* Finishes a reload that every worker has applied; starts a queued one. */
void reload_reconcile(struct master *master);
