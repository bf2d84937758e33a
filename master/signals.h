/* SPDX-License-Identifier: Apache-2.0
 *
 * Signals to the master: one ev_signal watcher for each row of signals.def. A handler of libev only
 * pokes the loop; what happens, happens as an event of it. SIGPIPE is ignored. Runs in the master.
 */
#pragma once

#include <ev.h>
#include <stddef.h>
#include <stdint.h>

struct master;

enum {
#define SIGNAL(name, action, documentation) SIGNAL_ROW_##name,
#include "master/signals.def"
    SIGNAL_ROW_COUNT
};

struct signal_row {
    int number;
    const char *name; /* "SIGHUP" */
    void (*act)(struct master *master);
    const char *documentation;
};

extern const struct signal_row signal_rows[SIGNAL_ROW_COUNT];

struct signal_watchers {
    ev_signal item[SIGNAL_ROW_COUNT];
};

void signals_start(struct master *master);
void signals_stop(struct master *master);

/* Blocks all signals, until each call has had its signals_unblock(): from the start of main() until
 * signals_start(), because a signal at any moment of the start is an order and not a death; and
 * around fork(), so that none arrives in a child before signals_reset_in_child(). */
void signals_block(void);
void signals_unblock(void);
/* In a child, signals blocked: takes the watchers out of libev's tables (they are per process, so
 * that a loop of the child's own may watch the same signals), gives every signal but those of a
 * fault its default action and unblocks them. Does not touch the master's epoll descriptor. */
void signals_reset_in_child(struct master *master);
