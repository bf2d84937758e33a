/* SPDX-License-Identifier: Apache-2.0
 *
 * The head of the request that a server gets, and of the response that a client gets from it:
 * always written anew from what was parsed, never passed raw. Pure: bytes in, bytes out.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "worker/http/chunked.h"
#include "worker/http/head_writer.h"
#include "worker/http/request.h"
#include "worker/http/response.h"
#include "worker/peer.h"

struct forward_input {
    const struct request_head *head;
    const char *base;
    struct str path;     /* normal form */
    bool path_rewritten; /* send path instead of the target's */
    size_t cut;          /* strip_prefix: bytes of path that the server does not see */
    bool trailers;       /* of both directions are passed on */
    const struct peer *peer;
};

/* Whether the server is asked to switch protocols. Any token passes but h2c: a raw HTTP/2
 * connection to the server would see none of our routes (and RFC 9113 section 3.1 retired it). */
bool forward_asks_upgrade(const struct request_head *head, const char *base);
/* Most bytes that forward_request_head() writes. */
size_t forward_request_size_max(const struct forward_input *input);
/* Request line and all fields up to the empty line. Hop-by-hop fields are left out, framing is the
 * parsed one, X-Forwarded-For, -Proto, -Host (and -Prefix) say what narwhal saw, whatever the
 * client said; only a peer on a unix socket, which is another proxy on this machine, is believed.
 */
void forward_request_head(struct head_writer *writer, const struct forward_input *input);

/* Trailer, which names the fields behind a body, for a route that passes these on. */
void forward_trailer_names(struct head_writer *writer, const struct field *fields, size_t count,
                           const char *base);
/* Most bytes that forward_trailers() writes. */
size_t forward_trailers_size_max(const struct chunked_trailers *trailers);
/* The last chunk with the trailer fields, and the empty line. Fields that narwhal reads in heads,
 * whose place is not behind a body (RFC 9110 section 6.5.1), are left out, also in disguise. */
void forward_trailers(struct head_writer *writer, const struct chunked_trailers *trailers);

/* Status line and the server's fields without hop-by-hop ones and framing; no empty line.
 * *ret_has_date: whether a Date was among them. */
void forward_response_head(struct head_writer *writer, const struct response_head *head,
                           const char *base, bool *ret_has_date);
