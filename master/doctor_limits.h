/* SPDX-License-Identifier: Apache-2.0
 *
 * What the kernel allows against what the settings want. The judging is pure; doctor_limits_read()
 * reads the files of the kernel. Runs in the doctor.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct config;
struct doctor_report;
struct doctor_wants;

#define DOCTOR_NO_LIMIT INT64_MAX

struct doctor_limits {
    int64_t somaxconn; /* -1: cannot be read */
    int64_t nofile;    /* the hard limit; -1: the unit has its own, which is judged there */
    int64_t memory_max;
    int64_t pids_max;
    int64_t cpus; /* that may be used at a time */
};

/* cgroup: a folder of cgroup v2, NULL: that of this process. */
void doctor_limits_read(struct doctor_limits *ret_limits, const char *cgroup);
/* The tightest value of a file in a folder of cgroup v2 and those above it; DOCTOR_NO_LIMIT. */
int64_t doctor_cgroup_limit(const char *folder, const char *file);

/* What the settings need. */
void doctor_wants_of(const struct config *config, uint32_t workers, struct doctor_wants *ret_wants);

void doctor_judge_backlog(struct doctor_report *report, int64_t backlog, const char *origin,
                          int64_t somaxconn);
void doctor_judge_nofile(struct doctor_report *report, const struct doctor_wants *wants,
                         int64_t nofile);
/* workers: as they are set; auto is what the CPUs allow and needs no judging. */
void doctor_judge_cgroup(struct doctor_report *report, const struct doctor_wants *wants,
                         int64_t workers, const struct doctor_limits *limits);
