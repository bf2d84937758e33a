/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests wait in queues on the scoreboard, and workers hand on what becomes free where a request
 * ends. What becomes free without that is the master's to hand out: what a dead worker held, an
 * instance that is READY, a server or more slots by new settings. Runs in the master.
 */
#pragma once

struct master;

/* Makes the socket that workers are woken from; the release of the master closes it. 0 or a
 * negative errno. */
int waiting_init(struct master *master);
/* Gives what is free to whoever waits. */
void waiting_serve(struct master *master);
/* After a worker's death, when its cell is given back: as waiting_serve(), counts anew what the
 * death left uncertain, and wakes those whom the dead may have served without waking them. */
void waiting_serve_after_death(struct master *master);
/* From time to time: counts what could not be counted after a death. */
void waiting_look(struct master *master);
