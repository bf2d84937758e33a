/* SPDX-License-Identifier: Apache-2.0
 *
 * somaxconn: listen(2). nofile: getrlimit(2). memory.max, pids.max, cpu.max: cgroups(7); a group
 * is bound by those above it, too. Runs in the doctor.
 */
#include "master/doctor_limits.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "config/base/fd.h"
#include "config/config.h"
#include "master/cpus.h"
#include "master/doctor_report.h"
#include "master/doctor_unit.h"

#define CGROUP_ROOT "/sys/fs/cgroup"
/* Descriptors of a worker besides clients and servers: lanes, logs, channel, wake socket, loop. */
#define NOFILE_OWN 64
/* Processes besides workers and instances: the master, its resolver, the check of an upgrade. */
#define PROCESSES_OWN 3

/* ---- reading --------------------------------------------------------------------------------- */

static int64_t
read_number(const char *path)
{
    char text[64];
    char *end = NULL;

    if (!fd_read_text(path, text, sizeof(text))) {
        return -1;
    }
    long long number = strtoll(text, &end, 10);
    return end != text && number >= 0 ? number : -1; /* "max" is no number */
}

static int64_t
limit_in(const char *folder, const char *file)
{
    char path[PATH_MAX];
    char text[64];

    if ((size_t)snprintf(path, sizeof(path), "%s/%s", folder, file) >= sizeof(path)) {
        return DOCTOR_NO_LIMIT;
    }
    if (strcmp(file, "cpu.max") == 0) {
        uint32_t cpus = fd_read_text(path, text, sizeof(text)) ? cpus_parse_cpu_max(text) : 0;
        return cpus > 0 ? (int64_t)cpus : DOCTOR_NO_LIMIT;
    }
    int64_t number = read_number(path);
    return number >= 0 ? number : DOCTOR_NO_LIMIT;
}

int64_t
doctor_cgroup_limit(const char *folder, const char *file)
{
    char here[PATH_MAX];
    int64_t tightest = limit_in(folder, file);

    (void)snprintf(here, sizeof(here), "%s", folder);
    while (strncmp(here, CGROUP_ROOT "/", sizeof(CGROUP_ROOT)) == 0) {
        *strrchr(here, '/') = '\0';
        int64_t limit = limit_in(here, file);
        tightest = limit < tightest ? limit : tightest;
    }
    return tightest;
}

/* The folder of this process, or "" without cgroup v2. */
static void
own_cgroup(char *ret_folder, size_t size)
{
    char text[2 * PATH_MAX];
    const char *line = fd_read_text("/proc/self/cgroup", text, sizeof(text)) ? text : NULL;

    ret_folder[0] = '\0';
    while (line != NULL && strncmp(line, "0::/", 4) != 0) {
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    if (line != NULL) {
        (void)snprintf(ret_folder, size, CGROUP_ROOT "%.*s", (int)strcspn(line + 3, "\n"),
                       line + 3);
    }
}

void
doctor_limits_read(struct doctor_limits *ret_limits, const char *cgroup)
{
    char own[PATH_MAX];
    struct rlimit nofile;
    int64_t cpus = (int64_t)cpus_usable();

    own_cgroup(own, sizeof(own));
    const char *folder = cgroup != NULL ? cgroup : own;
    int64_t group_cpus = doctor_cgroup_limit(folder, "cpu.max");
    *ret_limits = (struct doctor_limits){.somaxconn = read_number("/proc/sys/net/core/somaxconn"),
                                         .nofile = -1,
                                         .memory_max = doctor_cgroup_limit(folder, "memory.max"),
                                         .pids_max = doctor_cgroup_limit(folder, "pids.max"),
                                         .cpus = group_cpus < cpus ? group_cpus : cpus};
    if (getrlimit(RLIMIT_NOFILE, &nofile) == 0) {
        ret_limits->nofile =
            nofile.rlim_max == RLIM_INFINITY ? DOCTOR_NO_LIMIT : (int64_t)nofile.rlim_max;
    }
}

/* ---- wanted ---------------------------------------------------------------------------------- */

static bool
has_low_port(const struct config *config)
{
    for (size_t i = 0; i < config->master.bind.count; i++) {
        const struct address *address = &config->master.bind.item[i];
        uint16_t port = 0;
        if (address->kind == ADDRESS_TCP) {
            port =
                address->sa.sa_family == AF_INET6 ? address->in6.sin6_port : address->in.sin_port;
        }
        if (port != 0 && ntohs(port) < 1024) {
            return true;
        }
    }
    return false;
}

void
doctor_wants_of(const struct config *config, uint32_t workers, struct doctor_wants *ret_wants)
{
    int64_t most = config->master.workers_max > (int64_t)workers ? config->master.workers_max
                                                                 : (int64_t)workers;
    int64_t processes = most + config->master.max_surge + PROCESSES_OWN;
    bool has_apps = false;

    for (size_t i = 0; i < config->backend_count; i++) {
        if (config->backends[i].command != NULL) {
            has_apps = true;
            processes += config->backends[i].instances + 1; /* and a successor */
        }
    }
    *ret_wants = (struct doctor_wants){
        .graceful_ms = config->master.graceful_timeout_ms,
        .boot_ms = config->master.boot_timeout_ms,
        /* A client in a backend takes one more, the connection to the server. */
        .nofile_least =
            config->worker.connections * (config->backend_count > 0 ? 2 : 1) + NOFILE_OWN,
        .processes = processes,
        .has_apps = has_apps,
        .has_user = config->master.user != NULL || config->master.group != NULL,
        .low_port = has_low_port(config),
        .memory_most = most * config->worker.connections * config->worker.connection_memory_bytes};
}

/* ---- judging --------------------------------------------------------------------------------- */

void
doctor_judge_backlog(struct doctor_report *report, int64_t backlog, const char *origin,
                     int64_t somaxconn)
{
    if (somaxconn < 0) {
        doctor_say(report, DOCTOR_WARN, "backlog",
                   "net.core.somaxconn cannot be read, which cuts backlog = %" PRId64
                   "; is /proc mounted?",
                   backlog);
    } else if (somaxconn < backlog) {
        doctor_say(report, DOCTOR_WARN, "backlog",
                   "the kernel cuts backlog = %" PRId64 " (%s) to net.core.somaxconn = %" PRId64
                   ": sysctl -w net.core.somaxconn=%" PRId64,
                   backlog, origin, somaxconn, backlog);
    } else {
        doctor_say(report, DOCTOR_OK, "backlog",
                   "backlog = %" PRId64 ", net.core.somaxconn = %" PRId64, backlog, somaxconn);
    }
}

void
doctor_judge_nofile(struct doctor_report *report, const struct doctor_wants *wants, int64_t nofile)
{
    if (nofile < 0) {
        return;
    }
    if (nofile < wants->nofile_least) {
        doctor_say(report, DOCTOR_FAIL, "descriptors",
                   "the hard limit of open files is %" PRId64
                   ", a worker with all its [worker] connections needs %" PRId64
                   ": raise it (ulimit -Hn, LimitNOFILE=), or lower connections",
                   nofile, wants->nofile_least);
    } else {
        doctor_say(report, DOCTOR_OK, "descriptors",
                   "a worker needs up to %" PRId64 " of the allowed open files",
                   wants->nofile_least);
    }
}

void
doctor_judge_cgroup(struct doctor_report *report, const struct doctor_wants *wants, int64_t workers,
                    const struct doctor_limits *limits)
{
    enum doctor_grade worst = DOCTOR_OK;

    if (limits->memory_max < wants->memory_most) {
        worst = DOCTOR_WARN;
        doctor_say(report, DOCTOR_WARN, "cgroup",
                   "memory.max is %" PRId64 " MiB, workers may take %" PRId64
                   " MiB at their worst (workers x connections x connection_memory): lower "
                   "connections, or raise MemoryMax=",
                   limits->memory_max >> 20, wants->memory_most >> 20);
    }
    if (limits->pids_max < wants->processes) {
        worst = DOCTOR_FAIL;
        doctor_say(report, DOCTOR_FAIL, "cgroup",
                   "pids.max is %" PRId64 ", narwhal alone starts up to %" PRId64
                   " processes, and threads of applications count too: raise TasksMax=",
                   limits->pids_max, wants->processes);
    }
    if (workers > limits->cpus) {
        worst = worst == DOCTOR_OK ? DOCTOR_WARN : worst;
        doctor_say(report, DOCTOR_WARN, "cgroup",
                   "workers = %" PRId64 ", but only %" PRId64
                   " CPUs may be used at a time (affinity, cpu.max): workers = auto is that many",
                   workers, limits->cpus);
    }
    if (worst == DOCTOR_OK) {
        doctor_say(report, DOCTOR_OK, "cgroup", "memory.max, pids.max and cpu.max leave room");
    }
}
