/* SPDX-License-Identifier: Apache-2.0
 *
 * Placeholders and environment of an app instance. Runs in the master; only
 * exec_env_set_listen_pid() runs in the child, before exec.
 */
#include "master/exec_template.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/command.h"
#include "config/value.h"

/* Room for the digits of any pid. */
#define LISTEN_PID_TEMPLATE "LISTEN_PID=0000000000"

/* Variables that describe the master itself and would mislead an application. */
static const char *const masters_own[] = {"LISTEN_FDS",    "LISTEN_PID",    "LISTEN_FDNAMES",
                                          "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID",
                                          "FDSTORE",       "JOURNAL_STREAM"};

/* Adds what a placeholder at *at stands for and moves *at behind it; false when there is none. */
static bool
add_placeholder(const char **at, const struct exec_offer *offer, struct buf *out)
{
    if (offer->fd != -1 && strncmp(*at, "{fd}", 4) == 0) {
        buf_addf(out, "%d", offer->fd);
        *at += 4;
        return true;
    }
    if (offer->socket != NULL && strncmp(*at, "{socket}", 8) == 0) {
        buf_add_text(out, offer->socket);
        *at += 8;
        return true;
    }
    if (offer->port != -1 && strncmp(*at, "{port}", 6) == 0) {
        buf_addf(out, "%d", offer->port);
        *at += 6;
        return true;
    }
    return false;
}

static char *
replace_placeholders(const char *word, const struct exec_offer *offer)
{
    struct buf out = {0};

    buf_add(&out, "", 0);
    while (*word != '\0') {
        if (!add_placeholder(&word, offer, &out)) {
            buf_add(&out, word, 1);
            word++;
        }
    }
    return out.len > 0 ? buf_take(&out) : (buf_release(&out), xstrdup(""));
}

char **
exec_argv_build(const char *command, const struct exec_offer *offer, const char **ret_error)
{
    size_t count;
    char **words = command_split(command, &count, ret_error);

    if (words == NULL) {
        return NULL;
    }
    char **argv = xcalloc(count + 1, sizeof(*argv));
    for (size_t i = 0; i < count; i++) {
        argv[i] = replace_placeholders(words[i], offer);
    }
    command_free(words);
    return argv;
}

static bool
same_name(const char *a, const char *b)
{
    size_t length = strcspn(a, "=");

    return strncmp(a, b, length) == 0 && (b[length] == '=' || b[length] == '\0');
}

static bool
is_masters_own(const char *variable)
{
    for (size_t i = 0; i < sizeof(masters_own) / sizeof(masters_own[0]); i++) {
        if (same_name(variable, masters_own[i])) {
            return true;
        }
    }
    return false;
}

/* Puts variable (NAME=VALUE, taken over) in place of an earlier one of the same name. */
static void
env_put(char **env, size_t *count, char *variable)
{
    for (size_t i = 0; i < *count; i++) {
        if (same_name(variable, env[i])) {
            free(env[i]);
            env[i] = variable;
            return;
        }
    }
    env[(*count)++] = variable;
}

char **
exec_env_build(char *const *inherited, const struct text_list *extra,
               const struct exec_offer *offer)
{
    size_t size = 0;
    size_t count = 0;

    while (inherited[size] != NULL) {
        size++;
    }
    /* seven: LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES, PORT, USER, LOGNAME, HOME */
    char **env = xcalloc(size + 7 + extra->count + 1, sizeof(*env));
    for (size_t i = 0; i < size; i++) {
        if (!is_masters_own(inherited[i])) {
            env[count++] = xstrdup(inherited[i]);
        }
    }
    if (offer->fd != -1 && offer->listen_fds) {
        env_put(env, &count, xstrdup("LISTEN_FDS=1"));
        env_put(env, &count, xstrdup(LISTEN_PID_TEMPLATE));
        env_put(env, &count, xasprintf("LISTEN_FDNAMES=%s", offer->name));
    }
    if (offer->port != -1) {
        env_put(env, &count, xasprintf("PORT=%d", offer->port));
    }
    if (offer->user != NULL) {
        env_put(env, &count, xasprintf("USER=%s", offer->user));
        env_put(env, &count, xasprintf("LOGNAME=%s", offer->user));
    }
    if (offer->home != NULL) {
        env_put(env, &count, xasprintf("HOME=%s", offer->home));
    }
    for (size_t i = 0; i < extra->count; i++) {
        env_put(env, &count, xstrdup(extra->item[i]));
    }
    return env;
}

void
exec_env_set_listen_pid(char **env, pid_t pid)
{
    for (size_t i = 0; env[i] != NULL; i++) {
        if (strcmp(env[i], LISTEN_PID_TEMPLATE) == 0) {
            (void)snprintf(env[i], sizeof(LISTEN_PID_TEMPLATE), "LISTEN_PID=%d", (int)pid);
        }
    }
}

void
exec_free(char **texts)
{
    for (size_t i = 0; texts != NULL && texts[i] != NULL; i++) {
        free(texts[i]);
    }
    free(texts);
}
