/* SPDX-License-Identifier: Apache-2.0
 *
 * What the fuzz targets share. A target is one file fuzz_<name>.c with LLVMFuzzerTestOneInput(): it
 * runs the code under test on the input and checks what must hold for every input. It is linked
 * twice: with libFuzzer (preset fuzz, run.sh), and with replay.c into the test suite, which gives
 * it the seeds and the kept regressions. Input that a part gets lies in memory of exactly its size,
 * so that the address sanitizer sees the first byte that is read outside.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/base/str.h"

/* libFuzzer's interface (LLVM, docs/LibFuzzer.rst). The result must be 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A property that does not hold: says so and aborts, which is what libFuzzer takes for a finding.
 */
_Noreturn void fuzz_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
#define FUZZ_CHECK(property, ...)                                                                  \
    ((property) ? (void)0 : fuzz_fail(__FILE__, __LINE__, __VA_ARGS__))

/* A copy in memory of exactly that size; the caller frees it. */
char *fuzz_copy(const void *bytes, size_t size);

/* Places where the input is cut, ascending. They are read from its last bytes: those of a message
 * lie behind its head, so that they can change without changing it, and a plain file is an input.
 */
#define FUZZ_CUTS 4
struct fuzz_cuts {
    size_t at[FUZZ_CUTS];
};
struct fuzz_cuts fuzz_cuts_of(const uint8_t *data, size_t size);
/* The last byte but index; 0 when there are fewer. */
uint8_t fuzz_tail(const uint8_t *data, size_t size, size_t index);

/* Whether outer holds inner, whatever the pointers are. */
bool fuzz_inside(struct str outer, struct str inner);
