/* SPDX-License-Identifier: Apache-2.0
 *
 * The protocol of sd_notify(3), Type=notify and Type=notify-reload of systemd.service(5).
 *
 * Invariants: READY=1 is sent once enough workers are READY and at the end of every reload, also of
 * one that failed: systemd waits for it and has no time limit for it in some versions. The watchdog
 * is fed from the loop of the master, so that it proves that the loop turns, and only while a
 * worker makes progress, so that it proves that somebody is served.
 */
#include "master/service.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "config/base/clock.h"
#include "config/base/log.h"
#include "config/config.h"
#include "master/fd_store.h"
#include "master/master.h"
#include "master/notify.h"
#include "master/worker_child.h"

/* How often the numbers of the STATUS line are looked at; nothing is sent when they are as before.
 */
#define STATUS_EVERY_MS 5000
/* What the manager is asked for on top of our own time limits: for what comes around them. */
#define MARGIN_MS 5000

/* ---- the watchdog ---------------------------------------------------------------------------- */

static bool
moves(const struct worker_child *worker)
{
    if (worker == NULL) {
        return false;
    }
    if (worker->child.state == CHILD_STARTING) {
        return true; /* boot_timeout looks after it */
    }
    return worker->child.state == CHILD_READY && !worker->child.stopped &&
           worker->progress.stall == PROGRESS_STALL_NONE;
}

static bool
anybody_moves(const struct master *master)
{
    if (master->phase != MASTER_RUNNING || master_wanted_workers(master) == 0) {
        return true; /* it stops, or is paused: nobody is expected to */
    }
    for (size_t i = 0; i < BOARD_SLOTS_MAX; i++) {
        if (moves(master->slots.slots[i].serving) || moves(master->slots.slots[i].next)) {
            return true;
        }
    }
    return false;
}

static void
on_watchdog(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct master *master = ev_userdata(loop);
    struct service *service = &master->service;

    (void)timer;
    (void)revents;
    if (anybody_moves(master)) {
        notify_send("WATCHDOG=1");
        service->starving = false;
    } else if (!service->starving) {
        service->starving = true;
        log_error("no worker makes progress: the watchdog of the service manager is not fed, which "
                  "restarts narwhal unless one does before WatchdogSec= is over");
    }
}

/* ---- the STATUS line ------------------------------------------------------------------------- */

static uint64_t
total(const struct master *master, size_t counter)
{
    return board_total(master->board, counter);
}

static void
look_at_numbers(struct master *master)
{
    struct service *service = &master->service;
    uint64_t requests = total(master, offsetof(struct board_counters, requests));
    int64_t now_ms = clock_mono_ms();
    int64_t passed_ms = now_ms - service->looked_ms;

    if (service->looked_ms != 0 && passed_ms > 0 && requests >= service->requests) {
        service->per_second = (requests - service->requests) * 1000 / (uint64_t)passed_ms;
    }
    service->requests = requests;
    service->looked_ms = now_ms;
}

static void
print_running(const struct master *master, char *text, size_t size)
{
    const struct service *service = &master->service;
    uint64_t accepted = total(master, offsetof(struct board_counters, accepted));
    uint64_t closed = total(master, offsetof(struct board_counters, closed));
    uint32_t wanted = master_wanted_workers(master);
    const char *doing = !master->was_ready                    ? "booting: "
                        : master->reload.state != RELOAD_IDLE ? "reloading: "
                                                              : "";

    (void)snprintf(text, size,
                   "%s%" PRIu32 "/%" PRIu32 " workers ready, %" PRIu64 " connections, %" PRIu64
                   " requests/s; settings %" PRIu64 "%s%s%s",
                   doing, slots_ready_count(master), wanted,
                   accepted > closed ? accepted - closed : 0, service->per_second, master->serial,
                   service->last_reload[0] != '\0' ? ", last reload " : "", service->last_reload,
                   master->paused ? "; paused until a reload" : "");
}

static void
print_status(const struct master *master, char *text, size_t size)
{
    switch (master->phase) {
    case MASTER_RUNNING:
        print_running(master, text, size);
        break;
    case MASTER_STOPPING:
    case MASTER_STOPPING_QUICK:
        (void)snprintf(text, size, "stopping%s",
                       slots_any_left(master)  ? ": workers finish their requests"
                       : apps_any_left(master) ? ": applications leave"
                                               : "");
        break;
    }
}

static void
tell_status(struct master *master)
{
    struct service *service = &master->service;
    char text[SERVICE_STATUS_MAX];

    print_status(master, text, sizeof(text));
    if (strcmp(text, service->told) != 0 && notify_send_status(text)) {
        strcpy(service->told, text);
    }
}

static void
on_status(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct master *master = ev_userdata(loop);

    (void)timer;
    (void)revents;
    look_at_numbers(master);
    tell_status(master);
}

/* ---- life ------------------------------------------------------------------------------------ */

static uint32_t
needed_workers(const struct master *master)
{
    uint32_t wanted = master_wanted_workers(master);
    int64_t ready_min = master->config->master.ready_min;

    return ready_min > 0 && ready_min < wanted ? (uint32_t)ready_min : wanted;
}

/* The numbers change all the time: between two looks only what changed in the master is told. */
static bool
changed_in_master(const struct master *master)
{
    char text[SERVICE_STATUS_MAX];
    const char *told = master->service.told;
    size_t length = strcspn(told, ",");

    print_status(master, text, sizeof(text));
    return strncmp(text, told, length + 1) != 0 ||
           strcmp(strchr(text, ';') != NULL ? strchr(text, ';') : "",
                  strchr(told, ';') != NULL ? strchr(told, ';') : "") != 0;
}

void
service_reconcile(struct master *master)
{
    uint32_t ready = slots_ready_count(master);

    fd_store_reconcile(master);
    if (!master->was_ready && master->phase == MASTER_RUNNING &&
        master_wanted_workers(master) > 0 && ready >= needed_workers(master)) {
        master->was_ready = true;
        log_info("ready workers=%u", ready);
        notify_send("READY=1\nMAINPID=%d", (int)master->pid);
    }
    if (notify_is_on() && changed_in_master(master)) {
        tell_status(master);
    }
}

void
service_reload_begins(struct master *master)
{
    if (master->was_ready) {
        notify_send("RELOADING=1\nMONOTONIC_USEC=%lld\nSTATUS=reloading",
                    (long long)clock_mono_us());
        strcpy(master->service.told, "reloading");
    }
}

void
service_reload_ends(struct master *master, int error_number, const char *why)
{
    struct service *service = &master->service;
    char when[CLOCK_ISO8601_SIZE];

    clock_format_iso8601(clock_real_ms(), when);
    when[sizeof("2026-01-31T23:59:59") - 1] = '\0';
    (void)snprintf(service->last_reload, sizeof(service->last_reload), "%sZ %s%s", when,
                   error_number == 0 ? "done" : "failed: ", why != NULL ? why : "");
    /* Not before the service was READY: that is still to come, and by other means. */
    if (master->was_ready) {
        char text[SERVICE_STATUS_MAX];
        print_status(master, text, sizeof(text));
        notify_send("READY=1\nERRNO=%d\nSTATUS=%s", error_number, text);
        strcpy(service->told, text);
    }
}

void
service_extend(int64_t may_take_ms)
{
    notify_send("EXTEND_TIMEOUT_USEC=%lld", (long long)(may_take_ms + MARGIN_MS) * 1000);
}

void
service_stopping(struct master *master, int64_t may_take_ms)
{
    notify_send("STOPPING=1\nEXTEND_TIMEOUT_USEC=%lld",
                (long long)(may_take_ms + MARGIN_MS) * 1000);
    fd_store_forget_board();
    tell_status(master);
}

void
service_init(struct master *master)
{
    memset(&master->service, 0, sizeof(master->service));
    ev_init(&master->service.watchdog, on_watchdog);
    ev_init(&master->service.status, on_status);
}

void
service_start(struct master *master)
{
    struct service *service = &master->service;
    int64_t watchdog_ms = notify_watchdog_ms();

    if (watchdog_ms > 0) {
        service->watchdog.repeat = ms_to_seconds(watchdog_ms);
        ev_timer_again(master->loop, &service->watchdog);
        notify_send("WATCHDOG=1"); /* a predecessor in this process may have been due */
    }
    if (notify_is_on()) {
        look_at_numbers(master);
        service->status.repeat = ms_to_seconds(STATUS_EVERY_MS);
        ev_timer_again(master->loop, &service->status);
    }
    if (!master->was_ready) {
        service_extend(master->config->master.boot_timeout_ms);
    }
}

void
service_stop(struct master *master)
{
    ev_timer_stop(master->loop, &master->service.watchdog);
    ev_timer_stop(master->loop, &master->service.status);
}
