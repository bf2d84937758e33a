/* SPDX-License-Identifier: Apache-2.0
 *
 * An upgraded connection: bytes both ways as they come, each direction with its own end. Runs in
 * workers.
 *
 * One direction holds at most one read: neither side is read while the other has not taken what
 * there is.
 */
#include "worker/proxy/proxy_private.h"

#include <errno.h>
#include <string.h>

#include "config/base/log.h"
#include "worker/conn.h"
#include "worker/proxy/upstream.h"
#include "worker/worker_private.h"

/* Any byte, of either side, ends the silence. */
static void
note_activity(struct proxy *proxy)
{
    if (proxy->leaving) {
        return; /* its time is up whatever it does */
    }
    deadline_set(&proxy->conn->deadline, proxy->worker->loop, proxy->worker->now_ms,
                 proxy_settings(proxy)->tunnel_timeout_ms);
}

void
tunnel_start(struct proxy *proxy, const char *rest, size_t length)
{
    struct exchange *exchange = proxy->exchange;

    proxy_set_state(proxy, PROXY_TUNNEL);
    stream_put(&exchange->conn->stream, rest, length);
    stream_flush(&exchange->conn->stream); /* rest may be in the input */
    proxy_forget_input(proxy);
    exchange->body_put += length;
    conn_start_tunnel(exchange->conn);
    note_activity(proxy);
}

bool
tunnel_may_read_server(const struct proxy *proxy)
{
    return !proxy->server_eof && stream_is_drained(&proxy->exchange->conn->stream);
}

bool
tunnel_may_read_client(const struct proxy *proxy)
{
    return !proxy->client_eof && stream_is_drained(&proxy->conn->stream);
}

void
tunnel_take_server(struct proxy *proxy, const char *bytes, size_t length)
{
    stream_put(&proxy->exchange->conn->stream, bytes, length);
    proxy->exchange->body_put += length;
    note_activity(proxy);
}

void
tunnel_take_client(struct proxy *proxy, struct str bytes)
{
    struct stream *stream = &proxy->conn->stream;

    stream_flush(&proxy->exchange->conn->stream);
    stream_put(stream, bytes.ptr, bytes.len);
    stream_flush(stream);
    note_activity(proxy);
    proxy_rearm(proxy);
}

void
tunnel_server_end(struct proxy *proxy, const char *how)
{
    (void)how; /* both ends of a tunnel are silent about why */
    proxy->server_eof = true;
    stream_shutdown(&proxy->exchange->conn->stream);
    if ((proxy->client_eof || errno != 0) && !proxy->exchange->response_done) {
        exchange_finish_response(proxy->exchange);
    }
}

void
tunnel_client_end(struct proxy *proxy)
{
    struct exchange *exchange = proxy->exchange;

    stream_flush(&exchange->conn->stream);
    proxy->client_eof = true;
    stream_shutdown(&proxy->conn->stream);
    if (proxy->server_eof && !exchange->response_done) {
        exchange_finish_response(exchange);
    }
    proxy_rearm(proxy);
}

void
tunnel_timeout(struct proxy *proxy)
{
    exchange_break(proxy->exchange, proxy->leaving
                                        ? "its route or server is gone from the settings, and "
                                          "graceful_timeout is over"
                                        : "silence for tunnel_timeout");
}

/* The route under the same name, when it leads to the same backend; else NULL. */
static const struct route *
find_route(const struct live *live, const struct route *before)
{
    for (size_t i = 0; i < live->config->route_count; i++) {
        const struct route *route = &live->routes[i];
        if (strcmp(route->settings->name, before->settings->name) == 0) {
            return route->backend != NULL && strcmp(route->backend->settings->name,
                                                    before->backend->settings->name) == 0
                       ? route
                       : NULL;
        }
    }
    return NULL;
}

static bool
has_record(const struct backend_settings *settings, uint32_t record)
{
    for (uint32_t i = 0; i < settings->record_count; i++) {
        if (settings->records[i] == record) {
            return true;
        }
    }
    return false;
}

void
tunnel_reload(struct exchange *exchange, struct live *live)
{
    struct proxy *proxy = proxy_of(exchange);
    const struct route *route = find_route(live, exchange->route);

    if (proxy == NULL || proxy->state != PROXY_TUNNEL) {
        return;
    }
    if (route != NULL && has_record(route->backend->settings, proxy->record)) {
        /* Old settings are not kept in memory for as long as their tunnels live. */
        exchange_move(exchange, live, route);
        proxy->backend = route->backend;
        proxy->leaving = false;
        note_activity(proxy);
    } else if (!proxy->leaving) {
        int64_t grace_ms = live->config->master.graceful_timeout_ms;
        conn_log(exchange->conn, LOG_LEVEL_INFO,
                 "tunnel's route or server is gone from the settings: it has %lldms to leave "
                 "backend=%s server=%s setting=graceful_timeout",
                 (long long)grace_ms, proxy_settings(proxy)->name, proxy_server_text(proxy));
        proxy->leaving = true;
        deadline_set(&proxy->conn->deadline, proxy->worker->loop, proxy->worker->now_ms, grace_ms);
    }
}
