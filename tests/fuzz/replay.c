/* SPDX-License-Identifier: Apache-2.0
 *
 * A main() for a fuzz target without libFuzzer: runs it once for each file that is named, and for
 * each file of each folder that is named. So seeds and kept regressions are tests of the ordinary
 * suite, with the ordinary compiler. A folder that does not exist is one without regressions; no
 * file at all is an error.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "tests/fuzz/fuzz.h"

static size_t count;
/* Told when a file ends the process, because a finding does not know where it came from. */
static char current[1024];

static void
tell_current(void)
{
    if (current[0] != '\0') {
        (void)fprintf(stderr, "replay: ended in %s\n", current);
    }
}

static int
replay_file(const char *path)
{
    struct buf bytes = {0};
    FILE *file = fopen(path, "rb");
    size_t n = 0;

    if (file == NULL) {
        (void)fprintf(stderr, "replay: cannot open %s: %s\n", path, strerror(errno));
        return 1;
    }
    do {
        n = fread(buf_reserve(&bytes, 65536), 1, 65536, file);
        bytes.len += n;
    } while (n > 0);
    bool is_read = ferror(file) == 0;
    (void)fclose(file);
    if (is_read) {
        (void)snprintf(current, sizeof(current), "%s", path);
        (void)fprintf(stderr, "replay: %s\n", path);
        char *exact = fuzz_copy(bytes.ptr, bytes.len);
        (void)LLVMFuzzerTestOneInput((const uint8_t *)exact, bytes.len);
        free(exact);
        current[0] = '\0';
        count++;
    } else {
        (void)fprintf(stderr, "replay: cannot read %s\n", path);
    }
    buf_release(&bytes);
    return is_read ? 0 : 1;
}

static int
replay_folder(const char *path)
{
    DIR *folder = opendir(path);
    int failed = 0;

    if (folder == NULL) {
        (void)fprintf(stderr, "replay: cannot open %s: %s\n", path, strerror(errno));
        return 1;
    }
    for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        if (entry->d_name[0] != '.') {
            char *file = xasprintf("%s/%s", path, entry->d_name);
            failed |= replay_file(file);
            free(file);
        }
    }
    (void)closedir(folder);
    return failed;
}

int
main(int argc, char **argv)
{
    int failed = 0;

    (void)atexit(tell_current);
    for (int i = 1; i < argc; i++) {
        struct stat status;
        if (stat(argv[i], &status) == -1) {
            if (errno != ENOENT) {
                (void)fprintf(stderr, "replay: %s: %s\n", argv[i], strerror(errno));
                failed = 1;
            }
        } else {
            failed |= S_ISDIR(status.st_mode) ? replay_folder(argv[i]) : replay_file(argv[i]);
        }
    }
    (void)printf("replayed %zu files\n", count);
    if (count == 0) {
        (void)fprintf(stderr, "replay: no file to replay; name files or folders of them\n");
        failed = 1;
    }
    return failed;
}
