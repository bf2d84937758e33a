/* SPDX-License-Identifier: Apache-2.0
 *
 * The action backend: a request goes to a server, its answer comes back. Here are the states as a
 * table, birth and end, and the events of the server's connection; what is done in a state is in
 * the files that proxy_private.h lists. Runs in workers.
 *
 *   COLLECT (a body) --whole, or request_buffer is full--> CHOOSE
 *
 *   CHOOSE --claimed, connecting--> CONNECT --> HEAD --response head--> BODY --all of it--> DONE
 *     |  ^          \__kept connection___________^ |                                         ^
 *     v  |                                         `--101--> TUNNEL --both sides ended-------'
 *   QUEUE (all slots taken)          failure, and retry_decide() allows: back to CHOOSE
 *
 *   proxy_collect()          COLLECT -> CHOOSE                  no server knows of it before
 *   proxy_try()              CHOOSE/QUEUE -> CONNECT or HEAD    balance, claim, connect
 *   proxy_begin_request()    CONNECT -> HEAD                    writes the request's head
 *   proxy_take_heads()       HEAD -> BODY or TUNNEL
 *   proxy_take_body()        BODY -> DONE
 *   proxy_attempt_failed()   -> CHOOSE, or the exchange fails
 *
 * Back-pressure, both ways, by not reading: see may_read_client and may_read_server of the table.
 */
#include "worker/proxy/proxy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/check.h"
#include "config/base/log.h"
#include "worker/action.h"
#include "worker/conn.h"
#include "worker/proxy/proxy_private.h"
#include "worker/proxy/upstream.h"
#include "worker/worker_private.h"

/* One state: where it may lead, and what each event does in it. NULL: cannot happen, or no. */
struct proxy_step {
    const char *name;
    unsigned next; /* a bit for each state that may follow */
    bool (*may_read_client)(const struct proxy *proxy);
    void (*take_client)(struct proxy *proxy, struct str bytes);
    void (*client_end)(struct proxy *proxy);
    bool (*may_read_server)(const struct proxy *proxy);
    void (*take_server)(struct proxy *proxy, const char *bytes, size_t length);
    void (*server_end)(struct proxy *proxy, const char *how);
    void (*timeout)(struct proxy *proxy); /* of the connection's deadline */
};

#define TO(name) (1u << PROXY_##name)
static const struct proxy_step steps[PROXY_STATE_COUNT] = {
    [PROXY_COLLECT] = {.name = "COLLECT",
                       .next = TO(CHOOSE),
                       .may_read_client = proxy_may_collect,
                       .take_client = proxy_collect,
                       .client_end = proxy_collect_end},
    [PROXY_CHOOSE] = {.name = "CHOOSE",
                      .next = TO(QUEUE) | TO(CONNECT) | TO(HEAD) | TO(DONE),
                      .client_end = proxy_note_body_end},
    [PROXY_QUEUE] = {.name = "QUEUE",
                     .next = TO(CONNECT) | TO(HEAD) | TO(CHOOSE) | TO(DONE),
                     .client_end = proxy_note_body_end},
    [PROXY_CONNECT] = {.name = "CONNECT",
                       .next = TO(HEAD) | TO(CHOOSE) | TO(DONE),
                       .client_end = proxy_note_body_end,
                       .timeout = proxy_connect_timeout},
    [PROXY_HEAD] = {.name = "HEAD",
                    .next = TO(BODY) | TO(TUNNEL) | TO(CHOOSE) | TO(DONE),
                    .may_read_client = proxy_may_send_body,
                    .take_client = proxy_send_body,
                    .client_end = proxy_send_body_end,
                    .may_read_server = proxy_may_read_response,
                    .take_server = proxy_take_heads,
                    .server_end = proxy_head_cut,
                    .timeout = proxy_head_timeout},
    [PROXY_BODY] = {.name = "BODY",
                    .next = TO(DONE),
                    .may_read_client = proxy_may_send_body,
                    .take_client = proxy_send_body,
                    .client_end = proxy_send_body_end,
                    .may_read_server = proxy_may_read_response,
                    .take_server = proxy_take_body,
                    .server_end = proxy_body_cut,
                    .timeout = proxy_body_timeout},
    [PROXY_TUNNEL] = {.name = "TUNNEL",
                      .next = TO(DONE),
                      .may_read_client = tunnel_may_read_client,
                      .take_client = tunnel_take_client,
                      .client_end = tunnel_client_end,
                      .may_read_server = tunnel_may_read_server,
                      .take_server = tunnel_take_server,
                      .server_end = tunnel_server_end,
                      .timeout = tunnel_timeout},
    [PROXY_DONE] = {.name = "DONE"},
};
#undef TO

void
proxy_set_state(struct proxy *proxy, enum proxy_state state)
{
    CHECK((steps[proxy->state].next & (1u << state)) != 0);
    log_debug("proxy %s -> %s backend=%s", steps[proxy->state].name, steps[state].name,
              proxy->backend->settings->name);
    proxy->state = state;
}

const char *
proxy_server_text(const struct proxy *proxy)
{
    return proxy->worker->board->servers[proxy->record].address.text;
}

static bool
may_read_server(const struct proxy *proxy)
{
    const struct proxy_step *step = &steps[proxy->state];

    return step->may_read_server != NULL && step->may_read_server(proxy);
}

void
proxy_rearm(struct proxy *proxy)
{
    if (proxy->conn == NULL) {
        return;
    }
    bool connecting = proxy->state == PROXY_CONNECT;
    stream_watch(&proxy->conn->stream, proxy->worker->loop,
                 (may_read_server(proxy) ? EV_READ : 0) |
                     (connecting || !stream_is_drained(&proxy->conn->stream) ? EV_WRITE : 0));
    if (proxy->state == PROXY_BODY && !may_read_server(proxy)) {
        deadline_clear(&proxy->conn->deadline); /* the client is slow: its own clock runs */
    }
}

/* ---- birth and end ----------------------------------------------------------------------------
 */

static void
backend_start(struct exchange *exchange)
{
    if (!exchange_keep_head(exchange)) {
        return;
    }
    struct proxy *proxy = calloc(1, sizeof(*proxy));
    if (proxy == NULL) {
        exchange_fail(exchange, 503, "out of memory for a proxied request", NULL, STR(""));
        return;
    }
    proxy->exchange = exchange;
    proxy->worker = exchange->conn->worker;
    proxy->backend = exchange->route->backend;
    retry_budget_earn(&proxy->backend->retry_budget, proxy_settings(proxy)->retry_budget);
    proxy_init_waiting(proxy);
    exchange->state = proxy;
    if (proxy_should_collect(proxy)) {
        proxy->state = PROXY_COLLECT;
    } else {
        proxy->state = PROXY_CHOOSE;
        proxy_admit(proxy);
    }
}

void
proxy_forget_input(struct proxy *proxy)
{
    free(proxy->parser);
    free(proxy->input);
    proxy->parser = NULL;
    proxy->input = NULL;
    proxy->input_length = 0;
    proxy->input_capacity = 0;
    proxy->head_held = false;
}

void
proxy_forget_body(struct proxy *proxy)
{
    free(proxy->body);
    proxy->body = NULL;
    proxy->body_length = 0;
    proxy->body_capacity = 0;
}

/* What only an exchange that is no tunnel has. */
static void
forget_request(struct proxy *proxy)
{
    proxy_leave_queue(proxy);
    proxy_forget_input(proxy);
    proxy_forget_body(proxy);
    free(proxy->trailers);
    proxy->trailers = NULL;
}

/* A tunnel keeps nothing that it does not need: it may be one of many thousands, for days. The
 * proxy may be elsewhere afterwards: whoever calls this is done with it. */
static void
slim(struct proxy *proxy)
{
    forget_request(proxy);
    deadline_stop(&proxy->queue_deadline, proxy->worker->loop);
    proxy->exchange = exchange_slim(proxy->exchange);
    struct proxy *small = malloc(PROXY_SLIM_BYTES);
    if (small != NULL) {
        memcpy(small, proxy, PROXY_SLIM_BYTES);
        free(proxy);
        small->slim = true;
        small->exchange->state = small;
        small->conn->proxy = small;
    }
}

static void
proxy_end(struct exchange *exchange)
{
    struct proxy *proxy = proxy_of(exchange);

    exchange->state = NULL;
    upstream_close(&proxy->conn);
    proxy_unclaim(proxy);
    if (!proxy->slim) {
        forget_request(proxy);
    }
    free(proxy);
}

/* ---- events of the client ---------------------------------------------------------------------
 */

static bool
proxy_wants_body(const struct exchange *exchange)
{
    const struct proxy *proxy = proxy_of(exchange);

    return proxy != NULL && steps[proxy->state].may_read_client != NULL &&
           steps[proxy->state].may_read_client(proxy);
}

static void
proxy_body(struct exchange *exchange, struct str bytes)
{
    struct proxy *proxy = proxy_of(exchange);

    steps[proxy->state].take_client(proxy, bytes);
}

/* The request body is complete; in a tunnel: the client sent FIN. */
static void
proxy_body_end(struct exchange *exchange)
{
    struct proxy *proxy = proxy_of(exchange);

    steps[proxy->state].client_end(proxy);
}

static void
proxy_drained(struct exchange *exchange)
{
    struct proxy *proxy = proxy_of(exchange);

    if (proxy == NULL || proxy->conn == NULL) {
        return;
    }
    if (proxy->state == PROXY_BODY) {
        deadline_set(&proxy->conn->deadline, proxy->worker->loop, proxy->worker->now_ms,
                     proxy_settings(proxy)->stream_timeout_ms);
    }
    proxy_rearm(proxy);
}

/* ---- events of the server ---------------------------------------------------------------------
 */

static void
take_response(struct proxy *proxy, const char *bytes, size_t length)
{
    if (!proxy->slim) {
        proxy->seen += length;
    }
    if (steps[proxy->state].take_server != NULL) {
        steps[proxy->state].take_server(proxy, bytes, length);
    }
    if (proxy->state == PROXY_BODY) {
        deadline_set(&proxy->conn->deadline, proxy->worker->loop, proxy->worker->now_ms,
                     proxy_settings(proxy)->stream_timeout_ms);
    }
}

/* errno is 0 for FIN. */
static void
on_server_end(struct proxy *proxy, const char *how)
{
    if (steps[proxy->state].server_end != NULL) {
        steps[proxy->state].server_end(proxy, how);
    }
}

static void
read_server(struct proxy *proxy)
{
    struct worker *worker = proxy->worker;
    char *buffer = worker->scratch;
    size_t room = (size_t)proxy->exchange->live->memory.read_bytes;
    size_t kept = 0;
    size_t length = 0;

    if (!proxy->slim && proxy->input != NULL) {
        kept = proxy->input_length;
        buffer = proxy->input;
        room = proxy->input_capacity - kept;
    }
    switch (stream_read(&proxy->conn->stream, buffer + kept, room, &length)) {
    case STREAM_OK:
        take_response(proxy, buffer, kept + length);
        return;
    case STREAM_AGAIN:
        return;
    case STREAM_EOF:
        errno = 0;
        on_server_end(proxy, "end of stream");
        return;
    case STREAM_ERROR:
        on_server_end(proxy, strerror(errno));
        return;
    }
}

void
proxy_on_upstream(struct proxy *proxy, int revents)
{
    struct conn *conn = proxy->exchange->conn;
    struct upstream_conn *server = proxy->conn;

    if ((revents & EV_ERROR) != 0) {
        /* epoll_ctl(2) failed and libev gave the watcher up: nothing would ever come of it. */
        static const char reason[] = "the kernel would not watch the server's socket: see "
                                     "fs.epoll.max_user_watches";
        if (proxy->state == PROXY_CONNECT) {
            proxy_attempt_failed(proxy, FAILURE_CONNECT, reason, NULL);
        } else {
            errno = ENOSPC;
            on_server_end(proxy, reason);
        }
        conn_settle(conn);
        return;
    }
    if (proxy->state == PROXY_CONNECT) {
        proxy_on_connected(proxy);
        conn_settle(conn);
        return;
    }
    if ((revents & EV_READ) != 0) {
        read_server(proxy);
    }
    /* A server that answered early and closed makes writing fail: its answer counts, so the error
     * is looked at only after reading found nothing more. */
    if (conn->exchange != NULL && conn->exchange->state == proxy && proxy->conn == server) {
        if ((revents & EV_WRITE) != 0) {
            stream_send(&server->stream, conn->worker->now_ms);
            if (proxy->state == PROXY_HEAD) {
                proxy_expect_response(proxy);
            }
        }
        if (server->stream.error != 0 && (revents & EV_READ) == 0) {
            errno = server->stream.error;
            on_server_end(proxy, strerror(server->stream.error));
        }
    }
    conn_settle(conn);
    if (conn->exchange != NULL && conn->exchange->state == proxy) {
        proxy_rearm(proxy);
        if (proxy->state == PROXY_TUNNEL && !proxy->slim) {
            slim(proxy);
        }
    }
}

void
proxy_on_upstream_timeout(struct proxy *proxy)
{
    struct conn *conn = proxy->exchange->conn;

    if (steps[proxy->state].timeout != NULL) {
        steps[proxy->state].timeout(proxy);
    }
    conn_settle(conn);
}

const struct action action_backend = {
    .name = "backend",
    .start = backend_start,
    .body = proxy_body,
    .body_end = proxy_body_end,
    .wants_body = proxy_wants_body,
    .drained = proxy_drained,
    .reload = tunnel_reload,
    .end = proxy_end,
};
