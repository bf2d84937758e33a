/* SPDX-License-Identifier: Apache-2.0
 *
 * The other end of an upgrade: this program was executed by another one in the same process, which
 * left its state in a descriptor (handover.h). Until the master stands, the way back is open: the
 * old program is executed again and goes on. Runs in the master, from main() on.
 */
#pragma once

#include <stdbool.h>

#include "master/state.h"

struct config;
struct config_args;
struct master;

/* NAME=number of the descriptor, in the environment of the exec alone. */
#define TAKEOVER_VARIABLE "NARWHAL_STATE_FD"
/* The same, of a program that gets its own state back. */
#define TAKEOVER_BACK_VARIABLE "NARWHAL_STATE_BACK_FD"

struct takeover {
    int state_fd;  /* -1: this is no takeover */
    bool returned; /* the new program could not; this is the old one again */
    bool new_board;
    bool settings_changed; /* since they were read last: a reload comes next */
    struct state state;
};

/* Looks for a state in the environment and takes the variable out of it; every descriptor of the
 * state is closed on exec from then on. 0, with or without a state; else an exit status of
 * sysexits.h, told on stderr. Call before anything is opened. */
int takeover_receive(struct takeover *ret_takeover);
/* The settings to go on with: those of now, or those in use when they have changed or are broken.
 * NULL, told in the log, when there are none. */
struct config *takeover_settings(struct takeover *takeover, const struct config_args *args);
/* Makes the scoreboard of the master that of its predecessor, or a new one. 0 or a negative errno.
 */
int takeover_board(struct takeover *takeover, struct master *master);
/* Fills a master that has a loop and a board, before its first settings. 0, or a negative errno,
 * told in the log. */
int takeover_restore(struct takeover *takeover, struct master *master);
/* The master stands: there is no way back any more. */
void takeover_finish(struct takeover *takeover, struct master *master);
/* Executes a program with the state; NULL: the one that made the state, which gets it back. Returns
 * only when that fails: a negative errno, and nothing has changed. */
int takeover_execute(const struct state *state, int state_fd, const char *program,
                     const struct config_args *args);
/* Executes the old program again. Returns only when there is none or it cannot be executed. */
void takeover_give_back(struct takeover *takeover, const struct config_args *args);
