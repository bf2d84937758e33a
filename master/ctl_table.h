/* SPDX-License-Identifier: Apache-2.0
 *
 * A table for people: columns as wide as what stands in them. Pure; runs in narwhalctl.
 */
#pragma once

#include <stddef.h>

struct buf;

#define CTL_COLUMNS_MAX 12

struct ctl_table {
    size_t columns;
    const char *const *heads; /* a head that begins with '>' is of a column aligned to the right */
    size_t cells_count;
    char **cells; /* owned */
};

/* heads stays the caller's. */
void ctl_table_init(struct ctl_table *table, const char *const *heads, size_t columns);
/* The next cell, row by row; the text is copied, with '?' for what could disturb a terminal. An
 * empty one is shown as "-". */
void ctl_table_add(struct ctl_table *table, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Adds the heads and the rows to out; nothing when there is no row. */
void ctl_table_print(const struct ctl_table *table, struct buf *out);
void ctl_table_release(struct ctl_table *table);
/* Replaces control characters, and bytes that are no UTF-8, in place; what is left is one line of
 * text. */
void ctl_make_harmless(char *text);
