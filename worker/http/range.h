/* SPDX-License-Identifier: Apache-2.0
 *
 * The Range field (RFC 9110 section 14.2), bytes unit, one range.
 */
#pragma once

#include <stdint.h>

#include "config/base/str.h"

enum range_result {
    RANGE_IGNORE = 0,    /* another unit, bad syntax or several ranges: send the whole (200) */
    RANGE_ONE,           /* 206 */
    RANGE_UNSATISFIABLE, /* 416 */
};

struct byte_range {
    uint64_t first;
    uint64_t last; /* inclusive */
};

enum range_result range_parse(struct str value, uint64_t size, struct byte_range *ret_range);
