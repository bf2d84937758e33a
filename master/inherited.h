/* SPDX-License-Identifier: Apache-2.0
 *
 * Listening sockets that the process was started with: systemd's LISTEN_FDS, or a shell's. Runs in
 * the master.
 */
#pragma once

#include <stdbool.h>

struct buf;

/* Looks at every descriptor from 3 on, once, before anything is opened: only what stood open then
 * can be meant by fd://N. The listening stream sockets among them become CLOEXEC and
 * non-blocking. */
void inherited_collect(void);
/* The same in a program that takes over: those of its predecessor, and no others, because by now
 * the lanes stand open too. Out of range: ignored. */
void inherited_restore(int fd);
/* Those that inherited_collect() found, one after the other: the first from after = -1; -1: no
 * more. */
int inherited_next(int after);
/* 0 when descriptor fd may serve as a lane, else a negative errno with the reason in error. */
int inherited_check(int fd, struct buf *error);
