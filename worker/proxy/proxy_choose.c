/* SPDX-License-Identifier: Apache-2.0
 *
 * Which server gets the request: choosing, claiming, getting a connection. Runs in workers.
 *
 * A claim (scoreboard) is held from the choice of a server to the end of its part.
 */
#include "worker/proxy/proxy_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "config/base/hash.h"
#include "config/base/log.h"
#include "worker/conn.h"
#include "worker/proxy/balance.h"
#include "worker/proxy/health.h"
#include "worker/proxy/upstream.h"
#include "worker/worker_private.h"

/* How long a server whose accept queue had no room is left alone. */
#define FULL_MS 5

/* ---- the key of hash ---------------------------------------------------------------------------
 */

/* The value of the first cookie of that name (RFC 6265 section 4.2: pairs divided by "; "). */
static bool
find_cookie(const struct exchange *exchange, struct str name, struct str *ret_value)
{
    for (size_t i = 0; i < exchange->head->field_count; i++) {
        const struct field *field = &exchange->head->fields[i];
        if (!str_equal_nocase(span_str(field->name, exchange->base), STR("cookie"))) {
            continue;
        }
        struct str rest = span_str(field->value, exchange->base);
        while (rest.len > 0) {
            const char *end = memchr(rest.ptr, ';', rest.len);
            size_t length = end != NULL ? (size_t)(end - rest.ptr) : rest.len;
            if (length > name.len && rest.ptr[name.len] == '=' &&
                memcmp(rest.ptr, name.ptr, name.len) == 0) {
                *ret_value = (struct str){rest.ptr + name.len + 1, length - name.len - 1};
                return true;
            }
            length += end != NULL ? 1 : 0;
            while (length < rest.len && (rest.ptr[length] == ' ' || rest.ptr[length] == '\t')) {
                length++;
            }
            rest = (struct str){rest.ptr + length, rest.len - length};
        }
    }
    return false;
}

static bool
find_header(const struct exchange *exchange, struct str name, struct str *ret_value)
{
    for (size_t i = 0; i < exchange->head->field_count; i++) {
        const struct field *field = &exchange->head->fields[i];
        if (str_equal_nocase(span_str(field->name, exchange->base), name)) {
            *ret_value = span_str(field->value, exchange->base);
            return true;
        }
    }
    return false;
}

/* What the request is known by; false: it does not have that, nor does an empty value tell it from
 * others. */
static bool
find_key(const struct proxy *proxy, struct str *ret_key)
{
    const struct exchange *exchange = proxy->exchange;
    const struct hash_key *key = &proxy->backend->hash_key;

    switch (key->source) {
    case HASH_ADDRESS:
        *ret_key =
            (struct str){(const char *)exchange->client.address, sizeof(exchange->client.address)};
        return exchange->client.family != PEER_UNIX;
    case HASH_PATH:
        *ret_key = exchange->path;
        return true;
    case HASH_HEADER:
        return find_header(exchange, str_from(key->name), ret_key) && ret_key->len > 0;
    case HASH_COOKIE:
        return find_cookie(exchange, str_from(key->name), ret_key) && ret_key->len > 0;
    }
    return false;
}

/* ---- choosing ----------------------------------------------------------------------------------
 */

/* The weights of SRV records come and go with DNS. */
static uint32_t
weight_max_of(const struct scoreboard *board, const struct backend *backend)
{
    const struct backend_settings *settings = backend->settings;
    uint32_t most = 1;

    if (!backend->has_srv || settings->balance != BALANCE_RANDOM2) {
        return backend->weight_max;
    }
    for (uint32_t i = 0; i < settings->record_count; i++) {
        uint32_t weight = atomic_load_explicit(&board->servers[settings->records[i]].weight,
                                               memory_order_relaxed);
        most = weight > most ? weight : most;
    }
    return most;
}

struct balance_input
proxy_balance_input(struct worker *worker, const struct backend *backend, const uint64_t *tried)
{
    const struct backend_settings *settings = backend->settings;

    return (struct balance_input){
        .method = settings->balance == BALANCE_HASH ? BALANCE_LEAST_BUSY : settings->balance,
        .board = worker->board,
        .records = settings->records,
        .count = settings->record_count,
        .tried = tried,
        .is_uniform = backend->is_uniform && settings->slow_start_ms == 0,
        .weight_max = weight_max_of(worker->board, backend),
        .hash_bound = (uint32_t)settings->hash_bound,
        .now_ms = worker->now_ms,
        .slow_start_ms = settings->slow_start_ms,
        .is_probed = settings->health_path != NULL,
    };
}

/* Chooses and claims. Between looking and claiming another worker may take the last slot: then
 * that server counts as tried for this round and the choice is made again. If this was to be its
 * trial, the requests that fill it are. */
static enum balance_result
choose_and_claim(struct proxy *proxy)
{
    struct worker *worker = proxy->worker;
    const struct backend_settings *settings = proxy_settings(proxy);
    uint64_t tried[BOARD_SERVERS_MAX / 64];
    bool lost_race = false;
    struct balance_input input = proxy_balance_input(worker, proxy->backend, tried);
    struct str key;

    if (settings->balance == BALANCE_HASH && find_key(proxy, &key)) {
        input.method = BALANCE_HASH;
        input.hash = hash_bytes(0, key.ptr, key.len);
    }
    memcpy(tried, proxy->tried, sizeof(tried));
    for (;;) {
        uint32_t index = 0;
        enum balance_result result = balance_choose(&proxy->backend->balance, &input, &index);
        if (result != BALANCE_CHOSEN) {
            return lost_race ? BALANCE_ALL_BUSY : result;
        }
        uint32_t record = settings->records[index];
        struct board_server *server = &worker->board->servers[record];
        if (!health_admit(server, settings, worker->now_ms)) {
            continue; /* another request is its trial */
        }
        tried[index / 64] |= UINT64_C(1) << (index % 64);
        uint32_t slots = atomic_load_explicit(&server->slots, memory_order_relaxed);
        if (board_claim(worker->board, worker->heritage->cell, record, slots)) {
            proxy->record = record;
            proxy->claimed = true;
            proxy->tried[index / 64] |= UINT64_C(1) << (index % 64);
            return BALANCE_CHOSEN;
        }
        lost_race = true;
    }
}

/* Counts an attempt and begins it, on a connection that is there or under way. */
static void
start_attempt(struct proxy *proxy, struct upstream_conn *conn, bool reused)
{
    proxy->attempts++;
    if (proxy->attempts > 1) {
        conn_log(proxy->exchange->conn, LOG_LEVEL_INFO,
                 "trying again reason=\"%s\" backend=%s server=%s attempt=%u", proxy->failure,
                 proxy_settings(proxy)->name, proxy_server_text(proxy), proxy->attempts);
    }
    proxy->seen = 0;
    proxy->spoke_first = false;
    proxy->awaits_proof = false;
    proxy->conn = conn;
    proxy->sent_mark = conn != NULL ? conn->stream.sent_bytes : 0;
    proxy->reused = reused;
    proxy->exchange->server = proxy_server_text(proxy);
}

enum use_result { USE_STARTED = 0, USE_BUSY, USE_FAILED };

/* Gets a connection to the claimed server. USE_BUSY: its accept queue is full (unix(7), EAGAIN);
 * the claim is given back, and nothing else has changed. USE_FAILED: the attempt was made and
 * failed; proxy_attempt_failed() has dealt with it. */
static enum use_result
use_server(struct proxy *proxy)
{
    struct worker *worker = proxy->worker;
    struct upstream_conn *conn = NULL;

    /* A second attempt gets a new connection: another kept one may be as stale as the first. */
    if (proxy->attempts == 0) {
        conn = upstream_acquire(worker, proxy->record, proxy_settings(proxy),
                                method_is_idempotent(proxy->exchange->head->method), proxy);
    }
    bool reused = conn != NULL;
    int error = reused ? 0 : upstream_connect(worker, proxy->record, proxy, &conn);
    if (error == -EAGAIN) {
        atomic_store_explicit(&worker->board->servers[proxy->record].full_until_ms,
                              worker->now_ms + FULL_MS, memory_order_relaxed);
        proxy_unclaim(proxy);
        return USE_BUSY;
    }
    start_attempt(proxy, conn, reused);
    if (error != 0) {
        char reason[128];
        (void)snprintf(reason, sizeof(reason), "cannot connect to the server: %s",
                       strerror(-error));
        proxy_attempt_failed(proxy, FAILURE_CONNECT, reason, NULL);
        return USE_FAILED;
    }
    if (conn->state == UPSTREAM_CONNECTING) {
        proxy_set_state(proxy, PROXY_CONNECT);
        deadline_set(&conn->deadline, worker->loop, worker->now_ms,
                     proxy_settings(proxy)->connect_timeout_ms);
        proxy_rearm(proxy);
    } else {
        proxy_begin_request(proxy);
    }
    return USE_STARTED;
}

/* Whether a server of the backend is on its way: an app instance that boots. */
static bool
is_any_starting(const struct proxy *proxy)
{
    const struct backend_settings *settings = proxy_settings(proxy);

    for (uint32_t i = 0; i < settings->record_count; i++) {
        const struct board_server *server = &proxy->worker->board->servers[settings->records[i]];
        if (atomic_load_explicit(&server->state, memory_order_relaxed) == BOARD_STARTING) {
            return true;
        }
    }
    return false;
}

static bool
is_tried(const struct proxy *proxy, uint32_t record)
{
    const struct backend_settings *settings = proxy_settings(proxy);

    for (uint32_t i = 0; i < settings->record_count; i++) {
        if (settings->records[i] == record) {
            return (proxy->tried[i / 64] >> (i % 64) & 1) != 0;
        }
    }
    return false;
}

void
proxy_forget_tried(struct proxy *proxy, uint32_t record)
{
    const struct backend_settings *settings = proxy_settings(proxy);

    for (uint32_t i = 0; i < settings->record_count; i++) {
        if (settings->records[i] == record) {
            proxy->tried[i / 64] &= ~(UINT64_C(1) << (i % 64));
        }
    }
}

/* RETRY_ANY, and no other server can have it now: the one that it was at may, once. */
static bool
return_to_last(struct proxy *proxy)
{
    if (!proxy->may_return) {
        return false;
    }
    proxy->may_return = false;
    proxy_forget_tried(proxy, proxy->last_record);
    return true;
}

void
proxy_try(struct proxy *proxy)
{
    bool met_busy = false;

    for (;;) {
        switch (choose_and_claim(proxy)) {
        case BALANCE_CHOSEN:
            if (use_server(proxy) != USE_BUSY) {
                return;
            }
            met_busy = true; /* and the next one, if there is one */
            continue;
        case BALANCE_ALL_BUSY:
            if (return_to_last(proxy)) {
                continue; /* it may be idle while all others are busy */
            }
            proxy_enter_queue(proxy, proxy->attempts > 0 && is_tried(proxy, proxy->last_record));
            return;
        case BALANCE_NONE:
            if (return_to_last(proxy)) {
                continue;
            }
            if (met_busy || is_any_starting(proxy)) {
                /* Full accept queues and boots pass; the deadline of the queue decides. */
                memset(proxy->tried, 0, sizeof(proxy->tried));
                proxy_enter_queue(proxy, false);
            } else if (proxy->attempts > 0) {
                proxy_fail_as_last_attempt(proxy);
            } else {
                proxy_fail(proxy, 503, "no server is ready", NULL);
            }
            return;
        }
    }
}

void
proxy_admit(struct proxy *proxy)
{
    if (proxy_must_wait(proxy)) {
        proxy_enter_queue(proxy, false); /* nobody overtakes those who wait */
    } else {
        proxy_try(proxy);
    }
}

void
proxy_use_handed(struct proxy *proxy)
{
    const struct backend_settings *settings = proxy_settings(proxy);
    const struct board_server *server = &proxy->worker->board->servers[proxy->record];

    for (uint32_t i = 0; i < settings->record_count; i++) {
        if (settings->records[i] == proxy->record) {
            proxy->tried[i / 64] |= UINT64_C(1) << (i % 64);
        }
    }
    if (atomic_load_explicit(&server->full_until_ms, memory_order_relaxed) >
        proxy->worker->now_ms) {
        proxy_unclaim(proxy);
        proxy_enter_queue(proxy, false);
    } else if (use_server(proxy) == USE_BUSY) {
        proxy_try(proxy);
    }
}

void
proxy_on_connected(struct proxy *proxy)
{
    int error = 0;
    socklen_t length = sizeof(error);

    if (getsockopt(proxy->conn->stream.io.fd, SOL_SOCKET, SO_ERROR, &error, &length) == -1) {
        error = errno;
    }
    if (error != 0) {
        char reason[128];
        (void)snprintf(reason, sizeof(reason), "cannot connect to the server: %s", strerror(error));
        proxy_attempt_failed(proxy, FAILURE_CONNECT, reason, NULL);
        return;
    }
    proxy->conn->state = UPSTREAM_ACTIVE;
    /* A server that speaks first may be too busy and say so: that is an answer. But its answer to
     * the request may follow, and must not be taken for that to the next one. */
    char byte;
    proxy->spoke_first = recv(proxy->conn->stream.io.fd, &byte, 1, MSG_PEEK) == 1;
    proxy_begin_request(proxy);
}

void
proxy_connect_timeout(struct proxy *proxy)
{
    proxy_attempt_failed(proxy, FAILURE_CONNECT, "no connection to the server in time",
                         "connect_timeout");
}
