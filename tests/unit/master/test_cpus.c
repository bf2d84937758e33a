/* SPDX-License-Identifier: Apache-2.0
 *
 * What workers = auto is made of.
 */
#include <criterion/criterion.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

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

/* ---- a tree of groups ------------------------------------------------------------------------ */

static void
write_limit(const char *root, const char *group, const char *text)
{
    char path[256];

    (void)snprintf(path, sizeof(path), "%s%s", root, group);
    (void)mkdir(path, 0755); /* the root is there already */
    (void)snprintf(path, sizeof(path), "%s%s/cpu.max", root, group);
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    cr_assert(fputs(text, file) >= 0);
    cr_assert_eq(fclose(file), 0);
}

static void
remove_group(const char *root, const char *group)
{
    char path[256];

    (void)snprintf(path, sizeof(path), "%s%s/cpu.max", root, group);
    (void)unlink(path);
    (void)snprintf(path, sizeof(path), "%s%s", root, group);
    cr_assert_eq(rmdir(path), 0);
}

Test(cpus, the_smallest_limit_on_the_way_up_counts)
{
    char root[] = "/tmp/narwhal-cgroup-XXXXXX";

    cr_assert_not_null(mkdtemp(root));
    write_limit(root, "/a", "250000 100000\n");
    write_limit(root, "/a/b", "max 100000\n");
    write_limit(root, "/a/b/c", "800000 100000\n");
    write_limit(root, "/d", "max 100000\n");
    cr_expect_eq(cpus_cgroup_limit(root, "0::/a/b/c\n"), 3);
    cr_expect_eq(cpus_cgroup_limit(root, "0::/a/b\n"), 3);
    cr_expect_eq(cpus_cgroup_limit(root, "0::/a\n"), 3);
    cr_expect_eq(cpus_cgroup_limit(root, "0::/d\n"), 0);
    cr_expect_eq(cpus_cgroup_limit(root, "0::/\n"), 0);
    cr_expect_eq(cpus_cgroup_limit(root, "0::/a/gone/deep\n"), 3, "a group without the file");
    cr_expect_eq(cpus_cgroup_limit(root, "3:cpu:/x\n1:name=systemd:/y\n0::/a/b\n"), 3);
    cr_expect_eq(cpus_cgroup_limit(root, "3:cpu:/a\n"), 0);
    cr_expect_eq(cpus_cgroup_limit(root, ""), 0);
    write_limit(root, "/a/b/c", "50000 100000\n");
    cr_expect_eq(cpus_cgroup_limit(root, "0::/a/b/c"), 1);
    /* What a container sees: its own group is the root of the mount. */
    write_limit(root, "", "150000 100000\n");
    cr_expect_eq(cpus_cgroup_limit(root, "0::/\n"), 2);
    remove_group(root, "/a/b/c");
    remove_group(root, "/a/b");
    remove_group(root, "/a");
    remove_group(root, "/d");
    remove_group(root, "");
}

/* ---- version 1 ------------------------------------------------------------------------------- */

static void
write_quota(const char *root, const char *group, const char *quota)
{
    static const char *const names[] = {"cpu.cfs_quota_us", "cpu.cfs_period_us"};
    char path[256];

    (void)snprintf(path, sizeof(path), "%s%s", root, group);
    (void)mkdir(path, 0755);
    for (size_t i = 0; i < 2; i++) {
        (void)snprintf(path, sizeof(path), "%s%s/%s", root, group, names[i]);
        FILE *file = fopen(path, "w");
        cr_assert_not_null(file);
        cr_assert(fputs(i == 0 ? quota : "100000\n", file) >= 0);
        cr_assert_eq(fclose(file), 0);
    }
}

static void
remove_quota(const char *root, const char *group)
{
    char path[256];

    (void)snprintf(path, sizeof(path), "%s%s/cpu.cfs_quota_us", root, group);
    (void)unlink(path);
    (void)snprintf(path, sizeof(path), "%s%s/cpu.cfs_period_us", root, group);
    (void)unlink(path);
    (void)snprintf(path, sizeof(path), "%s%s", root, group);
    cr_assert_eq(rmdir(path), 0);
}

Test(cpus, version_1_has_the_limit_in_two_files)
{
    char root[] = "/tmp/narwhal-cgroup-XXXXXX";

    cr_assert_not_null(mkdtemp(root));
    write_quota(root, "/cpu", "-1\n");
    write_quota(root, "/cpu/a", "250000\n");
    write_quota(root, "/cpu/a/b", "-1\n");
    cr_expect_eq(cpus_cgroup_limit(root, "1:cpu:/a/b\n"), 3);
    cr_expect_eq(cpus_cgroup_limit(root, "9:memory:/x\n4:cpu,cpuacct:/a\n0::/\n"), 3);
    cr_expect_eq(cpus_cgroup_limit(root, "4:cpuacct,cpu:/a"), 3);
    cr_expect_eq(cpus_cgroup_limit(root, "4:cpuset,cpuacct:/a\n1:name=cpu:/a\n"), 0);
    cr_expect_eq(cpus_cgroup_limit(root, "1:cpu:/\n"), 0);
    cr_expect_eq(cpus_cgroup_limit(root, "nonsense\n1:cpu\n::\n\n"), 0);
    /* A container: the name is that outside, the root of the mount is its own group. */
    write_quota(root, "/cpu", "150000\n");
    cr_expect_eq(cpus_cgroup_limit(root, "1:cpu,cpuacct:/docker/0123\n0::/\n"), 2);
    remove_quota(root, "/cpu/a/b");
    remove_quota(root, "/cpu/a");
    remove_quota(root, "/cpu");
    cr_assert_eq(rmdir(root), 0);
}
