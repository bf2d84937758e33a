/* SPDX-License-Identifier: Apache-2.0
 *
 *                 child_born()          READY                drain
 *   GONE/BACKOFF ────────────► STARTING ──────► READY ─────────────► DRAINING
 *        ▲                        │               │ hung                │ deadline
 *        │ on_death()             │ deadline      ▼                     ▼
 *        └──────── (reaped) ◄─────┴──────────► ABORTED ──deadline──► KILLED
 *
 * Invariants: pid is 0 exactly in GONE and BACKOFF; each state but GONE and READY has a deadline.
 * Runs in the master.
 */
#include "master/child.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/base/clock.h"
#include "config/base/log.h"
#include "master/deaths.h"
#include "master/events.h"
#include "master/master.h"

static const char *const state_names[CHILD_STATE_COUNT] = {
#define CHILD_STATE_NAME(name, board) [CHILD_##name] = #name,
    CHILD_STATES(CHILD_STATE_NAME)
#undef CHILD_STATE_NAME
};

static const enum board_state board_states[CHILD_STATE_COUNT] = {
#define CHILD_STATE_BOARD(name, board) [CHILD_##name] = BOARD_##board,
    CHILD_STATES(CHILD_STATE_BOARD)
#undef CHILD_STATE_BOARD
};

#define TO(name) (1u << CHILD_##name)
static const unsigned int legal[CHILD_STATE_COUNT] = {
    [CHILD_GONE] = TO(STARTING) | TO(BACKOFF) | TO(GONE),
    [CHILD_STARTING] = TO(READY) | TO(DRAINING) | TO(ABORTED) | TO(KILLED) | TO(BACKOFF) | TO(GONE),
    [CHILD_READY] = TO(DRAINING) | TO(ABORTED) | TO(KILLED) | TO(BACKOFF) | TO(GONE),
    [CHILD_DRAINING] = TO(DRAINING) | TO(ABORTED) | TO(KILLED) | TO(BACKOFF) | TO(GONE),
    [CHILD_ABORTED] = TO(KILLED) | TO(BACKOFF) | TO(GONE),
    [CHILD_KILLED] = TO(KILLED) | TO(BACKOFF) | TO(GONE),
    [CHILD_BACKOFF] = TO(STARTING) | TO(BACKOFF) | TO(GONE),
};
#undef TO

const char *
child_state_name(enum child_state state)
{
    return state_names[state];
}

enum board_state
child_board_state(enum child_state state)
{
    return board_states[state];
}

static struct child *
child_from_deadline(ev_timer *timer)
{
    return container_of(container_of(timer, struct patient_timer, timer), struct child, deadline);
}

static void
on_deadline(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct child *child = child_from_deadline(timer);

    (void)revents;
    if (child->state != CHILD_BACKOFF && patient_timer_goes_on(&child->deadline, loop)) {
        return;
    }
    switch (child->state) {
    case CHILD_STARTING:
        log_error("%s is not READY in time and is killed pid=%d after=%lldms (%s)", child->name,
                  (int)child->pid, (long long)(clock_mono_ms() - child->started_ms),
                  child->boot_setting);
        child_kill(child, "boot_timeout");
        break;
    case CHILD_DRAINING:
        log_warn("%s did not leave in time and is killed pid=%d ([master] graceful_timeout)",
                 child->name, (int)child->pid);
        child_kill(child, "graceful_timeout");
        break;
    case CHILD_ABORTED:
        child_kill(child, child->suspicion);
        break;
    case CHILD_KILLED:
        log_error("%s is still there after SIGKILL pid=%d: the kernel waits for something, see "
                  "/proc/%d/wchan",
                  child->name, (int)child->pid, (int)child->pid);
        child_kill(child, child->ours);
        break;
    case CHILD_BACKOFF:
        child->ops->on_start(child);
        break;
    case CHILD_GONE:
    case CHILD_READY:
    case CHILD_STATE_COUNT:
        CHECK(!"a state without a deadline");
    }
    master_changed(child->master);
}

void
child_init(struct child *child, struct master *master, const struct child_ops *ops)
{
    child->master = master;
    child->ops = ops;
    child->state = CHILD_GONE;
    patient_timer_init(&child->deadline, on_deadline);
    list_init(&child->node);
    list_push_back(&master->children, &child->node);
}

void
child_release(struct child *child)
{
    CHECK(child->pid == 0);
    patient_timer_stop(&child->deadline, child->master->loop);
    list_remove(&child->node);
}

void
child_set_state(struct child *child, enum child_state state, int64_t deadline_ms)
{
    struct master *master = child->master;

    CHECK((legal[child->state] & (1u << state)) != 0);
    log_debug("%s goes from %s to %s pid=%d", child->name, state_names[child->state],
              state_names[state], (int)child->pid);
    const char *before = state_names[child->state];
    child->state = state;
    if (state == CHILD_READY) {
        child->ready_since_ms = clock_mono_ms();
    }
    patient_timer_stop(&child->deadline, master->loop);
    if (deadline_ms != CHILD_NO_DEADLINE) {
        patient_timer_start(&child->deadline, master->loop, clock_mono_ms() + deadline_ms);
    }
    child->ops->on_state(child);
    events_child(master, child, before);
    master_changed(master);
}

void
child_born(struct child *child, pid_t pid, int64_t boot_timeout_ms)
{
    child->pid = pid;
    child->stopped = false;
    child->started_ms = clock_mono_ms();
    child->ready_since_ms = 0;
    child->ours = NULL;
    child->suspicion = NULL;
    child_set_state(child, CHILD_STARTING, boot_timeout_ms);
}

void
child_remember(const struct child *child, struct child_memory *ret_memory)
{
    *ret_memory = (struct child_memory){.state = child->state,
                                        .pid = child->pid,
                                        .started_ms = child->started_ms,
                                        .ready_since_ms = child->ready_since_ms,
                                        .ours = child->ours,
                                        .suspicion = child->suspicion,
                                        .deadline_ms = ev_is_active(&child->deadline.timer)
                                                           ? child->deadline.at_ms
                                                           : CHILD_NO_DEADLINE,
                                        .stopped = child->stopped};
}

void
child_restore(struct child *child, const struct child_memory *memory)
{
    child->state = memory->state;
    child->pid = memory->pid;
    child->started_ms = memory->started_ms;
    child->ready_since_ms = memory->ready_since_ms;
    child->ours = memory->ours;
    child->suspicion = memory->suspicion;
    child->stopped = memory->stopped;
    if (memory->deadline_ms != CHILD_NO_DEADLINE) {
        patient_timer_start(&child->deadline, child->master->loop, memory->deadline_ms);
    }
}

void
child_signal(struct child *child, int signal_number)
{
    if (child->pid == 0) {
        return;
    }
    /* The process is ours until it is reaped, so the number cannot mean a stranger. ESRCH: it is
     * dead already and SIGCHLD is on its way. */
    if (!child->leads_group || kill(-child->pid, signal_number) == -1) {
        (void)kill(child->pid, signal_number);
    }
}

void
child_kill(struct child *child, const char *why)
{
    child->ours = why;
    child_signal(child, SIGKILL);
    child_set_state(child, CHILD_KILLED, CHILD_KILL_MS);
}

void
child_abort(struct child *child, const char *why)
{
    child->ours = why;
    child->suspicion = why;
    child_signal(child, SIGABRT);
    child_set_state(child, CHILD_ABORTED, CHILD_ABORT_MS);
}

void
child_suspect(struct child *child, const char *why)
{
    child->suspicion = why;
    child_set_state(child, CHILD_ABORTED, CHILD_ABORT_MS);
}

void
child_describe_status(int status, char ret_text[CHILD_DEATH_TEXT_MAX])
{
    if (WIFSIGNALED(status)) {
        const char *name = sigabbrev_np(WTERMSIG(status));
        (void)snprintf(ret_text, CHILD_DEATH_TEXT_MAX, "signal=%s%s%s", name != NULL ? "SIG" : "",
                       name != NULL ? name : "?", WCOREDUMP(status) ? " core=yes" : "");
    } else {
        (void)snprintf(ret_text, CHILD_DEATH_TEXT_MAX, "exit=%d", WEXITSTATUS(status));
    }
}

const char *
child_start_hint(int error_number)
{
    switch (error_number) {
    case EAGAIN:
        return "; the limit of processes is reached (ulimit -u, TasksMax=)";
    case ENOMEM:
        return "; the machine is out of memory";
    case EMFILE:
    case ENFILE:
        return "; out of descriptors (LimitNOFILE=, ulimit -n)";
    default:
        return "";
    }
}

bool
child_departed(const struct child_death *death)
{
    return death->before == CHILD_DRAINING && death->ours == NULL &&
           (WIFEXITED(death->status) || WTERMSIG(death->status) == SIGTERM);
}

static uint32_t
random_number(void)
{
    uint32_t number = 0;

    /* Without any randomness the delay is merely not spread. */
    (void)!getrandom(&number, sizeof(number), GRND_NONBLOCK);
    return number;
}

struct respawn_verdict
child_next_life(struct respawn *history, const struct child_death *death)
{
    return respawn_after_death(history, clock_mono_ms(), death != NULL ? death->ready_ms : 0,
                               death != NULL && death->record->cause == DEATH_UNKNOWN,
                               random_number());
}

void
child_start_failed(struct child *child, struct respawn *history, const char *why)
{
    struct respawn_verdict verdict = child_next_life(history, NULL);

    if (verdict.delay_ms < RESPAWN_FIRST_DELAY_MS) {
        verdict.delay_ms = RESPAWN_FIRST_DELAY_MS; /* what is missing is not there at once */
    }
    if (verdict.report != RESPAWN_FOLD) {
        log_error("cannot start %s: %s; trying again in %lldms attempts=%u", child->name, why,
                  (long long)verdict.delay_ms, verdict.deaths);
    }
    child_set_state(child, CHILD_BACKOFF, verdict.delay_ms);
}

void
child_tell_departure(const struct child *child, const struct child_death *death)
{
    char how[CHILD_DEATH_TEXT_MAX];
    struct buf facts = {0};

    if (!child_departed(death)) {
        death_add_facts(death->record, &facts);
        deaths_add(child->master->board, death->record, 1);
        events_death(child->master, death->record);
    }
    child_describe_status(death->status, how);
    log_info("%s left pid=%d %s generation=%llu uptime=%lldms%s%s%s", child->name, (int)death->pid,
             how, (unsigned long long)death->record->generation, (long long)death->uptime_ms,
             death->ours != NULL ? " killed_for=" : "", death->ours != NULL ? death->ours : "",
             facts.ptr != NULL ? facts.ptr : "");
    buf_release(&facts);
}

struct child *
child_by_pid(struct master *master, pid_t pid)
{
    CHECK(pid > 0); /* who has no process has pid 0 */
    LIST_FOR_EACH (node, &master->children) {
        struct child *child = container_of(node, struct child, node);
        if (child->pid == pid) {
            return child;
        }
    }
    return NULL;
}

static void
bury(struct child *child, pid_t pid, int status, const struct rusage *usage)
{
    struct master *master = child->master;
    int64_t now_ms = clock_mono_ms();
    struct board_death record;
    struct child_death death = {.pid = pid,
                                .status = status,
                                .uptime_ms = now_ms - child->started_ms,
                                .ready_ms =
                                    child->ready_since_ms > 0 ? now_ms - child->ready_since_ms : 0,
                                .before = child->state,
                                .ours = child->ours,
                                .record = &record};
    bool oom = child->ours == NULL && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL &&
               oom_watch_take(&master->oom, now_ms);

    death_record(&record, child->name, &death, usage, oom);
    child->pid = 0;
    child->ops->on_death(child, &death); /* may free it */
    master_changed(master);
}

void
child_reap_all(struct master *master)
{
    siginfo_t info = {.si_pid = 0};
    struct rusage usage;
    int status;

    /* Looked at before it is reaped: as long as the leader is a zombie, the number of its group is
     * certainly still its own. */
    while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0) {
        pid_t pid = info.si_pid;
        struct child *child = child_by_pid(master, pid);
        if (child != NULL && child->leads_group) {
            (void)kill(-pid, SIGKILL); /* nobody looks after the rest of the group any more */
        }
        if (wait4(pid, &status, WNOHANG, &usage) != pid) {
            break;
        }
        if (child != NULL) {
            bury(child, pid, status, &usage);
        } else {
            log_debug("a process that is not of narwhal was reaped pid=%d", (int)pid);
        }
        info.si_pid = 0;
    }
}

bool
child_note_stops(struct master *master)
{
    siginfo_t info = {.si_pid = 0};
    bool any = false;

    while (waitid(P_ALL, 0, &info, WSTOPPED | WCONTINUED | WNOHANG) == 0 && info.si_pid != 0) {
        struct child *child = child_by_pid(master, info.si_pid);
        if (child != NULL) {
            child->stopped = info.si_code == CLD_STOPPED;
            any = true;
        }
        info.si_pid = 0;
    }
    return any;
}
