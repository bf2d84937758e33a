/* SPDX-License-Identifier: Apache-2.0
 *
 * How a child's end is told, and what its states are called.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "master/child.h"

/* Wait statuses as wait(2) encodes them. */
#define EXITED(code) ((code) << 8)
#define KILLED(number) (number)
#define DUMPED(number) ((number) | 0x80)

Test(child, an_end_has_words)
{
    char text[CHILD_DEATH_TEXT_MAX];

    child_describe_status(EXITED(0), text);
    cr_expect_str_eq(text, "exit=0");
    child_describe_status(EXITED(3), text);
    cr_expect_str_eq(text, "exit=3");
    child_describe_status(KILLED(SIGKILL), text);
    cr_expect_str_eq(text, "signal=SIGKILL");
    child_describe_status(DUMPED(SIGSEGV), text);
    cr_expect_str_eq(text, "signal=SIGSEGV core=yes");
}

Test(child, a_limit_has_its_name)
{
    cr_expect_not_null(strstr(child_start_hint(EAGAIN), "TasksMax="));
    cr_expect_not_null(strstr(child_start_hint(EMFILE), "LimitNOFILE="));
    cr_expect_str_eq(child_start_hint(EIO), "");
}

Test(child, every_state_has_a_name_and_a_place_on_the_scoreboard)
{
    for (int state = 0; state < CHILD_STATE_COUNT; state++) {
        cr_assert_not_null(child_state_name((enum child_state)state));
        cr_expect_lt(child_board_state((enum child_state)state), BOARD_STATE_COUNT);
    }
    cr_expect_eq(child_board_state(CHILD_GONE), BOARD_FREE);
    cr_expect_eq(child_board_state(CHILD_READY), BOARD_READY);
    cr_expect_eq(child_board_state(CHILD_KILLED), BOARD_DRAINING);
}
