/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading what proc(5) says of memory, of texts and of real processes.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "master/process_memory.h"

#define MIB (INT64_C(1024) * 1024)

Test(process_memory, pss_of_a_text)
{
    cr_expect_eq(process_memory_parse_pss("5581-7fff ---p 00000000 00:00 0   [rollup]\n"
                                          "Rss:                1844 kB\n"
                                          "Pss:                 123 kB\n"
                                          "Pss_Anon:             96 kB\n"),
                 123 * 1024);
    cr_expect_eq(process_memory_parse_pss("x\nPss_Anon:  96 kB\n"), -1);
    cr_expect_eq(process_memory_parse_pss("x\nPss:  -1 kB\n"), -1);
    cr_expect_eq(process_memory_parse_pss("x\nPss:\n"), -1);
    cr_expect_eq(process_memory_parse_pss(""), -1);
}

Test(process_memory, statm_of_a_text)
{
    int64_t page = sysconf(_SC_PAGESIZE);
    int64_t resident = -1;
    int64_t private = -1;

    cr_expect(process_memory_parse_statm("1000 300 120 5 0 90 0\n", &resident, &private));
    cr_expect_eq(resident, 300 * page);
    cr_expect_eq(private, 180 * page);
    cr_expect(!process_memory_parse_statm("", &resident, &private));
    cr_expect(!process_memory_parse_statm("1000", &resident, &private));
    cr_expect(!process_memory_parse_statm("1000 3 4", &resident, &private));
}

Test(process_memory, what_shares_counts_by_its_share_and_children_count_with_the_tree)
{
    size_t size = 64 * (size_t)MIB;
    int ready[2];
    int hold[2];
    char byte;

    cr_assert_eq(pipe(ready), 0);
    cr_assert_eq(pipe(hold), 0);
    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(memory, MAP_FAILED);
    memset(memory, 1, size);
    pid_t child = fork();
    cr_assert_neq(child, -1);
    if (child == 0) {
        char sum = 0;
        for (size_t i = 0; i < size; i += 4096) {
            sum = (char)(sum + memory[i]);
        }
        (void)!write(ready[1], &sum, 1);
        (void)close(hold[1]);
        (void)!read(hold[0], &byte, 1);
        _exit(0);
    }
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    struct process_memory alone = process_memory_look(getpid(), false, 0);
    struct process_memory tree = process_memory_look(getpid(), true, 0);
    struct process_memory cheap = process_memory_look(getpid(), true, 1024 * MIB);
    cr_expect(alone.exact && tree.exact);
    cr_expect(alone.bytes > 32 * MIB && alone.bytes < 60 * MIB, "%lld", (long long)alone.bytes);
    cr_expect(tree.bytes > 64 * MIB && tree.bytes < 100 * MIB, "%lld", (long long)tree.bytes);
    cr_expect(cheap.bytes > 128 * MIB, "the resident size counts it twice: %lld",
              (long long)cheap.bytes);
    cr_assert_eq(close(hold[1]), 0);
    cr_assert_eq(waitpid(child, NULL, 0), child);
    cr_expect_eq(process_memory_look(child, true, 0).bytes, 0, "it is gone");
}
