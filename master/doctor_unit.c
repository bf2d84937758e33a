/* SPDX-License-Identifier: Apache-2.0
 *
 * systemd.service(5), systemd.kill(5), systemd.exec(5). Pure; runs in the doctor.
 */
#include "master/doctor_unit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "master/doctor_report.h"

#define TOPIC "unit"
/* What systemd takes where the unit says nothing (systemd-system.conf(5)). */
#define DEFAULT_TIMEOUT_MS 90000
#define DEFAULT_NOFILE 524288

/* ---- reading --------------------------------------------------------------------------------- */

static void
set_value(char **place, const char *value, bool adds)
{
    if (value[0] == '\0') {
        free(*place);
        *place = NULL;
        return;
    }
    char *joined = adds && *place != NULL ? xasprintf("%s %s", *place, value) : xstrdup(value);
    free(*place);
    *place = joined;
}

static char *
trim(char *text)
{
    text += strspn(text, " \t\r");
    size_t length = strlen(text);
    while (length > 0 && strchr(" \t\r", text[length - 1]) != NULL) {
        text[--length] = '\0';
    }
    return text;
}

static void
take_assignment(struct doctor_unit *unit, char *line)
{
    char *equals = strchr(line, '=');

    if (equals == NULL) {
        return;
    }
    *equals = '\0';
    const char *key = trim(line);
    const char *value = trim(equals + 1);
#define DOCTOR_UNIT_TAKE(field, name, adds)                                                        \
    if (strcmp(key, name) == 0) {                                                                  \
        set_value(&unit->field, value, adds);                                                      \
    }
    DOCTOR_UNIT_KEYS(DOCTOR_UNIT_TAKE)
#undef DOCTOR_UNIT_TAKE
}

void
doctor_unit_parse(struct doctor_unit *ret_unit, const char *text)
{
    char *copy = xstrdup(text);
    char *rest = copy;
    char *line;
    struct buf whole = {0}; /* a line with those that continue it */
    bool in_service = false;

    *ret_unit = (struct doctor_unit){0};
    while ((line = strsep(&rest, "\n")) != NULL) {
        size_t length;
        line = trim(line);
        length = strlen(line);
        if (line[0] == '#' || line[0] == ';') {
            continue; /* also between the lines of a continued one */
        }
        if (length > 0 && line[length - 1] == '\\') {
            buf_add(&whole, line, length - 1);
            buf_add_text(&whole, " ");
            continue;
        }
        buf_add_text(&whole, line);
        if (whole.len > 0 && whole.ptr[0] == '[') {
            in_service = strcmp(whole.ptr, "[Service]") == 0;
            ret_unit->has_service = ret_unit->has_service || in_service;
        } else if (whole.len > 0 && in_service) {
            take_assignment(ret_unit, whole.ptr);
        }
        buf_clear(&whole);
    }
    buf_release(&whole);
    free(copy);
}

void
doctor_unit_release(struct doctor_unit *unit)
{
#define DOCTOR_UNIT_FREE(field, key, adds) free(unit->field);
    DOCTOR_UNIT_KEYS(DOCTOR_UNIT_FREE)
#undef DOCTOR_UNIT_FREE
    *unit = (struct doctor_unit){0};
}

int64_t
doctor_unit_span_ms(const char *text)
{
    static const struct {
        const char *name;
        int64_t ms;
    } units[] = {{"ms", 1},         {"msec", 1},       {"s", 1000},        {"sec", 1000},
                 {"second", 1000},  {"seconds", 1000}, {"", 1000},         {"m", 60000},
                 {"min", 60000},    {"minute", 60000}, {"minutes", 60000}, {"h", 3600000},
                 {"hr", 3600000},   {"hour", 3600000}, {"hours", 3600000}, {"d", 86400000},
                 {"day", 86400000}, {"days", 86400000}};
    int64_t sum = 0;

    if (strcmp(text, "infinity") == 0) {
        return INT64_MAX;
    }
    text += strspn(text, " ");
    if (text[0] == '\0') {
        return -1;
    }
    while (text[0] != '\0') {
        char *end = NULL;
        char name[16];
        if (text[0] < '0' || text[0] > '9') {
            return -1;
        }
        double number = strtod(text, &end);
        end += strspn(end, " ");
        size_t length = strspn(end, "abcdefghijklmnopqrstuvwxyz");
        (void)snprintf(name, sizeof(name), "%.*s", (int)length, end);
        int64_t unit_ms = -1;
        for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
            unit_ms = strcmp(units[i].name, name) == 0 ? units[i].ms : unit_ms;
        }
        if (unit_ms < 0 || number > 1e12) {
            return -1;
        }
        sum += (int64_t)(number * (double)unit_ms);
        text = end + length + strspn(end + length, " ");
    }
    return sum == 0 ? INT64_MAX : sum; /* 0 switches the timeout off */
}

static int64_t
parse_number(const char *text, char **ret_end)
{
    errno = 0;
    long long number = strtoll(text, ret_end, 10);

    return errno == 0 && text[0] >= '0' && text[0] <= '9' ? number : -1;
}

int64_t
doctor_unit_limit(const char *text)
{
    const char *colon = strchr(text, ':');
    const char *hard = colon != NULL ? colon + 1 : text;
    char *end = NULL;

    if (strcmp(hard, "infinity") == 0) {
        return INT64_MAX;
    }
    int64_t number = parse_number(hard, &end);
    return number >= 0 && *end == '\0' ? number : -1;
}

int64_t
doctor_unit_bytes(const char *text)
{
    static const char letters[] = "KMGT";
    char *end = NULL;

    if (strcmp(text, "infinity") == 0) {
        return INT64_MAX;
    }
    int64_t number = parse_number(text, &end);
    if (number < 0 || *end == '\0') {
        return number;
    }
    const char *found = strchr(letters, *end);
    if (found == NULL || end[1] != '\0' || number > INT64_MAX >> 41) {
        return -1;
    }
    return number << (10 * (found - letters + 1));
}

/* ---- judging --------------------------------------------------------------------------------- */

static bool
is(const char *value, const char *wanted)
{
    return value != NULL && strcmp(value, wanted) == 0;
}

static bool
is_true(const char *value)
{
    return is(value, "yes") || is(value, "true") || is(value, "on") || is(value, "1");
}

static bool
notifies(const struct doctor_unit *unit)
{
    return is(unit->type, "notify") || is(unit->type, "notify-reload");
}

static void
judge_type(struct doctor_report *report, const struct doctor_unit *unit)
{
    const char *type = unit->type != NULL ? unit->type : "simple";

    if (notifies(unit)) {
        if (is(unit->notify_access, "none")) {
            doctor_say(report, DOCTOR_FAIL, TOPIC,
                       "Type=%s with NotifyAccess=none: READY=1 never arrives and the start times "
                       "out; remove NotifyAccess=",
                       type);
        } else {
            doctor_say(report, DOCTOR_OK, TOPIC, "Type=%s: started when the workers are READY",
                       type);
        }
    } else if (strcmp(type, "forking") == 0) {
        doctor_say(report, DOCTOR_FAIL, TOPIC,
                   "Type=forking: narwhal stays in the foreground, so the start times out; use "
                   "Type=notify");
    } else {
        doctor_say(report, DOCTOR_FAIL, TOPIC,
                   "Type=%s: systemd takes narwhal for started before a worker is READY, and never "
                   "hears of reloads; use Type=notify",
                   type);
    }
    if (unit->watchdog != NULL && !notifies(unit) && unit->notify_access == NULL) {
        doctor_say(report, DOCTOR_FAIL, TOPIC,
                   "WatchdogSec=%s without Type=notify: WATCHDOG=1 is not accepted, and systemd "
                   "kills narwhal again and again; use Type=notify",
                   unit->watchdog);
    }
}

static void
judge_kill_mode(struct doctor_report *report, const struct doctor_unit *unit)
{
    const char *mode = unit->kill_mode != NULL ? unit->kill_mode : "control-group";

    if (strcmp(mode, "mixed") == 0) {
        doctor_say(report, DOCTOR_OK, TOPIC, "KillMode=mixed: the master stops its children");
    } else if (strcmp(mode, "process") == 0) {
        doctor_say(report, DOCTOR_WARN, TOPIC,
                   "KillMode=process: what is left when the master was killed stays behind and "
                   "holds ports; use KillMode=mixed");
    } else if (strcmp(mode, "none") == 0) {
        doctor_say(report, DOCTOR_FAIL, TOPIC,
                   "KillMode=none: nobody stops narwhal; use KillMode=mixed");
    } else {
        doctor_say(report, DOCTOR_WARN, TOPIC,
                   "KillMode=%s: app instances get SIGTERM together with the master, while clients "
                   "still need them; use KillMode=mixed",
                   mode);
    }
    if (unit->kill_signal != NULL && !is(unit->kill_signal, "SIGTERM") &&
        !is(unit->kill_signal, "15") && !is(unit->kill_signal, "TERM")) {
        doctor_say(
            report, DOCTOR_WARN, TOPIC,
            "KillSignal=%s: SIGTERM is the graceful stop; remove KillSignal=", unit->kill_signal);
    }
}

static int64_t
timeout_of(const struct doctor_unit *unit, const char *own)
{
    const char *text = own != NULL ? own : unit->timeout;
    int64_t ms = text != NULL ? doctor_unit_span_ms(text) : -1;

    return ms >= 0 ? ms : DEFAULT_TIMEOUT_MS;
}

static void
judge_timeouts(struct doctor_report *report, const struct doctor_unit *unit,
               const struct doctor_wants *wants)
{
    int64_t stop_ms = timeout_of(unit, unit->timeout_stop);
    int64_t start_ms = timeout_of(unit, unit->timeout_start);
    /* Workers drain first, then the instances leave, each within it. */
    int64_t needed_ms = wants->graceful_ms * (wants->has_apps ? 2 : 1);

    if (stop_ms <= wants->graceful_ms) {
        doctor_say(report, DOCTOR_FAIL, TOPIC,
                   "TimeoutStopSec is %" PRId64 " s, graceful_timeout %" PRId64
                   " s: systemd kills what narwhal still lets finish; make TimeoutStopSec= more "
                   "than %" PRId64 " s",
                   stop_ms / 1000, wants->graceful_ms / 1000, needed_ms / 1000);
    } else if (stop_ms <= needed_ms) {
        doctor_say(report, DOCTOR_WARN, TOPIC,
                   "TimeoutStopSec is %" PRId64 " s: workers and then app instances may take "
                   "graceful_timeout = %" PRId64 " s each; make TimeoutStopSec= more than %" PRId64
                   " s",
                   stop_ms / 1000, wants->graceful_ms / 1000, needed_ms / 1000);
    } else {
        doctor_say(report, DOCTOR_OK, TOPIC, "TimeoutStopSec is above graceful_timeout");
    }
    if (start_ms <= wants->boot_ms) {
        doctor_say(report, DOCTOR_WARN, TOPIC,
                   "TimeoutStartSec is %" PRId64 " s, boot_timeout %" PRId64
                   " s: systemd gives up before narwhal does; make TimeoutStartSec= more",
                   start_ms / 1000, wants->boot_ms / 1000);
    }
}

static void
judge_limits(struct doctor_report *report, const struct doctor_unit *unit,
             const struct doctor_wants *wants)
{
    int64_t nofile = unit->nofile != NULL ? doctor_unit_limit(unit->nofile) : DEFAULT_NOFILE;
    int64_t tasks = unit->tasks_max != NULL ? doctor_unit_limit(unit->tasks_max) : INT64_MAX;
    int64_t memory = unit->memory_max != NULL ? doctor_unit_bytes(unit->memory_max) : INT64_MAX;

    if (nofile >= 0 && nofile < wants->nofile_least) {
        doctor_say(report, DOCTOR_FAIL, TOPIC,
                   "LimitNOFILE=%s: a worker with all its [worker] connections needs %" PRId64
                   " descriptors; raise LimitNOFILE= or lower connections",
                   unit->nofile != NULL ? unit->nofile : "(default)", wants->nofile_least);
    }
    if (tasks >= 0 && tasks < wants->processes) {
        doctor_say(report, DOCTOR_FAIL, TOPIC,
                   "TasksMax=%s: narwhal alone starts up to %" PRId64
                   " processes, and threads of applications count too; raise TasksMax=",
                   unit->tasks_max, wants->processes);
    }
    if (memory >= 0 && memory < wants->memory_most) {
        doctor_say(report, DOCTOR_WARN, TOPIC,
                   "MemoryMax=%s: workers may take %" PRId64
                   " MiB at their worst (workers x connections x connection_memory); lower "
                   "connections, or raise MemoryMax=",
                   unit->memory_max, wants->memory_most >> 20);
    }
}

static void
judge_identity(struct doctor_report *report, const struct doctor_unit *unit,
               const struct doctor_wants *wants)
{
    bool is_root = unit->user == NULL || is(unit->user, "root") || is(unit->user, "0");

    if (!is_root && wants->has_user) {
        doctor_say(report, DOCTOR_FAIL, TOPIC,
                   "User=%s and [master] user or group: only a master that is root can change it; "
                   "keep one of the two",
                   unit->user);
    }
    if (!is_root && wants->low_port &&
        (unit->ambient == NULL || strstr(unit->ambient, "CAP_NET_BIND_SERVICE") == NULL)) {
        doctor_say(report, DOCTOR_WARN, TOPIC,
                   "User=%s cannot listen on a port below 1024 by itself; add "
                   "AmbientCapabilities=CAP_NET_BIND_SERVICE, or use a socket unit",
                   unit->user);
    }
}

void
doctor_judge_unit(struct doctor_report *report, const struct doctor_unit *unit,
                  const struct doctor_wants *wants)
{
    if (!unit->has_service) {
        doctor_say(report, DOCTOR_FAIL, TOPIC,
                   "this is no unit of a service: it has no section [Service]");
        return;
    }
    judge_type(report, unit);
    judge_kill_mode(report, unit);
    judge_timeouts(report, unit, wants);
    judge_limits(report, unit, wants);
    judge_identity(report, unit, wants);
    if (unit->exec_reload == NULL && !is(unit->type, "notify-reload")) {
        doctor_say(report, DOCTOR_WARN, TOPIC,
                   "no ExecReload=: systemctl reload does not work; add "
                   "ExecReload=/bin/kill -HUP $MAINPID, or narwhalctl reload --wait");
    }
    if (unit->restart == NULL || is(unit->restart, "no")) {
        doctor_say(report, DOCTOR_WARN, TOPIC,
                   "no Restart=: a master that is killed stays away; use Restart=always");
    }
}

/* ---- folders --------------------------------------------------------------------------------- */

static bool
is_below(const char *path, const char *folder, size_t length)
{
    while (length > 1 && folder[length - 1] == '/') {
        length--;
    }
    return strncmp(path, folder, length) == 0 &&
           (length == 1 || path[length] == '/' || path[length] == '\0');
}

/* Whether path is below one of the folders in a list of words, each below prefix. */
static bool
is_in_list(const char *path, const char *list, const char *prefix)
{
    while (list != NULL && *list != '\0') {
        size_t length = strcspn(list, " ");
        /* RuntimeDirectory=a:b makes a link b, too; "-" and "+" before a path are options. */
        size_t skip = strspn(list, "-+");
        size_t name = strcspn(list, " :");
        if (length > 0 && name > skip) {
            char *folder = xasprintf("%s%.*s", prefix, (int)(name - skip), list + skip);
            bool found = is_below(path, folder, strlen(folder));
            free(folder);
            if (found) {
                return true;
            }
        }
        list += length;
        list += strspn(list, " ");
    }
    return false;
}

bool
doctor_unit_makes(const struct doctor_unit *unit, const char *path)
{
    return is_in_list(path, unit->runtime_directory, "/run/") ||
           is_in_list(path, unit->logs_directory, "/var/log/") ||
           is_in_list(path, unit->state_directory, "/var/lib/");
}

static bool
is_below_any(const char *path, const char *const *folders)
{
    for (; *folders != NULL; folders++) {
        if (is_below(path, *folders, strlen(*folders))) {
            return true;
        }
    }
    return false;
}

const char *
doctor_unit_hides(const struct doctor_unit *unit, const char *path, bool for_writing)
{
    static const char *const homes[] = {"/home", "/root", "/run/user", NULL};
    static const char *const temporary[] = {"/tmp", "/var/tmp", NULL};
    static const char *const system[] = {"/usr", "/boot", "/efi", NULL};
    static const char *const system_and_etc[] = {"/usr", "/boot", "/efi", "/etc", NULL};
    static const char *const kernel[] = {"/dev", "/proc", "/sys", NULL};
    bool is_open = is_in_list(path, unit->read_write, "") || doctor_unit_makes(unit, path);

    if (is_below_any(path, homes) &&
        (is_true(unit->protect_home) || is(unit->protect_home, "tmpfs"))) {
        return "ProtectHome=";
    }
    if (is_below_any(path, temporary)) {
        return is_true(unit->private_tmp) ? "PrivateTmp=" : NULL;
    }
    if (!for_writing || is_open) {
        return NULL;
    }
    if (is_below_any(path, homes) && is(unit->protect_home, "read-only")) {
        return "ProtectHome=";
    }
    if (is(unit->protect_system, "strict")) {
        return is_below_any(path, kernel) ? NULL : "ProtectSystem=";
    }
    if (is(unit->protect_system, "full")) {
        return is_below_any(path, system_and_etc) ? "ProtectSystem=" : NULL;
    }
    return is_true(unit->protect_system) && is_below_any(path, system) ? "ProtectSystem=" : NULL;
}
