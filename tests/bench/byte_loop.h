/* SPDX-License-Identifier: Apache-2.0
 *
 * A request head parsed by the published byte loop: see byte_loop.c.
 */
#pragma once

#include <stddef.h>

#define BYTE_LOOP_FIELDS_MAX 256

struct byte_loop_text {
    const char *ptr;
    size_t len;
};

struct byte_loop_head {
    struct byte_loop_text method;
    struct byte_loop_text target;
    int minor_version;
    size_t field_count;
    struct {
        struct byte_loop_text name;
        struct byte_loop_text value;
    } fields[BYTE_LOOP_FIELDS_MAX];
};

/* Length of the head, -1 when it is malformed, -2 when it is not whole. */
long byte_loop_parse(struct byte_loop_head *head, const char *bytes, size_t len);
