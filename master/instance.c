/* SPDX-License-Identifier: Apache-2.0
 *
 * Life of one app instance. READY is seen from outside, because applications do not say it: a
 * connection is accepted. Where the application listens itself, connect() is enough; where it got
 * the master's socket, connect() always works, so the connection is watched until the queue of the
 * socket is empty: somebody accepted it.
 *
 * Runs in the master, but for become_application(), which is the child until exec.
 */
#include "master/instance.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/base/clock.h"
#include "config/base/fd.h"
#include "config/base/log.h"
#include "config/command.h"
#include "config/config.h"
#include "master/after_fork.h"
#include "master/apps.h"
#include "master/deaths.h"
#include "master/exec_template.h"
#include "master/free_port.h"
#include "master/master.h"
#include "master/waiting.h"

#define PASSED_FD 3 /* SD_LISTEN_FDS_START, sd_listen_fds(3) */
#define PROBE_FIRST_MS 50
#define PROBE_LONGEST_MS 500
#define DRAIN_LOOK_MS 100

static struct instance *
instance_from_child(struct child *child)
{
    return container_of(child, struct instance, child);
}

static struct master *
master_of(const struct instance *instance)
{
    return instance->child.master;
}

static struct board_server *
record_of(const struct instance *instance)
{
    return &master_of(instance)->board->servers[instance->slot->records[instance->half]];
}

/* ---- is it READY? ---------------------------------------------------------------------------- */

static void
probe_stop(struct instance *instance)
{
    ev_timer_stop(master_of(instance)->loop, &instance->probe);
    fd_close(&instance->probe_fd);
}

static void
become_ready(struct instance *instance, const char *address_text)
{
    struct board_server *record = record_of(instance);
    char *error = address_parse(address_text, &instance->address);

    CHECK(error == NULL); /* made by us */
    record->address = instance->address;
    atomic_fetch_add_explicit(&record->life, 1, memory_order_relaxed);
    atomic_store_explicit(&record->full_until_ms, 0, memory_order_relaxed);
    board_forget_health(record);
    atomic_store_explicit(&record->health.up_since_ms, clock_mono_ms(), memory_order_relaxed);
    /* What the operator wanted was meant for the process before. */
    server_registry_wish(&master_of(instance)->registry, instance->slot->records[instance->half],
                         BOARD_WISH_ENABLED);
    probe_stop(instance);
    child_set_state(&instance->child, CHILD_READY, CHILD_NO_DEADLINE);
    log_info("%s is READY pid=%d address=%s boot=%lldms", instance->child.name,
             (int)instance->child.pid, instance->address.text,
             (long long)(clock_mono_ms() - instance->child.started_ms));
    app_on_ready(instance);
}

static int
connect_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd == -1) {
        return -errno;
    }
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == -1) {
        int result = -errno;
        fd_close(&fd);
        return result;
    }
    return fd;
}

static bool
probe_passed_socket(struct instance *instance)
{
    const struct unix_listener *listener = &instance->slot->listeners[instance->half];
    struct pollfd queue = {.fd = listener->fd, .events = POLLIN};

    if (instance->probe_fd == -1) {
        instance->probe_fd = connect_unix(listener->path);
        if (instance->probe_fd < 0) {
            instance->probe_fd = -1; /* EAGAIN: the queue is full of others; it will move */
            return false;
        }
    }
    return poll(&queue, 1, 0) == 0;
}

static bool
probe_path(const struct instance *instance)
{
    int fd = connect_unix(instance->socket_path);

    if (fd < 0) {
        return false;
    }
    fd_close(&fd);
    return true;
}

/* On loopback the handshake is over when connect() returns, so there is nothing to wait for. */
static bool
probe_port(const struct instance *instance)
{
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)instance->port),
                             .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6,
                               .sin6_port = htons((uint16_t)instance->port),
                               .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    const struct sockaddr *address = instance->probe_ipv6
                                         ? (const struct sockaddr *)(const void *)&in6
                                         : (const struct sockaddr *)(const void *)&in;
    socklen_t size = instance->probe_ipv6 ? sizeof(in6) : sizeof(in);
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int error = -1;
    socklen_t error_size = sizeof(error);

    if (fd == -1) {
        return false;
    }
    if (connect(fd, address, size) == -1 && errno == EINPROGRESS) {
        struct pollfd connecting = {.fd = fd, .events = POLLOUT};
        if (poll(&connecting, 1, 0) == 1) {
            (void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &error_size); /* else: not yet */
        }
    }
    fd_close(&fd);
    return error == 0;
}

static void
on_probe(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct instance *instance = container_of(timer, struct instance, probe);
    char text[ADDRESS_TEXT_MAX + 16];

    (void)revents;
    if (instance->child.state != CHILD_STARTING) {
        return; /* it is being killed; there is nothing to wait for */
    }
    if ((instance->offers & OFFER_FD) != 0 && probe_passed_socket(instance)) {
        (void)snprintf(text, sizeof(text), "unix:%s",
                       instance->slot->listeners[instance->half].path);
        become_ready(instance, text);
        return;
    }
    if ((instance->offers & OFFER_SOCKET) != 0 && probe_path(instance)) {
        (void)snprintf(text, sizeof(text), "unix:%s", instance->socket_path);
        become_ready(instance, text);
        return;
    }
    if ((instance->offers & OFFER_PORT) != 0) {
        if (probe_port(instance)) {
            (void)snprintf(text, sizeof(text), "%s:%d",
                           instance->probe_ipv6 ? "[::1]" : "127.0.0.1", instance->port);
            become_ready(instance, text);
            return;
        }
        instance->probe_ipv6 = !instance->probe_ipv6; /* "localhost" may mean either */
    }
    instance->probe_interval_ms += instance->probe_interval_ms / 4;
    if (instance->probe_interval_ms > PROBE_LONGEST_MS) {
        instance->probe_interval_ms = PROBE_LONGEST_MS;
    }
    ev_timer_set(timer, ms_to_seconds(instance->probe_interval_ms), 0.);
    ev_timer_start(loop, timer);
}

/* ---- the child, until exec ------------------------------------------------------------------- */

enum exec_stage { EXEC_SETUP = 0, EXEC_IDENTITY, EXEC_DIRECTORY, EXEC_COMMAND };

struct exec_failure {
    int stage; /* enum exec_stage */
    int error_number;
};

/* All that the child needs, made before the fork. */
struct exec_plan {
    char **argv;
    char **env;
    const char *directory; /* NULL: the master's */
    int listener_fd;       /* -1: none */
    int output_fd;         /* the write end */
    int output_read_fd;    /* stays here */
    int exec_fd;           /* the write end */
    bool new_privileges;
};

static _Noreturn void
exec_fail(int exec_fd, enum exec_stage stage, int error_number)
{
    struct exec_failure failure = {.stage = stage, .error_number = error_number};

    (void)!fd_write(exec_fd, &failure, sizeof(failure)); /* nobody else could be told */
    _exit(127);
}

/* Moves fd out of the way of 0 to 3. */
static int
move_up(int fd)
{
    return fd == -1 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, PASSED_FD + 1);
}

static _Noreturn void
become_application(struct instance *instance, const struct exec_plan *plan)
{
    struct master *master = master_of(instance);
    const int keep[] = {plan->exec_fd, plan->output_fd, plan->listener_fd};

    signals_reset_in_child(master);
    after_fork_leave_group();
    after_fork_close_all_but(keep, sizeof(keep) / sizeof(keep[0]));
    /* All but 0 to 3 is CLOEXEC from here on. */
    int exec_fd = move_up(plan->exec_fd);
    if (exec_fd == -1) {
        exec_fail(plan->exec_fd, EXEC_SETUP, errno);
    }
    int output_fd = move_up(plan->output_fd);
    int listener_fd = move_up(plan->listener_fd);
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (output_fd == -1 || null_fd == -1 || dup2(null_fd, STDIN_FILENO) == -1 ||
        dup2(output_fd, STDOUT_FILENO) == -1 || dup2(output_fd, STDERR_FILENO) == -1 ||
        (plan->listener_fd != -1 && (listener_fd == -1 || dup2(listener_fd, PASSED_FD) == -1))) {
        exec_fail(exec_fd, EXEC_SETUP, errno);
    }
    /* What the master raised for itself may break programs that use select(2). */
    (void)setrlimit(RLIMIT_NOFILE, &master->inherited_nofile);
    int result = identity_take(&master->identity, plan->new_privileges);
    if (result != 0) {
        exec_fail(exec_fd, EXEC_IDENTITY, -result);
    }
    /* After the change of identity, which clears it; and the master may be gone already (prctl(2),
     * PR_SET_PDEATHSIG). */
    if (prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0) == -1) {
        exec_fail(exec_fd, EXEC_SETUP, errno);
    }
    if (getppid() != master->pid) {
        _exit(127);
    }
    if (plan->directory != NULL && chdir(plan->directory) == -1) {
        exec_fail(exec_fd, EXEC_DIRECTORY, errno);
    }
    exec_env_set_listen_pid(plan->env, getpid());
    environ = plan->env; /* execvp() looks in the PATH of the new environment */
    (void)execvp(plan->argv[0], plan->argv);
    exec_fail(exec_fd, EXEC_COMMAND, errno);
}

/* ---- starting -------------------------------------------------------------------------------- */

static const char *
env_value(char *const *env, const char *name)
{
    size_t length = strlen(name);

    for (size_t i = 0; env[i] != NULL; i++) {
        if (strncmp(env[i], name, length) == 0 && env[i][length] == '=') {
            return env[i] + length + 1;
        }
    }
    return "";
}

static void
explain_exec_failure(struct instance *instance, const struct exec_failure *failure,
                     struct buf *text)
{
    const struct backend_settings *settings = instance->slot->app->settings;
    const struct config *config = master_of(instance)->config;
    const char *name = instance->slot->app->name;
    const char *reason = strerror(failure->error_number);
    const char *key = "command";
    const char *unused;
    char **words = settings != NULL && settings->command != NULL
                       ? command_split(settings->command, &(size_t){0}, &unused)
                       : NULL;
    const char *program = words != NULL && words[0] != NULL ? words[0] : "?";

    switch ((enum exec_stage)failure->stage) {
    case EXEC_SETUP:
        buf_addf(text, "cannot prepare the process: %s", reason);
        break;
    case EXEC_IDENTITY:
        buf_addf(text, "cannot become the user and group of the settings: %s", reason);
        break;
    case EXEC_DIRECTORY:
        key = "directory";
        buf_addf(text, "cannot change to the folder %s: %s",
                 settings != NULL ? settings->directory_path : "?", reason);
        break;
    case EXEC_COMMAND:
        if (failure->error_number == ENOENT && strchr(program, '/') == NULL) {
            char **env =
                exec_env_build(master_of(instance)->args->envp,
                               settings != NULL ? &settings->environment : &(struct text_list){0},
                               &(struct exec_offer){.fd = -1, .port = -1});
            buf_addf(text, "command not found: %s; looked in PATH=%s", program,
                     env_value(env, "PATH"));
            exec_free(env);
        } else if (failure->error_number == ENOENT && access(program, F_OK) == 0) {
            buf_addf(text, "cannot execute %s: the interpreter in its first line does not exist",
                     program);
        } else {
            buf_addf(text, "cannot execute %s: %s", program, reason);
        }
        break;
    }
    buf_addf(text, " ([backend:%s] %s, %s)", name, key,
             settings != NULL ? config_origin(config, "backend", name, key) : "removed");
    command_free(words);
}

static void
on_exec_result(struct ev_loop *loop, ev_io *watcher, int revents)
{
    struct instance *instance = container_of(watcher, struct instance, exec_result);
    struct exec_failure failure;

    (void)revents;
    ssize_t n = fd_read(instance->exec_fd, &failure, sizeof(failure));
    if (n == -1 && errno == EAGAIN) {
        return;
    }
    ev_io_stop(loop, watcher);
    fd_close(&instance->exec_fd);
    if (n == (ssize_t)sizeof(failure)) {
        struct buf text = {0};
        explain_exec_failure(instance, &failure, &text);
        free(instance->start_error);
        instance->start_error = buf_take(&text);
    }
}

/* Which ways to a listening socket the application is offered. */
static unsigned int
offers_of(const struct backend_settings *settings)
{
    char *unknown = NULL;
    unsigned int placeholders = command_placeholders(settings->command, &unknown);
    unsigned int offers = 0;

    free(unknown);
    switch (settings->listen) {
    case LISTEN_FD:
        return OFFER_FD;
    case LISTEN_SOCKET:
        return OFFER_SOCKET;
    case LISTEN_PORT:
        return OFFER_PORT;
    case LISTEN_AUTO:
    case LISTEN_MODE_COUNT:
        break;
    }
    offers |= (placeholders & COMMAND_HAS_FD) != 0 ? OFFER_FD : 0;
    offers |= (placeholders & COMMAND_HAS_SOCKET) != 0 ? OFFER_SOCKET : 0;
    offers |= (placeholders & COMMAND_HAS_PORT) != 0 ? OFFER_PORT : 0;
    return offers != 0 ? offers : OFFER_FD | OFFER_PORT;
}

/* The listening socket of this place; made again when somebody removed its node. */
static int
ensure_listener(struct instance *instance, struct buf *error)
{
    struct master *master = master_of(instance);
    struct unix_listener *listener = &instance->slot->listeners[instance->half];
    struct unix_listener_options options = {.mode = 0600,
                                            .change_owner = master->identity.drop,
                                            .uid = master->identity.uid,
                                            .gid = master->identity.gid,
                                            .backlog = (int)master->config->master.backlog,
                                            .blocking = true,
                                            .in_place = true};

    int result = runtime_dir_ensure(&master->runtime_dir, master->config, &master->identity, error);
    if (result != 0 || unix_listener_is_ours(listener)) {
        return result;
    }
    fd_close(&listener->fd);
    char *path = xasprintf("%s/%s-%u%c.sock", master->runtime_dir.path, instance->slot->app->name,
                           instance->slot->number, instance->half == 0 ? 'a' : 'b');
    size_t before = error->len;
    result = unix_listener_open(listener, path, &options, error);
    if (result != 0) {
        buf_addf(error, " (%s)", path);
    } else {
        CHECK(error->len == before);
    }
    free(path);
    return result;
}

static int
choose_socket_path(struct instance *instance, struct buf *error)
{
    struct master *master = master_of(instance);
    int result = runtime_dir_ensure(&master->runtime_dir, master->config, &master->identity, error);

    if (result != 0) {
        return result;
    }
    int n = snprintf(instance->socket_path, sizeof(instance->socket_path), "%s/%s-%u%c.app.sock",
                     master->runtime_dir.path, instance->slot->app->name, instance->slot->number,
                     instance->half == 0 ? 'a' : 'b');
    if (n < 0 || (size_t)n >= sizeof(instance->socket_path)) {
        instance->socket_path[0] = '\0';
        buf_addf(error, "the path of its socket would be longer than a unix socket may have; use a "
                        "shorter [master] runtime_dir");
        return -ENAMETOOLONG;
    }
    (void)unlink(instance->socket_path); /* of an earlier life; the folder is ours alone */
    return 0;
}

static int
make_offer(struct instance *instance, struct exec_offer *ret_offer, struct buf *error)
{
    struct exec_offer offer = {.fd = -1, .port = -1, .name = instance->slot->app->name};
    const struct identity *identity = &master_of(instance)->identity;
    int result = 0;

    if (identity->drop && identity->change_user) {
        offer.user = identity->name;
        offer.home = identity->home;
    }
    instance->offers = offers_of(instance->slot->app->settings);
    instance->socket_path[0] = '\0';
    instance->port = -1;
    if ((instance->offers & OFFER_FD) != 0) {
        result = ensure_listener(instance, error);
        offer.fd = PASSED_FD;
        offer.listen_fds = strstr(instance->slot->app->settings->command, "{fd}") == NULL;
    }
    if (result == 0 && (instance->offers & OFFER_SOCKET) != 0) {
        result = choose_socket_path(instance, error);
        offer.socket = instance->socket_path;
    }
    if (result == 0 && (instance->offers & OFFER_PORT) != 0) {
        instance->port = free_port_find();
        offer.port = instance->port;
        if (instance->port < 0) {
            result = instance->port;
            buf_addf(error, "no free TCP port: %s", strerror(-result));
        }
    }
    *ret_offer = offer;
    return result;
}

static int
open_pipes(struct instance *instance, struct exec_plan *plan)
{
    int output[2];
    int exec_result[2];

    if (pipe2(output, O_CLOEXEC) == -1) {
        return -errno;
    }
    plan->output_read_fd = output[0];
    plan->output_fd = output[1]; /* blocking, as programs expect of their stdout */
    if (pipe2(exec_result, O_CLOEXEC) == -1) {
        return -errno;
    }
    instance->exec_fd = exec_result[0];
    plan->exec_fd = exec_result[1];
    int result = fd_set_nonblock(plan->output_read_fd, true);
    return result != 0 ? result : fd_set_nonblock(instance->exec_fd, true);
}

static void
watch_exec(struct instance *instance)
{
    ev_io_set(&instance->exec_result, instance->exec_fd, EV_READ);
    ev_io_start(master_of(instance)->loop, &instance->exec_result);
}

static void
probe_start(struct instance *instance)
{
    struct ev_loop *loop = master_of(instance)->loop;

    instance->probe_interval_ms = PROBE_FIRST_MS;
    instance->probe_ipv6 = false;
    ev_now_update(loop);
    ev_timer_set(&instance->probe, ms_to_seconds(PROBE_FIRST_MS), 0.);
    ev_timer_start(loop, &instance->probe);
}

static int
life_begin(struct instance *instance, struct buf *error)
{
    struct master *master = master_of(instance);
    const struct backend_settings *settings = instance->slot->app->settings;
    struct exec_plan plan = {
        .listener_fd = -1, .output_fd = -1, .output_read_fd = -1, .exec_fd = -1};
    struct exec_offer offer;
    const char *split_error = NULL;
    pid_t pid = -1;

    CHECK(settings != NULL); /* apps_commit() leaves nothing that could start */
    plan.new_privileges = settings->new_privileges;
    int result = make_offer(instance, &offer, error);

    if (result != 0) {
        if (result == -EMFILE || result == -ENFILE) {
            buf_addf(error, "%s", child_start_hint(-result));
        }
        return result;
    }
    plan.argv = exec_argv_build(settings->command, &offer, &split_error);
    if (plan.argv == NULL || plan.argv[0] == NULL) {
        buf_addf(error, "[backend:%s] command: %s", instance->slot->app->name,
                 split_error != NULL ? split_error : "it has no words");
        result = -EINVAL;
        goto done;
    }
    plan.env = exec_env_build(master->args->envp, &settings->environment, &offer);
    plan.directory = settings->directory_path;
    plan.listener_fd = offer.fd != -1 ? instance->slot->listeners[instance->half].fd : -1;
    result = open_pipes(instance, &plan);
    if (result == 0) {
        signals_block();
        pid = fork();
        if (pid == 0) {
            become_application(instance, &plan);
        }
        result = pid == -1 ? -errno : 0;
        signals_unblock();
    }
    if (result != 0) {
        buf_addf(error, "%s%s", strerror(-result), child_start_hint(-result));
    }

done:
    fd_close(&plan.output_fd);
    fd_close(&plan.exec_fd);
    exec_free(plan.argv);
    exec_free(plan.env);
    if (result != 0) {
        fd_close(&plan.output_read_fd);
        fd_close(&instance->exec_fd);
        return result;
    }
    (void)setpgid(pid, pid); /* the child does it too: whoever is first. EACCES: it has exec'd */
    app_output_start(&instance->output, plan.output_read_fd);
    watch_exec(instance);
    probe_start(instance);
    child_born(&instance->child, pid, master->config->master.boot_timeout_ms);
    return 0;
}

void
instance_start(struct instance *instance)
{
    struct child *child = &instance->child;
    struct buf error = {0};

    instance->generation = instance->slot->app->generation;
    free(instance->start_error);
    instance->start_error = NULL;
    recycle_life_begin(&instance->recycle,
                       atomic_load_explicit(&record_of(instance)->requests, memory_order_relaxed));
    if (life_begin(instance, &error) == 0) {
        log_debug("%s started pid=%d", child->name, (int)child->pid);
    } else {
        instance->start_error = buf_take(&error);
        child_start_failed(child, &instance->slot->respawn, instance->start_error);
    }
    buf_release(&error);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void
life_end(struct instance *instance)
{
    struct ev_loop *loop = master_of(instance)->loop;

    probe_stop(instance);
    ev_timer_stop(loop, &instance->drain);
    app_output_finish(&instance->output);
    if (instance->exec_fd != -1) {
        ev_io_stop(loop, &instance->exec_result);
        fd_close(&instance->exec_fd);
    }
    if (instance->socket_path[0] != '\0') {
        (void)unlink(instance->socket_path); /* many applications leave theirs behind */
        instance->socket_path[0] = '\0';
    }
}

static const char *
offer_text(const struct instance *instance)
{
    if (instance->offers == (OFFER_FD | OFFER_PORT)) {
        return "it answered neither on the socket of LISTEN_FDS nor on PORT; put {fd}, {socket} or "
               "{port} into its command";
    }
    if ((instance->offers & OFFER_FD) != 0) {
        return "it did not accept a connection on the listening socket that it got as descriptor 3";
    }
    if ((instance->offers & OFFER_SOCKET) != 0) {
        return "it did not listen on the unix socket that it was told";
    }
    return "it did not listen on the port that it was told";
}

const char *
instance_last_words(const struct instance *instance)
{
    return instance->start_error != NULL ? instance->start_error
                                         : line_log_last(&instance->output.lines, 0);
}

static void
tell_death(const struct instance *instance, const struct child_death *death,
           const struct respawn_verdict *verdict)
{
    char how[CHILD_DEATH_TEXT_MAX];
    char delay[RESPAWN_DELAY_TEXT_MAX];
    struct buf text = {0};
    const char *last = line_log_last(&instance->output.lines, 0);
    bool was_ready = death->record->was_ready;

    respawn_print_delay(verdict, delay);
    child_describe_status(death->status, how);
    death_add_facts(death->record, &text);
    if (instance->start_error != NULL) {
        buf_addf(&text, ": %s", instance->start_error);
    } else if (death->ours != NULL) {
        buf_addf(&text, " killed_for=%s: %s", death->ours, was_ready ? "" : offer_text(instance));
    }
    if (last != NULL) {
        buf_addf(&text, "; last words: %.500s", last);
    }
    if (verdict->report == RESPAWN_SUMMARIZE) {
        log_error("%s dies again and again deaths=%u in=%llds last_pid=%d last_%s next_try=%s%s",
                  instance->child.name, verdict->deaths, (long long)(verdict->row_ms / 1000),
                  (int)death->pid, how, delay, text.ptr);
    } else if (verdict->report == RESPAWN_FOLD) {
        log_debug("%s died pid=%d %s%s", instance->child.name, (int)death->pid, how, text.ptr);
    } else {
        log_error("%s died pid=%d %s uptime=%lldms ready=%s respawn_in=%s%s", instance->child.name,
                  (int)death->pid, how, (long long)death->uptime_ms, was_ready ? "yes" : "never",
                  delay, text.ptr);
        app_output_tell_last_words(&instance->output, death->pid);
    }
    buf_release(&text);
}

static void
complete_record(const struct instance *instance, struct board_death *record)
{
    const char *last = line_log_last(&instance->output.lines, 0);

    record->slot = instance->slot->number;
    record->generation = instance->generation;
    death_set_words(record, instance->start_error != NULL ? instance->start_error
                            : last != NULL                ? last
                                                          : "");
}

static void
on_death(struct child *child, const struct child_death *death)
{
    struct instance *instance = instance_from_child(child);

    child->pid = death->pid; /* for the lines that are still in the pipe */
    if (instance->exec_fd != -1) {
        on_exec_result(master_of(instance)->loop, &instance->exec_result, EV_READ);
    }
    life_end(instance);
    child->pid = 0;
    complete_record(instance, death->record);
    if (instance->leaving) {
        child_tell_departure(child, death);
        app_on_gone(instance);
        return;
    }
    if (instance == instance->slot->next) {
        struct respawn_verdict never = respawn_never();
        deaths_add(master_of(instance)->board, death->record, ++instance->slot->failed_successors);
        events_death(master_of(instance), death->record);
        tell_death(instance, death, &never);
        app_on_gone(instance);
        return;
    }
    struct respawn_verdict verdict = child_next_life(&instance->slot->respawn, death);
    deaths_add(master_of(instance)->board, death->record, verdict.deaths);
    events_death(master_of(instance), death->record);
    tell_death(instance, death, &verdict);
    child_set_state(child, CHILD_BACKOFF, verdict.delay_ms);
    app_on_gone(instance);
}

static void
on_start(struct child *child)
{
    if (master_may_start(child->master)) {
        instance_start(instance_from_child(child));
    } else {
        child_set_state(child, CHILD_BACKOFF, 0); /* in the next turn */
    }
}

/* What workers see: a record is READY while new requests may go there. */
static enum board_state
shown_state(const struct instance *instance)
{
    switch (instance->child.state) {
    case CHILD_GONE:
        return BOARD_FREE;
    case CHILD_BACKOFF:
    case CHILD_ABORTED:
    case CHILD_KILLED:
        return BOARD_DOWN;
    case CHILD_STARTING:
        return BOARD_STARTING;
    case CHILD_READY:
        return instance->leaving ? BOARD_DRAINING : BOARD_READY;
    case CHILD_DRAINING:
        return BOARD_DRAINING;
    case CHILD_STATE_COUNT:
        break;
    }
    return BOARD_DOWN;
}

static void
show_state(struct child *child)
{
    struct instance *instance = instance_from_child(child);
    struct board_server *record = record_of(instance);

    atomic_store_explicit(&record->pid, (uint32_t)child->pid, memory_order_relaxed);
    atomic_store_explicit(&record->state, shown_state(instance), memory_order_seq_cst);
    if (shown_state(instance) == BOARD_READY) {
        waiting_serve(child->master);
    }
}

static const struct child_ops instance_ops = {
    .on_state = show_state, .on_death = on_death, .on_start = on_start};

/* ---- leaving --------------------------------------------------------------------------------- */

void
instance_stop(struct instance *instance, int64_t timeout_ms)
{
    struct child *child = &instance->child;

    instance->leaving = true;
    ev_timer_stop(master_of(instance)->loop, &instance->drain);
    probe_stop(instance);
    if (child->state != CHILD_STARTING && child->state != CHILD_READY &&
        child->state != CHILD_DRAINING) {
        return;
    }
    child_signal(child, SIGTERM);
    child_set_state(child, CHILD_DRAINING, timeout_ms);
}

static void
on_drain(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct instance *instance = container_of(timer, struct instance, drain);
    struct master *master = master_of(instance);
    bool idle = atomic_load_explicit(&record_of(instance)->in_flight, memory_order_relaxed) == 0;

    (void)loop;
    (void)revents;
    /* Idle twice: a worker may have chosen this record just before it stopped being READY. */
    if ((idle && instance->seen_idle) || clock_mono_ms() >= instance->drain_until_ms) {
        instance_stop(instance, master->config->master.graceful_timeout_ms);
        return;
    }
    instance->seen_idle = idle;
}

static void
drain_start(struct instance *instance)
{
    instance->seen_idle = false;
    ev_timer_set(&instance->drain, ms_to_seconds(DRAIN_LOOK_MS), ms_to_seconds(DRAIN_LOOK_MS));
    ev_timer_start(master_of(instance)->loop, &instance->drain);
}

void
instance_retire(struct instance *instance)
{
    struct master *master = master_of(instance);
    int64_t graceful_ms = master->config->master.graceful_timeout_ms;

    instance->leaving = true;
    if (instance->child.state != CHILD_READY) {
        instance_stop(instance, graceful_ms);
        return;
    }
    show_state(&instance->child);
    instance->drain_until_ms = clock_mono_ms() + graceful_ms;
    drain_start(instance);
}

/* ---- from one program to the next ------------------------------------------------------------ */

void
instance_show(struct instance *instance)
{
    struct board_server *record = record_of(instance);

    if (instance->child.ready_since_ms > 0 && instance->child.pid != 0) {
        record->address = instance->address;
        atomic_fetch_add_explicit(&record->life, 1, memory_order_relaxed);
    }
    show_state(&instance->child);
}

void
instance_resume(struct instance *instance)
{
    /* Its age goes on; its requests are counted from now. */
    recycle_life_begin(&instance->recycle,
                       atomic_load_explicit(&record_of(instance)->requests, memory_order_relaxed));
    if (instance->exec_fd != -1) {
        watch_exec(instance);
    }
    if (instance->child.state == CHILD_STARTING) {
        probe_start(instance);
    }
    if (instance->child.state == CHILD_READY && instance->leaving) {
        drain_start(instance);
    }
}

/* ---- lifecycle ------------------------------------------------------------------------------- */

struct instance *
instance_new(struct instance_slot *slot, uint32_t half)
{
    struct instance *instance = xcalloc(1, sizeof(*instance));

    child_init(&instance->child, slot->app->master, &instance_ops);
    (void)snprintf(instance->child.name, sizeof(instance->child.name), "instance %s/%u",
                   slot->app->name, slot->number);
    instance->child.boot_setting = "[master] boot_timeout";
    instance->child.leads_group = true;
    instance->slot = slot;
    instance->half = half;
    instance->port = -1;
    instance->exec_fd = -1;
    instance->probe_fd = -1;
    ev_io_init(&instance->exec_result, on_exec_result, 0, EV_READ);
    ev_timer_init(&instance->probe, on_probe, 0., 0.);
    ev_timer_init(&instance->drain, on_drain, 0., 0.);
    app_output_init(&instance->output, slot->app->master->loop, &instance->child);
    list_init(&instance->node);
    return instance;
}

void
instance_free(struct instance *instance)
{
    if (instance == NULL) {
        return;
    }
    life_end(instance);
    child_set_state(&instance->child, CHILD_GONE, CHILD_NO_DEADLINE);
    child_release(&instance->child);
    list_remove(&instance->node);
    app_output_release(&instance->output);
    free(instance->start_error);
    free(instance);
}
