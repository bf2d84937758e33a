/* SPDX-License-Identifier: Apache-2.0
 *
 * Helpers of the fuzz targets; see fuzz.h.
 */
#include "tests/fuzz/fuzz.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "config/base/check.h"

void
fuzz_fail(const char *file, int line, const char *format, ...)
{
    va_list args;

    (void)fprintf(stderr, "%s:%d: PROPERTY VIOLATED: ", file, line);
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fputc('\n', stderr);
    abort();
}

char *
fuzz_copy(const void *bytes, size_t size)
{
    char *copy = malloc(size);

    CHECK(copy != NULL || size == 0);
    if (size > 0) {
        memcpy(copy, bytes, size);
    }
    return copy;
}

uint8_t
fuzz_tail(const uint8_t *data, size_t size, size_t index)
{
    return index < size ? data[size - 1 - index] : 0;
}

struct fuzz_cuts
fuzz_cuts_of(const uint8_t *data, size_t size)
{
    struct fuzz_cuts cuts;

    for (size_t i = 0; i < FUZZ_CUTS; i++) {
        size_t word = (size_t)fuzz_tail(data, size, 2 * i) << 8 | fuzz_tail(data, size, 2 * i + 1);
        size_t place = i;
        word %= size + 1;
        for (; place > 0 && cuts.at[place - 1] > word; place--) {
            cuts.at[place] = cuts.at[place - 1];
        }
        cuts.at[place] = word;
    }
    return cuts;
}

bool
fuzz_inside(struct str outer, struct str inner)
{
    uintptr_t start = (uintptr_t)outer.ptr;
    uintptr_t part = (uintptr_t)inner.ptr;

    return part >= start && part - start <= outer.len && inner.len <= outer.len - (part - start);
}
