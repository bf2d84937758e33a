/* SPDX-License-Identifier: Apache-2.0
 *
 * The Range field. Whatever is not understood is ignored, which is always allowed (RFC 9110
 * section 14.2) and never wrong: the client gets the whole. Runs in worker processes.
 */
#include "worker/http/range.h"

#include "worker/http/char_class.h"

/* Takes digits off the front of *text; how many. A number too large for any file becomes
 * UINT64_MAX, which is beyond every end. */
static size_t
take_number(struct str *text, uint64_t *ret_number)
{
    uint64_t number = 0;
    size_t count = 0;

    while (count < text->len && char_is(text->ptr[count], CHAR_DIGIT)) {
        uint64_t digit = (uint64_t)(text->ptr[count] - '0');
        number = number > (UINT64_MAX - digit) / 10 ? UINT64_MAX : number * 10 + digit;
        count++;
    }
    *text = (struct str){text->ptr + count, text->len - count};
    *ret_number = number;
    return count;
}

enum range_result
range_parse(struct str value, uint64_t size, struct byte_range *ret_range)
{
    const struct str unit = STR("bytes="); /* case-insensitive, RFC 9110 section 14.1 */
    uint64_t first;
    uint64_t last;

    if (value.len < unit.len || !str_equal_nocase((struct str){value.ptr, unit.len}, unit)) {
        return RANGE_IGNORE;
    }
    struct str rest = {value.ptr + unit.len, value.len - unit.len};
    bool has_first = take_number(&rest, &first) > 0;
    if (rest.len == 0 || rest.ptr[0] != '-') {
        return RANGE_IGNORE;
    }
    rest = (struct str){rest.ptr + 1, rest.len - 1};
    bool has_last = take_number(&rest, &last) > 0;
    if (rest.len != 0 || (!has_first && !has_last)) {
        return RANGE_IGNORE; /* several ranges come here too */
    }
    if (!has_first) {
        /* suffix-range: the last bytes; all of them when there are fewer (section 14.1.2). */
        if (last == 0) {
            return RANGE_UNSATISFIABLE;
        }
        if (size == 0) {
            return RANGE_IGNORE; /* satisfiable, but Content-Range cannot say "no bytes" */
        }
        *ret_range = (struct byte_range){last < size ? size - last : 0, size - 1};
        return RANGE_ONE;
    }
    if (has_last && last < first) {
        return RANGE_IGNORE; /* invalid, which is not unsatisfiable (section 14.1.1) */
    }
    if (first >= size) {
        return RANGE_UNSATISFIABLE;
    }
    *ret_range = (struct byte_range){first, has_last && last < size ? last : size - 1};
    return RANGE_ONE;
}
