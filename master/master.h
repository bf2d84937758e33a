/* SPDX-License-Identifier: Apache-2.0
 *
 * struct master: the process that owns listening sockets, settings, logs and children. It parses
 * no client byte and never blocks: every wait is a timer or a descriptor of its loop. Whatever
 * happens, the event is recorded and master_reconcile() compares what is wanted with what is.
 */
#pragma once

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "config/base/list.h"
#include "master/apps.h"
#include "master/control.h"
#include "master/events.h"
#include "master/identity.h"
#include "master/lane.h"
#include "master/log_files.h"
#include "master/names.h"
#include "master/oom_watch.h"
#include "master/operations.h"
#include "master/pidfile.h"
#include "master/progress_watch.h"
#include "master/recycle.h"
#include "master/reload.h"
#include "master/resolver_child.h"
#include "master/runtime_dir.h"
#include "master/scaling.h"
#include "master/server_registry.h"
#include "master/service.h"
#include "master/signals.h"
#include "master/slots.h"
#include "master/upgrade.h"

struct config;
struct config_args;
struct scoreboard;
struct takeover;

enum master_phase {
    MASTER_RUNNING = 0,
    MASTER_STOPPING,      /* gracefully: workers drain, then instances leave */
    MASTER_STOPPING_QUICK /* what is open is cut */
};

struct master {
    /* configuration fields */
    const struct config_args *args;
    struct config *config; /* owned; a reload replaces it */
    uint64_t serial;       /* of config: 1, 2, … */
    uint32_t workers;      /* by config alone: auto is what it was when config came into use */
    int image_fd;          /* owned; config as workers read it */
    struct identity identity;
    struct rlimit inherited_nofile; /* what instances get back */
    /* runtime fields */
    struct ev_loop *loop;
    ev_prepare before_wait; /* runs master_reconcile() when something changed */
    ev_timer again;         /* the same, when reconcile itself changed things */
    bool changed;
    uint32_t starts_left; /* processes that may still be started in this turn of the loop */
    bool starts_wait;     /* one had to wait for the next turn */
    enum master_phase phase;
    bool apps_stopping; /* gracefully, after the workers */
    bool was_ready;     /* ready_min workers were READY once */
    bool paused;        /* WINCH: no workers until HUP */
    int workers_more;   /* by TTIN (+1) and TTOU (-1) */
    pid_t pid;          /* the master's own */
    struct service service;
    struct signal_watchers signals;
    struct scoreboard *board;
    int board_fd; /* owned */
    int wake_fd;  /* owned; see waiting.h */
    struct list_node children;
    struct lane_set lanes;
    struct slot_set slots;
    struct server_registry registry;
    struct names names;
    struct resolver_child resolver;
    struct app_set apps;
    struct reload reload;
    struct upgrade upgrade;
    struct progress_watch progress_watch;
    struct oom_watch oom;
    struct recycle recycle;
    struct scaling scaling;
    struct log_files logs;
    struct pidfile pidfile;
    struct runtime_dir runtime_dir;
    struct control control;
    struct operations operations;
    struct events events;
};

/* Runs until the service is stopped. config is taken over. takeover has the state of a predecessor
 * in this process, and is finished then; NULL: a fresh start. Returns the exit status (sysexits.h):
 * 0 after a stop, EX_CONFIG, EX_UNAVAILABLE (an address or the pid file is taken), EX_CANTCREAT (a
 * file), EX_OSERR (the kernel refused something) when it could not start; said in the log and on
 * stderr. With a takeover that failed: nothing was touched, and it can be given back. */
int master_run(const struct config_args *args, struct config *config, struct takeover *takeover);

/* Something changed: reconcile before the loop waits again. */
void master_changed(struct master *master);
/* Whether a process may be started in this turn of the loop: a fork takes its time, and many in a
 * row would keep everybody else waiting. false: reconcile comes again in the next turn. */
bool master_may_start(struct master *master);
/* How many workers the settings and the signals want now. */
uint32_t master_wanted_workers(const struct master *master);
/* Workers by the settings alone ([master] workers, auto resolved). */
uint32_t master_configured_workers(const struct config *config);

/* The verbs of the signals. */
void master_stop(struct master *master, bool quick);
void master_reopen_logs(struct master *master);
void master_more_workers(struct master *master, int more);
/* That many, as if by TTIN and TTOU. 0, or a negative errno with a whole sentence in error. */
struct buf;
int master_scale(struct master *master, int64_t workers, struct buf *error);
void master_pause(struct master *master);
