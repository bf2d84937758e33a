/* SPDX-License-Identifier: Apache-2.0
 *
 * Unit files: their syntax, their mistakes, and what they hide.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "master/doctor_report.h"
#include "master/doctor_unit.h"

static const struct doctor_wants wants = {.graceful_ms = 30000,
                                          .boot_ms = 60000,
                                          .nofile_least = 20064,
                                          .processes = 12,
                                          .has_apps = true,
                                          .has_user = true,
                                          .low_port = true,
                                          .memory_most = (int64_t)1 << 30};

static const char good[] = "Type=notify\nKillMode=mixed\nTimeoutStopSec=70\nTimeoutStartSec=2min\n"
                           "ExecReload=/bin/kill -HUP $MAINPID\nRestart=always\n";

/* Judges a [Service] of text; the grades and one line of the report must be these. */
static void
expect_judged(const char *text, size_t warnings, size_t failures, const char *line)
{
    struct doctor_report report = {0};
    struct doctor_unit unit;
    char whole[2048];

    (void)snprintf(whole, sizeof(whole), "[Service]\n%s", text);
    doctor_unit_parse(&unit, whole);
    doctor_judge_unit(&report, &unit, &wants);
    cr_expect_eq(report.counts[DOCTOR_WARN], warnings, "%s\n%s", text, report.text.ptr);
    cr_expect_eq(report.counts[DOCTOR_FAIL], failures, "%s\n%s", text, report.text.ptr);
    cr_expect_not_null(strstr(report.text.ptr, line), "%s\n%s", line, report.text.ptr);
    doctor_unit_release(&unit);
    doctor_report_release(&report);
}

static void
expect_with(const char *more, size_t warnings, size_t failures, const char *line)
{
    char text[1024];

    (void)snprintf(text, sizeof(text), "%s%s\n", good, more);
    expect_judged(text, warnings, failures, line);
}

Test(doctor_unit, syntax)
{
    struct doctor_unit unit;

    doctor_unit_parse(&unit, "Type=lost\n[Unit]\nType=other\n# Type=comment\n[Service]\n"
                             "  Type = notify \nExecReload=/bin/a \\\n# between\n  b\n"
                             "ExecReload=/bin/c\nUser=x\nKillMode=process\n"
                             "# /etc/systemd/system/narwhal.service.d/override.conf\n"
                             "[Service]\nKillMode=mixed\nUser=\n[Install]\nRestart=no\n");
    cr_expect(unit.has_service);
    cr_expect_str_eq(unit.type, "notify");
    cr_expect_str_eq(unit.exec_reload, "/bin/a  b /bin/c");
    cr_expect_str_eq(unit.kill_mode, "mixed");
    cr_expect_null(unit.user);
    cr_expect_null(unit.restart);
    doctor_unit_release(&unit);
}

Test(doctor_unit, spans)
{
    static const struct {
        const char *text;
        int64_t ms;
    } cases[] = {{"70", 70000},
                 {"70s", 70000},
                 {"1min 30s", 90000},
                 {"1min30s", 90000},
                 {"500ms", 500},
                 {"1.5h", 5400000},
                 {"2 minutes", 120000},
                 {"infinity", INT64_MAX},
                 {"0", INT64_MAX},
                 {"", -1},
                 {"x", -1},
                 {"5 parsecs", -1},
                 {"-5", -1},
                 {"5s x", -1}};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cr_expect_eq(doctor_unit_span_ms(cases[i].text), cases[i].ms, "%s", cases[i].text);
    }
}

Test(doctor_unit, numbers)
{
    cr_expect_eq(doctor_unit_limit("131072"), 131072);
    cr_expect_eq(doctor_unit_limit("1024:524288"), 524288);
    cr_expect_eq(doctor_unit_limit("1024:infinity"), INT64_MAX);
    cr_expect_eq(doctor_unit_limit("40%"), -1);
    cr_expect_eq(doctor_unit_limit(""), -1);
    cr_expect_eq(doctor_unit_bytes("512M"), 512 << 20);
    cr_expect_eq(doctor_unit_bytes("1T"), (int64_t)1 << 40);
    cr_expect_eq(doctor_unit_bytes("4096"), 4096);
    cr_expect_eq(doctor_unit_bytes("10%"), -1);
    cr_expect_eq(doctor_unit_bytes("9223372036854775807G"), -1);
    cr_expect_eq(doctor_unit_bytes("infinity"), INT64_MAX);
}

Test(doctor_unit, mistakes)
{
    expect_with("", 0, 0, "ok    unit         Type=notify");
    expect_with("Type=notify-reload\nExecReload=", 0, 0, "Type=notify-reload: started");
    expect_with("Type=simple", 0, 1, "fail  unit         Type=simple");
    expect_with("Type=", 0, 1, "Type=simple: systemd takes narwhal for started before");
    expect_with("Type=forking", 0, 1, "the start times out; use Type=notify");
    expect_with("NotifyAccess=none", 0, 1, "READY=1 never arrives");
    expect_with("Type=exec\nWatchdogSec=30", 0, 2, "kills narwhal again and again");
    expect_with("KillMode=process", 1, 0, "warn  unit         KillMode=process");
    expect_with("KillMode=", 1, 0, "KillMode=control-group: app instances get SIGTERM");
    expect_with("KillMode=none", 0, 1, "nobody stops narwhal");
    expect_with("KillSignal=SIGINT", 1, 0, "SIGTERM is the graceful stop");
    expect_with("TimeoutStopSec=20", 0, 1, "TimeoutStopSec is 20 s, graceful_timeout 30 s");
    expect_with("TimeoutStopSec=40", 1, 0, "may take graceful_timeout = 30 s each");
    expect_with("TimeoutStopSec=infinity", 0, 0, "TimeoutStopSec is above");
    expect_with("TimeoutStopSec=\nTimeoutSec=10", 0, 1, "TimeoutStopSec is 10 s");
    expect_with("TimeoutStartSec=30", 1, 0, "TimeoutStartSec is 30 s, boot_timeout 60 s");
    expect_with("LimitNOFILE=1024", 0, 1, "LimitNOFILE=1024: a worker");
    expect_with("TasksMax=8", 0, 1, "TasksMax=8: narwhal alone starts up to 12");
    expect_with("MemoryMax=512M", 1, 0, "workers may take 1024 MiB at their worst");
    expect_with("MemoryMax=2G", 0, 0, "ok");
    expect_with("User=www", 1, 1, "only a master that is root can change it");
    expect_with("User=www\nAmbientCapabilities=CAP_NET_BIND_SERVICE", 0, 1, "User=www");
    expect_with("User=root", 0, 0, "ok");
    expect_with("ExecReload=", 1, 0, "systemctl reload does not work");
    expect_with("Restart=no", 1, 0, "use Restart=always");
}

Test(doctor_unit, a_file_that_is_no_unit)
{
    struct doctor_report report = {0};
    struct doctor_unit unit;

    doctor_unit_parse(&unit, "[master]\nbind = :80\n");
    doctor_judge_unit(&report, &unit, &wants);
    cr_expect_eq(report.counts[DOCTOR_FAIL], 1);
    cr_expect_not_null(strstr(report.text.ptr, "no section [Service]"));
    doctor_report_release(&report);
    doctor_unit_release(&unit);
}

static const char *
hides(const char *text, const char *path, bool for_writing)
{
    struct doctor_unit unit;
    char whole[512];

    (void)snprintf(whole, sizeof(whole), "[Service]\n%s\n", text);
    doctor_unit_parse(&unit, whole);
    const char *result = doctor_unit_hides(&unit, path, for_writing);
    doctor_unit_release(&unit);
    return result != NULL ? result : "";
}

Test(doctor_unit, what_it_hides)
{
    cr_expect_str_eq(hides("ProtectHome=yes", "/home/x/site", false), "ProtectHome=");
    cr_expect_str_eq(hides("ProtectHome=read-only", "/home/x/site", false), "");
    cr_expect_str_eq(hides("ProtectHome=read-only", "/home/x/log", true), "ProtectHome=");
    cr_expect_str_eq(hides("ProtectHome=yes", "/homeless", false), "");
    cr_expect_str_eq(hides("PrivateTmp=yes", "/tmp/a.sock", true), "PrivateTmp=");
    cr_expect_str_eq(hides("ProtectSystem=full", "/etc/narwhal/x", true), "ProtectSystem=");
    cr_expect_str_eq(hides("ProtectSystem=full", "/etc/narwhal/x", false), "");
    cr_expect_str_eq(hides("ProtectSystem=full", "/var/log/x", true), "");
    cr_expect_str_eq(hides("ProtectSystem=yes", "/usr/x", true), "ProtectSystem=");
    cr_expect_str_eq(hides("ProtectSystem=strict", "/var/log/x", true), "ProtectSystem=");
    cr_expect_str_eq(
        hides("ProtectSystem=strict\nReadWritePaths=/srv -/var/log", "/var/log/x", true), "");
    cr_expect_str_eq(
        hides("ProtectSystem=strict\nLogsDirectory=narwhal", "/var/log/narwhal/x", true), "");
    cr_expect_str_eq(
        hides("ProtectSystem=strict\nRuntimeDirectory=a narwhal:link", "/run/narwhal/ctl", true),
        "");
    cr_expect_str_eq(hides("ProtectSystem=strict", "/dev/null", true), "");
    cr_expect_str_eq(hides("", "/usr/x", true), "");
}
