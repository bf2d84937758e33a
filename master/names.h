/* SPDX-License-Identifier: Apache-2.0
 *
 * Servers that are given by name: which names there are, what the resolver last said of each, and
 * how that becomes servers on the scoreboard. The settings stay as they are when addresses change:
 * each name has records of its own (server_registry.h), which are filled, drained and emptied while
 * workers look, as those of application instances are. Runs in the master.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/value.h"

struct answer;
struct config;
struct master;

struct name {
    struct address address; /* ADDRESS_NAME or ADDRESS_SRV */
    struct answer *last;    /* owned; ANSWER_ADDRESSES, the last good one; NULL: none yet */
    bool is_failing;        /* told */
    uint32_t left_out;      /* addresses without a place, as it was told */
};

struct names {
    size_t count;
    struct name *item;         /* owned */
    struct address *questions; /* owned; the same, as the resolver gets them */
};

/* The settings in use have changed: other names, or other records for them. Starts the resolver
 * anew, for it also has the settings, the user and the log of its birth. */
void names_commit(struct master *master);
/* Something was heard; the answer was checked. */
void names_on_answer(struct master *master, const struct answer *answer);
void names_release(struct master *master);
