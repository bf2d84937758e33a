/* SPDX-License-Identifier: Apache-2.0
 *
 * What the service manager is told: when the service is ready, what it does, whether it makes
 * progress, and how long it may still take. Runs in the master.
 */
#pragma once

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

struct master;

#define SERVICE_STATUS_MAX 400

struct service {
    ev_timer watchdog; /* active when WATCHDOG_USEC is set */
    ev_timer status;   /* active while there is a manager */
    bool starving;     /* the watchdog is not fed: told */
    uint64_t requests; /* at the last look */
    int64_t looked_ms;
    uint64_t per_second;
    char last_reload[240];         /* its time and result; "": none yet */
    char told[SERVICE_STATUS_MAX]; /* the last STATUS= that was sent */
};

void service_init(struct master *master);
void service_start(struct master *master);
void service_stop(struct master *master);
/* READY=1 once enough workers are, and the STATUS line when it changed. Idempotent. */
void service_reconcile(struct master *master);
/* A reload begins, or is over: why is NULL, or why the settings were not all taken over. */
void service_reload_begins(struct master *master);
void service_reload_ends(struct master *master, int error_number, const char *why);
/* The service stops; what comes next may take so long. */
void service_stopping(struct master *master, int64_t may_take_ms);
/* The same while it already stops. */
void service_extend(int64_t may_take_ms);
