/* SPDX-License-Identifier: Apache-2.0
 *
 * The commands of the control socket: a line in, a line of JSON out. Runs in the master.
 */
#pragma once

struct buf;
struct master;

enum control_result {
    CONTROL_ANSWERED = 0,
    CONTROL_LISTENS /* the client gets events from now on */
};

/* Adds the answer to out, without the line end. An answer that begins with "error" refuses. */
enum control_result control_command_run(struct master *master, const char *line, struct buf *out);
/* An answer that refuses. */
void control_command_refuse(struct buf *out, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
