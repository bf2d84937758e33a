/* SPDX-License-Identifier: Apache-2.0
 *
 * One process of an application: how it is executed, where it listens, when it is READY, what it
 * says, how it ends. Runs in the master.
 */
#pragma once

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/un.h>

#include "config/base/list.h"
#include "config/value.h"
#include "master/app_output.h"
#include "master/child.h"
#include "master/recycle.h"

struct instance_slot;

/* The place of an instance in its offer, as bits: how it may get its listening socket. */
enum instance_offer { OFFER_FD = 1 << 0, OFFER_SOCKET = 1 << 1, OFFER_PORT = 1 << 2 };

struct instance {
    struct child child;
    /* configuration fields */
    struct instance_slot *slot;
    uint32_t half;       /* its place in the slot */
    uint64_t generation; /* of the settings it was started with */
    /* runtime fields of one life */
    unsigned int offers;
    char socket_path[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* OFFER_SOCKET; "" else */
    int port;                                                      /* OFFER_PORT; -1 else */
    struct address address;                                        /* once READY */
    struct app_output output;
    int exec_fd; /* tells why exec failed, or EOF when it did not */
    ev_io exec_result;
    char *start_error; /* owned; why it could not be executed */
    ev_timer probe;
    int64_t probe_interval_ms;
    int probe_fd; /* OFFER_FD: a connection that waits to be accepted */
    bool probe_ipv6;
    ev_timer drain;
    int64_t drain_until_ms;
    bool seen_idle; /* no request was open at the last look */
    bool leaving;
    struct recycle_life recycle;
    struct list_node node; /* in slot.leaving */
};

struct instance *instance_new(struct instance_slot *slot, uint32_t half);
/* Executes the command. A failure is told and leads to BACKOFF. */
void instance_start(struct instance *instance);
/* An instance of a predecessor, its fields set: watches it again, from the descriptors on. */
void instance_resume(struct instance *instance);
/* Writes what workers need to know into its record, which knows nothing of it. */
void instance_show(struct instance *instance);
/* No new requests; SIGTERM when the open ones ended, or after graceful_timeout. */
void instance_retire(struct instance *instance);
/* SIGTERM now, SIGKILL after timeout_ms. */
void instance_stop(struct instance *instance, int64_t timeout_ms);
/* Why its last life did not begin, or the last line it wrote; NULL: neither. The instance's. */
const char *instance_last_words(const struct instance *instance);
/* Frees an instance without a process. */
void instance_free(struct instance *instance);
