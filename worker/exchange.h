/* SPDX-License-Identifier: Apache-2.0
 *
 * struct exchange: one request and its response. It is born when a request head is complete and
 * ends when the response went out and the request was read, or when either side is gone. Owned by
 * its connection. The functions here are what actions answer with.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/base/str.h"
#include "worker/http/chunked.h"
#include "worker/http/head_writer.h"
#include "worker/http/request.h"
#include "worker/peer.h"

struct conn;
struct live;
struct route;

struct exchange {
    struct conn *conn;
    struct live *live;         /* a reference: what this request began with */
    const struct route *route; /* of live; NULL when no route matched */
    void *state;               /* the action's */
    struct peer client;        /* whom the request is from: the peer, or who that peer says */
    bool believed;             /* the peer is one of trusted_proxies */

    /* ---- the request. The spans of head count from base; both are the worker's, and gone after
     * this turn, unless kept holds the exchange's own copy of them. */
    const struct request_head *head;
    const char *base;
    struct str path;     /* in normal form; lives as long as head does */
    bool path_rewritten; /* passing the target on as sent would show another path */
    /* owned: the route passes the trailers of the request's body on; else NULL */
    struct chunked_trailers *trailers;
    void *kept;          /* owned: one allocation with head, bytes and path; NULL: not kept */
    uint64_t body_bytes; /* decoded so far */
    bool request_done;   /* the whole body was read */
    bool drop_body;      /* nobody wants the (rest of the) body */
    bool continue_due;   /* the client waits for 100 Continue */
    bool slim;           /* exchange_slim() gave the end of this back */

    /* ---- the response */
    int status;           /* 0: no head yet */
    bool response_done;   /* all of it was put on the stream */
    bool close;           /* the connection ends after this response */
    bool close_delimited; /* the response ends with the connection (RFC 9112 section 6.3) */
    bool broken;          /* the response cannot be completed: the client must see it break */
    uint64_t body_put;    /* bytes of response body put on the stream */
    uint64_t sent_mark;   /* stream.sent_bytes when the head was put */

    /* ---- for the logs */
    int64_t started_ms;
    int64_t started_real_ms;
    const char *server; /* address of the server that answered; of the scoreboard */
    int64_t upstream_ms;

    /* ---- the rest of the request's body. No slim exchange has what follows. */
    struct chunked_decoder chunked;
    uint64_t body_left;         /* BODY_LENGTH: still to come */
    int64_t body_waited_ms;     /* spent waiting for the body; the wait going on is not in it */
    int64_t body_wait_since_ms; /* 0: not waiting for it now */
    struct exchange *next_spare;
};

/* Bytes of a slim one. */
#define EXCHANGE_SLIM_BYTES offsetof(struct exchange, chunked)

/* The path as sent, for logs that must not hold secrets: without the query. */
struct str exchange_shown_path(const struct exchange *exchange);
/* Copies the head, so that it outlives this turn. Safe to call twice. false: out of memory, and
 * the exchange was answered with 503. */
bool exchange_keep_head(struct exchange *exchange);

/* For a tunnel, which may last: keeps no more of the exchange than what a tunnel and the logs at
 * its end need. It may be elsewhere afterwards; returns where. */
struct exchange *exchange_slim(struct exchange *exchange);
/* The same exchange under newer settings: route is one of live. */
void exchange_move(struct exchange *exchange, struct live *live, const struct route *route);

/* Decides whether the connection goes on after this response; from then on exchange->close is
 * final. Called before a head is written. */
bool exchange_decide_keep_alive(struct exchange *exchange);
/* Decides, and writes Connection where it is needed, with the time that an idle connection is kept
 * for a client that asked (RFC 2068 section 19.7.1.1): one that knows it does not send a request
 * into the close. */
void exchange_put_connection(struct exchange *exchange, struct head_writer *writer);
/* Writes Server, Date and, where needed, Connection, and the empty line. */
void exchange_put_tail(struct exchange *exchange, struct head_writer *writer);
/* Most bytes that exchange_put_tail() writes. */
#define EXCHANGE_TAIL_MAX 128

/* Answers with a head that was written up to its last own field, and a body (left out for HEAD).
 * Content-Length must be in head. Finishes the response. */
void exchange_answer(struct exchange *exchange, int status, struct str head, struct str body);
/* Answers with a small page for the status; extra holds more field lines. reason goes to the log
 * with the client and the request, at a level by the status; setting is the key that would change
 * it, or NULL. Finishes the response. After a head is out it breaks the response off instead. */
void exchange_fail(struct exchange *exchange, int status, const char *reason, const char *setting,
                   struct str extra_fields);
/* All of the response was put on the stream. */
void exchange_finish_response(struct exchange *exchange);
/* The response cannot be completed; the connection is cut so that the client can tell. */
void exchange_break(struct exchange *exchange, const char *reason);
