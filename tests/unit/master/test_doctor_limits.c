/* SPDX-License-Identifier: Apache-2.0
 *
 * Limits of the kernel against the settings.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "master/doctor_limits.h"
#include "master/doctor_report.h"
#include "master/doctor_unit.h"

static struct doctor_report report;

static void
end(void)
{
    doctor_report_release(&report);
}

TestSuite(doctor_limits, .fini = end);

static void
expect_last(enum doctor_grade grade, const char *text)
{
    cr_expect_eq(report.counts[grade], 1, "%s", report.text.ptr);
    cr_expect_eq(report.counts[DOCTOR_OK] + report.counts[DOCTOR_WARN] + report.counts[DOCTOR_FAIL],
                 1, "%s", report.text.ptr);
    cr_expect_not_null(strstr(report.text.ptr, text), "%s", report.text.ptr);
    doctor_report_release(&report);
    report = (struct doctor_report){0};
}

Test(doctor_limits, backlog)
{
    doctor_judge_backlog(&report, 2048, "default", 4096);
    expect_last(DOCTOR_OK, "ok    backlog      backlog = 2048");
    doctor_judge_backlog(&report, 2048, "default", 2048);
    expect_last(DOCTOR_OK, "somaxconn = 2048");
    doctor_judge_backlog(&report, 2048, "n.ini:3", 128);
    expect_last(DOCTOR_WARN, "backlog = 2048 (n.ini:3) to net.core.somaxconn = 128: sysctl -w "
                             "net.core.somaxconn=2048");
    doctor_judge_backlog(&report, 2048, "default", -1);
    expect_last(DOCTOR_WARN, "cannot be read");
}

Test(doctor_limits, nofile)
{
    const struct doctor_wants wants = {.nofile_least = 1000};

    doctor_judge_nofile(&report, &wants, 1000);
    expect_last(DOCTOR_OK, "1000");
    doctor_judge_nofile(&report, &wants, 999);
    expect_last(DOCTOR_FAIL, "is 999, a worker with all its [worker] connections needs 1000");
    doctor_judge_nofile(&report, &wants, -1);
    cr_expect_eq(report.text.len, 0, "the unit's was judged");
}

Test(doctor_limits, cgroup)
{
    const struct doctor_wants wants = {.processes = 10, .memory_most = 100 << 20};
    struct doctor_limits limits = {
        .memory_max = DOCTOR_NO_LIMIT, .pids_max = DOCTOR_NO_LIMIT, .cpus = 4};

    doctor_judge_cgroup(&report, &wants, 4, &limits);
    expect_last(DOCTOR_OK, "leave room");
    doctor_judge_cgroup(&report, &wants, 5, &limits);
    expect_last(DOCTOR_WARN, "workers = 5, but only 4 CPUs");
    limits.pids_max = 9;
    doctor_judge_cgroup(&report, &wants, 0, &limits);
    expect_last(DOCTOR_FAIL, "pids.max is 9, narwhal alone starts up to 10");
    limits.pids_max = 10;
    limits.memory_max = 50 << 20;
    doctor_judge_cgroup(&report, &wants, 0, &limits);
    expect_last(DOCTOR_WARN, "memory.max is 50 MiB, workers may take 100 MiB");
}

Test(doctor_limits, files_of_a_cgroup)
{
    char folder[] = "/tmp/narwhal-unit-XXXXXX";
    char path[64];

    cr_assert_not_null(mkdtemp(folder));
    static const struct {
        const char *file;
        const char *text;
        int64_t limit;
    } cases[] = {{"memory.max", "104857600\n", 104857600},
                 {"pids.max", "max\n", DOCTOR_NO_LIMIT},
                 {"cpu.max", "150000 100000\n", 2},
                 {"cpu.max", "max 100000\n", DOCTOR_NO_LIMIT},
                 {"pids.max", "x\n", DOCTOR_NO_LIMIT}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", folder, cases[i].file);
        FILE *file = fopen(path, "w");
        (void)fputs(cases[i].text, file);
        (void)fclose(file);
        cr_expect_eq(doctor_cgroup_limit(folder, cases[i].file), cases[i].limit, "%s",
                     cases[i].text);
        (void)unlink(path);
        cr_expect_eq(doctor_cgroup_limit(folder, cases[i].file), DOCTOR_NO_LIMIT);
    }
    (void)rmdir(folder);
}
