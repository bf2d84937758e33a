/* SPDX-License-Identifier: Apache-2.0
 *
 * When a request is sent again: the rows that people argue about, and then every combination
 * against the promise itself, that nothing is repeated which may have been executed.
 */
#include <criterion/criterion.h>

#include "worker/proxy/retry.h"

static const struct {
    const char *what;
    struct retry_facts facts;
    enum retry_decision expected;
} cases[] = {
    {"nobody listens",
     {METHOD_GET, FAILURE_CONNECT, false, 0, 0, false, 1, 3, false, false},
     RETRY_OTHER},
    {"nobody listens, POST",
     {METHOD_POST, FAILURE_CONNECT, false, 0, 0, false, 1, 3, false, false},
     RETRY_OTHER},
    {"second server refuses too",
     {METHOD_GET, FAILURE_CONNECT, false, 0, 0, false, 2, 3, false, false},
     RETRY_OTHER},
    {"no attempts left",
     {METHOD_GET, FAILURE_CONNECT, false, 0, 0, false, 3, 3, false, false},
     RETRY_NO},
    {"only one attempt allowed",
     {METHOD_GET, FAILURE_CONNECT, false, 0, 0, false, 1, 1, false, false},
     RETRY_NO},
    {"refused after a GET was lost on a kept connection",
     {METHOD_GET, FAILURE_CONNECT, false, 80, 0, false, 2, 3, false, false},
     RETRY_OTHER},
    {"body is gone",
     {METHOD_POST, FAILURE_CONNECT, false, 0, 0, true, 1, 3, false, false},
     RETRY_NO},

    {"kept connection had been closed, GET",
     {METHOD_GET, FAILURE_CLOSED, true, 80, 0, false, 1, 3, false, false},
     RETRY_ANY},
    {"kept connection had been closed, PUT",
     {METHOD_PUT, FAILURE_CLOSED, true, 80, 0, false, 1, 3, false, false},
     RETRY_ANY},
    {"kept connection had been closed, POST",
     {METHOD_POST, FAILURE_CLOSED, true, 80, 0, false, 1, 3, false, false},
     RETRY_NO},
    {"kept connection had been closed, PATCH",
     {METHOD_PATCH, FAILURE_CLOSED, true, 80, 0, false, 1, 3, false, false},
     RETRY_NO},
    {"kept connection had been closed, unknown method",
     {METHOD_OTHER, FAILURE_CLOSED, true, 80, 0, false, 1, 3, false, false},
     RETRY_NO},
    {"kept connection was closed before a byte of the POST left",
     {METHOD_POST, FAILURE_CLOSED, true, 0, 0, false, 1, 3, false, false},
     RETRY_SAME},
    {"POST that is proved unread on a kept connection",
     {METHOD_POST, FAILURE_CLOSED, true, 80, 0, false, 1, 3, true, false},
     RETRY_SAME},
    {"POST that is proved unread, and the budget is used up",
     {METHOD_POST, FAILURE_CLOSED, true, 80, 0, false, 1, 3, true, true},
     RETRY_SAME},
    {"POST that is proved unread, but its body is gone",
     {METHOD_POST, FAILURE_CLOSED, true, 80, 0, true, 1, 3, true, false},
     RETRY_NO},
    {"POST that is proved unread, no attempts left",
     {METHOD_POST, FAILURE_CLOSED, true, 80, 0, false, 3, 3, true, false},
     RETRY_NO},
    {"POST that is proved unread on a new connection",
     {METHOD_POST, FAILURE_CLOSED, false, 80, 0, false, 2, 3, true, false},
     RETRY_OTHER},
    {"POST that is proved unread, but something was answered",
     {METHOD_POST, FAILURE_CLOSED, true, 80, 5, false, 1, 3, true, false},
     RETRY_NO},
    {"GET on a kept connection, the budget is used up",
     {METHOD_GET, FAILURE_CLOSED, true, 80, 0, false, 1, 3, false, true},
     RETRY_NO},
    {"died of a GET, the budget is used up",
     {METHOD_GET, FAILURE_CLOSED, false, 80, 0, false, 1, 3, false, true},
     RETRY_NO},
    {"nobody listens, the budget is used up",
     {METHOD_GET, FAILURE_CONNECT, false, 0, 0, false, 1, 3, false, true},
     RETRY_OTHER},
    {"kept connection, PUT whose body is gone",
     {METHOD_PUT, FAILURE_CLOSED, true, 4000, 0, true, 1, 3, false, false},
     RETRY_NO},
    {"kept connection, no attempts left",
     {METHOD_GET, FAILURE_CLOSED, true, 80, 0, false, 3, 3, false, false},
     RETRY_NO},

    {"died of a GET",
     {METHOD_GET, FAILURE_CLOSED, false, 80, 0, false, 1, 3, false, false},
     RETRY_OTHER},
    {"two died of a GET",
     {METHOD_GET, FAILURE_CLOSED, false, 80, 0, false, 2, 3, false, false},
     RETRY_NO},
    {"died of a DELETE",
     {METHOD_DELETE, FAILURE_CLOSED, false, 80, 0, false, 1, 3, false, false},
     RETRY_OTHER},
    {"died of a POST",
     {METHOD_POST, FAILURE_CLOSED, false, 80, 0, false, 1, 3, false, false},
     RETRY_NO},
    {"died before a byte of the POST left",
     {METHOD_POST, FAILURE_CLOSED, false, 0, 0, false, 2, 3, false, false},
     RETRY_OTHER},
    {"died in the middle of an answer",
     {METHOD_GET, FAILURE_CLOSED, false, 80, 1, false, 1, 3, false, false},
     RETRY_NO},
    {"died in the middle of an answer, kept",
     {METHOD_GET, FAILURE_CLOSED, true, 80, 1, false, 1, 3, false, false},
     RETRY_NO},

    {"no answer in time",
     {METHOD_GET, FAILURE_TIMEOUT, false, 80, 0, false, 1, 3, false, false},
     RETRY_NO},
    {"no answer in time, kept",
     {METHOD_GET, FAILURE_TIMEOUT, true, 80, 0, false, 1, 3, false, false},
     RETRY_NO},
    {"not HTTP",
     {METHOD_GET, FAILURE_PROTOCOL, false, 80, 20, false, 1, 3, false, false},
     RETRY_NO},
    {"not HTTP, nothing seen",
     {METHOD_GET, FAILURE_PROTOCOL, true, 80, 0, false, 1, 3, false, false},
     RETRY_NO},
};

Test(retry, table)
{
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cr_expect_eq(retry_decide(&cases[i].facts), cases[i].expected, "%s", cases[i].what);
    }
}

static void
check_promise(const struct retry_facts *facts)
{
    enum retry_decision decision = retry_decide(facts);

    if (decision == RETRY_NO) {
        return;
    }
    cr_assert_lt(facts->attempts, facts->attempts_max);
    cr_assert_eq(facts->bytes_seen, 0);
    cr_assert_not(facts->body_consumed);
    cr_assert(facts->bytes_sent == 0 || facts->unread || method_is_idempotent(facts->method));
    cr_assert(facts->bytes_sent == 0 || facts->unread || !facts->out_of_budget);
    cr_assert_eq(retry_costs_budget(facts), facts->bytes_sent > 0 && !facts->unread);
    cr_assert_neq(facts->failure, FAILURE_TIMEOUT);
    cr_assert_neq(facts->failure, FAILURE_PROTOCOL);
    if (decision == RETRY_SAME || decision == RETRY_ANY) {
        cr_assert_eq(facts->failure, FAILURE_CLOSED);
        cr_assert(facts->reused);
        cr_assert_eq(decision == RETRY_SAME, facts->bytes_sent == 0 || facts->unread);
    }
}

Test(retry, nothing_that_may_have_been_executed_is_repeated)
{
    struct retry_facts facts = {.attempts_max = 3};
    unsigned int checked = 0;

    for (int method = METHOD_OTHER; method < METHOD_COUNT; method++) {
        for (int failure = FAILURE_CONNECT; failure <= FAILURE_PROTOCOL; failure++) {
            for (unsigned int bits = 0; bits < 64; bits++) {
                for (facts.attempts = 1; facts.attempts <= 4; facts.attempts++) {
                    facts.method = (enum method)method;
                    facts.failure = (enum upstream_failure)failure;
                    facts.reused = bits & 1;
                    facts.bytes_sent = bits & 2 ? 100 : 0;
                    facts.bytes_seen = bits & 4 ? 1 : 0;
                    facts.body_consumed = bits & 8;
                    facts.unread = bits & 16;
                    facts.out_of_budget = bits & 32;
                    check_promise(&facts);
                    checked++;
                }
            }
        }
    }
    cr_assert_eq(checked, METHOD_COUNT * 4 * 64 * 4);
}

/* A request that kills whoever reads it must not be handed round. */
Test(retry, a_deadly_request_meets_at_most_two_servers)
{
    struct retry_facts facts = {
        .method = METHOD_GET, .failure = FAILURE_CLOSED, .bytes_sent = 80, .attempts_max = 100};

    facts.attempts = 1;
    while (retry_decide(&facts) != RETRY_NO) {
        facts.attempts++;
    }
    cr_assert_eq(facts.attempts, 2);
}

/* ---- the budget ------------------------------------------------------------------------------ */

static unsigned int
spend_all(struct retry_budget *budget, int64_t percent)
{
    unsigned int spent = 0;

    while (!retry_budget_is_empty(budget, percent)) {
        retry_budget_spend(budget);
        spent++;
    }
    return spent;
}

Test(retry, budget_is_a_part_of_the_traffic)
{
    struct retry_budget budget;

    retry_budget_init(&budget);
    cr_assert_eq(spend_all(&budget, 20), 100); /* the moment in which a server dies */
    for (int i = 0; i < 50; i++) {
        retry_budget_earn(&budget, 20);
    }
    cr_assert_eq(spend_all(&budget, 20), 10);
    for (int i = 0; i < 100000; i++) {
        retry_budget_earn(&budget, 20);
    }
    cr_assert_eq(spend_all(&budget, 20), 100, "what was not needed does not pile up");
}

Test(retry, budget_of_nothing_is_empty)
{
    struct retry_budget budget;

    retry_budget_init(&budget);
    cr_assert(retry_budget_is_empty(&budget, 0));
}
