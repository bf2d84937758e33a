/* SPDX-License-Identifier: Apache-2.0
 *
 * Whether a server certainly never read a request that was sent on a connection which it then
 * ended. Looks at the socket alone; runs in workers. What is a proof and why: docs/adr/0011.
 */
#pragma once

#include <stdint.h>

enum unread_proof {
    UNREAD_UNKNOWN = 0, /* it may have been read */
    UNREAD_PROVED,      /* not one byte of it was */
    UNREAD_SOON,        /* the kernel may know after ret_wait_ms: look again */
};

/* fd: the socket, whose end was found. error: errno of a write that failed, or 0. sent_before:
 * bytes that the kernel had taken on this connection when the request began; sent: now. */
enum unread_proof unread_proof_look(int fd, int error, uint64_t sent_before, uint64_t sent,
                                    int64_t *ret_wait_ms);
