/* SPDX-License-Identifier: Apache-2.0
 *
 * The policy of respawn.h: at once, then 100 ms doubling to 30 s. The first delay is 0 because a
 * single death is an accident and service should be back; a row of them is a fault that does not
 * go away by trying fast (gunicorn#2504: a crash loop filled the disk with its own log).
 */
#include "master/respawn.h"

#include <inttypes.h>
#include <stdio.h>

/* 0, 100, 200, … 30000 for the 1st, 2nd, 3rd, … death of a row. */
static int64_t
delay_of(uint32_t deaths)
{
    int64_t delay_ms = RESPAWN_FIRST_DELAY_MS;

    if (deaths <= 1) {
        return 0;
    }
    for (uint32_t i = 2; i < deaths && delay_ms < RESPAWN_LONGEST_DELAY_MS; i++) {
        delay_ms *= 2;
    }
    return delay_ms < RESPAWN_LONGEST_DELAY_MS ? delay_ms : RESPAWN_LONGEST_DELAY_MS;
}

static enum respawn_report
report_of(struct respawn *history, int64_t now_ms)
{
    if (history->deaths <= RESPAWN_TOLD_ONE_BY_ONE) {
        history->folded = 0;
        history->reported_ms = now_ms;
        return RESPAWN_TELL;
    }
    history->folded++;
    if (now_ms - history->reported_ms < RESPAWN_SUMMARY_EVERY_MS) {
        return RESPAWN_FOLD;
    }
    history->folded = 0;
    history->reported_ms = now_ms;
    return RESPAWN_SUMMARIZE;
}

struct respawn_verdict
respawn_after_death(struct respawn *history, int64_t now_ms, int64_t ready_ms, bool was_killed,
                    uint32_t random)
{
    int64_t settled_ms = was_killed ? RESPAWN_SETTLED_KILLED_MS : RESPAWN_SETTLED_MS;

    if (ready_ms >= settled_ms || history->deaths == 0) {
        *history = (struct respawn){.row_ms = now_ms};
    }
    if (history->deaths < UINT32_MAX) {
        history->deaths++;
    }

    int64_t delay_ms = delay_of(history->deaths);
    /* Up to a quarter less, never more: the longest delay is a promise. */
    delay_ms -= delay_ms * (int64_t)(random % 256) / 1024;
    return (struct respawn_verdict){.delay_ms = delay_ms,
                                    .report = report_of(history, now_ms),
                                    .deaths = history->deaths,
                                    .row_ms = now_ms - history->row_ms};
}

struct respawn_verdict
respawn_never(void)
{
    return (struct respawn_verdict){.delay_ms = -1, .report = RESPAWN_TELL, .deaths = 1};
}

void
respawn_print_delay(const struct respawn_verdict *verdict, char ret_text[RESPAWN_DELAY_TEXT_MAX])
{
    if (verdict->delay_ms < 0) {
        (void)snprintf(ret_text, RESPAWN_DELAY_TEXT_MAX, "never");
    } else {
        (void)snprintf(ret_text, RESPAWN_DELAY_TEXT_MAX, "%" PRId64 "ms", verdict->delay_ms);
    }
}
