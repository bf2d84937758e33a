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

FIELD_ID_INLINE enum field_id
field_id_match(const char *p, size_t length)
{
    switch (length) {
    case 2:
#define FIELD_ID_LENGTH 2
#include "worker/http/field_id_case.h"
    case 3:
#define FIELD_ID_LENGTH 3
#include "worker/http/field_id_case.h"
    case 4:
#define FIELD_ID_LENGTH 4
#include "worker/http/field_id_case.h"
    case 5:
#define FIELD_ID_LENGTH 5
#include "worker/http/field_id_case.h"
    case 6:
#define FIELD_ID_LENGTH 6
#include "worker/http/field_id_case.h"
    case 7:
#define FIELD_ID_LENGTH 7
#include "worker/http/field_id_case.h"
    case 8:
#define FIELD_ID_LENGTH 8
#include "worker/http/field_id_case.h"
    case 9:
#define FIELD_ID_LENGTH 9
#include "worker/http/field_id_case.h"
    case 10:
#define FIELD_ID_LENGTH 10
#include "worker/http/field_id_case.h"
    case 11:
#define FIELD_ID_LENGTH 11
#include "worker/http/field_id_case.h"
    case 12:
#define FIELD_ID_LENGTH 12
#include "worker/http/field_id_case.h"
    case 13:
#define FIELD_ID_LENGTH 13
#include "worker/http/field_id_case.h"
    case 14:
#define FIELD_ID_LENGTH 14
#include "worker/http/field_id_case.h"
    case 15:
#define FIELD_ID_LENGTH 15
#include "worker/http/field_id_case.h"
    case 16:
#define FIELD_ID_LENGTH 16
#include "worker/http/field_id_case.h"
    case 17:
#define FIELD_ID_LENGTH 17
#include "worker/http/field_id_case.h"
    case 18:
#define FIELD_ID_LENGTH 18
#include "worker/http/field_id_case.h"
    case 19:
#define FIELD_ID_LENGTH 19
#include "worker/http/field_id_case.h"
    default:
        return FIELD_OTHER;
    }
}
