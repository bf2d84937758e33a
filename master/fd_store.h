/* SPDX-License-Identifier: Apache-2.0
 *
 * What outlives the master: systemd keeps duplicates of its lanes and of the scoreboard (FDSTORE of
 * sd_notify(3), FileDescriptorStoreMax= of systemd.service(5)) and passes them to the next master.
 * After a crash, a kill or "systemctl restart" no connection is refused, and none that waits in a
 * queue is reset. On only when $FDSTORE says that there is a store: systemd 254 sets it, for older
 * ones the unit does. Runs in the master.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct config;
struct listen_address;
struct master;
struct scoreboard;
struct stat;

/* Reads what was passed back. Once, at the start; not in a program that takes over. */
void fd_store_collect(void);
bool fd_store_is_on(void);

/* Lets go of what is stored of addresses that the settings do not bind any more, before others are
 * bound: they may be in their way. */
void fd_store_drop_unwanted(const struct config *config);
/* Takes a stored lane of an address with the lowest home: its descriptor, which is the caller's
 * then, -1: no more. *ret_kept is false when it has to be stored again under its new home. ret_node
 * says which file its unix socket was. */
int fd_store_take_lane(const char *address, uint32_t home, bool *ret_kept, struct stat *ret_node);
/* What a predecessor had counted and remembered goes on in the new board. */
void fd_store_import_board(struct scoreboard *board);

/* Stores what is not stored yet; idempotent. */
void fd_store_reconcile(struct master *master);
/* The address is no longer wanted: systemd shall close its lanes, too. */
void fd_store_forget_address(struct listen_address *address);
/* The master stops in good order: the next one counts from 0. The lanes stay: nobody knows yet
 * whether this is a restart. */
void fd_store_forget_board(void);
