/* SPDX-License-Identifier: Apache-2.0
 *
 * Who listens on a TCP port: for the message of a failed bind. Reads /proc, bounded. Runs in the
 * master.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct address;
struct buf;

/* Adds "pid 123 (nginx)" for the process that listens where address wants to; false, and nothing
 * added, when it cannot be seen (another user's process, another container's). */
bool port_holder_find(const struct address *address, struct buf *out);

struct port_listener {
    uint16_t port; /* in host order */
    uint8_t host[16];
    size_t host_size; /* 4 or 16 */
    uint64_t inode;
};

/* Reads one line of /proc/net/tcp or tcp6: true for a listening socket. */
bool port_holder_parse_line(const char *line, struct port_listener *ret_listener);
/* Whether it, or one that it may be, keeps others from listening on a TCP address. */
bool port_holder_is_in_the_way(const struct port_listener *listener, const struct address *address);
