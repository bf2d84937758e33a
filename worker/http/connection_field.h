/* SPDX-License-Identifier: Apache-2.0
 *
 * Which fields stay on one hop (RFC 9110 section 7.6.1).
 */
#pragma once

#include "worker/http/head.h"

/* Bytes of all Connection values of one head together; the parsers refuse more. Every field that
 * is passed on is compared with every option, so an unbounded list would buy a client much work
 * for few bytes. */
#define CONNECTION_OPTIONS_MAX 1024

/* Whether a field must not be passed on: the hop-by-hop fields by id, and every name that a
 * Connection field of this message lists (but Host, without which a request is none). fields[0..
 * count) is the whole message head at base. */
bool field_is_hop_by_hop(const struct field *field, const struct field *fields, size_t count,
                         const char *base);
/* Whether a comma-separated list of tokens holds token (any case). */
bool token_list_has(struct str list, struct str token);
/* Takes the next element off a comma-separated list, without the white space around it; empty
 * elements are skipped (RFC 9110 section 5.6.1.2). A comma inside a quoted string divides too:
 * for lists of tokens only. false at the end of the list. */
bool token_list_next(struct str *list, struct str *ret_element);
