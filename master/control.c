/* SPDX-License-Identifier: Apache-2.0
 *
 * Clients of the control socket. Bounded in number, input, output and time, because the master
 * must not wait for any of them. Runs in the master.
 */
#include "master/control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/base/clock.h"
#include "config/base/fd.h"
#include "config/base/log.h"
#include "config/config.h"
#include "master/deaths.h"
#include "master/json.h"
#include "master/master.h"
#include "master/server_command.h"
#include "master/status.h"

#define INPUT_MAX 4096
#define CLIENT_TIMEOUT_MS 10000
#define BACKLOG 16
/* How long no client is accepted after the kernel had no descriptor for one. */
#define ACCEPT_PAUSE_MS 100

struct control_client {
    struct master *master;
    int fd; /* owned */
    ev_io readable;
    ev_io writable;
    ev_timer timeout;
    char input[INPUT_MAX];
    size_t input_length;
    struct buf output;
    size_t sent;     /* of output */
    bool at_its_end; /* nothing more is read; closed when all is sent */
    struct list_node node;
};

static void
client_close(struct control_client *client)
{
    struct ev_loop *loop = client->master->loop;

    ev_io_stop(loop, &client->readable);
    ev_io_stop(loop, &client->writable);
    ev_timer_stop(loop, &client->timeout);
    fd_close(&client->fd);
    buf_release(&client->output);
    list_remove(&client->node);
    client->master->control.client_count--;
    free(client);
}

static void
answer_error(struct buf *out, const char *text)
{
    struct buf answer = {0};

    json_open(&answer, NULL, '{');
    json_text(&answer, "error", text);
    json_close(&answer, '}');
    buf_add(out, answer.ptr, answer.len);
    buf_release(&answer);
}

struct control_command {
    const char *name;
    void (*run)(struct master *master, struct buf *out);
};

static void
run_ping(struct master *master, struct buf *out)
{
    status_print_ping(master, out);
}

static void
run_status(struct master *master, struct buf *out)
{
    status_print(master, out);
}

static void
run_deaths(struct master *master, struct buf *out)
{
    deaths_print(master->board, out);
}

static void
run_upgrade(struct master *master, struct buf *out)
{
    if (!upgrade_request(master)) {
        answer_error(out, "the upgrade is refused; the log says why");
        return;
    }
    json_open(out, NULL, '{');
    json_text(out, "upgrade", "begun; the log says what comes of it");
    json_close(out, '}');
}

static const struct control_command commands[] = {
    {"ping", run_ping}, {"status", run_status}, {"deaths", run_deaths}, {"upgrade", run_upgrade}};

static void
run_line(struct control_client *client, const char *line)
{
    struct buf answer = {0};
    bool known = strncmp(line, "server ", 7) == 0;

    if (known) {
        server_command_run(client->master, line + 7, &answer);
    }
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]) && !known; i++) {
        if (strcmp(line, commands[i].name) == 0) {
            commands[i].run(client->master, &answer);
            known = true;
        }
    }
    if (!known) {
        answer_error(&answer,
                     "unknown command; known are ping, status, deaths, upgrade and server");
    }
    buf_add(&client->output, answer.ptr, answer.len);
    buf_add(&client->output, "\n", 1);
    buf_release(&answer);
}

/* Sends what the socket takes; false when the client is closed. */
static bool
client_flush(struct control_client *client)
{
    while (client->sent < client->output.len) {
        ssize_t n = send(client->fd, client->output.ptr + client->sent,
                         client->output.len - client->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n == -1 && errno == EINTR) {
            continue;
        }
        if (n == -1 && errno == EAGAIN) {
            ev_io_stop(client->master->loop, &client->readable); /* answers first */
            ev_io_start(client->master->loop, &client->writable);
            return true;
        }
        if (n == -1) {
            client_close(client);
            return false;
        }
        client->sent += (size_t)n;
    }
    buf_clear(&client->output);
    client->sent = 0;
    ev_io_stop(client->master->loop, &client->writable);
    if (client->at_its_end) {
        client_close(client);
        return false;
    }
    ev_io_start(client->master->loop, &client->readable);
    return true;
}

static void
run_lines(struct control_client *client)
{
    char *end;

    while ((end = memchr(client->input, '\n', client->input_length)) != NULL) {
        size_t length = (size_t)(end - client->input);
        client->input[length] = '\0';
        if (length > 0 && client->input[length - 1] == '\r') {
            client->input[length - 1] = '\0';
        }
        run_line(client, client->input);
        client->input_length -= length + 1;
        memmove(client->input, end + 1, client->input_length);
    }
    if (client->input_length == INPUT_MAX) {
        answer_error(&client->output, "the line is longer than 4096 bytes");
        buf_add(&client->output, "\n", 1);
        client->at_its_end = true;
    }
}

static void
on_readable(struct ev_loop *loop, ev_io *watcher, int revents)
{
    struct control_client *client = container_of(watcher, struct control_client, readable);

    (void)loop;
    (void)revents;
    ssize_t n =
        fd_read(client->fd, client->input + client->input_length, INPUT_MAX - client->input_length);
    if (n == -1 && errno == EAGAIN) {
        return;
    }
    if (n <= 0) {
        client->at_its_end = true;
    } else {
        client->input_length += (size_t)n;
        run_lines(client);
    }
    (void)client_flush(client); /* closes the client when it is at its end */
}

static void
on_writable(struct ev_loop *loop, ev_io *watcher, int revents)
{
    (void)loop;
    (void)revents;
    (void)client_flush(container_of(watcher, struct control_client, writable));
}

static void
on_timeout(struct ev_loop *loop, ev_timer *timer, int revents)
{
    (void)loop;
    (void)revents;
    client_close(container_of(timer, struct control_client, timeout));
}

static bool
is_allowed(int fd)
{
    struct ucred peer;
    socklen_t size = sizeof(peer);

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
           (peer.uid == 0 || peer.uid == geteuid());
}

static void
client_new(struct master *master, int fd)
{
    struct control_client *client = xcalloc(1, sizeof(*client));

    client->master = master;
    client->fd = fd;
    ev_io_init(&client->readable, on_readable, fd, EV_READ);
    ev_io_init(&client->writable, on_writable, fd, EV_WRITE);
    ev_timer_init(&client->timeout, on_timeout, ms_to_seconds(CLIENT_TIMEOUT_MS), 0.);
    list_init(&client->node);
    list_push_back(&master->control.clients, &client->node);
    master->control.client_count++;
    ev_io_start(master->loop, &client->readable);
    ev_timer_start(master->loop, &client->timeout);
}

static void
on_pause_over(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct control *control = container_of(timer, struct control, pause);

    (void)revents;
    ev_io_start(loop, &control->accept);
}

static bool
is_exhaustion(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

/* The client stays in the queue, so the socket stays readable: looking again at once would take a
 * whole CPU. */
static void
pause_accepting(struct master *master, int error)
{
    struct control *control = &master->control;

    if (!control->exhausted) {
        log_warn("cannot accept a control client, it waits: %s; raise LimitNOFILE= or ulimit -n",
                 strerror(error));
        control->exhausted = true;
    }
    ev_io_stop(master->loop, &control->accept);
    ev_timer_set(&control->pause, ms_to_seconds(ACCEPT_PAUSE_MS), 0.);
    ev_timer_start(master->loop, &control->pause);
}

static void
on_accept(struct ev_loop *loop, ev_io *watcher, int revents)
{
    struct master *master = ev_userdata(loop);
    int fd = accept4(watcher->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    (void)revents;
    if (fd == -1) {
        if (is_exhaustion(errno)) {
            pause_accepting(master, errno);
        }
        return; /* else EAGAIN, or the client is gone */
    }
    master->control.exhausted = false;
    if (!is_allowed(fd) || master->control.client_count >= CONTROL_CLIENTS_MAX) {
        log_debug("a control client was turned away clients=%zu", master->control.client_count);
        fd_close(&fd);
        return;
    }
    client_new(master, fd);
}

void
control_open(struct master *master)
{
    struct control *control = &master->control;
    const char *path = master->config->master.control_path;
    struct unix_listener_options options = {.mode = 0600, .backlog = BACKLOG};
    struct buf error = {0};

    if (control->listener.fd != -1 && (path == NULL || strcmp(control->listener.path, path) != 0)) {
        unix_listener_close(&control->listener); /* a predecessor's, at another place */
    }
    if (path == NULL) {
        return;
    }
    if (control->listener.fd == -1 &&
        unix_listener_open(&control->listener, path, &options, &error) != 0) {
        log_warn("there is no control socket, narwhalctl will not work: %s: %s (%s)", path,
                 error.ptr, config_origin(master->config, "master", NULL, "control"));
        buf_release(&error);
        return;
    }
    buf_release(&error);
    ev_io_init(&control->accept, on_accept, control->listener.fd, EV_READ);
    ev_io_start(master->loop, &control->accept);
    ev_timer_init(&control->pause, on_pause_over, 0., 0.);
    control->exhausted = false;
    log_info("control socket path=%s", path);
}

void
control_close(struct master *master)
{
    struct control *control = &master->control;

    LIST_FOR_EACH_SAFE (node, &control->clients) {
        client_close(container_of(node, struct control_client, node));
    }
    if (control->listener.fd != -1) {
        ev_io_stop(master->loop, &control->accept);
        ev_timer_stop(master->loop, &control->pause);
        unix_listener_close(&control->listener);
    }
}

void
control_hold(struct master *master, bool hold)
{
    struct control *control = &master->control;

    if (control->listener.fd == -1) {
        return;
    }
    ev_timer_stop(master->loop, &control->pause);
    if (hold) {
        ev_io_stop(master->loop, &control->accept);
    } else {
        ev_io_start(master->loop, &control->accept);
    }
}
