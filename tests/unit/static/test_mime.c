/* SPDX-License-Identifier: Apache-2.0
 *
 * Media types: the right row, in any case, and application/octet-stream for all else.
 */
#include <ctype.h>
#include <criterion/criterion.h>
#include <stdio.h>

#include "worker/static/mime.h"

static const struct {
    const char *path;
    const char *type;
} cases[] = {
    {"index.html", "text/html; charset=utf-8"},
    {"INDEX.HTML", "text/html; charset=utf-8"},
    {"a/b/style.css", "text/css; charset=utf-8"},
    {"app.min.js", "text/javascript; charset=utf-8"},
    {"app.mjs", "text/javascript; charset=utf-8"},
    {"x.svg", "image/svg+xml; charset=utf-8"},
    {"x.json", "application/json"},
    {"x.wasm", "application/wasm"},
    {"x.woff2", "font/woff2"},
    {"x.JpEg", "image/jpeg"},
    {"x.tar.gz", "application/gzip"},
    {"x.txt", "text/plain; charset=utf-8"},
    {"x.htmlx", MIME_DEFAULT},
    {"x.htm.", MIME_DEFAULT},
    {"x.", MIME_DEFAULT},
    {"x", MIME_DEFAULT},
    {"", MIME_DEFAULT},
    {"html", MIME_DEFAULT},
    {"site.html/x", MIME_DEFAULT},
    {"site.html/", MIME_DEFAULT},
    {".well-known/x", MIME_DEFAULT},
    {"x.ht\xc3\xa4", MIME_DEFAULT},
};

Test(mime, type_is_that_of_the_last_extension)
{
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *type = mime_type_of(str_from(cases[i].path));
        cr_expect_str_eq(type, cases[i].type, "%s: %s", cases[i].path, type);
    }
}

Test(mime, the_path_needs_no_nul_behind_it)
{
    cr_expect_str_eq(mime_type_of((struct str){"x.csszzz", 5}), "text/css; charset=utf-8");
}

static const struct {
    const char *extension;
    const char *type;
} rows[] = {
#define MIME(extension, type) {extension, type},
#include "worker/static/mime.def"
};

Test(mime, rows_are_lower_case_and_reached)
{
    size_t count = sizeof(rows) / sizeof(rows[0]);

    cr_expect_geq(count, 80);
    for (size_t i = 0; i < count; i++) {
        char path[64];
        for (const char *p = rows[i].extension; *p != '\0'; p++) {
            cr_expect(islower((unsigned char)*p) || isdigit((unsigned char)*p), "%s",
                      rows[i].extension);
        }
        (void)snprintf(path, sizeof(path), "name.%s", rows[i].extension);
        cr_expect_str_eq(mime_type_of(str_from(path)), rows[i].type, "%s", rows[i].extension);
        for (size_t j = 0; j < i; j++) {
            cr_expect_str_neq(rows[i].extension, rows[j].extension);
        }
        cr_expect_not_null(strchr(rows[i].type, '/'));
    }
}
