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
/* 0 when descriptor fd may serve as a lane, else a negative errno with the reason in error. */
int inherited_check(int fd, struct buf *error);
