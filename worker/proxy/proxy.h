/* SPDX-License-Identifier: Apache-2.0
 *
 * struct proxy: one exchange carried over to a server. See proxy.c for its states.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/base/list.h"
#include "worker/deadline.h"
#include "worker/http/chunked.h"
#include "worker/http/response.h"
#include "worker/proxy/retry.h"
#include "worker/scoreboard.h"

struct backend;
struct exchange;
struct upstream_conn;
struct worker;

/* state, and what it waits for */
#define PROXY_STATES(X)                                                                            \
    X(COLLECT, "the body of the request, up to request_buffer")                                    \
    X(CHOOSE, "a server, at once")                                                                 \
    X(QUEUE, "a slot at a server")                                                                 \
    X(CONNECT, "the connection to the server")                                                     \
    X(HEAD, "the rest of the request to go, and the head of the response")                         \
    X(BODY, "the body of the response")                                                            \
    X(TUNNEL, "either side of an upgraded connection")                                             \
    X(DONE, "the end of the exchange")

enum proxy_state {
#define PROXY_STATE_ENUM(name, waits_for) PROXY_##name,
    PROXY_STATES(PROXY_STATE_ENUM)
#undef PROXY_STATE_ENUM
        PROXY_STATE_COUNT
};

struct proxy {
    struct exchange *exchange; /* owns this, through exchange->state */
    struct worker *worker;
    struct backend *backend;
    struct upstream_conn *conn; /* owned while it is ACTIVE or CONNECTING for us; else NULL */
    enum proxy_state state;
    uint32_t record; /* of the server, while claimed */
    bool claimed;
    bool server_eof;   /* TUNNEL */
    bool client_eof;   /* TUNNEL */
    bool slim;         /* TUNNEL: what follows is no longer there */
    bool leaving;      /* TUNNEL: its route or server is gone from the settings */
    bool awaits_proof; /* HEAD: the connection ended; soon the kernel may know what was read */

    /* All below is of no use to a tunnel, which may last for days, and its memory is given back:
     * slim() of proxy.c. */

    /* choosing */
    uint32_t attempts;
    char failure[128];                      /* why the last attempt failed; "" before */
    const char *failure_setting;            /* its clock, when that is why (504); else NULL */
    uint64_t tried[BOARD_SERVERS_MAX / 64]; /* by position in backend->settings->records */
    struct list_node wait_node;             /* QUEUE: in the waiting room, under its queue */
    uint64_t ticket;                        /* QUEUE: its place there, see slot_queue.h */
    bool excludes;                          /* QUEUE: the last server it tried */
    int64_t queue_until_ms;                 /* 0: it never waited */
    struct deadline queue_deadline;

    /* request */
    char *body; /* owned; what was collected of its body; NULL: nothing, or not needed any more */
    uint32_t body_length;
    uint32_t body_capacity;
    bool body_whole; /* it is all there is */
    bool reused;
    bool body_consumed; /* body bytes went to a server: they cannot be sent again */
    uint64_t sent_mark; /* conn->stream.sent_bytes when this attempt began */
    bool may_return;    /* to last_record, when no other server is left: RETRY_ANY */
    uint32_t last_record;

    /* response */
    uint64_t seen;                  /* bytes of it */
    struct response_parser *parser; /* owned; of an unfinished head; else NULL */
    char *input;                    /* owned; its bytes */
    bool head_held;                 /* HEAD: it is whole, and waits for the first of its body */
    uint32_t input_length;
    uint32_t input_capacity;
    enum body_framing framing; /* as the server sends it */
    uint64_t left;             /* BODY_LENGTH */
    struct chunked_decoder chunked;
    struct chunked_trailers *trailers; /* owned; those of the response, when passed on; else NULL */
    bool out_chunked;                  /* as the client gets it */
    bool server_keep_alive;
    bool spoke_first; /* the server sent something before the request was sent */
};

/* Bytes of a slim one. */
#define PROXY_SLIM_BYTES offsetof(struct proxy, attempts)

/* For upstream.c: something happened on the connection that belongs to proxy. */
void proxy_on_upstream(struct proxy *proxy, int revents);
void proxy_on_upstream_timeout(struct proxy *proxy);

/* Makes the worker's waiting room, and the socket by which others wake it. 0 or a negative errno.
 */
int proxy_queue_new(struct worker *worker);
/* A server of backend went down or came up: who waits may have it, or one that ranked lower. */
void proxy_server_changed(struct worker *worker, struct backend *backend);
/* Nobody waits any more. */
void proxy_queue_free(struct worker *worker);
