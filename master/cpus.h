/* SPDX-License-Identifier: Apache-2.0
 *
 * What `workers = auto` means on this machine. Runs in the master.
 */
#pragma once

#include <stdint.h>

/* CPUs that this process may use: by affinity, and by the cgroup's CPU limit, rounded up. At least
 * 1. */
uint32_t cpus_usable(void);
/* The CPUs that a line of cpu.max ("150000 100000", "max 100000") allows, rounded up; 0: no limit.
 */
uint32_t cpus_parse_cpu_max(const char *line);
/* The smallest such limit of a group and of all groups above it, in the files cpu.max below root,
 * or cpu.cfs_quota_us and cpu.cfs_period_us below root/cpu; 0: none. cgroup is a text like that of
 * /proc/self/cgroup: its lines "0::/a/b" and "1:cpu,cpuacct:/a/b" name the groups. */
uint32_t cpus_cgroup_limit(const char *root, const char *cgroup);
