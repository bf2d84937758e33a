/* SPDX-License-Identifier: Apache-2.0
 *
 * The bytes of the head for every status.
 */
#include "support.h"

TestSuite(static_head, .init = site_open, .fini = site_leave);

#define TYPE "Accept-Ranges: bytes\r\nContent-Type: text/plain; charset=utf-8\r\n"
#define DATE "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n"

static void
write_file(void)
{
    write_text("a.txt", "0123456789");
    set_mtime("a.txt", 784111777, 0);
}

/* ETAG in expected stands for the entity tag of the file. */
static void
expect_head(const char *method, const char *target, const char *fields, const char *expected)
{
    struct static_answer plain = ask("/a.txt");
    struct static_answer answer;
    char *etag = xstrndup(plain.file->etag.ptr, plain.file->etag.len);
    const char *mark = strstr(expected, "ETAG");
    char *text = mark == NULL ? xstrdup(expected)
                              : xasprintf("%.*s%s%s", (int)(mark - expected), expected, etag,
                                          mark + strlen("ETAG"));

    ask_full(method, target, fields, &answer);
    char *head = answer_head(&answer);
    cr_expect_str_eq(head, text, "%s %s %s: got\n%s", method, target, fields, head);

    /* Without the status line it is the same. */
    size_t capacity = static_head_size_max(&answer);
    char *rest = xcalloc(1, capacity + 1);
    struct head_writer writer;
    head_writer_init(&writer, rest, capacity);
    static_head_put_fields(&writer, &answer);
    cr_expect(head_writer_ok(&writer));
    cr_expect_str_eq(rest, strstr(head, "\r\n") + 2);
    free(rest);
    free(head);
    free(text);
    free(etag);
    static_answer_release(&answer);
    static_answer_release(&plain);
}

Test(static_head, bytes)
{
    write_file();
    cr_assert_eq(mkdir("folder", 0755), 0);
    static const char whole[] =
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n" TYPE DATE "ETag: ETAG\r\n";
    expect_head("GET", "/a.txt", "", whole);
    expect_head("HEAD", "/a.txt", "", whole);
    expect_head("GET", "/a.txt", "Range: bytes=0-1,4-5\r\n", whole);
    expect_head("GET", "/a.txt", "Range: bytes=2-4\r\n",
                "HTTP/1.1 206 Partial Content\r\nContent-Length: 3\r\n"
                "Content-Range: bytes 2-4/10\r\n" TYPE DATE "ETag: ETAG\r\n");
    expect_head("GET", "/a.txt", "Range: bytes=10-\r\n",
                "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */10\r\n");
    expect_head("GET", "/a.txt", "If-None-Match: *\r\n",
                "HTTP/1.1 304 Not Modified\r\n" DATE "ETag: ETAG\r\n");
    expect_head("GET", "/a.txt", "If-Match: \"x\"\r\n", "HTTP/1.1 412 Precondition Failed\r\n");
    expect_head("POST", "/a.txt", "",
                "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET, HEAD, OPTIONS\r\n");
    expect_head("OPTIONS", "/a.txt", "",
                "HTTP/1.1 204 No Content\r\nAllow: GET, HEAD, OPTIONS\r\n");
    expect_head("GET", "/missing", "", "HTTP/1.1 404 Not Found\r\n");
    expect_head("GET", "/folder?q=1", "",
                "HTTP/1.1 301 Moved Permanently\r\nLocation: /folder/?q=1\r\n");
}

Test(static_head, size_max_holds_for_the_largest_numbers)
{
    struct static_answer answer;
    int fd = open("huge", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

    cr_assert_eq(ftruncate(fd, (off_t)1 << 42), 0);
    fd_close(&fd);
    ask_full("GET", "/huge", "Range: bytes=1000000000000-3999999999999\r\n", &answer);
    cr_assert_eq(answer.status, 206);
    char *head = answer_head(&answer); /* checks that it fits */
    cr_expect_not_null(
        strstr(head, "Content-Range: bytes 1000000000000-3999999999999/4398046511104\r\n"));
    cr_expect_not_null(strstr(head, "Content-Length: 3000000000000\r\n"));
    free(head);
    static_answer_release(&answer);
}

Test(static_head, location_of_any_length_fits)
{
    char *target = xcalloc(1, 4096);
    char segment[200];
    struct static_answer answer;

    memset(segment, 0xC3, sizeof(segment) - 1);
    segment[sizeof(segment) - 1] = '\0';
    cr_assert_eq(mkdir(segment, 0755), 0);
    target[0] = '/';
    for (size_t i = 0; i < sizeof(segment) - 1; i++) {
        strcat(target, "%C3");
    }
    strcat(target, "?");
    memset(target + strlen(target), 'q', 3000);
    ask_full("GET", target, "", &answer);
    cr_assert_eq(answer.status, 301);
    char *head = answer_head(&answer);
    cr_expect_gt(strlen(head), 3600);
    free(head);
    free(target);
    static_answer_release(&answer);
}

Test(static_head, too_little_room_is_told)
{
    char small[20];
    struct head_writer writer;

    write_file();
    struct static_answer answer = ask("/a.txt");
    head_writer_init(&writer, small, sizeof(small));
    static_head_put(&writer, &answer);
    cr_expect_not(head_writer_ok(&writer));
    static_answer_release(&answer);
}
