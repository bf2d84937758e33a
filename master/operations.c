/* SPDX-License-Identifier: Apache-2.0
 *
 *   begin ──► RUNNING ──aim reached──► DONE
 *                └──────refused, superseded, no longer possible──► FAILED
 *
 * Most ends are found by looking at what is: operations_reconcile() compares as master_reconcile()
 * does, so nobody has to remember to tell. Only what leaves no trace is told: why a reload, an
 * upgrade or a successor failed. Runs in the master.
 */
#include "master/operations.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/base/clock.h"
#include "config/base/log.h"
#include "config/config.h"
#include "master/events.h"
#include "master/instance.h"
#include "master/json.h"
#include "master/master.h"
#include "master/state.h"
#include "master/worker_child.h"

#define TEXT_MAX 512
/* Deaths in a row of a worker that scale waits for. */
#define SCALE_DEATHS_MAX 3

static const char *const kind_names[OPERATION_KIND_COUNT] = {
#define OPERATION_KIND_WORD(name, word) [OPERATION_##name] = word,
    OPERATION_KINDS(OPERATION_KIND_WORD)
#undef OPERATION_KIND_WORD
};

static const char *const state_names[OPERATION_STATE_COUNT] = {[OPERATION_FREE] = "free",
                                                               [OPERATION_RUNNING] = "running",
                                                               [OPERATION_DONE] = "done",
                                                               [OPERATION_FAILED] = "failed"};

const char *
operation_kind_name(enum operation_kind kind)
{
    return kind_names[kind];
}

const char *
operation_state_name(enum operation_state state)
{
    return state_names[state];
}

#define FOR_EACH_OPERATION(operation, master)                                                      \
    for (struct operation *operation = (master)->operations.ring;                                  \
         operation < (master)->operations.ring + OPERATIONS_MAX; operation++)

/* ---- the ring -------------------------------------------------------------------------------- */

/* Whether a gives way before b. */
static bool
gives_way(const struct operation *a, const struct operation *b)
{
    bool a_runs = a->state == OPERATION_RUNNING;
    bool b_runs = b->state == OPERATION_RUNNING;

    return a_runs != b_runs ? b_runs : a->number < b->number;
}

struct operation *
operation_begin(struct master *master, enum operation_kind kind, const char *subject)
{
    struct operation *place = master->operations.ring;

    FOR_EACH_OPERATION(operation, master)
    {
        if (gives_way(operation, place)) {
            place = operation;
        }
    }
    free(place->text);
    *place = (struct operation){.number = ++master->operations.last,
                                .kind = kind,
                                .state = OPERATION_RUNNING,
                                .began_ms = clock_mono_ms()};
    (void)snprintf(place->subject, sizeof(place->subject), "%s", subject);
    events_operation(master, place);
    master_changed(master);
    return place;
}

static void
end(struct master *master, struct operation *operation, enum operation_state state,
    const char *text)
{
    operation->state = state;
    operation->ended_ms = clock_mono_ms();
    operation->text = xstrdup(text);
    events_operation(master, operation);
}

void
operation_end(struct master *master, uint64_t number, enum operation_state state, const char *text)
{
    FOR_EACH_OPERATION(operation, master)
    {
        if (operation->number == number && operation->state == OPERATION_RUNNING) {
            end(master, operation, state, text);
        }
    }
}

void
operation_note_settings(struct master *master, uint64_t number, uint64_t serial, size_t changes)
{
    FOR_EACH_OPERATION(operation, master)
    {
        if (operation->number == number && operation->state == OPERATION_RUNNING) {
            operation->target = (int64_t)serial;
            operation->mark = (int64_t)changes;
            master_changed(master);
        }
    }
}

void
operations_fail_upgrade(struct master *master, const char *text)
{
    FOR_EACH_OPERATION(operation, master)
    {
        if (operation->state == OPERATION_RUNNING && operation->kind == OPERATION_UPGRADE) {
            end(master, operation, OPERATION_FAILED, text);
        }
    }
}

void
operations_cancel(struct master *master)
{
    FOR_EACH_OPERATION(operation, master)
    {
        if (operation->state == OPERATION_RUNNING) {
            end(master, operation, OPERATION_FAILED, "narwhal is stopping");
        }
    }
}

const struct operation *
operation_find(const struct master *master, uint64_t number)
{
    for (size_t i = 0; i < OPERATIONS_MAX; i++) {
        const struct operation *operation = &master->operations.ring[i];
        if (operation->state != OPERATION_FREE && operation->number == number) {
            return operation;
        }
    }
    return NULL;
}

void
operations_release(struct master *master)
{
    FOR_EACH_OPERATION(operation, master)
    {
        free(operation->text);
    }
    memset(&master->operations, 0, sizeof(master->operations));
}

/* ---- what is, against what was ordered ------------------------------------------------------- */

/* Where an operation stands: text says how far it is, or what came of it. */
struct finding {
    enum operation_state state;
    char text[TEXT_MAX];
};

static void find(struct finding *finding, enum operation_state state, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void
find(struct finding *finding, enum operation_state state, const char *format, ...)
{
    va_list args;

    finding->state = state;
    va_start(args, format);
    (void)vsnprintf(finding->text, sizeof(finding->text), format, args);
    va_end(args);
}

static const struct app *
app_named(const struct master *master, const char *name)
{
    LIST_FOR_EACH (node, &master->apps.apps) {
        const struct app *app = container_of(node, struct app, node);
        if (strcmp(app->name, name) == 0 && app->settings != NULL && !app->is_ahead) {
            return app;
        }
    }
    return NULL;
}

/* How many instances of an application are as new as generation. */
struct replaced {
    uint32_t done;
    uint32_t wanted;
};

/* Adds those of app. False, with the finding, when one of them cannot be replaced. */
static bool
count_replaced(const struct app *app, uint64_t generation, struct replaced *count,
               struct finding *finding)
{
    static const char see[] = "its lines in the log say why";

    if (app->roll_failed) {
        find(finding, OPERATION_FAILED, "the old instances of backend %s go on: %.400s", app->name,
             app->why != NULL ? app->why : see);
        return false;
    }
    count->wanted += app->wanted;
    for (uint32_t i = 0; i < app->wanted; i++) {
        const struct instance_slot *slot = app->slots[i];
        const struct instance *instance = slot->serving;
        if (instance == NULL || instance->generation < generation) {
            continue;
        }
        if (instance->child.state == CHILD_READY) {
            count->done++;
        } else if (instance->child.state == CHILD_BACKOFF && slot->respawn.deaths > 0) {
            const char *words = instance_last_words(instance);
            find(finding, OPERATION_FAILED, "%s does not become READY: %.400s",
                 instance->child.name, words != NULL ? words : see);
            return false;
        }
    }
    return true;
}

static void
look_at_restart(const struct master *master, const struct operation *operation,
                struct finding *finding)
{
    const struct app *app = app_named(master, operation->subject);
    struct replaced count = {0};

    if (app == NULL) {
        find(finding, OPERATION_FAILED,
             "backend %s is no longer in the settings, or has no command", operation->subject);
    } else if (count_replaced(app, (uint64_t)operation->mark, &count, finding)) {
        find(finding, count.done == count.wanted ? OPERATION_DONE : OPERATION_RUNNING,
             "%" PRIu32 " of %" PRIu32 " instances are new", count.done, count.wanted);
    }
}

static uint32_t
processes_in(const struct slot *slot)
{
    uint32_t count = 0;

    count += slot->serving != NULL && slot->serving->child.pid != 0;
    count += slot->next != NULL && slot->next->child.pid != 0;
    LIST_FOR_EACH (node, &slot->leaving) {
        count += container_of(node, struct worker_child, node)->child.pid != 0;
    }
    return count;
}

/* A worker that is wanted dies again and again before it is READY: that is what came of it. */
static bool
find_hopeless_worker(const struct master *master, uint32_t wanted, struct finding *finding)
{
    for (uint32_t i = 0; i < wanted; i++) {
        const struct slot *slot = &master->slots.slots[i];
        if (slot->serving != NULL && slot->serving->child.state == CHILD_BACKOFF &&
            slot->respawn.deaths >= SCALE_DEATHS_MAX) {
            find(
                finding, OPERATION_FAILED,
                "%s does not become READY; narwhal goes on trying (narwhalctl deaths, and the log)",
                slot->serving->child.name);
            return true;
        }
    }
    return false;
}

static void
look_at_scale(const struct master *master, const struct operation *operation,
              struct finding *finding)
{
    uint32_t wanted = master_wanted_workers(master);
    uint32_t ready = slots_ready_count(master);
    uint32_t leaving = 0;

    if (operation->target != (int64_t)wanted) {
        find(finding, OPERATION_FAILED,
             "another order came meanwhile: %" PRIu32 " workers are wanted", wanted);
        return;
    }
    if (find_hopeless_worker(master, wanted, finding)) {
        return;
    }
    for (uint32_t i = wanted; i < BOARD_SLOTS_MAX; i++) {
        leaving += processes_in(&master->slots.slots[i]);
    }
    if (ready == wanted && leaving == 0) {
        find(finding, OPERATION_DONE, "%" PRIu32 " workers serve", ready);
    } else {
        find(finding, OPERATION_RUNNING,
             "%" PRIu32 " of %" PRIu32 " workers are READY, %" PRIu32 " finish their requests",
             ready, wanted, leaving);
    }
}

static bool
is_in_slot(const struct slot *slot, int64_t pid)
{
    if ((slot->serving != NULL && slot->serving->child.pid == pid) ||
        (slot->next != NULL && slot->next->child.pid == pid)) {
        return true;
    }
    LIST_FOR_EACH (node, &slot->leaving) {
        if (container_of(node, struct worker_child, node)->child.pid == pid) {
            return true;
        }
    }
    return false;
}

static void
look_at_drain(const struct master *master, const struct operation *operation,
              struct finding *finding)
{
    const struct slot *slot = &master->slots.slots[operation->target];
    const struct worker_child *serving = slot->serving;
    int pid = (int)operation->mark;

    if (serving != NULL && serving->child.pid == pid && serving->child.state == CHILD_READY) {
        if (slot->recycle.failed > operation->failures) {
            find(finding, OPERATION_FAILED,
                 "the successor did not become READY: the old worker goes on pid=%d, and narwhal "
                 "tries again (the log says why)",
                 pid);
        } else {
            find(finding, OPERATION_RUNNING, "%s",
                 slot->next != NULL ? "its successor boots" : "it waits for its turn");
        }
        return;
    }
    if (is_in_slot(slot, pid)) {
        find(finding, OPERATION_RUNNING, "the old worker finishes its requests pid=%d", pid);
    } else if (operation->target >= (int64_t)master_wanted_workers(master)) {
        find(finding, OPERATION_DONE, "the worker left, and no other is wanted in its slot");
    } else if (serving != NULL && serving->child.state == CHILD_READY) {
        find(finding, OPERATION_DONE, "replaced pid=%d by pid=%d", pid, (int)serving->child.pid);
    } else if (serving != NULL && serving->child.state == CHILD_BACKOFF &&
               slot->respawn.deaths >= SCALE_DEATHS_MAX) {
        find(finding, OPERATION_FAILED,
             "the old worker is gone and no new one becomes READY; narwhal goes on trying "
             "(narwhalctl deaths, and the log)");
    } else {
        find(finding, OPERATION_RUNNING, "the new worker boots");
    }
}

static void
say_in_use(const struct operation *operation, struct finding *finding)
{
    char why[TEXT_MAX];

    memcpy(why, finding->text, sizeof(why));
    find(finding, OPERATION_FAILED, "settings %" PRId64 " are in use, but %.420s",
         operation->target, why);
}

/* A reload is how new code of applications is deployed: whoever waits for it wants to know whether
 * the code runs. It also ends a pause, and the workers come back. */
static void
look_behind_reload(const struct master *master, const struct operation *operation,
                   struct finding *finding)
{
    uint32_t wanted = master_wanted_workers(master);
    uint32_t ready = slots_ready_count(master);
    struct replaced count = {0};

    if (find_hopeless_worker(master, wanted, finding)) {
        say_in_use(operation, finding);
        return;
    }
    LIST_FOR_EACH (node, &master->apps.apps) {
        const struct app *app = container_of(node, struct app, node);
        if (app->settings != NULL && !app->is_ahead &&
            !count_replaced(app, app->generation, &count, finding)) {
            say_in_use(operation, finding);
            return;
        }
    }
    if (ready < wanted) {
        find(finding, OPERATION_RUNNING, "%" PRIu32 " of %" PRIu32 " workers are READY", ready,
             wanted);
    } else if (count.done < count.wanted) {
        find(finding, OPERATION_RUNNING, "%" PRIu32 " of %" PRIu32 " instances are new", count.done,
             count.wanted);
    } else {
        find(finding, OPERATION_DONE, "settings %" PRId64 " are in use, changes: %" PRId64,
             operation->target, operation->mark);
    }
}

static void
look_at_reload(const struct master *master, const struct operation *operation,
               struct finding *finding)
{
    if (operation->target > 0) {
        look_behind_reload(master, operation, finding);
        return;
    }
    if (operation->number != master->reload.operation) {
        find(finding, OPERATION_RUNNING, "it waits for the end of the reload before it");
        return;
    }
    switch (master->reload.state) {
    case RELOAD_STARTING:
        find(finding, OPERATION_RUNNING, "the applications of new backends boot");
        return;
    case RELOAD_TRYING:
        find(finding, OPERATION_RUNNING, "one worker tries the settings");
        return;
    case RELOAD_APPLYING:
        find(finding, OPERATION_RUNNING, "the workers take the settings over, %" PRIu32 " are old",
             slots_outdated_count(master));
        return;
    case RELOAD_IDLE:
        break;
    }
    find(finding, OPERATION_RUNNING, "it begins");
}

static void
look_at_upgrade(const struct master *master, struct finding *finding)
{
    switch (master->upgrade.state) {
    case UPGRADE_WAITING:
        find(finding, OPERATION_RUNNING, "it waits for the end of a reload");
        return;
    case UPGRADE_CHECKING:
        find(finding, OPERATION_RUNNING, "the new program is tried");
        return;
    case UPGRADE_CHECKED:
    case UPGRADE_LEAVING:
        find(finding, OPERATION_RUNNING, "the new program takes over");
        return;
    case UPGRADE_IDLE:
        break;
    }
    /* This is the new program: the old one would have told why it was refused. */
    switch (slots_roll_state(master)) {
    case ROLL_RUNNING:
        find(finding, OPERATION_RUNNING,
             "narwhal " NARWHAL_VERSION " has taken over, %" PRIu32 " workers are old",
             slots_outdated_count(master));
        return;
    case ROLL_FAILED:
        find(finding, OPERATION_FAILED,
             "narwhal " NARWHAL_VERSION " has taken over, but a new worker could not boot: the old "
             "workers go on; the log says why, and a reload tries again");
        return;
    case ROLL_DONE:
        break;
    }
    find(finding, OPERATION_DONE,
         "narwhal " NARWHAL_VERSION " has taken over, all workers are new");
}

static void
look(const struct master *master, const struct operation *operation, struct finding *finding)
{
    switch (operation->kind) {
    case OPERATION_RELOAD:
        look_at_reload(master, operation, finding);
        return;
    case OPERATION_RESTART:
        look_at_restart(master, operation, finding);
        return;
    case OPERATION_SCALE:
        look_at_scale(master, operation, finding);
        return;
    case OPERATION_DRAIN:
        look_at_drain(master, operation, finding);
        return;
    case OPERATION_UPGRADE:
        look_at_upgrade(master, finding);
        return;
    case OPERATION_KIND_COUNT:
        break;
    }
    find(finding, OPERATION_FAILED, "it is of an unknown kind");
}

void
operations_reconcile(struct master *master)
{
    FOR_EACH_OPERATION(operation, master)
    {
        struct finding finding;
        if (operation->state != OPERATION_RUNNING) {
            continue;
        }
        look(master, operation, &finding);
        if (finding.state != OPERATION_RUNNING) {
            end(master, operation, finding.state, finding.text);
        }
    }
}

void
operation_print(struct master *master, const struct operation *operation, struct buf *out)
{
    bool runs = operation->state == OPERATION_RUNNING;
    struct finding finding;

    json_open(out, NULL, '{');
    json_number(out, "operation", (int64_t)operation->number);
    json_text(out, "kind", kind_names[operation->kind]);
    if (operation->subject[0] != '\0') {
        json_text(out, "backend", operation->subject);
    }
    if (operation->kind == OPERATION_SCALE) {
        json_number(out, "workers", operation->target);
    } else if (operation->kind == OPERATION_DRAIN) {
        json_number(out, "slot", operation->target);
    }
    json_text(out, "state", state_names[operation->state]);
    json_number(out, "took_ms",
                (runs ? clock_mono_ms() : operation->ended_ms) - operation->began_ms);
    if (runs) {
        look(master, operation, &finding);
    }
    json_text(out, "text", runs ? finding.text : operation->text);
    json_close(out, '}');
}

/* ---- over an upgrade ------------------------------------------------------------------------- */

void
operations_fill(const struct master *master, struct state *state)
{
    for (size_t i = 0; i < OPERATIONS_MAX; i++) {
        const struct operation *operation = &master->operations.ring[i];
        if (operation->state == OPERATION_FREE) {
            continue;
        }
        struct state_operation *record = state_add_operation(state);
        record->number = (int64_t)operation->number;
        record->kind = operation->kind;
        record->state = operation->state;
        record->subject = xstrdup(operation->subject);
        record->target = operation->target;
        record->mark = operation->mark;
        record->failures = operation->failures;
        record->began_ms = operation->began_ms;
        record->ended_ms = operation->ended_ms;
        record->text = operation->text != NULL ? xstrdup(operation->text) : NULL;
    }
}

/* A later version may have more kinds: those of them that have ended are of no interest here. */
static bool
is_usable(const struct state_operation *record)
{
    bool is_slot = record->target >= 0 && record->target < BOARD_SLOTS_MAX;

    return record->kind < OPERATION_KIND_COUNT && record->state != OPERATION_FREE &&
           (record->kind != OPERATION_DRAIN || is_slot) &&
           (record->state == OPERATION_RUNNING || record->text != NULL);
}

void
operations_restore(const struct state *state, struct master *master)
{
    size_t count = 0;

    for (size_t i = 0; i < state->operation_count && count < OPERATIONS_MAX; i++) {
        const struct state_operation *record = &state->operation[i];
        if (!is_usable(record)) {
            continue;
        }
        struct operation *operation = &master->operations.ring[count++];
        *operation = (struct operation){.number = (uint64_t)record->number,
                                        .kind = (enum operation_kind)record->kind,
                                        .state = (enum operation_state)record->state,
                                        .target = record->target,
                                        .mark = record->mark,
                                        .failures = record->failures,
                                        .began_ms = record->began_ms,
                                        .ended_ms = record->ended_ms};
        (void)snprintf(operation->subject, sizeof(operation->subject), "%s",
                       record->subject != NULL ? record->subject : "");
        if (operation->state != OPERATION_RUNNING) {
            operation->text = xstrdup(record->text);
        }
        if (operation->number > master->operations.last) {
            master->operations.last = operation->number;
        }
    }
}
