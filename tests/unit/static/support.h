/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tests of worker/static share: a folder of their own, files in it, and asking for them
 * with requests that go through the real parser and the real normaliser. Static functions, so that
 * each test is one source file.
 */
#pragma once

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/base/fd.h"
#include "worker/http/request.h"
#include "worker/http/target.h"
#include "worker/static/static_file.h"

#define UNUSED_IS_FINE __attribute__((unused))
#define NOBODY 65534

/* The folder of this test and the root inside of it; every test runs in a process of its own. */
static char folder[64] UNUSED_IS_FINE;
static struct static_root *root UNUSED_IS_FINE;
/* What ask() uses; tests move the clock. */
static int64_t now_ms UNUSED_IS_FINE = 1000000;
static int64_t cache_ms UNUSED_IS_FINE = 1000;
/* Bytes of the path that are the route's. */
static size_t cut UNUSED_IS_FINE;

/* Makes folder, makes folder/site and goes there: what tests write is below the root. */
UNUSED_IS_FINE static void
site_enter(void)
{
    (void)snprintf(folder, sizeof(folder), "/tmp/narwhal-unit-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    cr_assert_eq(chdir(folder), 0);
    cr_assert_eq(chmod(folder, 0755), 0); /* for tests that go on as nobody */
    cr_assert_eq(mkdir("site", 0755), 0);
    cr_assert_eq(chdir("site"), 0);
}

UNUSED_IS_FINE static void
site_leave(void)
{
    char *command = xasprintf("chmod -R u+rwx '%s' && rm -rf '%s'", folder, folder);

    static_root_close(&root);
    cr_assert_eq(chdir("/"), 0);
    cr_assert_eq(system(command), 0);
    free(command);
}

UNUSED_IS_FINE static void
root_open_index(const char *index)
{
    struct buf why = {0};
    char *path = xasprintf("%s/site", folder);
    int error = static_root_open(path, index, &root, &why);

    cr_assert_eq(error, 0, "%s", why.ptr);
    cr_assert_eq(why.len, 0);
    free(path);
}

/* The fixture of most tests. */
UNUSED_IS_FINE static void
site_open(void)
{
    site_enter();
    root_open_index("index.html");
}

UNUSED_IS_FINE static void
write_bytes(const char *path, const void *bytes, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    cr_assert_neq(fd, -1, "%s", path);
    cr_assert_eq(fd_write_all(fd, bytes, size), 0);
    fd_close(&fd);
}

UNUSED_IS_FINE static void
write_text(const char *path, const char *text)
{
    write_bytes(path, text, strlen(text));
}

UNUSED_IS_FINE static void
write_filled(const char *path, char fill, size_t size)
{
    char *bytes = xcalloc(1, size + 1);

    memset(bytes, fill, size);
    write_bytes(path, bytes, size);
    free(bytes);
}

UNUSED_IS_FINE static void
set_mtime(const char *path, time_t seconds, long nanoseconds)
{
    struct timespec times[2] = {{seconds, nanoseconds}, {seconds, nanoseconds}};

    cr_assert_eq(utimensat(AT_FDCWD, path, times, 0), 0, "%s", path);
}

/* Asks with method and target; fields: whole lines with CRLF. The caller releases *ret. What must
 * have been refused before (a bad escape, a path above the root) gives status 400. */
UNUSED_IS_FINE static void
ask_full(const char *method, const char *target, const char *fields, struct static_answer *ret)
{
    static struct request_parser parser;
    const struct request_limits limits = {.line = 16384, .fields = 100, .head = 32768};
    static char normal[16384];
    size_t length;
    bool rewritten;

    char *text = xasprintf("%s %s HTTP/1.1\r\nHost: example.org\r\n%s\r\n", method, target, fields);
    request_parser_init(&parser);
    cr_assert_eq(request_parser_run(&parser, &limits, text, strlen(text)), PARSE_OK, "%s: %s", text,
                 parser.error.reason);
    struct str path = span_str(parser.head.path, text);
    if (target_normalise(path, normal, sizeof(normal), &length, &rewritten) != NULL) {
        *ret = (struct static_answer){.status = 400};
    } else {
        static_answer_make(root, (struct str){normal, length}, cut, &parser.head, text, now_ms,
                           cache_ms, ret);
    }
    free(text);
}

UNUSED_IS_FINE static struct static_answer
ask(const char *target)
{
    struct static_answer answer;

    ask_full("GET", target, "", &answer);
    return answer;
}

UNUSED_IS_FINE static int
ask_status(const char *target)
{
    struct static_answer answer = ask(target);
    int status = answer.status;

    static_answer_release(&answer);
    return status;
}

/* What the answer would send of the file, NUL-terminated; the caller frees it. */
UNUSED_IS_FINE static char *
answer_body(const struct static_answer *answer)
{
    char *body = xcalloc(1, (size_t)answer->send_length + 1);

    if (answer->send_length == 0) {
        return body;
    }
    if (answer->file->content != NULL) {
        memcpy(body, answer->file->content + answer->first, (size_t)answer->send_length);
    } else {
        ssize_t n =
            pread(answer->file->fd, body, (size_t)answer->send_length, (off_t)answer->first);
        cr_assert_eq(n, (ssize_t)answer->send_length);
    }
    return body;
}

/* Fails unless target is answered with 200 and this body. */
UNUSED_IS_FINE static void
expect_body(const char *target, const char *expected)
{
    struct static_answer answer = ask(target);

    cr_expect_eq(answer.status, 200, "%s: %d %s", target, answer.status, answer.reason);
    if (answer.status == 200) {
        char *body = answer_body(&answer);
        cr_expect_str_eq(body, expected, "%s: got '%s', expected '%s'", target, body, expected);
        free(body);
    }
    static_answer_release(&answer);
}

/* The head of the answer as text, the caller's. */
UNUSED_IS_FINE static char *
answer_head(const struct static_answer *answer)
{
    size_t capacity = static_head_size_max(answer);
    char *text = xcalloc(1, capacity + 1);
    struct head_writer writer;

    head_writer_init(&writer, text, capacity);
    static_head_put(&writer, answer);
    cr_assert(head_writer_ok(&writer), "static_head_size_max() is too small");
    return text;
}

/* How many descriptors this process has open. */
UNUSED_IS_FINE static size_t
descriptor_count(void)
{
    size_t count = 0;
    DIR *directory = opendir("/proc/self/fd");

    cr_assert_not_null(directory);
    while (readdir(directory) != NULL) {
        count++;
    }
    closedir(directory);
    return count;
}
