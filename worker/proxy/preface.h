/* SPDX-License-Identifier: Apache-2.0
 *
 * Connections to servers that begin with a PROXY protocol header. What a server was told counts for
 * the whole connection, so it belongs to one connection of one client and is never lent to another.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "config/value.h"
#include "worker/peer.h"

struct proxy;

/* For whom a connection to a server may be used. */
struct preface_owner {
    enum proxy_version version; /* PROXY_OFF: for everybody, and the rest is zero */
    uint64_t conn_number;
    struct peer client; /* a trusted proxy may send several clients over one connection */
};

struct preface_owner preface_owner_of(const struct proxy *proxy);
/* a may be NULL: for everybody. */
bool preface_owner_equal(const struct preface_owner *a, const struct preface_owner *b);
/* Puts the header on the stream of proxy->conn, if it is new and its server wants one. */
void preface_put(const struct proxy *proxy);
