/* SPDX-License-Identifier: Apache-2.0
 *
 * Telling the service manager how it goes: the datagram protocol of sd_notify(3), without
 * libsystemd, which containers and musl do not have. What is told is up to service.c and
 * fd_store.c; this is the way there. Runs in the master.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct ev_loop;

/* Reads NOTIFY_SOCKET. Without one every other function does nothing. With a loop (which may be
 * NULL) messages that the manager does not take now are sent when it does. */
void notify_open(struct ev_loop *loop);
void notify_close(void);
/* Whether there is a manager to talk to. */
bool notify_is_on(void);
/* Sends one message: lines of VARIABLE=VALUE. Never blocks: in order, behind those that wait. A
 * manager that cannot be reached is told of once, and tried again with the next message. */
void notify_send(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same for what is sent anew before long: dropped while the manager does not read. Returns
 * whether it was taken. */
bool notify_send_status(const char *text);
/* Sends a message with a descriptor, which stays the caller's. 0, -EAGAIN when the manager does not
 * take it now (master_changed() is called when it does), or another negative errno, told once. */
int notify_send_fd(int fd, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* How often WATCHDOG=1 is wanted (half of WATCHDOG_USEC), 0: not at all. */
int64_t notify_watchdog_ms(void);
