/* SPDX-License-Identifier: Apache-2.0
 *
 * Affinity and cgroup v2. The number of CPUs of the host says nothing in a container
 * (gunicorn#2028: 160 workers for 2 CPUs).
 */
#include "master/cpus.h"

#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "config/base/fd.h"

#define CGROUP_ROOT "/sys/fs/cgroup"

static bool
read_text(const char *path, char *ret_text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd != -1 ? fd_read(fd, ret_text, size - 1) : -1;

    fd_close(&fd);
    ret_text[n > 0 ? n : 0] = '\0';
    return n > 0;
}

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

/* The tightest cpu.max from our cgroup up to the root; 0: none. */
static uint32_t
cgroup_limit(void)
{
    char path[1024];
    char text[512];
    uint32_t tightest = 0;

    if (!read_text("/proc/self/cgroup", text, sizeof(text)) || strncmp(text, "0::/", 4) != 0) {
        return 0;
    }
    text[strcspn(text, "\n")] = '\0';
    char *group = text + 3;
    for (;;) {
        char line[64];
        (void)snprintf(path, sizeof(path), CGROUP_ROOT "%s/cpu.max", group);
        if (read_text(path, line, sizeof(line))) {
            uint32_t limit = cpus_parse_cpu_max(line);
            tightest = limit > 0 && (tightest == 0 || limit < tightest) ? limit : tightest;
        }
        char *slash = strrchr(group, '/');
        if (slash == NULL) {
            return tightest;
        }
        *slash = '\0';
    }
}

uint32_t
cpus_usable(void)
{
    cpu_set_t set;
    uint32_t count = 1;
    uint32_t limit = cgroup_limit();

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
