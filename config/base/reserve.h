/* SPDX-License-Identifier: Apache-2.0
 *
 * A piece of memory that a process sets aside, to give it up when the allocator has no more: what
 * cannot fail half-way (libev, small objects of our own) then still gets its memory, and the
 * process knows that it must take on nothing new. One per process; used by workers.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Sets the reserve aside, or again what was spent of it. false: there is no memory for it now, and
 * memory_is_short() stays true. bytes counts at the first call. */
bool memory_reserve_fill(size_t bytes);
/* Gives the reserve up; false when there is none. */
bool memory_reserve_spend(void);
/* Gives it back for good, at the end of the process. */
void memory_reserve_release(void);
/* Whether it was spent and is not there again. */
bool memory_is_short(void);
/* realloc(3) that spends the reserve before it fails; size 0 frees. For ev_set_allocator(). */
void *memory_reserve_realloc(void *memory, long size);
