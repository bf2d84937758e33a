/* SPDX-License-Identifier: Apache-2.0
 *
 *   IDLE ──USR2──► CHECKING ──it can──► CHECKED ──no reload──► LEAVING ──one turn──► (exec)
 *    ▲  └► WAITING ──▲ │                                                               │
 *    └──── refused ────┴───────────────── it cannot be executed ───────────────────────┘
 *
 * The turn between CHECKED and the exec is for signals that libev's handler has taken and nobody
 * has acted on: exec would lose them. Those that come later wait in the kernel, blocked, and are
 * delivered to the new program (execve(2) keeps mask and pending signals).
 */
#include "master/upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/base/clock.h"
#include "config/base/fd.h"
#include "config/base/log.h"
#include "config/config.h"
#include "master/after_fork.h"
#include "master/app_output.h"
#include "master/child.h"
#include "master/handover.h"
#include "master/master.h"
#include "master/state.h"
#include "master/takeover.h"

/* Where the child that tries finds the state. */
#define CHECK_STATE_FD 3
/* What it says on its stdout when all is well: another program that exits 0 does not say it. */
#define CHECK_ANSWER "can take over: narwhal "
#define ANSWER_MAX 128
/* What control clients get to take their answers, and how often it is looked. */
#define CLIENTS_MS 1000
#define CLIENTS_LOOK_MS 10
/* Reading the settings is a matter of milliseconds. */
#define CHECK_TIMEOUT_MS 10000

struct upgrade_check {
    struct child child;
    struct app_output output; /* its stderr */
    int answer_fd;            /* owned; its stdout */
};

/* ---- which program --------------------------------------------------------------------------- */

static char *
absolute(const char *path)
{
    char *folder;

    if (path[0] == '/') {
        return xstrdup(path);
    }
    /* $PWD if it is right: symbolic links in it may be what an operator changes (getcwd(3)). */
    folder = get_current_dir_name();
    char *result = folder != NULL ? xasprintf("%s/%s", folder, path) : NULL;
    free(folder);
    return result;
}

static char *
find_in_path(const char *name)
{
    const char *rest = getenv("PATH");
    char *found = NULL;

    while (rest != NULL && found == NULL) {
        int length = (int)strcspn(rest, ":");
        char *path =
            length > 0 ? xasprintf("%.*s/%s", length, rest, name) : xasprintf("./%s", name);
        if (access(path, X_OK) == 0) {
            found = absolute(path);
        }
        free(path);
        rest = rest[length] == ':' ? rest + length + 1 : NULL;
    }
    return found;
}

static char *
find_self(void)
{
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

    return n > 0 ? xstrndup(path, (size_t)n) : NULL;
}

static void
on_turn(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct master *master = ev_userdata(loop);

    (void)timer;
    (void)revents;
    master->upgrade.turned = true;
    master_changed(master);
}

void
upgrade_init(struct master *master)
{
    struct upgrade *upgrade = &master->upgrade;
    ev_timer_init(&upgrade->turn, on_turn, 0., 0.);
    const char *name = master->args->argc > 0 ? master->args->argv[0] : "";

    if (strchr(name, '/') != NULL) {
        upgrade->program = absolute(name);
    } else if (name[0] != '\0') {
        upgrade->program = find_in_path(name);
    }
    if (upgrade->program == NULL) {
        upgrade->program = find_self();
    }
}

/* ---- refusing -------------------------------------------------------------------------------- */

static void
welcome_clients(struct master *master)
{
    if (master->upgrade.clients_until_ms != 0) {
        master->upgrade.clients_until_ms = 0;
        control_hold(master, false);
    }
}

static void
end(struct master *master)
{
    struct upgrade *upgrade = &master->upgrade;

    ev_timer_stop(master->loop, &upgrade->turn);
    welcome_clients(master);
    upgrade->state = UPGRADE_IDLE;
}

static void
refuse(struct master *master, const char *why)
{
    log_error("upgrade refused, everything goes on as before: %s cannot take over: %s",
              master->upgrade.program, why);
    char *text = xasprintf("everything goes on as before: %s cannot take over: %s",
                           master->upgrade.program, why);
    operation_end(master, master->upgrade.operation, OPERATION_FAILED, text);
    free(text);
    end(master);
    master_changed(master);
}

/* ---- the child that tries -------------------------------------------------------------------- */

static struct upgrade_check *
check_from_child(struct child *child)
{
    return container_of(child, struct upgrade_check, child);
}

static void
check_free(struct upgrade_check *check)
{
    app_output_release(&check->output);
    fd_close(&check->answer_fd);
    child_release(&check->child);
    free(check);
}

/* The version of the new program, or NULL when the answer is not that of a narwhal. */
static const char *
read_answer(struct upgrade_check *check, char answer[ANSWER_MAX])
{
    const size_t prefix = strlen(CHECK_ANSWER);
    ssize_t n = fd_read(check->answer_fd, answer, ANSWER_MAX - 1);

    if (n <= (ssize_t)prefix || memcmp(answer, CHECK_ANSWER, prefix) != 0) {
        return NULL;
    }
    answer[n] = '\0';
    answer[strcspn(answer, "\n")] = '\0';
    return answer + prefix;
}

static void
judge(struct upgrade_check *check, const struct child_death *death)
{
    struct master *master = check->child.master;
    char answer[ANSWER_MAX];
    char how[CHILD_DEATH_TEXT_MAX];
    const char *version = read_answer(check, answer);
    const char *last = line_log_last(&check->output.lines, 0);

    if (WIFEXITED(death->status) && WEXITSTATUS(death->status) == 0 && version != NULL) {
        log_info("upgrade: the check is done program=%s version=%s", master->upgrade.program,
                 version);
        master->upgrade.state = UPGRADE_CHECKED;
        return;
    }
    struct buf why = {0};
    child_describe_status(death->status, how);
    if (death->ours != NULL) {
        buf_addf(&why, "its check took longer than %d ms; is it a narwhal?", CHECK_TIMEOUT_MS);
    } else if (WIFEXITED(death->status) && WEXITSTATUS(death->status) == 0) {
        buf_add_text(&why, "it does not answer as a narwhal does");
    } else {
        buf_addf(&why, "its check ended with %s", how);
    }
    if (last != NULL) {
        buf_addf(&why, "; last words: %.500s", last);
    }
    app_output_tell_last_words(&check->output, death->pid);
    refuse(master, why.ptr);
    buf_release(&why);
}

static void
check_on_death(struct child *child, const struct child_death *death)
{
    struct upgrade_check *check = check_from_child(child);
    struct upgrade *upgrade = &child->master->upgrade;

    child->pid = death->pid; /* for the lines that are still in the pipe */
    app_output_finish(&check->output);
    child->pid = 0;
    upgrade->check = NULL;
    if (upgrade->state == UPGRADE_CHECKING) {
        judge(check, death);
    }
    check_free(check);
}

static void
check_on_state(struct child *child)
{
    (void)child; /* nobody is shown it */
}

static void
check_on_start(struct child *child)
{
    (void)child;
    CHECK(!"it has one life");
}

static const struct child_ops check_ops = {
    .on_state = check_on_state, .on_death = check_on_death, .on_start = check_on_start};

/* argv with the check flag put in. The array is the caller's, the texts are not. */
static char **
check_argv(const struct config_args *args, char *number)
{
    static char flag[] = UPGRADE_CHECK_FLAG;
    char **argv = xcalloc((size_t)args->argc + 4, sizeof(*argv));
    int count = 0;

    argv[count++] = args->argc > 0 ? args->argv[0] : flag;
    argv[count++] = flag;
    argv[count++] = number;
    for (int i = 1; i < args->argc; i++) {
        argv[count++] = args->argv[i];
    }
    return argv;
}

static _Noreturn void
become_check(struct master *master, int state_fd, int answer_fd, int output_fd)
{
    static char number[] = {'0' + CHECK_STATE_FD, '\0'};
    const int keep[] = {state_fd, answer_fd, output_fd};
    const struct config_args *args = master->args;
    char **argv = check_argv(args, number);

    signals_reset_in_child(master);
    after_fork_leave_group();
    after_fork_close_all_but(keep, sizeof(keep) / sizeof(keep[0]));
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); /* an orphan would do no harm */
    (void)setrlimit(RLIMIT_NOFILE, &master->inherited_nofile);
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    /* Out of the way of 0 to 3, where they go. */
    int state_up = fcntl(state_fd, F_DUPFD_CLOEXEC, CHECK_STATE_FD + 1);
    int answer_up = fcntl(answer_fd, F_DUPFD_CLOEXEC, CHECK_STATE_FD + 1);
    int output_up = fcntl(output_fd, F_DUPFD_CLOEXEC, CHECK_STATE_FD + 1);
    if (null_fd == -1 || dup2(null_fd, STDIN_FILENO) == -1 ||
        dup2(output_up, STDERR_FILENO) == -1 || dup2(answer_up, STDOUT_FILENO) == -1 ||
        dup2(state_up, CHECK_STATE_FD) == -1) {
        (void)dprintf(output_fd, "cannot prepare the process: %s\n", strerror(errno));
        _exit(EX_OSERR);
    }
    (void)execve(master->upgrade.program, argv, args->envp);
    (void)dprintf(STDERR_FILENO, "cannot execute %s: %s\n", master->upgrade.program,
                  strerror(errno));
    _exit(EX_UNAVAILABLE);
}

static struct upgrade_check *
check_new(struct master *master)
{
    struct upgrade_check *check = xcalloc(1, sizeof(*check));

    child_init(&check->child, master, &check_ops);
    (void)snprintf(check->child.name, sizeof(check->child.name), "upgrade check");
    check->child.boot_setting = "it only reads settings";
    check->child.leads_group = true;
    check->answer_fd = -1;
    app_output_init(&check->output, master->loop, &check->child);
    return check;
}

/* The state as the new program would get it. */
static int
write_state(const struct master *master, int program_fd, struct state *ret_state)
{
    handover_fill(master, program_fd, ret_state);
    return state_to_memfd(ret_state);
}

static int
start_process(struct master *master, struct upgrade_check *check, int *pipes, int state_fd)
{
    int result = 0;

    if (pipe2(pipes, O_CLOEXEC) == -1 || pipe2(pipes + 2, O_CLOEXEC) == -1) {
        return -errno;
    }
    result = fd_set_nonblock(pipes[0], true);
    result = result != 0 ? result : fd_set_nonblock(pipes[2], true);
    if (result != 0) {
        return result;
    }
    signals_block();
    pid_t pid = fork();
    if (pid == 0) {
        become_check(master, state_fd, pipes[1], pipes[3]);
    }
    result = pid == -1 ? -errno : 0;
    signals_unblock();
    if (pid > 0) {
        (void)setpgid(pid, pid); /* the child does it too: whoever is first */
        check->answer_fd = pipes[0];
        app_output_start(&check->output, pipes[2]);
        pipes[0] = pipes[2] = -1;
        child_born(&check->child, pid, CHECK_TIMEOUT_MS);
    }
    return result;
}

static void
check_start(struct master *master)
{
    struct upgrade_check *check = check_new(master);
    struct state state = {0};
    int pipes[4] = {-1, -1, -1, -1};
    int state_fd = write_state(master, -1, &state);
    int result = state_fd < 0 ? state_fd : start_process(master, check, pipes, state_fd);

    state_release(&state);
    if (state_fd >= 0) {
        fd_close(&state_fd);
    }
    for (size_t i = 0; i < sizeof(pipes) / sizeof(pipes[0]); i++) {
        fd_close(&pipes[i]);
    }
    if (result != 0) {
        check_free(check);
        refuse(master, strerror(-result));
        return;
    }
    master->upgrade.check = check;
    master->upgrade.state = UPGRADE_CHECKING;
    log_info("upgrade: %s is checked", master->upgrade.program);
}

static int
check_refuse(const char *why)
{
    (void)fprintf(stderr, "narwhal: cannot take over from a running master: %s\n", why);
    return EX_DATAERR;
}

int
upgrade_check_main(const char *text, const struct config_args *args)
{
    char error[STATE_ERROR_MAX];
    struct state state = {0};
    struct config_errors errors = {0};
    char *end = NULL;
    long fd = strtol(text, &end, 10);

    if (end == text || *end != '\0' || fd < 0 || fd > INT_MAX) {
        return check_refuse(UPGRADE_CHECK_FLAG " needs the number of a descriptor");
    }
    if (state_from_fd(&state, (int)fd, error) != 0) {
        return check_refuse(error);
    }
    bool is_child = state.master->pid == (int64_t)getppid();
    state_release(&state);
    if (!is_child) {
        return check_refuse("the state is not that of the process which started this one");
    }
    if (args->command != CONFIG_RUN) {
        (void)fprintf(stderr, "narwhal: %s\n",
                      args->usage_error != NULL ? args->usage_error
                                                : "these arguments run nothing");
        return EX_USAGE;
    }
    struct config *config = config_load(args, &errors);
    for (size_t i = 0; i < errors.count; i++) {
        (void)fprintf(stderr, "%s\n", errors.item[i]);
    }
    config_errors_release(&errors);
    if (config == NULL) {
        return EX_CONFIG;
    }
    config_free(config);
    (void)printf(CHECK_ANSWER "%s\n", NARWHAL_VERSION);
    return fflush(stdout) == EOF ? EX_IOERR : EX_OK;
}

/* ---- the exec -------------------------------------------------------------------------------- */

static void
leave(struct master *master)
{
    struct state state = {0};
    int program_fd = open("/proc/self/exe", O_PATH | O_CLOEXEC);
    int state_fd = write_state(master, program_fd, &state);
    int result = state_fd;

    if (state_fd >= 0) {
        log_debug("upgrade: executing %s", master->upgrade.program);
        result = takeover_execute(&state, state_fd, master->upgrade.program, master->args);
        fd_close(&state_fd);
    }
    state_release(&state);
    fd_close(&program_fd);
    signals_unblock();
    refuse(master, strerror(-result));
}

static void
turn_after(struct master *master, int64_t delay_ms)
{
    struct upgrade *upgrade = &master->upgrade;

    upgrade->turned = false;
    ev_timer_stop(master->loop, &upgrade->turn);
    ev_timer_set(&upgrade->turn, ms_to_seconds(delay_ms), 0.);
    ev_timer_start(master->loop, &upgrade->turn);
}

static void
prepare_to_leave(struct master *master)
{
    signals_block();
    master->upgrade.state = UPGRADE_LEAVING;
    turn_after(master, 0);
}

/* A control client that is here gets its answer; a connection cannot cross. One that only stays is
 * not waited for. Those that come meanwhile wait in the queue of the socket, which crosses. */
static bool
clients_are_gone(struct master *master)
{
    struct upgrade *upgrade = &master->upgrade;
    int64_t now_ms = clock_mono_ms();

    if (upgrade->clients_until_ms == 0) {
        upgrade->clients_until_ms = now_ms + CLIENTS_MS;
        control_hold(master, true);
    }
    if (control_busy_count(master) == 0 || now_ms >= upgrade->clients_until_ms) {
        return true;
    }
    turn_after(master, CLIENTS_LOOK_MS);
    return false;
}

/* ---- the procedure --------------------------------------------------------------------------- */

static bool
reload_is_over(const struct master *master)
{
    return master->reload.state == RELOAD_IDLE && !master->reload.queued;
}

uint64_t
upgrade_request(struct master *master, const char **ret_why)
{
    struct upgrade *upgrade = &master->upgrade;

    *ret_why = NULL;
    if (master->phase != MASTER_RUNNING) {
        *ret_why = "narwhal is stopping";
        log_warn("upgrade ignored: %s", *ret_why);
        return 0;
    }
    if (upgrade->program == NULL) {
        *ret_why = "nobody knows where the program of narwhal is (no path in its name, not in "
                   "PATH, no /proc); start it by its full path";
        log_error("upgrade refused: %s", *ret_why);
        return 0;
    }
    if (upgrade->state != UPGRADE_IDLE || upgrade->check != NULL) {
        *ret_why = "another one is under way";
        log_warn("upgrade ignored: %s", *ret_why);
        return 0;
    }
    upgrade->operation = operation_begin(master, OPERATION_UPGRADE, "")->number;
    upgrade->state = UPGRADE_WAITING;
    if (!reload_is_over(master)) {
        log_info("a reload is running; the upgrade is done after it");
    }
    master_changed(master);
    return upgrade->operation;
}

void
upgrade_reconcile(struct master *master)
{
    struct upgrade *upgrade = &master->upgrade;

    if (upgrade->state == UPGRADE_WAITING && reload_is_over(master)) {
        check_start(master);
    }
    if (upgrade->state == UPGRADE_CHECKED && reload_is_over(master) && clients_are_gone(master)) {
        prepare_to_leave(master);
    }
    if (upgrade->state == UPGRADE_LEAVING && upgrade->turned) {
        if (reload_is_over(master)) {
            leave(master);
        } else {
            /* A SIGHUP of the last moment comes first. */
            upgrade->state = UPGRADE_CHECKED;
            welcome_clients(master);
            signals_unblock();
        }
    }
}

void
upgrade_cancel(struct master *master)
{
    struct upgrade *upgrade = &master->upgrade;

    if (upgrade->state == UPGRADE_LEAVING) {
        signals_unblock();
    }
    if (upgrade->state != UPGRADE_IDLE) {
        log_warn("upgrade given up: narwhal is to stop");
        end(master);
    }
    if (upgrade->check != NULL) {
        child_kill(&upgrade->check->child, "narwhal is to stop");
    }
}

void
upgrade_release(struct master *master)
{
    struct upgrade *upgrade = &master->upgrade;

    if (upgrade->check != NULL) {
        /* It got its SIGKILL in upgrade_cancel(); its parent's end will do as well. */
        upgrade->check->child.pid = 0;
        check_free(upgrade->check);
        upgrade->check = NULL;
    }
    if (master->loop != NULL) {
        ev_timer_stop(master->loop, &upgrade->turn);
    }
    free(upgrade->program);
    upgrade->program = NULL;
}
