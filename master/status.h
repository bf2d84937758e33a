/* SPDX-License-Identifier: Apache-2.0
 *
 * The state of the service as JSON: what `narwhalctl status` shows. Runs in the master.
 */
#pragma once

struct buf;
struct master;

void status_print_ping(const struct master *master, struct buf *out);
void status_print(struct master *master, struct buf *out);
