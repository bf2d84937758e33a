/* SPDX-License-Identifier: Apache-2.0
 *
 * Gathers what is and hands it to those who judge: doctor_limits.c, doctor_unit.c, doctor_paths.c.
 * A short-lived process of its own, which may wait, fork and look things up.
 */
#include "master/doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/base/clock.h"
#include "config/base/fd.h"
#include "config/command.h"
#include "config/config.h"
#include "master/doctor_limits.h"
#include "master/doctor_paths.h"
#include "master/doctor_report.h"
#include "master/doctor_unit.h"
#include "master/identity.h"
#include "master/master.h"
#include "master/port_holder.h"

#define DEFAULT_UNIT "narwhal.service"
#define UNIT_BYTES_MAX ((size_t)1 << 20)
/* How long systemctl may take. */
#define SYSTEMCTL_MS 5000

static const char usage[] =
    "Usage: narwhal doctor [--unit UNIT] [--cgroup FOLDER] -c FILE [FLAG...]\n"
    "\n"
    "Looks at the machine, the unit of systemd and the settings, and says what is wrong, with one\n"
    "line of advice each. Changes nothing. As root it looks with the eyes of [master] user.\n"
    "\n"
    "  --unit UNIT      the unit: a name that systemctl knows, or the path of a unit file (with a\n"
    "                   '/'); default " DEFAULT_UNIT ", if there is one\n"
    "  --cgroup FOLDER  the cgroup that narwhal will run in; default that of the unit if it runs,\n"
    "                   else that of this process\n"
    "  -c FILE, FLAG    as narwhal is to be started: narwhal --help\n"
    "\n"
    "Exit status: 0 nothing is to fail (there may be warnings), 1 something is, 64 wrong usage.\n";

struct doctor {
    struct doctor_report report;
    struct config *config; /* owned */
    struct doctor_unit unit;
    bool has_unit;
    const char *unit_name; /* of the command line; NULL: the default */
    const char *cgroup;    /* of the command line; NULL */
    char *unit_cgroup;     /* owned; of the running unit; NULL */
};

/* ---- the unit -------------------------------------------------------------------------------- */

/* Reads to the end, or to a bound, or for a time. False when it was not the end. */
static bool
read_all(int fd, struct buf *out)
{
    int64_t until_ms = clock_mono_ms() + SYSTEMCTL_MS;
    struct pollfd ready = {.fd = fd, .events = POLLIN};

    while (out->len < UNIT_BYTES_MAX) {
        int64_t left_ms = until_ms - clock_mono_ms();
        if (left_ms <= 0 || poll(&ready, 1, (int)left_ms) != 1) {
            return false;
        }
        ssize_t n = fd_read(fd, buf_reserve(out, 4096), 4096);
        if (n <= 0) {
            return n == 0;
        }
        out->len += (size_t)n;
        out->ptr[out->len] = '\0';
    }
    return false;
}

/* What systemctl says to these words; false when there is none, or it fails. */
static bool
ask_systemctl(char *const words[], char **envp, struct buf *out)
{
    posix_spawn_file_actions_t actions;
    int pipe_fds[2];
    pid_t pid = -1;
    int status = -1;

    if (pipe2(pipe_fds, O_CLOEXEC) == -1) {
        return false;
    }
    bool is_ok = posix_spawn_file_actions_init(&actions) == 0;
    if (is_ok) {
        is_ok = posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], STDOUT_FILENO) == 0 &&
                posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY,
                                                 0) == 0 &&
                posix_spawnp(&pid, "systemctl", &actions, NULL, words, envp) == 0;
        (void)posix_spawn_file_actions_destroy(&actions);
    }
    fd_close(&pipe_fds[1]);
    if (is_ok) {
        is_ok = read_all(pipe_fds[0], out);
        if (!is_ok) {
            (void)kill(pid, SIGKILL);
        }
        while (waitpid(pid, &status, 0) == -1 && errno == EINTR) {
        }
        is_ok = is_ok && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    }
    fd_close(&pipe_fds[0]);
    return is_ok;
}

static bool
read_unit_file(struct doctor *doctor, struct buf *out)
{
    int fd = open(doctor->unit_name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = -1;

    while (fd != -1 && out->len < UNIT_BYTES_MAX &&
           (n = fd_read(fd, buf_reserve(out, 4096), 4096)) > 0) {
        out->len += (size_t)n;
        out->ptr[out->len] = '\0';
    }
    if (n != 0) {
        doctor_say(&doctor->report, DOCTOR_FAIL, "unit", "cannot read %s: %s", doctor->unit_name,
                   fd == -1 || n == -1 ? strerror(errno) : "it is too long for a unit");
    }
    fd_close(&fd);
    return n == 0;
}

/* Where the unit runs now, below the root of cgroup v2. */
static void
find_cgroup(struct doctor *doctor, char *name, char **envp)
{
    static char systemctl[] = "systemctl";
    static char show[] = "show";
    static char property[] = "--property=ControlGroup";
    static char value[] = "--value";
    char *const words[] = {systemctl, show, property, value, name, NULL};
    struct buf out = {0};

    if (ask_systemctl(words, envp, &out) && out.len > 1 && out.ptr[0] == '/') {
        out.ptr[strcspn(out.ptr, "\n")] = '\0';
        doctor->unit_cgroup = xasprintf("/sys/fs/cgroup%s", out.ptr);
    }
    buf_release(&out);
}

static void
load_unit(struct doctor *doctor, char **envp)
{
    static char systemctl[] = "systemctl";
    static char cat[] = "cat";
    static char pager[] = "--no-pager";
    bool is_file = doctor->unit_name != NULL && strchr(doctor->unit_name, '/') != NULL;
    char *name = xstrdup(doctor->unit_name != NULL ? doctor->unit_name : DEFAULT_UNIT);
    char *const words[] = {systemctl, cat, pager, name, NULL};
    struct buf text = {0};
    bool found = is_file ? read_unit_file(doctor, &text) : ask_systemctl(words, envp, &text);

    if (found) {
        doctor_unit_parse(&doctor->unit, text.ptr != NULL ? text.ptr : "");
        doctor->has_unit = true;
        if (!is_file) {
            find_cgroup(doctor, name, envp);
        }
    } else if (!is_file && doctor->unit_name != NULL) {
        doctor_say(&doctor->report, DOCTOR_FAIL, "unit",
                   "systemctl knows no unit %s, or there is no systemd here; --unit ./FILE is for "
                   "a file",
                   name);
    } else if (!is_file) {
        doctor_say(&doctor->report, DOCTOR_OK, "unit",
                   "not looked at: systemctl knows no " DEFAULT_UNIT " here");
    }
    buf_release(&text);
    free(name);
}

/* ---- ports ----------------------------------------------------------------------------------- */

/* What bind(2) says, without listening: nobody is disturbed. 0 or an errno. */
static int
try_bind(const struct address *address)
{
    int on = 1;
    int fd = socket(address->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int error = 0;

    if (fd == -1) {
        return errno;
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (address->sa.sa_family == AF_INET6) {
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    }
    if (bind(fd, &address->sa, address->length) == -1) {
        error = errno;
    }
    fd_close(&fd);
    return error;
}

static void
judge_taken(struct doctor *doctor, const struct address *address)
{
    struct buf holder = {0};

    if (!port_holder_find(address, &holder)) {
        doctor_say(&doctor->report, DOCTOR_FAIL, "port",
                   "%s is taken by somebody who cannot be seen from here (try as root: ss -ltnp)",
                   address->text);
    } else if (strstr(holder.ptr, "(narwhal") != NULL) {
        doctor_say(&doctor->report, DOCTOR_OK, "port", "%s is held by narwhal, %s", address->text,
                   holder.ptr);
    } else {
        doctor_say(&doctor->report, DOCTOR_FAIL, "port",
                   "%s is held by %s: stop it, or bind to another port", address->text, holder.ptr);
    }
    buf_release(&holder);
}

static void
judge_ports(struct doctor *doctor)
{
    for (size_t i = 0; i < doctor->config->master.bind.count; i++) {
        const struct address *address = &doctor->config->master.bind.item[i];
        if (address->kind != ADDRESS_TCP) {
            continue;
        }
        int error = try_bind(address);
        if (error == EADDRINUSE) {
            judge_taken(doctor, address);
        } else if (error == 0) {
            doctor_say(&doctor->report, DOCTOR_OK, "port", "%s is free", address->text);
        } else if (error == EACCES) {
            doctor_say(&doctor->report, DOCTOR_FAIL, "port",
                       "%s needs root, CAP_NET_BIND_SERVICE or a socket of systemd (fd://3)",
                       address->text);
        } else {
            doctor_say(&doctor->report, DOCTOR_FAIL, "port", "%s cannot be used: %s", address->text,
                       strerror(error));
        }
    }
}

/* ---- paths ----------------------------------------------------------------------------------- */

static void
add_path(struct doctor_paths *paths, enum doctor_who who, const char *path, int access_mode,
         bool is_made, const char *what)
{
    if (path != NULL) {
        const struct doctor_path item = {
            .who = who, .path = (char *)(uintptr_t)path, .access = access_mode, .is_made = is_made};
        doctor_paths_add(paths, &item, what);
    }
}

static void
add_program(struct doctor_paths *paths, const struct backend_settings *backend, const char *what)
{
    const char *error = NULL;
    size_t count = 0;
    char **words = command_split(backend->command, &count, &error);

    /* One without a slash is looked for in PATH, which the service may have another of. */
    if (words != NULL && count > 0 && strchr(words[0], '/') != NULL) {
        const char *folder =
            words[0][0] == '/' || backend->directory_path == NULL ? NULL : backend->directory_path;
        char *path = folder != NULL ? xasprintf("%s/%s", folder, words[0]) : xstrdup(words[0]);
        add_path(paths, DOCTOR_WORKER, path, X_OK, false, what);
        free(path);
    }
    command_free(words);
}

static void
add_backend(struct doctor_paths *paths, const struct backend_settings *backend)
{
    char *what = xasprintf("[backend:%s] server", backend->name);

    for (size_t i = 0; i < backend->server.count; i++) {
        const struct address *address = &backend->server.item[i].address;
        /* A name in the abstract name space has no permissions. */
        if (address->kind == ADDRESS_UNIX && address->un.sun_path[0] == '/') {
            add_path(paths, DOCTOR_WORKER, address->un.sun_path, W_OK, false, what);
        }
    }
    free(what);
    if (backend->command == NULL) {
        return;
    }
    what = xasprintf("[backend:%s] directory", backend->name);
    add_path(paths, DOCTOR_WORKER, backend->directory_path, X_OK, false, what);
    free(what);
    what = xasprintf("[backend:%s] command", backend->name);
    add_program(paths, backend, what);
    free(what);
}

static void
add_target(struct doctor_paths *paths, const struct log_target *target, const char *what)
{
    if (target->kind == TARGET_FILE) {
        add_path(paths, DOCTOR_MASTER, target->path, W_OK, true, what);
    }
}

static void
add_all_paths(const struct config *config, struct doctor_paths *paths)
{
    for (size_t i = 0; i < config->route_count; i++) {
        if (config->routes[i].static_path == NULL) {
            continue;
        }
        char *what = xasprintf("[route:%s] static", config->routes[i].name);
        const struct doctor_path item = {.who = DOCTOR_WORKER,
                                         .path = config->routes[i].static_path,
                                         .access = R_OK | X_OK,
                                         .tree = true};
        doctor_paths_add(paths, &item, what);
        free(what);
    }
    for (size_t i = 0; i < config->backend_count; i++) {
        add_backend(paths, &config->backends[i]);
    }
    add_target(paths, &config->log.error, "[log] error");
    add_target(paths, &config->log.access, "[log] access");
    add_path(paths, DOCTOR_MASTER, config->master.pidfile_path, W_OK, true, "[master] pidfile");
    add_path(paths, DOCTOR_MASTER, config->master.control_path, W_OK, true, "[master] control");
    add_path(paths, DOCTOR_MASTER, config->master.runtime_dir_path, W_OK | X_OK, true,
             "[master] runtime_dir");
    for (size_t i = 0; i < config->master.bind.count; i++) {
        const struct address *address = &config->master.bind.item[i];
        if (address->kind == ADDRESS_UNIX && address->un.sun_path[0] == '/') {
            add_path(paths, DOCTOR_MASTER, address->un.sun_path, W_OK, true, "[master] bind");
        }
    }
}

/* With other names for user and group than the settings have. */
static bool
resolve(struct doctor *doctor, char *user, char *group, struct identity *ret_identity)
{
    struct config shifted = *doctor->config;
    struct buf error = {0};

    shifted.master.user = user;
    shifted.master.group = group;
    bool is_ok = identity_resolve(&shifted, ret_identity, &error) == 0;
    if (!is_ok) {
        doctor_say(&doctor->report, geteuid() == 0 ? DOCTOR_FAIL : DOCTOR_WARN, "permissions",
                   "looked at as uid %u: %s", (unsigned int)geteuid(), error.ptr);
        *ret_identity = (struct identity){.uid = geteuid(), .gid = getegid()};
    }
    buf_release(&error);
    return is_ok;
}

static void
judge_paths(struct doctor *doctor)
{
    struct doctor_paths paths = {0};
    struct identity master;
    struct identity worker;
    struct master_settings *settings = &doctor->config->master;

    (void)resolve(doctor, doctor->unit.user, doctor->unit.group, &master);
    worker = master;
    if (settings->user != NULL || settings->group != NULL) {
        (void)resolve(doctor, settings->user, settings->group, &worker);
    }
    add_all_paths(doctor->config, &paths);
    doctor_paths_judge(&paths, &master, &worker, doctor->has_unit ? &doctor->unit : NULL,
                       &doctor->report);
    doctor_paths_release(&paths);
}

/* ---- all of it ------------------------------------------------------------------------------- */

static void
judge_all(struct doctor *doctor, char **envp)
{
    const struct config *config = doctor->config;
    struct doctor_wants wants;
    struct doctor_limits limits;

    doctor_say(&doctor->report, DOCTOR_OK, "settings", "%s: backends %zu, routes %zu",
               config->path != NULL ? config->path : "flags", config->backend_count,
               config->route_count);
    load_unit(doctor, envp);
    doctor_wants_of(config, master_configured_workers(config), &wants);
    doctor_limits_read(&limits, doctor->cgroup != NULL ? doctor->cgroup : doctor->unit_cgroup);
    if (doctor->has_unit) {
        doctor_judge_unit(&doctor->report, &doctor->unit, &wants);
        limits.nofile = -1; /* the unit's counts, not that of this shell */
    }
    doctor_judge_backlog(&doctor->report, config->master.backlog,
                         config_origin(config, "master", NULL, "backlog"), limits.somaxconn);
    doctor_judge_nofile(&doctor->report, &wants, limits.nofile);
    doctor_judge_cgroup(&doctor->report, &wants, config->master.workers, &limits);
    judge_paths(doctor);
    judge_ports(doctor);
}

static void
load_settings(struct doctor *doctor, const struct config_args *args)
{
    struct config_errors errors = {0};

    doctor->config = config_load(args, &errors);
    for (size_t i = 0; i < errors.count; i++) {
        doctor_say(&doctor->report, DOCTOR_FAIL, "settings", "%s", errors.item[i]);
    }
    config_errors_release(&errors);
}

static int
print_report(const struct doctor_report *report)
{
    (void)fputs(report->text.ptr != NULL ? report->text.ptr : "", stdout);
    (void)printf("%zu ok, %zu warnings, %zu failures\n", report->counts[DOCTOR_OK],
                 report->counts[DOCTOR_WARN], report->counts[DOCTOR_FAIL]);
    if (fflush(stdout) == EOF || ferror(stdout) != 0) {
        perror("narwhal: cannot write to stdout");
        return EX_IOERR;
    }
    return report->counts[DOCTOR_FAIL] > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int
usage_error(const char *what)
{
    (void)fprintf(stderr, "narwhal doctor: %s\n\n%s", what, usage);
    return EX_USAGE;
}

/* Takes the doctor's own options out of argv; the rest is the command line of narwhal. NULL, or
 * what is wrong. */
static const char *
take_options(struct doctor *doctor, int *argc, char **argv)
{
    int kept = 1;

    for (int i = 2; i < *argc; i++) {
        const char **value = strcmp(argv[i], "--unit") == 0     ? &doctor->unit_name
                             : strcmp(argv[i], "--cgroup") == 0 ? &doctor->cgroup
                                                                : NULL;
        if (value == NULL) {
            argv[kept++] = argv[i];
        } else if (++i == *argc || argv[i][0] == '\0') {
            return "--unit and --cgroup need a value";
        } else {
            *value = argv[i];
        }
    }
    *argc = kept;
    argv[kept] = NULL;
    return NULL;
}

int
doctor_main(int argc, char **argv, char **envp)
{
    struct doctor doctor = {.unit_name = NULL};
    struct config_args args;
    int status = EX_USAGE;
    const char *wrong = take_options(&doctor, &argc, argv);

    if (wrong != NULL) {
        return usage_error(wrong);
    }
    config_args_parse(&args, argc, argv, envp);
    if (args.command == CONFIG_HELP) {
        (void)fputs(usage, stdout);
        status = fflush(stdout) == EOF ? EX_IOERR : EX_OK;
    } else if (args.command != CONFIG_RUN) {
        status = usage_error(args.usage_error != NULL ? args.usage_error
                                                      : "only flags that run narwhal are of use");
    } else {
        load_settings(&doctor, &args);
        if (doctor.config != NULL) {
            judge_all(&doctor, envp);
        }
        status = print_report(&doctor.report);
    }
    config_args_release(&args);
    config_free(doctor.config);
    doctor_unit_release(&doctor.unit);
    free(doctor.unit_cgroup);
    doctor_report_release(&doctor.report);
    return status;
}
