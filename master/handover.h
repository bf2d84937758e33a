/* SPDX-License-Identifier: Apache-2.0
 *
 * struct master into struct state: what the program that takes over must know (takeover.h reads
 * it). Changes nothing. Runs in the master.
 */
#pragma once

struct master;
struct state;

/* Fills a zero state. program_fd is that of this program's own file. */
void handover_fill(const struct master *master, int program_fd, struct state *ret_state);
