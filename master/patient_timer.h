/* SPDX-License-Identifier: Apache-2.0
 *
 * A deadline for somebody else that does not pay for the lateness of the master. When the master
 * itself did not run (stopped, starved, the machine was suspended), what its children have done
 * meanwhile is still unread when the timer ends; libev even runs timers before it looks at
 * descriptors when SIGCONT interrupts its wait. So a deadline that ends late is prolonged once, by
 * as much as it was late. Runs in the master.
 */
#pragma once

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

/* Later than that is late: one turn of the loop is shorter. */
#define PATIENT_LATE_MS 50
/* A master that was away for longer must not keep what hangs for ever. */
#define PATIENT_LONGEST_MS (30 * 1000)

struct patient_timer {
    ev_timer timer;
    int64_t at_ms;  /* on the monotonic clock */
    bool prolonged; /* already */
};

void patient_timer_init(struct patient_timer *timer,
                        void (*on_end)(struct ev_loop *loop, ev_timer *timer, int revents));
/* Ends at that time, whatever it was set to before. */
void patient_timer_start(struct patient_timer *timer, struct ev_loop *loop, int64_t at_ms);
void patient_timer_stop(struct patient_timer *timer, struct ev_loop *loop);
/* To be asked first by on_end: true when it goes on. */
bool patient_timer_goes_on(struct patient_timer *timer, struct ev_loop *loop);
