/* SPDX-License-Identifier: Apache-2.0
 *
 * struct live: the settings in use, with what is built from them (route table, actions, opened
 * folders, backends). Immutable but for the runtime parts of backends; counted by the requests that
 * use it. A reload swaps the worker's pointer: requests that are open go on with what they began
 * with, the next request on the same connection sees the new settings.
 */
#pragma once

#include <stdint.h>

#include "config/base/buf.h"
#include "config/config.h"
#include "worker/http/request.h"
#include "worker/proxy/balance.h"
#include "worker/proxy/retry.h"
#include "worker/route.h"

struct action;
struct static_root;
struct worker;

/* A response that is the same for every request but for Date and Connection. */
struct fixed_response {
    int status;
    struct buf head; /* status line and its own fields */
    struct buf body;
    struct str location; /* redirect: with {path} in it; else empty */
};

/* One [backend:NAME] in this worker. */
struct backend {
    /* configuration fields */
    const struct backend_settings *settings;
    /* runtime fields */
    struct balance_state balance;
    struct retry_budget retry_budget;
    struct hash_key hash_key;
    uint32_t queue;      /* of the scoreboard: where its requests wait for a slot */
    uint32_t weight_max; /* of its servers */
    bool is_uniform;     /* all have that weight */
    bool has_srv;        /* weights of SRV records: neither holds for them */
};

struct route {
    const struct route_settings *settings;
    const struct action *action;
    size_t cut;                  /* bytes of the path that the action does not see */
    struct static_root *root;    /* static: owned */
    struct backend *backend;     /* backend */
    struct fixed_response fixed; /* respond, redirect */
};

struct live {
    uint32_t references;
    uint64_t serial;
    struct config *config; /* owned */
    struct request_limits limits;
    struct connection_memory memory; /* of one connection */
    struct route_table *table;       /* owned */
    struct route *routes;            /* owned; as config->routes */
    struct backend *backends;        /* owned; as config->backends */
};

/* Builds what is needed to serve config, which it takes in any case; its records are on board. NULL
 * with a sentence in ret_why when a folder cannot be opened by this worker. */
struct live *live_new(struct config *config, uint64_t serial, const struct scoreboard *board,
                      struct buf *ret_why);
struct live *live_ref(struct live *live);
/* Gives up one reference and stores NULL; the last one frees all. */
void live_unref(struct live **live);
