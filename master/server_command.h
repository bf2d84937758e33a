/* SPDX-License-Identifier: Apache-2.0
 *
 * The command of the control socket that takes a server out and brings it back. Runs in the master.
 */
#pragma once

struct buf;
struct master;

/* arguments: "BACKEND ADDRESS drain|disable|enable". Adds the JSON answer, or one that begins with
 * "error", to out. */
void server_command_run(struct master *master, const char *arguments, struct buf *out);
