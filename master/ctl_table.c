/* SPDX-License-Identifier: Apache-2.0
 *
 * Cells are kept until all are there, because the widest decides. Pure; runs in narwhalctl.
 */
#include "master/ctl_table.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/base/utf8.h"

#define CELL_MAX 512

void
ctl_make_harmless(char *text)
{
    size_t left = strlen(text);

    while (left > 0) {
        const unsigned char *p = (const unsigned char *)text;
        size_t length = utf8_length(p, left);
        bool is_c1 = length == 2 && p[0] == 0xc2 && p[1] < 0xa0; /* U+009B begins as ESC [ does */
        if (length == 0 || is_c1) {
            bool is_plain = p[0] >= 0x20 && p[0] < 0x7f;
            length = length > 0 ? length : 1;
            if (!is_plain) {
                memset(text, '?', length);
            }
        }
        text += length;
        left -= length;
    }
}

void
ctl_table_init(struct ctl_table *table, const char *const *heads, size_t columns)
{
    CHECK(columns <= CTL_COLUMNS_MAX);
    *table = (struct ctl_table){.columns = columns, .heads = heads};
}

void
ctl_table_add(struct ctl_table *table, const char *format, ...)
{
    char text[CELL_MAX];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    ctl_make_harmless(text);
    table->cells = xrealloc(table->cells, (table->cells_count + 1) * sizeof(*table->cells));
    table->cells[table->cells_count++] = xstrdup(text[0] != '\0' ? text : "-");
}

/* Characters of UTF-8 text, which may be fewer than its bytes. */
static size_t
width_of(const char *text)
{
    size_t width = 0;

    for (; *text != '\0'; text++) {
        width += ((unsigned char)*text & 0xc0) != 0x80;
    }
    return width;
}

static const char *
head_text(const char *head)
{
    return head[0] == '>' ? head + 1 : head;
}

static void
add_cell(const struct ctl_table *table, const size_t *widths, size_t column, const char *text,
         struct buf *out)
{
    bool to_the_right = table->heads[column][0] == '>';
    bool is_last = column + 1 == table->columns;
    int pad = (int)(widths[column] - width_of(text));

    if (to_the_right) {
        buf_addf(out, "%*s", pad, "");
    }
    buf_add_text(out, text);
    if (!is_last) {
        buf_addf(out, "%*s  ", to_the_right ? 0 : pad, "");
    } else {
        buf_add_text(out, "\n");
    }
}

void
ctl_table_print(const struct ctl_table *table, struct buf *out)
{
    size_t widths[CTL_COLUMNS_MAX];

    for (size_t column = 0; column < table->columns; column++) {
        widths[column] = width_of(head_text(table->heads[column]));
    }
    for (size_t i = 0; i < table->cells_count; i++) {
        size_t width = width_of(table->cells[i]);
        size_t *widest = &widths[i % table->columns];
        *widest = width > *widest ? width : *widest;
    }
    for (size_t column = 0; column < table->columns && table->cells_count > 0; column++) {
        add_cell(table, widths, column, head_text(table->heads[column]), out);
    }
    for (size_t i = 0; i < table->cells_count; i++) {
        add_cell(table, widths, i % table->columns, table->cells[i], out);
    }
}

void
ctl_table_release(struct ctl_table *table)
{
    for (size_t i = 0; i < table->cells_count; i++) {
        free(table->cells[i]);
    }
    free(table->cells);
    table->cells = NULL;
    table->cells_count = 0;
}
