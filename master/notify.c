/* SPDX-License-Identifier: Apache-2.0
 *
 * One datagram socket, connected to NOTIFY_SOCKET. The state is static: a process has one service
 * manager. Messages that it does not take now (its queue is short, net.unix.max_dgram_qlen) wait in
 * ours, because one READY=1 that is lost is a start that times out.
 *
 * Invariants: the watcher is active exactly while somebody waits; a descriptor is never sent before
 * a message that was there earlier.
 */
#include "master/notify.h"

#include <errno.h>
#include <ev.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "config/base/check.h"
#include "config/base/fd.h"
#include "config/base/list.h"
#include "config/base/log.h"
#include "master/master.h"

#define MESSAGE_MAX 2048
/* Messages that wait. A manager that is so far behind is restarted itself before long. */
#define QUEUE_MAX 128

struct message {
    struct list_node node;
    size_t length;
    char text[];
};

static struct {
    int fd; /* -1: there is no manager, or it cannot be reached now */
    struct sockaddr_un address;
    socklen_t address_length; /* 0: there is no manager */
    bool told;
    struct ev_loop *loop;
    ev_io writable;
    bool fd_waits; /* notify_send_fd() was refused */
    size_t queue_length;
    struct list_node queue; /* of struct message */
} notify = {.fd = -1};

static void
tell_once(const char *what)
{
    if (!notify.told) {
        log_warn("the service manager cannot be told how it goes: %s: %s (NOTIFY_SOCKET); the "
                 "service goes on, but a unit of Type=notify may take it for dead",
                 what, strerror(errno));
        notify.told = true;
    }
}

/* ---- the socket ------------------------------------------------------------------------------ */

static bool
connect_again(void)
{
    if (notify.loop != NULL) {
        ev_io_stop(notify.loop, &notify.writable);
    }
    fd_close(&notify.fd);
    notify.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (notify.fd == -1 ||
        connect(notify.fd, (struct sockaddr *)&notify.address, notify.address_length) == -1) {
        tell_once("connect");
        fd_close(&notify.fd);
        return false;
    }
    return true;
}

static bool
manager_is_new(int error_number)
{
    return error_number == ECONNREFUSED || error_number == ENOTCONN || error_number == ECONNRESET ||
           error_number == ENOENT || error_number == EPIPE;
}

static int
send_once(const char *text, size_t length, int fd)
{
    struct iovec part = {.iov_base = (char *)(uintptr_t)text, .iov_len = length};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;

    if (fd != -1) {
        memset(&control, 0, sizeof(control));
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof(control.bytes);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    }
    return sendmsg(notify.fd, &message, MSG_NOSIGNAL) == -1 ? -errno : 0;
}

/* 0, -EAGAIN, or another negative errno that was told. */
static int
send_now(const char *text, size_t length, int fd)
{
    if (notify.fd == -1 && !connect_again()) {
        return -ENOTCONN;
    }
    int result = send_once(text, length, fd);
    if (manager_is_new(-result) && connect_again()) {
        result = send_once(text, length, fd);
    }
    if (result != 0 && result != -EAGAIN && result != -ENOBUFS) {
        errno = -result;
        tell_once("send");
        return result;
    }
    if (result == 0) {
        notify.told = false;
    }
    return result == 0 ? 0 : -EAGAIN;
}

/* ---- what waits ------------------------------------------------------------------------------ */

static void
wait_writable(void)
{
    if (notify.loop != NULL && notify.fd != -1 && !ev_is_active(&notify.writable)) {
        ev_io_set(&notify.writable, notify.fd, EV_WRITE);
        ev_io_start(notify.loop, &notify.writable);
    }
}

static void
drop_first(void)
{
    struct message *message = container_of(notify.queue.next, struct message, node);

    list_remove(&message->node);
    free(message);
    notify.queue_length--;
}

static void
on_writable(struct ev_loop *loop, ev_io *io, int revents)
{
    (void)revents;
    ev_io_stop(loop, io);
    while (notify.queue_length > 0) {
        const struct message *message = container_of(notify.queue.next, struct message, node);
        if (send_now(message->text, message->length, -1) == -EAGAIN) {
            wait_writable();
            return;
        }
        drop_first();
    }
    if (notify.fd_waits) {
        notify.fd_waits = false;
        master_changed(ev_userdata(loop));
    }
}

static void
put_off(const char *text, size_t length)
{
    if (notify.loop == NULL || notify.queue_length >= QUEUE_MAX) {
        errno = EAGAIN;
        tell_once("it does not read");
        return;
    }
    struct message *message = xcalloc(1, sizeof(*message) + length + 1);
    message->length = length;
    memcpy(message->text, text, length);
    list_push_back(&notify.queue, &message->node);
    notify.queue_length++;
    wait_writable();
}

/* ---- lifecycle ------------------------------------------------------------------------------- */

void
notify_open(struct ev_loop *loop)
{
    const char *path = getenv("NOTIFY_SOCKET");

    notify.told = false;
    notify.address_length = 0;
    notify.loop = loop;
    notify.fd_waits = false;
    notify.queue_length = 0;
    list_init(&notify.queue);
    ev_init(&notify.writable, on_writable);
    if (path == NULL || path[0] == '\0') {
        return;
    }
    size_t length = strlen(path);
    if ((path[0] != '/' && path[0] != '@') || length >= sizeof(notify.address.sun_path)) {
        errno = path[0] != '/' && path[0] != '@' ? EAFNOSUPPORT : ENAMETOOLONG;
        tell_once(path);
        return;
    }
    notify.address = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(notify.address.sun_path, path, length);
    if (path[0] == '@') {
        notify.address.sun_path[0] = '\0'; /* abstract, unix(7) */
    }
    notify.address_length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    (void)connect_again(); /* told; each message tries again */
}

void
notify_close(void)
{
    if (notify.loop != NULL) {
        ev_io_stop(notify.loop, &notify.writable);
    }
    while (notify.queue_length > 0) {
        drop_first();
    }
    notify.loop = NULL;
    notify.address_length = 0;
    fd_close(&notify.fd);
}

bool
notify_is_on(void)
{
    return notify.address_length != 0;
}

/* ---- messages -------------------------------------------------------------------------------- */

static size_t
print(char *text, const char *format, va_list args)
{
    int length = vsnprintf(text, MESSAGE_MAX, format, args);

    if (length < 0) {
        return 0;
    }
    return (size_t)length < MESSAGE_MAX ? (size_t)length : MESSAGE_MAX - 1;
}

void
notify_send(const char *format, ...)
{
    char text[MESSAGE_MAX];
    va_list args;

    if (!notify_is_on()) {
        return;
    }
    va_start(args, format);
    size_t length = print(text, format, args);
    va_end(args);
    if (notify.queue_length > 0 || send_now(text, length, -1) == -EAGAIN) {
        put_off(text, length);
    }
}

bool
notify_send_status(const char *status)
{
    char text[MESSAGE_MAX];

    if (!notify_is_on() || notify.queue_length > 0) {
        return false;
    }
    int length = snprintf(text, sizeof(text), "STATUS=%s", status);
    return length > 0 && (size_t)length < sizeof(text) && send_now(text, (size_t)length, -1) == 0;
}

int
notify_send_fd(int fd, const char *format, ...)
{
    char text[MESSAGE_MAX];
    va_list args;
    int result = -EAGAIN;

    if (!notify_is_on()) {
        return -ENOTCONN;
    }
    va_start(args, format);
    size_t length = print(text, format, args);
    va_end(args);
    if (notify.queue_length == 0) {
        result = send_now(text, length, fd);
    }
    if (result == -EAGAIN) {
        notify.fd_waits = true;
        wait_writable();
    }
    return result;
}

int64_t
notify_watchdog_ms(void)
{
    const char *usec = getenv("WATCHDOG_USEC");
    const char *pid = getenv("WATCHDOG_PID");

    if (!notify_is_on() || usec == NULL || (pid != NULL && atoi(pid) != (int)getpid())) {
        return 0;
    }
    long long value = atoll(usec);
    return value >= 2000 ? (int64_t)(value / 2000) : 0;
}
