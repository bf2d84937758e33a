/* SPDX-License-Identifier: Apache-2.0
 *
 * What one scan level consists of: the seam where a new one (NEON) is added. Private to
 * worker/http.
 */
#pragma once

#include "worker/http/field_lines.h"
#include "worker/http/scan.h"

struct scan_set {
    scan_fn field_value;
    scan_fn token;
    scan_fn target;
    field_lines_fn field_lines;
};

/* The set of a level of x86-64, NULL when this CPU does not have it. */
const struct scan_set *scan_set_x86(enum scan_level level);
