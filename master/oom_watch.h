/* SPDX-License-Identifier: Apache-2.0
 *
 * Whether the kernel's OOM killer was at work in our cgroup: a SIGKILL that nobody confesses to is
 * mostly that, and nothing else tells. Runs in the master.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct oom_watch {
    char path[512];     /* memory.events of our cgroup v2; "": there is none */
    uint64_t seen;      /* its oom_kill at the last look */
    uint64_t unclaimed; /* kills that no death was put down to yet … */
    int64_t counted_ms; /* … and when they were counted */
};

/* Finds the counter and remembers where it stands. Without one, nothing is ever an OOM kill. */
void oom_watch_init(struct oom_watch *watch);
/* A child died of a SIGKILL that was not ours, at now_ms: whether the kernel counted a kill that is
 * not yet put down to another death. */
bool oom_watch_take(struct oom_watch *watch, int64_t now_ms);

/* The path of the cgroup v2 in the text of /proc/self/cgroup (cgroups(7)), without the end of its
 * line; false: there is none. */
bool oom_parse_cgroup(const char *text, char *ret_path, size_t size);
/* The number behind oom_kill in memory.events (cgroup-v2 documentation of the kernel), else 0. */
uint64_t oom_parse_events(const char *text);
