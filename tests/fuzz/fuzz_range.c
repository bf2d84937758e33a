/* SPDX-License-Identifier: Apache-2.0
 *
 * The Range field. The input is the size of the file, a blank, and the value of the field:
 * "1000 bytes=0-499". A range lies within the file, is the one a second reading finds, and written
 * out again it is itself.
 */
#include "worker/http/range.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/fuzz/fuzz.h"

/* Takes digits off the front of text, saturated; whether there were any. */
static bool
take_digits(struct str *text, uint64_t *ret_number)
{
    const char *begin = text->ptr;
    bool is_huge = false;
    uint64_t number = 0;

    for (; text->len > 0 && text->ptr[0] >= '0' && text->ptr[0] <= '9'; text->ptr++, text->len--) {
        is_huge |= __builtin_mul_overflow(number, (uint64_t)10, &number);
        is_huge |= __builtin_add_overflow(number, (uint64_t)(text->ptr[0] - '0'), &number);
    }
    *ret_number = is_huge ? UINT64_MAX : number;
    return text->ptr > begin;
}

/* RFC 9110 section 14.1.2, once more: what the only range of value selects of size bytes. */
static enum range_result
parse_again(struct str value, uint64_t size, struct byte_range *ret_range)
{
    uint64_t first;
    uint64_t last;

    if (value.len < 6 || strncasecmp(value.ptr, "bytes=", 6) != 0) {
        return RANGE_IGNORE;
    }
    struct str rest = {value.ptr + 6, value.len - 6};
    bool has_first = take_digits(&rest, &first);
    if (rest.len == 0 || rest.ptr[0] != '-') {
        return RANGE_IGNORE;
    }
    rest = (struct str){rest.ptr + 1, rest.len - 1};
    bool has_last = take_digits(&rest, &last);
    if (rest.len > 0 || (!has_first && !has_last) || (has_first && has_last && last < first)) {
        return RANGE_IGNORE;
    }
    if (has_first ? first >= size : last == 0) {
        return RANGE_UNSATISFIABLE;
    }
    if (size == 0) {
        return RANGE_IGNORE;
    }
    if (has_first) {
        *ret_range = (struct byte_range){first, has_last && last < size ? last : size - 1};
    } else {
        *ret_range = (struct byte_range){last > size ? 0 : size - last, size - 1};
    }
    return RANGE_ONE;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *bytes = fuzz_copy(data, size);
    struct str value = {bytes, size};
    struct byte_range range = {UINT64_MAX, UINT64_MAX};
    struct byte_range wanted = range;
    struct byte_range again = range;
    uint64_t file_size;

    (void)take_digits(&value, &file_size);
    if (file_size > INT64_MAX) {
        file_size = INT64_MAX; /* an off_t */
    }
    if (value.len > 0 && value.ptr[0] == ' ') {
        value = (struct str){value.ptr + 1, value.len - 1};
    }
    char *exact = fuzz_copy(value.ptr, value.len);
    value.ptr = exact;
    enum range_result result = range_parse(value, file_size, &range);
    enum range_result wanted_result = parse_again(value, file_size, &wanted);
    FUZZ_CHECK(result == wanted_result, "result %d instead of %d", (int)result, (int)wanted_result);
    if (result == RANGE_ONE) {
        char text[64];
        FUZZ_CHECK(range.first <= range.last && range.last < file_size,
                   "%llu to %llu of %llu bytes", (unsigned long long)range.first,
                   (unsigned long long)range.last, (unsigned long long)file_size);
        FUZZ_CHECK(range.first == wanted.first && range.last == wanted.last,
                   "%llu to %llu instead of %llu to %llu", (unsigned long long)range.first,
                   (unsigned long long)range.last, (unsigned long long)wanted.first,
                   (unsigned long long)wanted.last);
        int length = snprintf(text, sizeof(text), "bytes=%llu-%llu",
                              (unsigned long long)range.first, (unsigned long long)range.last);
        FUZZ_CHECK(range_parse((struct str){text, (size_t)length}, file_size, &again) ==
                           RANGE_ONE &&
                       again.first == range.first && again.last == range.last,
                   "%s is not itself", text);
    }
    free(exact);
    free(bytes);
    return 0;
}
