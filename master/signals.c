/* SPDX-License-Identifier: Apache-2.0
 *
 * The table signal → action, and the state of signals around fork(). Runs in the master; the last
 * function in a child.
 */
#include "master/signals.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <unistd.h>

#include "config/base/fd.h"
#include "config/base/log.h"
#include "master/child.h"
#include "master/master.h"

static void
on_reload(struct master *master)
{
    (void)reload_request(master); /* what comes of it is in the log */
}

static void
on_stop(struct master *master)
{
    master_stop(master, master->phase != MASTER_RUNNING);
}

static void
on_quick_stop(struct master *master)
{
    master_stop(master, true);
}

static void
on_one_more(struct master *master)
{
    master_more_workers(master, 1);
}

static void
on_one_less(struct master *master)
{
    master_more_workers(master, -1);
}

static void
on_reopen(struct master *master)
{
    master_reopen_logs(master);
}

/* A terminal sends SIGWINCH to its foreground processes whenever its window changes size: that is
 * no order to stop serving. */
static bool
is_in_foreground(void)
{
    int fd = open("/dev/tty", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    /* Without a descriptor to look with it may be one; the operator can send the signal again. */
    bool result = fd != -1 ? tcgetpgrp(fd) == getpgrp() : errno == EMFILE || errno == ENFILE;

    fd_close(&fd);
    return result;
}

static void
on_pause(struct master *master)
{
    if (is_in_foreground()) {
        log_debug("SIGWINCH is ignored in the foreground of a terminal, or when there is no "
                  "descriptor left to look for one");
        return;
    }
    log_info("received SIGWINCH");
    master_pause(master);
}

static void
on_upgrade(struct master *master)
{
    const char *why;

    (void)upgrade_request(master, &why); /* what comes of it is in the log */
}

static void
on_reap(struct master *master)
{
    child_reap_all(master);
    if (child_note_stops(master) && master->phase == MASTER_RUNNING) {
        progress_watch_look(master);
    }
}

const struct signal_row signal_rows[SIGNAL_ROW_COUNT] = {
#define SIGNAL(name, action, documentation)                                                        \
    [SIGNAL_ROW_##name] = {SIG##name, "SIG" #name, on_##action, documentation},
#include "master/signals.def"
};

/* Signals whose action has a line of its own, which comes when it is done. */
static bool
tells_itself(int number)
{
    return number == SIGCHLD || number == SIGWINCH || number == SIGTERM || number == SIGINT ||
           number == SIGQUIT;
}

static void
on_signal(struct ev_loop *loop, ev_signal *watcher, int revents)
{
    const struct signal_row *row = watcher->data;
    struct master *master = ev_userdata(loop);

    (void)revents;
    if (!tells_itself(row->number)) {
        log_info("received %s", row->name);
    }
    row->act(master);
    master_changed(master);
}

void
signals_start(struct master *master)
{
    (void)signal(SIGPIPE, SIG_IGN); /* cannot fail for a known signal */
    for (size_t i = 0; i < SIGNAL_ROW_COUNT; i++) {
        ev_signal *watcher = &master->signals.item[i];
        ev_signal_init(watcher, on_signal, signal_rows[i].number);
        watcher->data = (void *)(uintptr_t)&signal_rows[i];
        ev_signal_start(master->loop, watcher);
    }
    signals_unblock(); /* what came during the start comes now */
}

void
signals_stop(struct master *master)
{
    for (size_t i = 0; i < SIGNAL_ROW_COUNT; i++) {
        ev_signal_stop(master->loop, &master->signals.item[i]);
    }
}

/* The mask belongs to the process. Counted, because a fork may fall into an upgrade, which keeps
 * signals blocked for longer. */
static unsigned int blocked;

void
signals_block(void)
{
    sigset_t all;

    blocked++;
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, NULL);
}

void
signals_unblock(void)
{
    sigset_t none;

    if (blocked > 0 && --blocked > 0) {
        return;
    }
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* The handlers of stack_trace.h, or of a sanitizer, are as good for a child; exec() drops them. */
static bool
says_where(int number)
{
    return number == SIGABRT || number == SIGSEGV || number == SIGBUS || number == SIGILL ||
           number == SIGFPE;
}

void
signals_reset_in_child(struct master *master)
{
    signals_stop(master);
    for (int number = 1; number < NSIG; number++) {
        if (!says_where(number)) {
            (void)signal(number, SIG_DFL); /* SIGKILL, SIGSTOP and unused numbers refuse: fine */
        }
    }
    blocked = 0;
    signals_unblock();
}
