/* SPDX-License-Identifier: Apache-2.0
 *
 * A server that knows one answer: the upstream of the benchmark, and its physical limit. One
 * process, one epoll loop, no parser: whatever one recv(2) brings counts as one request, which is
 * right for wrk and for a proxy, because neither pipelines. recv() and send() rather than read()
 * and write(), which take the longer way through the kernel's file layer. What a server costs above
 * this is what it does with a request; below it no server that waits in epoll can get.
 *
 *   canned [SIZE [ADDRESS]]    listens on ADDRESS, 127.0.0.1 when it is not said, any free port,
 *                              and writes the port as its first line; the body has SIZE bytes, 3
 *                              when it is not said
 *
 * Ends by a signal. Not part of narwhal; run.sh compiles it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_MAX 64
#define READ_MAX 16384

#define BODY_MAX (128 * 1024)

static char answer[512 + BODY_MAX];
static size_t answer_length;

static void
die(const char *what)
{
    fprintf(stderr, "canned: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* The fields that narwhal and nginx send too, so that all write about as many bytes. */
static void
make_answer(size_t size)
{
    int head = snprintf(answer, 512,
                        "HTTP/1.1 200 OK\r\n"
                        "Server: canned\r\n"
                        "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
                        "Content-Type: text/plain\r\n"
                        "Content-Length: %zu\r\n"
                        "\r\n",
                        size);

    memset(answer + head, 'x', size);
    memcpy(answer + head, "ok\n", size < 3 ? size : 3);
    answer_length = (size_t)head + size;
}

static void
watch(int epoll_fd, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == -1) {
        die("epoll_ctl");
    }
}

static int
listen_on_any_port(const char *host)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = inet_addr(host)};
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

static void
accept_all(int epoll_fd, int listener)
{
    const int one = 1;
    const int room = 2 * BODY_MAX; /* the whole answer, whatever tcp_wmem begins with */
    int fd;

    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) != -1) {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        if (answer_length > READ_MAX) {
            (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
        }
        watch(epoll_fd, fd);
    }
}

/* A peer that does not take so few bytes at once is no load generator: it is dropped. */
static void
answer_one(int fd)
{
    static char ignored[READ_MAX];
    ssize_t got = recv(fd, ignored, sizeof(ignored), 0);

    if (got == -1 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (got <= 0 || send(fd, answer, answer_length, MSG_NOSIGNAL) != (ssize_t)answer_length) {
        close(fd);
    }
}

int
main(int argc, char **argv)
{
    struct epoll_event events[EVENTS_MAX];
    size_t size = argc > 1 ? strtoul(argv[1], NULL, 10) : 3;

    if (size > BODY_MAX) {
        fprintf(stderr, "canned: the body has at most %d bytes\n", BODY_MAX);
        return 1;
    }
    make_answer(size);
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);

    if (epoll_fd == -1) {
        die("epoll_create1");
    }
    int listener = listen_on_any_port(argc > 2 ? argv[2] : "127.0.0.1");
    watch(epoll_fd, listener);
    for (;;) {
        int count = epoll_wait(epoll_fd, events, EVENTS_MAX, -1);
        if (count == -1 && errno != EINTR) {
            die("epoll_wait");
        }
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == listener) {
                accept_all(epoll_fd, listener);
            } else {
                answer_one(events[i].data.fd);
            }
        }
    }
}
