/* SPDX-License-Identifier: Apache-2.0
 *
 * Each event is one line of JSON that begins with time and event; control.c hands it to all who
 * listen, and counts what a slow one loses. Invariant: the timer runs exactly while somebody
 * listens. Runs in the master.
 */
#include "master/events.h"

#include <string.h>

#include "config/base/buf.h"
#include "config/base/clock.h"
#include "master/child.h"
#include "master/control.h"
#include "master/deaths.h"
#include "master/json.h"
#include "master/master.h"
#include "master/operations.h"
#include "master/worker_child.h"

/* ---- one event ------------------------------------------------------------------------------- */

static void
event_begin(struct buf *out, const char *name)
{
    char time[CLOCK_ISO8601_SIZE];

    clock_format_iso8601(clock_real_ms(), time);
    json_open(out, NULL, '{');
    json_text(out, "time", time);
    json_text(out, "event", name);
}

static void
event_send(struct master *master, struct buf *out)
{
    json_close(out, '}');
    buf_add(out, "\n", 1);
    control_broadcast(master, out->ptr, out->len);
    buf_release(out);
}

void
events_child(struct master *master, const struct child *child, const char *before)
{
    struct buf out = {0};

    if (master->events.listeners == 0) {
        return;
    }
    event_begin(&out, "child");
    json_text(&out, "name", child->name);
    json_number(&out, "pid", child->pid);
    json_text(&out, "state", child_state_name(child->state));
    json_text(&out, "before", before);
    event_send(master, &out);
}

void
events_death(struct master *master, const struct board_death *record)
{
    struct buf out = {0};

    if (master->events.listeners == 0) {
        return;
    }
    event_begin(&out, "death");
    deaths_print_fields(record, &out);
    event_send(master, &out);
}

void
events_operation(struct master *master, const struct operation *operation)
{
    struct buf out = {0};

    if (master->events.listeners == 0) {
        return;
    }
    event_begin(&out, operation_kind_name(operation->kind));
    json_number(&out, "operation", (int64_t)operation->number);
    if (operation->subject[0] != '\0') {
        json_text(&out, "backend", operation->subject);
    }
    json_text(&out, "state", operation_state_name(operation->state));
    if (operation->text != NULL) {
        json_text(&out, "text", operation->text);
    }
    event_send(master, &out);
}

/* ---- what is looked at ----------------------------------------------------------------------- */

static void
look_at_master(struct master *master, bool tell)
{
    static const char *const phase_names[] = {[MASTER_RUNNING] = "running",
                                              [MASTER_STOPPING] = "stopping",
                                              [MASTER_STOPPING_QUICK] = "stopping quickly"};
    struct events *events = &master->events;
    uint32_t wanted = master_wanted_workers(master);
    struct buf out = {0};

    if (tell && wanted != events->workers_wanted && master->phase == MASTER_RUNNING) {
        event_begin(&out, "workers");
        json_number(&out, "wanted", wanted);
        json_number(&out, "before", events->workers_wanted);
        event_send(master, &out);
    }
    if (tell && ((int)master->phase != events->phase || master->paused != events->paused)) {
        event_begin(&out, "master");
        json_text(&out, "phase", phase_names[master->phase]);
        json_bool(&out, "paused", master->paused);
        event_send(master, &out);
    }
    events->workers_wanted = wanted;
    events->phase = (int)master->phase;
    events->paused = master->paused;
}

static void
look_at_stalls(struct master *master, bool tell)
{
    for (uint32_t i = 0; i < BOARD_SLOTS_MAX; i++) {
        const struct worker_child *worker = master->slots.slots[i].serving;
        bool stalled = worker != NULL && worker->stalled;
        if (stalled != master->events.stalled[i] && tell) {
            struct buf out = {0};
            event_begin(&out, "stall");
            json_number(&out, "slot", i);
            json_number(&out, "pid", worker != NULL ? worker->child.pid : 0);
            json_bool(&out, "stalled", stalled);
            event_send(master, &out);
        }
        master->events.stalled[i] = stalled;
    }
}

static void
tell_server(struct master *master, uint32_t record, uint32_t state, bool rests)
{
    const struct board_server *server = &master->board->servers[record];
    char backend[BOARD_NAME_MAX];
    char address[ADDRESS_TEXT_MAX];
    struct buf out = {0};

    board_copy_text(server->backend, backend, sizeof(backend));
    board_copy_text(server->address.text, address, sizeof(address));
    event_begin(&out, "server");
    json_text(&out, "backend", backend);
    json_text(&out, "address", address);
    json_text(&out, "state", board_state_name((enum board_state)state));
    json_text(&out, "wish",
              board_wish_name(
                  (enum board_wish)atomic_load_explicit(&server->wish, memory_order_relaxed)));
    json_text(&out, "health",
              board_finding_name((enum board_finding)atomic_load_explicit(&server->finding,
                                                                          memory_order_relaxed)));
    json_bool(&out, "rests", rests);
    event_send(master, &out);
}

/* Starting and stopping of an instance is told as that of a child; here it is what became of its
 * service. */
static void
look_at_servers(struct master *master, bool tell)
{
    for (uint32_t i = 0; i < BOARD_SERVERS_MAX; i++) {
        const struct board_server *server = &master->board->servers[i];
        __typeof__(&master->events.servers[0]) seen = &master->events.servers[i];
        uint32_t state = atomic_load_explicit(&server->state, memory_order_acquire);
        if (state == BOARD_FREE) {
            seen->state = BOARD_FREE;
            continue;
        }
        uint32_t life = atomic_load_explicit(&server->life, memory_order_relaxed);
        uint32_t wish = atomic_load_explicit(&server->wish, memory_order_relaxed);
        uint32_t finding = atomic_load_explicit(&server->finding, memory_order_relaxed);
        bool rests = atomic_load_explicit(&server->down_until_ms, memory_order_relaxed) != 0;
        bool changed = seen->state != state || seen->life != life || seen->wish != wish ||
                       seen->finding != finding || seen->rests != rests;
        if (changed && tell) {
            tell_server(master, i, state, rests);
        }
        seen->life = life;
        seen->state = state;
        seen->wish = wish;
        seen->finding = finding;
        seen->rests = rests;
    }
}

static void
look(struct master *master, bool tell)
{
    look_at_master(master, tell);
    look_at_stalls(master, tell);
    look_at_servers(master, tell);
}

static void
on_look(struct ev_loop *loop, ev_timer *timer, int revents)
{
    (void)timer;
    (void)revents;
    look(ev_userdata(loop), true);
}

void
events_look(struct master *master)
{
    if (master->events.listeners > 0) {
        look(master, true);
    }
}

void
events_init(struct master *master)
{
    memset(&master->events, 0, sizeof(master->events));
    ev_timer_init(&master->events.look, on_look, 0., ms_to_seconds(EVENTS_LOOK_MS));
}

void
events_stop(struct master *master)
{
    ev_timer_stop(master->loop, &master->events.look);
}

void
events_listen(struct master *master, int more)
{
    struct events *events = &master->events;

    if (events->listeners == 0) {
        look(master, false); /* the stream begins with changes from now on */
        ev_timer_again(master->loop, &events->look);
    }
    events->listeners = (uint32_t)((int)events->listeners + more);
    if (events->listeners == 0) {
        ev_timer_stop(master->loop, &events->look);
    }
}
