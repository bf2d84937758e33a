/* SPDX-License-Identifier: Apache-2.0
 *
 * Forking the resolver and hearing it. It hears nothing from us: it is born with its questions, and
 * leaves when our end of its channel is closed. Every message is checked before it counts
 * (answer_error()), and one that cannot be, or too many, end the process. Runs in the master, but
 * for become_resolver(), which is the child.
 */
#include "master/resolver_child.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/base/clock.h"
#include "config/base/fd.h"
#include "config/base/log.h"
#include "config/config.h"
#include "master/after_fork.h"
#include "master/deaths.h"
#include "master/master.h"
#include "master/proctitle.h"
#include "worker/channel.h"
#include "worker/resolver/answer.h"
#include "worker/resolver/resolver.h"
#include "worker/sandbox.h"

/* What a resolver that says nothing may take on top of its longest pause and round. */
#define SILENCE_MARGIN_MS 5000
/* How long it may take to leave. */
#define LEAVE_MS 1000
/* Messages taken in one turn of the loop. */
#define MESSAGES_PER_TURN 16
/* More messages than one process can mean: each question has pauses (resolver_ttl_min, 100 ms). */
#define WINDOW_MS 1000
#define WINDOW_SPARE 64

static struct resolver_child *
resolver_from_child(struct child *child)
{
    return container_of(child, struct resolver_child, child);
}

/* ---- one life ---------------------------------------------------------------------------------
 */

static void
channel_close(struct resolver_child *resolver)
{
    ev_io_stop(resolver->child.master->loop, &resolver->channel);
    ev_timer_stop(resolver->child.master->loop, &resolver->silence);
    fd_close(&resolver->channel_fd);
}

/* What the resolver reads: resolv.conf and hosts, which their owners replace by renaming, so that
 * only their folders can be named, and where the common managers of resolv.conf keep theirs. */
static void
enter_sandbox(enum sandbox_mode mode)
{
    static const char *const paths[] = {"/etc", "/run/systemd/resolve", "/run/resolvconf",
                                        "/run/NetworkManager", "/dev/urandom"};
    int folders[sizeof(paths) / sizeof(paths[0]) + 1];
    size_t count = 0;
    struct sandbox_state state;
    struct buf why = {0};
    char *target = realpath("/etc/resolv.conf", NULL);

    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        folders[count] = open(paths[i], O_PATH | O_CLOEXEC);
        count += folders[count] != -1 ? 1 : 0; /* most machines have two of them */
    }
    if (target != NULL) {
        *strrchr(target, '/') = '\0';
        folders[count] = open(*target != '\0' ? target : "/", O_PATH | O_CLOEXEC);
        count += folders[count] != -1 ? 1 : 0;
    }
    free(target);
    const struct sandbox_plan plan = {
        .mode = mode, .folders = folders, .folder_count = count, .datagrams = true};
    int result = sandbox_enter(&plan, &state, &why);
    for (size_t i = 0; i < count; i++) {
        fd_close(&folders[i]);
    }
    if (result != 0) {
        log_error("%s", why.ptr);
        _exit(EXIT_FAILURE);
    }
    buf_release(&why);
}

static _Noreturn void
become_resolver(struct resolver_child *resolver, int channel_fd)
{
    struct master *master = resolver->child.master;
    const struct master_settings *settings = &master->config->master;
    const struct resolver_heritage heritage = {.channel_fd = channel_fd,
                                               .question_count = master->names.count,
                                               .questions = master->names.questions,
                                               .name_servers = &settings->resolver,
                                               .ttl_min_ms = settings->resolver_ttl_min_ms,
                                               .ttl_max_ms = settings->resolver_ttl_max_ms};
    const int keep[] = {channel_fd, master->logs.error_fd};

    signals_reset_in_child(master);
    after_fork_leave_group();
    after_fork_close_all_but(keep, sizeof(keep) / sizeof(keep[0]));
    proctitle_set("narwhal: resolver");
    log_setup(master->logs.error_fd, master->config->log.level, "resolver");
    int result = identity_take(&master->identity, false);
    if (result != 0) {
        log_error("cannot become the user and group of the settings: %s", strerror(-result));
        _exit(EXIT_FAILURE);
    }
    enter_sandbox(settings->sandbox);
    int status = resolver_main(&heritage);
#ifdef NARWHAL_CHILD_RUNS_EXIT
    if (!master->identity.drop) {
        exit(status); /* the sanitizers and gcov report from there */
    }
#endif
    _exit(status); /* nothing of the master's is flushed or torn down here */
}

static int
life_begin(struct resolver_child *resolver)
{
    struct master *master = resolver->child.master;
    int child_fd = -1;
    int result = channel_pair(&resolver->channel_fd, &child_fd);

    if (result != 0) {
        return result;
    }
    resolver->said_hello = false;
    resolver->window_ms = 0;
    signals_block();
    pid_t pid = fork();
    if (pid == 0) {
        become_resolver(resolver, child_fd);
    }
    int fork_errno = errno;
    signals_unblock();
    fd_close(&child_fd);
    if (pid == -1) {
        fd_close(&resolver->channel_fd);
        return -fork_errno;
    }
    ev_io_set(&resolver->channel, resolver->channel_fd, EV_READ);
    ev_io_start(master->loop, &resolver->channel);
    child_born(&resolver->child, pid, master->config->master.boot_timeout_ms);
    return 0;
}

static bool
is_wanted(const struct master *master)
{
    return master->phase == MASTER_RUNNING && master->names.count > 0;
}

static void
start(struct resolver_child *resolver)
{
    struct child *child = &resolver->child;
    int result;

    if (!is_wanted(child->master)) {
        child_set_state(child, CHILD_GONE, CHILD_NO_DEADLINE);
        return;
    }
    result = life_begin(resolver);
    if (result == 0) {
        log_debug("%s started pid=%d names=%zu", child->name, (int)child->pid,
                  child->master->names.count);
        return;
    }
    struct respawn_verdict verdict = child_next_life(&resolver->respawn, NULL);
    if (verdict.delay_ms < RESPAWN_FIRST_DELAY_MS) {
        verdict.delay_ms = RESPAWN_FIRST_DELAY_MS;
    }
    if (verdict.report != RESPAWN_FOLD) {
        log_error("cannot start the %s: %s%s; the servers known before stay in use, trying again "
                  "in %lldms attempts=%u",
                  child->name, strerror(-result), child_start_hint(-result),
                  (long long)verdict.delay_ms, verdict.deaths);
    }
    child_set_state(child, CHILD_BACKOFF, verdict.delay_ms);
}

static void
on_start(struct child *child)
{
    start(resolver_from_child(child));
}

static void
on_state(struct child *child)
{
    (void)child; /* it has no record on the scoreboard */
}

static void
tell_death(const struct child *child, const struct child_death *death,
           const struct respawn_verdict *verdict)
{
    char how[CHILD_DEATH_TEXT_MAX];
    char delay[RESPAWN_DELAY_TEXT_MAX];
    struct buf facts = {0};

    if (verdict->report == RESPAWN_FOLD) {
        return;
    }
    respawn_print_delay(verdict, delay);
    child_describe_status(death->status, how);
    death_add_facts(death->record, &facts);
    log_warn("the %s died, the servers known before stay in use pid=%d %s%s%s uptime=%lldms "
             "deaths=%u respawn_in=%s%s",
             child->name, (int)death->pid, how, death->ours != NULL ? " killed_for=" : "",
             death->ours != NULL ? death->ours : "", (long long)death->uptime_ms, verdict->deaths,
             delay, facts.ptr != NULL ? facts.ptr : "");
    buf_release(&facts);
}

static void
on_death(struct child *child, const struct child_death *death)
{
    struct resolver_child *resolver = resolver_from_child(child);

    channel_close(resolver);
    if (child_departed(death) || death->before == CHILD_DRAINING) {
        child_set_state(child, CHILD_GONE, CHILD_NO_DEADLINE);
        return; /* resolver_child_reconcile() starts the next one */
    }
    struct respawn_verdict verdict = child_next_life(&resolver->respawn, death);
    deaths_add(child->master->board, death->record, verdict.deaths);
    tell_death(child, death, &verdict);
    child_set_state(child, CHILD_BACKOFF, verdict.delay_ms);
}

static const struct child_ops resolver_ops = {
    .on_state = on_state, .on_death = on_death, .on_start = on_start};

/* ---- what it says -----------------------------------------------------------------------------
 */

static void
end_nonsense(struct resolver_child *resolver, const char *what)
{
    log_error("the %s sent nonsense and is killed pid=%d message=\"%s\"", resolver->child.name,
              (int)resolver->child.pid, what);
    channel_close(resolver);
    child_kill(&resolver->child, "nonsense on its channel");
}

static bool
is_too_many(struct resolver_child *resolver)
{
    int64_t now_ms = clock_mono_ms();
    size_t names = resolver->child.master->names.count;

    if (now_ms - resolver->window_ms >= WINDOW_MS) {
        resolver->window_ms = now_ms;
        resolver->window_count = 0;
    }
    return ++resolver->window_count > WINDOW_SPARE + 20 * names;
}

/* It was heard; the next message is due. */
static void
expect_message(struct resolver_child *resolver)
{
    struct master *master = resolver->child.master;
    int64_t silence_ms =
        master->config->master.resolver_ttl_max_ms + RESOLVER_ROUND_MAX_MS + SILENCE_MARGIN_MS;

    ev_now_update(master->loop);
    ev_timer_stop(master->loop, &resolver->silence);
    ev_timer_set(&resolver->silence, ms_to_seconds(silence_ms), 0.);
    ev_timer_start(master->loop, &resolver->silence);
}

static void
take_message(struct resolver_child *resolver, size_t length)
{
    struct master *master = resolver->child.master;
    const char *error = answer_error(resolver->message, length, master->names.count);

    if (error == NULL && is_too_many(resolver)) {
        error = "more messages than there can be";
    }
    if (error == NULL && (resolver->message->kind == ANSWER_HELLO) == resolver->said_hello) {
        error = "out of turn";
    }
    if (error != NULL) {
        end_nonsense(resolver, error);
        return;
    }
    resolver->messages++;
    expect_message(resolver);
    if (resolver->message->kind != ANSWER_HELLO) {
        names_on_answer(master, resolver->message);
        return;
    }
    resolver->said_hello = true;
    child_set_state(&resolver->child, CHILD_READY, CHILD_NO_DEADLINE);
}

static void
on_channel(struct ev_loop *loop, ev_io *watcher, int revents)
{
    struct resolver_child *resolver = container_of(watcher, struct resolver_child, channel);

    (void)revents;
    for (int i = 0; i < MESSAGES_PER_TURN && resolver->channel_fd != -1; i++) {
        ssize_t n;
        do {
            /* MSG_TRUNC: the length of the message, also when it is too long. Without room for
             * them, descriptors that came along are dropped by the kernel. */
            n = recv(resolver->channel_fd, resolver->message, sizeof(*resolver->message),
                     MSG_TRUNC);
        } while (n == -1 && errno == EINTR);
        if (n == -1 && errno == EAGAIN) {
            return;
        }
        if (n <= 0) {
            ev_io_stop(loop, watcher);
            if (resolver->child.state != CHILD_DRAINING) {
                child_suspect(&resolver->child, "it closed its channel");
            }
            return;
        }
        take_message(resolver, (size_t)n);
    }
}

/* It hangs: each question has an answer, or a failure, sooner than this. If it was the master that
 * stood still (SIGSTOP, a suspended machine), what it said meanwhile is there to be read. */
static void
on_silence(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct resolver_child *resolver = container_of(timer, struct resolver_child, silence);
    uint64_t before = resolver->messages;

    on_channel(loop, &resolver->channel, revents);
    if (resolver->messages == before && resolver->child.state == CHILD_READY) {
        log_error("the %s says nothing and is killed pid=%d", resolver->child.name,
                  (int)resolver->child.pid);
        channel_close(resolver);
        child_kill(&resolver->child, "silence");
    }
}

/* ---- interface ---------------------------------------------------------------------------------
 */

void
resolver_child_init(struct master *master)
{
    struct resolver_child *resolver = &master->resolver;

    child_init(&resolver->child, master, &resolver_ops);
    strcpy(resolver->child.name, "resolver");
    resolver->child.boot_setting = "[master] boot_timeout";
    resolver->channel_fd = -1;
    resolver->message = xcalloc(1, sizeof(*resolver->message));
    ev_io_init(&resolver->channel, on_channel, 0, EV_READ);
    ev_timer_init(&resolver->silence, on_silence, 0., 0.);
}

void
resolver_child_release(struct master *master)
{
    struct resolver_child *resolver = &master->resolver;

    channel_close(resolver);
    child_release(&resolver->child);
    free(resolver->message);
    resolver->message = NULL;
}

/* What it says from now on is not heard, and the end of its channel makes it leave. */
static void
leave(struct resolver_child *resolver)
{
    struct child *child = &resolver->child;

    channel_close(resolver);
    if (child->state == CHILD_STARTING || child->state == CHILD_READY) {
        child_set_state(child, CHILD_DRAINING, LEAVE_MS);
    } else if (child->state == CHILD_BACKOFF) {
        child_set_state(child, CHILD_GONE, CHILD_NO_DEADLINE);
    }
    master_changed(child->master);
}

void
resolver_child_restart(struct master *master)
{
    master->resolver.respawn = (struct respawn){0}; /* what it died of may be corrected */
    leave(&master->resolver);
}

void
resolver_child_stop(struct master *master)
{
    leave(&master->resolver);
}

bool
resolver_child_is_left(const struct master *master)
{
    return master->resolver.child.pid != 0;
}

void
resolver_child_reconcile(struct master *master)
{
    if (master->resolver.child.state == CHILD_GONE && is_wanted(master)) {
        start(&master->resolver);
    }
}
