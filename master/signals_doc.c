/* SPDX-License-Identifier: Apache-2.0
 *
 * A build tool: prints docs/SIGNALS.md from the table that the master uses. A test fails when the
 * file in the repository is another one.
 */
#include <stdio.h>

int
main(void)
{
    (void)puts(
        "<!-- Generated from master/signals.def; run the target signals_doc to renew. -->\n"
        "# Signals\n"
        "\n"
        "Send signals to the master alone: its pid is in the pid file, in the log, and in "
        "`narwhalctl status`.\nWorkers and app instances are in process groups of their own, "
        "so Ctrl-C in a terminal reaches the\nmaster only, and the master tells them.\n"
        "\n"
        "| signal | action |\n"
        "|---|---|");
#define SIGNAL(name, action, documentation) (void)puts("| SIG" #name " | " documentation " |");
#include "master/signals.def"
    (void)puts(
        "\nSIGPIPE is ignored. A worker that loses its master finishes its requests and "
        "leaves; an app instance\ngets SIGTERM. A worker that gets SIGTERM itself has the "
        "master put a successor in its place, and\nleaves then. Signals that are sent at the "
        "same moment have no order: the kernel hands them over by their\nnumbers, so let a "
        "line of the log confirm one before the next is sent.");
    return 0;
}
