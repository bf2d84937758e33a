/* SPDX-License-Identifier: Apache-2.0
 *
 * struct heritage: all that a worker is born with. The master fills it in before fork(); after it
 * the child closes every descriptor that is not named here. Everything else comes over the channel.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct scoreboard;

struct heritage {
    int channel_fd;    /* the worker's end of its control channel */
    int error_log_fd;  /* where the log already goes */
    int access_log_fd; /* -1: off */
    struct scoreboard *board;
    uint32_t cell; /* its record on the board */
    uint32_t slot; /* its stable number: "worker 2" */
    uint32_t generation;
    pid_t master_pid;
    bool lanes_are_kept; /* the service manager has them: another master will serve their queues */
};
