/* SPDX-License-Identifier: Apache-2.0
 *
 * Who listens on a TCP port: for the message of a failed bind. Reads /proc, bounded. Runs in the
 * master.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct address;
struct buf;

/* Adds "pid 123 (nginx)" for the process that listens where address wants to; false, and nothing
 * added, when it cannot be seen (another user's process, another container's). */
bool port_holder_find(const struct address *address, struct buf *out);

/* Reads one line of /proc/net/tcp or tcp6: true for a listening socket, with its port (in host
 * order) and inode. */
bool port_holder_parse_line(const char *line, uint16_t *ret_port, uint64_t *ret_inode);
