/* SPDX-License-Identifier: Apache-2.0
 *
 * Methods, redirects, preconditions and ranges, as tables.
 */
#include "support.h"

#include "worker/http/date.h"

TestSuite(static_answer, .init = site_open, .fini = site_leave);

/* Two descriptions of the same file: in memory and as a descriptor. */
#define SMALL_SIZE 1000u
#define LARGE_SIZE 100000u
#define FILE_TIME 784111777 /* Sun, 06 Nov 1994 08:49:37 GMT */

static void
write_files(void)
{
    char *bytes = xcalloc(1, LARGE_SIZE);

    for (size_t i = 0; i < LARGE_SIZE; i++) {
        bytes[i] = (char)('a' + i % 23);
    }
    write_bytes("small", bytes, SMALL_SIZE);
    write_bytes("large", bytes, LARGE_SIZE);
    write_bytes("empty", bytes, 0);
    free(bytes);
    set_mtime("small", FILE_TIME, 0);
    set_mtime("large", FILE_TIME, 0);
    set_mtime("empty", FILE_TIME, 0);
}

Test(static_answer, get_and_head)
{
    struct static_answer answer;

    write_files();
    ask_full("GET", "/small?v=1", "", &answer);
    cr_expect_eq(answer.status, 200);
    cr_expect_eq(answer.body, STATIC_BODY_FILE);
    cr_expect_eq(answer.length, SMALL_SIZE);
    cr_expect_eq(answer.send_length, SMALL_SIZE);
    cr_expect_eq(answer.first, 0);
    cr_expect_null(answer.reason);
    static_answer_release(&answer);
    cr_expect_null(answer.file);

    ask_full("HEAD", "/large", "", &answer);
    cr_expect_eq(answer.status, 200);
    cr_expect_eq(answer.length, LARGE_SIZE);
    cr_expect_eq(answer.send_length, 0);
    static_answer_release(&answer);

    ask_full("GET", "/empty", "", &answer);
    cr_expect_eq(answer.status, 200);
    cr_expect_eq(answer.length, 0);
    cr_expect_not_null(answer.file->content);
    static_answer_release(&answer);

    ask_full("HEAD", "/missing", "", &answer);
    cr_expect_eq(answer.status, 404);
    cr_expect_eq(answer.body, STATIC_BODY_PAGE);
    static_answer_release(&answer);
}

Test(static_answer, other_methods_are_refused)
{
    static const char *const methods[] = {"POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW", "get"};
    struct static_answer answer;

    write_files();
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        ask_full(methods[i], "/small", "", &answer);
        cr_expect_eq(answer.status, 405, "%s", methods[i]);
        cr_expect_eq(answer.body, STATIC_BODY_PAGE);
        cr_expect_str_eq(answer.allow, "GET, HEAD, OPTIONS");
        cr_expect_null(answer.file);
        cr_expect_not_null(answer.reason);
        static_answer_release(&answer);
    }
    ask_full("OPTIONS", "/small", "", &answer);
    cr_expect_eq(answer.status, 204);
    cr_expect_eq(answer.body, STATIC_BODY_NONE);
    cr_expect_str_eq(answer.allow, "GET, HEAD, OPTIONS");
    static_answer_release(&answer);
}

/* ---- folders -------------------------------------------------------------------------------- */

static void
expect_location(const char *target, const char *location)
{
    struct static_answer answer = ask(target);

    cr_expect_eq(answer.status, 301, "%s: %d", target, answer.status);
    cr_expect_eq(answer.body, STATIC_BODY_PAGE);
    cr_assert_not_null(answer.location, "%s", target);
    cr_expect_str_eq(answer.location, location, "%s: %s", target, answer.location);
    static_answer_release(&answer);
    cr_expect_null(answer.location);
}

Test(static_answer, folder_without_slash_is_redirected)
{
    cr_assert_eq(mkdir("folder", 0755), 0);
    cr_assert_eq(mkdir("a b", 0755), 0);
    cr_assert_eq(mkdir("\xc3\xbc\r\n", 0755), 0);
    cr_assert_eq(mkdir("\\evil.example", 0755), 0);
    cr_assert_eq(mkdir("100%", 0755), 0);
    expect_location("/folder", "/folder/");
    expect_location("/folder?x=1&y=%20", "/folder/?x=1&y=%20");
    expect_location("/x/../folder", "/folder/");
    expect_location("/a%20b", "/a%20b/");
    expect_location("/100%25", "/100%25/");
    expect_location("http://example.org/folder?q", "/folder/?q");
    /* Nobody is sent to another host: "//host" and "/\host" would be that. */
    expect_location("//folder", "/folder/");
    expect_location("///folder", "/folder/");
    expect_location("/%5Cevil.example", "/%5Cevil.example/");
    /* Nor does the line break that the name has (and a path must not) get into the head. */
    cr_expect_eq(ask_status("/%C3%BC%0D%0A"), 400);
}

Test(static_answer, route_path_is_cut_off_and_comes_back_in_the_location)
{
    cr_assert_eq(mkdir("folder", 0755), 0);
    write_text("file", "x");
    write_text("index.html", "top");
    cut = strlen("/assets");
    expect_body("/assets/file", "x");
    expect_body("/assets/", "top");
    expect_location("/assets", "/assets/");
    expect_location("/assets?q=1", "/assets/?q=1");
    expect_location("/assets/folder", "/assets/folder/");
    cut = strlen("/assets/");
    expect_body("/assets/file", "x");
    expect_body("/assets/", "top");
    expect_location("/assets/folder", "/assets/folder/");
    cr_expect_eq(ask_status("/assets/assets/file"), 404);
    cut = 1;
    expect_body("/", "top");
    expect_body("/file", "x");
}

/* ---- preconditions -------------------------------------------------------------------------- */

#define BEFORE "Sun, 06 Nov 1994 08:49:36 GMT"
#define EXACT "Sun, 06 Nov 1994 08:49:37 GMT"
#define AFTER "Sun, 06 Nov 1994 08:49:38 GMT"

/* ETAG in a line stands for the file's own. */
static const struct {
    const char *fields;
    int status;
} conditions[] = {
    {"If-None-Match: ETAG\r\n", 304},
    {"If-None-Match: W/ETAG\r\n", 304},
    {"If-None-Match: \"other\"\r\n", 200},
    {"If-None-Match: \"other\", ETAG\r\n", 304},
    {"If-None-Match: *\r\n", 304},
    {"If-Modified-Since: " EXACT "\r\n", 304},
    {"If-Modified-Since: " AFTER "\r\n", 304},
    {"If-Modified-Since: " BEFORE "\r\n", 200},
    {"If-Modified-Since: yesterday\r\n", 200},
    {"If-None-Match: \"other\"\r\nIf-Modified-Since: " EXACT "\r\n", 200},
    {"If-None-Match: ETAG\r\nIf-Modified-Since: " BEFORE "\r\n", 304},
    {"If-Match: ETAG\r\n", 200},
    {"If-Match: *\r\n", 200},
    {"If-Match: \"other\"\r\n", 412},
    {"If-Match: W/ETAG\r\n", 412},
    {"If-Unmodified-Since: " EXACT "\r\n", 200},
    {"If-Unmodified-Since: " BEFORE "\r\n", 412},
    {"If-Match: ETAG\r\nIf-Unmodified-Since: " BEFORE "\r\n", 200},
    {"If-Match: \"other\"\r\nIf-None-Match: ETAG\r\n", 412},
    {"If-None-Match: ETAG\r\nRange: bytes=0-1\r\n", 304},
    {"If-Match: \"other\"\r\nRange: bytes=0-1\r\n", 412},
    {"If-Match: ETAG\r\nRange: bytes=0-1\r\n", 206},
};

/* Puts etag in the place of ETAG; the caller frees it. */
static char *
with_etag(const char *fields, struct str etag)
{
    struct buf text = {0};
    const char *p;

    while ((p = strstr(fields, "ETAG")) != NULL) {
        buf_add(&text, fields, (size_t)(p - fields));
        buf_add_str(&text, etag);
        fields = p + strlen("ETAG");
    }
    buf_add_text(&text, fields);
    return buf_take(&text);
}

Test(static_answer, preconditions)
{
    static const char *const methods[] = {"GET", "HEAD"};
    static const char *const targets[] = {"/small", "/large", "/empty"};

    write_files();
    for (size_t t = 0; t < 3; t++) {
        struct static_answer plain = ask(targets[t]);
        for (size_t i = 0; i < sizeof(conditions) / sizeof(conditions[0]); i++) {
            for (size_t m = 0; m < 2; m++) {
                struct static_answer answer;
                char *fields = with_etag(conditions[i].fields, plain.file->etag);
                int expected = conditions[i].status;
                if (expected == 206 && (m == 1 || t == 2)) {
                    expected = t == 2 && m == 0 ? 416 : 200;
                }
                ask_full(methods[m], targets[t], fields, &answer);
                cr_expect_eq(answer.status, expected, "%s %s %s: %d", methods[m], targets[t],
                             fields, answer.status);
                if (expected == 304) {
                    cr_expect_eq(answer.body, STATIC_BODY_NONE);
                }
                if (expected == 304 || expected == 412) {
                    cr_expect_eq(answer.length, 0);
                    cr_expect_eq(answer.send_length, 0);
                }
                static_answer_release(&answer);
                free(fields);
            }
        }
        static_answer_release(&plain);
    }
}

Test(static_answer, preconditions_do_not_hide_errors)
{
    struct static_answer answer;

    ask_full("GET", "/missing", "If-None-Match: *\r\nIf-Match: \"x\"\r\n", &answer);
    cr_expect_eq(answer.status, 404);
    static_answer_release(&answer);
}

/* ---- ranges --------------------------------------------------------------------------------- */

static const struct {
    const char *fields;
    int status;
    uint64_t first; /* of SMALL_SIZE bytes */
    uint64_t length;
} ranges[] = {
    {"Range: bytes=0-0\r\n", 206, 0, 1},
    {"Range: bytes=0-499\r\n", 206, 0, 500},
    {"Range: bytes=500-\r\n", 206, 500, 500},
    {"Range: bytes=999-999\r\n", 206, 999, 1},
    {"Range: bytes=999-5000\r\n", 206, 999, 1},
    {"Range: bytes=-1\r\n", 206, 999, 1},
    {"Range: bytes=-5000\r\n", 206, 0, 1000},
    {"Range: bytes=0-18446744073709551615\r\n", 206, 0, 1000},
    {"Range: bytes=0-99999999999999999999999\r\n", 206, 0, 1000},
    {"Range: bytes=1000-\r\n", 416, 0, 0},
    {"Range: bytes=18446744073709551615-\r\n", 416, 0, 0},
    {"Range: bytes=-0\r\n", 416, 0, 0},
    {"Range: bytes=5-4\r\n", 200, 0, 1000},
    {"Range: bytes=0-1,5-6\r\n", 200, 0, 1000},
    {"Range: lines=0-1\r\n", 200, 0, 1000},
    {"Range: bytes=a-b\r\n", 200, 0, 1000},
    {"Range: bytes=-\r\n", 200, 0, 1000},
    {"Range:\r\n", 200, 0, 1000},
    {"Range: bytes=0-1\r\nRange: bytes=5-6\r\n", 200, 0, 1000},
    {"Range: bytes=0-1\r\nIf-Range: ETAG\r\n", 206, 0, 2},
    {"Range: bytes=0-1\r\nIf-Range: \"other\"\r\n", 200, 0, 1000},
    {"Range: bytes=0-1\r\nIf-Range: W/ETAG\r\n", 200, 0, 1000},
    {"Range: bytes=0-1\r\nIf-Range: " EXACT "\r\n", 206, 0, 2},
    {"Range: bytes=0-1\r\nIf-Range: " AFTER "\r\n", 200, 0, 1000},
    {"Range: bytes=0-1\r\nIf-Range: " BEFORE "\r\n", 200, 0, 1000},
    {"Range: bytes=5000-\r\nIf-Range: \"other\"\r\n", 200, 0, 1000},
    {"If-Range: \"other\"\r\n", 200, 0, 1000},
};

Test(static_answer, ranges)
{
    write_files();
    struct static_answer plain = ask("/small");
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        struct static_answer answer;
        char *fields = with_etag(ranges[i].fields, plain.file->etag);
        ask_full("GET", "/small", fields, &answer);
        cr_expect_eq(answer.status, ranges[i].status, "%s: %d", fields, answer.status);
        cr_expect_eq(answer.first, ranges[i].first, "%s", fields);
        cr_expect_eq(answer.length, ranges[i].length, "%s", fields);
        cr_expect_eq(answer.send_length, ranges[i].length, "%s", fields);
        if (answer.status == 416) {
            cr_expect_eq(answer.body, STATIC_BODY_PAGE);
            cr_expect_not_null(answer.reason);
        }
        static_answer_release(&answer);

        ask_full("HEAD", "/small", fields, &answer);
        cr_expect_eq(answer.status, 200, "HEAD has no ranges: %s", fields);
        cr_expect_eq(answer.length, SMALL_SIZE);
        cr_expect_eq(answer.send_length, 0);
        static_answer_release(&answer);
        free(fields);
    }
    static_answer_release(&plain);
}

Test(static_answer, range_of_a_large_file_is_its_bytes)
{
    struct static_answer answer;

    write_files();
    ask_full("GET", "/large", "Range: bytes=70000-70009\r\n", &answer);
    cr_assert_eq(answer.status, 206);
    cr_expect_null(answer.file->content);
    char *body = answer_body(&answer);
    for (size_t i = 0; i < 10; i++) {
        cr_expect_eq(body[i], (char)('a' + (70000 + i) % 23));
    }
    free(body);
    static_answer_release(&answer);
}

Test(static_answer, range_of_an_empty_file)
{
    struct static_answer answer;

    write_files();
    ask_full("GET", "/empty", "Range: bytes=0-\r\n", &answer);
    cr_expect_eq(answer.status, 416);
    static_answer_release(&answer);
    ask_full("GET", "/empty", "Range: bytes=-5\r\n", &answer);
    cr_expect_eq(answer.status, 200);
    static_answer_release(&answer);
}

/* A file that is "from the future" must not answer 304 until then (RFC 9110 section 8.8.2.1). */
Test(static_answer, file_from_the_future_is_sent_when_it_changes)
{
    struct static_answer answer;
    char fields[] = "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

    write_text("file", "x");
    set_mtime("file", 4102444800, 0); /* 2100 */
    struct static_answer plain = ask("/file");
    cr_expect_lt(plain.file->last_modified, 4102444800);
    http_date_format(plain.file->last_modified, fields + strlen("If-Modified-Since: "));
    ask_full("GET", "/file", fields, &answer);
    cr_expect_eq(answer.status, 304);
    static_answer_release(&answer);
    static_answer_release(&plain);
}
