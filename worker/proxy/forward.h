/* SPDX-License-Identifier: Apache-2.0
 *
 * The head of the request that a server gets, and of the response that a client gets from it:
 * always written anew from what was parsed, never passed raw. Pure: bytes in, bytes out.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "config/network.h"
#include "config/value.h"
#include "worker/http/chunked.h"
#include "worker/http/head_writer.h"
#include "worker/http/request.h"
#include "worker/http/response.h"
#include "worker/peer.h"

struct forward_input {
    const struct request_head *head;
    const char *base;
    struct str path;           /* normal form */
    bool path_rewritten;       /* send path instead of the target's */
    size_t cut;                /* strip_prefix: bytes of path that the server does not see */
    const struct peer *peer;   /* who connected */
    const struct peer *client; /* whom the request is from; peer itself, or told by it */
    bool believed;             /* the peer is a trusted proxy */
    enum told_by told_by;
    const struct network_list *trusted;
    struct str host; /* Host for the server; empty: the client's own */
    bool forwarded;  /* write Forwarded too */
    bool trailers;   /* of both directions are passed on */
};

/* Whether the server is asked to switch protocols. Any token passes but h2c: a raw HTTP/2
 * connection to the server would see none of our routes (and RFC 9113 section 3.1 retired it). */
bool forward_asks_upgrade(const struct request_head *head, const char *base);
/* Most bytes that forward_request_head() writes. */
size_t forward_request_size_max(const struct forward_input *input);
/* Request line and all fields up to the empty line. Hop-by-hop fields are left out, framing is the
 * parsed one. X-Forwarded-For, -Proto, -Host, -Port (and -Prefix), and Forwarded where it is
 * wanted, say what narwhal saw, whatever the client said. A trusted peer's fields, of the kind that
 * is believed, are kept, and its own address is appended; the other kind is written from them. */
void forward_request_head(struct head_writer *writer, const struct forward_input *input);

/* Trailer, which names the fields behind a body, for a route that passes these on. */
void forward_trailer_names(struct head_writer *writer, const struct field *fields, size_t count,
                           const char *base);
/* Most bytes that forward_trailers() writes. */
size_t forward_trailers_size_max(const struct chunked_trailers *trailers);
/* The last chunk with the trailer fields, and the empty line. Fields that narwhal reads in heads,
 * whose place is not behind a body (RFC 9110 section 6.5.1), are left out, also in disguise, and
 * so are those that authenticate, steer, or say how to read the message. */
void forward_trailers(struct head_writer *writer, const struct chunked_trailers *trailers);

/* Status line and the server's fields without hop-by-hop ones and framing; no empty line.
 * *ret_has_date: whether a Date was among them. */
void forward_response_head(struct head_writer *writer, const struct response_head *head,
                           const char *base, bool *ret_has_date);
