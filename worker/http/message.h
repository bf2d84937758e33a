/* SPDX-License-Identifier: Apache-2.0
 *
 * What the fields of a head say about its framing and its connection, for requests and responses
 * alike (RFC 9112 section 6 and 9). Facts only; request.c and response.c judge them. Private to
 * worker/http.
 */
#pragma once

#include "worker/http/head.h"

enum transfer_coding {
    CODING_NONE = 0,
    CODING_CHUNKED,   /* exactly "chunked", once */
    CODING_OTHER,     /* well-formed, but of codings that are not implemented here */
    CODING_MALFORMED, /* no list of codings, or chunked twice, not last, or with parameters */
};

struct message_facts {
    const struct field *host; /* the first */
    uint32_t host_count;
    uint32_t content_length_count;
    const char *content_length_bad; /* why the value is none, or NULL */
    uint64_t content_length;
    uint32_t transfer_encoding_count;
    enum transfer_coding coding;
    uint32_t longest_bytes;    /* of the field lines, from the name to the end of the value */
    uint32_t connection_bytes; /* of all Connection values together */
    bool connection_close;
    bool connection_keep_alive;
    bool connection_upgrade;
    bool expect_continue;
    bool expect_other;
    bool upgrade;          /* Upgrade is there and not empty */
    int64_t keep_alive_ms; /* Keep-Alive: timeout=N; -1 when it is not said */
};

void message_facts_collect(struct message_facts *facts, const struct field *fields, size_t count,
                           const char *base);
