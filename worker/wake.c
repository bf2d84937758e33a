/* SPDX-License-Identifier: Apache-2.0
 *
 * Datagrams of no bytes between autobound sockets. The kernel's names are a NUL and five hex
 * digits, unused in the network namespace at that moment: nobody can take one before us.
 */
#include "worker/wake.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "config/base/fd.h"

#define NAME_OFFSET offsetof(struct sockaddr_un, sun_path)
/* More than wait in a socket by default (net.unix.max_dgram_qlen is 10). */
#define CLEAR_MAX 16

int
wake_open(int *ret_fd)
{
    *ret_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return *ret_fd == -1 ? -errno : 0;
}

int
wake_listen(int *ret_fd, unsigned char ret_name[BOARD_WAKE_NAME])
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t length = sizeof(address);
    int fd = -1;
    int result = wake_open(&fd);

    if (result == 0 && (bind(fd, (const struct sockaddr *)&address, sizeof(sa_family_t)) == -1 ||
                        getsockname(fd, (struct sockaddr *)&address, &length) == -1)) {
        result = -errno;
    }
    if (result == 0 && (length <= NAME_OFFSET + 1 || length - NAME_OFFSET > BOARD_WAKE_NAME)) {
        result = -ENAMETOOLONG;
    }
    if (result != 0) {
        fd_close(&fd);
        return result;
    }
    /* Without its first byte, which is NUL, and with its length instead: a name of 0 is none. */
    ret_name[0] = (unsigned char)(length - NAME_OFFSET);
    memcpy(ret_name + 1, address.sun_path + 1, length - NAME_OFFSET - 1);
    *ret_fd = fd;
    return 0;
}

void
wake_send(int fd, const unsigned char name[BOARD_WAKE_NAME])
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = name[0];

    if (length > 1 && length <= BOARD_WAKE_NAME) {
        memcpy(address.sun_path + 1, name + 1, length - 1);
        (void)sendto(fd, "", 0, MSG_DONTWAIT | MSG_NOSIGNAL, (const struct sockaddr *)&address,
                     (socklen_t)(NAME_OFFSET + length));
    }
}

void
wake_clear(int fd)
{
    char byte;

    for (int i = 0; i < CLEAR_MAX && recv(fd, &byte, sizeof(byte), MSG_DONTWAIT) != -1; i++) {
    }
}
