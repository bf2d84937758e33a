/* SPDX-License-Identifier: Apache-2.0
 *
 * One datagram socket, connected to NOTIFY_SOCKET once. The state is static: a process has one
 * service manager.
 */
#include "master/notify.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "config/base/fd.h"
#include "config/base/log.h"

#define MESSAGE_MAX 1024

static struct {
    int fd;
    bool told;
} notify = {.fd = -1};

static void
tell_once(const char *what)
{
    if (!notify.told) {
        log_debug("the service manager is not told: %s: %s", what, strerror(errno));
        notify.told = true;
    }
}

void
notify_open(void)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    notify.told = false;
    if (path == NULL || (path[0] != '/' && path[0] != '@')) {
        return;
    }
    size_t length = strlen(path);
    if (length >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        tell_once("NOTIFY_SOCKET");
        return;
    }
    memcpy(address.sun_path, path, length);
    if (path[0] == '@') {
        address.sun_path[0] = '\0'; /* abstract, unix(7) */
    }
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    notify.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (notify.fd == -1 || connect(notify.fd, (struct sockaddr *)&address, size) == -1) {
        tell_once("NOTIFY_SOCKET");
        fd_close(&notify.fd);
    }
}

void
notify_close(void)
{
    fd_close(&notify.fd);
}

void
notify_send(const char *format, ...)
{
    char message[MESSAGE_MAX];
    va_list args;

    if (notify.fd == -1) {
        return;
    }
    va_start(args, format);
    int length = vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    if (length < 0) {
        return;
    }
    size_t size = (size_t)length < sizeof(message) ? (size_t)length : sizeof(message) - 1;
    if (send(notify.fd, message, size, MSG_NOSIGNAL) == -1) {
        tell_once("send");
    }
}

int64_t
notify_watchdog_ms(void)
{
    const char *usec = getenv("WATCHDOG_USEC");
    const char *pid = getenv("WATCHDOG_PID");

    if (notify.fd == -1 || usec == NULL || (pid != NULL && atoi(pid) != (int)getpid())) {
        return 0;
    }
    long long value = atoll(usec);
    return value >= 2000 ? (int64_t)(value / 2000) : 0;
}
