/* SPDX-License-Identifier: Apache-2.0
 *
 * The id of a field name, inline for the loop over the field lines. Generated from field.def: the
 * length picks one case, in which only the names of that length remain, each compared eight bytes
 * at a time with letters in either case. Private to worker/http.
 */
#pragma once

#include <stdint.h>
#include <string.h>

#include "worker/http/head.h"

#define FIELD_ID_INLINE static inline __attribute__((always_inline, unused))

/* Longest name in field.def that the switch below has a case for. */
#define FIELD_NAME_MAX 19
#define FIELD(name, text)                                                                          \
    _Static_assert(sizeof(text) - 1 >= 2 && sizeof(text) - 1 <= FIELD_NAME_MAX,                    \
                   "field_id_match() needs a case for the length of " text);
#include "worker/http/field.def"

FIELD_ID_INLINE uint64_t
field_id_load(const char *p, size_t size)
{
    uint64_t word = 0;

    memcpy(&word, p, size);
    return word;
}

/* Whether the size (constant, <= 8) bytes at p are those at lower, in either case. Only the bits
 * where lower has a letter are folded: '-' must be '-', not the CR that differs from it by the
 * same bit. */
FIELD_ID_INLINE bool
field_id_word_is(const char *p, const char *lower, size_t size)
{
    uint64_t wanted = field_id_load(lower, size);
    uint64_t letters = (wanted & 0x4040404040404040u) >> 1;

    return (field_id_load(p, size) | letters) == wanted;
}

/* The last size bytes; they may overlap those compared before. */
FIELD_ID_INLINE bool
field_id_tail_is(const char *p, const char *lower, size_t length, size_t size)
{
    size_t at = length > size ? length - size : 0;

    return field_id_word_is(p + at, lower + at, size);
}

FIELD_ID_INLINE bool
field_id_name_is(const char *p, const char *lower, size_t length)
{
    if (length > 16) {
        return field_id_word_is(p, lower, 8) && field_id_word_is(p + 8, lower + 8, 8) &&
               field_id_tail_is(p, lower, length, 8);
    }
    if (length > 8) {
        return field_id_word_is(p, lower, 8) && field_id_tail_is(p, lower, length, 8);
    }
    if (length >= 4) {
        return field_id_word_is(p, lower, 4) && field_id_tail_is(p, lower, length, 4);
    }
    return field_id_word_is(p, lower, 2) && field_id_tail_is(p, lower, length, 2);
}

/* length is a constant after inlining, so that all rows but those of that length vanish. */
FIELD_ID_INLINE enum field_id
field_id_of_length(const char *p, size_t length)
{
/* The padding lets an unoptimised build compile the comparisons of other lengths, which it never
 * runs, without reading beyond the name. */
#define FIELD(name, text)                                                                          \
    static const char lower_##name[24] = text;                                                     \
    if (length == sizeof(text) - 1 && field_id_name_is(p, lower_##name, sizeof(text) - 1)) {       \
        return FIELD_##name;                                                                       \
    }
#include "worker/http/field.def"
    return FIELD_OTHER;
}

FIELD_ID_INLINE enum field_id
field_id_match(const char *p, size_t length)
{
#define FIELD_ID_CASE(n)                                                                           \
    case n:                                                                                        \
        return field_id_of_length(p, n);
    switch (length) {
        FIELD_ID_CASE(2)
        FIELD_ID_CASE(3)
        FIELD_ID_CASE(4)
        FIELD_ID_CASE(5)
        FIELD_ID_CASE(6)
        FIELD_ID_CASE(7)
        FIELD_ID_CASE(8)
        FIELD_ID_CASE(9)
        FIELD_ID_CASE(10)
        FIELD_ID_CASE(11)
        FIELD_ID_CASE(12)
        FIELD_ID_CASE(13)
        FIELD_ID_CASE(14)
        FIELD_ID_CASE(15)
        FIELD_ID_CASE(16)
        FIELD_ID_CASE(17)
        FIELD_ID_CASE(18)
        FIELD_ID_CASE(19)
    default:
        return FIELD_OTHER;
    }
#undef FIELD_ID_CASE
}
