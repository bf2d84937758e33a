/* SPDX-License-Identifier: Apache-2.0
 *
 * The state as it is now. A worker's channel may have messages that it did not read yet: they are
 * in the socket and stay there. What did not fit into the socket is lost with this program, so the
 * state says what the worker really was told, and the next program tells it the rest.
 */
#include "master/handover.h"

#include <string.h>

#include "config/base/check.h"
#include "config/base/clock.h"
#include "config/base/list.h"
#include "config/config.h"
#include "master/inherited.h"
#include "master/instance.h"
#include "master/master.h"
#include "master/state.h"
#include "master/worker_child.h"
#include "worker/channel.h"

static char *
copy(const char *text)
{
    return text != NULL ? xstrdup(text) : NULL;
}

#define FILL_CHILD(record, child)                                                                  \
    do {                                                                                           \
        struct child_memory memory;                                                                \
        child_remember((child), &memory);                                                          \
        (record)->pid = memory.pid;                                                                \
        (record)->state = memory.state;                                                            \
        (record)->started_ms = memory.started_ms;                                                  \
        (record)->ready_since_ms = memory.ready_since_ms;                                          \
        (record)->ours = copy(memory.ours);                                                        \
        (record)->suspicion = copy(memory.suspicion);                                              \
        (record)->deadline_ms = memory.deadline_ms;                                                \
        (record)->stopped = memory.stopped;                                                        \
    } while (0)

#define FILL_RESPAWN(record, history)                                                              \
    do {                                                                                           \
        (record)->deaths = (history)->deaths;                                                      \
        (record)->folded = (history)->folded;                                                      \
        (record)->row_ms = (history)->row_ms;                                                      \
        (record)->reported_ms = (history)->reported_ms;                                            \
    } while (0)

static void
fill_master(const struct master *master, int program_fd, struct state *state)
{
    struct state_master *record = state_add_master(state);
    const struct unix_listener *control = &master->control.listener;

    record->version = copy(NARWHAL_VERSION);
    record->pid = master->pid;
    record->exec_ms = clock_mono_ms();
    record->started_ms = atomic_load_explicit(&master->board->started_ms, memory_order_relaxed);
    record->dialect = channel_dialect();
    record->serial = (int64_t)master->serial;
    record->last_serial = (int64_t)master->reload.last_serial;
    record->was_ready = master->was_ready;
    record->paused = master->paused;
    record->workers_more = master->workers_more;
    record->next_lane = master->lanes.next_id;
    record->epoch = master->slots.epoch;
    record->roll_failed = master->slots.roll_failed;
    record->scaled_workers = master->scaling.workers;
    record->scaling_held = master->scaling.is_held;
    record->scaling_seen_workers = master->scaling.seen_workers;
    record->scaling_seen_min = master->scaling.seen_min;
    record->scaling_seen_max = master->scaling.seen_max;
    record->nofile_soft = (int64_t)master->inherited_nofile.rlim_cur;
    record->nofile_hard = (int64_t)master->inherited_nofile.rlim_max;
    record->graceful_ms = master->config->master.graceful_timeout_ms;
    record->log_level = master->config->log.level;
    record->error_log = master->logs.error_fd;
    record->board = master->board_fd;
    record->image = master->image_fd;
    record->program = program_fd;
    record->pidfile = master->pidfile.fd;
    record->pidfile_path = copy(master->pidfile.path);
    record->runtime = master->runtime_dir.fd;
    record->runtime_path = copy(master->runtime_dir.path);
    record->runtime_in_tmp = master->runtime_dir.in_tmp;
    record->control = control->fd;
    if (control->fd != -1) {
        record->control_path = copy(control->path);
        record->control_dev = (int64_t)control->dev;
        record->control_ino = (int64_t)control->ino;
    }
    for (int fd = inherited_next(-1); fd != -1; fd = inherited_next(fd)) {
        state_add_inherited(state)->fd = fd;
    }
}

static void
fill_lanes(const struct master *master, struct state *state)
{
    LIST_FOR_EACH (node, &master->lanes.addresses) {
        const struct listen_address *address = listen_address_from(node);
        struct state_address *record = state_add_address(state);
        record->wanted = copy(address->wanted.text);
        record->bound = copy(address->bound.text);
        if (address->wanted.kind == ADDRESS_UNIX) {
            record->unix_path = copy(address->unix_socket.path);
            record->unix_dev = (int64_t)address->unix_socket.dev;
            record->unix_ino = (int64_t)address->unix_socket.ino;
        }
        for (size_t i = 0; i < address->lane_count; i++) {
            struct state_lane *lane = state_add_lane(state);
            lane->address = (int64_t)state->address_count - 1;
            lane->id = address->lanes[i].id;
            lane->fd = address->lanes[i].fd;
            lane->home = address->lanes[i].home;
            lane->owner = address->lanes[i].owner;
        }
    }
}

/* ---- workers --------------------------------------------------------------------------------- */

static void
hold(struct state *state, uint32_t lane)
{
    struct state_held *held = state_add_held(state);

    held->worker = (int64_t)state->worker_count - 1;
    held->lane = lane;
}

static void
drop(struct state *state, uint32_t lane)
{
    for (size_t i = state->held_count; i-- > 0;) {
        if (state->held[i].worker == (int64_t)state->worker_count - 1 &&
            state->held[i].lane == lane) {
            state->held[i] = state->held[--state->held_count];
            return;
        }
    }
}

/* Undoes what the worker was not told; for the last record. */
static void
on_untold(const struct channel_message *message, void *context)
{
    struct state *state = context;
    struct state_worker *worker = &state->worker[state->worker_count - 1];

    switch ((enum channel_type)message->type) {
    case CHANNEL_LANE_ASSIGN:
        drop(state, message->lane);
        break;
    case CHANNEL_LANE_REVOKE:
        hold(state, message->lane);
        break;
    case CHANNEL_DRAIN:
    case CHANNEL_QUIT:
        if (worker->state == CHILD_DRAINING && worker->ready_since_ms > 0) {
            worker->state = CHILD_READY;
            worker->deadline_ms = CHILD_NO_DEADLINE; /* it has none in that state */
        } else if (worker->state == CHILD_DRAINING) {
            worker->state = CHILD_STARTING;
        }
        break;
    default:
        break; /* settings and logs: the next program sends its own, or a successor */
    }
}

static void
fill_worker(const struct worker_child *worker, enum state_role role, struct state *state)
{
    struct state_worker *record = state_add_worker(state);

    record->slot = worker->slot->number;
    record->role = role;
    FILL_CHILD(record, &worker->child);
    record->epoch = worker->epoch;
    record->generation = worker->generation;
    record->cell = worker->cell;
    record->channel = worker->channel_fd;
    record->sent_serial = (int64_t)worker->sent_serial;
    record->applied_serial = (int64_t)worker->applied_serial;
    record->refused_serial = (int64_t)worker->refused_serial;
    record->answers_due = worker->answers_due;
    record->said_applied = worker->said_applied;
    record->said_ready = worker->said_ready;
    record->said_drained = worker->said_drained;
    record->leaving = worker->leaving;
    for (size_t i = 0; i < worker->lane_count; i++) {
        hold(state, worker->lanes[i]);
    }
    worker_child_each_untold(worker, on_untold, state);
}

static void
fill_slots(const struct master *master, struct state *state)
{
    for (uint32_t i = 0; i < BOARD_SLOTS_MAX; i++) {
        const struct slot *slot = &master->slots.slots[i];
        if (slot->generation == 0 && slot->serving == NULL) {
            continue; /* never used */
        }
        struct state_slot *record = state_add_slot(state);
        record->number = slot->number;
        record->generation = slot->generation;
        FILL_RESPAWN(record, &slot->respawn);
        if (slot->serving != NULL) {
            fill_worker(slot->serving, STATE_SERVING, state);
        }
        if (slot->next != NULL) {
            fill_worker(slot->next, STATE_NEXT, state);
        }
        LIST_FOR_EACH (node, &slot->leaving) {
            fill_worker(container_of(node, struct worker_child, node), STATE_LEAVING, state);
        }
    }
}

/* ---- applications ---------------------------------------------------------------------------- */

static void
fill_instance(const struct instance *instance, enum state_role role, struct state *state)
{
    struct state_instance *record = state_add_instance(state);

    record->app_slot = (int64_t)state->app_slot_count - 1;
    record->role = role;
    record->half = instance->half;
    FILL_CHILD(record, &instance->child);
    record->generation = (int64_t)instance->generation;
    record->offers = instance->offers;
    record->port = instance->port;
    record->leaving = instance->leaving;
    record->drain_until_ms = instance->drain_until_ms;
    record->socket_path = copy(instance->socket_path);
    record->address = instance->child.ready_since_ms > 0 ? copy(instance->address.text) : NULL;
    record->start_error = copy(instance->start_error);
    record->output = instance->output.fd;
    record->exec_result = instance->exec_fd;
    app_output_remember(&instance->output, &record->kept, &record->unread);
}

static void
fill_app_slot(const struct instance_slot *slot, struct state *state)
{
    struct state_app_slot *record = state_add_app_slot(state);

    record->app = (int64_t)state->app_count - 1;
    record->first_record = slot->records[0];
    record->second_record = slot->records[1];
    FILL_RESPAWN(record, &slot->respawn);
    for (int64_t half = 0; half < INSTANCE_HALVES; half++) {
        const struct unix_listener *listener = &slot->listeners[half];
        if (listener->fd != -1) {
            struct state_listener *passed = state_add_listener(state);
            passed->app_slot = (int64_t)state->app_slot_count - 1;
            passed->half = half;
            passed->fd = listener->fd;
            passed->path = copy(listener->path);
            passed->dev = (int64_t)listener->dev;
            passed->ino = (int64_t)listener->ino;
        }
    }
    if (slot->serving != NULL) {
        fill_instance(slot->serving, STATE_SERVING, state);
    }
    if (slot->next != NULL) {
        fill_instance(slot->next, STATE_NEXT, state);
    }
    LIST_FOR_EACH (node, &slot->leaving) {
        fill_instance(container_of(node, struct instance, node), STATE_LEAVING, state);
    }
}

static void
fill_apps(const struct master *master, struct state *state)
{
    LIST_FOR_EACH (node, &master->apps.apps) {
        const struct app *app = container_of(node, struct app, node);
        struct state_app *record = state_add_app(state);
        record->name = copy(app->name);
        record->generation = (int64_t)app->generation;
        record->roll_failed = app->roll_failed;
        record->rolling = app->rolling;
        for (size_t i = 0; i < app->slot_count; i++) {
            fill_app_slot(app->slots[i], state);
        }
    }
}

static void
fill_servers(const struct master *master, struct state *state)
{
    for (uint32_t i = 0; i < BOARD_SERVERS_MAX; i++) {
        const struct server_record *server = &master->registry.records[i];
        if (server->use != RECORD_USED && server->use != RECORD_LEAVING) {
            continue;
        }
        struct state_server *record = state_add_server(state);
        record->record = i;
        record->use = server->use;
        record->is_instance = server->is_instance;
        record->left_serial = (int64_t)server->left_serial;
        record->key = copy(server->key);
        record->wish = server->wish;
        const struct board_server *shown = &master->board->servers[i];
        if (server->is_name &&
            atomic_load_explicit(&shown->state, memory_order_relaxed) == BOARD_READY) {
            char address[ADDRESS_TEXT_MAX];
            board_copy_text(shown->address.text, address, sizeof(address));
            record->address = copy(address);
            record->weight = shown->weight;
            record->is_backup = shown->is_backup;
        }
    }
}

void
handover_fill(const struct master *master, int program_fd, struct state *ret_state)
{
    fill_master(master, program_fd, ret_state);
    fill_lanes(master, ret_state);
    fill_slots(master, ret_state);
    fill_apps(master, ret_state);
    fill_servers(master, ret_state);
    operations_fill(master, ret_state);
}
