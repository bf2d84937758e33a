/* SPDX-License-Identifier: Apache-2.0
 *
 * Trying random ports by binding to them.
 */
#include "master/free_port.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "config/base/fd.h"

#define LOWEST 10240
#define HIGHEST 32767
#define ATTEMPTS_MAX 256

/* The lowest port of outgoing connections. */
static int
outgoing_from(void)
{
    char text[64];
    int low;

    if (!fd_read_text("/proc/sys/net/ipv4/ip_local_port_range", text, sizeof(text)) ||
        sscanf(text, "%d", &low) != 1) {
        return HIGHEST + 1;
    }
    return low;
}

static int
try_port(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr = {.s_addr = htonl(INADDR_ANY)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd == -1) {
        return -errno;
    }
    int result = bind(fd, (const struct sockaddr *)&address, sizeof(address)) == -1 ? -errno : port;
    fd_close(&fd);
    return result;
}

int
free_port_find(void)
{
    int highest = outgoing_from() - 1;
    int result = -EADDRINUSE;

    if (highest > HIGHEST || highest < LOWEST + 1024) {
        highest = HIGHEST;
    }
    for (int i = 0; i < ATTEMPTS_MAX && result == -EADDRINUSE; i++) {
        uint32_t number = (uint32_t)i * 2654435761u;
        (void)!getrandom(&number, sizeof(number), GRND_NONBLOCK); /* else: in a fixed order */
        result = try_port(LOWEST + (int)(number % (uint32_t)(highest - LOWEST + 1)));
    }
    return result;
}
