/* SPDX-License-Identifier: Apache-2.0
 *
 * The worker process, as the master sees it: one function.
 */
#pragma once

#include "worker/heritage.h"

/* Exit status of a worker that could not use its settings: the master says so and backs off. */
#define WORKER_EXIT_OK 0
#define WORKER_EXIT_BOOT_FAILED 3

/* Runs a worker until it is told to leave or loses its master, and returns its exit status. Called
 * in the child right after fork(): signals have their default actions, only the descriptors of
 * heritage are open, the log is set up. Makes its own event loop; the master's is never touched. */
int worker_main(const struct heritage *heritage);
