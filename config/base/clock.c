/* SPDX-License-Identifier: Apache-2.0
 *
 * Clocks (clock_gettime(2)) and their textual form. Stateless; runs in every process.
 */
#include "config/base/clock.h"

#include <stdio.h>
#include <time.h>

#include "config/base/check.h"

static int64_t
now_us(clockid_t id)
{
    struct timespec ts;

    CHECK(clock_gettime(id, &ts) == 0);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t
clock_mono_ms(void)
{
    return now_us(CLOCK_MONOTONIC) / 1000;
}

int64_t
clock_mono_us(void)
{
    return now_us(CLOCK_MONOTONIC);
}

int64_t
clock_real_ms(void)
{
    return now_us(CLOCK_REALTIME) / 1000;
}

void
clock_format_iso8601(int64_t real_ms, char ret_text[CLOCK_ISO8601_SIZE])
{
    time_t seconds = (time_t)(real_ms / 1000);
    struct tm tm;

    (void)gmtime_r(&seconds, &tm); /* cannot fail for instants a clock returns */
    size_t used = strftime(ret_text, CLOCK_ISO8601_SIZE, "%Y-%m-%dT%H:%M:%S", &tm);
    (void)snprintf(ret_text + used, CLOCK_ISO8601_SIZE - used, ".%03dZ", (int)(real_ms % 1000));
}
