/* SPDX-License-Identifier: Apache-2.0
 *
 * Where a process stood when a signal ended it: its stack, in the log. All processes of narwhal.
 */
#pragma once

/* From now on SIGABRT (the master sends it to a worker that hangs; abort() is a broken CHECK) and
 * the signals of a fault write the stack to the log before they end the process as they would
 * have. Children inherit it by fork() and lose it by exec(). Call once, before there are threads or
 * children. */
void stack_trace_on_crash(void);
