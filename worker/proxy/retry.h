/* SPDX-License-Identifier: Apache-2.0
 *
 * Whether a request that a server did not answer may be sent again. One pure function, so that the
 * rule can be read and tested in one place. Never repeats what may have been executed.
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
};

enum retry_decision {
    RETRY_NO = 0,
    RETRY_SAME, /* a new connection, any server */
    RETRY_OTHER /* another server, this one not again */
};

enum retry_decision retry_decide(const struct retry_facts *facts);
