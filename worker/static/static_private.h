/* SPDX-License-Identifier: Apache-2.0
 *
 * Between the files of worker/static: making a struct static_file from a descriptor, and looking
 * one up below a root.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "worker/static/static_file.h"

/* Which state of which file was read. ctime is there because a writer can put mtime back (rsync -t,
 * cp -p, tar), and nobody can put ctime back. */
struct static_identity {
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec mtime;
    struct timespec ctime;
    /* The file was being written, or may have been in the same clock tick: it could change without
     * any of the above changing, so that equality proves nothing and it has to be read again. */
    bool unsettled;
};

/* Whether the two are the same state of the same file. Looks at nothing when known is unsettled. */
bool static_identity_holds(const struct static_identity *known, const struct stat *now);

/* Makes a file from an open regular file; name is for its media type. The new file has one
 * reference. Takes *fd over (and stores -1) when the file is too large to be kept in memory; else
 * *fd stays the caller's. 0 or a negative errno. */
int static_file_load(int *fd, struct str name, struct static_file **ret_file,
                     struct static_identity *ret_identity);

struct static_lookup {
    int status; /* 200; 301 when a folder was named without the '/' behind it; 4xx, 5xx */
    struct static_file *file; /* 200: a reference for the caller; else NULL */
    const char *reason;       /* 4xx, 5xx: a constant */
    int error;                /* the errno behind reason, or 0 */
};

/* Finds the file for below, a path relative to the root without a '/' in front; empty, or with a
 * '/' at its end, for a folder's index. */
void static_root_lookup(struct static_root *root, struct str below, int64_t now_ms,
                        int64_t cache_ms, struct static_lookup *ret);
