/* SPDX-License-Identifier: Apache-2.0
 *
 * Tables of narwhalctl: columns are as wide as the widest cell, and no cell can disturb a terminal.
 */
#include <criterion/criterion.h>

#include "config/base/buf.h"
#include "master/ctl_table.h"

static const char *const heads[] = {"NAME", ">COUNT", "NOTE"};

Test(ctl_table, columns_are_aligned)
{
    struct ctl_table table;
    struct buf out = {0};

    ctl_table_init(&table, heads, 3);
    ctl_table_add(&table, "%s", "caf\xc3\xa9s");
    ctl_table_add(&table, "%d", 7);
    ctl_table_add(&table, "%s", "");
    ctl_table_add(&table, "%s", "x");
    ctl_table_add(&table, "%d", 1234567);
    ctl_table_add(&table, "%s", "last");
    ctl_table_print(&table, &out);
    cr_expect_str_eq(out.ptr, "NAME     COUNT  NOTE\n"
                              "caf\xc3\xa9s        7  -\n"
                              "x      1234567  last\n");
    ctl_table_release(&table);
    buf_release(&out);
}

Test(ctl_table, without_rows_there_is_no_head)
{
    struct ctl_table table;
    struct buf out = {0};

    ctl_table_init(&table, heads, 3);
    ctl_table_print(&table, &out);
    cr_expect_eq(out.len, 0);
    ctl_table_release(&table);
}

Test(ctl_table, control_bytes_do_not_reach_the_terminal)
{
    char text[] = "a\x1b[31mb\r\n\x7f\xc3\xa9\xf0\x9f\x90\xb3";
    char eight_bits[] = "\xc2\x9b"
                        "31m\x9b"
                        "31m\xc2\xa0\xe2\x82";

    ctl_make_harmless(text);
    cr_expect_str_eq(text, "a?[31mb???\xc3\xa9\xf0\x9f\x90\xb3");
    ctl_make_harmless(eight_bits);
    cr_expect_str_eq(eight_bits, "??31m?31m\xc2\xa0??");
}
