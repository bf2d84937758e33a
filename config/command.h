/* SPDX-License-Identifier: Apache-2.0
 *
 * The words of a backend's command. Pure; used by the check of the settings and by the master
 * when it starts an instance, so that both see the same words.
 */
#pragma once

#include <stddef.h>

/* Splits text as a shell would: blanks separate, '…' takes all as it is, "…" takes all but
 * \" and \\, a backslash takes the next character as it is. Nothing is expanded: no variables, no
 * patterns, no ~, and ; | & < > are ordinary characters. Returns a NULL-terminated array for
 * command_free(), or NULL with *ret_error set to a static text that says what is wrong. */
char **command_split(const char *text, size_t *ret_count, const char **ret_error);
void command_free(char **words);

/* The placeholders that command may hold, as bits. */
enum command_placeholder {
    COMMAND_HAS_FD = 1 << 0,
    COMMAND_HAS_SOCKET = 1 << 1,
    COMMAND_HAS_PORT = 1 << 2
};

/* Which of {fd}, {socket}, {port} the text holds. *ret_unknown is set to the first other {name} (a
 * copy, the caller's), else to NULL. A brace that is not {name} is an ordinary character. */
unsigned int command_placeholders(const char *text, char **ret_unknown);
