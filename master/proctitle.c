/* SPDX-License-Identifier: Apache-2.0
 *
 * The title lives where the kernel put argv and, when it needs more room, the environment, which
 * lie side by side. The kernel shows that memory in /proc/PID/cmdline, and as one string up to its
 * NUL when the last byte of the argv area is not NUL (fs/proc/base.c, get_mm_cmdline()). The state
 * is one static struct because the memory exists once per process. Runs in master and workers.
 */
#include "master/proctitle.h"

#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "config/base/check.h"

static struct {
    char *area;       /* the memory of argv and the environment */
    size_t size;      /* of area */
    size_t argv_size; /* of its part that held argv */
    char **argv;      /* owned copies */
    char **env;
} title;

static char **
copy_texts(char **texts)
{
    size_t count = 0;

    while (texts[count] != NULL) {
        count++;
    }
    char **copy = xcalloc(count + 1, sizeof(*copy));
    for (size_t i = 0; i < count; i++) {
        copy[i] = xstrdup(texts[i]);
    }
    return copy;
}

/* Extends the area over the texts that follow it without a gap. */
static void
claim(char **texts)
{
    for (size_t i = 0; texts[i] != NULL; i++) {
        if (title.area == NULL) {
            title.area = texts[i];
        }
        if (texts[i] == title.area + title.size) {
            title.size += strlen(texts[i]) + 1;
        }
    }
}

void
proctitle_init(int argc, char ***argv)
{
    if (argc < 1) {
        return;
    }
    claim(*argv);
    title.argv_size = title.size;
    claim(environ);
    title.argv = copy_texts(*argv);
    title.env = copy_texts(environ);
    *argv = title.argv;
    environ = title.env;
}

void
proctitle_set(const char *text)
{
    (void)prctl(PR_SET_NAME, text, 0, 0, 0); /* cut to 15 bytes by the kernel; never fails */
    if (title.area == NULL || title.size < 2) {
        return;
    }
    size_t length = strlen(text);
    if (length > title.size - 1) {
        length = title.size - 1;
    }
    memset(title.area, 0, title.size);
    memcpy(title.area, text, length);
    if (length + 1 < title.argv_size) {
        title.area[title.argv_size - 1] = '.'; /* not NUL: see above */
    }
}
