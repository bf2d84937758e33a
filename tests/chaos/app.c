/* SPDX-License-Identifier: Apache-2.0
 *
 * chaos-app: the application behind narwhal in the chaos runs. Small and quick to start, so that
 * what is measured is narwhal. Not part of narwhal.
 *
 *   chaos-app FD MS [FOLDER]   serves on the listening socket FD, answers "ok\n" MS milliseconds
 *                              after each request; keeps FOLDER/<pid> at the number of requests it
 *                              has read and not answered (8 bytes), so that whoever kills it knows
 *                              how many may be lost
 *
 * SIGTERM ends it as it ends uvicorn: it accepts nothing more, closes what is idle at once, answers
 * what it has, and exits 0. Whatever one recv(2) brings counts as one request: narwhal does not
 * pipeline, and a GET is one write.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/queue.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_MAX 64
#define READ_MAX 16384

static const char answer[] = "HTTP/1.1 200 OK\r\n"
                             "Content-Type: text/plain\r\n"
                             "Content-Length: 3\r\n"
                             "\r\n"
                             "ok\n";

struct connection {
    TAILQ_ENTRY(connection) link;     /* of all */
    TAILQ_ENTRY(connection) due_link; /* of those with a request, in the order of due_us */
    int fd;
    bool busy;
    int64_t due_us;
};

TAILQ_HEAD(connection_list, connection);

static struct connection_list connections = TAILQ_HEAD_INITIALIZER(connections);
static struct connection_list due = TAILQ_HEAD_INITIALIZER(due);
static int epoll_fd;
static bool ending;
static int64_t delay_us;
static uint64_t nobody_reads;
static volatile uint64_t *in_flight = &nobody_reads;

__attribute__((noreturn)) static void
die(const char *what)
{
    (void)fprintf(stderr, "chaos-app: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t
now_us(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void
watch(int fd, void *object)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = object};

    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == -1) {
        die("epoll_ctl");
    }
}

static void
connection_close(struct connection *connection)
{
    if (connection->busy) {
        TAILQ_REMOVE(&due, connection, due_link);
        (*in_flight)--;
    }
    TAILQ_REMOVE(&connections, connection, link);
    (void)close(connection->fd);
    free(connection);
}

static void
connection_read(struct connection *connection)
{
    static char ignored[READ_MAX];
    ssize_t got = recv(connection->fd, ignored, sizeof(ignored), 0);

    if (got == -1 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (got <= 0 || connection->busy) {
        connection_close(connection);
        return;
    }
    connection->busy = true;
    connection->due_us = now_us() + delay_us;
    TAILQ_INSERT_TAIL(&due, connection, due_link);
    (*in_flight)++;
}

static void
accept_all(int listener)
{
    int fd;

    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) != -1) {
        struct connection *connection = calloc(1, sizeof(*connection));
        if (connection == NULL) {
            die("a connection");
        }
        connection->fd = fd;
        TAILQ_INSERT_TAIL(&connections, connection, link);
        watch(fd, connection);
    }
}

static void
answer_due(int64_t now)
{
    struct connection *connection;

    while ((connection = TAILQ_FIRST(&due)) != NULL && connection->due_us <= now) {
        ssize_t sent = send(connection->fd, answer, sizeof(answer) - 1, MSG_NOSIGNAL);
        TAILQ_REMOVE(&due, connection, due_link);
        connection->busy = false;
        (*in_flight)--;
        /* A peer that does not take so few bytes at once is none of ours. */
        if (ending || sent != (ssize_t)sizeof(answer) - 1) {
            connection_close(connection);
        }
    }
}

static void
begin_end(int listener)
{
    struct connection *connection = TAILQ_FIRST(&connections);

    ending = true;
    (void)close(listener);
    while (connection != NULL) {
        struct connection *next = TAILQ_NEXT(connection, link);
        if (!connection->busy) {
            connection_read(connection); /* a request that has come already is answered */
        }
        connection = next;
    }
    for (connection = TAILQ_FIRST(&connections); connection != NULL;) {
        struct connection *next = TAILQ_NEXT(connection, link);
        if (!connection->busy) {
            connection_close(connection);
        }
        connection = next;
    }
}

static int
wait_ms(int64_t now)
{
    const struct connection *first = TAILQ_FIRST(&due);

    if (first == NULL) {
        return -1;
    }
    return first->due_us <= now ? 0 : (int)((first->due_us - now + 999) / 1000);
}

static int
watch_sigterm(void)
{
    sigset_t set;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (fd == -1) {
        die("signalfd");
    }
    return fd;
}

static void
publish_in_flight(const char *folder)
{
    char path[4096];
    int len = snprintf(path, sizeof(path), "%s/%d", folder, (int)getpid());

    if (len < 0 || (size_t)len >= sizeof(path)) {
        errno = ENAMETOOLONG;
        die(folder);
    }
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd == -1 || ftruncate(fd, sizeof(*in_flight)) == -1) {
        die(path);
    }
    void *mapped = mmap(NULL, sizeof(*in_flight), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED) {
        die(path);
    }
    (void)close(fd);
    in_flight = mapped;
}

int
main(int argc, char **argv)
{
    struct epoll_event events[EVENTS_MAX];

    if (argc < 3 || argc > 4) {
        (void)fputs("usage: chaos-app FD MS [FOLDER]\n", stderr);
        return 2;
    }
    int listener = atoi(argv[1]);
    delay_us = (int64_t)atoi(argv[2]) * 1000;
    if (argc == 4) {
        publish_in_flight(argv[3]);
    }
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd == -1 || fcntl(listener, F_SETFL, fcntl(listener, F_GETFL) | O_NONBLOCK) == -1) {
        die("epoll, or the listening socket");
    }
    int terminated = watch_sigterm();
    watch(terminated, &terminated);
    watch(listener, &listener);
    while (!ending || !TAILQ_EMPTY(&connections)) {
        int count = epoll_wait(epoll_fd, events, EVENTS_MAX, wait_ms(now_us()));
        if (count == -1 && errno != EINTR) {
            die("epoll_wait");
        }
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr == &listener) {
                accept_all(listener);
            } else if (events[i].data.ptr != &terminated) {
                connection_read(events[i].data.ptr);
            }
        }
        /* After the batch, because it frees connections that the batch may name. */
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr == &terminated && !ending) {
                (void)epoll_ctl(epoll_fd, EPOLL_CTL_DEL, terminated, NULL);
                begin_end(listener);
            }
        }
        answer_due(now_us());
    }
    return 0;
}
