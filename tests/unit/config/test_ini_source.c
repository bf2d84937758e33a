/* SPDX-License-Identifier: Apache-2.0
 *
 * Settings files as bytes: limits of inih at the exact byte, line ends, files that are none.
 */
#include "tests/unit/config/support.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "config/ini_source.h"

TestSuite(ini_source, .init = enter_folder, .fini = leave_folder);

/* Events as text: "[name]@1 section.key=value@2 !1 message", one in a line. */
static void
on_section(void *user, const char *name, int line)
{
    buf_addf(user, "[%s]@%d\n", name == NULL ? "(broken)" : name, line);
}

static void
on_value(void *user, const char *section, const char *key, const char *value, int line)
{
    buf_addf(user, "%s.%s=%s@%d\n", section == NULL ? "(none)" : section, key, value, line);
}

static void
on_error(void *user, int line, const char *message)
{
    buf_addf(user, "!%d %s\n", line, message);
}

static const struct ini_source_events events = {on_section, on_value, on_error};

static int
read_events(const char *path, struct buf *ret_text)
{
    buf_clear(ret_text);
    buf_add(ret_text, "", 0);
    return ini_source_read(path, &events, ret_text);
}

static void
expect_events(const char *bytes, size_t size, const char *expected)
{
    struct buf text = {0};

    write_file("n.ini", bytes, size);
    cr_expect_eq(read_events("n.ini", &text), 0);
    cr_expect_str_eq(text.ptr, expected, "got:\n%s\nexpected:\n%s", text.ptr, expected);
    buf_release(&text);
}

#define EXPECT(literal, expected) expect_events(literal, sizeof(literal) - 1, expected)

Test(ini_source, sections_keys_and_comments)
{
    EXPECT("; c\n# c\n\n[a]\nk = v\nl=w ; c\n  # indented comment\n[b:c] ; c\nm: x\nn =\n[d]#c\n",
           "[a]@4\na.k=v@5\na.l=w@6\n[b:c]@8\nb:c.m=x@9\nb:c.n=@10\n[d]@11\n");
}

Test(ini_source, semicolons_begin_comments_only_behind_a_blank)
{
    EXPECT("[a]\nk = v;w\nl = v ;w\nm = v\t;w\nn = ;w\no =;w\np = 'a ; b'\nq = a#b #c\n",
           "[a]@1\na.k=v;w@2\na.l=v@3\na.m=v@4\na.n=@5\na.o=;w@6\na.p='a@7\na.q=a#b #c@8\n");
}

Test(ini_source, line_ends)
{
    EXPECT("[a]\r\nk = v\r\n", "[a]@1\na.k=v@2\n");
    EXPECT("[a]\nk = v", "[a]@1\na.k=v@2\n");
    EXPECT("[a]\nk = v\r", "[a]@1\na.k=v@2\n");
    EXPECT("[a]\n\r\n\r\nk = v\n", "[a]@1\na.k=v@4\n");
    EXPECT("", "");
    EXPECT("\n\n", "");
    EXPECT("[a]", "[a]@1\n");
}

Test(ini_source, byte_order_marks)
{
    EXPECT("\xef\xbb\xbf[a]\nk = v\n", "[a]@1\na.k=v@2\n");
    EXPECT("\xef\xbb\xbf", "");
    EXPECT("\xef\xbb\xbfk = v\n", "(none).k=v@1\n");

    struct buf text = {0};
    write_file("n.ini", "\xff\xfe[\0a\0]\0", 8);
    cr_expect_eq(read_events("n.ini", &text), -EILSEQ);
    cr_expect_str_eq(text.ptr, "!0 is UTF-16; save the settings file as UTF-8\n");
    buf_release(&text);
}

#define NUL_ERROR "the line has a NUL byte; a settings file is text in UTF-8\n"

Test(ini_source, nul_bytes)
{
    EXPECT("[a]\nk = v\0w\nl = w\n", "[a]@1\n!2 " NUL_ERROR "a.l=w@3\n");
    EXPECT("[a]\n\0\nl = w\n\0", "[a]@1\n!2 " NUL_ERROR "a.l=w@3\n!4 " NUL_ERROR);
    EXPECT("; \0\n", "!1 " NUL_ERROR);
}

#define FORM_ERROR                                                                                 \
    "the line must be 'key = value', '[section]', or a comment that begins with ; or #\n"

Test(ini_source, broken_lines_are_errors_and_the_rest_is_read)
{
    EXPECT("[a]\nfoo\nk = v\n", "[a]@1\n!2 " FORM_ERROR "a.k=v@3\n");
    EXPECT("[a]\nfoo ; = x\n", "[a]@1\n!2 " FORM_ERROR);
    EXPECT("[a]\n= x\n", "[a]@1\n!2 the line must have a key before the '='\n");
    EXPECT("[a]\n: x\n", "[a]@1\n!2 the line must have a key before the ':'\n");
    EXPECT("[a]\nk = v\n  l = w\n",
           "[a]@1\na.k=v@2\n!3 the line must not be indented; remove the blanks at its beginning "
           "(a value cannot go on in a second line)\n");
    EXPECT("[a\nk = v\n[b]\nl = w\n",
           "!1 a section must be written as [name]; the ']' is missing\n[(broken)]@1\n"
           "(none).k=v@2\n[b]@3\nb.l=w@4\n");
    EXPECT("[a] x\n", "!1 nothing but a comment may stand behind the ']' of a section\n"
                      "[(broken)]@1\n");
    EXPECT("[]\n", "!1 a section must have a name between '[' and ']'\n[(broken)]@1\n");
    EXPECT("[a]\nk = \x1b[1m\n", "[a]@1\n!2 the line has the control byte 0x1b at column 5; only "
                                 "printable text and tabs are allowed\n");
    EXPECT("[a]\nk = v\rl = w\n", "[a]@1\n!2 the line has the control byte 0x0d at column 6; only "
                                  "printable text and tabs are allowed\n");
}

/* A line of exactly so many bytes: prefix, then 'v' to the end, then the end of the line. */
static void
write_line(const char *prefix, size_t length, const char *line_end)
{
    struct buf bytes = {0};

    buf_add_text(&bytes, "[a]\n");
    size_t start = bytes.len;
    buf_add_text(&bytes, prefix);
    while (bytes.len - start < length) {
        buf_add_text(&bytes, "v");
    }
    buf_add_text(&bytes, line_end);
    buf_add_text(&bytes, "z = 1");
    write_file("n.ini", bytes.ptr, bytes.len);
    buf_release(&bytes);
}

Test(ini_source, lines_are_whole_up_to_199_bytes_and_refused_above)
{
    static const char *const line_ends[] = {"\n", "\r\n"};
    struct buf text = {0};

    for (size_t i = 0; i < 2; i++) {
        for (size_t length = 196; length <= 203; length++) {
            write_line("k = ", length, line_ends[i]);
            cr_expect_eq(read_events("n.ini", &text), 0);
            char *expected =
                length <= 199
                    ? xasprintf(
                          "[a]@1\na.k=%.*s@2\na.z=1@3\n", (int)length - 4,
                          "vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv"
                          "vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv"
                          "vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv")
                    : xasprintf("[a]@1\n!2 a line must not be longer than 199 bytes; this one has "
                                "%zu\na.z=1@3\n",
                                length);
            cr_expect_str_eq(text.ptr, expected, "length %zu: %s", length, text.ptr);
            free(expected);
        }
    }
    buf_release(&text);
}

Test(ini_source, long_comments_are_refused_too)
{
    struct buf text = {0};

    write_line("; ", 199, "\n");
    cr_expect_eq(read_events("n.ini", &text), 0);
    cr_expect_str_eq(text.ptr, "[a]@1\na.z=1@3\n");
    write_line("; ", 200, "\n");
    cr_expect_eq(read_events("n.ini", &text), 0);
    cr_expect_str_eq(text.ptr, "[a]@1\n!2 a line must not be longer than 199 bytes; this one has "
                               "200\na.z=1@3\n");
    buf_release(&text);
}

Test(ini_source, last_line_without_an_end_has_the_same_limit)
{
    struct buf text = {0};
    char bytes[200];

    memset(bytes, 'v', sizeof(bytes));
    bytes[0] = 'k';
    bytes[1] = '=';
    write_file("n.ini", bytes, 199);
    cr_expect_eq(read_events("n.ini", &text), 0);
    cr_expect_eq(text.len, strlen("(none).k=") + 197 + strlen("@1\n"));
    write_file("n.ini", bytes, 200);
    cr_expect_eq(read_events("n.ini", &text), 0);
    cr_expect_str_eq(text.ptr, "!1 a line must not be longer than 199 bytes; this one has 200\n");
    buf_release(&text);
}

Test(ini_source, names_are_whole_up_to_49_bytes_and_refused_above)
{
    static const char name[] = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz";

    for (int length = 48; length <= 51; length++) {
        char *bytes = xasprintf("[%.*s]\n%.*s = v\n", length, name, length, name);
        char *expected =
            length <= 49
                ? xasprintf("[%.*s]@1\n%.*s.%.*s=v@2\n", length, name, length, name, length, name)
                : xasprintf("!1 the name of a section must not be longer than 49 bytes; this one "
                            "has %d\n[(broken)]@1\n"
                            "!2 a key must not be longer than 49 bytes; this one has %d\n",
                            length, length);
        expect_events(bytes, strlen(bytes), expected);
        free(bytes);
        free(expected);
    }
}

Test(ini_source, files_are_taken_up_to_1_mib)
{
    struct buf text = {0};
    char *bytes = xcalloc(1, INI_SOURCE_BYTES_MAX + 1);

    memset(bytes, '\n', INI_SOURCE_BYTES_MAX + 1);
    memcpy(bytes + INI_SOURCE_BYTES_MAX - 4, "[a]\n", 4);
    write_file("n.ini", bytes, INI_SOURCE_BYTES_MAX);
    cr_expect_eq(read_events("n.ini", &text), 0);
    cr_expect_str_eq(text.ptr, "[a]@1048573\n");
    write_file("n.ini", bytes, INI_SOURCE_BYTES_MAX + 1);
    cr_expect_eq(read_events("n.ini", &text), -EFBIG);
    cr_expect_str_eq(text.ptr, "!0 is larger than the 1048576 bytes a settings file may have\n");
    free(bytes);
    buf_release(&text);
}

Test(ini_source, what_is_no_file_is_an_error_at_once)
{
    struct buf text = {0};
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "socket"};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_expect_eq(read_events("missing.ini", &text), -ENOENT);
    cr_expect_str_eq(text.ptr, "!0 the settings file cannot be read: No such file or directory; "
                               "name one with -c FILE\n");
    cr_expect_eq(read_events(".", &text), -EISDIR);
    cr_expect_str_eq(text.ptr,
                     "!0 is a directory, not a settings file; name the file itself with -c FILE\n");
    cr_assert_eq(mkfifo("pipe", 0600), 0);
    cr_expect_eq(read_events("pipe", &text), -EINVAL, "and it does not wait for a writer");
    cr_expect_str_eq(text.ptr,
                     "!0 is a pipe, not a settings file; name the file itself with -c FILE\n");
    cr_expect_eq(read_events("/dev/zero", &text), -EINVAL);
    cr_expect_str_eq(text.ptr,
                     "!0 is a device, not a settings file; name the file itself with -c FILE\n");
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    cr_expect_eq(read_events("socket", &text), -ENXIO);
    cr_expect_not_null(strstr(text.ptr, "it is a socket or has no device"));
    fd_close(&fd);
    buf_release(&text);
}

Test(ini_source, unreadable_file_is_an_error)
{
    struct buf text = {0};

    write_text("n.ini", "[a]\n");
    cr_assert_eq(chmod("n.ini", 0), 0);
    if (geteuid() == 0) {
        cr_assert_eq(chmod(folder, 0755), 0);
        cr_assert_eq(seteuid(65534), 0); /* root may read everything */
    }
    cr_expect_eq(read_events("n.ini", &text), -EACCES);
    cr_expect_str_eq(text.ptr, "!0 the settings file cannot be read: Permission denied; name one "
                               "with -c FILE\n");
    if (getuid() == 0) {
        cr_assert_eq(seteuid(0), 0);
    }
    buf_release(&text);
}

Test(ini_source, any_bytes_are_read_without_a_fault)
{
    uint32_t state = 1;
    static const char alphabet[] = "[]=:; \t\r\n#ab\0\xef\xbb\xbf";
    struct buf text = {0};

    for (int round = 0; round < 300; round++) {
        char bytes[700];
        for (size_t i = 0; i < sizeof(bytes); i++) {
            state = state * 1664525 + 1013904223;
            bytes[i] = alphabet[(state >> 16) % (sizeof(alphabet) - 1)];
        }
        write_file("n.ini", bytes, sizeof(bytes));
        cr_assert_eq(read_events("n.ini", &text), 0);
        /* Every line that is neither blank nor a comment made an event. */
        cr_assert_gt(text.len, 0);
    }
    buf_release(&text);
}
