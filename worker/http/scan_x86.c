/* SPDX-License-Identifier: Apache-2.0
 *
 * The SSE4.2 and AVX2 forms of the scans as functions, and whether this CPU has them. Compiled on
 * every machine, empty but on x86-64. Runs in worker processes.
 */
#include "worker/http/scan_set.h"

#include "worker/http/scan_inline.h"

#if defined(__x86_64__)

#define DEFINE_SCAN(name, level, attribute)                                                        \
    static attribute const char *name##_##level(const char *p, const char *end)                    \
    {                                                                                              \
        return scan_##name##_##level(p, end);                                                      \
    }

DEFINE_SCAN(field_value, sse42, SCAN_FOR_SSE42)
DEFINE_SCAN(target, sse42, SCAN_FOR_SSE42)
DEFINE_SCAN(token, sse42, SCAN_FOR_SSE42)
DEFINE_SCAN(field_value, avx2, SCAN_FOR_AVX2)
DEFINE_SCAN(target, avx2, SCAN_FOR_AVX2)
DEFINE_SCAN(token, avx2, SCAN_FOR_AVX2)

static const struct scan_set sse42 = {field_value_sse42, token_sse42, target_sse42,
                                      field_lines_sse42};
static const struct scan_set avx2 = {field_value_avx2, token_avx2, target_avx2, field_lines_avx2};

const struct scan_set *
scan_set_x86(enum scan_level level)
{
    __builtin_cpu_init();
    if (level == SCAN_SSE42 && __builtin_cpu_supports("sse4.2") &&
        __builtin_cpu_supports("ssse3")) {
        return &sse42;
    }
    if (level == SCAN_AVX2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi")) {
        return &avx2;
    }
    return NULL;
}

#else

const struct scan_set *
scan_set_x86(enum scan_level level)
{
    (void)level; /* another architecture: the scalar forms are all there is */
    return NULL;
}

#endif
