/* SPDX-License-Identifier: Apache-2.0
 *
 * Who the client is, when a proxy stands between: what trusted peers say in X-Forwarded-For or in
 * Forwarded (RFC 7239). Pure. The client is the address furthest to the right that is not of a
 * trusted proxy: everything to the left of it may be the client's own invention.
 */
#pragma once

#include <stdbool.h>

#include "config/network.h"
#include "config/value.h"
#include "worker/http/request.h"
#include "worker/peer.h"

/* Proxies in a row that are looked at; whoever needs more has lost the overview. */
#define FORWARDED_HOPS_MAX 32

bool forwarded_trusts(const struct network_list *trusted, const struct peer *peer);

/* Finds the client of a request that came from peer, which is trusted; peer itself when nothing
 * usable is said. The port is 0 where none is told. */
void forwarded_find_client(const struct request_head *head, const char *base, enum told_by told_by,
                           const struct network_list *trusted, const struct peer *peer,
                           struct peer *ret_client);

/* What the same fields say about the request as the client sent it. Empty: not told, or nothing
 * that could be passed on. */
struct forwarded_facts {
    struct str proto;
    struct str host;
};
/* Longest host that is taken from them. */
#define FORWARDED_HOST_MAX 255
void forwarded_find_facts(const struct request_head *head, const char *base, enum told_by told_by,
                          const struct network_list *trusted, struct forwarded_facts *ret_facts);
