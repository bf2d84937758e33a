/* SPDX-License-Identifier: Apache-2.0
 *
 * The resolver process: asks for the names of servers, again and again, and tells the master what
 * it hears. It reads what strangers send, so it is one of its own, without privileges, with nothing
 * but its questions and one channel: when it is killed, the last answers stay in use.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "config/value.h"

/* A round of a question ends after this, however slowly somebody answers. */
#define RESOLVER_ROUND_MAX_MS 10000

struct resolver_heritage {
    int channel_fd; /* of struct answer; its end is the end of the process */
    size_t question_count;
    const struct address *questions;         /* ADDRESS_NAME and ADDRESS_SRV */
    const struct address_list *name_servers; /* empty: those of resolv.conf(5) */
    int64_t ttl_min_ms;
    int64_t ttl_max_ms;
};

/* Runs until the master closes its end. Returns the exit status. */
int resolver_main(const struct resolver_heritage *heritage);
