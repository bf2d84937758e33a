/* SPDX-License-Identifier: Apache-2.0
 *
 * The parent of a process, also of one whose name tries to be another line.
 */
#include <criterion/criterion.h>
#include <unistd.h>

#include "config/base/fd.h"
#include "master/control_peer.h"

Test(control_peer, parent_in_the_text_of_proc)
{
    char text[1024];

    cr_assert(fd_read_text("/proc/self/stat", text, sizeof(text)));
    cr_expect_eq(control_peer_parse_parent(text), getppid());
    cr_expect_eq(control_peer_parse_parent("12 (cat) S 7 12 7 0"), 7);
    cr_expect_eq(control_peer_parse_parent("12 (a) S 1 (b) R 9 12"), 9, "the name is a) S 1 (b");
}

Test(control_peer, what_is_no_such_text_has_no_parent)
{
    static const char *const bad[] = {
        "",           "12",           "12 (cat",       "12 (cat)",
        "12 (cat) S", "12 (cat) S x", "12 (cat) S -3", "12 (cat) S 0"};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        cr_expect_eq(control_peer_parse_parent(bad[i]), 0, "%s", bad[i]);
    }
}
