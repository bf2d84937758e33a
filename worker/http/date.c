/* SPDX-License-Identifier: Apache-2.0
 *
 * HTTP dates by arithmetic: strftime() and strptime() know locales and time zones, which HTTP does
 * not, and cost more than the rest of a small response. Runs in worker processes.
 */
#include "worker/http/date.h"

#include <stdint.h>

#include "config/base/clock.h"
#include "worker/http/char_class.h"

#define SECONDS_PER_DAY 86400

static const char day_names[7][10] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                      "Thursday", "Friday", "Saturday"};
static const char month_names[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                        "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

struct civil {
    int64_t year;
    int month; /* 1..12 */
    int day;   /* 1..31 */
};

/* Days since 1970-01-01 of a date of the Gregorian calendar, and back: H. Hinnant,
 * "chrono-Compatible Low-Level Date Algorithms". Years begin in March there, so that the leap day
 * is a year's last, and repeat in eras of 400. */
static int64_t
days_from_civil(struct civil date)
{
    int64_t year = date.year - (date.month <= 2 ? 1 : 0);
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t year_of_era = year - era * 400;
    int64_t month = date.month > 2 ? date.month - 3 : date.month + 9;
    int64_t day_of_year = (153 * month + 2) / 5 + date.day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;

    return era * 146097 + day_of_era - 719468;
}

static struct civil
civil_from_days(int64_t days)
{
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    int64_t day_of_era = days - era * 146097;
    int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t month = (5 * day_of_year + 2) / 153;
    struct civil date = {
        .year = year_of_era + era * 400 + (month >= 10 ? 1 : 0),
        .month = (int)(month < 10 ? month + 3 : month - 9),
        .day = (int)(day_of_year - (153 * month + 2) / 5 + 1),
    };

    return date;
}

static void
put_two_digits(char *out, int64_t value)
{
    out[0] = (char)('0' + value / 10 % 10);
    out[1] = (char)('0' + value % 10);
}

void
http_date_format(time_t when, char out[HTTP_DATE_LENGTH])
{
    /* A file may carry any time; the format has room for the years 0 to 9999. */
    const int64_t first = days_from_civil((struct civil){0, 1, 1}) * SECONDS_PER_DAY;
    const int64_t last = days_from_civil((struct civil){10000, 1, 1}) * SECONDS_PER_DAY - 1;
    int64_t seconds = (int64_t)when;

    seconds = seconds < first ? first : seconds > last ? last : seconds;
    int64_t days = (seconds >= 0 ? seconds : seconds - (SECONDS_PER_DAY - 1)) / SECONDS_PER_DAY;
    int64_t second_of_day = seconds - days * SECONDS_PER_DAY;
    int64_t weekday = (days % 7 + 7 + 4) % 7; /* 1970-01-01 was a Thursday */
    struct civil date = civil_from_days(days);

    memcpy(out, "Sun, 06 Nov 1994 08:49:37 GMT", HTTP_DATE_LENGTH);
    memcpy(out, day_names[weekday], 3);
    put_two_digits(out + 5, date.day);
    memcpy(out + 8, month_names[date.month - 1], 3);
    put_two_digits(out + 12, date.year / 100);
    put_two_digits(out + 14, date.year % 100);
    put_two_digits(out + 17, second_of_day / 3600);
    put_two_digits(out + 20, second_of_day / 60 % 60);
    put_two_digits(out + 23, second_of_day % 60);
}

/* ---- parsing
 * -----------------------------------------------------------------------------------*/

struct date_fields {
    struct civil date;
    int hour;
    int minute;
    int second;
};

/* Exactly count digits; -1 otherwise. */
static int
digits(const char *p, size_t count)
{
    int value = 0;

    for (size_t i = 0; i < count; i++) {
        if (!char_is(p[i], CHAR_DIGIT)) {
            return -1;
        }
        value = value * 10 + (p[i] - '0');
    }
    return value;
}

/* 1..12, or 0. Names are case-sensitive (RFC 9110 section 5.6.7). */
static int
month_of(const char *p)
{
    for (int i = 0; i < 12; i++) {
        if (memcmp(p, month_names[i], 3) == 0) {
            return i + 1;
        }
    }
    return 0;
}

static bool
is_short_day_name(const char *p)
{
    for (size_t i = 0; i < 7; i++) {
        if (memcmp(p, day_names[i], 3) == 0) {
            return true;
        }
    }
    return false;
}

static bool
read_time_of_day(const char *p, struct date_fields *fields)
{
    fields->hour = digits(p, 2);
    fields->minute = digits(p + 3, 2);
    fields->second = digits(p + 6, 2);
    return p[2] == ':' && p[5] == ':';
}

/* "Sun, 06 Nov 1994 08:49:37 GMT" */
static bool
read_imf_fixdate(struct str text, struct date_fields *fields)
{
    const char *p = text.ptr;

    if (text.len != HTTP_DATE_LENGTH || !is_short_day_name(p) || memcmp(p + 3, ", ", 2) != 0 ||
        p[7] != ' ' || p[11] != ' ' || p[16] != ' ' || memcmp(p + 25, " GMT", 4) != 0) {
        return false;
    }
    fields->date = (struct civil){digits(p + 12, 4), month_of(p + 8), digits(p + 5, 2)};
    return read_time_of_day(p + 17, fields);
}

/* "Sun Nov  6 08:49:37 1994" */
static bool
read_asctime(struct str text, struct date_fields *fields)
{
    const char *p = text.ptr;

    if (text.len != 24 || !is_short_day_name(p) || p[3] != ' ' || p[7] != ' ' || p[10] != ' ' ||
        p[19] != ' ') {
        return false;
    }
    int day = p[8] == ' ' ? digits(p + 9, 1) : digits(p + 8, 2);
    fields->date = (struct civil){digits(p + 20, 4), month_of(p + 4), day};
    return read_time_of_day(p + 11, fields);
}

/* "Sunday, 06-Nov-94 08:49:37 GMT" */
static bool
read_rfc850(struct str text, struct date_fields *fields)
{
    for (size_t i = 0; i < 7; i++) {
        size_t name = strlen(day_names[i]);
        if (text.len != name + 24 || memcmp(text.ptr, day_names[i], name) != 0) {
            continue;
        }
        const char *p = text.ptr + name;
        if (memcmp(p, ", ", 2) != 0 || p[4] != '-' || p[8] != '-' || p[11] != ' ' ||
            memcmp(p + 20, " GMT", 4) != 0) {
            return false;
        }
        int two_digits = digits(p + 9, 2);
        if (two_digits < 0) {
            return false;
        }
        /* RFC 9110 section 5.6.7: a year that seems more than 50 years in the future is the most
         * recent one in the past with the same last two digits. */
        int64_t this_year = civil_from_days(clock_real_ms() / 1000 / SECONDS_PER_DAY).year;
        int64_t year = this_year - this_year % 100 + two_digits;
        if (year > this_year + 50) {
            year -= 100;
        }
        fields->date = (struct civil){year, month_of(p + 5), digits(p + 2, 2)};
        return read_time_of_day(p + 12, fields);
    }
    return false;
}

static int
days_in_month(int64_t year, int month)
{
    static const int lengths[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);

    return lengths[month - 1] + (month == 2 && leap ? 1 : 0);
}

/* The day of the week is not compared with the date: RFC 9110 gives it no meaning, and servers
 * that print a wrong one would lose their validators. */
bool
http_date_parse(struct str text, time_t *ret_when)
{
    struct date_fields fields;

    if (!read_imf_fixdate(text, &fields) && !read_rfc850(text, &fields) &&
        !read_asctime(text, &fields)) {
        return false;
    }
    /* Second 60 is a leap second, the same instant as the next minute's 0 for time_t. */
    if (fields.date.year < 0 || fields.date.month < 1 || fields.date.day < 1 ||
        fields.date.day > days_in_month(fields.date.year, fields.date.month) || fields.hour < 0 ||
        fields.hour > 23 || fields.minute < 0 || fields.minute > 59 || fields.second < 0 ||
        fields.second > 60) {
        return false;
    }
    *ret_when = (time_t)(days_from_civil(fields.date) * SECONDS_PER_DAY + fields.hour * 3600 +
                         fields.minute * 60 + fields.second);
    return true;
}
