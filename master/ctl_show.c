/* SPDX-License-Identifier: Apache-2.0
 *
 * Tables for workers, servers, lanes and deaths; sentences for the rest. What an answer does not
 * have is left out or shown as "-", so that another version of narwhal can be asked too. Pure; runs
 * in narwhalctl.
 */
#include "master/ctl_show.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "config/base/buf.h"
#include "master/ctl_json.h"
#include "master/ctl_table.h"

#define COLUMNS(heads) (sizeof(heads) / sizeof((heads)[0]))
#define SPAN_TEXT_MAX 32

/* "850ms", "12s", "3m20s", "5h04m", "12d3h". */
static const char *
span_text(int64_t ms, char text[SPAN_TEXT_MAX])
{
    int64_t s = ms / 1000;

    if (ms < 0) {
        return "-";
    }
    if (ms < 1000) {
        (void)snprintf(text, SPAN_TEXT_MAX, "%" PRId64 "ms", ms);
    } else if (s < 60) {
        (void)snprintf(text, SPAN_TEXT_MAX, "%" PRId64 "s", s);
    } else if (s < 3600) {
        (void)snprintf(text, SPAN_TEXT_MAX, "%" PRId64 "m%02" PRId64 "s", s / 60, s % 60);
    } else if (s < 86400) {
        (void)snprintf(text, SPAN_TEXT_MAX, "%" PRId64 "h%02" PRId64 "m", s / 3600, s / 60 % 60);
    } else {
        (void)snprintf(text, SPAN_TEXT_MAX, "%" PRId64 "d%" PRId64 "h", s / 86400, s / 3600 % 24);
    }
    return text;
}

static void
add_harmless(struct buf *out, const char *text)
{
    size_t before = out->len;

    buf_add_text(out, text);
    if (out->len > before) {
        ctl_make_harmless(out->ptr + before);
    }
}

static void
add_span(struct ctl_table *table, const json_t *object, const char *key)
{
    char text[SPAN_TEXT_MAX];

    ctl_table_add(table, "%s", span_text(ctl_number(object, key, -1), text));
}

static void
add_number(struct ctl_table *table, const json_t *object, const char *key)
{
    ctl_table_add(table, "%s", ctl_text(object, key, "-"));
}

static void
finish(struct ctl_table *table, const char *empty, struct buf *out)
{
    if (table->cells_count == 0) {
        buf_addf(out, "%s\n", empty);
    }
    ctl_table_print(table, out);
    ctl_table_release(table);
}

/* ---- tables ---------------------------------------------------------------------------------- */

static void
add_worker_note(struct ctl_table *table, const json_t *worker)
{
    char span[SPAN_TEXT_MAX];
    int64_t stalled_ms = ctl_number(worker, "stalled_ms", 0);

    if (stalled_ms > 0) {
        ctl_table_add(table, "stalls for %s", span_text(stalled_ms, span));
    } else if (ctl_text(worker, "replaced_for", NULL) != NULL) {
        ctl_table_add(table, "replaced for %s", ctl_text(worker, "replaced_for", ""));
    } else {
        ctl_table_add(table, "%s", "");
    }
}

/* What the worker is in: it says so when it is READY, and what it lacks is seen here. */
static void
add_sandbox(struct ctl_table *table, const json_t *worker)
{
    const json_t *sandbox = json_object_get(worker, "sandbox");
    int64_t landlock = ctl_number(sandbox, "landlock_abi", 0);
    bool seccomp = ctl_number(sandbox, "seccomp", 0) != 0;

    if (sandbox == NULL) {
        ctl_table_add(table, "%s", "");
    } else if (landlock > 0) {
        ctl_table_add(table, "landlock %" PRId64 "%s", landlock, seccomp ? ", seccomp" : "");
    } else {
        ctl_table_add(table, "%s", seccomp ? "seccomp" : "none");
    }
}

static void
show_workers(const json_t *answer, struct buf *out)
{
    size_t worker_index;
    const json_t *worker;
    static const char *const heads[] = {">SLOT",   ">PID",         "STATE",     ">GENERATION",
                                        ">UP",     ">CONNECTIONS", ">REQUESTS", ">TUNNELS",
                                        "SANDBOX", "NOTE"};
    struct ctl_table table;

    ctl_table_init(&table, heads, COLUMNS(heads));
    json_array_foreach(json_object_get(answer, "workers"), worker_index, worker)
    {
        add_number(&table, worker, "slot");
        add_number(&table, worker, "pid");
        ctl_table_add(&table, "%s", ctl_text(worker, "state", ""));
        add_number(&table, worker, "generation");
        add_span(&table, worker, "uptime_ms");
        add_number(&table, worker, "connections");
        add_number(&table, worker, "requests");
        add_number(&table, worker, "tunnels");
        add_sandbox(&table, worker);
        add_worker_note(&table, worker);
    }
    finish(&table, "no workers", out);
}

static void
add_server_note(struct ctl_table *table, const json_t *server)
{
    char span[SPAN_TEXT_MAX];
    int64_t rest_ms = ctl_number(server, "rests_for_ms", -1);
    const char *backup = strcmp(ctl_text(server, "role", ""), "backup") == 0 ? "backup" : "";

    if (rest_ms >= 0) {
        ctl_table_add(table, "%s%srests for %s", backup, backup[0] != '\0' ? ", " : "",
                      span_text(rest_ms, span));
    } else {
        ctl_table_add(table, "%s", backup);
    }
}

static void
show_backends(const json_t *answer, struct buf *out)
{
    size_t backend_index;
    const json_t *backend;
    size_t server_index;
    const json_t *server;
    static const char *const heads[] = {"BACKEND", "SERVER",    "STATE",      ">PID",
                                        "HEALTH",  "WISH",      ">IN FLIGHT", ">SLOTS",
                                        ">WEIGHT", ">REQUESTS", "NOTE"};
    struct ctl_table table;

    ctl_table_init(&table, heads, COLUMNS(heads));
    json_array_foreach(json_object_get(answer, "backends"), backend_index, backend)
    {
        json_array_foreach(json_object_get(backend, "servers"), server_index, server)
        {
            ctl_table_add(&table, "%s", ctl_text(backend, "name", ""));
            ctl_table_add(&table, "%s", ctl_text(server, "address", ""));
            ctl_table_add(&table, "%s", ctl_text(server, "state", ""));
            ctl_table_add(&table, "%s",
                          ctl_number(server, "pid", 0) > 0 ? ctl_text(server, "pid", "") : "");
            ctl_table_add(&table, "%s", ctl_text(server, "health", ""));
            ctl_table_add(&table, "%s", ctl_text(server, "wish", ""));
            add_number(&table, server, "in_flight");
            ctl_table_add(&table, "%s",
                          ctl_number(server, "slots", 0) > 0 ? ctl_text(server, "slots", "") : "");
            add_number(&table, server, "weight");
            add_number(&table, server, "requests");
            add_server_note(&table, server);
        }
    }
    finish(&table, "no backends", out);
    json_array_foreach(json_object_get(answer, "backends"), backend_index, backend)
    {
        if (ctl_number(backend, "queued", 0) > 0) {
            buf_add_text(out, "queue of ");
            add_harmless(out, ctl_text(backend, "name", ""));
            buf_addf(out, ": %s of %s requests wait\n", ctl_text(backend, "queued", ""),
                     ctl_text(backend, "queue", "-"));
        }
    }
}

static void
show_lanes(const json_t *answer, struct buf *out)
{
    size_t lane_index;
    const json_t *lane;
    static const char *const heads[] = {">LANE", "ADDRESS", ">SLOT", ">SERVED BY", ">QUEUE"};
    struct ctl_table table;

    ctl_table_init(&table, heads, COLUMNS(heads));
    json_array_foreach(json_object_get(answer, "lanes"), lane_index, lane)
    {
        add_number(&table, lane, "id");
        ctl_table_add(&table, "%s", ctl_text(lane, "address", ""));
        add_number(&table, lane, "slot");
        ctl_table_add(&table, "%s", ctl_text(lane, "served_by_slot", "nobody"));
        add_number(&table, lane, "queue");
    }
    finish(&table, "no lanes", out);
}

static void
add_end(struct ctl_table *table, const json_t *death)
{
    const char *signal = ctl_text(death, "signal", NULL);

    if (signal != NULL) {
        ctl_table_add(table, "%s%s", signal, ctl_number(death, "core", 0) != 0 ? " (core)" : "");
    } else {
        ctl_table_add(table, "exit %s", ctl_text(death, "exit", "?"));
    }
}

static void
add_last(struct ctl_table *table, const json_t *death)
{
    const char *words = ctl_text(death, "last_words", ctl_text(death, "last_request", ""));
    int64_t deaths = ctl_number(death, "deaths", 1);

    if (deaths > 1) {
        ctl_table_add(table, "(%" PRId64 " in a row) %s", deaths, words);
    } else {
        ctl_table_add(table, "%s", words);
    }
}

static void
show_deaths(const json_t *answer, struct buf *out)
{
    size_t death_index;
    const json_t *death;
    static const char *const heads[] = {
        "TIME", "WHO", ">PID", "END", "BY", ">UP", ">CPU", ">MEMORY", "LAST WORDS OR REQUEST"};
    struct ctl_table table;

    ctl_table_init(&table, heads, COLUMNS(heads));
    json_array_foreach(json_object_get(answer, "deaths"), death_index, death)
    {
        char span[SPAN_TEXT_MAX];
        const char *reason = ctl_text(death, "reason", NULL);
        ctl_table_add(&table, "%.19sZ", ctl_text(death, "time", ""));
        ctl_table_add(&table, "%s", ctl_text(death, "name", ""));
        add_number(&table, death, "pid");
        add_end(&table, death);
        ctl_table_add(&table, "%s%s%s", ctl_text(death, "by", ""), reason != NULL ? ": " : "",
                      reason != NULL ? reason : "");
        add_span(&table, death, "uptime_ms");
        int64_t cpu_ms;
        if (__builtin_add_overflow(ctl_number(death, "cpu_user_ms", 0),
                                   ctl_number(death, "cpu_system_ms", 0), &cpu_ms)) {
            cpu_ms = -1;
        }
        ctl_table_add(&table, "%s", span_text(cpu_ms, span));
        ctl_table_add(&table, "%" PRId64 "M", ctl_number(death, "maxrss_kib", 0) / 1024);
        add_last(&table, death);
    }
    finish(&table, "no deaths", out);
}

/* ---- sentences ------------------------------------------------------------------------------- */

static void
show_status(const json_t *answer, struct buf *out)
{
    char span[SPAN_TEXT_MAX];
    const json_t *totals = json_object_get(answer, "totals");
    int64_t open = 0;

    if (__builtin_sub_overflow(ctl_number(totals, "accepted", 0), ctl_number(totals, "closed", 0),
                               &open)) {
        open = 0;
    }
    buf_addf(out,
             "narwhal %s, pid %s, up %s, %s, settings %s, workers %s of %s ready, sandbox %s\n",
             ctl_text(answer, "version", "?"), ctl_text(answer, "pid", "?"),
             span_text(ctl_number(answer, "uptime_ms", 0), span), ctl_text(answer, "phase", "?"),
             ctl_text(answer, "serial", "?"), ctl_text(answer, "workers_ready", "?"),
             ctl_text(answer, "workers_wanted", "?"), ctl_text(answer, "sandbox", "?"));
    buf_addf(out, "%s requests (%s of them 5xx), %" PRId64 " connections open of %s\n\n",
             ctl_text(totals, "requests", "0"), ctl_text(totals, "status_5xx", "0"),
             open > 0 ? open : 0, ctl_text(totals, "accepted", "0"));
    show_workers(answer, out);
    buf_add_text(out, "\n");
    show_backends(answer, out);
    buf_add_text(out, "\n");
    show_lanes(answer, out);
}

static void
show_ping(const json_t *answer, struct buf *out)
{
    buf_addf(out, "narwhal answers, pid %s\n", ctl_text(answer, "pid", "?"));
}

static void
show_server(const json_t *answer, struct buf *out)
{
    add_harmless(out, ctl_text(answer, "backend", "?"));
    buf_add_text(out, " ");
    add_harmless(out, ctl_text(answer, "address", "?"));
    buf_addf(out, " is %s; requests in flight: %s, servers enabled in the backend: %s\n",
             ctl_text(answer, "wish", "?"), ctl_text(answer, "in_flight", "?"),
             ctl_text(answer, "servers_enabled", "?"));
}

static void
show_operation(const json_t *answer, struct buf *out)
{
    char span[SPAN_TEXT_MAX];

    buf_addf(out, "%s %s: ", ctl_text(answer, "kind", "operation"), ctl_text(answer, "state", "?"));
    add_harmless(out, ctl_text(answer, "text", ""));
    buf_addf(out, " (operation %s, %s)\n", ctl_text(answer, "operation", "?"),
             span_text(ctl_number(answer, "took_ms", 0), span));
}

static const struct {
    const char *command;
    void (*show)(const json_t *answer, struct buf *out);
} forms[] = {{"ping", show_ping},          {"status", show_status},    {"workers", show_workers},
             {"backends", show_backends},  {"lanes", show_lanes},      {"deaths", show_deaths},
             {"server", show_server},      {"reload", show_operation}, {"restart", show_operation},
             {"scale", show_operation},    {"drain", show_operation},  {"upgrade", show_operation},
             {"operation", show_operation}};

static void
add_scalar(struct buf *out, const json_t *object, const char *key)
{
    const json_t *member = json_object_get(object, key);

    if (json_is_boolean(member)) {
        buf_add_text(out, json_is_true(member) ? "yes" : "no");
    } else {
        add_harmless(out, ctl_text(object, key, "-"));
    }
}

void
ctl_show(const char *command, json_t *answer, struct buf *out)
{
    const char *key;
    json_t *member;

    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        if (strcmp(forms[i].command, command) == 0) {
            forms[i].show(answer, out);
            return;
        }
    }
    json_object_foreach(answer, key, member)
    {
        add_harmless(out, key);
        buf_add_text(out, ": ");
        add_scalar(out, answer, key);
        buf_add_text(out, "\n");
    }
}

void
ctl_show_event(json_t *event, struct buf *out)
{
    const char *key;
    json_t *member;
    const char *time = ctl_text(event, "time", NULL);

    if (time != NULL) {
        add_harmless(out, time);
        buf_add_text(out, " ");
    }
    add_harmless(out, ctl_text(event, "event", "?"));
    json_object_foreach(event, key, member)
    {
        const char *text = json_string_value(member);
        if (strcmp(key, "time") == 0 || strcmp(key, "event") == 0 || json_is_null(member) ||
            (text != NULL && text[0] == '\0')) {
            continue;
        }
        bool quoted = text != NULL && strpbrk(text, " \"") != NULL;
        buf_add_text(out, " ");
        add_harmless(out, key);
        buf_add_text(out, quoted ? "=\"" : "=");
        add_scalar(out, event, key);
        buf_add_text(out, quoted ? "\"" : "");
    }
}
