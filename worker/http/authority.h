/* SPDX-License-Identifier: Apache-2.0
 *
 * host [ ":" port ], as in Host and in the absolute and authority forms of a target (RFC 3986
 * section 3.2.2 and 3.2.3). Private to worker/http.
 */
#pragma once

#include <stdint.h>

#include "config/base/str.h"

#define AUTHORITY_NO_PORT (-1)

struct authority {
    struct str host; /* with the brackets of an IP literal */
    int32_t port;    /* AUTHORITY_NO_PORT when there is none, or an empty one ("host:") */
};

/* Returns NULL, or why text is no such thing, a constant. The strs lie inside text. */
const char *authority_parse(struct str text, struct authority *ret_authority);
/* Whether both name the same place; default_port is the port of one that has none. */
bool authority_equal(const struct authority *a, const struct authority *b, int32_t default_port);
