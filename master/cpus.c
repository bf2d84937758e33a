/* SPDX-License-Identifier: Apache-2.0
 *
 * Affinity and cgroups, of both versions. The number of CPUs of the host says nothing in a
 * container (gunicorn#2028: 160 workers for 2 CPUs).
 */
#include "master/cpus.h"

#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "config/base/fd.h"

#define CGROUP_ROOT "/sys/fs/cgroup"

uint32_t
cpus_parse_cpu_max(const char *line)
{
    long long quota;
    long long period;

    if (sscanf(line, "%lld %lld", &quota, &period) != 2 || quota <= 0 || period <= 0) {
        return 0;
    }
    return (uint32_t)((quota + period - 1) / period);
}

/* ---- groups ----------------------------------------------------------------------------------
 */

static uint32_t
limit_of_v2(const char *folder)
{
    char path[3 * PATH_MAX];
    char text[64];

    (void)snprintf(path, sizeof(path), "%s/cpu.max", folder);
    return fd_read_text(path, text, sizeof(text)) ? cpus_parse_cpu_max(text) : 0;
}

/* The same two numbers in two files; a quota of -1 is none. */
static uint32_t
limit_of_v1(const char *folder)
{
    char path[3 * PATH_MAX];
    char quota[32];
    char period[32];
    char both[sizeof(quota) + sizeof(period) + 1];

    (void)snprintf(path, sizeof(path), "%s/cpu.cfs_quota_us", folder);
    if (!fd_read_text(path, quota, sizeof(quota))) {
        return 0;
    }
    (void)snprintf(path, sizeof(path), "%s/cpu.cfs_period_us", folder);
    if (!fd_read_text(path, period, sizeof(period))) {
        return 0;
    }
    (void)snprintf(both, sizeof(both), "%s %s", quota, period);
    return cpus_parse_cpu_max(both);
}

/* The smallest limit from a group up to the root of its tree. A container without a namespace of
 * its own for groups sees the name that its group has outside, and as the root of the tree itself:
 * the names lead nowhere, and the root has the limit. */
static uint32_t
tightest_on_the_way_up(const char *root, const char *name, size_t length,
                       uint32_t (*limit_of)(const char *folder))
{
    char group[PATH_MAX];
    uint32_t tightest = 0;

    (void)snprintf(group, sizeof(group), "%.*s", (int)length, name);
    for (;;) {
        char folder[2 * PATH_MAX];
        (void)snprintf(folder, sizeof(folder), "%s%s", root, group);
        uint32_t limit = limit_of(folder);
        tightest = limit > 0 && (tightest == 0 || limit < tightest) ? limit : tightest;
        char *slash = strrchr(group, '/');
        if (slash == NULL) {
            return tightest;
        }
        *slash = '\0';
    }
}

/* Whether cpu is among the controllers "cpu,cpuacct". */
static bool
has_cpu(const char *controllers, size_t length)
{
    while (length > 0) {
        size_t word = 0;
        while (word < length && controllers[word] != ',') {
            word++;
        }
        if (word == 3 && memcmp(controllers, "cpu", 3) == 0) {
            return true;
        }
        word += word < length ? 1 : 0;
        controllers += word;
        length -= word;
    }
    return false;
}

uint32_t
cpus_cgroup_limit(const char *root, const char *cgroup)
{
    char root_v1[PATH_MAX];
    uint32_t tightest = 0;

    (void)snprintf(root_v1, sizeof(root_v1), "%s/cpu", root);
    /* cgroups(7): number, controllers, name. Both versions may be there, each with lines of its
     * own; that of version 2 has no controllers. */
    for (const char *line = cgroup; *line != '\0';) {
        const char *end = line + strcspn(line, "\n");
        const char *controllers = memchr(line, ':', (size_t)(end - line));
        const char *name = controllers != NULL
                               ? memchr(controllers + 1, ':', (size_t)(end - controllers - 1))
                               : NULL;
        uint32_t limit = 0;
        if (name != NULL && name == controllers + 1 && line[0] == '0') {
            limit = tightest_on_the_way_up(root, name + 1, (size_t)(end - name - 1), limit_of_v2);
        } else if (name != NULL && has_cpu(controllers + 1, (size_t)(name - controllers - 1))) {
            limit =
                tightest_on_the_way_up(root_v1, name + 1, (size_t)(end - name - 1), limit_of_v1);
        }
        tightest = limit > 0 && (tightest == 0 || limit < tightest) ? limit : tightest;
        line = *end == '\n' ? end + 1 : end;
    }
    return tightest;
}

static uint32_t
own_cgroup_limit(void)
{
    char cgroup[2 * PATH_MAX];

    return fd_read_text("/proc/self/cgroup", cgroup, sizeof(cgroup))
               ? cpus_cgroup_limit(CGROUP_ROOT, cgroup)
               : 0;
}

uint32_t
cpus_usable(void)
{
    cpu_set_t set;
    uint32_t count = 1;
    uint32_t limit = own_cgroup_limit();

    if (sched_getaffinity(0, sizeof(set), &set) == 0) {
        count = (uint32_t)CPU_COUNT(&set);
    } else {
        long online = sysconf(_SC_NPROCESSORS_ONLN); /* more CPUs than a cpu_set_t holds */
        count = online > 0 ? (uint32_t)online : 1;
    }
    if (limit > 0 && limit < count) {
        count = limit;
    }
    return count > 0 ? count : 1;
}
