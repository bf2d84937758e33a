/* SPDX-License-Identifier: Apache-2.0
 *
 * Media types by extension. Looked up once when a file enters the cache, so that a scan of the
 * table is good enough. Runs in worker processes.
 */
#include "worker/static/mime.h"

struct mime_row {
    struct str extension;
    const char *type;
};

static const struct mime_row rows[] = {
#define MIME(extension, type) {STR(extension), type},
#include "worker/static/mime.def"
};

/* What follows the last '.' of the last segment; empty without one. */
static struct str
extension_of(struct str path)
{
    const char *end = path.ptr + path.len;

    for (const char *p = end; p > path.ptr && p[-1] != '/'; p--) {
        if (p[-1] == '.') {
            return (struct str){p, (size_t)(end - p)};
        }
    }
    return (struct str){end, 0};
}

const char *
mime_type_of(struct str path)
{
    struct str extension = extension_of(path);

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (str_equal_nocase(rows[i].extension, extension)) {
            return rows[i].type;
        }
    }
    return MIME_DEFAULT;
}
