/* SPDX-License-Identifier: Apache-2.0
 *
 * Health of one server: rests, trials, probes and slow start, with time as an argument; and the
 * promises that hold for any number of workers.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>

#include "config/config.h"
#include "worker/proxy/health.h"

static struct board_server server;
static struct backend_settings settings;
#define NOW 1000000

static void
make_server(void)
{
    memset(&server, 0, sizeof(server));
    server.state = BOARD_READY;
    server.weight = 1;
    settings = (struct backend_settings){.max_fails = 3,
                                         .fail_timeout_ms = 2000,
                                         .health_interval_ms = 5000,
                                         .health_rise = 2,
                                         .health_fall = 3};
}

TestSuite(health, .init = make_server);

static enum health_standing
standing(int64_t now_ms)
{
    return health_standing(&server, settings.health_path != NULL, now_ms);
}

static void
fail(int times)
{
    for (int i = 0; i < times; i++) {
        (void)health_failed(&server, &settings, NOW);
    }
}

/* ---- passive --------------------------------------------------------------------------------- */

Test(health, failures_in_a_row_make_it_rest)
{
    cr_expect_eq(health_failed(&server, &settings, NOW), HEALTH_SAME);
    cr_expect_eq(health_failed(&server, &settings, NOW), HEALTH_SAME);
    cr_expect_eq(health_answered(&server, &settings, 200, NOW), HEALTH_SAME);
    cr_expect_eq(health_failed(&server, &settings, NOW), HEALTH_SAME);
    cr_expect_eq(health_failed(&server, &settings, NOW), HEALTH_SAME);
    cr_expect_eq(standing(NOW), HEALTH_UP);
    cr_expect_eq(health_failed(&server, &settings, NOW), HEALTH_WENT_DOWN);
    cr_expect_eq(health_failed(&server, &settings, NOW), HEALTH_SAME, "told once");
    cr_expect_eq(standing(NOW), HEALTH_RESTING);
    cr_expect_eq(standing(NOW + 1999), HEALTH_RESTING);
    cr_expect_eq(standing(NOW + 2000), HEALTH_TRIAL);
}

Test(health, max_fails_0_never_rests)
{
    settings.max_fails = 0;
    fail(1000);
    cr_expect_eq(standing(NOW), HEALTH_UP);
}

Test(health, one_trial_at_a_time)
{
    cr_expect(health_admit(&server, &settings, NOW));
    fail(3);
    cr_expect(health_admit(&server, &settings, NOW), "when all rest, it is used all the same");
    cr_expect(health_admit(&server, &settings, NOW + 2000));
    cr_expect_eq(standing(NOW + 2000), HEALTH_RESTING, "for all others");
    cr_expect_eq(standing(NOW + 4000), HEALTH_TRIAL, "a trial without an end is not the last");
    cr_expect_eq(health_answered(&server, &settings, 404, NOW + 4001), HEALTH_CAME_UP);
    cr_expect_eq(standing(NOW + 4001), HEALTH_UP);
    cr_expect_eq(server.health.failures, 0);
    cr_expect_eq(server.health.up_since_ms, NOW + 4001);
}

Test(health, failed_trial_is_followed_by_the_next)
{
    fail(3);
    cr_expect(health_admit(&server, &settings, NOW + 2000));
    cr_expect_eq(health_failed(&server, &settings, NOW + 2001), HEALTH_SAME);
    cr_expect_eq(standing(NOW + 3999), HEALTH_RESTING);
    cr_expect(health_admit(&server, &settings, NOW + 4000));
}

Test(health, errors_count_only_when_set)
{
    for (int i = 0; i < 100; i++) {
        cr_expect_eq(health_answered(&server, &settings, 503, NOW), HEALTH_SAME);
    }
    settings.max_errors = 2;
    cr_expect_eq(health_answered(&server, &settings, 500, NOW), HEALTH_SAME);
    cr_expect_eq(health_answered(&server, &settings, 499, NOW), HEALTH_SAME);
    cr_expect_eq(health_answered(&server, &settings, 599, NOW), HEALTH_SAME);
    cr_expect_eq(health_answered(&server, &settings, 500, NOW), HEALTH_WENT_DOWN);
    cr_expect_eq(standing(NOW), HEALTH_RESTING);
    cr_expect(health_admit(&server, &settings, NOW + 2000));
    cr_expect_eq(health_answered(&server, &settings, 500, NOW + 2001), HEALTH_SAME);
    cr_expect_eq(standing(NOW + 2001), HEALTH_RESTING, "the trial was no better");
    cr_expect_eq(health_answered(&server, &settings, 200, NOW + 4001), HEALTH_CAME_UP);
}

/* ---- the operator ---------------------------------------------------------------------------- */

Test(health, what_the_operator_took_out_stays_out)
{
    server.wish = BOARD_WISH_DRAINED;
    cr_expect_eq(standing(NOW), HEALTH_OUT);
    (void)health_answered(&server, &settings, 200, NOW);
    cr_expect_eq(standing(NOW), HEALTH_OUT);
    server.wish = BOARD_WISH_DISABLED;
    cr_expect_eq(standing(NOW), HEALTH_OUT);
    server.wish = BOARD_WISH_ENABLED;
    cr_expect_eq(standing(NOW), HEALTH_UP);
}

/* ---- probes ---------------------------------------------------------------------------------- */

static char path[] = "/up";
static int64_t clock_ms;

static enum health_change
probe(bool is_good)
{
    int64_t next_ms = 0;

    settings.health_path = path;
    clock_ms = clock_ms == 0 ? NOW : clock_ms + settings.health_interval_ms;
    int64_t ticket = health_probe_lease(&server, &settings, clock_ms, &next_ms);
    cr_assert_neq(ticket, 0);
    cr_assert_eq(next_ms, clock_ms + 5000);
    return health_probed(&server, &settings, ticket, is_good, clock_ms + 1);
}

Test(health, first_probe_decides_then_rise_and_fall)
{
    cr_expect_eq(standing(NOW), HEALTH_UP);
    cr_expect_eq(probe(true), HEALTH_SAME);
    cr_expect_eq(probe(false), HEALTH_SAME);
    cr_expect_eq(probe(false), HEALTH_SAME);
    cr_expect_eq(probe(true), HEALTH_SAME, "in a row");
    cr_expect_eq(probe(false), HEALTH_SAME);
    cr_expect_eq(probe(false), HEALTH_SAME);
    cr_expect_eq(standing(NOW), HEALTH_UP);
    cr_expect_eq(probe(false), HEALTH_WENT_DOWN);
    cr_expect_eq(standing(NOW), HEALTH_RESTING);
    cr_expect_eq(probe(true), HEALTH_SAME);
    cr_expect_eq(probe(false), HEALTH_SAME);
    cr_expect_eq(probe(true), HEALTH_SAME);
    cr_expect_eq(standing(NOW), HEALTH_RESTING);
    cr_expect_eq(probe(true), HEALTH_CAME_UP);
    cr_expect_eq(standing(NOW), HEALTH_UP);
    cr_expect_eq(server.health.up_since_ms, clock_ms + 1);
}

Test(health, first_probe_may_be_bad)
{
    cr_expect_eq(probe(false), HEALTH_WENT_DOWN);
    cr_expect_eq(standing(NOW), HEALTH_RESTING);
    settings.health_path = NULL;
    cr_expect_eq(standing(NOW), HEALTH_UP, "a reload took health_path away");
}

Test(health, probe_ends_a_rest)
{
    (void)probe(false);
    fail(3);
    (void)probe(true);
    cr_expect_eq(probe(true), HEALTH_CAME_UP);
    cr_expect_eq(standing(NOW), HEALTH_UP);
}

Test(health, late_result_counts_for_nothing)
{
    int64_t next_ms;
    int64_t late = health_probe_lease(&server, &settings, NOW, &next_ms);

    cr_assert_neq(late, 0);
    cr_expect_eq(health_probe_lease(&server, &settings, NOW + 4999, &next_ms), 0);
    cr_expect_eq(next_ms, NOW + 5000);
    cr_expect_neq(health_probe_lease(&server, &settings, NOW + 5000, &next_ms), 0);
    cr_expect_eq(health_probed(&server, &settings, late, false, NOW + 5001), HEALTH_SAME);
    cr_expect_eq(server.finding, BOARD_FOUND_UNKNOWN);
}

Test(health, lease_of_longer_settings_is_void)
{
    int64_t next_ms;

    (void)health_probe_lease(&server, &settings, NOW, &next_ms);
    settings.health_interval_ms = 100;
    cr_expect_neq(health_probe_lease(&server, &settings, NOW + 1, &next_ms), 0);
}

#define THREADS 8
#define ROUNDS 2000
static pthread_barrier_t barrier;

static int
run_threads(void *(*run)(void *won))
{
    pthread_t threads[THREADS];
    int won[THREADS][16] = {{0}};
    int sum = 0;

    cr_assert_eq(pthread_barrier_init(&barrier, NULL, THREADS), 0);
    for (int i = 0; i < THREADS; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, run, &won[i][0]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
        sum += won[i][0];
    }
    (void)pthread_barrier_destroy(&barrier);
    return sum;
}

static void *
run_lease(void *won)
{
    for (int round = 0; round < ROUNDS; round++) {
        int64_t next_ms;
        (void)pthread_barrier_wait(&barrier);
        if (health_probe_lease(&server, &settings, NOW + round * INT64_C(5000), &next_ms) != 0) {
            (*(int *)won)++;
        }
        (void)pthread_barrier_wait(&barrier);
    }
    return NULL;
}

Test(health, one_worker_gets_each_lease)
{
    cr_expect_eq(run_threads(run_lease), ROUNDS);
}

/* ---- slow start ------------------------------------------------------------------------------ */

Test(health, weight_grows_after_a_return)
{
    server.weight = 3;
    cr_expect_eq(health_weight(&server, 0, NOW), 3);
    cr_expect_eq(health_weight(&server, 10000, NOW), 300, "it never was away");
    server.health.up_since_ms = NOW;
    cr_expect_eq(health_weight(&server, 10000, NOW), 30);
    cr_expect_eq(health_weight(&server, 10000, NOW + 500), 30);
    cr_expect_eq(health_weight(&server, 10000, NOW + 5000), 150);
    cr_expect_eq(health_weight(&server, 10000, NOW + 10000), 300);
    cr_expect_eq(health_weight(&server, 10000, NOW - 5), 30, "another worker's clock is ahead");
    server.weight = 0;
    cr_expect_eq(health_weight(&server, 0, NOW), 1);
}
