/* SPDX-License-Identifier: Apache-2.0
 *
 * What workers = auto is made of.
 */
#include <criterion/criterion.h>
#include <sched.h>

#include "master/cpus.h"

Test(cpus, cpu_max_is_rounded_up)
{
    cr_expect_eq(cpus_parse_cpu_max("max 100000\n"), 0);
    cr_expect_eq(cpus_parse_cpu_max("100000 100000\n"), 1);
    cr_expect_eq(cpus_parse_cpu_max("150000 100000\n"), 2);
    cr_expect_eq(cpus_parse_cpu_max("1000 100000\n"), 1);
    cr_expect_eq(cpus_parse_cpu_max("800000 100000"), 8);
    cr_expect_eq(cpus_parse_cpu_max(""), 0);
    cr_expect_eq(cpus_parse_cpu_max("0 0"), 0);
    cr_expect_eq(cpus_parse_cpu_max("-1 100000"), 0);
}

Test(cpus, affinity_limits_the_count)
{
    cpu_set_t all;
    cpu_set_t one;

    cr_assert_eq(sched_getaffinity(0, sizeof(all), &all), 0);
    CPU_ZERO(&one);
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &all)) {
            CPU_SET(cpu, &one);
            break;
        }
    }
    cr_expect(cpus_usable() >= 1 && cpus_usable() <= (uint32_t)CPU_COUNT(&all));
    cr_assert_eq(sched_setaffinity(0, sizeof(one), &one), 0);
    cr_expect_eq(cpus_usable(), 1);
}
