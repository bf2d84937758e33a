/* SPDX-License-Identifier: Apache-2.0
 *
 * Listening sockets that the process was started with: systemd's LISTEN_FDS, or a shell's. Runs in
 * the master.
 */
#pragma once

#include <stdbool.h>

struct buf;

/* The names of descriptors that narwhal itself had stored (fd_store.h): the one, and all that begin
 * like the other. No more than these: a unit narwhal-https.socket passes its sockets under that
 * name. */
#define INHERITED_BOARD_NAME "narwhal-board"
#define INHERITED_LANE_PREFIX "narwhal-lane,"

/* Looks at every descriptor from 3 on, once, before anything is opened: only what stood open then
 * can be meant by fd://N. The listening stream sockets among them become CLOEXEC and
 * non-blocking, what narwhal had stored CLOEXEC. */
void inherited_collect(void);
/* The same in a program that takes over: those of its predecessor, and no others, because by now
 * the lanes stand open too. Out of range: ignored. */
void inherited_restore(int fd);
/* Those that inherited_collect() found and that narwhal had not stored, one after the other: the
 * first from after = -1; -1: no more. */
int inherited_next(int after);
/* 0 when descriptor fd may serve as a lane, else a negative errno with the reason in error. */
int inherited_check(int fd, struct buf *error);

/* The next descriptor behind after that LISTEN_FDS passed under a name (LISTEN_FDNAMES) and that
 * may serve as a lane; -1: no more. */
int inherited_named_next(const char *name, int after);
/* 0 when every descriptor that was passed under the name may serve as a lane and there is one, else
 * a negative errno with the reason in error. */
int inherited_named_check(const char *name, struct buf *error);
/* The next descriptor that narwhal itself had stored, with its name, which lives as long as the
 * process; -1: no more. */
int inherited_stored_next(int after, const char **ret_name);
/* Tells of what was announced and cannot be used, and of sockets that nobody would accept from
 * because is_used() knows no bind for them. */
void inherited_tell_unused(bool (*is_used)(int fd, const char *name, void *context), void *context);
