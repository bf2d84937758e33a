/* SPDX-License-Identifier: Apache-2.0
 *
 * The state of the service as JSON: what `narwhalctl status` shows. Runs in the master.
 */
#pragma once

struct buf;
struct master;

void status_print_ping(const struct master *master, struct buf *out);
void status_print(struct master *master, struct buf *out);
/* Its parts, each as an object of its own. */
void status_print_workers(struct master *master, struct buf *out);
void status_print_backends(struct master *master, struct buf *out);
void status_print_lanes(struct master *master, struct buf *out);
/* The first line of a stream of events: where it begins. */
void status_print_listening(struct master *master, struct buf *out);
