/* SPDX-License-Identifier: Apache-2.0
 *
 * The growing buffer: what is added comes out, NUL-terminated, whatever the sizes.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/buf.h"

Test(buf, keeps_all_that_was_added_in_order)
{
    struct buf buf = {0};

    buf_add_text(&buf, "one ");
    buf_add_str(&buf, (struct str){"two three", 3});
    buf_add(&buf, "", 0);
    buf_addf(&buf, " %d %s", 3, "four");
    cr_assert_str_eq(buf.ptr, "one two 3 four");
    cr_assert_eq(buf.len, strlen(buf.ptr));
    buf_release(&buf);
    cr_assert_null(buf.ptr);
    cr_assert_eq(buf.len, 0);
}

Test(buf, is_terminated_at_every_length)
{
    struct buf buf = {0};

    for (size_t i = 0; i < 5000; i++) {
        char byte = (char)('a' + i % 26);
        buf_add(&buf, &byte, 1);
        cr_assert_eq(buf.len, i + 1);
        cr_assert_eq(buf.ptr[i + 1], '\0');
        cr_assert_gt(buf.cap, buf.len);
    }
    for (size_t i = 0; i < 5000; i++) {
        cr_assert_eq(buf.ptr[i], (char)('a' + i % 26));
    }
    buf_release(&buf);
}

Test(buf, adding_nothing_makes_an_empty_text)
{
    struct buf buf = {0};

    buf_add_text(&buf, "");
    cr_assert_str_eq(buf.ptr, "");
    buf_release(&buf);
}

Test(buf, holds_any_byte)
{
    struct buf buf = {0};

    buf_add(&buf, "a\0b", 3);
    cr_assert_eq(buf.len, 3);
    cr_assert_arr_eq(buf.ptr, "a\0b", 4);
    buf_release(&buf);
}

Test(buf, a_formatted_text_longer_than_the_room_is_whole)
{
    struct buf buf = {0};
    char *long_text = malloc(100001);

    memset(long_text, 'x', 100000);
    long_text[100000] = '\0';
    buf_addf(&buf, "<%s>", long_text);
    cr_assert_eq(buf.len, 100002);
    cr_assert_eq(buf.ptr[0], '<');
    cr_assert_eq(buf.ptr[100001], '>');
    free(long_text);
    buf_release(&buf);
}

Test(buf, clear_keeps_the_memory_and_take_gives_it_away)
{
    struct buf buf = {0};

    buf_add_text(&buf, "gone");
    char *memory = buf.ptr;
    buf_clear(&buf);
    cr_assert_eq(buf.len, 0);
    buf_add_text(&buf, "new");
    cr_assert_eq(buf.ptr, memory);
    char *taken = buf_take(&buf);
    cr_assert_str_eq(taken, "new");
    cr_assert_null(buf.ptr);
    cr_assert_eq(buf.cap, 0);
    free(taken);
}
