/* SPDX-License-Identifier: Apache-2.0
 *
 * "Did you mean": which slips are near enough, and which are not.
 */
#include "tests/unit/config/support.h"

#include "config/nearest.h"

TestSuite(nearest);

static const struct {
    const char *typed;
    const char *expected; /* NULL: no suggestion */
} cases[] = {
    {"wrokers", "workers"},
    {"worker", "workers"},
    {"workerss", "workers"},
    {"WORKERS", "workers"},
    {"wokrers", "workers"},
    {"boot-timeout", "boot_timeout"},
    {"timout", "timeout"},
    {"time_out", "timeout"},
    {"gracefull_timeuot", "graceful_timeout"},
    {"bnid", "bind"},
    {"bint", "bind"},
    {"band", "bind"},
    {"xyz", NULL},
    {"b", NULL},
    {"", NULL},
    {"somethingelse", NULL},
    {"wxyzers", NULL},
    {"tim", NULL},
    {"connection_workers_max", NULL},
};

Test(nearest, suggests_what_is_near_and_nothing_else)
{
    static const char *const known[] = {"bind",         "workers",          "timeout",
                                        "boot_timeout", "graceful_timeout", "backlog"};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct nearest nearest = {.text = cases[i].typed};
        for (size_t j = 0; j < sizeof(known) / sizeof(known[0]); j++) {
            nearest_offer(&nearest, known[j]);
        }
        if (cases[i].expected == NULL) {
            cr_expect_null(nearest.name, "%s: %s", cases[i].typed, nearest.name);
        } else {
            cr_assert_not_null(nearest.name, "%s", cases[i].typed);
            cr_expect_str_eq(nearest.name, cases[i].expected);
        }
    }
}

Test(nearest, takes_the_nearest_not_the_first)
{
    struct nearest nearest = {.text = "keepalive_drian"};

    nearest_offer(&nearest, "keepalive_brain");
    nearest_offer(&nearest, "keepalive_xxxxx");
    cr_assert_str_eq(nearest.name, "keepalive_brain");
    nearest_offer(&nearest, "keepalive_drain");
    cr_expect_str_eq(nearest.name, "keepalive_drain");
    cr_expect_eq(nearest.distance, 1, "a swap of neighbours is one slip");
}

Test(nearest, longer_than_64_is_no_name_of_ours)
{
    char long_text[80];
    struct nearest nearest = {.text = long_text};

    memset(long_text, 'a', sizeof(long_text));
    long_text[64] = '\0';
    nearest_offer(&nearest, "a");
    cr_expect_null(nearest.name);
    char *same = xstrdup(long_text);
    nearest_offer(&nearest, same);
    cr_expect_eq(nearest.name, same);
    long_text[64] = 'a';
    long_text[65] = '\0';
    nearest.name = NULL;
    nearest_offer(&nearest, same);
    cr_expect_null(nearest.name);
    free(same);
}
