/* SPDX-License-Identifier: Apache-2.0
 *
 * The queue of one backend: requests of all workers that wait for a slot, first in, first out, in
 * shared memory and without a lock. A request that waits has a ticket: its place in a ring. Whoever
 * has a free slot hands it to the oldest ticket by one compare-and-swap, and wakes the worker that
 * the ticket belongs to; that worker takes it. A ticket is one word, so at every moment it waits,
 * has a slot, or is gone, whoever dies. See docs/adr/0010. Runs in workers, and in the master,
 * which cleans up behind dead workers and hands out what became free outside of a request.
 *
 * While a ticket has a slot that its worker did not take, the claim is the ticket's: in_flight of
 * the server counts it, no cell does.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "worker/scoreboard.h"

#define SLOT_QUEUE_ANY UINT32_MAX  /* instead of a server: none in particular */
#define SLOT_QUEUE_LIMIT_MAX 16000 /* of a queue's length; below BOARD_QUEUE_PLACES */

/* Puts a request of cell at the end; it may be handed any server but `but` (SLOT_QUEUE_ANY: none is
 * excluded). 0 and its place, or -ENOSPC when limit wait already. The caller looks for a free slot
 * after it: one may have become free in between. Worker. */
int slot_queue_enter(struct board_queue *queue, uint32_t cell, uint32_t limit, uint32_t but,
                     uint64_t *ret_place);
/* Whether somebody waits who could be handed server (SLOT_QUEUE_ANY: who waits at all). */
bool slot_queue_wants(struct board_queue *queue, uint32_t server);
/* Hands one claim of cell on server to the oldest ticket that wants it: false when none does, and
 * the claim stays the cell's. *ret_cell: whom to wake. Worker. */
bool slot_queue_hand_over(struct scoreboard *board, struct board_queue *queue, uint32_t cell,
                          uint32_t server, uint32_t *ret_cell);

/* The place of a ticket of one's own: whether it was handed a server. */
bool slot_queue_is_handed(const struct board_queue *queue, uint64_t place, uint32_t *ret_server);
/* Takes what it was handed: the claim is the cell's from here on. Returns the server. Worker. */
uint32_t slot_queue_take(struct scoreboard *board, struct board_queue *queue, uint32_t cell,
                         uint64_t place);
/* Leaves: true when it was still waiting. false: it had been handed a server meanwhile, and the
 * claim is the cell's now, as after slot_queue_take(). Worker. */
bool slot_queue_leave(struct scoreboard *board, struct board_queue *queue, uint32_t cell,
                      uint64_t place, uint32_t *ret_server);

/* How many wait, over all workers. */
uint32_t slot_queue_waiting(const struct board_queue *queue);
/* Tickets that were handed server and not taken. */
uint32_t slot_queue_handed_out(const struct board_queue *queue, uint32_t server);

/* ---- the master ----------------------------------------------------------------------------- */

/* Finds the queue of a backend by its name; BOARD_QUEUES_MAX: none. */
uint32_t slot_queue_find(const struct scoreboard *board, const char *backend);
/* Forgets the tickets of a dead worker; handed[server] grows by what they had been handed. */
void slot_queue_retire_cell(struct board_queue *queue, uint32_t cell,
                            uint32_t handed[BOARD_SERVERS_MAX]);
/* Calls wake for each cell that has requests waiting: who died may have handed them something and
 * not have come to wake them. */
void slot_queue_wake_all(const struct board_queue *queue,
                         void (*wake)(void *context, uint32_t cell), void *context);
/* Claims what is free at those of records that are READY and hands it to who waits: after a death,
 * a boot, new settings, a server that the operator brought back. is_probed: the backend has a
 * health_path. wake is called for each cell that was handed something. */
void slot_queue_serve(struct scoreboard *board, struct board_queue *queue, const uint32_t *records,
                      uint32_t count, bool is_probed, int64_t now_ms,
                      void (*wake)(void *context, uint32_t cell), void *context);
