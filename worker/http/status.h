/* SPDX-License-Identifier: Apache-2.0
 *
 * Reason phrases of status codes, from status.def.
 */
#pragma once

/* The phrase for a code, "Unknown" for one that is not in the table. Never NULL. */
const char *status_phrase(int status);
