/* SPDX-License-Identifier: Apache-2.0
 *
 * Byte scans of the parsers: find the first byte that is not allowed. Each has a scalar form and,
 * on x86-64, forms for SSE4.2 and AVX2, chosen once at start by what the CPU has; all agree byte
 * for byte. No form reads outside [p, end).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* First byte in [p, end) that may not stand in a field value: a control byte but HTAB, or DEL
 * (obs-text is allowed, RFC 9110 section 5.5). end when there is none. */
typedef const char *(*scan_fn)(const char *p, const char *end);
extern scan_fn scan_field_value;
/* First byte that is no tchar (RFC 9110 section 5.6.2). */
extern scan_fn scan_token;
/* First byte that may not stand in a request target: a control byte, space, DEL, >= 0x80, or '#'
 * (a fragment is never sent, RFC 9112 section 3.2; parsers that take one disagree where the path
 * ends). */
extern scan_fn scan_target;

enum scan_level { SCAN_SCALAR = 0, SCAN_SSE42, SCAN_AVX2, SCAN_LEVEL_COUNT };
/* Picks the best level of this CPU; runs once at the start of a process. */
void scan_init(void);
/* For tests and benchmarks: false when the CPU does not have it. */
bool scan_use(enum scan_level level);
const char *scan_level_name(enum scan_level level);
