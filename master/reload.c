/* SPDX-License-Identifier: Apache-2.0
 *
 *   IDLE ──request, all prepared──► STARTING ──new applications READY──► TRYING
 *     ▲                                │                                    │ one worker applied:
 *     ├────── one of them died ────────┘                                    │ commit
 *     ├────── it refused ───────────────────────────────────────────────────┤
 *     └────── all have applied ─────────────── APPLYING ◄───────────────────┘
 *
 * What can fail happens before the commit, and is undone by
 * prepared_free(); commit() cannot fail. Nobody tries when nobody could tell: no worker is READY,
 * or only new processes can have what is new (user, group); then IDLE goes to APPLYING. Runs in the
 * master.
 */
#include "master/reload.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/base/clock.h"
#include "config/base/fd.h"
#include "config/base/log.h"
#include "config/config.h"
#include "master/fd_store.h"
#include "master/master.h"
#include "master/privileges.h"
#include "master/worker_child.h"
#include "master/waiting.h"

/* One more than one: a worker may die of something else in this very moment. Not more, because it
 * may as well be the settings that kill them. */
#define CANARIES_MAX 2
/* Of the errors that whoever waits for a reload gets. */
#define OPERATION_ERRORS_BYTES 4096

/* All that new settings need, made but not in use. */
struct prepared {
    struct config *config; /* owned */
    uint64_t serial;
    uint32_t workers;        /* auto resolved */
    struct config_diff diff; /* owned; against the settings in use */
    struct identity identity;
    struct log_files logs; /* owned */
    bool new_logs;
    bool started_ahead;         /* applications of its new backends run */
    struct list_node addresses; /* new ones, owned */
    int image_fd;               /* owned */
};

static struct prepared *
prepared_new(struct master *master, struct config *config)
{
    struct prepared *prepared = xcalloc(1, sizeof(*prepared));

    *prepared = (struct prepared){.config = config,
                                  .serial = ++master->reload.last_serial,
                                  .workers = master_configured_workers(config),
                                  .logs = {.error_fd = -1, .access_fd = -1},
                                  .image_fd = -1};
    list_init(&prepared->addresses);
    return prepared;
}

/* Undoes what was prepared and not taken by commit(). */
static void
prepared_free(struct master *master, struct prepared *prepared)
{
    if (prepared == NULL) {
        return;
    }
    apps_cancel_ahead(master);
    if (prepared->started_ahead) {
        server_registry_abandon(&master->registry, prepared->serial);
    } else {
        server_registry_rollback(&master->registry);
    }
    LIST_FOR_EACH_SAFE (node, &prepared->addresses) {
        listen_address_close(listen_address_from(node));
    }
    log_files_close(&prepared->logs);
    fd_close(&prepared->image_fd);
    config_diff_release(&prepared->diff);
    config_free(prepared->config);
    free(prepared);
}

static void
add_error(struct config_errors *errors, struct buf *text)
{
    if (text->len > 0) {
        config_errors_add(errors, "%s", text->ptr);
    }
    buf_clear(text);
}

/* ---- prepare --------------------------------------------------------------------------------- */

static void
prepare_addresses(struct master *master, struct prepared *prepared, struct config_errors *errors)
{
    const struct config *config = prepared->config;
    struct buf text = {0};

    for (size_t i = 0; i < config->master.bind.count; i++) {
        const struct address *address = &config->master.bind.item[i];
        int result = 0;
        if (lane_set_find(&master->lanes, address) != NULL) {
            continue;
        }
        struct listen_address *opened =
            listen_address_open(&master->lanes, address, prepared->workers,
                                (int)config->master.backlog, &prepared->identity, &result, &text);
        if (opened != NULL) {
            list_push_back(&prepared->addresses, &opened->node);
        } else {
            config_errors_add(errors, "%s: bind: %s", config_origin(config, "master", NULL, "bind"),
                              text.ptr);
        }
        buf_clear(&text);
    }
    buf_release(&text);
}

static bool
logs_differ(const struct config *before, const struct config *after)
{
    return before == NULL || !value_equal(VALUE_TARGET, &before->log.error, &after->log.error) ||
           !value_equal(VALUE_TARGET, &before->log.access, &after->log.access);
}

/* Prepares everything, also after a failure, so that all errors are told at once. Returns 0 or the
 * exit status of the first. */
static int
prepare(struct master *master, struct prepared *prepared, struct config_errors *errors)
{
    struct config *config = prepared->config;
    struct buf text = {0};
    int status = 0;

    if (identity_resolve(config, &prepared->identity, &text) != 0) {
        status = EX_CONFIG;
        add_error(errors, &text);
        prepared->identity = (struct identity){.drop = false};
    }
    if (privileges_check(config, &text) != 0) {
        status = status != 0 ? status : EX_UNAVAILABLE;
        add_error(errors, &text);
    }
    if (logs_differ(master->config, config)) {
        prepared->new_logs = true;
        if (log_files_open(config, &prepared->logs, &text) != 0) {
            status = status != 0 ? status : EX_CANTCREAT;
            add_error(errors, &text);
        }
    }
    size_t before = errors->count;
    prepare_addresses(master, prepared, errors);
    if (errors->count > before) {
        status = status != 0 ? status : EX_UNAVAILABLE;
    }
    if (server_registry_prepare(&master->registry, config, &text) != 0) {
        status = status != 0 ? status : EX_CONFIG;
        add_error(errors, &text);
    }
    if (status == 0 && master->config == NULL) {
        master->identity = prepared->identity; /* the folder below belongs to it */
    }
    if (status == 0 && apps_prepare(master, config, &text) != 0) {
        status = EX_CANTCREAT;
        add_error(errors, &text);
    }
    if (status == 0) {
        prepared->image_fd = config_write_image(config);
        if (prepared->image_fd < 0) {
            config_errors_add(errors, "cannot write the settings for the workers: %s",
                              strerror(-prepared->image_fd));
            prepared->image_fd = -1;
            status = EX_OSERR;
        }
    }
    buf_release(&text);
    return status;
}

/* ---- commit ---------------------------------------------------------------------------------- */

static bool
is_bound_by(const struct config *config, const struct listen_address *address)
{
    for (size_t i = 0; i < config->master.bind.count; i++) {
        if (strcmp(config->master.bind.item[i].text, address->wanted.text) == 0) {
            return true;
        }
    }
    return false;
}

static void
commit_addresses(struct master *master, struct prepared *prepared)
{
    LIST_FOR_EACH_SAFE (node, &master->lanes.addresses) {
        struct listen_address *address = listen_address_from(node);
        if (!is_bound_by(prepared->config, address)) {
            log_info("no longer listening address=%s", address->bound.text);
            /* The workers' descriptors keep the socket open until its queue is accepted. */
            slots_revoke_address(master, address);
            fd_store_forget_address(address);
            listen_address_close(address);
        }
    }
    LIST_FOR_EACH_SAFE (node, &prepared->addresses) {
        list_remove(node);
        list_push_back(&master->lanes.addresses, node);
        listen_address_log(listen_address_from(node));
    }
}

static void
commit_logs(struct master *master, struct prepared *prepared)
{
    if (prepared->new_logs) {
        struct log_files old = master->logs;
        master->logs = prepared->logs;
        prepared->logs = (struct log_files){.error_fd = -1, .access_fd = -1};
        log_setup(master->logs.error_fd, prepared->config->log.level, "master");
        slots_send_logs(master);
        log_files_close(&old);
    }
    log_set_level(prepared->config->log.level);
}

static void
commit(struct master *master, struct prepared *prepared)
{
    struct config *old = master->config;
    int64_t workers_before = old != NULL ? old->master.workers : prepared->config->master.workers;

    commit_logs(master, prepared);
    privileges_tell(old, prepared->config, &prepared->identity);
    commit_addresses(master, prepared);
    master->serial = prepared->serial;
    server_registry_commit(&master->registry, prepared->config, master->serial);
    master->config = prepared->config;
    prepared->config = NULL;
    master->identity = prepared->identity;
    fd_close(&master->image_fd);
    master->image_fd = prepared->image_fd;
    prepared->image_fd = -1;
    if (master->config->master.workers != workers_before) {
        master->workers_more = 0; /* the operator wrote a number: it counts */
    } else if (old != NULL && workers_before == 0 && master->workers != prepared->workers) {
        log_info("[master] workers = auto is now workers=%u before=%u", prepared->workers,
                 master->workers);
    }
    master->workers = prepared->workers;
    names_commit(master);
    apps_commit(master); /* before the old settings go: applications point into them */
    config_free(old);
    slots_send_settings(master);
    waiting_serve(master); /* there may be servers or slots that were not there before */
    slots_retry(master);
    master_changed(master);
}

int
reload_first(struct master *master, struct config *config, struct config_errors *errors)
{
    struct prepared *prepared = prepared_new(master, config);
    int status = prepare(master, prepared, errors);

    if (status == 0) {
        commit(master, prepared);
    }
    prepared_free(master, prepared);
    return status;
}

/* ---- the try --------------------------------------------------------------------------------- */

static void
judge(struct master *master, enum canary_verdict verdict, char *why)
{
    master->reload.canary = NULL;
    master->reload.verdict = verdict;
    free(master->reload.why);
    master->reload.why = why;
    master_changed(master);
}

bool
reload_on_answer(struct master *master, const struct worker_child *worker, uint64_t serial,
                 const char *why)
{
    const struct reload *reload = &master->reload;

    if (reload->state != RELOAD_TRYING || worker != reload->canary ||
        serial != reload->prepared->serial) {
        return false;
    }
    if (why == NULL) {
        judge(master, CANARY_APPLIED, NULL);
    } else {
        judge(master, CANARY_REFUSED,
              xasprintf("%s cannot use the new settings pid=%d: %s", worker->child.name,
                        (int)worker->child.pid, why));
    }
    return true;
}

void
reload_on_worker_gone(struct master *master, const struct worker_child *worker)
{
    if (master->reload.state == RELOAD_TRYING && worker == master->reload.canary) {
        judge(master, CANARY_LOST,
              xasprintf("%s died while it tried the new settings", worker->child.name));
    }
}

static void
judge_late(struct master *master)
{
    struct worker_child *worker = master->reload.canary;
    char *why = xasprintf("%s did not try the new settings in time and is replaced pid=%d "
                          "([master] timeout)",
                          worker->child.name, (int)worker->child.pid);

    judge(master, CANARY_LATE, why);
    if (worker->child.state == CHILD_READY) {
        child_abort(&worker->child, "settings not applied");
    }
}

static void
on_deadline(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct master *master = ev_userdata(loop);

    (void)timer;
    (void)revents;
    if (patient_timer_goes_on(&master->reload.deadline, loop)) {
        return;
    }
    if (master->reload.state == RELOAD_APPLYING) {
        slots_replace_unapplied(master);
    } else if (master->reload.canary != NULL) {
        judge_late(master);
    }
    master_changed(master);
}

void
reload_init(struct master *master)
{
    patient_timer_init(&master->reload.deadline, on_deadline);
}

void
reload_stop(struct master *master)
{
    patient_timer_stop(&master->reload.deadline, master->loop);
    prepared_free(master, master->reload.prepared);
    master->reload.prepared = NULL;
    master->reload.canary = NULL;
    free(master->reload.why);
    master->reload.why = NULL;
    master->reload.state = RELOAD_IDLE;
}

/* A worker that does not read must not hold up this reload and all later ones. */
static void
enter(struct master *master, enum reload_state state)
{
    int64_t timeout_ms = master->config->master.timeout_ms;

    master->reload.state = state;
    patient_timer_start(&master->reload.deadline, master->loop, clock_mono_ms() + timeout_ms);
}

/* ---- reload ---------------------------------------------------------------------------------- */

/* Whoever waits for it gets the errors, the first of very many. */
static void
end_operation(struct master *master, const struct config_errors *errors)
{
    struct buf text = {0};
    size_t told = 0;

    while (told < errors->count && text.len < OPERATION_ERRORS_BYTES) {
        buf_addf(&text, "%s%s", told > 0 ? "\n" : "", errors->item[told]);
        told++;
    }
    if (told < errors->count) {
        buf_addf(&text, "\n%zu more errors are in the log", errors->count - told);
    }
    operation_end(master, master->reload.operation, OPERATION_FAILED,
                  text.ptr != NULL ? text.ptr : "the log says why");
    buf_release(&text);
}

static void
refuse(struct master *master, const struct config_errors *errors)
{
    for (size_t i = 0; i < errors->count; i++) {
        log_error("%s", errors->item[i]);
    }
    log_error("reload refused, the old settings go on errors=%zu", errors->count);
    end_operation(master, errors);
    service_reload_ends(master, EINVAL, errors->count > 0 ? errors->item[0] : "");
}

/* Adds an error for each change that only a restart can make. */
static void
check_classes(const struct config_diff *diff, struct config_errors *errors)
{
    for (size_t i = 0; i < diff->count; i++) {
        if (diff->item[i].reload == RELOAD_RESTART) {
            config_errors_add(errors,
                              "%s: this takes a restart; change it back, or restart "
                              "narwhal",
                              diff->item[i].text);
        }
    }
}

static bool
needs_new_workers(const struct config_diff *diff)
{
    for (size_t i = 0; i < diff->count; i++) {
        if (diff->item[i].reload == RELOAD_WORKERS) {
            return true;
        }
    }
    return false;
}

/* The workers take the settings over. */
static void
apply(struct master *master, struct prepared *prepared)
{
    bool rolls_workers = needs_new_workers(&prepared->diff) || master->slots.roll_failed;

    for (size_t i = 0; i < prepared->diff.count; i++) {
        log_info("changed: %s", prepared->diff.item[i].text);
    }
    master->reload.changes = prepared->diff.count;
    commit(master, prepared);
    if (rolls_workers) {
        slots_roll(master);
    }
    enter(master, RELOAD_APPLYING);
    prepared_free(master, prepared);
}

/* Returns false when no worker can tell whether the settings work. */
static bool
ask_canary(struct master *master, const struct prepared *prepared)
{
    struct worker_child *worker = needs_new_workers(&prepared->diff) ? NULL : slots_canary(master);

    if (worker == NULL) {
        return false;
    }
    master->reload.canary = worker;
    master->reload.canaries++;
    master->reload.verdict = CANARY_NONE;
    worker_child_send_image(worker, prepared->serial, prepared->image_fd);
    return true;
}

static void
try_settings(struct master *master, struct config *config, struct config_errors *errors)
{
    struct prepared *prepared = prepared_new(master, config);

    config_diff(master->config, config, &prepared->diff);
    check_classes(&prepared->diff, errors);
    if (errors->count > 0 || prepare(master, prepared, errors) != 0) {
        prepared_free(master, prepared);
        return;
    }
    /* With another user to run as, only what is started after the commit gets it. */
    prepared->started_ahead =
        !needs_new_workers(&prepared->diff) && apps_start_ahead(master, config);
    master->reload.prepared = prepared;
    master->reload.state = RELOAD_STARTING; /* boot_timeout ends it */
    if (prepared->started_ahead) {
        log_info("the reload waits for the applications of new backends serial=%llu",
                 (unsigned long long)prepared->serial);
    }
    master_changed(master);
}

static void
give_up(struct master *master)
{
    struct reload *reload = &master->reload;
    struct config_errors errors = {0};

    config_errors_add(&errors, "%s", reload->why);
    if (reload->verdict != CANARY_REFUSED) {
        /* Nobody knows how far it came. */
        server_registry_abandon(&master->registry, reload->prepared->serial);
    }
    reload_stop(master);
    refuse(master, &errors);
    config_errors_release(&errors);
}

static void
go_on_after_start(struct master *master)
{
    struct reload *reload = &master->reload;
    struct prepared *prepared = reload->prepared;

    switch (apps_ahead_state(master, &reload->why)) {
    case AHEAD_BOOTING:
        return;
    case AHEAD_FAILED:
        reload->verdict = CANARY_NONE;
        give_up(master);
        return;
    case AHEAD_READY:
        break;
    }
    reload->canaries = 0;
    if (ask_canary(master, prepared)) {
        enter(master, RELOAD_TRYING);
    } else {
        reload->prepared = NULL;
        apply(master, prepared);
    }
}

static void
go_on_after_try(struct master *master)
{
    struct reload *reload = &master->reload;

    switch (reload->verdict) {
    case CANARY_NONE:
        return;
    case CANARY_APPLIED: {
        struct prepared *prepared = reload->prepared;
        reload->prepared = NULL;
        apply(master, prepared);
        return;
    }
    case CANARY_LOST:
        /* Its deadline stays that of the first one. */
        if (reload->canaries < CANARIES_MAX && ask_canary(master, reload->prepared)) {
            return;
        }
        break;
    case CANARY_REFUSED:
    case CANARY_LATE:
        break;
    }
    give_up(master);
}

static void
start(struct master *master)
{
    struct config_errors errors = {0};

    service_reload_begins(master);
    struct config *config = config_load(master->args, &errors);
    if (config != NULL) {
        try_settings(master, config, &errors);
    }
    if (errors.count > 0 || config == NULL) {
        refuse(master, &errors);
    }
    config_errors_release(&errors);
}

static uint64_t
queue_one_more(struct reload *reload, struct master *master)
{
    if (!reload->queued) {
        reload->queued_operation = operation_begin(master, OPERATION_RELOAD, "")->number;
        reload->queued = true;
    }
    log_info("a reload is running; one more is done after it");
    return reload->queued_operation;
}

uint64_t
reload_request(struct master *master)
{
    if (master->phase != MASTER_RUNNING) {
        log_warn("reload ignored: narwhal is stopping");
        return 0;
    }
    if (master->paused) {
        master->paused = false; /* whatever comes of the settings */
        log_info("the pause ends");
        master_changed(master);
    }
    if (master->reload.state != RELOAD_IDLE) {
        return queue_one_more(&master->reload, master);
    }
    uint64_t number = operation_begin(master, OPERATION_RELOAD, "")->number;
    master->reload.operation = number;
    start(master);
    return number;
}

static void
finish(struct master *master, enum roll_result roll)
{
    reload_stop(master);
    if (roll == ROLL_FAILED) {
        log_error("reload incomplete serial=%llu: the old workers go on as they were started; "
                  "reload again to try again",
                  (unsigned long long)master->serial);
        operation_end(master, master->reload.operation, OPERATION_FAILED,
                      "the settings are in use, but a new worker could not boot with them: the old "
                      "workers go on as they were started (the log says why); reload again to try "
                      "again");
    } else {
        operation_note_settings(master, master->reload.operation, master->serial,
                                master->reload.changes);
        log_info("reload done serial=%llu changes=%zu", (unsigned long long)master->serial,
                 master->reload.changes);
    }
    service_reload_ends(master, roll == ROLL_FAILED ? ECANCELED : 0,
                        roll == ROLL_FAILED ? "the new workers could not boot" : NULL);
}

void
reload_reconcile(struct master *master)
{
    if (master->reload.state == RELOAD_STARTING) {
        go_on_after_start(master);
    }
    if (master->reload.state == RELOAD_TRYING) {
        go_on_after_try(master);
    }
    if (master->reload.state == RELOAD_APPLYING && slots_settings_applied(master)) {
        enum roll_result roll = slots_roll_state(master);
        if (roll != ROLL_RUNNING) {
            finish(master, roll);
        }
    }
    if (master->reload.state == RELOAD_IDLE && master->reload.queued) {
        master->reload.queued = false;
        master->reload.operation = master->reload.queued_operation;
        start(master);
    }
}
