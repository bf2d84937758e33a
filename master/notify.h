/* SPDX-License-Identifier: Apache-2.0
 *
 * Telling the service manager how it goes: the datagram protocol of sd_notify(3), without
 * libsystemd, which containers and musl do not have. Runs in the master.
 */
#pragma once

#include <stdint.h>

/* Reads NOTIFY_SOCKET. Without one every other function does nothing. */
void notify_open(void);
void notify_close(void);
/* Sends one message: lines of VARIABLE=VALUE. Never blocks; a failure is told once, at debug. */
void notify_send(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* How often WATCHDOG=1 is wanted (half of WATCHDOG_USEC), 0: not at all. */
int64_t notify_watchdog_ms(void);
