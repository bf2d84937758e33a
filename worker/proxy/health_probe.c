/* SPDX-License-Identifier: Apache-2.0
 *
 * Probes: one timer that looks for leases which are due, and one small exchange for each lease that
 * this worker got: connect, GET, the head of the answer, the end. Runs in workers.
 *
 * A probe holds the settings that it was begun with. It ends in probe_end() alone, with a result or
 * without one: a full accept queue (unix(7), EAGAIN) says that a server is busy, not that it is
 * broken, and a worker that has no descriptor or memory left can say nothing about a server.
 */
#include "worker/proxy/health_probe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/base/clock.h"
#include "config/base/fd.h"
#include "config/base/log.h"
#include "config/config.h"
#include "worker/live.h"
#include "worker/proxy/health.h"
#include "worker/proxy/proxy.h"
#include "worker/proxy_protocol.h"
#include "worker/worker_private.h"

/* Of an answer's head; a longer one is as bad as none. */
#define ANSWER_MAX 8192
/* A timer that is due in no time would keep the loop busy. */
#define LOOK_MIN_MS 5
/* Probes that one worker has open: descriptors, and memory for their answers. With more servers the
 * rest is left to other workers, or to a look a little later. */
#define OPEN_MAX 64
#define LOOK_AGAIN_MS 20

struct health_probe {
    struct list_node node; /* of worker->health_probes.open */
    struct worker *worker;
    struct live *live; /* a reference */
    struct backend *backend;
    uint32_t record;
    uint32_t life; /* of the record when it was begun */
    int64_t ticket;
    int fd; /* owned */
    ev_io io;
    ev_timer timeout;
    struct buf request; /* owned */
    size_t sent;
    size_t length; /* of answer */
    char answer[ANSWER_MAX];
};

/* ---- ends ------------------------------------------------------------------------------------ */

static void
probe_drop(struct health_probe *probe)
{
    struct ev_loop *loop = probe->worker->loop;

    ev_io_stop(loop, &probe->io);
    ev_timer_stop(loop, &probe->timeout);
    fd_close(&probe->fd);
    list_remove(&probe->node);
    probe->worker->health_probes.open_count--;
    buf_release(&probe->request);
    live_unref(&probe->live);
    free(probe);
}

/* why: what is wrong, or NULL when the server is well. */
static void
probe_end(struct health_probe *probe, const char *why)
{
    struct worker *worker = probe->worker;
    struct board_server *server = &worker->board->servers[probe->record];
    const struct backend_settings *settings = probe->backend->settings;
    enum health_change change = HEALTH_SAME;

    if (atomic_load_explicit(&server->life, memory_order_acquire) == probe->life) {
        change = health_probed(server, settings, probe->ticket, why == NULL, worker->now_ms);
    }
    switch (change) {
    case HEALTH_SAME:
        log_debug("probe backend=%s server=%s result=\"%s\"", settings->name, server->address.text,
                  why != NULL ? why : "good");
        break;
    case HEALTH_WENT_DOWN:
        log_warn("server is down reason=\"%s\" backend=%s server=%s; see health_path", why,
                 settings->name, server->address.text);
        break;
    case HEALTH_CAME_UP:
        log_info("server is up again backend=%s server=%s", settings->name, server->address.text);
        break;
    }
    if (change != HEALTH_SAME) {
        proxy_server_changed(worker, probe->backend);
    }
    probe_drop(probe);
}

/* ---- one probe ------------------------------------------------------------------------------- */

static bool
is_expected(const struct backend_settings *settings, int status)
{
    return settings->health_status == 0 ? status >= 200 && status <= 399
                                        : status == settings->health_status;
}

/* Looks at what there is of the answer; true when the probe ended. */
static bool
take_answer(struct health_probe *probe)
{
    struct response_parser *parser = &probe->worker->response_parser;
    size_t at = 0;
    char why[64];

    for (;;) { /* from the start each time: it is short, and mostly comes in one piece */
        response_parser_init(parser);
        switch (response_parser_run(parser, false, probe->answer + at, probe->length - at)) {
        case PARSE_MORE:
            return false;
        case PARSE_BAD:
            probe_end(probe, parser->error.reason);
            return true;
        case PARSE_OK:
            break;
        }
        if (parser->head.status >= 200) {
            break;
        }
        at += parser->head.length;
    }
    if (is_expected(probe->backend->settings, parser->head.status)) {
        probe_end(probe, NULL);
    } else {
        (void)snprintf(why, sizeof(why), "status %d", parser->head.status);
        probe_end(probe, why);
    }
    return true;
}

/* Reads what there is; true when the probe ended. */
static bool
probe_read(struct health_probe *probe)
{
    for (;;) {
        ssize_t n = fd_read(probe->fd, probe->answer + probe->length, ANSWER_MAX - probe->length);
        if (n == -1 && errno == EAGAIN) {
            return false;
        }
        if (n <= 0) {
            probe_end(probe, n == 0 ? "closed before its answer" : strerror(errno));
            return true;
        }
        probe->length += (size_t)n;
        if (take_answer(probe)) {
            return true;
        }
        if (probe->length == ANSWER_MAX) {
            probe_end(probe, "the head of its answer is longer than 8192 bytes");
            return true;
        }
    }
}

/* Sends what the socket takes; true when the probe ended. */
static bool
probe_send(struct health_probe *probe)
{
    int error = 0;
    socklen_t length = sizeof(error);

    if (probe->sent == 0 &&
        (getsockopt(probe->fd, SOL_SOCKET, SO_ERROR, &error, &length) == -1 || error != 0)) {
        probe_end(probe, strerror(error != 0 ? error : errno));
        return true;
    }
    ssize_t n = send(probe->fd, probe->request.ptr + probe->sent, probe->request.len - probe->sent,
                     MSG_NOSIGNAL);
    if (n == -1 && errno != EAGAIN && errno != EINTR) {
        probe_end(probe, strerror(errno));
        return true;
    }
    probe->sent += n > 0 ? (size_t)n : 0;
    return false;
}

static void
probe_watch(struct health_probe *probe, int events)
{
    ev_io_stop(probe->worker->loop, &probe->io);
    ev_io_set(&probe->io, probe->fd, events);
    ev_io_start(probe->worker->loop, &probe->io);
}

static void
on_probe_io(struct ev_loop *loop, ev_io *io, int revents)
{
    struct health_probe *probe = container_of(io, struct health_probe, io);

    (void)loop;
    if ((revents & EV_READ) != 0 && probe_read(probe)) {
        return;
    }
    if ((revents & EV_WRITE) != 0 && !probe_send(probe) && probe->sent == probe->request.len) {
        probe_watch(probe, EV_READ);
    }
}

static void
on_probe_timeout(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct health_probe *probe = container_of(timer, struct health_probe, timeout);

    (void)loop;
    (void)revents;
    /* A worker that was late itself may find the answer waiting. */
    if (probe->sent == probe->request.len && probe_read(probe)) {
        return;
    }
    probe_end(probe, "no answer within health_timeout");
}

static void
put_request(struct health_probe *probe)
{
    const struct backend_settings *settings = probe->backend->settings;
    const struct address *address = &probe->worker->board->servers[probe->record].address;
    const char *host = settings->health_host;

    if (host == NULL) {
        host = address->kind == ADDRESS_TCP ? address->text : "localhost";
    }
    if (settings->proxy_protocol != PROXY_OFF) {
        char header[PROXY_HEADER_WRITE_MAX];
        buf_add(&probe->request, header,
                proxy_header_write_local(settings->proxy_protocol, header));
    }
    buf_addf(&probe->request,
             "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: narwhal-health\r\nAccept: */*\r\n"
             "Connection: close\r\n\r\n",
             settings->health_path, host);
}

static void
probe_start(struct worker *worker, struct backend *backend, uint32_t record, int64_t ticket)
{
    const struct backend_settings *settings = backend->settings;
    const struct board_server *server = &worker->board->servers[record];
    int fd = socket(server->address.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd == -1) {
        log_warn("cannot ask for health_path: %s backend=%s server=%s", strerror(errno),
                 settings->name, server->address.text);
        return;
    }
    struct health_probe *probe = xcalloc(1, sizeof(*probe));
    probe->worker = worker;
    probe->live = live_ref(worker->live);
    probe->backend = backend;
    probe->record = record;
    probe->life = atomic_load_explicit(&server->life, memory_order_acquire);
    probe->ticket = ticket;
    probe->fd = fd;
    list_push_back(&worker->health_probes.open, &probe->node);
    worker->health_probes.open_count++;
    ev_io_init(&probe->io, on_probe_io, fd, EV_READ | EV_WRITE);
    ev_timer_init(&probe->timeout, on_probe_timeout, 0., 0.);
    put_request(probe);
    if (connect(fd, &server->address.sa, server->address.length) == -1 && errno != EINPROGRESS &&
        errno != EINTR) {
        if (errno == EAGAIN) {
            probe_drop(probe);
        } else {
            probe_end(probe, strerror(errno));
        }
        return;
    }
    int64_t timeout_ms = settings->health_timeout_ms < settings->health_interval_ms
                             ? settings->health_timeout_ms
                             : settings->health_interval_ms;
    ev_timer_set(&probe->timeout, ms_to_seconds(timeout_ms), 0.);
    ev_timer_start(worker->loop, &probe->timeout);
    ev_io_start(worker->loop, &probe->io);
}

/* ---- leases ---------------------------------------------------------------------------------- */

/* Takes what is due of one backend; returns when to look again. */
static int64_t
look_at_backend(struct worker *worker, struct backend *backend)
{
    const struct backend_settings *settings = backend->settings;
    int64_t first_ms = worker->now_ms + settings->health_interval_ms;

    for (uint32_t i = 0; i < settings->record_count; i++) {
        struct board_server *server = &worker->board->servers[settings->records[i]];
        int64_t next_ms;
        if (atomic_load_explicit(&server->state, memory_order_acquire) != BOARD_READY ||
            atomic_load_explicit(&server->wish, memory_order_relaxed) == BOARD_WISH_DISABLED) {
            continue;
        }
        if (worker->health_probes.open_count == OPEN_MAX) {
            int64_t again_ms = worker->now_ms + LOOK_AGAIN_MS;
            return again_ms < first_ms ? again_ms : first_ms;
        }
        int64_t ticket = health_probe_lease(server, settings, worker->now_ms, &next_ms);
        if (ticket != 0) {
            probe_start(worker, backend, settings->records[i], ticket);
        }
        first_ms = next_ms < first_ms ? next_ms : first_ms;
    }
    return first_ms;
}

static void
look(struct worker *worker)
{
    struct live *live = worker->live;
    ev_timer *timer = &worker->health_probes.timer;
    int64_t first_ms = INT64_MAX;

    ev_timer_stop(worker->loop, timer);
    for (size_t i = 0; i < live->config->backend_count; i++) {
        if (live->config->backends[i].health_path != NULL) {
            int64_t next_ms = look_at_backend(worker, &live->backends[i]);
            first_ms = next_ms < first_ms ? next_ms : first_ms;
        }
    }
    if (first_ms != INT64_MAX) {
        int64_t after_ms = first_ms - worker->now_ms;
        ev_timer_set(timer, ms_to_seconds(after_ms > LOOK_MIN_MS ? after_ms : LOOK_MIN_MS), 0.);
        ev_timer_start(worker->loop, timer);
    }
}

static void
on_look(struct ev_loop *loop, ev_timer *timer, int revents)
{
    (void)loop;
    (void)revents;
    look(container_of(timer, struct worker, health_probes.timer));
}

void
health_probes_init(struct worker *worker)
{
    list_init(&worker->health_probes.open);
    ev_timer_init(&worker->health_probes.timer, on_look, 0., 0.);
}

void
health_probes_settings(struct worker *worker)
{
    if (!worker->draining) {
        look(worker);
    }
}

void
health_probes_stop(struct worker *worker)
{
    ev_timer_stop(worker->loop, &worker->health_probes.timer);
    LIST_FOR_EACH_SAFE (node, &worker->health_probes.open) {
        probe_drop(container_of(node, struct health_probe, node));
    }
}
