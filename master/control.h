/* SPDX-License-Identifier: Apache-2.0
 *
 * The control socket: one command a line, one JSON object a line as the answer. For root and for
 * the user that the master runs as. Runs in the master.
 */
#pragma once

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>

#include "config/base/list.h"
#include "master/unix_listener.h"

struct master;

#define CONTROL_CLIENTS_MAX 16

struct control {
    struct unix_listener listener;
    ev_io accept;
    ev_timer pause;           /* out of descriptors: accept is stopped until it is over */
    bool exhausted;           /* said once, until a client is accepted again */
    struct list_node clients; /* of struct control_client, owned */
    size_t client_count;
};

/* Opens the socket that [master] control names. A failure is a warning: the service does not
 * depend on it. */
void control_open(struct master *master);
void control_close(struct master *master);
/* New clients wait in the queue, or are accepted again. */
void control_hold(struct master *master, bool hold);
