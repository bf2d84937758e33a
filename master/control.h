/* SPDX-License-Identifier: Apache-2.0
 *
 * The control socket: one command a line, one JSON object a line as the answer. For root and for
 * the user that the master runs as (control_peer.h). Runs in the master.
 */
#pragma once

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/base/list.h"
#include "master/unix_listener.h"

struct master;

/* With one more the client that was silent for the longest time has to go. */
#define CONTROL_CLIENTS_MAX 64
/* Of them, how many may listen to events. */
#define CONTROL_LISTENERS_MAX 16
/* Events that wait for a slow listener; what does not fit is lost, and counted. */
#define CONTROL_EVENTS_BYTES_MAX (64 * 1024)

struct control {
    struct unix_listener listener;
    ev_io accept;
    ev_timer pause;           /* out of descriptors: accept is stopped until it is over */
    bool exhausted;           /* said once, until a client is accepted again */
    int64_t refused_ms;       /* when it was told that one was turned away; 0: never */
    uint64_t refused_more;    /* turned away since, untold */
    struct list_node clients; /* of struct control_client, owned; the longest silent first */
    size_t client_count;
};

/* Opens the socket that [master] control names. A failure is a warning: the service does not
 * depend on it. */
void control_open(struct master *master);
void control_close(struct master *master);
/* New clients wait in the queue, or are accepted again. */
void control_hold(struct master *master, bool hold);
/* Clients that may wait for an answer; who listens to events does not. */
size_t control_busy_count(const struct master *master);
/* Sends a line, with its end, to all who listen to events. */
void control_broadcast(struct master *master, const char *line, size_t length);
