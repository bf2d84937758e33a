/* SPDX-License-Identifier: Apache-2.0
 *
 * The scans of scan.h as inline functions, one set for each level. They stand in a header because
 * a head has a dozen short fields: a call per scan would cost more than the scan, so field_lines.c
 * compiles its loop once per level with these inlined. No form reads outside [p, end): a block is
 * loaded only when all of it is there, the rest goes through the next smaller form. Private to
 * worker/http.
 */
#pragma once

#include <stdint.h>
#include <string.h>

#include "worker/http/char_class.h"

#define SCAN_INLINE static inline __attribute__((always_inline, unused))

/* ---- scalar: eight bytes at a time where the rule is a comparison -----------------------------
 */

#define SCAN_EVERY(byte) (0x0101010101010101u * (uint64_t)(byte))

SCAN_INLINE uint64_t
scan_load64(const char *p)
{
    uint64_t word;

    memcpy(&word, p, sizeof(word));
    return word;
}

/* Not zero when a byte is below limit (<= 0x80). The lowest bit that is set is exact; a higher one
 * may be the borrow of a byte that is itself below. */
SCAN_INLINE uint64_t
scan_below64(uint64_t word, unsigned limit)
{
    return (word - SCAN_EVERY(limit)) & ~word & SCAN_EVERY(0x80);
}

/* The first byte that a mask of the above names, or one before it. */
SCAN_INLINE size_t
scan_first64(uint64_t mask)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return (size_t)__builtin_ctzll(mask) / 8;
#else
    (void)mask; /* the borrow runs the other way: look byte by byte from the first on */
    return 0;
#endif
}

SCAN_INLINE uint64_t
scan_equal64(uint64_t word, unsigned byte)
{
    return scan_below64(word ^ SCAN_EVERY(byte), 1);
}

/* Eight bytes without a loop condition between them: names are too short, and their class has too
 * many ranges, for more than that to pay. */
SCAN_INLINE const char *
scan_class_scalar(const char *p, const char *end, enum char_class wanted)
{
    for (; end - p >= 8; p += 8) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            if (!char_is(p[i], wanted)) {
                return p + i;
            }
        }
    }
    while (p < end && char_is(*p, wanted)) {
        p++;
    }
    return p;
}

SCAN_INLINE const char *
scan_field_value_scalar(const char *p, const char *end)
{
    while (end - p >= 8) {
        uint64_t word = scan_load64(p);
        uint64_t mask = scan_below64(word, 0x20) | scan_equal64(word, 0x7f);

        if (mask == 0) {
            p += 8;
            continue;
        }
        p += scan_first64(mask);
        if (!char_is(*p, CHAR_VALUE)) {
            return p;
        }
        p++; /* a HTAB, which is allowed */
    }
    return scan_class_scalar(p, end, CHAR_VALUE);
}

SCAN_INLINE const char *
scan_target_scalar(const char *p, const char *end)
{
    while (end - p >= 8) {
        uint64_t word = scan_load64(p);
        uint64_t mask = scan_below64(word, 0x21) | scan_equal64(word, 0x7f) |
                        scan_equal64(word, '#') | (word & SCAN_EVERY(0x80));

        if (mask != 0) {
            return scan_class_scalar(p + scan_first64(mask), end, CHAR_TARGET);
        }
        p += 8;
    }
    return scan_class_scalar(p, end, CHAR_TARGET);
}

SCAN_INLINE const char *
scan_token_scalar(const char *p, const char *end)
{
    return scan_class_scalar(p, end, CHAR_TOKEN);
}

#if defined(__x86_64__)
#include <immintrin.h>

/* ---- SSE4.2: sixteen bytes. PCMPESTRI would do it in one instruction, but a slow one that takes
 * ranges only; comparisons and PSHUFB are faster and exact. ---------------------------------------
 */

#define SCAN_FOR_SSE42 __attribute__((target("sse4.2,ssse3")))
#define SCAN_FOR_AVX2 __attribute__((target("avx2,bmi")))

/* Bit h of entry l: byte 0xhl is a tchar. PSHUFB gives 0 for an index with the top bit set, so
 * that bytes from 0x80 on fall out by themselves. */
#define SCAN_TOKEN_LOW                                                                             \
    (char)232, (char)252, (char)248, (char)252, (char)252, (char)252, (char)252, (char)252,        \
        (char)248, (char)248, (char)244, 84, (char)208, 84, (char)244, 112
#define SCAN_TOKEN_HIGH 1, 2, 4, 8, 16, 32, 64, (char)128, 0, 0, 0, 0, 0, 0, 0, 0

SCAN_INLINE SCAN_FOR_SSE42 __m128i
scan_load16(const char *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

SCAN_INLINE SCAN_FOR_SSE42 unsigned
scan_field_value_mask16(__m128i bytes)
{
    __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
    __m128i tab = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\t'));
    __m128i del = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x7f));

    return (unsigned)_mm_movemask_epi8(_mm_or_si128(_mm_andnot_si128(tab, control), del));
}

SCAN_INLINE SCAN_FOR_SSE42 unsigned
scan_target_mask16(__m128i bytes)
{
    /* As signed numbers the bytes from 0x80 on are negative, so one comparison does both ends. */
    __m128i good = _mm_cmpgt_epi8(bytes, _mm_set1_epi8(0x20));
    __m128i del = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x7f));
    __m128i hash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('#'));

    return 0xffffu & ~(unsigned)_mm_movemask_epi8(_mm_andnot_si128(_mm_or_si128(del, hash), good));
}

SCAN_INLINE SCAN_FOR_SSE42 unsigned
scan_token_mask16(__m128i bytes)
{
    const __m128i low_table = _mm_setr_epi8(SCAN_TOKEN_LOW);
    const __m128i high_table = _mm_setr_epi8(SCAN_TOKEN_HIGH);
    __m128i high = _mm_and_si128(_mm_srli_epi16(bytes, 4), _mm_set1_epi8(0x0f));
    __m128i rows = _mm_shuffle_epi8(low_table, bytes);
    __m128i columns = _mm_shuffle_epi8(high_table, high);
    __m128i good = _mm_and_si128(rows, columns);

    return (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(good, _mm_setzero_si128()));
}

#define SCAN_DEFINE_SSE42(name)                                                                    \
    SCAN_INLINE SCAN_FOR_SSE42 const char *scan_##name##_sse42(const char *p, const char *end)     \
    {                                                                                              \
        while (end - p >= 16) {                                                                    \
            unsigned mask = scan_##name##_mask16(scan_load16(p));                                  \
            if (mask != 0) {                                                                       \
                return p + __builtin_ctz(mask);                                                    \
            }                                                                                      \
            p += 16;                                                                               \
        }                                                                                          \
        return scan_##name##_scalar(p, end);                                                       \
    }

SCAN_DEFINE_SSE42(field_value)
SCAN_DEFINE_SSE42(target)
SCAN_DEFINE_SSE42(token)

/* ---- AVX2: thirty-two bytes -------------------------------------------------------------------
 */

SCAN_INLINE SCAN_FOR_AVX2 __m256i
scan_load32(const char *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

SCAN_INLINE SCAN_FOR_AVX2 unsigned
scan_field_value_mask32(__m256i bytes)
{
    __m256i control = _mm256_cmpeq_epi8(_mm256_min_epu8(bytes, _mm256_set1_epi8(0x1f)), bytes);
    __m256i tab = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8('\t'));
    __m256i del = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(0x7f));

    return (unsigned)_mm256_movemask_epi8(_mm256_or_si256(_mm256_andnot_si256(tab, control), del));
}

SCAN_INLINE SCAN_FOR_AVX2 unsigned
scan_target_mask32(__m256i bytes)
{
    __m256i good = _mm256_cmpgt_epi8(bytes, _mm256_set1_epi8(0x20));
    __m256i del = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(0x7f));
    __m256i hash = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8('#'));

    return ~(unsigned)_mm256_movemask_epi8(_mm256_andnot_si256(_mm256_or_si256(del, hash), good));
}

SCAN_INLINE SCAN_FOR_AVX2 unsigned
scan_token_mask32(__m256i bytes)
{
    const __m256i low_table = _mm256_setr_epi8(SCAN_TOKEN_LOW, SCAN_TOKEN_LOW);
    const __m256i high_table = _mm256_setr_epi8(SCAN_TOKEN_HIGH, SCAN_TOKEN_HIGH);
    __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), _mm256_set1_epi8(0x0f));
    __m256i rows = _mm256_shuffle_epi8(low_table, bytes);
    __m256i columns = _mm256_shuffle_epi8(high_table, high);
    __m256i good = _mm256_and_si256(rows, columns);

    return (unsigned)_mm256_movemask_epi8(_mm256_cmpeq_epi8(good, _mm256_setzero_si256()));
}

/* Half a block is worth a step of its own: most heads end within the last 32 bytes of what was
 * read. */
#define SCAN_DEFINE_AVX2(name)                                                                     \
    SCAN_INLINE SCAN_FOR_AVX2 const char *scan_##name##_avx2(const char *p, const char *end)       \
    {                                                                                              \
        while (end - p >= 32) {                                                                    \
            unsigned mask = scan_##name##_mask32(scan_load32(p));                                  \
            if (mask != 0) {                                                                       \
                return p + __builtin_ctz(mask);                                                    \
            }                                                                                      \
            p += 32;                                                                               \
        }                                                                                          \
        if (end - p >= 16) {                                                                       \
            unsigned mask = scan_##name##_mask16(scan_load16(p));                                  \
            if (mask != 0) {                                                                       \
                return p + __builtin_ctz(mask);                                                    \
            }                                                                                      \
            p += 16;                                                                               \
        }                                                                                          \
        return scan_##name##_scalar(p, end);                                                       \
    }

SCAN_DEFINE_AVX2(field_value)
SCAN_DEFINE_AVX2(target)
SCAN_DEFINE_AVX2(token)

#undef SCAN_DEFINE_SSE42
#undef SCAN_DEFINE_AVX2
#endif /* __x86_64__ */
