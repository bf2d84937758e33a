/* SPDX-License-Identifier: Apache-2.0
 *
 * From checked settings to what serves them. Runs in workers, at birth and at every reload, before
 * the old settings are given up: what cannot be built is refused and the old go on.
 */
#include "worker/live.h"

#include <stdlib.h>
#include <string.h>

#include "config/base/check.h"
#include "config/base/hash.h"
#include "worker/action.h"
#include "worker/http/head_writer.h"
#include "worker/static/static_file.h"
#include "config/base/clock.h"

/* ---- fixed responses --------------------------------------------------------------------------
 */

static void
put_status_line(struct buf *head, int status)
{
    char line[128];
    struct head_writer writer;

    head_writer_init(&writer, line, sizeof(line));
    head_put_status_line(&writer, status, STR(""));
    buf_add(head, line, head_writer_length(&writer));
}

static bool
is_ascii(const char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text >= 0x80) {
            return false;
        }
    }
    return true;
}

static void
build_respond(struct fixed_response *fixed, const struct respond *respond)
{
    fixed->status = respond->status;
    put_status_line(&fixed->head, respond->status);
    if (respond->status == 204 || respond->status == 304) {
        return; /* RFC 9110 section 8.6: 204 has no Content-Length, 304 that of a 200 */
    }
    buf_addf(&fixed->body, "%s\n", respond->text);
    /* ASCII needs no charset, and the whole answer to a health check stays below the 128 bytes from
     * which on Linux tunes the receiver's window at each segment (tcp_event_data_recv()). */
    buf_addf(&fixed->head, "Content-Type: text/plain%s\r\nContent-Length: %zu\r\n",
             is_ascii(respond->text) ? "" : "; charset=utf-8", fixed->body.len);
}

/* ---- routes -----------------------------------------------------------------------------------
 */

static struct backend *
find_backend(struct live *live, const char *name)
{
    for (size_t i = 0; i < live->config->backend_count; i++) {
        if (strcmp(live->backends[i].settings->name, name) == 0) {
            return &live->backends[i];
        }
    }
    CHECK(!"a checked route names a backend that exists");
    return NULL;
}

static bool
route_build(struct live *live, struct route *route, const struct route_settings *settings,
            struct buf *ret_why)
{
    route->settings = settings;
    if (settings->static_path != NULL) {
        route->action = &action_static;
        route->cut = settings->path.exact ? 0 : strlen(settings->path.path);
        return static_root_open(settings->static_path,
                                settings->index != NULL ? settings->index : "", &route->root,
                                ret_why) == 0;
    }
    if (settings->backend != NULL) {
        route->action = &action_backend;
        route->backend = find_backend(live, settings->backend);
        if (settings->strip_prefix && !settings->path.exact) {
            route->cut = strlen(settings->path.path);
        }
    } else if (settings->redirect.location != NULL) {
        route->action = &action_redirect;
        route->fixed.status = settings->redirect.status;
        route->fixed.location = str_from(settings->redirect.location);
        put_status_line(&route->fixed.head, settings->redirect.status);
        buf_add_text(&route->fixed.head, "Content-Length: 0\r\n");
    } else {
        CHECK(settings->respond.text != NULL);
        route->action = &action_respond;
        build_respond(&route->fixed, &settings->respond);
#ifdef NARWHAL_TEST_ROUTES
        if (settings->spin_ms > 0) {
            route->action = &action_spin;
        }
        if (settings->attempt) {
            route->action = &action_attempt;
        }
#endif
    }
    return true;
}

static void
backend_build(struct backend *backend, const struct backend_settings *settings,
              const struct scoreboard *board, uint32_t random)
{
    backend->settings = settings;
    backend->queue = board->servers[settings->records[0]].queue;
    backend->weight_max = 1;
    backend->is_uniform = true;
    for (size_t i = 0; i < settings->server.count; i++) {
        const struct server *server = &settings->server.item[i];
        if (server->weight > backend->weight_max) {
            backend->weight_max = (uint32_t)server->weight;
        }
        backend->has_srv = backend->has_srv || server->address.kind == ADDRESS_SRV;
        backend->is_uniform = backend->is_uniform && !backend->has_srv &&
                              server->weight == settings->server.item[0].weight;
    }
    CHECK(hash_key_parse(settings->hash_key, &backend->hash_key)); /* it was checked */
    balance_state_init(&backend->balance, random);
}

/* ---- lifecycle --------------------------------------------------------------------------------
 */

static void
live_free(struct live *live)
{
    for (size_t i = 0; i < live->config->route_count; i++) {
        static_root_close(&live->routes[i].root);
        buf_release(&live->routes[i].fixed.head);
        buf_release(&live->routes[i].fixed.body);
    }
    for (size_t i = 0; i < live->config->backend_count; i++) {
        balance_state_release(&live->backends[i].balance);
    }
    free(live->routes);
    free(live->backends);
    route_table_free(live->table);
    config_free(live->config);
    free(live);
}

struct live *
live_new(struct config *config, uint64_t serial, const struct scoreboard *board,
         struct buf *ret_why)
{
    struct live *live = xcalloc(1, sizeof(*live));
    uint64_t random = hash_mix((uint64_t)clock_mono_us(), (uint64_t)(uintptr_t)live);

    live->references = 1;
    live->serial = serial;
    live->config = config;
    live->limits = (struct request_limits){
        .line = (uint32_t)config->worker.limit_request_line_bytes,
        .fields = (uint32_t)config->worker.limit_request_fields,
        .head = (uint32_t)config->worker.limit_request_head_bytes,
        .field = (uint32_t)config->worker.limit_request_field_size_bytes,
    };
    live->memory = config_connection_memory(&config->worker);
    live->routes = xcalloc(config->route_count, sizeof(*live->routes));
    live->backends = xcalloc(config->backend_count, sizeof(*live->backends));
    live->table = route_table_new(config);
    for (size_t i = 0; i < config->backend_count; i++) {
        retry_budget_init(&live->backends[i].retry_budget);
        random = hash_mix(random, i + 1);
        backend_build(&live->backends[i], &config->backends[i], board, (uint32_t)random);
    }
    for (size_t i = 0; i < config->route_count; i++) {
        if (!route_build(live, &live->routes[i], &config->routes[i], ret_why)) {
            live_free(live);
            return NULL;
        }
    }
    return live;
}

struct live *
live_ref(struct live *live)
{
    live->references++;
    return live;
}

void
live_unref(struct live **live)
{
    struct live *gone = *live;

    *live = NULL;
    if (gone != NULL && --gone->references == 0) {
        live_free(gone);
    }
}
