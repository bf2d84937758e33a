/* SPDX-License-Identifier: Apache-2.0
 *
 * How messages travel between the master and a worker. Stateless; runs in both.
 */
#include "worker/channel.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include "config/base/fd.h"
#include "config/base/hash.h"

static const char *const type_names[CHANNEL_TYPE_COUNT] = {[CHANNEL_NONE] = "NONE",
#define CHANNEL_NAME(name) [CHANNEL_##name] = #name,
                                                           CHANNEL_MESSAGES(CHANNEL_NAME)
#undef CHANNEL_NAME
};

const char *
channel_type_name(enum channel_type type)
{
    return type < CHANNEL_TYPE_COUNT ? type_names[type] : "?";
}

int64_t
channel_dialect(void)
{
    const size_t sizes[] = {CHANNEL_MAGIC, sizeof(struct channel_message)};
    uint64_t hash = hash_bytes(0, sizes, sizeof(sizes));

    for (size_t i = 0; i < CHANNEL_TYPE_COUNT; i++) {
        hash = hash_bytes(hash, type_names[i], strlen(type_names[i]));
    }
    return (int64_t)hash;
}

int
channel_pair(int *ret_master_fd, int *ret_worker_fd)
{
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == -1) {
        return -errno;
    }
    *ret_master_fd = ends[0];
    *ret_worker_fd = ends[1];
    return 0;
}

int
channel_send(int channel_fd, struct channel_message *message, int fd)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {.iov_base = message, .iov_len = sizeof(*message)};
    struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n;

    message->magic = CHANNEL_MAGIC;
    if (fd != -1) {
        header.msg_control = control.bytes;
        header.msg_controllen = sizeof(control.bytes);
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&header);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(cmsg), &fd, sizeof(int));
    }
    do {
        n = sendmsg(channel_fd, &header, MSG_NOSIGNAL);
    } while (n == -1 && errno == EINTR);
    return n == -1 ? -errno : 0;
}

/* Takes the first descriptor out of the control data and closes any others, which a peer of this
 * version never sends. */
static int
take_descriptor(struct msghdr *header)
{
    int taken = -1;

    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(header); cmsg != NULL;
         cmsg = CMSG_NXTHDR(header, cmsg)) {
        if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(int));
            if (taken == -1) {
                taken = fd;
            } else {
                fd_close(&fd);
            }
        }
    }
    return taken;
}

int
channel_receive(int channel_fd, struct channel_message *ret_message, int *ret_fd)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(4 * sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = ret_message, .iov_len = sizeof(*ret_message)};
    struct msghdr header = {.msg_iov = &iov,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = sizeof(control.bytes)};
    ssize_t n;

    *ret_fd = -1;
    do {
        n = recvmsg(channel_fd, &header, MSG_CMSG_CLOEXEC);
    } while (n == -1 && errno == EINTR);
    if (n == -1) {
        return -errno;
    }
    int fd = take_descriptor(&header);
    if (n == 0) {
        fd_close(&fd);
        return 0;
    }
    if ((size_t)n != sizeof(*ret_message) || (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 ||
        ret_message->magic != CHANNEL_MAGIC || ret_message->type == CHANNEL_NONE ||
        ret_message->type >= CHANNEL_TYPE_COUNT) {
        fd_close(&fd);
        return -EBADMSG;
    }
    ret_message->text[CHANNEL_TEXT_MAX - 1] = '\0';
    *ret_fd = fd;
    return 1;
}
