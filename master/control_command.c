/* SPDX-License-Identifier: Apache-2.0
 *
 * One row for each command. An order that takes time is answered with the number of its operation
 * (operations.h); nothing here waits. Runs in the master.
 */
#include "master/control_command.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/base/log.h"
#include "config/config.h"
#include "config/nearest.h"
#include "master/deaths.h"
#include "master/json.h"
#include "master/master.h"
#include "master/server_command.h"
#include "master/status.h"
#include "master/worker_child.h"

/* What of the client's words goes into a message. */
#define SHOWN_MAX 60

void
control_command_refuse(struct buf *out, const char *format, ...)
{
    char text[512];
    va_list list;

    va_start(list, format);
    (void)vsnprintf(text, sizeof(text), format, list);
    va_end(list);
    json_open(out, NULL, '{');
    json_text(out, "error", text);
    json_close(out, '}');
}

static void
answer_operation(struct master *master, uint64_t number, struct buf *out)
{
    const struct operation *operation = operation_find(master, number);

    if (operation != NULL) {
        operation_print(master, operation, out);
    } else {
        control_command_refuse(out, "operation %llu is not known, or not any more: the last %d are",
                               (unsigned long long)number, OPERATIONS_MAX);
    }
}

/* A decimal number and nothing else. */
static bool
parse_number(const char *text, int64_t *ret_number)
{
    char *end = NULL;

    if (text[0] < '0' || text[0] > '9') {
        return false;
    }
    errno = 0;
    long long number = strtoll(text, &end, 10);
    *ret_number = number;
    return errno == 0 && *end == '\0';
}

/* ---- the commands ---------------------------------------------------------------------------- */

static void
run_ping(struct master *master, const char *words, struct buf *out)
{
    (void)words;
    status_print_ping(master, out);
}

static void
run_status(struct master *master, const char *words, struct buf *out)
{
    (void)words;
    status_print(master, out);
}

static void
run_workers(struct master *master, const char *words, struct buf *out)
{
    (void)words;
    status_print_workers(master, out);
}

static void
run_backends(struct master *master, const char *words, struct buf *out)
{
    (void)words;
    status_print_backends(master, out);
}

static void
run_lanes(struct master *master, const char *words, struct buf *out)
{
    (void)words;
    status_print_lanes(master, out);
}

static void
run_deaths(struct master *master, const char *words, struct buf *out)
{
    (void)words;
    deaths_print(master->board, out);
}

static void
run_events(struct master *master, const char *words, struct buf *out)
{
    (void)words;
    status_print_listening(master, out);
}

static void
run_reload(struct master *master, const char *words, struct buf *out)
{
    (void)words;
    log_info("narwhalctl orders a reload");
    uint64_t number = reload_request(master);
    if (number == 0) {
        control_command_refuse(out, "no reload: narwhal is stopping");
    } else {
        answer_operation(master, number, out);
    }
}

static void
run_upgrade(struct master *master, const char *words, struct buf *out)
{
    const char *why = NULL;

    (void)words;
    log_info("narwhalctl orders an upgrade");
    uint64_t number = upgrade_request(master, &why);
    if (number == 0) {
        control_command_refuse(out, "the upgrade is refused: %s", why);
    } else {
        answer_operation(master, number, out);
    }
}

static void
run_restart(struct master *master, const char *words, struct buf *out)
{
    struct buf error = {0};
    uint64_t generation = 0;

    if (apps_restart(master, words, &generation, &error) != 0) {
        control_command_refuse(out, "%s", error.ptr);
        buf_release(&error);
        return;
    }
    struct operation *operation = operation_begin(master, OPERATION_RESTART, words);
    operation->mark = (int64_t)generation;
    log_info("narwhalctl orders a restart of the instances backend=%s", words);
    answer_operation(master, operation->number, out);
}

static void
run_scale(struct master *master, const char *words, struct buf *out)
{
    struct buf error = {0};
    int64_t workers;

    if (!parse_number(words, &workers)) {
        control_command_refuse(out, "it is: scale N, a number of workers from 1 to %d",
                               BOARD_SLOTS_MAX);
        return;
    }
    if (master_scale(master, workers, &error) != 0) {
        control_command_refuse(out, "%s", error.ptr);
        buf_release(&error);
        return;
    }
    struct operation *operation = operation_begin(master, OPERATION_SCALE, "");
    operation->target = workers;
    answer_operation(master, operation->number, out);
}

static void
run_drain(struct master *master, const char *words, struct buf *out)
{
    struct buf error = {0};
    int64_t number;

    if (!parse_number(words, &number)) {
        control_command_refuse(
            out, "it is: drain SLOT, the number of a worker slot as narwhalctl workers "
                 "shows it");
        return;
    }
    if (slots_drain(master, number, &error) != 0) {
        control_command_refuse(out, "%s", error.ptr);
        buf_release(&error);
        return;
    }
    const struct slot *slot = &master->slots.slots[number];
    struct operation *operation = operation_begin(master, OPERATION_DRAIN, "");
    operation->target = number;
    operation->mark = slot->serving->child.pid;
    operation->failures = slot->recycle.failed;
    answer_operation(master, operation->number, out);
}

static void
run_operation(struct master *master, const char *words, struct buf *out)
{
    int64_t number;

    if (!parse_number(words, &number)) {
        control_command_refuse(out, "it is: operation NUMBER");
        return;
    }
    answer_operation(master, (uint64_t)number, out);
}

static const struct command {
    const char *name;
    bool takes_words;
    void (*run)(struct master *master, const char *words, struct buf *out);
} commands[] = {{"ping", false, run_ping},          {"status", false, run_status},
                {"workers", false, run_workers},    {"backends", false, run_backends},
                {"lanes", false, run_lanes},        {"deaths", false, run_deaths},
                {"events", false, run_events},      {"reload", false, run_reload},
                {"upgrade", false, run_upgrade},    {"restart", true, run_restart},
                {"scale", true, run_scale},         {"drain", true, run_drain},
                {"operation", true, run_operation}, {"server", true, server_command_run}};
#define COMMAND_COUNT (sizeof(commands) / sizeof(commands[0]))

static void
refuse_unknown(const char *name, struct buf *out)
{
    struct nearest nearest = {.text = name};

    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        nearest_offer(&nearest, commands[i].name);
    }
    if (nearest.name != NULL) {
        control_command_refuse(out, "unknown command \"%.*s\"; did you mean %s?", SHOWN_MAX, name,
                               nearest.name);
    } else {
        control_command_refuse(out, "unknown command \"%.*s\"; narwhalctl --help lists all of them",
                               SHOWN_MAX, name);
    }
}

static const struct command *
command_find(const char *name)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(name, commands[i].name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

enum control_result
control_command_run(struct master *master, const char *line, struct buf *out)
{
    size_t length = strcspn(line, " ");
    const char *words = line + length + strspn(line + length, " ");
    char *name = xstrndup(line, length);
    const struct command *command = command_find(name);

    if (command == NULL) {
        refuse_unknown(name, out);
    } else if (command->takes_words && words[0] == '\0') {
        control_command_refuse(out, "%s needs more words; narwhalctl --help says which", name);
    } else if (!command->takes_words && words[0] != '\0') {
        control_command_refuse(out, "%s takes no more words, not \"%.*s\"", name, SHOWN_MAX, words);
    } else {
        command->run(master, words, out);
    }
    free(name);
    return command != NULL && command->run == run_events && words[0] == '\0' ? CONTROL_LISTENS
                                                                             : CONTROL_ANSWERED;
}
