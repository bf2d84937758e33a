/* SPDX-License-Identifier: Apache-2.0
 *
 * What this kernel lets be known of a request on a kept connection that its server ended: the four
 * cases of docs/adr/0011, over TCP and unix sockets. Where a program has read a byte, there must
 * never be a proof that it has not.
 *
 * One ending breaks that promise, and is here so that nobody thinks otherwise: a server that sent
 * FIN on the idle connection and then works on a request all the same (RFC 9112 section 9.6 tells
 * it to drop it), and dies with RST before its kernel acknowledges. retry_unread = off is for it.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "worker/proxy/unread_proof.h"

#define ROUNDS 20
#define RESPONSE "HTTP/1.1 200 OK\r\n\r\n"

enum ending {
    CLOSED_BEFORE = 0,     /* A: close() while idle, the request comes after it */
    READ_THEN_RESET,       /* B: read, then SO_LINGER 0 */
    READ_PART_THEN_CLOSE,  /* B: read some of it, close() resets because of the rest */
    READ_THEN_CLOSE,       /* C: read, then a clean close() */
    CLOSED_UNREAD,         /* D: close() when it had arrived and was not read */
    SHUT_BEFORE,           /* A, by shutdown(SHUT_RDWR) */
    HALF_CLOSED_BEFORE,    /* shutdown(SHUT_WR) while idle, nothing more yet */
    HALF_CLOSED_THEN_READ, /* the same, but the program works on what comes, and dies of it */
    ENDING_COUNT
};

static const struct {
    const char *name;
    enum unread_proof tcp;
    enum unread_proof local; /* unix */
} cases[ENDING_COUNT] = {
    [CLOSED_BEFORE] = {"closed before", UNREAD_PROVED, UNREAD_PROVED},
    [READ_THEN_RESET] = {"read, then reset", UNREAD_UNKNOWN, UNREAD_UNKNOWN},
    [READ_PART_THEN_CLOSE] = {"read in part, then closed", UNREAD_UNKNOWN, UNREAD_UNKNOWN},
    [READ_THEN_CLOSE] = {"read, then closed", UNREAD_UNKNOWN, UNREAD_UNKNOWN},
    [CLOSED_UNREAD] = {"closed unread", UNREAD_UNKNOWN, UNREAD_UNKNOWN},
    [SHUT_BEFORE] = {"shut before", UNREAD_PROVED, UNREAD_PROVED},
    [HALF_CLOSED_BEFORE] = {"half-closed before", UNREAD_SOON, UNREAD_UNKNOWN},
    [HALF_CLOSED_THEN_READ] = {"half-closed, read, died", UNREAD_PROVED, UNREAD_UNKNOWN},
};

struct pair {
    int client;
    int server;
    uint64_t sent; /* by the client */
};

static void
pause_ms(long ms)
{
    struct timespec time = {.tv_nsec = ms * 1000000};

    (void)nanosleep(&time, NULL);
}

static struct pair
pair_open(bool is_tcp)
{
    struct pair pair = {0};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);

    if (!is_tcp) {
        int ends[2];
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
        return (struct pair){.client = ends[0], .server = ends[1]};
    }
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    cr_assert_eq(listen(listener, 1), 0);
    cr_assert_eq(getsockname(listener, (struct sockaddr *)&address, &length), 0);
    pair.client = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(connect(pair.client, (struct sockaddr *)&address, sizeof(address)), 0);
    pair.server = accept(listener, NULL, NULL);
    cr_assert_geq(pair.server, 0);
    (void)close(listener);
    return pair;
}

static void
client_send(struct pair *pair, size_t size)
{
    static char bytes[16384];
    ssize_t n = send(pair->client, bytes, size, MSG_NOSIGNAL);

    pair->sent += n > 0 ? (uint64_t)n : 0;
}

/* A whole exchange, so that the connection is one that was kept. */
static void
warm_up(struct pair *pair, size_t size)
{
    char bytes[16384];

    client_send(pair, size);
    for (size_t have = 0; have < size;) {
        ssize_t n = recv(pair->server, bytes, sizeof(bytes), 0);
        cr_assert_gt(n, 0);
        have += (size_t)n;
    }
    cr_assert_eq(send(pair->server, RESPONSE, strlen(RESPONSE), 0), (ssize_t)strlen(RESPONSE));
    cr_assert_eq(recv(pair->client, bytes, sizeof(bytes), 0), (ssize_t)strlen(RESPONSE));
}

static void
server_read(const struct pair *pair, size_t size)
{
    char bytes[16384];

    cr_assert_eq(recv(pair->server, bytes, size, MSG_WAITALL), (ssize_t)size);
}

static void
server_arrived(const struct pair *pair)
{
    struct pollfd poll_one = {.fd = pair->server, .events = POLLIN};

    cr_assert_eq(poll(&poll_one, 1, 10000), 1);
}

static void
server_end(struct pair *pair)
{
    (void)close(pair->server);
    pair->server = -1;
}

/* Runs one case up to the moment at which the client sees an end; returns its write's errno. */
static int
play(struct pair *pair, enum ending ending, size_t size)
{
    const struct linger reset = {.l_onoff = 1};
    struct pollfd poll_one = {.fd = pair->client, .events = POLLIN | POLLRDHUP};

    if (ending == CLOSED_BEFORE) {
        server_end(pair);
    } else if (ending == SHUT_BEFORE) {
        cr_assert_eq(shutdown(pair->server, SHUT_RDWR), 0);
    } else if (ending == HALF_CLOSED_BEFORE || ending == HALF_CLOSED_THEN_READ) {
        cr_assert_eq(shutdown(pair->server, SHUT_WR), 0);
    }
    errno = 0;
    client_send(pair, size);
    int error = errno;
    switch (ending) {
    case HALF_CLOSED_THEN_READ:
    case READ_THEN_RESET:
        server_read(pair, size);
        cr_assert_eq(setsockopt(pair->server, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
        server_end(pair);
        break;
    case READ_PART_THEN_CLOSE:
        server_read(pair, size / 2);
        server_arrived(pair);
        server_end(pair);
        break;
    case READ_THEN_CLOSE:
        server_read(pair, size);
        server_end(pair);
        break;
    case CLOSED_UNREAD:
        server_arrived(pair);
        server_end(pair);
        break;
    case CLOSED_BEFORE:
    case SHUT_BEFORE:
    case HALF_CLOSED_BEFORE:
    case ENDING_COUNT:
        break;
    }
    cr_assert_eq(poll(&poll_one, 1, 10000), 1);
    return error;
}

static void
check(bool is_tcp, enum ending ending, size_t size, bool waits)
{
    struct pair pair = pair_open(is_tcp);
    int64_t wait_ms = 0;

    warm_up(&pair, size);
    if (waits) {
        pause_ms(60); /* longer than an acknowledgement may be delayed */
    }
    uint64_t before = pair.sent;
    int error = play(&pair, ending, size);
    enum unread_proof found = unread_proof_look(pair.client, error, before, pair.sent, &wait_ms);
    enum unread_proof expected = is_tcp ? cases[ending].tcp : cases[ending].local;
    cr_expect_eq(found, expected, "%s %s, %zu bytes, %s: %d, not %d", is_tcp ? "TCP" : "unix",
                 cases[ending].name, size, waits ? "idle" : "at once", found, expected);
    if (found == UNREAD_SOON) {
        cr_expect_gt(wait_ms, 0);
        cr_expect_leq(wait_ms, 250);
    }
    (void)close(pair.client);
    (void)close(pair.server);
}

static void
check_all(bool is_tcp)
{
    static const size_t sizes[] = {2, 120, 8000};

    for (int ending = 0; ending < ENDING_COUNT; ending++) {
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            check(is_tcp, (enum ending)ending, sizes[i], true);
            for (int round = 0; round < ROUNDS; round++) {
                check(is_tcp, (enum ending)ending, sizes[i], false);
            }
        }
    }
}

Test(unread_proof, tcp)
{
    check_all(true);
}

Test(unread_proof, unix_socket)
{
    check_all(false);
}
