/* SPDX-License-Identifier: Apache-2.0
 *
 * Records by key. A key says what a record stands for: "api\nserver 127.0.0.1:9001\n0" (the last
 * number tells equal entries of one backend apart), "api\ninstance 1\n0" or, for the fourth place
 * of a name, "api\nname dns:api.internal:8000\n3".
 *
 * A record of a name: FREE --address--> READY --gone from the answer--> DRAINING --no request is
 * open, one answer later--> FREE. While nothing is resolved its first record is STARTING, so that
 * requests wait as they do for an instance that boots.
 */
#include "master/server_registry.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/base/clock.h"
#include "config/base/hash.h"
#include "config/config.h"
#include "worker/resolver/answer.h"
#include "worker/slot_queue.h"

void
server_registry_init(struct server_registry *registry, struct scoreboard *board)
{
    memset(registry, 0, sizeof(*registry));
    registry->board = board;
}

static void
record_free(struct server_record *record)
{
    free(record->key);
    free(record->known);
    *record = (struct server_record){.use = RECORD_FREE};
}

void
server_registry_release(struct server_registry *registry)
{
    for (uint32_t i = 0; i < BOARD_SERVERS_MAX; i++) {
        record_free(&registry->records[i]);
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

/* Records of one server=. A name has some on top, for addresses that come while requests of those
 * that are gone have not ended. */
static uint32_t
records_of_item(const struct backend_settings *backend, size_t item)
{
    uint32_t addresses = (uint32_t)backend->addresses;

    return address_is_name(&backend->server.item[item].address) ? addresses + addresses / 4 + 1 : 1;
}

static uint32_t
first_record_of_item(const struct backend_settings *backend, size_t item)
{
    uint32_t first = 0;

    for (size_t i = 0; i < item; i++) {
        first += records_of_item(backend, i);
    }
    return first;
}

static int
prepare_instances(struct server_registry *registry, const struct backend_settings *backend,
                  uint32_t *numbers)
{
    for (uint32_t i = 0; i < 2 * (uint32_t)backend->instances; i++) {
        char *key = xasprintf("%s\ninstance %u\n%u", backend->name, i / 2, i % 2);
        if (record_assign(registry, key, true, &numbers[i]) == NULL) {
            return -ENOSPC;
        }
    }
    return 0;
}

static int
prepare_servers(struct server_registry *registry, const struct backend_settings *backend,
                uint32_t *numbers)
{
    for (size_t i = 0; i < backend->server.count; i++) {
        const struct address *address = &backend->server.item[i].address;
        bool is_name = address_is_name(address);
        for (uint32_t place = 0; place < records_of_item(backend, i); place++) {
            char *key = is_name ? xasprintf("%s\nname %s\n%u", backend->name, address->text, place)
                                : server_key(backend, i);
            struct server_record *record = record_assign(registry, key, false, numbers++);
            if (record == NULL) {
                return -ENOSPC;
            }
            record->is_name = is_name;
            record->item = (uint32_t)i;
        }
    }
    return 0;
}

static int
prepare_backend(struct server_registry *registry, struct backend_settings *backend)
{
    bool is_instance = backend->command != NULL;
    uint32_t count = is_instance ? 2 * (uint32_t)backend->instances
                                 : first_record_of_item(backend, backend->server.count);
    uint32_t *numbers = xcalloc(count > 0 ? count : 1, sizeof(*numbers));
    int result = is_instance ? prepare_instances(registry, backend, numbers)
                             : prepare_servers(registry, backend, numbers);

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
    for (queue = 0; queue < board_queue_count(board); queue++) {
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

static void
show_address(struct board_server *server, uint32_t weight, bool is_backup, const char *text)
{
    atomic_store_explicit(&server->weight, weight, memory_order_relaxed);
    atomic_store_explicit(&server->is_backup, is_backup ? 1 : 0, memory_order_relaxed);
    atomic_store_explicit(&server->identity, hash_bytes(0, text, strlen(text)),
                          memory_order_relaxed);
}

/* What the settings say about a server; the rest of what is known of a name comes with its
 * addresses. index: of the record in the backend. */
static void
board_show_settings(struct board_server *server, const struct backend_settings *backend,
                    const struct server_record *record, uint32_t index)
{
    const struct server *item = record->is_instance ? NULL : &backend->server.item[record->item];
    int64_t slots = item != NULL && item->slots >= 0 ? item->slots : backend->slots;

    atomic_store_explicit(&server->slots, (uint32_t)slots, memory_order_relaxed);
    if (item == NULL) {
        uint32_t instance = index / 2; /* the same one after it was replaced, wherever it listens */
        atomic_store_explicit(&server->weight, 1, memory_order_relaxed);
        atomic_store_explicit(&server->is_backup, 0, memory_order_relaxed);
        atomic_store_explicit(&server->identity, hash_bytes(1, &instance, sizeof(instance)),
                              memory_order_relaxed);
    } else if (!record->is_name) {
        show_address(server, (uint32_t)item->weight, item->backup, item->address.text);
    }
}

/* Before any worker gets the settings: one of them tries them before the others. */
static void
board_open_record(struct board_server *server, const struct backend_settings *backend,
                  const struct server_record *record, uint32_t index, uint32_t queue)
{
    server->queue = queue;
    board_show_settings(server, backend, record, index);
    atomic_store_explicit(&server->full_until_ms, 0, memory_order_relaxed);
    memset(server->backend, 0, sizeof(server->backend));
    (void)snprintf(server->backend, sizeof(server->backend), "%s", backend->name);
    board_forget_health(server);
    atomic_store_explicit(&server->wish, record->wish, memory_order_relaxed);
    atomic_store_explicit(&server->requests, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&server->life, 1, memory_order_relaxed);
    if (record->is_instance) {
        server->address = (struct address){.fd = -1};
        return; /* FREE until an instance is there: the instance shows its own state */
    }
    server->address = backend->server.item[record->item].address;
    if (!record->is_name) {
        atomic_store_explicit(&server->state, BOARD_READY, memory_order_release);
    } else if (record->known != NULL) {
        server->address = *record->known;
        show_address(server, (uint32_t)record->known_weight, record->known_backup,
                     record->known->text);
        atomic_store_explicit(&server->state, BOARD_READY, memory_order_release);
    }
}

/* ---- names ---------------------------------------------------------------------------------- */

static struct board_server *
server_of_item(const struct server_registry *registry, const struct backend_settings *backend,
               size_t item, uint32_t place)
{
    uint32_t index = first_record_of_item(backend, item) + place;

    return &registry->board->servers[backend->records[index]];
}

static enum board_state
state_of(const struct board_server *server)
{
    return (enum board_state)atomic_load_explicit(&server->state, memory_order_relaxed);
}

static void
set_state(struct board_server *server, enum board_state state)
{
    atomic_store_explicit(&server->state, state, memory_order_release);
}

uint32_t
server_registry_count_resolved(const struct server_registry *registry,
                               const struct backend_settings *backend, size_t item)
{
    uint32_t count = 0;

    for (uint32_t place = 0; place < records_of_item(backend, item); place++) {
        count += state_of(server_of_item(registry, backend, item, place)) == BOARD_READY ? 1 : 0;
    }
    return count;
}

/* A name without any server has one that is on its way. */
static void
show_waiting(struct server_registry *registry, const struct backend_settings *backend, size_t item)
{
    if (server_registry_count_resolved(registry, backend, item) > 0) {
        return;
    }
    for (uint32_t place = 0; place < records_of_item(backend, item); place++) {
        struct board_server *server = server_of_item(registry, backend, item, place);
        if (state_of(server) == BOARD_STARTING) {
            return;
        }
        if (state_of(server) == BOARD_FREE) {
            server->address = backend->server.item[item].address;
            set_state(server, BOARD_STARTING);
            return;
        }
    }
}

/* A worker that has chosen this record a moment ago may still read its address: it looks at life
 * and state again after that, so life changes behind the address and before the state. */
static void
open_address(struct server_registry *registry, struct board_server *server,
             const struct address *address)
{
    set_state(server, BOARD_FREE);
    server->address = *address;
    /* What the operator wanted was meant for the address before. */
    registry->records[server - registry->board->servers].wish = BOARD_WISH_ENABLED;
    atomic_store_explicit(&server->wish, BOARD_WISH_ENABLED, memory_order_relaxed);
    atomic_store_explicit(&server->full_until_ms, 0, memory_order_relaxed);
    board_forget_health(server);
    atomic_fetch_add_explicit(&server->life, 1, memory_order_release);
    set_state(server, BOARD_READY);
}

/* Records whose address left in an earlier answer, and whose last request has ended. */
static void
free_drained(struct server_registry *registry, const struct backend_settings *backend, size_t item)
{
    for (uint32_t place = 0; place < records_of_item(backend, item); place++) {
        struct board_server *server = server_of_item(registry, backend, item, place);
        if (state_of(server) == BOARD_DRAINING &&
            atomic_load_explicit(&server->in_flight, memory_order_relaxed) == 0) {
            set_state(server, BOARD_FREE);
        }
    }
}

/* The record that has the address, or had it and may have it again. */
static struct board_server *
find_address(struct server_registry *registry, const struct backend_settings *backend, size_t item,
             const char *text)
{
    for (uint32_t place = 0; place < records_of_item(backend, item); place++) {
        struct board_server *server = server_of_item(registry, backend, item, place);
        if ((state_of(server) == BOARD_READY || state_of(server) == BOARD_DRAINING) &&
            strcmp(server->address.text, text) == 0) {
            return server;
        }
    }
    return NULL;
}

static struct board_server *
find_room(struct server_registry *registry, const struct backend_settings *backend, size_t item)
{
    struct board_server *room = NULL;

    for (uint32_t place = 0; place < records_of_item(backend, item); place++) {
        struct board_server *server = server_of_item(registry, backend, item, place);
        if (state_of(server) == BOARD_STARTING) {
            return server;
        }
        if (state_of(server) == BOARD_FREE && room == NULL) {
            room = server;
        }
    }
    return room;
}

static void
drain_missing(struct server_registry *registry, const struct backend_settings *backend, size_t item,
              const struct address *wanted, size_t count, struct server_change *change)
{
    for (uint32_t place = 0; place < records_of_item(backend, item); place++) {
        struct board_server *server = server_of_item(registry, backend, item, place);
        bool is_there = false;
        for (size_t i = 0; i < count && !is_there; i++) {
            is_there = strcmp(wanted[i].text, server->address.text) == 0;
        }
        if (!is_there && state_of(server) == BOARD_READY) {
            set_state(server, BOARD_DRAINING);
            change->removed++;
        }
    }
}

/* Gives one address a record, or leaves it the one that it has. */
static void
place_address(struct server_registry *registry, const struct backend_settings *backend, size_t item,
              const struct answer_address *answer, const struct address *address,
              struct server_change *change)
{
    const struct server *settings = &backend->server.item[item];
    struct board_server *server = find_address(registry, backend, item, address->text);
    bool is_new = server == NULL;

    if (is_new) {
        server = find_room(registry, backend, item);
        if (server == NULL) {
            change->left_out++;
            return;
        }
    }
    change->added += is_new || state_of(server) == BOARD_DRAINING ? 1 : 0;
    show_address(server, (uint32_t)settings->weight * answer->weight,
                 settings->backup || answer->is_backup != 0, address->text);
    if (is_new) {
        open_address(registry, server, address);
    } else {
        set_state(server, BOARD_READY);
    }
}

struct server_change
server_registry_resolve(struct server_registry *registry, const struct backend_settings *backend,
                        size_t item, const struct answer_address *addresses, size_t count)
{
    struct address *wanted = xcalloc(count > 0 ? count : 1, sizeof(*wanted));
    struct server_change change = {0};
    size_t used = 0;

    free_drained(registry, backend, item);
    /* New ones before those that are gone leave: there is never a moment without any server.
     * Targets of the first priority before the others (RFC 2782): those only stand by. */
    for (uint8_t backup = 0; backup <= 1; backup++) {
        for (size_t i = 0; i < count; i++) {
            if (addresses[i].is_backup != backup) {
                continue;
            }
            if (used == (size_t)backend->addresses) {
                change.left_out++;
                continue;
            }
            answer_to_address(&addresses[i], &wanted[used]);
            place_address(registry, backend, item, &addresses[i], &wanted[used++], &change);
        }
    }
    drain_missing(registry, backend, item, wanted, used, &change);
    free(wanted);
    return change;
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
            board_open_record(&registry->board->servers[backend->records[i]], backend, record, i,
                              queue);
        }
        free(record->known); /* the board knows it now */
        record->known = NULL;
    }
    for (size_t i = 0; i < backend->server.count; i++) {
        if (address_is_name(&backend->server.item[i].address)) {
            show_waiting(registry, backend, i);
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
            record_free(record);
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
            board_show_settings(&registry->board->servers[backend->records[i]], backend, record, i);
            record->use = RECORD_USED;
        }
    }
}

void
server_registry_restore(struct server_registry *registry, uint32_t number, const char *key,
                        bool is_instance, enum record_use use, uint64_t left_serial,
                        enum board_wish wish)
{
    struct server_record *record = &registry->records[number];

    record_free(record);
    *record = (struct server_record){
        .use = use,
        .is_instance = is_instance,
        .wish = wish,
        .left_serial = left_serial,
        .key = xstrdup(key),
    };
}

void
server_registry_wish(struct server_registry *registry, uint32_t number, enum board_wish wish)
{
    struct board_server *server = &registry->board->servers[number];

    if (wish == BOARD_WISH_ENABLED && registry->records[number].wish != wish) {
        board_forget_health(server);
        atomic_store_explicit(&server->health.up_since_ms, clock_mono_ms(), memory_order_relaxed);
    }
    registry->records[number].wish = wish;
    atomic_store_explicit(&server->wish, wish, memory_order_seq_cst); /* who waits is served then */
}

void
server_registry_restore_address(struct server_registry *registry, uint32_t number,
                                const char *address, int64_t weight, bool is_backup)
{
    struct server_record *record = &registry->records[number];
    struct address known;
    char *error = address_parse(address, &known);

    if (error == NULL && known.kind == ADDRESS_TCP) {
        free(record->known);
        record->known = xcalloc(1, sizeof(*record->known));
        *record->known = known;
        record->known_weight = weight;
        record->known_backup = is_backup;
    }
    free(error);
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
        record_free(record);
    }
    return waiting;
}
