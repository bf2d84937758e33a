/* SPDX-License-Identifier: Apache-2.0
 *
 * struct upstream: one server of a backend in this worker, with its pool of idle connections.
 * struct upstream_conn: one connection to it. This file knows connections and when they may be
 * used again; what is said on them is the business of the files that proxy_private.h lists.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "config/base/list.h"
#include "worker/deadline.h"
#include "worker/proxy/preface.h"
#include "worker/stream.h"

struct backend_settings;
struct proxy;
struct worker;

enum upstream_state {
    UPSTREAM_CONNECTING = 0, /* connect(2) is under way */
    UPSTREAM_ACTIVE,         /* belongs to a proxy */
    UPSTREAM_IDLE,           /* in the pool */
    UPSTREAM_CLOSED,         /* on the graveyard until the end of the turn */
};

struct upstream_conn {
    struct stream stream;
    struct deadline deadline;
    struct list_node node; /* of upstream->idle, most recently used first; or the graveyard */
    struct worker *worker;
    struct upstream *upstream;
    struct proxy *proxy;         /* CONNECTING, ACTIVE: whom it serves; not owned */
    uint64_t requests;           /* finished on it */
    struct preface_owner *owner; /* owned; NULL: it may be used for everybody */
    uint32_t life; /* of the record when it was opened: another life, another server */
    enum upstream_state state;
    int64_t idle_since_us; /* IDLE: clock_mono_us() */
    int64_t reused_age_us; /* how long it had been idle when it was taken; 0: it is new */
};

struct upstream {
    uint32_t record;       /* index of its record on the scoreboard */
    struct list_node idle; /* struct upstream_conn.node */
    int64_t survived_us;   /* age that an idle connection to it reached and was still good */
};

void upstream_init(struct worker *worker);
/* Closes all idle connections, frees all. No proxy may be left. */
void upstream_release(struct worker *worker);
void upstream_empty_graveyard(struct worker *worker);

/* Takes an idle connection to the server of that record, most recently used first; NULL when
 * there is none, or none that may be used for the proxy's client and is young enough (idle_age.h)
 * for a request that is idempotent or not. It is ACTIVE and the proxy's. */
struct upstream_conn *upstream_acquire(struct worker *worker, uint32_t record,
                                       const struct backend_settings *settings, bool is_idempotent,
                                       struct proxy *proxy);
/* Begins a connection. *ret_conn is CONNECTING or already ACTIVE (unix). 0 or a negative errno;
 * -EAGAIN: the server's accept queue is full (unix(7)). */
int upstream_connect(struct worker *worker, uint32_t record, struct proxy *proxy,
                     struct upstream_conn **ret_conn);
/* Gives a connection back for reuse; the caller's pointer becomes NULL. It is closed instead when
 * all workers together keep enough, idle_timeout is 0, or the record has got another server. */
void upstream_release_to_pool(struct upstream_conn **conn, const struct backend_settings *settings);
/* The server ended a connection that had been idle until it was taken: it learns from that. */
void upstream_note_stale(const struct upstream_conn *conn);
/* The server said for how long it keeps idle connections; -1: it did not. */
void upstream_note_keep_alive(const struct upstream_conn *conn, int64_t keep_alive_ms);
/* Ends a connection now; the caller's pointer becomes NULL. Accepts a NULL pointer. */
void upstream_close(struct upstream_conn **conn);
