/* SPDX-License-Identifier: Apache-2.0
 *
 * The SRV records (RFC 2782) of a DNS answer, with their TTL, which c-ares' own parser leaves out.
 * Pure: bytes of a stranger in, bounded structs out.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define SRV_TARGETS_MAX 64
#define SRV_NAME_MAX 254

struct srv_target {
    uint16_t priority;
    uint16_t weight;
    uint16_t port;
    char name[SRV_NAME_MAX];
};

struct srv_records {
    size_t count;    /* 0 with SRV_OK: the service is not offered */
    size_t left_out; /* beyond SRV_TARGETS_MAX, those of the lowest priority */
    uint32_t ttl_s;  /* the shortest one */
    struct srv_target item[SRV_TARGETS_MAX]; /* ascending by priority, then name and port */
};

/* 0, or -EBADMSG when it is no whole answer. */
int srv_records_parse(const uint8_t *bytes, size_t length, struct srv_records *ret_records);
