/* SPDX-License-Identifier: Apache-2.0
 *
 * Death records: what is known of a dead child, in a bounded ring of the scoreboard, as facts of a
 * log line, and as JSON for `narwhalctl deaths`. Pure but for the clock; runs in the master.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "worker/scoreboard.h"

struct buf;
struct child_death;
struct rusage;

/* Who ended it. X(name, word for log and JSON) */
#define DEATH_CAUSES(X)                                                                            \
    X(ITSELF, "itself")   /* it exited, or crashed */                                              \
    X(NARWHAL, "narwhal") /* for a reason that is on record */                                     \
    X(OOM, "kernel-oom")  /* SIGKILL, and the kernel counted an OOM kill in our cgroup */          \
    X(UNKNOWN, "unknown") /* somebody sent a signal; the kernel does not say who */

enum death_cause {
#define DEATH_CAUSE_ENUM(name, word) DEATH_##name,
    DEATH_CAUSES(DEATH_CAUSE_ENUM)
#undef DEATH_CAUSE_ENUM
        DEATH_CAUSE_COUNT
};

/* Fills in what is known of every child. oom: the kernel counted an OOM kill that may be this. */
void death_record(struct board_death *ret_record, const char *name, const struct child_death *death,
                  const struct rusage *usage, bool oom);
/* The last words of an instance: the beginning of a long line. */
void death_set_words(struct board_death *record, const char *words);

/* Keeps the record, in place of the oldest when the ring is full. in_row: how many deaths of this
 * child there were in a row, this one included; when they are no longer told one by one in the log
 * (respawn.h), the newest record of the child gives way, so that a crash loop does not push out
 * what happened before it. */
void deaths_add(struct scoreboard *board, struct board_death *record, uint32_t in_row);
/* A copy of the record `back` records before the newest (0: the newest); false: there is none. */
bool deaths_newest(const struct scoreboard *board, uint32_t back, struct board_death *ret_record);

/* Adds what a log line about a death says beyond its own words: " by=… cpu_ms=… maxrss_kib=…" and,
 * where there is one, the OOM kill and the last request. */
void death_add_facts(const struct board_death *record, struct buf *out);
/* One record as members of the object that is open in out. */
void deaths_print_fields(const struct board_death *record, struct buf *out);
/* All records, newest first. */
void deaths_print(const struct scoreboard *board, struct buf *out);
