/* SPDX-License-Identifier: Apache-2.0
 *
 * Whether a request that a server did not answer may be sent again. One pure function, so that the
 * rule can be read and tested in one place. Never repeats what may have been executed. Beside it
 * the budget that keeps what is repeated below a part of the traffic.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "worker/http/request.h"

enum upstream_failure {
    FAILURE_CONNECT = 0, /* no connection: nothing was sent */
    FAILURE_CLOSED,      /* the connection ended before the first byte of an answer */
    FAILURE_TIMEOUT,     /* no answer in time */
    FAILURE_PROTOCOL,    /* an answer that is not HTTP */
};

struct retry_facts {
    enum method method;
    enum upstream_failure failure;
    bool reused;         /* the connection had served another request before */
    uint64_t bytes_sent; /* of this request, taken by the kernel */
    uint64_t bytes_seen; /* of an answer */
    bool body_consumed;  /* body bytes that cannot be sent again were handed on */
    uint32_t attempts;   /* so far, this one included */
    uint32_t attempts_max;
    bool unread;        /* proved that the server read nothing of it: unread_proof.h */
    bool out_of_budget; /* see retry_budget below */
};

enum retry_decision {
    RETRY_NO = 0,
    RETRY_SAME,  /* a new connection, any server */
    RETRY_ANY,   /* another server; this one again only if there is no other */
    RETRY_OTHER, /* another server, this one not again */
};

enum retry_decision retry_decide(const struct retry_facts *facts);
/* Whether the repetition that was decided could be the second execution of the request. */
bool retry_costs_budget(const struct retry_facts *facts);

/* Of a worker and backend. In hundredths of a request. */
struct retry_budget {
    int64_t left;
};
void retry_budget_init(struct retry_budget *budget);
/* One request began. percent: retry_budget of the settings. */
void retry_budget_earn(struct retry_budget *budget, int64_t percent);
bool retry_budget_is_empty(const struct retry_budget *budget, int64_t percent);
void retry_budget_spend(struct retry_budget *budget);
