/* SPDX-License-Identifier: Apache-2.0
 *
 * When a request may be sent again. Pure; runs in workers.
 *
 * The rule (RFC 9110 section 9.2.2, RFC 9112 section 9.3.1): a request is repeated only when it was
 * certainly not executed, because no byte of it left, or when executing it twice is the same as
 * once, because its method is idempotent. A server that was given the time to work (TIMEOUT) or
 * that answered at all is never asked twice: it may be slow because of this very request, and what
 * broke it would break the others, one after the other.
 */
#include "worker/proxy/retry.h"

static enum retry_decision
decide_closed(const struct retry_facts *facts)
{
    if (facts->bytes_sent > 0 && !method_is_idempotent(facts->method)) {
        return RETRY_NO;
    }
    if (facts->reused) {
        /* The usual case: the server gave up an idle connection just when we used it (RFC 9112
         * section 9.5). That says nothing against the server. */
        return RETRY_SAME;
    }
    /* A server that takes a new connection and drops it has died of something. When that may have
     * been this request, one more server is put at risk and no further. */
    return facts->bytes_sent == 0 || facts->attempts <= 1 ? RETRY_OTHER : RETRY_NO;
}

enum retry_decision
retry_decide(const struct retry_facts *facts)
{
    if (facts->attempts >= facts->attempts_max || facts->bytes_seen > 0 || facts->body_consumed) {
        return RETRY_NO;
    }
    switch (facts->failure) {
    case FAILURE_CONNECT:
        return facts->bytes_sent == 0 || method_is_idempotent(facts->method) ? RETRY_OTHER
                                                                             : RETRY_NO;
    case FAILURE_CLOSED:
        return decide_closed(facts);
    case FAILURE_TIMEOUT:
    case FAILURE_PROTOCOL:
        return RETRY_NO;
    }
    return RETRY_NO;
}
