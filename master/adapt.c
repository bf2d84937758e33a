/* SPDX-License-Identifier: Apache-2.0
 *
 * The policy of adapt.h. Pure; runs in the master.
 */
#include "master/adapt.h"

/* A queue that is not empty at one moment is normal under load; as many clients as workers mean
 * that nobody comes to accept them. */
static bool
clients_wait(const struct adapt_sample *sample)
{
    return sample->waiting >= sample->workers;
}

static bool
all_are_busy(const struct adapt_sample *sample)
{
    return sample->least_permille > ADAPT_BUSY_PERMILLE;
}

static bool
rest_could_do(const struct adapt_sample *sample)
{
    return sample->waiting == 0 && sample->workers > 1 &&
           sample->sum_permille < ADAPT_IDLE_PERMILLE * (sample->workers - 1);
}

static void
note(bool *is, int64_t *since_ms, bool is_now, int64_t now_ms)
{
    if (is_now && !*is) {
        *since_ms = now_ms;
    }
    *is = is_now;
}

static struct adapt_verdict
change_to(struct adapt *adapt, uint32_t wanted, enum adapt_reason reason)
{
    *adapt = (struct adapt){.is_hot = false}; /* what follows is judged by new samples */
    return (struct adapt_verdict){.reason = reason, .wanted = wanted};
}

struct adapt_verdict
adapt_judge(struct adapt *adapt, const struct adapt_limits *limits,
            const struct adapt_sample *sample)
{
    const struct adapt_verdict stay = {.reason = ADAPT_STAY, .wanted = sample->workers};

    if (sample->workers < limits->min) {
        return change_to(adapt, limits->min, ADAPT_BOUNDS);
    }
    if (sample->workers > limits->max) {
        return change_to(adapt, limits->max, ADAPT_BOUNDS);
    }
    if (sample->measured < sample->workers) {
        *adapt = (struct adapt){.is_hot = false}; /* the last change, or a death, takes effect */
        return stay;
    }
    note(&adapt->is_hot, &adapt->hot_since_ms, all_are_busy(sample) || clients_wait(sample),
         sample->now_ms);
    note(&adapt->is_cold, &adapt->cold_since_ms, rest_could_do(sample), sample->now_ms);
    if (adapt->is_hot && sample->workers < limits->max &&
        sample->now_ms - adapt->hot_since_ms >= limits->grow_after_ms) {
        return change_to(adapt, sample->workers + 1,
                         all_are_busy(sample) ? ADAPT_BUSY : ADAPT_WAITING);
    }
    if (adapt->is_cold && sample->workers > limits->min &&
        sample->now_ms - adapt->cold_since_ms >= limits->shrink_after_ms) {
        return change_to(adapt, sample->workers - 1, ADAPT_IDLE);
    }
    return stay;
}
