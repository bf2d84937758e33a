/* SPDX-License-Identifier: Apache-2.0
 *
 * The reserve: spent once, set aside again when there is memory.
 */
#include <criterion/criterion.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>

#include "config/base/check.h"
#include "config/base/reserve.h"

Test(reserve, is_spent_once_and_filled_again)
{
    cr_expect(!memory_is_short(), "a process that never filled it is not short");
    cr_expect(!memory_reserve_spend(), "there was none");
    cr_assert(memory_reserve_fill(65536));
    cr_expect(memory_reserve_fill(65536), "filling it again changes nothing");
    cr_expect(!memory_is_short());
    cr_expect(memory_reserve_spend());
    cr_expect(memory_is_short());
    cr_expect(!memory_reserve_spend(), "it can be spent once");
    cr_expect(memory_reserve_fill(1));
    cr_expect(!memory_is_short());
    memory_reserve_release();
    cr_expect(!memory_is_short());
}

Test(reserve, its_realloc_is_realloc)
{
    char *memory = memory_reserve_realloc(NULL, 4);

    memcpy(memory, "abc", 4);
    memory = memory_reserve_realloc(memory, 100000);
    cr_expect_str_eq(memory, "abc");
    cr_expect_null(memory_reserve_realloc(memory, 0));
}

#if !defined(__SANITIZE_ADDRESS__)
/* With AddressSanitizer the addresses are all taken at the start, and a limit means nothing. */
Test(reserve, what_must_have_memory_gets_that_of_the_reserve)
{
    const size_t large = 32u << 20;
    const struct rlimit limit = {256u << 20, 256u << 20};
    void *taken[64];
    int count = 0;

    cr_assert(memory_reserve_fill(2 * large));
    cr_assert_eq(setrlimit(RLIMIT_AS, &limit), 0);
    while (count < 64 && (taken[count] = malloc(large)) != NULL) {
        count++;
    }
    cr_assert_lt(count, 64, "the limit holds");
    void *must = xcalloc(1, large);
    cr_expect(memory_is_short());
    cr_expect(!memory_reserve_fill(1), "there is still no memory");
    free(must);
    while (count > 0) {
        free(taken[--count]);
    }
    cr_expect(memory_reserve_fill(1));
    memory_reserve_release();
}
#endif
