/* SPDX-License-Identifier: Apache-2.0
 *
 * The text of a systemd unit (systemd.syntax(7)), and what in it does not go together with
 * narwhal's settings. Pure; runs in the doctor.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct doctor_report;

/* The keys of [Service] that are looked at; X(field, key, whether more than one value adds up) */
#define DOCTOR_UNIT_KEYS(X)                                                                        \
    X(type, "Type", false)                                                                         \
    X(kill_mode, "KillMode", false)                                                                \
    X(kill_signal, "KillSignal", false)                                                            \
    X(timeout_stop, "TimeoutStopSec", false)                                                       \
    X(timeout_start, "TimeoutStartSec", false)                                                     \
    X(timeout, "TimeoutSec", false)                                                                \
    X(watchdog, "WatchdogSec", false)                                                              \
    X(notify_access, "NotifyAccess", false)                                                        \
    X(exec_reload, "ExecReload", true)                                                             \
    X(restart, "Restart", false)                                                                   \
    X(nofile, "LimitNOFILE", false)                                                                \
    X(tasks_max, "TasksMax", false)                                                                \
    X(memory_max, "MemoryMax", false)                                                              \
    X(user, "User", false)                                                                         \
    X(group, "Group", false)                                                                       \
    X(ambient, "AmbientCapabilities", true)                                                        \
    X(protect_home, "ProtectHome", false)                                                          \
    X(protect_system, "ProtectSystem", false)                                                      \
    X(private_tmp, "PrivateTmp", false)                                                            \
    X(read_write, "ReadWritePaths", true)                                                          \
    X(runtime_directory, "RuntimeDirectory", true)                                                 \
    X(logs_directory, "LogsDirectory", true)                                                       \
    X(state_directory, "StateDirectory", true)

struct doctor_unit {
#define DOCTOR_UNIT_FIELD(field, key, adds) char *field; /* owned; NULL: not set */
    DOCTOR_UNIT_KEYS(DOCTOR_UNIT_FIELD)
#undef DOCTOR_UNIT_FIELD
    bool has_service; /* there was a section [Service] */
};

/* What of the settings a unit has to fit. */
struct doctor_wants {
    int64_t graceful_ms;
    int64_t boot_ms;
    int64_t nofile_least; /* descriptors of a worker with all its clients */
    int64_t processes;
    bool has_apps;       /* narwhal starts applications */
    bool has_user;       /* [master] user or group */
    bool low_port;       /* it binds a port below 1024 */
    int64_t memory_most; /* what workers may take at their worst */
};

/* Reads the text of a unit, with its drop-ins behind it, as `systemctl cat` prints them: a later
 * value replaces an earlier one, an empty one takes it back. */
void doctor_unit_parse(struct doctor_unit *ret_unit, const char *text);
void doctor_unit_release(struct doctor_unit *unit);
/* "70s", "1min 30s", "5" (seconds), "infinity" (INT64_MAX): milliseconds, or -1 (systemd.time(7)).
 */
int64_t doctor_unit_span_ms(const char *text);
/* "131072", "1024:524288" (the hard limit), "infinity": or -1. */
int64_t doctor_unit_limit(const char *text);
/* "512M", "infinity": bytes, or -1 for a percentage and whatever else. */
int64_t doctor_unit_bytes(const char *text);

void doctor_judge_unit(struct doctor_report *report, const struct doctor_unit *unit,
                       const struct doctor_wants *wants);
/* Whether the unit leaves narwhal no access to path, of the given kind; and which key does. */
const char *doctor_unit_hides(const struct doctor_unit *unit, const char *path, bool for_writing);
/* Whether systemd makes the folder of path before narwhal starts (RuntimeDirectory= …). */
bool doctor_unit_makes(const struct doctor_unit *unit, const char *path);
