/* SPDX-License-Identifier: Apache-2.0
 *
 * Journald's native socket has "socket" as the last part of its path, in a namespace of its own too
 * (/run/systemd/journal.NAMESPACE/socket); whatever else reads datagrams speaks syslog.
 */
#include "config/base/log_sink.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "config/base/clock.h"

/* LOG_DAEMON of syslog(3). */
#define FACILITY (3 << 3)

/* ---- what it is ------------------------------------------------------------------------------ */

/* $JOURNAL_STREAM is device and inode of the stream that systemd made, systemd.exec(5): standard
 * error may have been redirected since. */
static bool
is_journal_stream(const struct stat *status)
{
    const char *text = getenv("JOURNAL_STREAM");
    unsigned long long device;
    unsigned long long inode;

    return text != NULL && sscanf(text, "%llu:%llu", &device, &inode) == 2 &&
           status->st_dev == (dev_t)device && status->st_ino == (ino_t)inode;
}

static bool
is_datagram_socket(int fd)
{
    int type = 0;
    socklen_t size = sizeof(type);

    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_DGRAM;
}

static enum log_sink_kind
datagram_kind(const struct log_sink *sink)
{
    static const char native[] = "/socket";
    const size_t end = sizeof(native) - 1;
    size_t length = sink->peer_length > offsetof(struct sockaddr_un, sun_path)
                        ? strnlen(sink->peer.sun_path,
                                  sink->peer_length - offsetof(struct sockaddr_un, sun_path))
                        : 0;

    if (length == 0) {
        return LOG_SINK_STREAM; /* one end of a socket pair: whoever made it reads lines */
    }
    return length >= end && memcmp(sink->peer.sun_path + length - end, native, end) == 0
               ? LOG_SINK_JOURNALD
               : LOG_SINK_SYSLOG;
}

void
log_sink_set(struct log_sink *sink, int fd)
{
    struct stat status;

    *sink = (struct log_sink){.fd = fd, .kind = LOG_SINK_STREAM};
    if (fd == -1 || fstat(fd, &status) == -1) {
        return;
    }
    if (S_ISREG(status.st_mode)) {
        sink->kind = LOG_SINK_FILE;
    } else if (is_journal_stream(&status)) {
        sink->kind = LOG_SINK_JOURNAL_STREAM;
    } else if (S_ISSOCK(status.st_mode) && is_datagram_socket(fd)) {
        sink->peer_length = sizeof(sink->peer);
        if (getpeername(fd, (struct sockaddr *)&sink->peer, &sink->peer_length) == -1) {
            sink->peer_length = 0;
        }
        sink->kind = datagram_kind(sink);
        tzset(); /* the time zone is a file: it is read now, and not by a process in a sandbox */
    }
}

/* ---- sending --------------------------------------------------------------------------------- */

static size_t
print_syslog_head(char *head, size_t size, enum log_priority priority, const char *identifier,
                  const char *role)
{
    /* Not of strftime(3): the names of months are those of RFC 3164, whatever the locale. */
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    time_t now = (time_t)(clock_real_ms() / 1000);
    struct tm when;

    if (localtime_r(&now, &when) == NULL) {
        memset(&when, 0, sizeof(when));
    }
    int length =
        snprintf(head, size, "<%d>%s %2d %02d:%02d:%02d %s[%d]: %s%s", FACILITY | (int)priority,
                 months[when.tm_mon % 12], when.tm_mday, when.tm_hour, when.tm_min, when.tm_sec,
                 identifier, (int)getpid(), role, role[0] != '\0' ? ": " : "");
    return length > 0 && (size_t)length < size ? (size_t)length : 0;
}

static size_t
print_journald_head(char *head, size_t size, enum log_priority priority, const char *identifier,
                    const char *role)
{
    int length = snprintf(head, size,
                          "PRIORITY=%d\nSYSLOG_FACILITY=%d\nSYSLOG_IDENTIFIER=%s\nSYSLOG_PID=%d\n"
                          "NARWHAL_ROLE=%s\nMESSAGE=%s%s",
                          (int)priority, FACILITY >> 3, identifier, (int)getpid(),
                          role[0] != '\0' ? role : identifier, role, role[0] != '\0' ? ": " : "");

    return length > 0 && (size_t)length < size ? (size_t)length : 0;
}

static bool
reader_is_new(int error_number)
{
    return error_number == ECONNREFUSED || error_number == ENOTCONN || error_number == ECONNRESET ||
           error_number == EPIPE;
}

int
log_sink_send(struct log_sink *sink, enum log_priority priority, const char *identifier,
              const char *role, const char *line, size_t length)
{
    char head[512];
    bool native = sink->kind == LOG_SINK_JOURNALD;
    size_t head_length = native
                             ? print_journald_head(head, sizeof(head), priority, identifier, role)
                             : print_syslog_head(head, sizeof(head), priority, identifier, role);
    struct iovec parts[3] = {{.iov_base = head, .iov_len = head_length},
                             {.iov_base = (char *)(uintptr_t)line, .iov_len = length},
                             {.iov_base = (char *)(uintptr_t) "\n", .iov_len = native ? 1 : 0}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 3};

    if (sink->by_name) {
        message.msg_name = &sink->peer;
        message.msg_namelen = sink->peer_length;
    }
    ssize_t n = sendmsg(sink->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n == -1 && !sink->by_name && reader_is_new(errno) && sink->peer_length > 0) {
        /* The socket is connected to one that is gone. */
        sink->by_name = true;
        message.msg_name = &sink->peer;
        message.msg_namelen = sink->peer_length;
        n = sendmsg(sink->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    if (n != -1) {
        return 0;
    }
    return errno == ENOBUFS || errno == EWOULDBLOCK ? -EAGAIN : -errno;
}
