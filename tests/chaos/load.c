/* SPDX-License-Identifier: Apache-2.0
 *
 * chaos-load: asks one server without end while something is done to it, and tells for every single
 * request how it ended. One process, one thread, one epoll loop, a fixed number of clients, each
 * with at most one connection and one request at a time. Not part of narwhal.
 *
 *   chaos-load -a ADDRESS [options]       prints one line of JSON on standard output at its end
 *
 *   -a ADDRESS   127.0.0.1:8000, [::1]:8000 or unix:/PATH
 *   -p PATH      request target (/)
 *   -b BODY      what the body of the response must be, byte for byte ("ok\n")
 *   -c COUNT     clients (32)
 *   -k           keep connections; without it each request has a connection of its own
 *   -w MS        pause between two requests of a client that keeps its connection (20)
 *   -d MS        pause between connect(2) and the write, as of a browser that connects ahead (0)
 *   -r RATE      requests a second, begun by the clock whatever the server does; without it each
 *                client begins its next request when the last one has ended
 *   -n COUNT     ends after so many requests (0: no limit)
 *   -t SECONDS   ends after so many seconds (10)
 *   -T MS        a request that takes longer ends as a timeout (10000)
 *   -s MS        requests that take longer than this are listed one by one (250)
 *
 * Every request ends in exactly one of ENDS; all but complete are losses. Invariants:
 *   - requests = the sum of all ends; nothing in flight is dropped at the end, it is waited for
 *   - a server may close a kept connection on which nothing was sent: that is counted
 *     (idle_closed, idle_reset, and idle_bytes with a 408 or the like before it) and is no loss,
 *     the client opens another. Like any careful client it looks whether the connection has
 *     ended right before it writes. Once a byte was sent, it is a loss.
 *   - latency runs from before connect(2), or before the write on a kept connection, to the last
 *     byte of the body; with -r from the moment at which the clock said that it is due
 *   - after a loss a client pauses as with -w, so that a server which refuses is not asked a
 *     million times; the pause is part of no latency
 *
 * Exit status: 0 measured, 1 could not measure (no local port, no descriptors), 2 wrong usage.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_MAX 256
#define RESPONSE_MAX 8192 /* head and body; more is a wrong response */
#define REQUEST_MAX 1024
#define LISTED_MAX 20000 /* slow requests and losses that are listed; the counts go on */
#define SLICE_US 100000  /* the throughput is counted in slices of 100 ms */
#define SLICES_MAX 36000 /* of an hour, the longest run */
#define MS 1000          /* µs */
#define SECOND 1000000   /* µs */

/* clang-format off */
#define ENDS(X)                                                                                    \
    X(COMPLETE, complete)             /* status 200 and the body that was expected */              \
    X(REFUSED, refused)               /* nobody listens */                                         \
    X(CONNECT_FAILED, connect_failed) /* connect(2) failed in another way */                       \
    X(RESET_BEFORE, reset_before)     /* connected, then RST, not a byte was sent: the accept      \
                                         queue was thrown away */                                  \
    X(CLOSED_BEFORE, closed_before)   /* connected, then FIN, not a byte was sent: somebody        \
                                         accepted and left */                                      \
    X(RESET_FRESH, reset_fresh)       /* first request of a connection sent, then RST, no answer */\
    X(CLOSED_FRESH, closed_fresh)     /* the same with FIN */                                      \
    X(RESET_USED, reset_used)         /* next request of a kept connection sent, RST, no answer */ \
    X(CLOSED_USED, closed_used)       /* the same with FIN */                                      \
    X(PARTIAL, partial)               /* the response broke off */                                 \
    X(TIMEOUT_CONNECT, timeout_connect)                                                            \
    X(TIMEOUT, timeout)               /* the whole response was not there in time */               \
    X(BAD_STATUS, bad_status)         /* a whole response with another status */                   \
    X(BAD_RESPONSE, bad_response)     /* no HTTP, no length, another body, bytes too many */
/* clang-format on */

enum request_end {
#define X(name, text) END_##name,
    ENDS(X)
#undef X
        END_COUNT
};

static const char *const end_names[END_COUNT] = {
#define X(name, text) [END_##name] = #text,
    ENDS(X)
#undef X
};

enum client_state {
    CLIENT_IDLE = 0, /* no request; may hold a kept connection */
    CLIENT_CONNECTING,
    CLIENT_CONNECTED, /* -d: connected, nothing sent yet */
    CLIENT_SENDING,
    CLIENT_READING,
};

struct client {
    TAILQ_ENTRY(client) link;      /* ready, paused or running */
    TAILQ_ENTRY(client) held_link; /* CLIENT_CONNECTED: held */
    enum client_state state;
    int fd;            /* -1: no connection */
    bool used;         /* the connection has brought a whole response before */
    size_t sent;       /* of the request */
    size_t got;        /* of the response */
    int64_t start_us;  /* of the request: where its latency begins */
    int64_t armed_us;  /* when it was really begun: where its timeout begins */
    int64_t resume_us; /* when its pause ends */
    char response[RESPONSE_MAX];
};

TAILQ_HEAD(client_queue, client);

struct listed {
    enum request_end end;
    int64_t start_us;
    int64_t took_us;
};

/* Latencies: below 64 µs exact, above in 64 steps per power of two, so that what is read is at most
 * 1.6 % off. */
#define HISTOGRAM_STEP_BITS 6
#define HISTOGRAM_STEPS (1 << HISTOGRAM_STEP_BITS)
#define HISTOGRAM_BUCKETS ((64 - HISTOGRAM_STEP_BITS) * HISTOGRAM_STEPS)

struct load {
    /* configuration fields */
    struct sockaddr_storage address;
    socklen_t address_len;
    const char *body;
    size_t client_count;
    bool keep;
    int64_t pause_us;
    int64_t hold_us;
    int64_t rate; /* 0: each client at its own pace */
    int64_t request_limit;
    int64_t duration_us;
    int64_t timeout_us;
    int64_t slow_us;
    char request[REQUEST_MAX];
    size_t request_len;

    /* runtime fields */
    int epoll_fd;
    struct client *clients;
    struct client_queue ready;   /* may begin at once */
    struct client_queue paused;  /* in the order of resume_us: all pauses are equally long */
    struct client_queue held;    /* in the order of resume_us, as paused */
    struct client_queue running; /* in the order of armed_us: all timeouts are equally long */
    int64_t start_us;
    int64_t begun;
    bool ending; /* nothing new is begun */

    /* results */
    int64_t ends[END_COUNT];
    int64_t connections, idle_closed, idle_reset, idle_bytes, announced_closes;
    int64_t over_500ms, over_1s, max_us;
    uint32_t histogram[HISTOGRAM_BUCKETS];
    uint32_t slices[SLICES_MAX];
    struct listed slow[LISTED_MAX];
    struct listed losses[LISTED_MAX];
    size_t slow_count, loss_count;
    char first_bad[128];
};

static struct load load;

__attribute__((format(printf, 2, 3), noreturn)) static void
die(int status, const char *format, ...)
{
    va_list arguments;

    (void)fputs("chaos-load: ", stderr);
    va_start(arguments, format);
    (void)vfprintf(stderr, format, arguments);
    va_end(arguments);
    (void)fputc('\n', stderr);
    exit(status);
}

static int64_t
now_us(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (int64_t)now.tv_sec * SECOND + now.tv_nsec / 1000;
}

/* ---- results ------------------------------------------------------------------------------- */

static size_t
histogram_bucket(int64_t us)
{
    uint64_t value = us > 0 ? (uint64_t)us : 0;

    if (value < HISTOGRAM_STEPS) {
        return (size_t)value;
    }
    unsigned power = 63u - (unsigned)__builtin_clzll(value); /* at least HISTOGRAM_STEP_BITS */
    unsigned shift = power - HISTOGRAM_STEP_BITS;
    return (size_t)(shift + 1) * HISTOGRAM_STEPS + (size_t)((value >> shift) - HISTOGRAM_STEPS);
}

static int64_t
histogram_value(size_t bucket)
{
    size_t row = bucket / HISTOGRAM_STEPS;
    uint64_t step = bucket % HISTOGRAM_STEPS;

    return row == 0 ? (int64_t)step : (int64_t)((step + HISTOGRAM_STEPS) << (row - 1));
}

/* The latency that so many per mille of the complete requests do not exceed. */
static int64_t
histogram_quantile(int64_t per_mille)
{
    int64_t wanted = (load.ends[END_COMPLETE] * per_mille + 999) / 1000;
    int64_t seen = 0;

    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += load.histogram[i];
        if (seen >= wanted && seen > 0) {
            return histogram_value(i);
        }
    }
    return 0;
}

static void
list_request(struct listed *list, size_t *count, enum request_end end, int64_t start_us,
             int64_t took_us)
{
    if (*count < LISTED_MAX) {
        list[*count] = (struct listed){end, start_us - load.start_us, took_us};
    }
    (*count)++;
}

static void
count_end(const struct client *client, enum request_end end, int64_t now)
{
    int64_t took_us = now - client->start_us;
    int64_t slice = (now - load.start_us) / SLICE_US;

    load.ends[end]++;
    if (end != END_COMPLETE) {
        list_request(load.losses, &load.loss_count, end, client->start_us, took_us);
    } else {
        load.histogram[histogram_bucket(took_us)]++;
        load.max_us = took_us > load.max_us ? took_us : load.max_us;
        load.slices[slice < SLICES_MAX ? slice : SLICES_MAX - 1]++;
    }
    load.over_500ms += took_us > 500 * MS;
    load.over_1s += took_us > SECOND;
    if (took_us > load.slow_us) {
        list_request(load.slow, &load.slow_count, end, client->start_us, took_us);
    }
}

static void
print_listed(const char *name, const struct listed *list, size_t count)
{
    printf(",\"%s\":[", name);
    for (size_t i = 0; i < count && i < LISTED_MAX; i++) {
        printf("%s[\"%s\",%.1f,%.1f]", i > 0 ? "," : "", end_names[list[i].end],
               (double)list[i].start_us / MS, (double)list[i].took_us / MS);
    }
    putchar(']');
}

/* JSON text: what is no printable ASCII becomes '.', which is enough to see what came. */
static void
print_text(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\') {
            putchar('\\');
        }
        putchar(*text >= ' ' && *text <= '~' ? *text : '.');
    }
}

static void
print_results(int64_t end_us)
{
    int64_t slices = (end_us - load.start_us) / SLICE_US + 1;

    printf("{\"requests\":%lld", (long long)load.begun);
    for (size_t i = 0; i < END_COUNT; i++) {
        printf(",\"%s\":%lld", end_names[i], (long long)load.ends[i]);
    }
    printf(",\"lost\":%lld,\"connections\":%lld,\"idle_closed\":%lld,\"idle_reset\":%lld"
           ",\"idle_bytes\":%lld,\"announced_closes\":%lld",
           (long long)(load.begun - load.ends[END_COMPLETE]), (long long)load.connections,
           (long long)load.idle_closed, (long long)load.idle_reset, (long long)load.idle_bytes,
           (long long)load.announced_closes);
    printf(",\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"max_ms\":%.3f", (double)histogram_quantile(500) / MS,
           (double)histogram_quantile(990) / MS, (double)load.max_us / MS);
    printf(",\"over_500ms\":%lld,\"over_1s\":%lld", (long long)load.over_500ms,
           (long long)load.over_1s);
    /* The clock is CLOCK_MONOTONIC: whoever does the events can tell what fell together. */
    printf(",\"start_s\":%.6f,\"seconds\":%.3f", (double)load.start_us / SECOND,
           (double)(end_us - load.start_us) / SECOND);
    printf(",\"slow_ms\":%.1f,\"slow_count\":%zu", (double)load.slow_us / MS, load.slow_count);
    print_listed("slow", load.slow, load.slow_count);
    print_listed("losses", load.losses, load.loss_count);
    printf(",\"slices\":[");
    for (int64_t i = 0; i < slices && i < SLICES_MAX; i++) {
        printf("%s%u", i > 0 ? "," : "", load.slices[i]);
    }
    printf("],\"first_bad\":\"");
    print_text(load.first_bad);
    puts("\"}");
    if (fflush(stdout) == EOF) {
        die(1, "cannot write the results: %s", strerror(errno));
    }
}

/* ---- the response -------------------------------------------------------------------------- */

enum parse_result { PARSE_MORE = 0, PARSE_OK, PARSE_BAD_STATUS, PARSE_BAD };

struct response {
    int64_t content_length; /* -1: none */
    bool closes;
};

/* One field line without its CRLF. The strictness is that of a test: what a good server never sends
 * is refused, also where RFC 9110 would let a client forgive. */
static bool
parse_field(const char *line, size_t len, struct response *response)
{
    const char *colon = memchr(line, ':', len);

    if (colon == NULL || colon == line || memchr(line, ' ', (size_t)(colon - line)) != NULL) {
        return false;
    }
    size_t name_len = (size_t)(colon - line);
    const char *value = colon + 1;
    const char *end = line + len;
    while (value < end && *value == ' ') {
        value++;
    }
    if (name_len == 14 && strncasecmp(line, "content-length", 14) == 0) {
        if (response->content_length >= 0 || value == end || end - value > 9) {
            return false;
        }
        response->content_length = 0;
        for (; value < end; value++) {
            if (*value < '0' || *value > '9') {
                return false;
            }
            response->content_length = 10 * response->content_length + (*value - '0');
        }
    } else if (name_len == 17 && strncasecmp(line, "transfer-encoding", 17) == 0) {
        return false; /* what is asked for has a length with each of the servers */
    } else if (name_len == 10 && strncasecmp(line, "connection", 10) == 0) {
        response->closes |= end - value == 5 && strncasecmp(value, "close", 5) == 0;
    }
    return true;
}

static enum parse_result
parse_response(const struct client *client, bool *ret_closes)
{
    static const char start[] = "HTTP/1.1 ";
    const char *bytes = client->response;
    size_t head_len;
    struct response response = {.content_length = -1};
    size_t known = client->got < sizeof(start) - 1 ? client->got : sizeof(start) - 1;

    if (memcmp(bytes, start, known) != 0) {
        return PARSE_BAD;
    }
    const char *head_end = memmem(bytes, client->got, "\r\n\r\n", 4);
    if (head_end == NULL) {
        return client->got < RESPONSE_MAX ? PARSE_MORE : PARSE_BAD;
    }
    head_len = (size_t)(head_end - bytes) + 4;
    const char *line = memmem(bytes, head_len, "\r\n", 2);
    if (line - bytes < 12 || (line - bytes > 12 && bytes[12] != ' ')) {
        return PARSE_BAD;
    }
    for (size_t i = 9; i < 12; i++) {
        if (bytes[i] < '0' || bytes[i] > '9') {
            return PARSE_BAD;
        }
    }
    for (line += 2; line < head_end + 2;) {
        const char *end = memmem(line, (size_t)(head_end + 2 - line), "\r\n", 2);
        if (!parse_field(line, (size_t)(end - line), &response)) {
            return PARSE_BAD;
        }
        line = end + 2;
    }
    if (response.content_length < 0) {
        return PARSE_BAD;
    }
    size_t whole = head_len + (size_t)response.content_length;
    if (whole > RESPONSE_MAX || client->got > whole) {
        return PARSE_BAD;
    }
    if (client->got < whole) {
        return PARSE_MORE;
    }
    *ret_closes = response.closes;
    if (memcmp(bytes + 9, "200", 3) != 0) {
        return PARSE_BAD_STATUS;
    }
    size_t body_len = strlen(load.body);
    return (size_t)response.content_length == body_len &&
                   memcmp(bytes + head_len, load.body, body_len) == 0
               ? PARSE_OK
               : PARSE_BAD;
}

/* ---- a client ------------------------------------------------------------------------------ */

static void
client_disconnect(struct client *client)
{
    if (client->fd != -1) {
        (void)close(client->fd); /* leaves epoll by it; nothing that it could say matters here */
        client->fd = -1;
    }
    client->used = false;
}

/* The request has ended: counts it and lets the client rest or go on. */
static void
client_end(struct client *client, enum request_end end, bool keep)
{
    int64_t now = now_us();

    TAILQ_REMOVE(&load.running, client, link);
    if (client->state == CLIENT_CONNECTED) {
        TAILQ_REMOVE(&load.held, client, held_link);
    }
    client->state = CLIENT_IDLE;
    count_end(client, end, now);
    if (keep) {
        client->used = true;
    } else {
        client_disconnect(client);
    }
    if (end == END_COMPLETE && !load.keep) {
        TAILQ_INSERT_TAIL(&load.ready, client, link);
    } else {
        client->resume_us = now + load.pause_us;
        TAILQ_INSERT_TAIL(&load.paused, client, link);
    }
}

/* The peer ended the connection under a request. */
static void
client_broken(struct client *client, bool reset)
{
    enum request_end end;

    if (client->got > 0) {
        end = END_PARTIAL;
    } else if (client->sent == 0) {
        end = reset ? END_RESET_BEFORE : END_CLOSED_BEFORE;
    } else if (client->used) {
        end = reset ? END_RESET_USED : END_CLOSED_USED;
    } else {
        end = reset ? END_RESET_FRESH : END_CLOSED_FRESH;
    }
    client_end(client, end, false);
}

static void
client_read(struct client *client)
{
    bool closes = false;

    for (;;) {
        ssize_t got =
            recv(client->fd, client->response + client->got, RESPONSE_MAX - client->got, 0);
        if (got == -1 && errno == EINTR) {
            continue;
        }
        if (got == -1 && errno == EAGAIN) {
            return;
        }
        if (got <= 0) {
            client_broken(client, got == -1);
            return;
        }
        client->got += (size_t)got;
        enum parse_result result = parse_response(client, &closes);
        if (result == PARSE_MORE) {
            continue;
        }
        if (result == PARSE_OK) {
            load.announced_closes += closes && load.keep;
            client_end(client, END_COMPLETE, load.keep && !closes);
            return;
        }
        if (load.first_bad[0] == '\0') {
            size_t room = sizeof(load.first_bad) - 1;
            memcpy(load.first_bad, client->response, client->got < room ? client->got : room);
        }
        client_end(client, result == PARSE_BAD_STATUS ? END_BAD_STATUS : END_BAD_RESPONSE, false);
        return;
    }
}

static void
client_connect(struct client *client)
{
    int one = 1;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                .data.ptr = client};

    client->fd = socket(load.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (client->fd == -1) {
        die(1, "cannot make a socket: %s; fewer clients (-c) or a higher ulimit -n may help",
            strerror(errno));
    }
    if (load.address.ss_family != AF_UNIX) {
        (void)setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    }
    load.connections++;
    client->used = false;
    client->state = CLIENT_CONNECTING;
    if (connect(client->fd, (struct sockaddr *)&load.address, load.address_len) == -1 &&
        errno != EINPROGRESS) {
        if (errno == EADDRNOTAVAIL) {
            die(1, "no local port is free: too many connections were closed within the last minute "
                   "(TIME_WAIT); wait, or widen net.ipv4.ip_local_port_range");
        }
        client_end(client, errno == ECONNREFUSED ? END_REFUSED : END_CONNECT_FAILED, false);
        return;
    }
    if (epoll_ctl(load.epoll_fd, EPOLL_CTL_ADD, client->fd, &event) == -1) {
        die(1, "cannot watch a connection: epoll_ctl: %s", strerror(errno));
    }
}

static void
client_send(struct client *client)
{
    client->state = CLIENT_SENDING;
    while (client->sent < load.request_len) {
        ssize_t sent = send(client->fd, load.request + client->sent,
                            load.request_len - client->sent, MSG_NOSIGNAL);
        if (sent == -1 && errno == EINTR) {
            continue;
        }
        if (sent == -1 && errno == EAGAIN) {
            return;
        }
        if (sent == -1) {
            if (client->used && client->sent == 0) {
                /* It ended between the look and the write and no byte has left: as if it had been
                 * seen before. */
                load.idle_reset++;
                client_disconnect(client);
                client_connect(client);
                return;
            }
            client_broken(client, errno != EPIPE);
            return;
        }
        client->sent += (size_t)sent;
    }
    client->state = CLIENT_READING;
}

/* Whether a kept connection has ended, or brought bytes that nobody asked for. */
static bool
kept_connection_ended(struct client *client)
{
    char byte;
    ssize_t got;

    do {
        got = recv(client->fd, &byte, 1, MSG_PEEK);
    } while (got == -1 && errno == EINTR);
    if (got == -1 && errno == EAGAIN) {
        return false;
    }
    load.idle_reset += got == -1;
    load.idle_closed += got == 0;
    load.idle_bytes += got > 0;
    client_disconnect(client);
    return true;
}

static void
client_begin(struct client *client, int64_t start_us)
{
    client->sent = client->got = 0;
    client->armed_us = now_us();
    client->start_us = start_us > 0 ? start_us : client->armed_us;
    load.begun++;
    TAILQ_INSERT_TAIL(&load.running, client, link);
    if (client->fd != -1 && !kept_connection_ended(client)) {
        client_send(client);
    } else {
        client_connect(client);
    }
}

static void
on_connect(struct client *client, uint32_t events)
{
    int error = 0;
    socklen_t len = sizeof(error);

    if (getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &len) == -1) {
        error = errno;
    }
    if (error == ECONNREFUSED) {
        client_end(client, END_REFUSED, false);
    } else if (error == ECONNRESET || error == EPIPE) {
        client_broken(client, true);
    } else if (error == ETIMEDOUT) {
        client_end(client, END_TIMEOUT_CONNECT, false);
    } else if (error != 0) {
        client_end(client, END_CONNECT_FAILED, false);
    } else if ((events & EPOLLRDHUP) != 0) {
        client_broken(client, false);
    } else if ((events & EPOLLOUT) != 0) {
        if (load.hold_us == 0) {
            client_send(client);
        } else if (client->state == CLIENT_CONNECTING) {
            client->state = CLIENT_CONNECTED;
            client->resume_us = now_us() + load.hold_us;
            TAILQ_INSERT_TAIL(&load.held, client, held_link);
        }
    }
}

static void
on_event(struct client *client, uint32_t events)
{
    switch (client->state) {
    case CLIENT_CONNECTING:
    case CLIENT_CONNECTED:
        on_connect(client, events);
        break;
    case CLIENT_SENDING:
        client_send(client);
        break;
    case CLIENT_READING:
        client_read(client);
        break;
    case CLIENT_IDLE:
        /* Seen while it rests: the next request gets a connection of its own. */
        if (client->fd != -1) {
            (void)kept_connection_ended(client);
        }
        break;
    }
}

/* ---- the loop ------------------------------------------------------------------------------ */

/* When the next request is due by the clock. */
static int64_t
next_due_us(void)
{
    return load.start_us + load.begun * SECOND / load.rate;
}

static bool
may_begin(int64_t now)
{
    if (load.ending || now - load.start_us >= load.duration_us ||
        (load.request_limit > 0 && load.begun >= load.request_limit)) {
        load.ending = true;
    }
    return !load.ending;
}

/* Begins what is due. A client that ends within it goes to the end of a queue, and the turn ends
 * with the clients that were there at its beginning, so that events are never starved. */
static void
begin_due(int64_t now)
{
    struct client *client;
    struct client *last;

    while ((client = TAILQ_FIRST(&load.paused)) != NULL && client->resume_us <= now) {
        TAILQ_REMOVE(&load.paused, client, link);
        TAILQ_INSERT_TAIL(&load.ready, client, link);
    }
    while ((client = TAILQ_FIRST(&load.held)) != NULL && client->resume_us <= now) {
        TAILQ_REMOVE(&load.held, client, held_link);
        client_send(client);
    }
    last = TAILQ_LAST(&load.ready, client_queue);
    while ((client = TAILQ_FIRST(&load.ready)) != NULL && may_begin(now)) {
        int64_t start_us = load.rate > 0 ? next_due_us() : 0;
        if (start_us > now) {
            return;
        }
        TAILQ_REMOVE(&load.ready, client, link);
        client_begin(client, start_us);
        if (client == last) {
            return;
        }
    }
}

static void
end_late(int64_t now)
{
    struct client *client;

    while ((client = TAILQ_FIRST(&load.running)) != NULL &&
           now - client->armed_us >= load.timeout_us) {
        client_end(client, client->state == CLIENT_CONNECTING ? END_TIMEOUT_CONNECT : END_TIMEOUT,
                   false);
    }
}

static int64_t
earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int
wait_ms(int64_t now)
{
    const struct client *running = TAILQ_FIRST(&load.running);
    const struct client *paused = TAILQ_FIRST(&load.paused);
    const struct client *held = TAILQ_FIRST(&load.held);
    int64_t until_us = now + SECOND;

    if (running != NULL) {
        until_us = earlier(until_us, running->armed_us + load.timeout_us);
    }
    if (held != NULL) {
        until_us = earlier(until_us, held->resume_us);
    }
    if (!load.ending) {
        until_us = earlier(until_us, load.start_us + load.duration_us);
        if (paused != NULL) {
            until_us = earlier(until_us, paused->resume_us);
        }
        if (!TAILQ_EMPTY(&load.ready)) {
            until_us = earlier(until_us, load.rate > 0 ? next_due_us() : now);
        }
    }
    return until_us <= now ? 0 : (int)((until_us - now + MS - 1) / MS);
}

static void
run(void)
{
    struct epoll_event events[EVENTS_MAX];

    load.start_us = now_us();
    for (;;) {
        int64_t now = now_us();
        end_late(now);
        begin_due(now);
        if (!may_begin(now) && TAILQ_EMPTY(&load.running)) {
            return;
        }
        int count = epoll_wait(load.epoll_fd, events, EVENTS_MAX, wait_ms(now));
        if (count == -1 && errno != EINTR) {
            die(1, "epoll_wait: %s", strerror(errno));
        }
        /* An event is for the connection that its client has now: a descriptor that is closed
         * leaves epoll at once, and each client is in one batch at most once. */
        for (int i = 0; i < count; i++) {
            on_event(events[i].data.ptr, events[i].events);
        }
    }
}

/* ---- start --------------------------------------------------------------------------------- */

static int64_t
number(char option, const char *text, int64_t min, int64_t max)
{
    char *end;

    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < min || value > max) {
        die(2, "-%c '%s' must be a whole number from %lld to %lld", option, text, (long long)min,
            (long long)max);
    }
    return value;
}

static void
set_address(const char *text)
{
    struct sockaddr_un *un = (struct sockaddr_un *)&load.address;
    struct sockaddr_in *in = (struct sockaddr_in *)&load.address;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&load.address;
    char host[64];
    const char *colon = strrchr(text, ':');

    if (strncmp(text, "unix:", 5) == 0 && text[5] != '\0' &&
        strlen(text + 5) < sizeof(un->sun_path)) {
        un->sun_family = AF_UNIX;
        memcpy(un->sun_path, text + 5, strlen(text + 5) + 1);
        load.address_len = sizeof(*un);
        return;
    }
    if (colon != NULL && (size_t)(colon - text) < sizeof(host)) {
        in_port_t port = htons((uint16_t)number('a', colon + 1, 1, 65535));
        size_t len = (size_t)(colon - text);
        bool bracketed = len > 2 && text[0] == '[' && text[len - 1] == ']';
        memcpy(host, text + bracketed, len - 2 * bracketed);
        host[len - 2 * bracketed] = '\0';
        if (!bracketed && inet_pton(AF_INET, host, &in->sin_addr) == 1) {
            in->sin_family = AF_INET;
            in->sin_port = port;
            load.address_len = sizeof(*in);
            return;
        }
        if (bracketed && inet_pton(AF_INET6, host, &in6->sin6_addr) == 1) {
            in6->sin6_family = AF_INET6;
            in6->sin6_port = port;
            load.address_len = sizeof(*in6);
            return;
        }
    }
    die(2, "-a '%s' must be IPV4:PORT, [IPV6]:PORT or unix:/PATH", text);
}

static void
read_arguments(int argc, char **argv)
{
    const char *path = "/";
    int option;

    load.body = "ok\n";
    load.client_count = 32;
    load.pause_us = 20 * MS;
    load.duration_us = 10 * (int64_t)SECOND;
    load.timeout_us = 10 * (int64_t)SECOND;
    load.slow_us = 250 * MS;
    while ((option = getopt(argc, argv, "a:p:b:c:kw:d:r:n:t:T:s:")) != -1) {
        char letter = (char)option;
        switch (option) {
        case 'a':
            set_address(optarg);
            break;
        case 'p':
            path = optarg;
            break;
        case 'b':
            load.body = optarg;
            break;
        case 'c':
            load.client_count = (size_t)number(letter, optarg, 1, 100000);
            break;
        case 'k':
            load.keep = true;
            break;
        case 'w':
            load.pause_us = number(letter, optarg, 0, 60000) * MS;
            break;
        case 'd':
            load.hold_us = number(letter, optarg, 0, 60000) * MS;
            break;
        case 'r':
            load.rate = number(letter, optarg, 1, 1000000);
            break;
        case 'n':
            load.request_limit = number(letter, optarg, 0, INT_MAX);
            break;
        case 't':
            load.duration_us = number(letter, optarg, 1, 3600) * SECOND;
            break;
        case 'T':
            load.timeout_us = number(letter, optarg, 1, 600000) * MS;
            break;
        case 's':
            load.slow_us = number(letter, optarg, 0, 600000) * MS;
            break;
        default:
            die(2, "usage: chaos-load -a ADDRESS [-p PATH] [-b BODY] [-c CLIENTS] [-k] [-w MS] [-d "
                   "MS] "
                   "[-r RATE] [-n REQUESTS] [-t SECONDS] [-T MS] [-s MS]");
        }
    }
    if (load.address_len == 0 || optind != argc) {
        die(2, "give the address with -a, and nothing but options");
    }
    int len = snprintf(load.request, sizeof(load.request),
                       "GET %s HTTP/1.1\r\nHost: chaos.test\r\n%s\r\n", path,
                       load.keep ? "" : "Connection: close\r\n");
    if (len < 0 || (size_t)len >= sizeof(load.request)) {
        die(2, "-p is too long");
    }
    load.request_len = (size_t)len;
}

static void
raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* socket(2) says it when it is not enough */
    }
}

int
main(int argc, char **argv)
{
    read_arguments(argc, argv);
    raise_descriptor_limit();
    load.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    load.clients = calloc(load.client_count, sizeof(*load.clients));
    if (load.epoll_fd == -1 || load.clients == NULL) {
        die(1, "cannot begin: %s", strerror(errno));
    }
    TAILQ_INIT(&load.ready);
    TAILQ_INIT(&load.paused);
    TAILQ_INIT(&load.held);
    TAILQ_INIT(&load.running);
    for (size_t i = 0; i < load.client_count; i++) {
        load.clients[i].fd = -1;
        TAILQ_INSERT_TAIL(&load.ready, &load.clients[i], link);
    }
    run();
    print_results(now_us());
    for (size_t i = 0; i < load.client_count; i++) {
        client_disconnect(&load.clients[i]);
    }
    free(load.clients);
    (void)close(load.epoll_fd);
    return 0;
}
