/* SPDX-License-Identifier: Apache-2.0
 *
 * The resolver process as the master sees it (worker/resolver/resolver.h): one while the settings
 * name servers by name, none else. Its death harms nobody: the last answers stay in use while the
 * next one starts. Runs in the master.
 */
#pragma once

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

#include "master/child.h"
#include "master/respawn.h"

struct answer;
struct master;

struct resolver_child {
    struct child child;
    struct respawn respawn;
    /* of one life */
    int channel_fd; /* owned; -1: it is not listened to */
    ev_io channel;
    bool said_hello;
    ev_timer silence;  /* runs while it is READY, anew from each message */
    uint64_t messages; /* that it sent */
    int64_t window_ms; /* when messages began to be counted */
    uint32_t window_count;
    struct answer *message; /* owned; room for one */
};

void resolver_child_init(struct master *master);
void resolver_child_release(struct master *master);
/* The process there is may no longer say anything, and leaves; another one is started if there are
 * names to ask for. */
void resolver_child_restart(struct master *master);
/* It leaves, and no other one comes. */
void resolver_child_stop(struct master *master);
/* Whether a process is left. */
bool resolver_child_is_left(const struct master *master);
/* Starts one where one is wanted. Idempotent. */
void resolver_child_reconcile(struct master *master);
