/* SPDX-License-Identifier: Apache-2.0
 *
 * A proxy that reads nothing of what it carries: the physical limit of the proxied rows. One
 * process, one epoll loop; each client has a connection of its own to the upstream, and whatever
 * one recv(2) brings on one side one send(2) passes to the other. No parser, no choice of a server,
 * no clock, no field added. What a proxy costs above this is what it does with a request and its
 * response.
 *
 *   copy_proxy PORT     passes to 127.0.0.1:PORT, listens on 127.0.0.1, any free port, and writes
 *                       the port as its first line
 *
 * Ends by a signal. Not part of narwhal; run.sh compiles it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_MAX 64
/* As much as narwhal reads at once. */
#define READ_MAX 65536

/* One end of a pair. What its peer did not take in one send(2) waits in left, and then nothing more
 * is read here. */
struct side {
    int fd;
    struct side *peer;
    char *left;
    size_t left_length;
};

static struct sockaddr_in upstream;
static int epoll_fd;

static void
die(const char *what)
{
    fprintf(stderr, "copy_proxy: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void
watch(int operation, int fd, uint32_t events, struct side *side)
{
    struct epoll_event event = {.events = events, .data.ptr = side};

    if (epoll_ctl(epoll_fd, operation, fd, &event) == -1) {
        die("epoll_ctl");
    }
}

static struct side *
side_new(int fd)
{
    struct side *side = calloc(1, sizeof(*side));
    const int one = 1;

    if (side == NULL) {
        die("calloc");
    }
    side->fd = fd;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return side;
}

static void
accept_all(int listener)
{
    int fd;

    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) != -1) {
        int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (server == -1 || connect(server, (struct sockaddr *)&upstream, sizeof(upstream)) == -1) {
            die("connect");
        }
        struct side *a = side_new(fd);
        struct side *b = side_new(server);
        a->peer = b;
        b->peer = a;
        watch(EPOLL_CTL_ADD, a->fd, EPOLLIN, a);
        watch(EPOLL_CTL_ADD, b->fd, EPOLLIN, b);
    }
}

/* Both ends; events of the other one that the same epoll_wait(2) brought are cleared. */
static void
pair_close(struct side *side, struct epoll_event *events, int count)
{
    struct side *peer = side->peer;

    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr == side || events[i].data.ptr == peer) {
            events[i].events = 0;
        }
    }
    close(side->fd);
    close(peer->fd);
    free(side->left);
    free(peer->left);
    free(side);
    free(peer);
}

/* false: the pair is at its end. */
static bool
pass(struct side *side)
{
    static char bytes[READ_MAX];
    ssize_t got = recv(side->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    if (got == -1 && (errno == EAGAIN || errno == EINTR)) {
        return true;
    }
    if (got <= 0) {
        return false;
    }
    ssize_t sent = send(side->peer->fd, bytes, (size_t)got, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent == -1 && errno != EAGAIN) {
        return false;
    }
    sent = sent > 0 ? sent : 0;
    if (sent < got) {
        side->left_length = (size_t)(got - sent);
        side->left = malloc(side->left_length);
        if (side->left == NULL) {
            die("malloc");
        }
        memcpy(side->left, bytes + sent, side->left_length);
        watch(EPOLL_CTL_MOD, side->fd, 0, side);
        watch(EPOLL_CTL_MOD, side->peer->fd, EPOLLIN | EPOLLOUT, side->peer);
    }
    return true;
}

/* The side can be written to again: what its peer has left for it. */
static bool
pass_left(struct side *side)
{
    struct side *from = side->peer;
    ssize_t sent = send(side->fd, from->left, from->left_length, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (sent == -1) {
        return errno == EAGAIN;
    }
    from->left_length -= (size_t)sent;
    memmove(from->left, from->left + sent, from->left_length);
    if (from->left_length == 0) {
        free(from->left);
        from->left = NULL;
        watch(EPOLL_CTL_MOD, side->fd, side->left == NULL ? EPOLLIN : 0, side);
        watch(EPOLL_CTL_MOD, from->fd, side->left == NULL ? EPOLLIN : EPOLLIN | EPOLLOUT, from);
    }
    return true;
}

static int
listen_on_any_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd == -1 || bind(fd, (struct sockaddr *)&address, length) == -1 ||
        listen(fd, SOMAXCONN) == -1 ||
        getsockname(fd, (struct sockaddr *)&address, &length) == -1) {
        die("listen");
    }
    printf("%d\n", ntohs(address.sin_port));
    if (fflush(stdout) == EOF) {
        die("write the port");
    }
    return fd;
}

int
main(int argc, char **argv)
{
    struct epoll_event events[EVENTS_MAX];

    if (argc != 2) {
        fprintf(stderr, "usage: copy_proxy PORT\n");
        return 1;
    }
    upstream.sin_family = AF_INET;
    upstream.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    upstream.sin_port = htons((uint16_t)strtoul(argv[1], NULL, 10));
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd == -1) {
        die("epoll_create1");
    }
    int listener = listen_on_any_port();
    watch(EPOLL_CTL_ADD, listener, EPOLLIN, NULL); /* NULL: the listener */
    for (;;) {
        int count = epoll_wait(epoll_fd, events, EVENTS_MAX, -1);
        if (count == -1 && errno != EINTR) {
            die("epoll_wait");
        }
        for (int i = 0; i < count; i++) {
            struct side *side = events[i].data.ptr;
            uint32_t what = events[i].events;
            if (side == NULL) {
                accept_all(listener);
            } else if (((what & EPOLLOUT) && side->peer->left != NULL && !pass_left(side)) ||
                       ((what & (EPOLLIN | EPOLLHUP | EPOLLERR)) && side->left == NULL &&
                        !pass(side))) {
                pair_close(side, events, count);
            }
        }
    }
}
