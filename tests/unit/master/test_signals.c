/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of signals.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "master/signals.h"

Test(signals, every_row_is_whole_and_says_its_own_name)
{
    for (size_t i = 0; i < SIGNAL_ROW_COUNT; i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "SIG%s", sigabbrev_np(signal_rows[i].number));
        cr_expect_str_eq(signal_rows[i].name, name);
        cr_expect_not_null(signal_rows[i].act);
        cr_expect_gt(strlen(signal_rows[i].documentation), 5);
        for (size_t other = 0; other < i; other++) {
            cr_expect_neq(signal_rows[i].number, signal_rows[other].number);
        }
    }
}

Test(signals, the_signals_of_the_manual_are_there)
{
    static const int wanted[] = {SIGHUP,  SIGTERM, SIGINT,  SIGQUIT,  SIGTTIN,
                                 SIGTTOU, SIGUSR1, SIGUSR2, SIGWINCH, SIGCHLD};

    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        bool found = false;
        for (size_t row = 0; row < SIGNAL_ROW_COUNT; row++) {
            found = found || signal_rows[row].number == wanted[i];
        }
        cr_expect(found, "%s", sigabbrev_np(wanted[i]));
    }
    cr_expect_eq(sizeof(wanted) / sizeof(wanted[0]), SIGNAL_ROW_COUNT);
}
