/* SPDX-License-Identifier: Apache-2.0
 *
 * Clients of the control socket. Bounded in number, input, output and time, because the master
 * must not wait for any of them. Invariants: a command is looked at when the answers before it are
 * taken, and one client gets one command a turn of the loop, so that neither memory nor time is
 * for a client to decide about. Runs in the master.
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
#include "master/control_command.h"
#include "master/control_peer.h"
#include "master/json.h"
#include "master/master.h"

#define INPUT_MAX 4096
/* Without a command for so long, or with an answer that is not taken, a client has to go. */
#define CLIENT_TIMEOUT_MS 30000
#define BACKLOG 64
/* How long no client is accepted after the kernel had no descriptor for one. */
#define ACCEPT_PAUSE_MS 100
/* One line of the log for those who are turned away within it; the next one counts the others. */
#define REFUSAL_TOLD_MS 1000

struct control_client {
    struct master *master;
    int fd; /* owned */
    ev_io readable;
    ev_io writable;
    ev_timer timeout;
    ev_timer more; /* the next command, after others had their turn */
    char input[INPUT_MAX];
    size_t input_length;
    struct buf output;
    size_t sent;     /* of output */
    bool at_its_end; /* nothing more is read; closed when all is sent */
    bool listens;    /* to events */
    uint64_t lost;   /* events since the last one that it got */
    struct list_node node;
};

/* ---- one client ------------------------------------------------------------------------------ */

static void
client_close(struct control_client *client)
{
    struct master *master = client->master;

    ev_io_stop(master->loop, &client->readable);
    ev_io_stop(master->loop, &client->writable);
    ev_timer_stop(master->loop, &client->timeout);
    ev_timer_stop(master->loop, &client->more);
    if (client->listens) {
        events_listen(master, -1);
    }
    fd_close(&client->fd);
    buf_release(&client->output);
    list_remove(&client->node);
    master->control.client_count--;
    free(client);
}

/* It did something: its time begins again, and others go first when somebody has to. */
static void
client_touch(struct control_client *client)
{
    struct master *master = client->master;

    list_remove(&client->node);
    list_push_back(&master->control.clients, &client->node);
    ev_timer_stop(master->loop, &client->timeout);
    if (!client->listens) {
        ev_now_update(master->loop);
        ev_timer_set(&client->timeout, ms_to_seconds(CLIENT_TIMEOUT_MS), 0.);
        ev_timer_start(master->loop, &client->timeout);
    }
}

static void
add_refusal(struct control_client *client, const char *why)
{
    struct buf answer = {0};

    control_command_refuse(&answer, "%s", why);
    buf_add(&answer, "\n", 1);
    buf_add(&client->output, answer.ptr, answer.len);
    buf_release(&answer);
}

static size_t
count_listeners(const struct master *master)
{
    return master->events.listeners;
}

static void
run_line(struct control_client *client, const char *line)
{
    struct buf answer = {0};

    if (control_command_run(client->master, line, &answer) == CONTROL_LISTENS) {
        if (count_listeners(client->master) >= CONTROL_LISTENERS_MAX) {
            buf_release(&answer);
            add_refusal(client, "too many listen to events already; end one of them");
            return;
        }
        client->listens = true;
        events_listen(client->master, 1);
    }
    buf_add(&client->output, answer.ptr, answer.len);
    buf_add(&client->output, "\n", 1);
    buf_release(&answer);
}

/* Runs the first line of what was read, if there is a whole one; with what it answers the client
 * has to take it before the next line is looked at. */
static void
run_first_line(struct control_client *client)
{
    char *end = memchr(client->input, '\n', client->input_length);

    if (client->listens) {
        client->input_length = 0; /* it has nothing more to say */
        return;
    }
    if (end == NULL) {
        if (client->input_length == INPUT_MAX) {
            add_refusal(client, "the line is longer than 4096 bytes");
            client->at_its_end = true;
            client->input_length = 0;
        }
        return;
    }
    size_t length = (size_t)(end - client->input);
    size_t rest = client->input_length - length - 1;
    bool is_text = memchr(client->input, '\0', length) == NULL;
    client->input[length] = '\0';
    if (length > 0 && client->input[length - 1] == '\r') {
        client->input[length - 1] = '\0';
    }
    if (!is_text) {
        add_refusal(client, "the line has a NUL byte in it; a command is text");
    } else {
        run_line(client, client->input);
    }
    client->input_length = rest;
    memmove(client->input, end + 1, rest);
    client_touch(client);
}

enum flushed { FLUSHED_ALL = 0, FLUSHED_SOME, FLUSHED_BROKEN };

static enum flushed
client_flush(struct control_client *client)
{
    while (client->sent < client->output.len) {
        ssize_t n = send(client->fd, client->output.ptr + client->sent,
                         client->output.len - client->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n == -1 && errno == EINTR) {
            continue;
        }
        if (n == -1) {
            return errno == EAGAIN ? FLUSHED_SOME : FLUSHED_BROKEN;
        }
        client->sent += (size_t)n;
    }
    buf_clear(&client->output);
    client->sent = 0;
    return FLUSHED_ALL;
}

static void
tell_loss(struct control_client *client)
{
    struct buf line = {0};

    if (client->lost == 0) {
        return;
    }
    json_open(&line, NULL, '{');
    json_text(&line, "event", "lost");
    json_number(&line, "count", (int64_t)client->lost);
    json_close(&line, '}');
    buf_add(&line, "\n", 1);
    buf_add(&client->output, line.ptr, line.len);
    buf_release(&line);
    client->lost = 0;
}

static bool
has_line(const struct control_client *client)
{
    return memchr(client->input, '\n', client->input_length) != NULL;
}

/* Sends what there is to send, and says what the client is watched for then; may close it. */
static void
client_go_on(struct control_client *client)
{
    struct ev_loop *loop = client->master->loop;
    enum flushed flushed = client_flush(client);

    if (flushed == FLUSHED_ALL && client->lost > 0) {
        tell_loss(client);
        flushed = client_flush(client);
    }
    bool has_more = flushed == FLUSHED_ALL && has_line(client) && !client->listens;
    if (flushed == FLUSHED_BROKEN || (flushed == FLUSHED_ALL && client->at_its_end && !has_more)) {
        client_close(client);
        return;
    }
    if (flushed == FLUSHED_SOME) {
        ev_io_start(loop, &client->writable);
    } else {
        ev_io_stop(loop, &client->writable);
    }
    if (has_more) {
        ev_timer_set(&client->more, 0., 0.);
        ev_timer_start(loop, &client->more);
    }
    /* Who does not take answers is not asked for commands; the end of a listener is always seen. */
    if (!client->at_its_end && !has_more && (flushed == FLUSHED_ALL || client->listens)) {
        ev_io_start(loop, &client->readable);
    } else {
        ev_io_stop(loop, &client->readable);
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
    if (n > 0) {
        client->input_length += (size_t)n;
    } else if (client->listens) {
        client_close(client);
        return;
    } else {
        client->at_its_end = true; /* of its words: it may still read */
    }
    run_first_line(client);
    client_go_on(client);
}

static void
on_more(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct control_client *client = container_of(timer, struct control_client, more);

    (void)loop;
    (void)revents;
    run_first_line(client);
    client_go_on(client);
}

static void
on_writable(struct ev_loop *loop, ev_io *watcher, int revents)
{
    (void)loop;
    (void)revents;
    client_go_on(container_of(watcher, struct control_client, writable));
}

static void
on_timeout(struct ev_loop *loop, ev_timer *timer, int revents)
{
    (void)loop;
    (void)revents;
    client_close(container_of(timer, struct control_client, timeout));
}

/* ---- events ---------------------------------------------------------------------------------- */

static void
client_add_event(struct control_client *client, const char *line, size_t length)
{
    size_t waiting = client->output.len - client->sent;

    if (client->lost > 0 || waiting + length > CONTROL_EVENTS_BYTES_MAX) {
        client->lost++; /* until all is taken, so that what comes is told in order */
        return;
    }
    if (client->sent > 0) {
        memmove(client->output.ptr, client->output.ptr + client->sent, waiting);
        client->output.len = waiting;
        client->sent = 0;
    }
    buf_add(&client->output, line, length);
    /* Sent when the loop comes round: a client that is closed here might be the caller's. */
    ev_io_start(client->master->loop, &client->writable);
}

void
control_broadcast(struct master *master, const char *line, size_t length)
{
    LIST_FOR_EACH (node, &master->control.clients) {
        struct control_client *client = container_of(node, struct control_client, node);
        if (client->listens) {
            client_add_event(client, line, length);
        }
    }
}

/* ---- new clients ----------------------------------------------------------------------------- */

/* The last words to a client, if it takes them now. */
static void
say_farewell(int fd, const char *why)
{
    struct buf answer = {0};

    control_command_refuse(&answer, "%s", why);
    buf_add(&answer, "\n", 1);
    (void)send(fd, answer.ptr, answer.len, MSG_NOSIGNAL | MSG_DONTWAIT);
    buf_release(&answer);
}

/* Who connects in order to ask does it at once, so the longest silent one is the one to go. Who
 * listens to events is silent by nature, and goes last. */
static void
make_room(struct master *master)
{
    struct control_client *victim = NULL;

    LIST_FOR_EACH (node, &master->control.clients) {
        struct control_client *client = container_of(node, struct control_client, node);
        if (victim == NULL || (victim->listens && !client->listens)) {
            victim = client;
        }
    }
    if (victim->output.len == 0) {
        say_farewell(victim->fd, "too many clients of the control socket: the longest silent one "
                                 "had to go");
    }
    log_debug("a control client made room for another one clients=%zu",
              master->control.client_count);
    client_close(victim);
}

static void
client_new(struct master *master, int fd)
{
    struct control_client *client = xcalloc(1, sizeof(*client));

    client->master = master;
    client->fd = fd;
    ev_io_init(&client->readable, on_readable, fd, EV_READ);
    ev_io_init(&client->writable, on_writable, fd, EV_WRITE);
    ev_timer_init(&client->timeout, on_timeout, 0., 0.);
    ev_timer_init(&client->more, on_more, 0., 0.);
    list_init(&client->node);
    client_touch(client);
    master->control.client_count++;
    ev_io_start(master->loop, &client->readable);
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
turn_away(struct master *master, int *fd, const struct control_peer *peer)
{
    struct control *control = &master->control;
    int64_t now_ms = clock_mono_ms();

    if (control->refused_ms != 0 && now_ms - control->refused_ms < REFUSAL_TOLD_MS) {
        control->refused_more++; /* a process that was taken over could fill the log */
    } else {
        log_warn("a control client was turned away uid=%lld pid=%d%s%s before=%llu: %s",
                 (long long)peer->uid, (int)peer->pid, peer->child != NULL ? " of=" : "",
                 peer->child != NULL ? peer->child : "", (unsigned long long)control->refused_more,
                 peer->why);
        control->refused_ms = now_ms;
        control->refused_more = 0;
    }
    say_farewell(*fd, peer->why);
    fd_close(fd);
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
    struct control_peer peer;
    control_peer_judge(master, fd, &peer);
    if (peer.why != NULL) {
        turn_away(master, &fd, &peer);
        return;
    }
    if (master->control.client_count >= CONTROL_CLIENTS_MAX) {
        make_room(master);
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
        struct control_client *client = container_of(node, struct control_client, node);
        (void)client_flush(client); /* what the socket takes: the last events, an answer */
        client_close(client);
    }
    if (control->listener.fd != -1) {
        ev_io_stop(master->loop, &control->accept);
        ev_timer_stop(master->loop, &control->pause);
        unix_listener_close(&control->listener);
    }
}

size_t
control_busy_count(const struct master *master)
{
    return master->control.client_count - count_listeners(master);
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
