/* SPDX-License-Identifier: Apache-2.0
 *
 * Clocks and the form of instants.
 */
#include <criterion/criterion.h>
#include <string.h>
#include <time.h>

#include "config/base/clock.h"

static const struct {
    int64_t real_ms;
    const char *text;
} instants[] = {
    {0, "1970-01-01T00:00:00.000Z"},
    {1, "1970-01-01T00:00:00.001Z"},
    {999, "1970-01-01T00:00:00.999Z"},
    {1000, "1970-01-01T00:00:01.000Z"},
    {951782399999, "2000-02-28T23:59:59.999Z"},
    {951782400000, "2000-02-29T00:00:00.000Z"},
    {1795257601123, "2026-11-21T10:40:01.123Z"},
    {4102444799050, "2099-12-31T23:59:59.050Z"},
};

Test(clock, instants_have_rfc3339_form_in_utc)
{
    cr_assert_eq(setenv("TZ", "America/St_Johns", 1), 0); /* must not matter */
    tzset();
    for (size_t i = 0; i < sizeof(instants) / sizeof(instants[0]); i++) {
        char text[CLOCK_ISO8601_SIZE];
        memset(text, '#', sizeof(text));
        clock_format_iso8601(instants[i].real_ms, text);
        cr_expect_str_eq(text, instants[i].text);
    }
}

Test(clock, monotonic_clocks_agree_and_do_not_go_back)
{
    int64_t last_ms = clock_mono_ms();
    int64_t last_us = clock_mono_us();

    for (int i = 0; i < 10000; i++) {
        int64_t now_ms = clock_mono_ms();
        int64_t now_us = clock_mono_us();
        cr_assert_geq(now_ms, last_ms);
        cr_assert_geq(now_us, last_us);
        cr_assert_leq(now_ms, now_us / 1000);
        last_ms = now_ms;
        last_us = now_us;
    }
}

Test(clock, the_real_clock_is_the_systems)
{
    int64_t before_ms = (int64_t)time(NULL) * 1000;
    int64_t now_ms = clock_real_ms();

    /* time(2) may come from a coarser clock that is a tick behind. */
    cr_assert_geq(now_ms, before_ms);
    cr_assert_leq(now_ms, ((int64_t)time(NULL) + 2) * 1000);
}

Test(clock, milliseconds_become_seconds)
{
    cr_assert_float_eq(ms_to_seconds(1500), 1.5, 1e-12);
    cr_assert_float_eq(ms_to_seconds(0), 0.0, 1e-12);
    cr_assert_float_eq(ms_to_seconds(86400001), 86400.001, 1e-9);
}
