/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading a settings file: bytes to sections, keys and values with their lines, through inih. What
 * inih would cut, join or skip without a word is an error here instead.
 */
#pragma once

/* inih's buffers hold 200 bytes of a line and 50 of a name, each with a NUL. */
#define INI_SOURCE_LINE_MAX 199
#define INI_SOURCE_NAME_MAX 49
/* A settings file of this size is a mistake, such as a log or an endless file. */
#define INI_SOURCE_BYTES_MAX (1024 * 1024)

/* Called in the order of the file; texts live during the call. Lines count from 1. */
struct ini_source_events {
    /* [name] begins; name is NULL when the line is broken (on_error has told). */
    void (*on_section)(void *user, const char *name, int line);
    /* key = value of the section that began last; section is NULL before the first, or when its
     * line was broken. */
    void (*on_value)(void *user, const char *section, const char *key, const char *value, int line);
    /* Something is wrong in this line; line 0: with the file as a whole. message has no place. */
    void (*on_error)(void *user, int line, const char *message);
};

/* Reads the whole file. Returns 0, also when lines were bad, or the negative errno that kept it
 * from being read; on_error was then called with line 0. Never waits: only regular files are
 * read. Not reentrant: events must not read another file (inih keeps its switches globally). */
int ini_source_read(const char *path, const struct ini_source_events *events, void *user);
