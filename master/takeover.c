/* SPDX-License-Identifier: Apache-2.0
 *
 * From the state of a predecessor back to struct master. Nothing is bound, forked or signalled
 * before takeover_finish(): what was built until then is only memory of this program, and the old
 * one finds everything as it left it.
 */
#include "master/takeover.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sysexits.h>
#include <unistd.h>

#include "config/base/check.h"
#include "config/base/clock.h"
#include "config/base/fd.h"
#include "config/base/log.h"
#include "config/config.h"
#include "master/fd_store.h"
#include "master/inherited.h"
#include "master/instance.h"
#include "master/master.h"
#include "master/notify.h"
#include "master/worker_child.h"
#include "worker/channel.h"

/* What a worker that cannot be told to drain may take on top of graceful_timeout. */
#define FAREWELL_MARGIN_MS 1000

/* ---- receiving ------------------------------------------------------------------------------- */

static int
refuse(const char *why)
{
    (void)fprintf(stderr, "narwhal: cannot take over from a running master: %s\n", why);
    return EX_DATAERR;
}

static int
check_open(int fd, void *context)
{
    (void)context;
    return fcntl(fd, F_GETFD) == -1 ? -errno : 0;
}

/* Standard input, output and error stay open for everybody. */
static int
close_on_exec(int fd, void *context)
{
    const bool *wanted = context;

    return fd <= STDERR_FILENO ? 0 : fd_set_cloexec(fd, *wanted);
}

/* The number in the variable, which is taken out of the environment: -1 without it, -2 when it is
 * no number. */
static int
take_number(const char *variable)
{
    const char *text = getenv(variable);
    char *end = NULL;

    if (text == NULL) {
        return -1;
    }
    errno = 0;
    long number = strtol(text, &end, 10);
    bool is_ok = errno == 0 && end != text && *end == '\0' && number >= 0 && number <= INT_MAX;
    (void)unsetenv(variable);
    return is_ok ? (int)number : -2;
}

int
takeover_receive(struct takeover *ret_takeover)
{
    char error[STATE_ERROR_MAX];
    bool wanted = true;

    *ret_takeover = (struct takeover){.state_fd = take_number(TAKEOVER_VARIABLE)};
    int back_fd = take_number(TAKEOVER_BACK_VARIABLE);
    if (back_fd != -1) {
        ret_takeover->state_fd = back_fd;
        ret_takeover->returned = true;
    }
    if (ret_takeover->state_fd == -1) {
        return 0;
    }
    if (ret_takeover->state_fd == -2) {
        return refuse(TAKEOVER_VARIABLE " is no descriptor; it is not for you to set");
    }
    if (state_from_fd(&ret_takeover->state, ret_takeover->state_fd, error) != 0) {
        return refuse(error);
    }
    if (ret_takeover->state.master->pid != (int64_t)getpid()) {
        (void)snprintf(error, sizeof(error), "the state is of process %lld, and this is process %d",
                       (long long)ret_takeover->state.master->pid, (int)getpid());
        state_release(&ret_takeover->state);
        return refuse(error);
    }
    if (state_each_fd(&ret_takeover->state, check_open, NULL) != 0) {
        state_release(&ret_takeover->state);
        return refuse("the state names descriptors that are not open");
    }
    (void)state_each_fd(&ret_takeover->state, close_on_exec, &wanted);
    (void)close_on_exec(ret_takeover->state_fd, &wanted);
    for (size_t i = 0; i < ret_takeover->state.inherited_count; i++) {
        inherited_restore(ret_takeover->state.inherited[i].fd);
    }
    const struct state_master *before = ret_takeover->state.master;
    log_setup(before->error_log != -1 ? before->error_log : STDERR_FILENO,
              (enum log_level)before->log_level, "master");
    return 0;
}

/* ---- settings -------------------------------------------------------------------------------- */

static void
tell_errors(const struct config_errors *errors)
{
    for (size_t i = 0; i < errors->count; i++) {
        log_error("%s", errors->item[i]);
    }
}

static bool
are_equal(const struct config *a, const struct config *b)
{
    struct config_diff diff;

    config_diff(a, b, &diff);
    bool result = diff.count == 0;
    config_diff_release(&diff);
    return result;
}

struct config *
takeover_settings(struct takeover *takeover, const struct config_args *args)
{
    struct config_errors errors = {0};
    char why[CONFIG_IMAGE_ERROR_MAX] = "it is not there";
    struct config *now =
        args->command == CONFIG_RUN ? config_load(args, &errors) : NULL; /* else: usage */
    struct config *before = takeover->state.master->image != -1
                                ? config_read_image(takeover->state.master->image, why)
                                : NULL;

    if (args->command != CONFIG_RUN) {
        log_error("%s", args->usage_error != NULL ? args->usage_error : "no command to run");
    }
    tell_errors(&errors);
    config_errors_release(&errors);
    if (now == NULL) {
        log_error("the settings cannot be read again, %s",
                  before != NULL ? "those in use go on" : "and those in use neither");
        return before;
    }
    if (before == NULL) {
        log_info("the settings are read again, those in use are of another version: %s", why);
        return now;
    }
    if (are_equal(before, now)) {
        config_free(before);
        return now; /* which knows where each value comes from */
    }
    takeover->settings_changed = true;
    config_free(now);
    return before;
}

/* ---- master and lanes ------------------------------------------------------------------------ */

int
takeover_board(struct takeover *takeover, struct master *master)
{
    const struct state_master *before = takeover->state.master;

    master->board = before->board != -1 ? scoreboard_adopt(before->board) : NULL;
    if (master->board != NULL) {
        master->board_fd = before->board;
        return 0;
    }
    takeover->new_board = true;
    log_warn("the counters begin again: the scoreboard of narwhal %s is of another layout",
             before->version);
    master->board = scoreboard_create(&master->board_fd);
    if (master->board == NULL) {
        return -errno;
    }
    atomic_store_explicit(&master->board->started_ms, before->started_ms, memory_order_relaxed);
    return 0;
}

static void
restore_master(const struct state_master *before, struct master *master)
{
    master->serial = (uint64_t)before->serial;
    master->reload.last_serial = (uint64_t)before->last_serial;
    master->was_ready = before->was_ready != 0;
    master->paused = before->paused != 0;
    master->workers_more = (int)before->workers_more;
    master->lanes.next_id = (uint32_t)before->next_lane;
    master->slots.epoch = (uint32_t)before->epoch;
    master->slots.roll_failed = before->roll_failed != 0;
    master->scaling.workers = (uint32_t)before->scaled_workers;
    master->scaling.is_held = before->scaling_held != 0;
    master->scaling.seen_workers = before->scaling_seen_workers;
    master->scaling.seen_min = before->scaling_seen_min;
    master->scaling.seen_max = before->scaling_seen_max;
    master->inherited_nofile = (struct rlimit){.rlim_cur = (rlim_t)before->nofile_soft,
                                               .rlim_max = (rlim_t)before->nofile_hard};
    master->pidfile.fd = before->pidfile;
    master->pidfile.path = before->pidfile != -1 ? xstrdup(before->pidfile_path) : NULL;
    master->runtime_dir.fd = before->runtime;
    master->runtime_dir.path = before->runtime != -1 ? xstrdup(before->runtime_path) : NULL;
    master->runtime_dir.in_tmp = before->runtime_in_tmp != 0;
}

/* False when the path is longer than one of a unix socket. */
static bool
restore_unix(struct unix_listener *ret_listener, int fd, const char *path, int64_t dev, int64_t ino)
{
    *ret_listener = (struct unix_listener){.fd = fd, .dev = (dev_t)dev, .ino = (ino_t)ino};
    int length =
        snprintf(ret_listener->path, sizeof(ret_listener->path), "%s", path != NULL ? path : "");
    return length >= 0 && (size_t)length < sizeof(ret_listener->path);
}

static bool
parse(const char *text, struct address *ret_address)
{
    char *error = address_parse(text, ret_address);
    bool is_ok = error == NULL;

    free(error);
    return is_ok;
}

static bool
restore_address(const struct state *state, size_t index, struct master *master)
{
    const struct state_address *record = &state->address[index];
    struct unix_listener unix_socket;
    struct address wanted;
    struct address bound;
    size_t lanes = 0;

    if (!parse(record->wanted, &wanted) || !parse(record->bound, &bound) ||
        !restore_unix(&unix_socket, -1, record->unix_path, record->unix_dev, record->unix_ino)) {
        return false;
    }
    struct listen_address *address =
        listen_address_restore(&master->lanes, &wanted, &bound, &unix_socket);
    for (size_t i = 0; i < state->lane_count; i++) {
        const struct state_lane *before = &state->lane[i];
        if ((size_t)before->address == index && lanes++ < BOARD_SLOTS_MAX) {
            struct lane lane = {.id = (uint32_t)before->id,
                                .fd = before->fd,
                                .home = (uint32_t)before->home,
                                .owner = (uint32_t)before->owner};
            listen_address_restore_lane(address, &lane);
        }
    }
    return lanes > 0 && lanes <= BOARD_SLOTS_MAX;
}

static void
restore_servers(const struct state *state, struct master *master)
{
    for (size_t i = 0; i < state->server_count; i++) {
        const struct state_server *server = &state->server[i];
        server_registry_restore(&master->registry, (uint32_t)server->record, server->key,
                                server->is_instance != 0, (enum record_use)server->use,
                                (uint64_t)server->left_serial, (enum board_wish)server->wish);
        if (server->address != NULL) {
            server_registry_restore_address(&master->registry, (uint32_t)server->record,
                                            server->address, server->weight,
                                            server->is_backup != 0);
        }
    }
}

/* ---- children -------------------------------------------------------------------------------- */

/* Reasons are static texts. Those of a predecessor live as long as this program: there is one for
 * each child that was being killed, at most. */
static const char *
keep_text(const char *text)
{
    static struct text_list kept;

    if (text == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < kept.count; i++) {
        if (strcmp(kept.item[i], text) == 0) {
            return kept.item[i];
        }
    }
    kept.item = xrealloc(kept.item, (kept.count + 1) * sizeof(*kept.item));
    kept.item[kept.count] = xstrdup(text);
    return kept.item[kept.count++];
}

#define CHILD_MEMORY(record)                                                                       \
    {                                                                                              \
        .state = (enum child_state)(record)->state, .pid = (pid_t)(record)->pid,                   \
        .started_ms = (record)->started_ms, .ready_since_ms = (record)->ready_since_ms,            \
        .ours = keep_text((record)->ours), .suspicion = keep_text((record)->suspicion),            \
        .deadline_ms = (record)->deadline_ms, .stopped = (record)->stopped != 0                    \
    }

#define RESPAWN_MEMORY(record)                                                                     \
    {                                                                                              \
        .deaths = (uint32_t)(record)->deaths, .folded = (uint32_t)(record)->folded,                \
        .row_ms = (record)->row_ms, .reported_ms = (record)->reported_ms                           \
    }

/* The end of its channel tells a worker that speaks another language to finish and to leave. */
static void
say_farewell(const struct takeover *takeover, struct child_memory *memory)
{
    if (memory->state == CHILD_STARTING || memory->state == CHILD_READY) {
        memory->state = CHILD_DRAINING;
        memory->deadline_ms =
            clock_mono_ms() + takeover->state.master->graceful_ms + FAREWELL_MARGIN_MS;
    }
}

static void
restore_worker(const struct takeover *takeover, size_t index, struct master *master)
{
    const struct state *state = &takeover->state;
    const struct state_worker *record = &state->worker[index];
    struct slot *slot = &master->slots.slots[record->slot];
    struct worker_child *worker = worker_child_new(master, slot);
    struct child_memory memory = CHILD_MEMORY(record);
    enum state_role role = (enum state_role)record->role;
    bool understands = state->master->dialect == channel_dialect();
    int channel_fd = record->channel;

    worker->leaving = record->leaving != 0;
    if (!understands && memory.pid != 0) {
        say_farewell(takeover, &memory);
        fd_close(&channel_fd);
        role = STATE_LEAVING;
        worker->leaving = true;
    }
    worker->epoch = (uint32_t)record->epoch;
    worker->generation = (uint32_t)record->generation;
    worker->cell = takeover->new_board || record->cell >= BOARD_CELLS_MAX ? WORKER_NO_CELL
                                                                          : (uint32_t)record->cell;
    worker->sent_serial = (uint64_t)record->sent_serial;
    worker->applied_serial = (uint64_t)record->applied_serial;
    worker->refused_serial = (uint64_t)record->refused_serial;
    worker->answers_due = (uint32_t)record->answers_due;
    worker->said_applied = record->said_applied != 0;
    worker->said_ready = record->said_ready != 0;
    worker->said_drained = record->said_drained != 0;
    worker->foreign = memory.pid != 0 && !takeover->returned;
    for (size_t i = 0; i < state->held_count && channel_fd != -1; i++) {
        if ((size_t)state->held[i].worker == index) {
            worker->lanes =
                xrealloc(worker->lanes, (worker->lane_count + 1) * sizeof(*worker->lanes));
            worker->lanes[worker->lane_count++] = (uint32_t)state->held[i].lane;
        }
    }
    child_restore(&worker->child, &memory);
    worker_child_resume(worker, channel_fd);
    if (role == STATE_SERVING) {
        slot->serving = worker;
    } else if (role == STATE_NEXT) {
        slot->next = worker;
    } else {
        list_push_back(&slot->leaving, &worker->node);
    }
}

static void
restore_workers(const struct takeover *takeover, struct master *master)
{
    for (size_t i = 0; i < takeover->state.slot_count; i++) {
        const struct state_slot *record = &takeover->state.slot[i];
        struct slot *slot = &master->slots.slots[record->number];
        slot->generation = (uint32_t)record->generation;
        slot->respawn = (struct respawn)RESPAWN_MEMORY(record);
    }
    for (size_t i = 0; i < takeover->state.worker_count; i++) {
        restore_worker(takeover, i, master);
    }
}

static bool
restore_instance(const struct state_instance *record, struct instance_slot *slot)
{
    struct instance *instance = instance_new(slot, (uint32_t)record->half);
    const struct child_memory memory = CHILD_MEMORY(record);

    instance->generation = (uint64_t)record->generation;
    instance->offers = (unsigned int)record->offers;
    instance->port = (int)record->port;
    instance->leaving = record->leaving != 0;
    instance->drain_until_ms = record->drain_until_ms;
    (void)snprintf(instance->socket_path, sizeof(instance->socket_path), "%s",
                   record->socket_path != NULL ? record->socket_path : "");
    instance->start_error = record->start_error != NULL ? xstrdup(record->start_error) : NULL;
    instance->exec_fd = record->exec_result;
    child_restore(&instance->child, &memory);
    if (record->output != -1) {
        app_output_resume(&instance->output, record->output, &record->kept, &record->unread);
    }
    instance_resume(instance);
    if (record->role == STATE_SERVING) {
        slot->serving = instance;
    } else if (record->role == STATE_NEXT) {
        slot->next = instance;
    } else {
        list_push_back(&slot->leaving, &instance->node);
    }
    return record->address == NULL || parse(record->address, &instance->address);
}

static bool
restore_app_slot(const struct state *state, size_t index, struct app *app)
{
    const struct state_app_slot *record = &state->app_slot[index];
    struct instance_slot *slot = app_restore_slot(app);
    bool is_ok = true;

    slot->records[0] = (uint32_t)record->first_record;
    slot->records[1] = (uint32_t)record->second_record;
    slot->respawn = (struct respawn)RESPAWN_MEMORY(record);
    for (size_t i = 0; i < state->listener_count; i++) {
        const struct state_listener *listener = &state->listener[i];
        if ((size_t)listener->app_slot == index &&
            !restore_unix(&slot->listeners[listener->half], listener->fd, listener->path,
                          listener->dev, listener->ino)) {
            is_ok = false;
        }
    }
    for (size_t i = 0; i < state->instance_count; i++) {
        if ((size_t)state->instance[i].app_slot == index) {
            is_ok = restore_instance(&state->instance[i], slot) && is_ok;
        }
    }
    return is_ok;
}

static bool
restore_apps(const struct state *state, struct master *master)
{
    bool is_ok = true;

    for (size_t i = 0; i < state->app_count; i++) {
        struct app *app = app_restore(master, state->app[i].name);
        app->generation = (uint64_t)state->app[i].generation;
        app->roll_failed = state->app[i].roll_failed != 0;
        app->rolling = state->app[i].rolling != 0;
        for (size_t k = 0; k < state->app_slot_count; k++) {
            if ((size_t)state->app_slot[k].app == i) {
                is_ok = restore_app_slot(state, k, app) && is_ok;
            }
        }
    }
    return is_ok;
}

int
takeover_restore(struct takeover *takeover, struct master *master)
{
    const struct state *state = &takeover->state;
    const struct state_master *before = state->master;
    bool is_ok = restore_unix(&master->control.listener, before->control, before->control_path,
                              before->control_dev, before->control_ino);

    restore_master(before, master);
    for (size_t i = 0; i < state->address_count && is_ok; i++) {
        is_ok = restore_address(state, i, master);
    }
    if (is_ok) {
        restore_servers(state, master);
        operations_restore(state, master);
        restore_workers(takeover, master);
        is_ok = restore_apps(state, master);
    }
    if (!is_ok) {
        log_error("the state of narwhal %s has an address or a path that this version does not "
                  "understand",
                  before->version);
        return -EBADMSG;
    }
    return 0;
}

/* ---- the end --------------------------------------------------------------------------------- */

static void
show_instances(struct master *master)
{
    LIST_FOR_EACH (node, &master->apps.apps) {
        struct app *app = container_of(node, struct app, node);
        for (size_t i = 0; i < app->slot_count; i++) {
            struct instance_slot *slot = app->slots[i];
            struct instance *both[] = {slot->serving, slot->next};
            for (size_t k = 0; k < sizeof(both) / sizeof(both[0]); k++) {
                if (both[k] != NULL) {
                    instance_show(both[k]);
                }
            }
            LIST_FOR_EACH (other, &slot->leaving) {
                instance_show(container_of(other, struct instance, node));
            }
        }
    }
}

void
takeover_finish(struct takeover *takeover, struct master *master)
{
    struct state_master *before = takeover->state.master;
    bool is_standard = before->error_log <= STDERR_FILENO;

    if (takeover->new_board) {
        show_instances(master);
        fd_close(&before->board);
    }
    if (takeover->returned) {
        log_error("upgrade failed, nothing was changed: narwhal " NARWHAL_VERSION
                  " goes on pid=%d (the lines above say why)",
                  (int)master->pid);
        operations_fail_upgrade(
            master, "the new program could not take over: the old one goes on, nothing was "
                    "changed (the log says why)");
    } else {
        log_info("upgraded from=%s to=" NARWHAL_VERSION " pid=%d in=%lldms", before->version,
                 (int)master->pid, (long long)(clock_mono_ms() - before->exec_ms));
        slots_roll(master);
    }
    child_reap_all(master); /* whoever died meanwhile */
    (void)child_note_stops(master);
    progress_watch_look(master); /* or who is stopped would get the lanes back that are lent */
    fd_close(&before->program);
    fd_close(&before->image);
    if (!is_standard) {
        fd_close(&before->error_log);
    }
    fd_close(&takeover->state_fd);
    state_release(&takeover->state);
    if (master->was_ready) {
        notify_send("READY=1\nMAINPID=%d", (int)master->pid);
    }
    if (takeover->new_board) {
        fd_store_forget_board(); /* that of the predecessor: the new one is stored next */
    }
    if (takeover->settings_changed) {
        log_info("the settings have changed since they were read last: reload");
        (void)reload_request(master);
    }
}

int
takeover_execute(const struct state *state, int state_fd, const char *program,
                 const struct config_args *args)
{
    const char *name = program != NULL ? TAKEOVER_VARIABLE : TAKEOVER_BACK_VARIABLE;
    bool cloexec = false;
    size_t count = 0;

    while (args->envp[count] != NULL) {
        count++;
    }
    char **env = xcalloc(count + 2, sizeof(*env));
    char *variable = xasprintf("%s=%d", name, state_fd);
    memcpy(env, args->envp, count * sizeof(*env));
    env[count] = variable; /* the last one: see proctitle.c, which wants texts without a gap */
    int result = state_each_fd(state, close_on_exec, &cloexec);
    result = result != 0 ? result : close_on_exec(state_fd, &cloexec);
    if (result == 0 && program != NULL) {
        (void)execve(program, args->argv, env);
        result = -errno;
    } else if (result == 0) {
        (void)execveat(state->master->program, "", args->argv, env, AT_EMPTY_PATH);
        result = -errno;
    }
    cloexec = true;
    (void)state_each_fd(state, close_on_exec, &cloexec);
    (void)close_on_exec(state_fd, &cloexec);
    free(variable);
    free(env);
    return result;
}

void
takeover_give_back(struct takeover *takeover, const struct config_args *args)
{
    if (takeover->state_fd == -1 || takeover->returned || takeover->state.master->program == -1) {
        return;
    }
    log_error("narwhal " NARWHAL_VERSION " cannot take over: back to narwhal %s",
              takeover->state.master->version);
    int result = takeover_execute(&takeover->state, takeover->state_fd, NULL, args);
    log_error("cannot execute narwhal %s again: %s; the workers finish what is open and leave",
              takeover->state.master->version, strerror(-result));
}
