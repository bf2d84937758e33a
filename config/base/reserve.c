/* SPDX-License-Identifier: Apache-2.0
 *
 * The reserve is never written: on a machine that has memory it costs addresses, no pages. Under
 * RLIMIT_AS, or without overcommitment, addresses are what runs out. Runs in workers; processes
 * that never fill it have none, and nothing changes for them.
 */
#include "config/base/reserve.h"

#include <stdlib.h>

static struct {
    void *memory;
    size_t bytes;
    bool is_short;
} reserve;

bool
memory_reserve_fill(size_t bytes)
{
    if (reserve.memory == NULL) {
        reserve.bytes = reserve.bytes > 0 ? reserve.bytes : bytes;
        reserve.memory = malloc(reserve.bytes);
    }
    reserve.is_short = reserve.memory == NULL;
    return !reserve.is_short;
}

bool
memory_reserve_spend(void)
{
    if (reserve.memory == NULL) {
        return false;
    }
    free(reserve.memory);
    reserve.memory = NULL;
    reserve.is_short = true;
    return true;
}

void
memory_reserve_release(void)
{
    free(reserve.memory);
    reserve.memory = NULL;
    reserve.bytes = 0;
    reserve.is_short = false;
}

bool
memory_is_short(void)
{
    return reserve.is_short;
}

void *
memory_reserve_realloc(void *memory, long size)
{
    void *grown;

    if (size <= 0) {
        free(memory);
        return NULL;
    }
    do {
        grown = realloc(memory, (size_t)size);
    } while (grown == NULL && memory_reserve_spend());
    return grown;
}
