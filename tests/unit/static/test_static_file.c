/* SPDX-License-Identifier: Apache-2.0
 *
 * Loading: body or descriptor, validators, the prepared head, and files that change meanwhile.
 */
#include "support.h"

#include "config/base/clock.h"
#include "worker/static/static_private.h"

TestSuite(static_file, .init = site_enter, .fini = site_leave);

static struct static_file *
load(const char *path, struct static_identity *ret_identity)
{
    struct static_file *file = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    cr_assert_neq(fd, -1);
    cr_assert_eq(static_file_load(&fd, str_from(path), &file, ret_identity), 0);
    cr_assert_eq(fd == -1, file->content == NULL, "the descriptor is taken over or left");
    fd_close(&fd);
    return file;
}

static bool
holds(const char *path, const struct static_identity *identity)
{
    struct stat st;

    cr_assert_eq(stat(path, &st), 0);
    return static_identity_holds(identity, &st);
}

Test(static_file, small_is_in_memory_and_large_is_a_descriptor)
{
    static const size_t sizes[] = {0, 1, 4095, STATIC_CONTENT_MAX, STATIC_CONTENT_MAX + 1, 200000};
    struct static_identity identity;

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        write_filled("f.bin", (char)('a' + i), sizes[i]);
        struct static_file *file = load("f.bin", &identity);
        cr_expect_eq(file->size, sizes[i]);
        if (sizes[i] <= STATIC_CONTENT_MAX) {
            cr_assert_not_null(file->content);
            cr_expect_eq(file->fd, -1);
            for (size_t j = 0; j < sizes[i]; j++) {
                cr_assert_eq(file->content[j], (char)('a' + i));
            }
        } else {
            cr_assert_null(file->content);
            cr_expect_eq(fcntl(file->fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        }
        static_file_unref(&file);
        cr_expect_null(file);
    }
}

Test(static_file, head_is_prepared)
{
    struct static_identity identity;

    write_text("a.css", "p{}");
    set_mtime("a.css", 784111777, 0);
    struct static_file *file = load("a.css", &identity);
    char *expected = xasprintf("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nAccept-Ranges: bytes\r\n"
                               "Content-Type: text/css; charset=utf-8\r\n"
                               "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nETag: %.*s\r\n",
                               STR_ARG(file->etag));
    char *head = xstrndup(file->head_ok.ptr, file->head_ok.len);
    cr_expect_str_eq(head, expected);
    cr_expect_eq(file->last_modified, 784111777);
    /* The other two are the ends of the same text. */
    const char *end = file->head_ok.ptr + file->head_ok.len;
    cr_expect_eq(file->fields_file.ptr + file->fields_file.len, end);
    cr_expect_eq(file->fields_validators.ptr + file->fields_validators.len, end);
    cr_expect(str_starts_with(file->fields_file, STR("Accept-Ranges: ")));
    cr_expect(str_starts_with(file->fields_validators, STR("Last-Modified: ")));
    free(head);
    free(expected);
    static_file_unref(&file);
}

static char *
etag_of(const char *path)
{
    struct static_identity identity;
    struct static_file *file = load(path, &identity);
    char *etag = xstrndup(file->etag.ptr, file->etag.len);

    cr_assert_gt(file->etag.len, 2);
    cr_expect_eq(etag[0], '"', "strong");
    cr_expect_eq(etag[file->etag.len - 1], '"');
    static_file_unref(&file);
    return etag;
}

static void
expect_etag_differs(const char *known, const char *what)
{
    char *etag = etag_of("f");

    cr_expect_str_neq(etag, known, "%s", what);
    free(etag);
}

Test(static_file, etag_tells_time_size_and_inode_apart)
{
    write_text("f", "one");
    set_mtime("f", 1000000000, 500);
    char *first = etag_of("f");
    char *again = etag_of("f");
    cr_expect_str_eq(first, again, "the same in every worker and after every restart");

    set_mtime("f", 1000000000, 501);
    expect_etag_differs(first, "a nanosecond");
    write_text("f", "four");
    set_mtime("f", 1000000000, 500);
    expect_etag_differs(first, "size");
    write_text("g", "two");
    set_mtime("g", 1000000000, 500);
    cr_assert_eq(rename("g", "f"), 0);
    expect_etag_differs(first, "another file of the same time and size");
    free(first);
    free(again);
}

Test(static_file, etag_of_the_longest_numbers_fits)
{
    struct static_identity identity;
    int fd = open("f", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

    cr_assert_eq(ftruncate(fd, (off_t)1 << 42), 0);
    fd_close(&fd);
    set_mtime("f", -1, 999999999);
    struct static_file *file = load("f", &identity);
    cr_expect_eq(file->size, (uint64_t)1 << 42);
    cr_expect_eq(file->last_modified, 0, "before 1970 is sent as 1970");
    cr_expect_eq(file->etag.ptr[file->etag.len - 1], '"');
    static_file_unref(&file);
}

Test(static_file, last_modified_is_never_in_the_future)
{
    struct static_identity identity;
    time_t before = (time_t)(clock_real_ms() / 1000);

    write_text("f", "x");
    set_mtime("f", before + 100000, 0);
    struct static_file *file = load("f", &identity);
    cr_expect_geq(file->last_modified, before);
    cr_expect_leq(file->last_modified, (time_t)(clock_real_ms() / 1000));
    static_file_unref(&file);
}

Test(static_file, young_file_is_not_trusted_to_be_unchanged)
{
    struct static_identity identity;

    write_text("f", "x");
    struct static_file *file = load("f", &identity);
    cr_expect(identity.unsettled);
    cr_expect_not(holds("f", &identity));
    static_file_unref(&file);
    /* mtime is what a writer says; only ctime is what happened. */
    set_mtime("f", 1000000000, 0);
    file = load("f", &identity);
    cr_expect(identity.unsettled);
    static_file_unref(&file);
}

Test(static_file, settled_file_is_recognised)
{
    struct static_identity identity;
    struct static_file *file = load("/usr/include/stdio.h", &identity);

    cr_expect_not(identity.unsettled);
    cr_expect(holds("/usr/include/stdio.h", &identity));
    cr_expect_not(holds("/usr/include/stdlib.h", &identity));
    struct static_identity other = identity;
    other.ctime.tv_nsec ^= 1;
    cr_expect_not(holds("/usr/include/stdio.h", &other), "a change with mtime put back");
    other = identity;
    other.size++;
    cr_expect_not(holds("/usr/include/stdio.h", &other));
    static_file_unref(&file);
}

/* A file of sysfs says 4096 and has less: it shrinks, as it were, in every reading. */
Test(static_file, shorter_than_it_says_is_sent_as_long_as_it_is)
{
    static const char path[] = "/sys/kernel/mm/transparent_hugepage/enabled";
    static const char other[] = "/sys/kernel/uevent_seqnum";
    const char *found = access(path, R_OK) == 0 ? path : other;
    struct static_identity identity;
    struct stat st;

    if (stat(found, &st) == -1) {
        cr_skip_test("no sysfs here");
    }
    struct static_file *file = load(found, &identity);
    cr_expect_lt(file->size, (uint64_t)st.st_size);
    cr_expect_gt(file->size, 0);
    cr_expect_not_null(file->content);
    cr_expect(identity.unsettled);
    char *length = xasprintf("Content-Length: %llu\r\n", (unsigned long long)file->size);
    char *head = xstrndup(file->head_ok.ptr, file->head_ok.len);
    cr_expect_not_null(strstr(head, length));
    free(head);
    free(length);
    static_file_unref(&file);
}

Test(static_file, last_reference_closes)
{
    struct static_identity identity;

    write_filled("f", 'x', 100000);
    size_t before = descriptor_count();
    struct static_file *file = load("f", &identity);
    struct static_file *second = static_file_ref(file);
    static_file_unref(&file);
    cr_expect_eq(descriptor_count(), before + 1);
    static_file_unref(&second);
    cr_expect_eq(descriptor_count(), before);
    static_file_unref(&second); /* NULL: nothing */
}

Test(static_file, error_of_reading_is_returned)
{
    struct static_identity identity;
    struct static_file *file = NULL;
    int fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    cr_assert_eq(static_file_load(&fd, STR("x"), &file, &identity), -EISDIR);
    cr_expect_null(file);
    cr_expect_neq(fd, -1, "still the caller's");
    fd_close(&fd);
}
