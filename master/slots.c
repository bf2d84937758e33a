/* SPDX-License-Identifier: Apache-2.0
 *
 * Wanted workers against actual ones. The order that loses nobody: the new owner of a lane gets it
 * before the old one is told to let go, and a worker drains only when its lanes are someone
 * else's. Runs in the master.
 */
#include "master/slots.h"

#include <errno.h>
#include <string.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/base/clock.h"
#include "config/base/log.h"
#include "config/config.h"
#include "master/lane_plan.h"
#include "master/master.h"
#include "master/roll_plan.h"
#include "master/worker_child.h"

#define FOR_EACH_SLOT(slot, master)                                                                \
    for (struct slot *slot = (master)->slots.slots;                                                \
         slot < (master)->slots.slots + BOARD_SLOTS_MAX; slot++)

/* How long the lanes of a slot wait for its first worker before a sibling takes them. */
#define FIRST_BOOT_MS 500
/* Deaths in a row of a worker that a roll waits for. */
#define ROLL_DEATHS_MAX 3

static struct worker_child *
worker_from_node(struct list_node *node)
{
    return container_of(node, struct worker_child, node);
}

static void
on_first_boot(struct ev_loop *loop, ev_timer *timer, int revents)
{
    (void)timer;
    (void)revents;
    master_changed(ev_userdata(loop));
}

void
slots_init(struct master *master)
{
    memset(&master->slots, 0, sizeof(master->slots));
    ev_timer_init(&master->slots.first_boot, on_first_boot, 0., 0.);
    FOR_EACH_SLOT(slot, master)
    {
        slot->number = (uint32_t)(slot - master->slots.slots);
        list_init(&slot->leaving);
    }
}

/* Calls act for every worker of the master; act may move the worker between lists, not free it. */
static void
for_each_worker(struct master *master, void (*act)(struct worker_child *worker))
{
    FOR_EACH_SLOT(slot, master)
    {
        LIST_FOR_EACH_SAFE (node, &slot->leaving) {
            act(worker_from_node(node));
        }
        if (slot->serving != NULL) {
            act(slot->serving);
        }
        if (slot->next != NULL) {
            act(slot->next);
        }
    }
}

/* ---- who is wanted --------------------------------------------------------------------------- */

static bool
takes_lanes(const struct worker_child *worker)
{
    return worker != NULL && worker->child.state == CHILD_READY && !worker->leaving;
}

/* The worker is not wanted any more: a process has to leave, a pause simply ends. */
static void
retire(struct slot *slot, struct worker_child *worker)
{
    if (worker == NULL) {
        return;
    }
    if (worker->child.pid == 0) {
        worker_child_free(worker);
        return;
    }
    worker->leaving = true;
    list_push_back(&slot->leaving, &worker->node);
}

static void
fill_slots(struct master *master, uint32_t wanted)
{
    FOR_EACH_SLOT(slot, master)
    {
        if (slot->number >= wanted) {
            retire(slot, slot->serving);
            retire(slot, slot->next);
            slot->serving = NULL;
            slot->next = NULL;
        } else if (slot->serving == NULL && master_may_start(master)) {
            slot->serving = worker_child_new(master, slot);
            worker_child_start(slot->serving);
        }
    }
}

static bool
is_outdated(const struct master *master, const struct worker_child *worker)
{
    return worker != NULL && worker->child.pid != 0 &&
           (worker->epoch != master->slots.epoch || worker->outgrown_serial == master->serial);
}

/* Its place among those that are to be replaced, 0: none. Those of a reload go before those of
 * recycling, which has no end. */
static uint64_t
due_of(struct master *master, const struct slot *slot)
{
    const struct worker_child *worker = slot->serving;

    if (is_outdated(master, worker) && !master->slots.roll_failed) {
        return slot->number + 1;
    }
    /* Recycling waits for the predecessor's end, or under load there were ever more of those that
     * drain. */
    if (!takes_lanes(worker) || !list_is_empty(&slot->leaving)) {
        return 0;
    }
    uint64_t order = recycle_due(master, &worker->recycle, &slot->recycle);
    return order > 0 ? BOARD_SLOTS_MAX + order : 0;
}

static struct roll_step
next_step(struct master *master, uint32_t wanted)
{
    struct roll_slot view[BOARD_SLOTS_MAX];
    struct roll_budget budget = {.surge = (uint32_t)master->config->master.max_surge,
                                 .unavailable = (uint32_t)master->config->master.max_unavailable};

    for (size_t i = 0; i < BOARD_SLOTS_MAX; i++) {
        const struct slot *slot = &master->slots.slots[i];
        view[i] = (struct roll_slot){.is_wanted = i < wanted,
                                     .is_ready = takes_lanes(slot->serving),
                                     .has_successor = slot->next != NULL,
                                     .due = due_of(master, slot)};
    }
    return roll_plan(view, BOARD_SLOTS_MAX, &budget);
}

static void
roll_on(struct master *master, uint32_t wanted)
{
    struct roll_step step = next_step(master, wanted);

    while (step.action != ROLL_NOTHING) {
        struct slot *slot = &master->slots.slots[step.slot];
        if (step.action == ROLL_START_SUCCESSOR) {
            slot->next = worker_child_new(master, slot);
            worker_child_start(slot->next);
        } else {
            slot->retired_first = is_outdated(master, slot->serving);
            retire(slot, slot->serving);
            slot->serving = NULL;
            fill_slots(master, wanted);
        }
        step = next_step(master, wanted);
    }
}

void
slots_roll(struct master *master)
{
    master->slots.epoch++;
    master->slots.roll_failed = false;
    master_changed(master);
}

enum roll_result
slots_roll_state(const struct master *master)
{
    uint32_t wanted = master_wanted_workers(master);

    if (master->slots.roll_failed) {
        return ROLL_FAILED;
    }
    for (size_t i = 0; i < BOARD_SLOTS_MAX; i++) {
        const struct slot *slot = &master->slots.slots[i];
        bool is_missing = slot->serving == NULL ? slot->number < wanted
                                                : slot->serving->child.state == CHILD_STARTING;
        /* A successor counts only where the old one is outdated: recycling never ends. */
        if (is_outdated(master, slot->serving) || (slot->retired_first && is_missing)) {
            return ROLL_RUNNING;
        }
    }
    return ROLL_DONE;
}

void
slot_on_ready(struct master *master, struct worker_child *worker)
{
    struct slot *slot = worker->slot;

    if (worker == slot->next) {
        retire(slot, slot->serving);
        slot->serving = worker;
        slot->next = NULL;
        slot->failed_successors = 0;
        recycle_succeeded(&slot->recycle);
    }
    if (worker == slot->serving) {
        slot->retired_first = false;
    }
    master_changed(master);
}

static bool
any_outdated(const struct master *master)
{
    for (size_t i = 0; i < BOARD_SLOTS_MAX; i++) {
        if (is_outdated(master, master->slots.slots[i].serving)) {
            return true;
        }
    }
    return false;
}

static void
stop_roll(struct master *master, const struct worker_child *worker)
{
    master->slots.roll_failed = true;
    log_error("the replacement of the workers stops: the new %s could not boot; the old workers go "
              "on (its own lines above say why)",
              worker->child.name);
}

/* A reload is the operator's to repeat; recycling goes on by itself, after a pause. */
static void
successor_failed(struct master *master, struct slot *slot, const struct worker_child *successor)
{
    const struct worker_child *old = slot->serving;
    bool old_died = old == NULL || old->child.pid == 0;

    if (!master->slots.roll_failed &&
        (is_outdated(master, old) || (old_died && any_outdated(master)))) {
        stop_roll(master, successor);
    }
    if (takes_lanes(old) && old->recycle.reason != NULL) {
        recycle_failed(master, &old->child, &old->recycle, &slot->recycle);
    }
}

/* Without successors a roll waits for every worker that is missing, so for ever for one that died
 * of something else, gets the new settings, too, and cannot boot with them. */
static bool
holds_up_roll(const struct master *master, const struct worker_child *worker)
{
    return master->config->master.max_surge == 0 && worker->child.ready_since_ms == 0 &&
           worker->slot->respawn.deaths >= ROLL_DEATHS_MAX;
}

void
slot_on_gone(struct master *master, struct worker_child *worker)
{
    struct slot *slot = worker->slot;

    if (worker == slot->next) {
        slot->next = NULL;
        successor_failed(master, slot, worker);
        worker_child_free(worker);
    } else if (worker->leaving) {
        worker_child_free(worker);
    } else if ((slot->retired_first || holds_up_roll(master, worker)) &&
               !master->slots.roll_failed && any_outdated(master)) {
        stop_roll(master, worker);
    }
    master_changed(master);
}

void
slot_on_refused(struct master *master, struct worker_child *worker)
{
    worker->epoch = master->slots.epoch - 1; /* outdated: roll_on() does the rest */
    master_changed(master);
}

void
slots_retry(struct master *master)
{
    FOR_EACH_SLOT(slot, master)
    {
        if (slot->serving != NULL && slot->serving->child.state == CHILD_BACKOFF) {
            slot->respawn = (struct respawn){0};
            child_set_state(&slot->serving->child, CHILD_BACKOFF, 0);
        }
    }
}

/* ---- who serves which lane ------------------------------------------------------------------- */

static void
grow_lanes(struct master *master, uint32_t wanted)
{
    bool is_short = false;

    LIST_FOR_EACH (node, &master->lanes.addresses) {
        struct listen_address *address = listen_address_from(node);
        struct buf error = {0};
        size_t before = address->lane_count;
        if (listen_address_grow(&master->lanes, address, wanted,
                                (int)master->config->master.backlog, &error) != 0) {
            is_short = true;
            if (!master->slots.lanes_short) {
                log_error("a new worker shares the lanes of the others address=%s: %s",
                          address->bound.text, error.ptr);
            }
        }
        if (address->lane_count > before) {
            listen_address_log(address);
        }
        buf_release(&error);
    }
    master->slots.lanes_short = is_short;
}

/* A slot's first worker boots in no time, and nobody served its lane before: siblings would take
 * the lane and give it back at once. Only if the boot takes long, or fails, do they take it. */
static bool
waits_for_first_boot(const struct master *master, const struct lane *lane)
{
    const struct worker_child *worker =
        lane->home < BOARD_SLOTS_MAX ? master->slots.slots[lane->home].serving : NULL;

    return lane->owner == LANE_NOBODY && worker != NULL && worker->generation == 1 &&
           worker->child.state == CHILD_STARTING &&
           clock_mono_ms() - worker->child.started_ms < FIRST_BOOT_MS;
}

static void
wait_for_first_boot(struct master *master)
{
    ev_timer *timer = &master->slots.first_boot;

    if (!ev_is_active(timer)) {
        ev_now_update(master->loop);
        ev_timer_set(timer, ms_to_seconds(FIRST_BOOT_MS), 0.);
        ev_timer_start(master->loop, timer);
    }
}

/* Who can serve lanes: not one that stalls, unless all do. */
static void
find_servers(const struct master *master, bool ret_ready[BOARD_SLOTS_MAX])
{
    bool any = false;

    for (size_t i = 0; i < BOARD_SLOTS_MAX; i++) {
        const struct worker_child *worker = master->slots.slots[i].serving;
        ret_ready[i] = takes_lanes(worker) && !worker->stalled;
        any = any || ret_ready[i];
    }
    for (size_t i = 0; i < BOARD_SLOTS_MAX && !any; i++) {
        ret_ready[i] = takes_lanes(master->slots.slots[i].serving);
    }
}

static void
plan_address(struct master *master, struct listen_address *address)
{
    bool ready[BOARD_SLOTS_MAX];
    uint32_t homes[BOARD_SLOTS_MAX];
    uint32_t owners[BOARD_SLOTS_MAX];

    CHECK(address->lane_count <= BOARD_SLOTS_MAX);
    find_servers(master, ready);
    for (size_t i = 0; i < address->lane_count; i++) {
        homes[i] = address->lanes[i].home;
        owners[i] = address->lanes[i].owner;
    }
    if (address->lane_count > 0 && homes[0] == LANE_SHARED) {
        return;
    }
    lane_plan(homes, address->lane_count, ready, BOARD_SLOTS_MAX, owners);
    for (size_t i = 0; i < address->lane_count; i++) {
        if (waits_for_first_boot(master, &address->lanes[i])) {
            wait_for_first_boot(master);
        } else {
            address->lanes[i].owner = owners[i];
        }
    }
}

/* One that stalls keeps its own lane while a sibling serves it too: it could not let go of it now,
 * and when it moves again it need not be told. */
static bool
shall_serve(const struct worker_child *worker, const struct lane *lane)
{
    return takes_lanes(worker) &&
           (lane->home == LANE_SHARED || lane->owner == worker->slot->number ||
            (worker->stalled && lane->home == worker->slot->number));
}

static void
assign_lanes(struct master *master, struct listen_address *address)
{
    for (size_t i = 0; i < address->lane_count; i++) {
        struct lane *lane = &address->lanes[i];
        FOR_EACH_SLOT(slot, master)
        {
            if (shall_serve(slot->serving, lane) &&
                !worker_child_has_lane(slot->serving, lane->id)) {
                worker_child_assign_lane(slot->serving, lane->id, lane->fd, address->bound.text);
            }
        }
    }
}

static bool
has_server(struct master *master, const struct lane *lane)
{
    if (lane->home != LANE_SHARED) {
        return lane->owner != LANE_NOBODY;
    }
    FOR_EACH_SLOT(slot, master)
    {
        if (takes_lanes(slot->serving)) {
            return true;
        }
    }
    return false;
}

/* A lane stays with a worker that leaves as long as nobody else can take it. */
static void
revoke_from(struct worker_child *worker)
{
    struct master *master = worker->child.master;

    if (worker->lane_count == 0 || worker->child.state != CHILD_READY) {
        return;
    }
    LIST_FOR_EACH (node, &master->lanes.addresses) {
        struct listen_address *address = listen_address_from(node);
        for (size_t i = 0; i < address->lane_count; i++) {
            struct lane *lane = &address->lanes[i];
            if (worker_child_has_lane(worker, lane->id) && !shall_serve(worker, lane) &&
                has_server(master, lane)) {
                worker_child_revoke_lane(worker, lane->id);
            }
        }
    }
}

static void
drain_leaving(struct worker_child *worker)
{
    if (worker->leaving &&
        (worker->child.state == CHILD_READY || worker->child.state == CHILD_STARTING)) {
        worker_child_leave(worker, false);
    }
}

void
slots_reconcile(struct master *master)
{
    uint32_t wanted = master_wanted_workers(master);

    fill_slots(master, wanted);
    roll_on(master, wanted);
    grow_lanes(master, wanted);
    LIST_FOR_EACH (node, &master->lanes.addresses) {
        plan_address(master, listen_address_from(node));
        assign_lanes(master, listen_address_from(node));
    }
    for_each_worker(master, revoke_from);
    for_each_worker(master, drain_leaving);
}

void
slots_revoke_address(struct master *master, struct listen_address *address)
{
    for (size_t i = 0; i < address->lane_count; i++) {
        uint32_t lane = address->lanes[i].id;
        FOR_EACH_SLOT(slot, master)
        {
            if (slot->serving != NULL && worker_child_has_lane(slot->serving, lane)) {
                worker_child_revoke_lane(slot->serving, lane);
            }
            LIST_FOR_EACH (node, &slot->leaving) {
                if (worker_child_has_lane(worker_from_node(node), lane)) {
                    worker_child_revoke_lane(worker_from_node(node), lane);
                }
            }
        }
    }
}

/* ---- settings and logs ----------------------------------------------------------------------- */

static bool
is_listening_to_us(const struct worker_child *worker)
{
    return worker->child.state == CHILD_STARTING || worker->child.state == CHILD_READY ||
           worker->child.state == CHILD_DRAINING;
}

static void
send_settings(struct worker_child *worker)
{
    /* One that leaves finishes with the settings it has. */
    if (is_listening_to_us(worker) && !worker->leaving) {
        worker_child_send_settings(worker);
    }
}

void
slots_send_settings(struct master *master)
{
    for_each_worker(master, send_settings);
}

static void
send_logs(struct worker_child *worker)
{
    if (is_listening_to_us(worker)) {
        worker_child_send_logs(worker);
    }
}

void
slots_send_logs(struct master *master)
{
    for_each_worker(master, send_logs);
}

struct worker_child *
slots_canary(const struct master *master)
{
    struct worker_child *slow = NULL;

    for (size_t i = 0; i < BOARD_SLOTS_MAX; i++) {
        struct worker_child *worker = master->slots.slots[i].serving;
        if (!takes_lanes(worker) || is_outdated(master, worker)) {
            continue;
        }
        if (!worker->stalled) {
            return worker;
        }
        slow = worker;
    }
    return slow; /* all of them stall: it will answer late, if at all */
}

static bool
owes_an_answer(const struct master *master, const struct worker_child *worker)
{
    return takes_lanes(worker) && !worker->foreign && worker->applied_serial < master->serial &&
           worker->refused_serial != master->serial;
}

bool
slots_settings_applied(const struct master *master)
{
    for (size_t i = 0; i < BOARD_SLOTS_MAX; i++) {
        if (owes_an_answer(master, master->slots.slots[i].serving)) {
            return false;
        }
    }
    return true;
}

void
slots_replace_unapplied(struct master *master)
{
    FOR_EACH_SLOT(slot, master)
    {
        struct worker_child *worker = slot->serving;
        if (owes_an_answer(master, worker)) {
            log_error("%s did not take the new settings over in time and is replaced pid=%d "
                      "([master] timeout)",
                      worker->child.name, (int)worker->child.pid);
            child_abort(&worker->child, "settings not applied");
        }
    }
}

static uint64_t
older_serial(const struct worker_child *worker, uint64_t serial)
{
    bool lives = worker != NULL && worker->child.pid != 0;

    return lives && worker->applied_serial < serial ? worker->applied_serial : serial;
}

uint64_t
slots_oldest_serial(const struct master *master)
{
    uint64_t oldest = master->serial;

    for (size_t i = 0; i < BOARD_SLOTS_MAX; i++) {
        const struct slot *slot = &master->slots.slots[i];
        oldest = older_serial(slot->serving, oldest);
        oldest = older_serial(slot->next, oldest);
        LIST_FOR_EACH (node, &slot->leaving) {
            oldest = older_serial(worker_from_node(node), oldest);
        }
    }
    return oldest;
}

int
slots_drain(struct master *master, int64_t number, struct buf *error)
{
    uint32_t wanted = master_wanted_workers(master);

    if (master->phase != MASTER_RUNNING || master->paused) {
        buf_addf(error, "no worker is drained: narwhal is %s",
                 master->paused ? "paused, its workers drain already" : "stopping");
        return -EBUSY;
    }
    if (number < 0 || number >= (int64_t)wanted) {
        buf_addf(error, "there is no worker slot %lld: they are 0 to %u", (long long)number,
                 wanted - 1);
        return -ENOENT;
    }
    struct slot *slot = &master->slots.slots[number];
    if (!takes_lanes(slot->serving)) {
        buf_addf(error, "slot %lld has no worker that serves: %s", (long long)number,
                 slot->serving != NULL ? child_state_name(slot->serving->child.state) : "none");
        return -EAGAIN;
    }
    slot->recycle.pause_until_ms = 0; /* an order does not wait for what was tried before */
    recycle_mark(master, &slot->serving->child, &slot->serving->recycle, "narwhalctl drain");
    master_changed(master);
    return 0;
}

uint32_t
slots_outdated_count(const struct master *master)
{
    uint32_t count = 0;

    for (size_t i = 0; i < BOARD_SLOTS_MAX; i++) {
        count += is_outdated(master, master->slots.slots[i].serving) ? 1 : 0;
    }
    return count;
}

/* ---- counting and the end -------------------------------------------------------------------- */

uint32_t
slots_ready_count(const struct master *master)
{
    uint32_t count = 0;

    for (size_t i = 0; i < BOARD_SLOTS_MAX; i++) {
        count += takes_lanes(master->slots.slots[i].serving) ? 1 : 0;
    }
    return count;
}

bool
slots_any_left(const struct master *master)
{
    for (size_t i = 0; i < BOARD_SLOTS_MAX; i++) {
        const struct slot *slot = &master->slots.slots[i];
        if (slot->serving != NULL || slot->next != NULL || !list_is_empty(&slot->leaving)) {
            return true;
        }
    }
    return false;
}

static void
leave_gracefully(struct worker_child *worker)
{
    worker_child_leave(worker, false);
}

static void
leave_quickly(struct worker_child *worker)
{
    worker_child_leave(worker, true);
}

void
slots_stop(struct master *master, bool quick)
{
    FOR_EACH_SLOT(slot, master)
    {
        retire(slot, slot->serving);
        retire(slot, slot->next);
        slot->serving = NULL;
        slot->next = NULL;
    }
    /* With their lanes: nobody else could take them, so they accept what is queued. */
    for_each_worker(master, quick ? leave_quickly : leave_gracefully);
}

void
slots_release(struct master *master)
{
    ev_timer_stop(master->loop, &master->slots.first_boot);
    FOR_EACH_SLOT(slot, master)
    {
        worker_child_free(slot->serving);
        worker_child_free(slot->next);
        slot->serving = NULL;
        slot->next = NULL;
        LIST_FOR_EACH_SAFE (node, &slot->leaving) {
            worker_child_free(worker_from_node(node));
        }
    }
}
