/* SPDX-License-Identifier: Apache-2.0
 *
 * What a new child does before it becomes a worker or an application: the explicit list of what it
 * must not keep. Runs in the child.
 */
#pragma once

#include <stddef.h>

/* Closes every descriptor but 0, 1, 2 and those in keep[] (-1 entries are skipped). */
void after_fork_close_all_but(const int *keep, size_t count);
/* A process group of its own: a terminal's Ctrl-C and hang-up reach the master alone. */
void after_fork_leave_group(void);
