/* SPDX-License-Identifier: Apache-2.0
 *
 * Lanes: listening sockets that outlive workers. The master makes them before any fork and keeps
 * every one open while its address is wanted, because closing a listening socket resets what waits
 * in its queue. A TCP address has one SO_REUSEPORT socket per worker slot; a unix socket or an
 * inherited descriptor is one lane that all workers poll, and systemd:NAME is one for each socket
 * of that name. Who serves which lane is decided in lane_plan.h and carried out in slots.c. Runs in
 * the master.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/base/list.h"
#include "config/value.h"
#include "master/unix_listener.h"

struct buf;
struct identity;

/* Home of a lane that all workers poll. */
#define LANE_SHARED (UINT32_MAX - 1)

struct lane {
    uint32_t id;    /* stable for the master's life, never used again */
    int fd;         /* owned, but for an inherited one */
    uint32_t home;  /* slot, or LANE_SHARED */
    uint32_t owner; /* slot that serves it by the last plan; unused when shared */
    bool stored;    /* the service manager has a duplicate: fd_store.h */
};

/* One bind= address with its lanes. */
struct listen_address {
    struct address wanted; /* as configured */
    struct address bound;  /* as listened on: with a real port */
    size_t lane_count;
    struct lane *lanes;               /* owned */
    struct unix_listener unix_socket; /* the shared lane of a unix address; its fd is the lane's */
    struct list_node node;            /* in lane_set.addresses, or in a list of a reload */
    struct list_node open_node;       /* in lane_set.open */
};

struct lane_set {
    struct list_node addresses; /* of struct listen_address, in the order of the settings */
    struct list_node open;      /* all that are open, also those that a reload prepares */
    uint32_t next_id;
};

void lane_set_init(struct lane_set *set);

/* Opens an address with lanes for slot_count slots; the result is not yet on set->addresses. NULL
 * with *ret_errno negative and a whole sentence without origin in error. */
struct listen_address *listen_address_open(struct lane_set *set, const struct address *wanted,
                                           uint32_t slot_count, int backlog,
                                           const struct identity *identity, int *ret_errno,
                                           struct buf *error);
/* An address that a predecessor opened, without its lanes: takes unix_socket over. */
struct listen_address *listen_address_restore(struct lane_set *set, const struct address *wanted,
                                              const struct address *bound,
                                              const struct unix_listener *unix_socket);
/* One of its lanes; the descriptor of a unix address is also that of its unix_socket. */
void listen_address_restore_lane(struct listen_address *address, const struct lane *lane);
/* Adds lanes for more slots. 0, or a negative errno with a text; the lanes that stand go on. */
int listen_address_grow(struct lane_set *set, struct listen_address *address, uint32_t slot_count,
                        int backlog, struct buf *error);
/* Takes the address off its list, closes its lanes, frees it. NULL is fine. */
void listen_address_close(struct listen_address *address);
/* Closes every address whose sockets narwhal made itself; the workers' descriptors keep a socket
 * with its queue until they accepted it. Inherited descriptors stay: they are not ours to end. */
void lane_set_close_own(struct lane_set *set);
/* The address with these settings, or NULL. */
struct listen_address *lane_set_find(const struct lane_set *set, const struct address *wanted);
/* Connections that wait to be accepted from a lane; false when the kernel does not count them: it
 * does of TCP alone. */
bool lane_count_waiting(const struct lane *lane, uint32_t *ret_count);
/* The log line of a new address; tests and operators look for its form. */
void listen_address_log(const struct listen_address *address);

static inline struct listen_address *
listen_address_from(struct list_node *node)
{
    return container_of(node, struct listen_address, node);
}
