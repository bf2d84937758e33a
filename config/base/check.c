/* SPDX-License-Identifier: Apache-2.0
 *
 * The last words of a process whose invariants broke. Runs in every process.
 */
#include "config/base/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/reserve.h"

_Noreturn void
check_failed(const char *expression, const char *file, int line, const char *function)
{
    (void)fprintf(stderr, "narwhal: CHECK(%s) failed in %s() at %s:%d: this is a bug in narwhal\n",
                  expression, function, file, line);
    abort();
}

void *
xcalloc(size_t count, size_t size)
{
    void *memory;

    do {
        memory = calloc(count, size);
    } while (memory == NULL && memory_reserve_spend());
    CHECK(memory != NULL);
    return memory;
}

void *
xrealloc(void *memory, size_t size)
{
    void *grown;

    do {
        grown = realloc(memory, size > 0 ? size : 1);
    } while (grown == NULL && memory_reserve_spend());
    CHECK(grown != NULL);
    return grown;
}

char *
xstrdup(const char *text)
{
    char *copy = strdup(text);

    CHECK(copy != NULL);
    return copy;
}

char *
xstrndup(const char *text, size_t length)
{
    char *copy = strndup(text, length);

    CHECK(copy != NULL);
    return copy;
}

char *
xasprintf(const char *format, ...)
{
    char *text = NULL;
    va_list args;

    va_start(args, format);
    int length = vasprintf(&text, format, args);
    va_end(args);
    CHECK(length >= 0);
    return text;
}
