/* SPDX-License-Identifier: Apache-2.0
 *
 * struct conn: one client connection. See conn.c for its states.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "config/base/list.h"
#include "config/base/str.h"
#include "worker/deadline.h"
#include "worker/peer.h"
#include "worker/stream.h"

struct exchange;
struct worker;

/* state, and what it waits for */
#define CONN_STATES(X)                                                                             \
    X(PREFACE, "the PROXY protocol header of a trusted peer")                                      \
    X(IDLE, "the first byte of a request")                                                         \
    X(HEAD, "the rest of a request head")                                                          \
    X(BUSY, "an exchange: request body, action, or the client taking the response")                \
    X(FINISH, "the client taking the end of the last response")                                    \
    X(TUNNEL, "either side of an upgraded connection")                                             \
    X(LINGER, "the client to close, after our FIN")                                                \
    X(CLOSED, "the end of the turn, to be freed")

enum conn_state {
#define CONN_STATE_ENUM(name, waits_for) CONN_##name,
    CONN_STATES(CONN_STATE_ENUM)
#undef CONN_STATE_ENUM
        CONN_STATE_COUNT
};

enum close_reason {
#define CLOSE_REASON(name, text, level) CLOSE_##name,
#include "worker/close_reason.def"
    CLOSE_REASON_COUNT
};
const char *close_reason_text(enum close_reason reason);

/* What an unfinished head or unwanted bytes need; absent in an idle connection. */
struct conn_input {
    char *bytes; /* owned */
    uint32_t off;
    uint32_t len;
    uint32_t cap;
    struct request_parser *parser; /* owned; of an unfinished head; else NULL */
};

struct conn {
    struct stream stream;
    struct deadline deadline;
    struct worker *worker;
    struct list_node node;     /* on worker->conns, or on its graveyard when CLOSED */
    struct exchange *exchange; /* owned; NULL between requests */
    struct conn_input *input;  /* owned; NULL when nothing is kept */
    uint64_t requests;
    uint64_t number; /* of this connection; the worker gives none twice */
    int64_t opened_ms;
    struct peer peer;
    uint8_t state;      /* enum conn_state */
    bool feeding;       /* conn_feed() is at work above us on the stack */
    bool saw_eof;       /* the client sent its FIN */
    uint64_t sent_seen; /* stream.sent_bytes when the send deadline was last moved */
    bool linger;        /* the client may still be sending: linger before the close */
    bool counted;       /* among the connections of its client's address */
    uint8_t burst;      /* requests begun in this turn */
    uint32_t pipelined; /* requests begun from the bytes of the last read */
};

/* Whether a connection of this peer begins with a PROXY protocol header: its client is not known
 * before that. */
bool conn_expects_preface(const struct worker *worker, const struct peer *peer);
/* Takes the accepted socket, and serves what already arrived on it. counted: client_counts_add()
 * counted it. false: out of memory, and fd is still the caller's. */
bool conn_open(struct worker *worker, int fd, const struct peer *peer, bool counted);
/* The exchange is gone: the connection waits for the next one, or ends. Called by exchange_end().
 */
void conn_exchange_ended(struct conn *conn, bool close);
/* Ends the connection now. The memory stays until the end of the turn. */
void conn_close(struct conn *conn, enum close_reason reason);
/* The worker leaves and cannot wait: ends the connection. With tell, and when the client loses
 * something by it, a line in the log says what. */
enum conn_cut { CONN_CUT_REQUEST = 0, CONN_CUT_TUNNEL, CONN_CUT_IDLE, CONN_CUT_COUNT };
enum conn_cut conn_cut(struct conn *conn, bool tell);
/* After an event that was not the client's (a server's, a timer's) changed something: flushes, goes
 * on with what waits, recomputes what to watch and until when. */
void conn_settle(struct conn *conn);
/* The 101 is on its way: from now on bytes go through action->body as they come. */
void conn_start_tunnel(struct conn *conn);
/* New settings: a tunnel goes on under them, or leaves. */
void conn_reload(struct conn *conn);
/* The worker drains: idle connections get until keepalive_drain, others close when done. */
void conn_drain(struct conn *conn);
/* Whether it waits for a next request. */
bool conn_is_idle(const struct conn *conn);
/* Frees what conn_close() left. */
void conn_free(struct conn *conn);
/* One line about this client and its request at a level; format says what happened. */
void conn_log(const struct conn *conn, int level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
