/* SPDX-License-Identifier: Apache-2.0
 *
 * Which fields stay on one hop (RFC 9110 section 7.6.1).
 */
#pragma once

#include "worker/http/head.h"

/* Whether a field must not be passed on: the hop-by-hop fields by id, and every name that a
 * Connection field of this message lists. fields[0..count) is the whole message head at base. */
bool field_is_hop_by_hop(const struct field *field, const struct field *fields, size_t count,
                         const char *base);
/* Whether a comma-separated list of tokens holds token (any case). */
bool token_list_has(struct str list, struct str token);
