/* SPDX-License-Identifier: Apache-2.0
 *
 * Waking another worker's loop without the master in between: each worker has a datagram socket
 * whose abstract name the kernel chose (unix(7), autobind) and which stands in its cell. So it
 * needs no descriptor of anybody else, and works between workers that were born before and after an
 * upgrade. A datagram says nothing but "look": whoever sends one, and however often, changes
 * nothing. Used by workers and by the master.
 */
#pragma once

#include <stdbool.h>

#include "worker/scoreboard.h"

/* A socket to send from; 0 with it in *ret_fd, or a negative errno. */
int wake_open(int *ret_fd);
/* As wake_open(), and the socket gets a name of its own, written to ret_name. */
int wake_listen(int *ret_fd, unsigned char ret_name[BOARD_WAKE_NAME]);
/* Wakes who has name. It cannot fail in a way that matters: a socket that takes no more has what
 * wakes it already, and one that is gone has nobody to be woken. */
void wake_send(int fd, const unsigned char name[BOARD_WAKE_NAME]);
/* Takes what came, bounded. */
void wake_clear(int fd);
