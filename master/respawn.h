/* SPDX-License-Identifier: Apache-2.0
 *
 * When a child that died may start again, and how loudly its death is told. Pure: the history of
 * one slot and the clock go in, a verdict comes out. Runs in the master.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define RESPAWN_FIRST_DELAY_MS 100
#define RESPAWN_LONGEST_DELAY_MS 30000
/* A child that was READY for this long was healthy: its death starts a new row. */
#define RESPAWN_SETTLED_MS 10000
/* One that somebody killed had no fault of its own, if it was READY for this long; a row of kills
 * that are faster than that is one of an OOM killer that nobody told us of. */
#define RESPAWN_SETTLED_KILLED_MS 1000
/* Deaths of a row that are told one by one; the others are folded into a summary … */
#define RESPAWN_TOLD_ONE_BY_ONE 3
/* … which comes at most this often. */
#define RESPAWN_SUMMARY_EVERY_MS 60000

struct respawn {
    uint32_t deaths;     /* in a row; 0: none, or the last life was a healthy one */
    uint32_t folded;     /* deaths since the last line about this row */
    int64_t row_ms;      /* when the row began */
    int64_t reported_ms; /* when it was last told */
};

enum respawn_report { RESPAWN_TELL = 0, RESPAWN_FOLD, RESPAWN_SUMMARIZE };

struct respawn_verdict {
    int64_t delay_ms;
    enum respawn_report report;
    uint32_t deaths; /* in this row, this one included */
    int64_t row_ms;  /* how long the row lasts */
};

#define RESPAWN_DELAY_TEXT_MAX 32
/* The verdict on a successor that failed: it has no next life, whoever it should have replaced goes
 * on. */
struct respawn_verdict respawn_never(void);
/* "100ms", or "never". */
void respawn_print_delay(const struct respawn_verdict *verdict,
                         char ret_text[RESPAWN_DELAY_TEXT_MAX]);

/* Judges a death (or a start that failed) at now_ms of a child that had been READY for ready_ms
 * (0: it never was). was_killed: by a signal of somebody outside. random spreads the delay, so that
 * slots which died together do not return together. */
struct respawn_verdict respawn_after_death(struct respawn *history, int64_t now_ms,
                                           int64_t ready_ms, bool was_killed, uint32_t random);
