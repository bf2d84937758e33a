/* SPDX-License-Identifier: Apache-2.0
 *
 * The adaptive number of workers: measures what adapt.h judges, between [master] workers_min and
 * workers_max. Off unless workers_max is set. An order of the operator (TTIN, TTOU) stops it until
 * a reload brings another workers, workers_min or workers_max: whoever asks for a number shall have
 * it. Runs in the master.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "master/adapt.h"
#include "master/lazy_timer.h"
#include "worker/scoreboard.h"

struct master;

struct scaling {
    struct lazy_timer timer; /* runs while workers are counted adaptively */
    uint32_t workers;        /* 0: off */
    bool is_held;            /* by the operator */
    struct adapt adapt;
    int64_t looked_us; /* at the busy times below */
    struct {
        pid_t pid; /* 0: none was there */
        int64_t busy_us;
    } last[BOARD_SLOTS_MAX];
    /* the settings that workers was made of */
    int64_t seen_workers;
    int64_t seen_min;
    int64_t seen_max;
};

void scaling_init(struct master *master);
void scaling_stop(struct master *master);
/* Takes the settings in use over. Idempotent. */
void scaling_reconcile(struct master *master);
/* Measures and decides, if it is time. */
void scaling_look(struct master *master);
/* The operator ordered another number of workers. */
void scaling_hold(struct master *master);
