/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by value.c and value_address.c only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct address;
struct server;

/* "TEXT" and a blank and the formatted rest; the caller frees it. */
char *value_error(const char *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Reads digits, at least one, and moves *text behind them; no sign, no blank. False when there is
 * none or the number does not fit. */
bool value_scan_number(const char **text, int64_t *ret_number);

/* Reads a server that is given by name. False: text is no such thing; else *ret_error is NULL, or
 * what is wrong. */
bool value_parse_name(const char *text, struct address *ret_address, char **ret_error);

/* Reads "ADDRESS [weight=N]"; returns as value_parse() does. */
char *server_parse(const char *text, struct server *ret_server);
