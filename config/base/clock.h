/* SPDX-License-Identifier: Apache-2.0
 *
 * Clocks. Durations and instants are int64_t milliseconds everywhere; they become libev's
 * floating-point seconds in ms_to_seconds() and nowhere else.
 */
#pragma once

#include <stdint.h>
#include <stddef.h>

/* CLOCK_MONOTONIC in milliseconds; the same clock in every process of the machine. */
int64_t clock_mono_ms(void);
/* CLOCK_MONOTONIC in microseconds, as sd_notify's MONOTONIC_USEC wants it. */
int64_t clock_mono_us(void);
/* CLOCK_REALTIME in milliseconds since the epoch: for logs only, it may jump. */
int64_t clock_real_ms(void);

#define CLOCK_ISO8601_SIZE sizeof("2026-01-31T23:59:59.999Z")
/* Writes real_ms as UTC in RFC 3339 form with milliseconds. */
void clock_format_iso8601(int64_t real_ms, char ret_text[CLOCK_ISO8601_SIZE]);

static inline double
ms_to_seconds(int64_t ms)
{
    return (double)ms / 1000.0;
}
