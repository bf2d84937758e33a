/* SPDX-License-Identifier: Apache-2.0
 *
 * Which route a request takes: by host, then by the longest path. Built once from the settings,
 * immutable, pure. Looked up for every request, never kept for a connection, so that a reload
 * holds from the next request on.
 *
 * Order: routes that name the host exactly, then those with a wildcard (the longest first), then
 * those without a host; within each an exact path (=/x) first, then the longest prefix. A host
 * whose routes do not match the path falls through to the next kind. A prefix matches whole
 * segments: /api is for /api and /api/x, not for /apix; /api/ is for what begins with /api/.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "config/base/str.h"

struct config;
struct route_table;

/* Index of no route. */
#define ROUTE_NONE UINT32_MAX

/* The caller frees it with route_table_free(); it borrows the texts of config. */
struct route_table *route_table_new(const struct config *config);
void route_table_free(struct route_table *table);

/* Index into config->routes, or ROUTE_NONE. host is in any case, without a port, may be empty;
 * path is in normal form (target.h). Cost: a hash of the host and one of the path per distinct
 * length of prefix, however many routes there are. */
uint32_t route_lookup(const struct route_table *table, struct str host, struct str path);

/* As route_lookup(); *ret_probes is how many table entries were looked at: for the test that shows
 * that the cost does not grow with the routes. */
uint32_t route_lookup_probes(const struct route_table *table, struct str host, struct str path,
                             uint32_t *ret_probes);
