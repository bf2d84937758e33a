/* SPDX-License-Identifier: Apache-2.0
 *
 * Records by key. A key says what a record stands for: "api\nserver 127.0.0.1:9001\n0" (the last
 * number tells equal entries of one backend apart) or "api\ninstance 1\n0".
 */
#include "master/server_registry.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/base/hash.h"
#include "config/config.h"
#include "worker/slot_queue.h"

void
server_registry_init(struct server_registry *registry, struct scoreboard *board)
{
    memset(registry, 0, sizeof(*registry));
    registry->board = board;
}

void
server_registry_release(struct server_registry *registry)
{
    for (uint32_t i = 0; i < BOARD_SERVERS_MAX; i++) {
        free(registry->records[i].key);
        registry->records[i] = (struct server_record){.use = RECORD_FREE};
    }
}

static struct server_record *
record_find(struct server_registry *registry, const char *key)
{
    for (uint32_t i = 0; i < BOARD_SERVERS_MAX; i++) {
        if (registry->records[i].use != RECORD_FREE && strcmp(registry->records[i].key, key) == 0) {
            return &registry->records[i];
        }
    }
    return NULL;
}

static struct server_record *
record_take(struct server_registry *registry)
{
    for (uint32_t i = 0; i < BOARD_SERVERS_MAX; i++) {
        if (registry->records[i].use == RECORD_FREE) {
            return &registry->records[i];
        }
    }
    return NULL;
}

/* The record for key (taken over), an old one or a new one. NULL: none is free. */
static struct server_record *
record_assign(struct server_registry *registry, char *key, bool is_instance, uint32_t *ret_number)
{
    struct server_record *record = record_find(registry, key);

    if (record == NULL) {
        record = record_take(registry);
        if (record == NULL) {
            free(key);
            return NULL;
        }
        *record = (struct server_record){.use = RECORD_NEW, .is_instance = is_instance, .key = key};
    } else {
        free(key);
    }
    record->wanted = true;
    *ret_number = (uint32_t)(record - registry->records);
    return record;
}

static char *
server_key(const struct backend_settings *backend, size_t index)
{
    const char *text = backend->server.item[index].address.text;
    size_t equal_before = 0;

    for (size_t i = 0; i < index; i++) {
        equal_before += strcmp(backend->server.item[i].address.text, text) == 0 ? 1 : 0;
    }
    return xasprintf("%s\nserver %s\n%zu", backend->name, text, equal_before);
}

static int
prepare_backend(struct server_registry *registry, struct backend_settings *backend)
{
    bool is_instance = backend->command != NULL;
    uint32_t count =
        is_instance ? 2 * (uint32_t)backend->instances : (uint32_t)backend->server.count;
    uint32_t *numbers = xcalloc(count > 0 ? count : 1, sizeof(*numbers));
    int result = 0;

    for (uint32_t i = 0; i < count && result == 0; i++) {
        char *key = is_instance ? xasprintf("%s\ninstance %u\n%u", backend->name, i / 2, i % 2)
                                : server_key(backend, i);
        if (record_assign(registry, key, is_instance, &numbers[i]) == NULL) {
            result = -ENOSPC;
        }
    }
    if (result == 0) {
        config_set_records(backend, numbers, count);
    }
    free(numbers);
    return result;
}

/* ---- queues --------------------------------------------------------------------------------- */

/* Whether settings that somebody may still use have a backend of that name. */
static bool
is_backend_known(const struct server_registry *registry, const char *name)
{
    for (uint32_t i = 0; i < BOARD_SERVERS_MAX; i++) {
        if (registry->records[i].use != RECORD_FREE &&
            strcmp(registry->board->servers[i].backend, name) == 0) {
            return true;
        }
    }
    return false;
}

/* The queue of a backend stays with its name. Every backend has a record and there are as many
 * queues as records, so one is free: that of a backend without any. */
static uint32_t
queue_assign(struct server_registry *registry, const char *name)
{
    struct scoreboard *board = registry->board;
    uint32_t queue = slot_queue_find(board, name);

    if (queue < BOARD_QUEUES_MAX) {
        return queue;
    }
    for (queue = 0; queue < board->queue_count; queue++) {
        if (!is_backend_known(registry, board->queues[queue].backend) &&
            slot_queue_waiting(&board->queues[queue]) == 0) {
            break;
        }
    }
    CHECK(queue < BOARD_QUEUES_MAX);
    memset(board->queues[queue].backend, 0, sizeof(board->queues[queue].backend));
    (void)snprintf(board->queues[queue].backend, sizeof(board->queues[queue].backend), "%s", name);
    if (queue == board->queue_count) {
        board->queue_count = queue + 1;
    }
    return queue;
}

/* ---- records -------------------------------------------------------------------------------- */

/* What the settings say about a server. */
static void
board_show_settings(struct board_server *server, const struct backend_settings *backend,
                    bool is_instance, size_t index)
{
    const struct server *item = is_instance ? NULL : &backend->server.item[index];
    int64_t slots = item != NULL && item->slots >= 0 ? item->slots : backend->slots;
    int64_t weight = item != NULL ? item->weight : 1;
    bool backup = item != NULL && item->backup;
    /* An instance is the same one after it was replaced, wherever it listens. */
    size_t instance = index / 2;
    uint64_t identity = item != NULL ? hash_bytes(0, item->address.text, strlen(item->address.text))
                                     : hash_bytes(1, &instance, sizeof(instance));

    atomic_store_explicit(&server->slots, (uint32_t)slots, memory_order_relaxed);
    atomic_store_explicit(&server->weight, (uint32_t)weight, memory_order_relaxed);
    atomic_store_explicit(&server->is_backup, backup ? 1 : 0, memory_order_relaxed);
    atomic_store_explicit(&server->identity, identity, memory_order_relaxed);
}

/* Before any worker gets the settings: one of them tries them before the others. */
static void
board_open_record(struct board_server *server, const struct backend_settings *backend,
                  uint32_t queue, bool is_instance, size_t index)
{
    server->queue = queue;
    board_show_settings(server, backend, is_instance, index);
    atomic_store_explicit(&server->full_until_ms, 0, memory_order_relaxed);
    memset(server->backend, 0, sizeof(server->backend));
    (void)snprintf(server->backend, sizeof(server->backend), "%s", backend->name);
    atomic_store_explicit(&server->failures, 0, memory_order_relaxed);
    atomic_store_explicit(&server->down_until_ms, 0, memory_order_relaxed);
    atomic_store_explicit(&server->requests, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&server->life, 1, memory_order_relaxed);
    if (is_instance) {
        server->address = (struct address){.fd = -1};
        return; /* FREE until an instance is there: the instance shows its own state */
    }
    server->address = backend->server.item[index].address;
    atomic_store_explicit(&server->state, BOARD_READY, memory_order_release);
}

static void
board_open_new_records(struct server_registry *registry, const struct backend_settings *backend)
{
    uint32_t queue = queue_assign(registry, backend->name);

    for (uint32_t i = 0; i < backend->record_count; i++) {
        struct server_record *record = &registry->records[backend->records[i]];
        /* A board that is younger than the record knows nothing of it. */
        bool is_unknown = registry->board->servers[backend->records[i]].backend[0] == '\0';
        if (record->use == RECORD_NEW || is_unknown) {
            board_open_record(&registry->board->servers[backend->records[i]], backend, queue,
                              record->is_instance, i);
        }
    }
}

int
server_registry_prepare(struct server_registry *registry, struct config *config, struct buf *error)
{
    for (uint32_t i = 0; i < BOARD_SERVERS_MAX; i++) {
        registry->records[i].wanted = false;
    }
    for (size_t i = 0; i < config->backend_count; i++) {
        int result = prepare_backend(registry, &config->backends[i]);
        if (result != 0) {
            buf_addf(error,
                     "[backend:%s]: there are more servers and instances than the %d records of "
                     "the scoreboard (an instance takes two, and a removed server keeps its own "
                     "until its requests ended)",
                     config->backends[i].name, BOARD_SERVERS_MAX);
            return result;
        }
    }
    for (size_t i = 0; i < config->backend_count; i++) {
        board_open_new_records(registry, &config->backends[i]);
    }
    return 0;
}

void
server_registry_rollback(struct server_registry *registry)
{
    for (uint32_t i = 0; i < BOARD_SERVERS_MAX; i++) {
        struct server_record *record = &registry->records[i];
        record->wanted = false;
        if (record->use == RECORD_NEW) {
            atomic_store_explicit(&registry->board->servers[i].state, BOARD_FREE,
                                  memory_order_release);
            free(record->key);
            *record = (struct server_record){.use = RECORD_FREE};
        }
    }
}

void
server_registry_abandon(struct server_registry *registry, uint64_t serial)
{
    for (uint32_t i = 0; i < BOARD_SERVERS_MAX; i++) {
        struct server_record *record = &registry->records[i];
        record->wanted = false;
        if (record->use == RECORD_NEW) {
            record->use = RECORD_LEAVING;
            record->left_serial = serial;
        }
    }
}

void
server_registry_commit(struct server_registry *registry, const struct config *config,
                       uint64_t serial)
{
    for (uint32_t i = 0; i < BOARD_SERVERS_MAX; i++) {
        struct server_record *record = &registry->records[i];
        if (record->use == RECORD_USED && !record->wanted) {
            record->use = RECORD_LEAVING;
            record->left_serial = serial;
        }
    }
    for (size_t b = 0; b < config->backend_count; b++) {
        const struct backend_settings *backend = &config->backends[b];
        for (uint32_t i = 0; i < backend->record_count; i++) {
            struct server_record *record = &registry->records[backend->records[i]];
            board_show_settings(&registry->board->servers[backend->records[i]], backend,
                                record->is_instance, i);
            record->use = RECORD_USED;
        }
    }
}

void
server_registry_restore(struct server_registry *registry, uint32_t number, const char *key,
                        bool is_instance, enum record_use use, uint64_t left_serial)
{
    struct server_record *record = &registry->records[number];

    free(record->key);
    *record = (struct server_record){
        .use = use, .is_instance = is_instance, .left_serial = left_serial, .key = xstrdup(key)};
}

bool
server_registry_sweep(struct server_registry *registry, uint64_t applied_by_all)
{
    bool waiting = false;

    for (uint32_t i = 0; i < BOARD_SERVERS_MAX; i++) {
        struct server_record *record = &registry->records[i];
        struct board_server *server = &registry->board->servers[i];
        if (record->use != RECORD_LEAVING || record->wanted) {
            continue; /* in use, or about to be again */
        }
        if (record->left_serial > applied_by_all ||
            atomic_load_explicit(&server->in_flight, memory_order_relaxed) > 0 ||
            atomic_load_explicit(&server->pid, memory_order_relaxed) != 0) {
            waiting = true;
            continue;
        }
        atomic_store_explicit(&server->state, BOARD_FREE, memory_order_release);
        free(record->key);
        *record = (struct server_record){.use = RECORD_FREE};
    }
    return waiting;
}
