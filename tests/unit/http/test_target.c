/* SPDX-License-Identifier: Apache-2.0
 *
 * Normal form of paths: what is decoded, what is removed, what is refused, and that no path leads
 * where another one was routed.
 */
#include <signal.h>
#include <stdlib.h>

#include "support.h"
#include "worker/http/target.h"

/* The normal form, or NULL and the reason in *ret_reason. */
static const char *
normal_form(const char *path, size_t length, bool *ret_rewritten, const char **ret_reason)
{
    static char out[4096];
    size_t capacity = length + 1;
    size_t out_length = SIZE_MAX;
    /* Exactly the room that is promised to be enough, so that a byte more is found. */
    char *room = malloc(capacity);

    cr_assert(room != NULL);
    *ret_reason = target_normalise((struct str){guarded_at_end(path, length), length}, room,
                                   capacity, &out_length, ret_rewritten);
    if (*ret_reason == NULL) {
        cr_assert(out_length <= (length > 0 ? length : 1) && out_length < sizeof(out));
        memcpy(out, room, out_length);
        out[out_length] = '\0';
        cr_assert_eq(strlen(out), out_length, "a NUL in the normal form of %s",
                     printable(path, length));
    }
    free(room);
    return *ret_reason == NULL ? out : NULL;
}

static const struct {
    const char *path;
    const char *normal; /* NULL: refused */
    bool rewritten;
} rows[] = {
    {"", "/", false},
    {"/", "/", false},
    {"/a", "/a", false},
    {"/a/", "/a/", false},
    {"/a/b/c", "/a/b/c", false},
    {"/index.html", "/index.html", false},
    {"/.hidden", "/.hidden", false},
    {"/a.", "/a.", false},
    {"/a..", "/a..", false},
    {"/...", "/...", false},
    {"/.../", "/.../", false},
    {"/..a", "/..a", false},
    {"/a;b=c/d,e", "/a;b=c/d,e", false},
    /* runs of slashes */
    {"//", "/", true},
    {"///", "/", true},
    {"//a", "/a", true},
    {"/a//b", "/a/b", true},
    {"/a//", "/a/", true},
    {"/a///b//", "/a/b/", true},
    {"//evil.example/a", "/evil.example/a", true},
    /* dot segments */
    {"/.", "/", true},
    {"/./", "/", true},
    {"/a/.", "/a/", true},
    {"/a/./b", "/a/b", true},
    {"/a/..", "/", true},
    {"/a/../", "/", true},
    {"/a/../b", "/b", true},
    {"/a/b/../../c", "/c", true},
    {"/a/b/..", "/a/", true},
    {"/a/b/../", "/a/", true},
    {"/a/./././b/../c", "/a/c", true},
    {"/a//../b", "/b", true},
    {"/a/..//b", "/b", true},
    /* above the root */
    {"/..", NULL, false},
    {"/../", NULL, false},
    {"/../etc/passwd", NULL, false},
    {"/a/../..", NULL, false},
    {"/a/../../etc", NULL, false},
    {"/./..", NULL, false},
    {"//..", NULL, false},
    {"/a/b/../../../c", NULL, false},
    /* the same behind escapes */
    {"/%2e", "/", true},
    {"/%2E%2e", NULL, false},
    {"/a/%2e%2e/b", "/b", true},
    {"/a/.%2e/b", "/b", true},
    {"/a/%2e./b", "/b", true},
    {"/%2e%2e/%2e%2e/etc/passwd", NULL, false},
    {"/a/%2e%2e/%2e%2e/b", NULL, false},
    /* decoded once, and only once */
    {"/%61%62", "/ab", false},
    {"/caf%C3%A9", "/caf\xc3\xa9", false},
    {"/%7Euser", "/~user", false},
    {"/a%20b", "/a b", false},
    {"/a%3Fb%23c", "/a?b#c", false},
    {"/100%25", "/100%", false},
    {"/%252e%252e/a", "/%2e%2e/a", false},
    {"/%25%32%65", "/%2e", false},
    {"/%2561", "/%61", false},
    {"/%25", "/%", false},
    {"/%2525", "/%25", false},
    /* an encoded slash is no separator, and nothing becomes one */
    {"/a%2Fb", "/a%2Fb", false},
    {"/a%2fb", "/a%2Fb", false},
    {"/%2F", "/%2F", false},
    {"/%2F%2F", "/%2F%2F", false},
    {"/a%252Fb", "/a%252Fb", false},
    {"/a%252fb", "/a%252Fb", false},
    {"/a%25252fb", "/a%25252Fb", false},
    {"/a%25252eb", "/a%252eb", false},
    {"/%2%46", NULL, false},
    {"/a%25%32Fb", NULL, false},
    {"/a%252%66b", NULL, false},
    {"/a%25%32%46b", NULL, false},
    {"/a%25%32%35%32fb", NULL, false},
    {"/a%2Fb%25%32fc", NULL, false},
    {"/a%25%2Fb", "/a%%2Fb", false},
    /* dot segments for those who read more into a segment than we do */
    {"/a/..%2fb", NULL, false},
    {"/a/..%2Fb", NULL, false},
    {"/..%2f..%2fetc%2fpasswd", NULL, false},
    {"/a/%2e%2e%2fb", NULL, false},
    {"/a%2f..", NULL, false},
    {"/a%2f../b", NULL, false},
    {"/a%2f..%2fb", NULL, false},
    {"/a%2f.%2fb", NULL, false},
    {"/.%2f", NULL, false},
    {"/a%2f%2e%2e", NULL, false},
    {"/a/..%252fb", NULL, false},
    {"/a/..\\b", NULL, false},
    {"/a/..%5cb", NULL, false},
    {"/a/..;/b", NULL, false},
    {"/a/..;x=y/b", NULL, false},
    {"/a/.;/b", NULL, false},
    {"/a%2f...", "/a%2F...", false},
    {"/a..%2fb", "/a..%2Fb", false},
    {"/a/...;b", "/a/...;b", false},
    {"/a\\b", "/a\\b", false},
    {"/%2f;", "/%2F;", false},
    /* overlong and broken UTF-8 is bytes, not dots and slashes */
    {"/%c0%ae%c0%ae/a", "/\xc0\xae\xc0\xae/a", false},
    {"/%c0%af", "/\xc0\xaf", false},
    {"/%e0%80%ae", "/\xe0\x80\xae", false},
    {"/%ff%fe", "/\xff\xfe", false},
    {"/%u002e", NULL, false},
    /* bytes that have no place in a path */
    {"/%00", NULL, false},
    {"/a%00.html", NULL, false},
    {"/%0a", NULL, false},
    {"/%0d%0aSet-Cookie:a", NULL, false},
    {"/%1f", NULL, false},
    {"/%7f", NULL, false},
    {"/%09", NULL, false},
    {"/a\x01", NULL, false},
    {"/a\x7f", NULL, false},
    {"/%80", "/\x80", false},
    /* broken escapes */
    {"/%", NULL, false},
    {"/%2", NULL, false},
    {"/%zz", NULL, false},
    {"/%2g", NULL, false},
    {"/%g2", NULL, false},
    {"/a%/b", NULL, false},
    {"/a%2/b", NULL, false},
    {"/% 2", NULL, false},
    {"/%-1", NULL, false},
    {"/%%", NULL, false},
    /* no path */
    {"a", NULL, false},
    {"*", NULL, false},
    {"?", NULL, false},
};

Test(target, paths_have_one_normal_form)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        bool rewritten = false;
        const char *reason;
        const char *normal = normal_form(rows[i].path, strlen(rows[i].path), &rewritten, &reason);

        if (rows[i].normal == NULL) {
            cr_expect(normal == NULL, "%s becomes %s", rows[i].path, normal);
            cr_expect(reason != NULL);
            continue;
        }
        cr_assert(normal != NULL, "%s is refused: %s", rows[i].path, reason);
        cr_expect_str_eq(normal, rows[i].normal);
        cr_expect_eq(rewritten, rows[i].rewritten, "%s", rows[i].path);
    }
}

Test(target, a_raw_nul_is_refused)
{
    bool rewritten;
    const char *reason;

    cr_expect(normal_form("/a\0b", 4, &rewritten, &reason) == NULL);
    cr_expect_str_eq(reason, "a NUL in the path");
}

Test(target, every_byte_survives_encoding_or_is_refused)
{
    for (int c = 0; c < 256; c++) {
        char path[8];
        bool rewritten;
        const char *reason;

        snprintf(path, sizeof(path), "/a%%%02xb", c);
        const char *normal = normal_form(path, strlen(path), &rewritten, &reason);
        if (c < 32 || c == 127) {
            cr_expect(normal == NULL, "byte %d", c);
            continue;
        }
        cr_assert(normal != NULL, "byte %d: %s", c, reason);
        char encoded[32];
        size_t length = target_encode(str_from(normal), encoded);
        char wanted[8];
        if (c < 128 && (strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                               "-._~!$&'()*+,;=:@",
                               c) != NULL)) {
            snprintf(wanted, sizeof(wanted), "/a%cb", c);
        } else {
            snprintf(wanted, sizeof(wanted), "/a%%%02Xb", (unsigned)c);
        }
        cr_expect(str_is((struct str){encoded, length}, wanted), "byte %d: %.*s", c, (int)length,
                  encoded);
    }
}

Test(target, encoding_a_normal_form_gives_a_path_with_that_normal_form)
{
    /* Also over random paths made of the parts that matter. */
    static const char *const parts[] = {"/",  "a",     "%2F", "%2f",    "%25", "2F",
                                        "25", "%252F", "%",   "%2525",  ".",   "%2e",
                                        "\\", ";",     " ",   "%C3%A9", "%32", "%46"};
    uint64_t seed = 99;
    size_t compared = 0;

    for (int round = 0; round < 20000; round++) {
        char path[256] = "/";
        char first[256];
        char encoded[768];
        bool rewritten;
        const char *reason;

        for (size_t n = next_below(&seed, 8); n > 0; n--) {
            strcat(path, parts[next_below(&seed, sizeof(parts) / sizeof(parts[0]))]);
        }
        const char *normal = normal_form(path, strlen(path), &rewritten, &reason);
        if (normal == NULL) {
            continue;
        }
        strcpy(first, normal);
        size_t length = target_encode(str_from(first), encoded);
        cr_assert(length <= 3 * strlen(first));
        normal = normal_form(encoded, length, &rewritten, &reason);
        cr_assert(normal != NULL, "%s -> %s -> %.*s: %s", path, first, (int)length, encoded,
                  reason);
        cr_assert_str_eq(normal, first);
        cr_assert(!rewritten, "%s -> %s -> %.*s", path, first, (int)length, encoded);
        /* No normal form has what it is there to remove. */
        cr_assert(strstr(first, "//") == NULL && strstr(first, "/../") == NULL &&
                      strstr(first, "/./") == NULL,
                  "%s -> %s", path, first);
        compared++;
    }
    cr_expect(compared > 5000, "only %zu paths were compared", compared);
}

Test(target, too_little_room_is_our_own_fault, .signal = SIGABRT)
{
    char out[4];
    size_t length;
    bool rewritten;

    target_normalise(STR("/abc"), out, sizeof(out), &length, &rewritten);
}
