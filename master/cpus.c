/* SPDX-License-Identifier: Apache-2.0
 *
 * Affinity and cgroup v2. The number of CPUs of the host says nothing in a container
 * (gunicorn#2028: 160 workers for 2 CPUs).
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

uint32_t
cpus_cgroup_limit(const char *root, const char *cgroup)
{
    static const char unified[] = "0::/";
    char group[PATH_MAX];
    uint32_t tightest = 0;
    const char *line = cgroup;

    /* cgroups(7): with controllers of v1 beside it, the line of v2 is not the only one. */
    while (line != NULL && strncmp(line, unified, strlen(unified)) != 0) {
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    if (line == NULL) {
        return 0;
    }
    line += strlen(unified) - 1;
    (void)snprintf(group, sizeof(group), "%.*s", (int)strcspn(line, "\n"), line);
    for (;;) {
        char path[2 * PATH_MAX];
        char text[64];
        (void)snprintf(path, sizeof(path), "%s%s/cpu.max", root, group);
        if (fd_read_text(path, text, sizeof(text))) {
            uint32_t limit = cpus_parse_cpu_max(text);
            tightest = limit > 0 && (tightest == 0 || limit < tightest) ? limit : tightest;
        }
        char *slash = strrchr(group, '/');
        if (slash == NULL) {
            return tightest;
        }
        *slash = '\0';
    }
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
