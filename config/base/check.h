/* SPDX-License-Identifier: Apache-2.0
 *
 * CHECK(): assertions that stay on in every build, for broken invariants only.
 *
 * Peers, files, the kernel and the operator can never make one fail: what they may do wrong is a
 * value to return. A failed CHECK in a worker aborts that worker; the master replaces it.
 */
#pragma once

#include <stddef.h>

/* Says what failed on stderr and aborts. Never returns. */
_Noreturn void check_failed(const char *expression, const char *file, int line,
                            const char *function);

#define CHECK(expression)                                                                          \
    ((expression) ? (void)0 : check_failed(#expression, __FILE__, __LINE__, __func__))

/* Memory that must be there: our allocations are small and bounded, so a NULL means that the
 * machine is out of memory. The process spends its reserve (reserve.h); without one it is replaced
 * rather than limping on. Large or peer-driven allocations use malloc() and handle NULL. All return
 * zeroed memory; free() frees. */
void *xcalloc(size_t count, size_t size) __attribute__((returns_nonnull, malloc));
void *xrealloc(void *memory, size_t size) __attribute__((returns_nonnull));
char *xstrdup(const char *text) __attribute__((returns_nonnull, malloc));
char *xstrndup(const char *text, size_t length) __attribute__((returns_nonnull, malloc));
char *xasprintf(const char *format, ...) __attribute__((returns_nonnull, format(printf, 1, 2)));
