/* SPDX-License-Identifier: Apache-2.0
 *
 * Splitting of commands. The quoting rules are those of POSIX sh (XCU 2.2) without expansion: a
 * value that worked in a shell script or in a unit file's ExecStart= keeps its meaning.
 */
#include "config/command.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/buf.h"
#include "config/base/check.h"

static bool
is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n';
}

/* Adds the word at *text to word and moves *text behind it. NULL or what is wrong. */
static const char *
take_word(const char **text, struct buf *word)
{
    const char *next = *text;
    char quote = '\0';

    buf_add(word, "", 0); /* a word may be "" and is still a word */
    while (*next != '\0' && (quote != '\0' || !is_blank(*next))) {
        char c = *next++;
        if (quote == '\0' && (c == '\'' || c == '"')) {
            quote = c;
        } else if (c == quote) {
            quote = '\0';
        } else if (c == '\\' && quote == '\0') {
            if (*next == '\0') {
                return "ends in a backslash that escapes nothing";
            }
            buf_add(word, next++, 1);
        } else if (c == '\\' && quote == '"' && (*next == '"' || *next == '\\')) {
            buf_add(word, next++, 1);
        } else {
            buf_add(word, &c, 1);
        }
    }
    *text = next;
    if (quote == '\'') {
        return "has a single quote (') without its end";
    }
    return quote == '"' ? "has a double quote (\") without its end" : NULL;
}

char **
command_split(const char *text, size_t *ret_count, const char **ret_error)
{
    char **words = xcalloc(1, sizeof(*words));
    size_t count = 0;

    *ret_count = 0;
    *ret_error = NULL;
    for (;;) {
        while (is_blank(*text)) {
            text++;
        }
        if (*text == '\0') {
            break;
        }
        struct buf word = {0};
        *ret_error = take_word(&text, &word);
        if (*ret_error != NULL) {
            buf_release(&word);
            goto fail;
        }
        words = xrealloc(words, (count + 2) * sizeof(*words));
        words[count++] = buf_take(&word);
        words[count] = NULL;
    }
    if (count == 0 || words[0][0] == '\0') {
        *ret_error = "has no program to run as its first word";
        goto fail;
    }
    *ret_count = count;
    return words;

fail:
    command_free(words);
    return NULL;
}

void
command_free(char **words)
{
    if (words == NULL) {
        return;
    }
    for (size_t i = 0; words[i] != NULL; i++) {
        free(words[i]);
    }
    free(words);
}

unsigned int
command_placeholders(const char *text, char **ret_unknown)
{
    unsigned int found = 0;

    *ret_unknown = NULL;
    for (const char *open = strchr(text, '{'); open != NULL; open = strchr(open + 1, '{')) {
        size_t length = strspn(open + 1, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_");
        const char *name = open + 1;
        if (length == 0 || name[length] != '}') {
            continue; /* JSON, an awk program, ${SHELL}: not ours */
        }
        if (open > text && open[-1] == '$') {
            continue; /* ${NAME} belongs to a shell inside the command */
        }
        if (length == 2 && memcmp(name, "fd", 2) == 0) {
            found |= COMMAND_HAS_FD;
        } else if (length == 6 && memcmp(name, "socket", 6) == 0) {
            found |= COMMAND_HAS_SOCKET;
        } else if (length == 4 && memcmp(name, "port", 4) == 0) {
            found |= COMMAND_HAS_PORT;
        } else if (*ret_unknown == NULL) {
            *ret_unknown = xstrndup(open, length + 2);
        }
    }
    return found;
}
