/* SPDX-License-Identifier: Apache-2.0
 *
 * Wanted instances against actual ones. A serving instance is touched only when its successor is
 * READY, one at a time in each application; a successor that fails leaves everything as it was.
 * Runs in the master.
 */
#include "master/apps.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/base/log.h"
#include "config/config.h"
#include "master/instance.h"
#include "master/master.h"

/* Quick stop: what an instance may take between SIGTERM and SIGKILL. */
#define QUICK_STOP_MS 2000

static struct app *
app_from(struct list_node *node)
{
    return container_of(node, struct app, node);
}

static struct instance *
instance_from_node(struct list_node *node)
{
    return container_of(node, struct instance, node);
}

void
apps_init(struct master *master)
{
    list_init(&master->apps.apps);
}

/* ---- the set of applications ----------------------------------------------------------------- */

int
apps_prepare(struct master *master, const struct config *config, struct buf *error)
{
    for (size_t i = 0; i < config->backend_count; i++) {
        if (config->backends[i].command != NULL) {
            return runtime_dir_ensure(&master->runtime_dir, config, &master->identity, error);
        }
    }
    return 0;
}

static struct app *
app_find(struct master *master, const char *name)
{
    LIST_FOR_EACH (node, &master->apps.apps) {
        if (strcmp(app_from(node)->name, name) == 0) {
            return app_from(node);
        }
    }
    return NULL;
}

static struct app *
app_new(struct master *master, const char *name)
{
    struct app *app = xcalloc(1, sizeof(*app));

    app->master = master;
    app->name = xstrdup(name);
    list_init(&app->node);
    list_push_back(&master->apps.apps, &app->node);
    return app;
}

static struct instance_slot *
add_slot(struct app *app)
{
    struct instance_slot *slot = xcalloc(1, sizeof(*slot));

    slot->app = app;
    slot->number = (uint32_t)app->slot_count;
    list_init(&slot->leaving);
    for (size_t half = 0; half < INSTANCE_HALVES; half++) {
        slot->listeners[half].fd = -1;
    }
    app->slots = xrealloc(app->slots, (app->slot_count + 1) * sizeof(struct instance_slot *));
    app->slots[app->slot_count++] = slot;
    return slot;
}

struct app *
app_restore(struct master *master, const char *name)
{
    struct app *app = app_new(master, name);

    app->restored = true;
    return app;
}

struct instance_slot *
app_restore_slot(struct app *app)
{
    return add_slot(app);
}

static void
app_take_settings(struct app *app, const struct backend_settings *settings)
{
    app->settings = settings;
    app->wanted = (uint32_t)settings->instances;
    if (!app->restored) {
        app->generation++;
        app->roll_failed = false;
    }
    app->restored = false;
    while (app->slot_count < app->wanted) {
        (void)add_slot(app);
    }
    for (uint32_t i = 0; i < app->wanted; i++) {
        for (uint32_t half = 0; half < INSTANCE_HALVES; half++) {
            app->slots[i]->records[half] =
                settings->records[server_registry_instance_record(i, half)];
        }
    }
}

static bool
slot_is_empty(const struct instance_slot *slot)
{
    return slot->serving == NULL && slot->next == NULL && list_is_empty(&slot->leaving);
}

static void
slot_close_listener(struct instance_slot *slot, uint32_t half)
{
    if (slot->listeners[half].fd != -1) {
        unix_listener_close(&slot->listeners[half]);
    }
}

static void
slot_close_listeners(struct instance_slot *slot)
{
    for (uint32_t half = 0; half < INSTANCE_HALVES; half++) {
        slot_close_listener(slot, half);
    }
}

static void
app_free(struct app *app)
{
    for (size_t i = 0; i < app->slot_count; i++) {
        slot_close_listeners(app->slots[i]);
        free(app->slots[i]);
    }
    list_remove(&app->node);
    free(app->slots);
    free(app->why);
    free(app->name);
    free(app);
}

/* ---- one slot -------------------------------------------------------------------------------- */

/* A place that nobody uses, or INSTANCE_HALVES. */
static uint32_t
free_half(const struct instance_slot *slot)
{
    bool used[INSTANCE_HALVES] = {false};

    if (slot->serving != NULL) {
        used[slot->serving->half] = true;
    }
    if (slot->next != NULL) {
        used[slot->next->half] = true;
    }
    LIST_FOR_EACH (node, &slot->leaving) {
        used[instance_from_node(node)->half] = true;
    }
    for (uint32_t half = 0; half < INSTANCE_HALVES; half++) {
        if (!used[half]) {
            return half;
        }
    }
    return INSTANCE_HALVES;
}

static void
retire(struct instance_slot *slot, struct instance *instance)
{
    if (instance == NULL) {
        return;
    }
    if (instance->child.pid == 0) {
        instance_free(instance);
        return;
    }
    list_push_back(&slot->leaving, &instance->node);
    instance_retire(instance);
}

static void
empty_slot(struct instance_slot *slot)
{
    retire(slot, slot->serving);
    retire(slot, slot->next);
    slot->serving = NULL;
    slot->next = NULL;
    if (slot_is_empty(slot)) {
        slot_close_listeners(slot);
    }
}

static void
empty_unwanted_slots(struct app *app)
{
    for (size_t i = app->wanted; i < app->slot_count; i++) {
        empty_slot(app->slots[i]);
    }
}

/* Its instances leave now, not when the loop comes round: a pause may end in this very turn, and
 * there are no settings any more to start an instance with. */
static void
app_remove(struct app *app)
{
    app->settings = NULL;
    app->wanted = 0;
    app->is_ahead = false;
    empty_unwanted_slots(app);
}

static const struct backend_settings *
find_command(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->backend_count; i++) {
        const struct backend_settings *settings = &config->backends[i];
        if (settings->command != NULL && strcmp(settings->name, name) == 0) {
            return settings;
        }
    }
    return NULL;
}

void
apps_commit(struct master *master)
{
    const struct config *config = master->config;

    LIST_FOR_EACH (node, &master->apps.apps) {
        struct app *app = app_from(node);
        if (find_command(config, app->name) == NULL) {
            app_remove(app);
        }
    }
    for (size_t i = 0; i < config->backend_count; i++) {
        const struct backend_settings *settings = &config->backends[i];
        if (settings->command == NULL) {
            continue;
        }
        struct app *app = app_find(master, settings->name);
        if (app != NULL && app->is_ahead) {
            CHECK(app->settings == settings);
            app->is_ahead = false;
        } else {
            app_take_settings(app != NULL ? app : app_new(master, settings->name), settings);
            empty_unwanted_slots(app_find(master, settings->name));
        }
    }
    master_changed(master);
}

/* ---- before settings are in use -------------------------------------------------------------- */

bool
apps_start_ahead(struct master *master, const struct config *config)
{
    bool any = false;

    for (size_t i = 0; i < config->backend_count; i++) {
        const struct backend_settings *settings = &config->backends[i];
        if (settings->command != NULL && app_find(master, settings->name) == NULL) {
            struct app *app = app_new(master, settings->name);
            app->is_ahead = true;
            app_take_settings(app, settings);
            any = true;
        }
    }
    master_changed(master);
    return any;
}

int
apps_restart(struct master *master, const char *name, uint64_t *ret_generation, struct buf *error)
{
    struct app *app = app_find(master, name);

    if (master->phase != MASTER_RUNNING) {
        buf_add_text(error, "no restart: narwhal is stopping");
        return -EBUSY;
    }
    if (app == NULL || app->settings == NULL || app->is_ahead) {
        buf_addf(error,
                 "there is no backend %.60s with a command: narwhal restarts only what it has "
                 "started (narwhalctl backends shows all)",
                 name);
        return -ENOENT;
    }
    app->generation++;
    app->roll_failed = false;
    *ret_generation = app->generation;
    master_changed(master);
    return 0;
}

static enum apps_ahead
app_ahead_state(const struct app *app, char **ret_why)
{
    enum apps_ahead result = AHEAD_BOOTING;

    for (uint32_t i = 0; i < app->wanted; i++) {
        const struct instance *instance = app->slots[i]->serving;
        if (instance == NULL) {
            continue;
        }
        if (instance->child.state == CHILD_READY) {
            result = AHEAD_READY;
        } else if (instance->child.state != CHILD_STARTING) {
            const char *words = instance_last_words(instance);
            *ret_why = xasprintf("the new %s of backend=%s did not become READY%s%s",
                                 instance->child.name, app->name, words != NULL ? ": " : "",
                                 words != NULL ? words : "; its lines above say why");
            return AHEAD_FAILED;
        }
    }
    return result;
}

enum apps_ahead
apps_ahead_state(const struct master *master, char **ret_why)
{
    enum apps_ahead result = AHEAD_READY;

    LIST_FOR_EACH (node, &master->apps.apps) {
        const struct app *app = app_from(node);
        enum apps_ahead state = app->is_ahead ? app_ahead_state(app, ret_why) : AHEAD_READY;
        if (state == AHEAD_FAILED) {
            return state;
        }
        result = state < result ? state : result;
    }
    return result;
}

void
apps_cancel_ahead(struct master *master)
{
    LIST_FOR_EACH (node, &master->apps.apps) {
        if (app_from(node)->is_ahead) {
            app_remove(app_from(node));
        }
    }
    master_changed(master);
}

static bool
is_outdated(const struct instance_slot *slot)
{
    return slot->serving != NULL && slot->serving->generation != slot->app->generation;
}

/* An outdated instance that does not serve is not worth waiting for. */
static void
refresh_unready(struct instance_slot *slot)
{
    struct instance *instance = slot->serving;

    if (!is_outdated(slot)) {
        return;
    }
    if (instance->child.state == CHILD_BACKOFF) {
        slot->respawn = (struct respawn){0};
        instance->generation = slot->app->generation;
        child_set_state(&instance->child, CHILD_BACKOFF, 0);
    } else if (instance->child.state == CHILD_STARTING) {
        retire(slot, instance);
        slot->serving = NULL;
    }
}

static void
fill_slot(struct instance_slot *slot)
{
    uint32_t half;

    refresh_unready(slot);
    if (slot->serving != NULL) {
        return;
    }
    half = free_half(slot);
    if (half < INSTANCE_HALVES && master_may_start(slot->app->master)) {
        slot->serving = instance_new(slot, half);
        instance_start(slot->serving);
    }
}

/* ---- replacing ------------------------------------------------------------------------------- */

/* Its place among those that are due, 0: none. Those of a reload go before those of recycling. */
static uint64_t
due_of(struct instance_slot *slot)
{
    const struct instance *instance = slot->serving;

    if (instance == NULL || instance->child.state != CHILD_READY) {
        return 0;
    }
    if (is_outdated(slot) && !slot->app->roll_failed) {
        return slot->number + 1;
    }
    uint64_t order = recycle_due(slot->app->master, &instance->recycle, &slot->recycle);
    return order > 0 ? UINT32_MAX + order : 0;
}

/* One at a time. NULL: none is due, or their places are not free: the predecessors still leave, and
 * their ends come back here. */
static struct instance_slot *
first_due(struct app *app)
{
    struct instance_slot *first = NULL;
    uint64_t first_order = UINT64_MAX;

    for (uint32_t i = 0; i < app->wanted; i++) {
        struct instance_slot *slot = app->slots[i];
        uint64_t order = due_of(slot);
        if (order > 0 && order < first_order && free_half(slot) < INSTANCE_HALVES) {
            first = slot;
            first_order = order;
        }
    }
    return first;
}

static void
roll_on(struct app *app)
{
    bool outdated = false;

    for (uint32_t i = 0; i < app->wanted; i++) {
        if (app->slots[i]->next != NULL) {
            return;
        }
    }
    for (uint32_t i = 0; i < app->wanted && !app->roll_failed; i++) {
        const struct instance_slot *slot = app->slots[i];
        outdated = outdated || (is_outdated(slot) && slot->serving->child.state == CHILD_READY);
    }
    app->rolling = app->rolling || outdated;
    struct instance_slot *slot = first_due(app);
    if (slot != NULL) {
        slot->next = instance_new(slot, free_half(slot));
        instance_start(slot->next);
    }
    if (app->rolling && !outdated) {
        app->rolling = false;
        if (!app->roll_failed) {
            log_info("instances replaced backend=%s instances=%u", app->name, app->wanted);
        }
    }
}

void
app_on_ready(struct instance *instance)
{
    struct instance_slot *slot = instance->slot;

    if (instance == slot->next) {
        /* READY before the old one stops being it, so that there is always one to choose. */
        struct instance *old = slot->serving;
        slot->serving = instance;
        slot->next = NULL;
        slot->failed_successors = 0;
        recycle_succeeded(&slot->recycle);
        retire(slot, old);
    }
    master_changed(instance->child.master);
}

/* A reload is the operator's to repeat; recycling goes on by itself, after a pause. */
static void
successor_failed(struct instance_slot *slot, const struct instance *successor)
{
    struct instance *old = slot->serving;

    if (old != NULL && old->child.state == CHILD_READY && old->recycle.reason != NULL &&
        (!is_outdated(slot) || slot->app->roll_failed)) {
        recycle_failed(slot->app->master, &old->child, &old->recycle, &slot->recycle);
        return;
    }
    slot->app->roll_failed = true;
    log_error("the new %s did not become READY: the old one goes on, and so do all others of "
              "backend=%s; correct it and reload again",
              successor->child.name, slot->app->name);
    const char *words = instance_last_words(successor);
    free(slot->app->why);
    slot->app->why = xasprintf("the new %s did not become READY: %s", successor->child.name,
                               words != NULL ? words : "its lines in the log say why");
}

void
app_on_gone(struct instance *instance)
{
    struct instance_slot *slot = instance->slot;
    struct master *master = instance->child.master;

    if (instance == slot->next) {
        slot->next = NULL;
        successor_failed(slot, instance);
        instance_free(instance);
    } else if (instance->leaving) {
        /* Its successor has the other socket. Requests that still wait in the queue of this one
         * would wait for nobody; now their workers learn it and ask another instance. */
        slot_close_listener(slot, instance->half);
        instance_free(instance);
    }
    master_changed(master);
}

/* ---- all of them ----------------------------------------------------------------------------- */

static void
app_reconcile(struct app *app)
{
    for (uint32_t i = 0; i < app->wanted; i++) {
        fill_slot(app->slots[i]);
    }
    empty_unwanted_slots(app);
    roll_on(app);
}

static bool
app_is_empty(const struct app *app)
{
    for (size_t i = 0; i < app->slot_count; i++) {
        if (!slot_is_empty(app->slots[i])) {
            return false;
        }
    }
    return true;
}

void
apps_reconcile(struct master *master)
{
    LIST_FOR_EACH_SAFE (node, &master->apps.apps) {
        struct app *app = app_from(node);
        app_reconcile(app);
        if (app->wanted == 0 && app_is_empty(app)) {
            app_free(app);
        }
    }
}

static void
stop_slot(struct instance_slot *slot, int64_t timeout_ms)
{
    struct instance *both[] = {slot->serving, slot->next};

    slot->serving = NULL;
    slot->next = NULL;
    for (size_t i = 0; i < sizeof(both) / sizeof(both[0]); i++) {
        if (both[i] != NULL && both[i]->child.pid == 0) {
            instance_free(both[i]);
        } else if (both[i] != NULL) {
            list_push_back(&slot->leaving, &both[i]->node);
        }
    }
    LIST_FOR_EACH (node, &slot->leaving) {
        instance_stop(instance_from_node(node), timeout_ms);
    }
}

void
apps_stop(struct master *master, bool quick)
{
    int64_t timeout_ms = quick ? QUICK_STOP_MS : master->config->master.graceful_timeout_ms;

    LIST_FOR_EACH (node, &master->apps.apps) {
        struct app *app = app_from(node);
        app->wanted = 0;
        for (size_t i = 0; i < app->slot_count; i++) {
            stop_slot(app->slots[i], timeout_ms);
        }
    }
}

bool
apps_any_left(const struct master *master)
{
    LIST_FOR_EACH (node, &master->apps.apps) {
        if (!app_is_empty(app_from(node))) {
            return true;
        }
    }
    return false;
}

void
apps_release(struct master *master)
{
    LIST_FOR_EACH_SAFE (node, &master->apps.apps) {
        CHECK(app_is_empty(app_from(node)));
        app_free(app_from(node));
    }
}
