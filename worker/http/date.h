/* SPDX-License-Identifier: Apache-2.0
 *
 * HTTP dates (RFC 9110 section 5.6.7).
 */
#pragma once

#include <stdbool.h>
#include <time.h>

#include "config/base/str.h"

#define HTTP_DATE_LENGTH 29 /* "Sun, 06 Nov 1994 08:49:37 GMT" */

/* Writes exactly HTTP_DATE_LENGTH bytes, no NUL. No locale, no libc time zone. */
void http_date_format(time_t when, char out[HTTP_DATE_LENGTH]);
/* Parses all three forms that a recipient must take; false for anything else. */
bool http_date_parse(struct str text, time_t *ret_when);
