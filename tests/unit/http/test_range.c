/* SPDX-License-Identifier: Apache-2.0
 *
 * The Range field.
 */
#include "support.h"
#include "worker/http/range.h"

Test(range, one_range_is_satisfied_or_not_and_all_else_is_ignored)
{
    static const struct {
        const char *value;
        uint64_t size;
        enum range_result result;
        uint64_t first;
        uint64_t last;
    } rows[] = {
        {"bytes=0-0", 10, RANGE_ONE, 0, 0},
        {"bytes=0-9", 10, RANGE_ONE, 0, 9},
        {"bytes=0-", 10, RANGE_ONE, 0, 9},
        {"bytes=5-", 10, RANGE_ONE, 5, 9},
        {"bytes=5-7", 10, RANGE_ONE, 5, 7},
        {"bytes=9-9", 10, RANGE_ONE, 9, 9},
        {"bytes=5-99", 10, RANGE_ONE, 5, 9},
        {"bytes=5-10", 10, RANGE_ONE, 5, 9},
        {"bytes=0-18446744073709551615", 10, RANGE_ONE, 0, 9},
        {"bytes=0-99999999999999999999999", 10, RANGE_ONE, 0, 9},
        {"bytes=0005-0007", 10, RANGE_ONE, 5, 7},
        {"Bytes=1-2", 10, RANGE_ONE, 1, 2},
        {"BYTES=1-2", 10, RANGE_ONE, 1, 2},
        {"bytes=-1", 10, RANGE_ONE, 9, 9},
        {"bytes=-10", 10, RANGE_ONE, 0, 9},
        {"bytes=-11", 10, RANGE_ONE, 0, 9},
        {"bytes=-99999999999999999999999", 10, RANGE_ONE, 0, 9},
        {"bytes=0-0", 1, RANGE_ONE, 0, 0},
        {"bytes=18446744073709551613-", UINT64_MAX, RANGE_ONE, UINT64_MAX - 2, UINT64_MAX - 1},
        /* beyond the end */
        {"bytes=10-", 10, RANGE_UNSATISFIABLE, 0, 0},
        {"bytes=10-20", 10, RANGE_UNSATISFIABLE, 0, 0},
        {"bytes=99999999999999999999999-", 10, RANGE_UNSATISFIABLE, 0, 0},
        {"bytes=-0", 10, RANGE_UNSATISFIABLE, 0, 0},
        {"bytes=0-", 0, RANGE_UNSATISFIABLE, 0, 0},
        {"bytes=0-0", 0, RANGE_UNSATISFIABLE, 0, 0},
        {"bytes=-0", 0, RANGE_UNSATISFIABLE, 0, 0},
        /* an empty file has a last byte for nobody */
        {"bytes=-5", 0, RANGE_IGNORE, 0, 0},
        /* several, other units, no ranges */
        {"bytes=0-1,3-4", 10, RANGE_IGNORE, 0, 0},
        {"bytes=0-1,", 10, RANGE_IGNORE, 0, 0},
        {"bytes=,0-1", 10, RANGE_IGNORE, 0, 0},
        {"bytes=0-,-1", 10, RANGE_IGNORE, 0, 0},
        {"items=0-1", 10, RANGE_IGNORE, 0, 0},
        {"bytes", 10, RANGE_IGNORE, 0, 0},
        {"bytes=", 10, RANGE_IGNORE, 0, 0},
        {"bytes=-", 10, RANGE_IGNORE, 0, 0},
        {"bytes=--1", 10, RANGE_IGNORE, 0, 0},
        {"bytes=5", 10, RANGE_IGNORE, 0, 0},
        {"bytes=7-5", 10, RANGE_IGNORE, 0, 0},
        {"bytes=a-5", 10, RANGE_IGNORE, 0, 0},
        {"bytes=5-a", 10, RANGE_IGNORE, 0, 0},
        {"bytes=+5-6", 10, RANGE_IGNORE, 0, 0},
        {"bytes= 5-6", 10, RANGE_IGNORE, 0, 0},
        {"bytes=5 -6", 10, RANGE_IGNORE, 0, 0},
        {"bytes=5-6 ", 10, RANGE_IGNORE, 0, 0},
        {"bytes =5-6", 10, RANGE_IGNORE, 0, 0},
        {"bytes=0x1-2", 10, RANGE_IGNORE, 0, 0},
        {"bytes=1-2-3", 10, RANGE_IGNORE, 0, 0},
        {"", 10, RANGE_IGNORE, 0, 0},
        {"0-5", 10, RANGE_IGNORE, 0, 0},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct byte_range range = {77, 77};
        size_t length = strlen(rows[i].value);
        struct str value = {guarded_at_end(rows[i].value, length), length};
        enum range_result result = range_parse(value, rows[i].size, &range);

        cr_expect_eq(result, rows[i].result, "'%s' of %llu: %d", rows[i].value,
                     (unsigned long long)rows[i].size, result);
        if (result == RANGE_ONE && rows[i].result == RANGE_ONE) {
            cr_expect_eq(range.first, rows[i].first, "first of '%s'", rows[i].value);
            cr_expect_eq(range.last, rows[i].last, "last of '%s'", rows[i].value);
        }
    }
}

Test(range, a_range_is_always_inside_the_file)
{
    uint64_t seed = 5;

    for (int round = 0; round < 20000; round++) {
        char value[64];
        struct byte_range range;
        uint64_t size = next_below(&seed, 4) == 0 ? next_number(&seed) : next_below(&seed, 100);
        int length = snprintf(value, sizeof(value), "bytes=%llu-%llu",
                              (unsigned long long)next_below(&seed, 120),
                              (unsigned long long)next_number(&seed));
        if (next_below(&seed, 3) == 0) {
            length = snprintf(value, sizeof(value), "bytes=-%llu",
                              (unsigned long long)next_below(&seed, 120));
        }
        if (range_parse((struct str){value, (size_t)length}, size, &range) == RANGE_ONE) {
            cr_assert(range.first <= range.last && range.last < size, "%s of %llu", value,
                      (unsigned long long)size);
        }
    }
}
