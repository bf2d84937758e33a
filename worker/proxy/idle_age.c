/* SPDX-License-Identifier: Apache-2.0
 *
 * Rules for the age of idle connections. Pure; runs in workers.
 */
#include "worker/proxy/idle_age.h"

/* What is kept between the age of a connection and the age at which the server closes it, for a
 * request that must not be lost: both processes may be late by this much on a busy machine. */
#define SAFE_DISTANCE_US 250000
/* A connection that was closed at once was not closed for its age; and from nothing an eighth more
 * would never become something. */
#define CLOSES_AFTER_MIN_US 1000
#define CLOSES_AFTER_MAX_US INT64_C(86400000000)

static int64_t
smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t
idle_age_keep_us(int64_t keep_us, int64_t closes_after_us)
{
    return closes_after_us == 0 ? keep_us : smaller(keep_us, closes_after_us / 5 * 4);
}

bool
idle_age_allows(const struct idle_facts *facts, bool is_idempotent)
{
    int64_t limit_us = idle_age_keep_us(facts->keep_us, facts->closes_after_us);

    if (!is_idempotent) {
        /* While nothing was learned, the age that others have reached is all that is known. */
        int64_t closes_after_us =
            facts->closes_after_us != 0 ? facts->closes_after_us : facts->survived_us;
        limit_us =
            smaller(limit_us, smaller(closes_after_us / 2, closes_after_us - SAFE_DISTANCE_US));
    }
    return facts->age_us <= limit_us;
}

int64_t
idle_age_closed(int64_t closes_after_us, int64_t age_us)
{
    int64_t seen_us = age_us > CLOSES_AFTER_MIN_US ? age_us : CLOSES_AFTER_MIN_US;

    return closes_after_us == 0 ? seen_us : smaller(closes_after_us, seen_us);
}

int64_t
idle_age_told(int64_t closes_after_us, int64_t told_us)
{
    return idle_age_closed(closes_after_us, told_us);
}

/* One that was kept for 4/5 of the guess, which is as long as any is, moves it on by an eighth.
 * Others of the same age, which were begun with the same guess, move it no further. */
int64_t
idle_age_outlived(int64_t closes_after_us, int64_t age_us)
{
    int64_t guess_us = smaller(age_us, CLOSES_AFTER_MAX_US) * 45 / 32;

    return closes_after_us == 0 || guess_us < closes_after_us
               ? closes_after_us
               : smaller(guess_us, CLOSES_AFTER_MAX_US);
}
