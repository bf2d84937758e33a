/* SPDX-License-Identifier: Apache-2.0
 *
 * SIGUSR2: this process becomes a newer program. Its file is tried first, in a child that reads the
 * state and the settings and touches nothing; only then the master executes it, and the kernel
 * keeps what makes narwhal: the pid, the children, the open sockets. takeover.h is the other end.
 * Runs in the master; upgrade_check_main() is the child that tries.
 */
#pragma once

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

struct config_args;
struct master;
struct upgrade_check;

enum upgrade_state {
    UPGRADE_IDLE = 0,
    UPGRADE_WAITING,  /* for the end of a reload */
    UPGRADE_CHECKING, /* a child tries the new program */
    UPGRADE_CHECKED,  /* it can take over; a reload that began meanwhile comes first */
    UPGRADE_LEAVING   /* signals are blocked; what they did until now is being handled */
};

struct upgrade {
    enum upgrade_state state;
    uint64_t operation;          /* its number in operations.h */
    char *program;               /* owned; the path to execute */
    struct upgrade_check *check; /* owned; CHECKING */
    ev_timer turn;               /* LEAVING: the loop went round once */
    int64_t clients_until_ms;    /* 0: control clients are welcome */
    bool turned;
};

/* The first argument after the program: the child that tries. Not for people. */
#define UPGRADE_CHECK_FLAG "--check-upgrade"

/* Remembers where the program is: to be called while the folder and PATH are those of the start. */
void upgrade_init(struct master *master);
void upgrade_release(struct master *master);
/* SIGUSR2. Returns the number of the operation, or 0 when it is refused, which is told in the log
 * and, as a static text, in *ret_why. */
uint64_t upgrade_request(struct master *master, const char **ret_why);
/* Takes an upgrade further when nothing stands in its way. Does not return from the last step. */
void upgrade_reconcile(struct master *master);
/* narwhal is to stop: no upgrade any more. */
void upgrade_cancel(struct master *master);

/* main() of the child that tries: the state in the descriptor that text names, the settings of
 * args. The exit status: 0 when this program can take over. */
int upgrade_check_main(const char *text, const struct config_args *args);
