/* SPDX-License-Identifier: Apache-2.0
 *
 * HTTP dates, compared with the C library over 130 years.
 */
#include <time.h>

#include "support.h"
#include "worker/http/date.h"

static const char *
format(time_t when)
{
    static char text[HTTP_DATE_LENGTH + 2];

    memset(text, '#', sizeof(text));
    http_date_format(when, text);
    cr_assert(text[HTTP_DATE_LENGTH] == '#', "more than HTTP_DATE_LENGTH bytes");
    text[HTTP_DATE_LENGTH] = '\0';
    return text;
}

static bool
parse(const char *text, time_t *ret_when)
{
    size_t length = strlen(text);

    return http_date_parse((struct str){guarded_at_end(text, length), length}, ret_when);
}

/* Every third day from 1970 to 2100, at changing times of the day. */
#define FOR_EACH_SAMPLE(when)                                                                      \
    for (time_t when = 0; when < (time_t)4102444800; when += 3 * 86400 - 1237)

Test(date, formats_as_the_c_library_does)
{
    FOR_EACH_SAMPLE(when)
    {
        char wanted[64];
        struct tm tm;

        cr_assert(gmtime_r(&when, &tm) != NULL);
        strftime(wanted, sizeof(wanted), "%a, %d %b %Y %H:%M:%S GMT", &tm);
        cr_assert_str_eq(format(when), wanted);
    }
}

Test(date, all_three_forms_are_read_back)
{
    FOR_EACH_SAMPLE(when)
    {
        char text[64];
        struct tm tm;
        time_t read = -1;

        cr_assert(parse(format(when), &read) && read == when, "%s", format(when));
        cr_assert(gmtime_r(&when, &tm) != NULL);
        strftime(text, sizeof(text), "%a %b %e %H:%M:%S %Y", &tm);
        read = -1;
        cr_assert(parse(text, &read) && read == when, "%s", text);
    }
}

Test(date, a_two_digit_year_is_within_fifty_years)
{
    time_t now = time(NULL);
    struct tm tm;

    cr_assert(gmtime_r(&now, &tm) != NULL);
    int this_year = tm.tm_year + 1900;
    for (int year = this_year - 49; year <= this_year + 49; year++) {
        struct tm day = {.tm_year = year - 1900,
                         .tm_mon = 10,
                         .tm_mday = 6,
                         .tm_hour = 8,
                         .tm_min = 49,
                         .tm_sec = 37};
        time_t wanted = timegm(&day);
        time_t read = -1;
        char text[64];

        char start[32];
        cr_assert(strftime(start, sizeof(start), "%A, %d-%b", &day) > 0);
        snprintf(text, sizeof(text), "%s-%02d 08:49:37 GMT", start, year % 100);
        cr_assert(parse(text, &read), "%s", text);
        cr_expect_eq(read, wanted, "%s is not in %d", text, year);
    }
}

Test(date, known_dates)
{
    static const struct {
        const char *text;
        time_t when;
    } rows[] = {
        {"Sun, 06 Nov 1994 08:49:37 GMT", 784111777},
        {"Sunday, 06-Nov-94 08:49:37 GMT", 784111777},
        {"Sun Nov  6 08:49:37 1994", 784111777},
        {"Wed Nov 16 08:49:37 1994", 784975777},
        {"Thu, 01 Jan 1970 00:00:00 GMT", 0},
        {"Wed, 31 Dec 1969 23:59:59 GMT", -1},
        {"Tue, 29 Feb 2000 12:00:00 GMT", 951825600},
        {"Thu, 29 Feb 2024 00:00:00 GMT", 1709164800},
        {"Tue, 19 Jan 2038 03:14:08 GMT", 2147483648},
        {"Fri, 31 Dec 9999 23:59:59 GMT", 253402300799},
        {"Sat, 01 Jan 0000 00:00:00 GMT", -62167219200},
        /* a leap second is the next minute's first */
        {"Sat, 31 Dec 2016 23:59:60 GMT", 1483228800},
        /* the day of the week means nothing */
        {"Mon, 06 Nov 1994 08:49:37 GMT", 784111777},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        time_t read = 12345;
        cr_expect(parse(rows[i].text, &read), "%s is refused", rows[i].text);
        cr_expect_eq(read, rows[i].when, "%s is %lld", rows[i].text, (long long)read);
    }
    cr_expect_str_eq(format(784111777), "Sun, 06 Nov 1994 08:49:37 GMT");
    cr_expect_str_eq(format(-1), "Wed, 31 Dec 1969 23:59:59 GMT");
    cr_expect_str_eq(format(253402300799), "Fri, 31 Dec 9999 23:59:59 GMT");
}

Test(date, times_outside_four_digit_years_are_moved_to_the_nearest)
{
    cr_expect_str_eq(format(253402300800), "Fri, 31 Dec 9999 23:59:59 GMT");
    cr_expect_str_eq(format(-62167219201), "Sat, 01 Jan 0000 00:00:00 GMT");
    cr_expect_str_eq(format((time_t)INT64_MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    cr_expect_str_eq(format((time_t)INT64_MIN), "Sat, 01 Jan 0000 00:00:00 GMT");
}

Test(date, anything_else_is_refused)
{
    static const char *const texts[] = {
        "",
        " ",
        "0",
        "784111777",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 gmt",
        "Sun, 06 Nov 1994 08:49:37 GMT ",
        " Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun, 06 nov 1994 08:49:37 GMT",
        "Sun, 06 NOV 1994 08:49:37 GMT",
        "sun, 06 Nov 1994 08:49:37 GMT",
        "Xxx, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Xxx 1994 08:49:37 GMT",
        "Sun. 06 Nov 1994 08:49:37 GMT",
        "Sun, 06-Nov-1994 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Sun, 32 Dec 1994 08:49:37 GMT",
        "Sun, 29 Feb 1900 08:49:37 GMT",
        "Sun, 29 Feb 2023 08:49:37 GMT",
        "Sun, 30 Feb 2024 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 06 Nov 1994 08-49-37 GMT",
        "Sun, 06 Nov 1994 +8:49:37 GMT",
        "Sun, 06 Nov 1994 08:-1:37 GMT",
        "Sun, 06 Nov -994 08:49:37 GMT",
        "Sun, 06 Nov 1994T08:49:37 GMT",
        "Sunday, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06-Nov-94 08:49:37 GMT",
        "Someday, 06-Nov-94 08:49:37 GMT",
        "Sunday, 06-Nov-xx 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 MET",
        "Sunday, 06-Nov-1994 08:49:37 GMT",
        "Sun Nov 06 08:49:37 1994 GMT",
        "Sun Nov 6 08:49:37 1994",
        "Sun Nov  0 08:49:37 1994",
        "Sun Nov   08:49:37 1994",
        "Sun, Nov 6 08:49:37 1994",
        "1994-11-06T08:49:37Z",
        "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        time_t read = 12345;
        cr_expect(!parse(texts[i], &read), "'%s' is taken for %lld", texts[i], (long long)read);
        cr_expect_eq(read, 12345, "'%s' is refused, but its time was stored", texts[i]);
    }
}

Test(date, damaged_dates_are_read_within_their_bounds)
{
    static const char *const originals[] = {"Sun, 06 Nov 1994 08:49:37 GMT",
                                            "Wednesday, 06-Nov-94 08:49:37 GMT",
                                            "Sun Nov  6 08:49:37 1994"};
    uint64_t seed = 31;

    for (int round = 0; round < 20000; round++) {
        char text[64];
        time_t read;

        strcpy(text, originals[next_below(&seed, 3)]);
        size_t length = strlen(text);
        text[next_below(&seed, length)] = (char)next_below(&seed, 256);
        length = next_below(&seed, 4) == 0 ? next_below(&seed, length + 1) : length;
        struct str date = {guarded_at_end(text, length), length};
        if (http_date_parse(date, &read)) {
            cr_assert(read >= -62167219200 && read <= 253402300800, "%s", text);
        }
    }
}
