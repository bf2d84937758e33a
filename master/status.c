/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads the scoreboard and the master's own tables; asks no worker, so a hung one is shown too.
 */
#include "master/status.h"

#include <stddef.h>

#include "config/base/buf.h"
#include "config/base/clock.h"
#include "config/config.h"
#include "master/json.h"
#include "master/lane_plan.h"
#include "master/master.h"
#include "master/worker_child.h"
#include "worker/sandbox.h"
#include "worker/slot_queue.h"

static uint64_t
load(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static void
print_head(const struct master *master, struct buf *out)
{
    int64_t started_ms = atomic_load_explicit(&master->board->started_ms, memory_order_relaxed);

    json_text(out, "version", NARWHAL_VERSION);
    json_number(out, "pid", master->pid);
    json_number(out, "uptime_ms", clock_mono_ms() - started_ms);
    json_number(out, "serial", (int64_t)master->serial);
    json_number(out, "workers_wanted", master_wanted_workers(master));
    json_number(out, "workers_ready", slots_ready_count(master));
    json_text(out, "phase",
              master->phase != MASTER_RUNNING ? "stopping"
              : master->paused                ? "paused"
                                              : "running");
    json_text(out, "sandbox", sandbox_mode_name(master->config->master.sandbox));
}

/* What the worker said that it is in, which need not be what the settings ask for now. */
static void
print_sandbox(const struct master *master, const struct worker_child *worker, struct buf *out)
{
    uint32_t packed = worker->cell != WORKER_NO_CELL
                          ? atomic_load_explicit(&master->board->workers[worker->cell].sandbox,
                                                 memory_order_relaxed)
                          : 0;
    struct sandbox_state state = sandbox_unpack(packed);

    json_open(out, "sandbox", '{');
    json_number(out, "landlock_abi", state.landlock_abi);
    json_bool(out, "seccomp", state.seccomp);
    json_close(out, '}');
}

static void
print_worker(const struct master *master, const struct worker_child *worker, struct buf *out)
{
    const struct child *child = &worker->child;
    int64_t connections = 0;
    int64_t requests = 0;
    int64_t tunnels = 0;

    if (worker->cell != WORKER_NO_CELL) {
        const struct board_counters *counters = &master->board->workers[worker->cell].counters;
        /* closed first: the worker counts in the other order, so this is never negative */
        uint64_t closed = load(&counters->closed);
        connections = (int64_t)(load(&counters->accepted) - closed);
        requests = (int64_t)load(&counters->requests);
        uint64_t ended = load(&counters->tunnels_ended);
        tunnels = (int64_t)(load(&counters->tunnels) - ended);
    }
    json_open(out, NULL, '{');
    json_number(out, "slot", worker->slot->number);
    json_number(out, "pid", child->pid);
    json_text(out, "state", child_state_name(child->state));
    json_number(out, "generation", worker->generation);
    json_number(out, "stalled_ms",
                worker->stalled ? clock_mono_ms() - worker->progress.stalled_since_ms : 0);
    json_number(out, "uptime_ms", child->pid != 0 ? clock_mono_ms() - child->started_ms : 0);
    json_number(out, "connections", connections);
    json_number(out, "requests", requests);
    json_number(out, "tunnels", tunnels);
    print_sandbox(master, worker, out);
    if (worker->recycle.reason != NULL) {
        json_text(out, "replaced_for", worker->recycle.reason);
    } else {
        json_none(out, "replaced_for");
    }
    json_close(out, '}');
}

static void
print_workers(const struct master *master, struct buf *out)
{
    json_open(out, "workers", '[');
    for (size_t i = 0; i < BOARD_SLOTS_MAX; i++) {
        const struct slot *slot = &master->slots.slots[i];
        if (slot->serving != NULL) {
            print_worker(master, slot->serving, out);
        }
        if (slot->next != NULL) {
            print_worker(master, slot->next, out);
        }
        LIST_FOR_EACH (node, &slot->leaving) {
            print_worker(master, container_of(node, struct worker_child, node), out);
        }
    }
    json_close(out, ']');
}

static void
print_health(const struct board_server *server, struct buf *out)
{
    const struct board_health *health = &server->health;
    int64_t down_until_ms = atomic_load_explicit(&server->down_until_ms, memory_order_relaxed);
    int64_t closes_after_us = atomic_load_explicit(&server->closes_after_us, memory_order_relaxed);

    json_text(out, "wish",
              board_wish_name(
                  (enum board_wish)atomic_load_explicit(&server->wish, memory_order_relaxed)));
    json_text(out, "health",
              board_finding_name((enum board_finding)atomic_load_explicit(&server->finding,
                                                                          memory_order_relaxed)));
    json_number(out, "failures", atomic_load_explicit(&health->failures, memory_order_relaxed));
    json_number(out, "errors", atomic_load_explicit(&health->errors, memory_order_relaxed));
    if (down_until_ms == 0) {
        json_none(out, "rests_for_ms");
    } else { /* 0: the next request is a trial */
        int64_t rest_ms = down_until_ms - clock_mono_ms();
        json_number(out, "rests_for_ms", rest_ms > 0 ? rest_ms : 0);
    }
    json_number(out, "idle", atomic_load_explicit(&server->idle, memory_order_relaxed));
    json_number(out, "closes_after_ms", closes_after_us / 1000);
}

static void
print_server(const struct master *master, uint32_t record, struct buf *out)
{
    const struct board_server *server = &master->board->servers[record];
    enum board_state state =
        (enum board_state)atomic_load_explicit(&server->state, memory_order_acquire);
    char address[ADDRESS_TEXT_MAX];

    if (state == BOARD_FREE) {
        return; /* the place of a successor, which is not there */
    }
    board_copy_text(server->address.text, address, sizeof(address));
    json_open(out, NULL, '{');
    json_number(out, "record", record);
    json_text(out, "address", address);
    json_text(out, "state", board_state_name(state));
    print_health(server, out);
    json_number(out, "pid", atomic_load_explicit(&server->pid, memory_order_relaxed));
    json_number(out, "in_flight", atomic_load_explicit(&server->in_flight, memory_order_relaxed));
    json_number(out, "slots", atomic_load_explicit(&server->slots, memory_order_relaxed));
    json_number(out, "weight", atomic_load_explicit(&server->weight, memory_order_relaxed));
    json_text(out, "role",
              atomic_load_explicit(&server->is_backup, memory_order_relaxed) != 0 ? "backup"
                                                                                  : "primary");
    json_number(out, "requests", (int64_t)load(&server->requests));
    json_close(out, '}');
}

/* Requests that wait for a slot, over all workers. */
static int64_t
queued(const struct master *master, const struct backend_settings *backend)
{
    return backend->record_count == 0
               ? 0
               : slot_queue_waiting(board_queue_of(master->board, backend->records[0]));
}

static void
print_backends(const struct master *master, struct buf *out)
{
    json_open(out, "backends", '[');
    for (size_t i = 0; i < master->config->backend_count; i++) {
        const struct backend_settings *backend = &master->config->backends[i];
        json_open(out, NULL, '{');
        json_text(out, "name", backend->name);
        json_number(out, "queued", queued(master, backend));
        json_number(out, "queue", backend->queue);
        json_open(out, "servers", '[');
        for (uint32_t r = 0; r < backend->record_count; r++) {
            print_server(master, backend->records[r], out);
        }
        json_close(out, ']');
        json_close(out, '}');
    }
    json_close(out, ']');
}

static void
print_lanes(const struct master *master, struct buf *out)
{
    json_open(out, "lanes", '[');
    LIST_FOR_EACH (node, &master->lanes.addresses) {
        const struct listen_address *address = listen_address_from(node);
        for (size_t i = 0; i < address->lane_count; i++) {
            const struct lane *lane = &address->lanes[i];
            uint32_t waiting;
            json_open(out, NULL, '{');
            json_number(out, "id", lane->id);
            json_text(out, "address", address->bound.text);
            if (lane->home == LANE_SHARED) {
                json_text(out, "slot", "shared");
                json_text(out, "served_by_slot", "all");
            } else {
                json_number(out, "slot", lane->home);
                if (lane->owner == LANE_NOBODY) {
                    json_none(out, "served_by_slot");
                } else {
                    json_number(out, "served_by_slot", lane->owner);
                }
            }
            if (lane_count_waiting(lane, &waiting)) {
                json_number(out, "queue", waiting);
            } else {
                json_none(out, "queue");
            }
            json_close(out, '}');
        }
    }
    json_close(out, ']');
}

static void
print_totals(const struct master *master, struct buf *out)
{
    json_open(out, "totals", '{');
#define PRINT_TOTAL(name, text)                                                                    \
    json_number(out, #name,                                                                        \
                (int64_t)board_total(master->board, offsetof(struct board_counters, name)));
    BOARD_COUNTERS(PRINT_TOTAL)
#undef PRINT_TOTAL
    json_close(out, '}');
}

void
status_print_ping(const struct master *master, struct buf *out)
{
    json_open(out, NULL, '{');
    json_text(out, "answer", "pong");
    json_number(out, "pid", master->pid);
    json_close(out, '}');
}

void
status_print_workers(struct master *master, struct buf *out)
{
    json_open(out, NULL, '{');
    print_workers(master, out);
    json_close(out, '}');
}

void
status_print_backends(struct master *master, struct buf *out)
{
    json_open(out, NULL, '{');
    print_backends(master, out);
    json_close(out, '}');
}

void
status_print_lanes(struct master *master, struct buf *out)
{
    json_open(out, NULL, '{');
    print_lanes(master, out);
    json_close(out, '}');
}

void
status_print_listening(struct master *master, struct buf *out)
{
    char time[CLOCK_ISO8601_SIZE];

    clock_format_iso8601(clock_real_ms(), time);
    json_open(out, NULL, '{');
    json_text(out, "time", time);
    json_text(out, "event", "listening");
    print_head(master, out);
    json_close(out, '}');
}

void
status_print(struct master *master, struct buf *out)
{
    json_open(out, NULL, '{');
    print_head(master, out);
    print_workers(master, out);
    print_backends(master, out);
    print_totals(master, out);
    print_lanes(master, out);
    json_close(out, '}');
}
