/* SPDX-License-Identifier: Apache-2.0
 *
 * Asking servers for health_path. Which worker asks which server is decided anew each time, by the
 * lease in the server's record (health.h): nobody is elected, and nobody's end is a gap. Runs in
 * workers.
 */
#pragma once

#include <ev.h>
#include <stdint.h>

#include "config/base/list.h"

struct worker;

/* Part of struct worker. */
struct health_probes {
    ev_timer timer;        /* when the next lease may be due; stopped while nothing is to ask */
    struct list_node open; /* struct health_probe.node */
    uint32_t open_count;
};

void health_probes_init(struct worker *worker);
/* The worker's settings are new. */
void health_probes_settings(struct worker *worker);
/* Asks no more; what is open is dropped without a result. */
void health_probes_stop(struct worker *worker);
