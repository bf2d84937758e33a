/* SPDX-License-Identifier: Apache-2.0
 *
 * How long an idle connection to a server may be trusted. Pure. The server closes it some day, and
 * a request that goes out in that moment is lost; so its age is held against what was learned of
 * the server, and the more a lost request would cost, the earlier it is not used any more. Rules:
 * docs/adr/0011. Runs in workers.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct idle_facts {
    int64_t age_us;          /* how long it has been idle */
    int64_t keep_us;         /* idle_timeout */
    int64_t closes_after_us; /* age at which the server closes, as learned; 0: unknown */
    int64_t survived_us;     /* age that other connections to it have reached; 0: none yet */
};

/* Whether a request may go out on it. is_idempotent: it can be repeated. */
bool idle_age_allows(const struct idle_facts *facts, bool is_idempotent);
/* How long to keep it. */
int64_t idle_age_keep_us(int64_t keep_us, int64_t closes_after_us);

/* The new closes_after_us: after the server closed one of that age, after it said so
 * (Keep-Alive: timeout=), and after one was still open at that age. */
int64_t idle_age_closed(int64_t closes_after_us, int64_t age_us);
int64_t idle_age_told(int64_t closes_after_us, int64_t told_us);
int64_t idle_age_outlived(int64_t closes_after_us, int64_t age_us);
