/* SPDX-License-Identifier: Apache-2.0
 *
 * When a request may be sent again. Pure; runs in workers.
 *
 * The rule (RFC 9110 section 9.2.2, RFC 9112 section 9.3.1): a request is repeated only when it was
 * certainly not executed, because no byte of it left or because it is proved that none was read, or
 * when executing it twice is the same as once, because its method is idempotent. A server that was
 * given the time to work (TIMEOUT) or that answered at all is never asked twice: it may be slow
 * because of this very request, and what broke it would break the others, one after the other.
 */
#include "worker/proxy/retry.h"

/* A bucket holds this many requests. */
#define BUDGET_MAX (100 * INT64_C(100))

static bool
is_unexecuted(const struct retry_facts *facts)
{
    return facts->bytes_sent == 0 || facts->unread;
}

static bool
may_execute(const struct retry_facts *facts)
{
    return is_unexecuted(facts) || (method_is_idempotent(facts->method) && !facts->out_of_budget);
}

static enum retry_decision
decide_closed(const struct retry_facts *facts)
{
    if (!may_execute(facts)) {
        return RETRY_NO;
    }
    if (facts->reused) {
        /* The usual case: the server gave up an idle connection just when we used it (RFC 9112
         * section 9.5). Where that is proved it says nothing against the server; else it may have
         * died as well. */
        return is_unexecuted(facts) ? RETRY_SAME : RETRY_ANY;
    }
    /* A server that takes a new connection and drops it has died of something. When that may have
     * been this request, one more server is put at risk and no further. */
    return is_unexecuted(facts) || facts->attempts <= 1 ? RETRY_OTHER : RETRY_NO;
}

enum retry_decision
retry_decide(const struct retry_facts *facts)
{
    if (facts->attempts >= facts->attempts_max || facts->bytes_seen > 0 || facts->body_consumed) {
        return RETRY_NO;
    }
    switch (facts->failure) {
    case FAILURE_CONNECT:
        return may_execute(facts) ? RETRY_OTHER : RETRY_NO;
    case FAILURE_CLOSED:
        return decide_closed(facts);
    case FAILURE_TIMEOUT:
    case FAILURE_PROTOCOL:
        return RETRY_NO;
    }
    return RETRY_NO;
}

bool
retry_costs_budget(const struct retry_facts *facts)
{
    return !is_unexecuted(facts);
}

/* ---- the budget ------------------------------------------------------------------------------ */

void
retry_budget_init(struct retry_budget *budget)
{
    budget->left = BUDGET_MAX;
}

void
retry_budget_earn(struct retry_budget *budget, int64_t percent)
{
    budget->left += percent;
    if (budget->left > BUDGET_MAX) {
        budget->left = BUDGET_MAX;
    }
}

bool
retry_budget_is_empty(const struct retry_budget *budget, int64_t percent)
{
    return percent == 0 || budget->left < 100;
}

void
retry_budget_spend(struct retry_budget *budget)
{
    budget->left -= 100;
}
