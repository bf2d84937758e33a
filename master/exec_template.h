/* SPDX-License-Identifier: Apache-2.0
 *
 * The words and the environment that an app instance is executed with. Pure; runs in the master.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

struct text_list;

/* What the placeholders and the environment tell the application; what is not offered is -1 or
 * NULL. */
struct exec_offer {
    int fd;             /* {fd} */
    bool listen_fds;    /* whether LISTEN_FDS tells fd: not to a command that has {fd}, because
                           gunicorn takes the two for two sockets and fails on the second */
    const char *socket; /* {socket} */
    int port;           /* {port}, PORT */
    const char *name;   /* LISTEN_FDNAMES: the name of the backend */
    const char *user;   /* USER, LOGNAME of a changed user */
    const char *home;   /* HOME, the same */
};

/* Splits command and replaces the placeholders in each word. NULL with *ret_error set to a static
 * text when the command cannot be split. For exec_free(). */
char **exec_argv_build(const char *command, const struct exec_offer *offer, const char **ret_error);

/* The environment: inherited, without what belongs to the master alone (LISTEN_*, NOTIFY_SOCKET,
 * WATCHDOG_*); then what the offer says; then the NAME=VALUE of extra, which win. For
 * exec_free(). */
char **exec_env_build(char *const *inherited, const struct text_list *extra,
                      const struct exec_offer *offer);
/* Writes the pid into LISTEN_PID, which only the new process knows (sd_listen_fds(3)). */
void exec_env_set_listen_pid(char **env, pid_t pid);

/* Takes an array of either function; NULL is fine. */
void exec_free(char **texts);
