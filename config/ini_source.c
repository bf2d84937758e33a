/* SPDX-License-Identifier: Apache-2.0
 *
 * inih adapter. The file is read whole, so that NUL bytes and line lengths are seen before inih
 * does; inih then asks for one line at a time, and each line is judged before it gets it. A line
 * that inih would get wrong is told to on_error and handed to inih as an empty one, so that all
 * errors of a file are found in one pass. Runs in the master, at start and at every reload.
 */
#include "config/ini_source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ini.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/base/fd.h"
#include "config/base/str.h"

struct ini_source {
    const struct ini_source_events *events;
    void *user;
    struct str rest;    /* lines not read yet */
    int line;           /* the one inih has now */
    bool expects_value; /* that line must lead to an on_value */
    char section[INI_SOURCE_NAME_MAX + 1];
    bool has_section; /* false: before the first, or the section's line was broken */
    size_t error_count;
};

__attribute__((format(printf, 2, 3))) static void
tell_error(struct ini_source *source, const char *format, ...)
{
    char message[512];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    source->error_count++;
    source->events->on_error(source->user, source->line, message);
}

/* ---- one line ------------------------------------------------------------------------------ */

static bool
is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static struct str
skip_blanks(struct str s)
{
    while (s.len > 0 && is_blank(s.ptr[0])) {
        s.ptr++;
        s.len--;
    }
    return s;
}

/* The next line without its end: LF, CRLF, or the end of the file. */
static struct str
take_line(struct ini_source *source)
{
    const char *end = memchr(source->rest.ptr, '\n', source->rest.len);
    struct str line = {source->rest.ptr, source->rest.len};

    if (end != NULL) {
        line.len = (size_t)(end - line.ptr);
    }
    size_t taken = end == NULL ? line.len : line.len + 1;
    source->rest.ptr += taken;
    source->rest.len -= taken;
    if (line.len > 0 && line.ptr[line.len - 1] == '\r') {
        line.len--;
    }
    return line;
}

/* A section's line. inih ignores what stands behind the bracket and cuts the name. */
static bool
judge_section(struct ini_source *source, struct str line)
{
    const char *end = memchr(line.ptr, ']', line.len);

    source->has_section = false;
    if (end == NULL) {
        tell_error(source, "a section must be written as [name]; the ']' is missing");
        return false;
    }
    struct str name = {line.ptr + 1, (size_t)(end - line.ptr) - 1};
    struct str after = skip_blanks((struct str){end + 1, line.len - name.len - 2});
    if (after.len > 0 && after.ptr[0] != ';' && after.ptr[0] != '#') {
        tell_error(source, "nothing but a comment may stand behind the ']' of a section");
        return false;
    }
    if (name.len == 0) {
        tell_error(source, "a section must have a name between '[' and ']'");
        return false;
    }
    if (name.len > INI_SOURCE_NAME_MAX) {
        tell_error(source,
                   "the name of a section must not be longer than %d bytes; this one has %zu",
                   INI_SOURCE_NAME_MAX, name.len);
        return false;
    }
    for (size_t i = 1; i < name.len; i++) {
        if (name.ptr[i] == ';' && is_blank(name.ptr[i - 1])) {
            tell_error(source, "the name of a section must not hold ' ;', which begins a comment");
            return false;
        }
    }
    memcpy(source->section, name.ptr, name.len);
    source->section[name.len] = '\0';
    source->has_section = true;
    return true;
}

/* A line that must be key = value. */
static bool
judge_value(struct ini_source *source, struct str line)
{
    size_t length = 0;

    while (length < line.len && line.ptr[length] != '=' && line.ptr[length] != ':' &&
           !(line.ptr[length] == ';' && length > 0 && is_blank(line.ptr[length - 1]))) {
        length++;
    }
    if (length == line.len || line.ptr[length] == ';') {
        tell_error(source,
                   "the line must be 'key = value', '[section]', or a comment that begins with ; "
                   "or #");
        return false;
    }
    while (length > 0 && is_blank(line.ptr[length - 1])) {
        length--;
    }
    if (length == 0) {
        tell_error(source, "the line must have a key before the '%c'", skip_blanks(line).ptr[0]);
        return false;
    }
    if (length > INI_SOURCE_NAME_MAX) {
        tell_error(source, "a key must not be longer than %d bytes; this one has %zu",
                   INI_SOURCE_NAME_MAX, length);
        return false;
    }
    return true;
}

/* Whether inih may have the line. */
static bool
judge_line(struct ini_source *source, struct str line)
{
    struct str text = skip_blanks(line);

    if (memchr(line.ptr, '\0', line.len) != NULL) {
        tell_error(source, "the line has a NUL byte; a settings file is text in UTF-8");
        return false;
    }
    for (size_t i = 0; i < line.len; i++) {
        unsigned char c = (unsigned char)line.ptr[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            tell_error(source,
                       "the line has the control byte 0x%02x at column %zu; only printable text "
                       "and tabs are allowed",
                       c, i + 1);
            return false;
        }
    }
    if (line.len > INI_SOURCE_LINE_MAX) {
        tell_error(source, "a line must not be longer than %d bytes; this one has %zu",
                   INI_SOURCE_LINE_MAX, line.len);
        return false;
    }
    if (text.len == 0 || text.ptr[0] == ';' || text.ptr[0] == '#') {
        return true;
    }
    if (text.len < line.len) {
        /* Elsewhere it would go on with the value above; here values have one line. */
        tell_error(source, "the line must not be indented; remove the blanks at its beginning (a "
                           "value cannot go on in a second line)");
        return false;
    }
    if (text.ptr[0] == '[') {
        return judge_section(source, line);
    }
    source->expects_value = judge_value(source, line);
    return source->expects_value;
}

/* ---- inih ---------------------------------------------------------------------------------- */

/* Whatever inih made of its last line, it must not have passed over a setting. */
static void
end_line(struct ini_source *source)
{
    if (source->expects_value) {
        tell_error(source,
                   "the line must be 'key = value', '[section]', or a comment that begins with ; "
                   "or #");
    }
    source->expects_value = false;
}

/* An ini_reader, which has the contract of fgets(3). */
static char *
on_inih_read(char *line_buffer, int size, void *stream)
{
    struct ini_source *source = stream;

    CHECK(size > INI_SOURCE_LINE_MAX);
    end_line(source);
    if (source->rest.len == 0) {
        return NULL;
    }
    source->line++;
    struct str line = take_line(source);
    size_t length = 0;
    bool is_section = line.len > 0 && line.ptr[0] == '[';
    if (judge_line(source, line)) {
        length = line.len;
        memcpy(line_buffer, line.ptr, length);
    } else if (is_section) {
        source->has_section = false;
    }
    line_buffer[length] = '\0';
    if (is_section) {
        source->events->on_section(source->user, source->has_section ? source->section : NULL,
                                   source->line);
    }
    return line_buffer;
}

/* An ini_handler. inih's own idea of the section is not used: it keeps the last good one. */
static int
on_inih_value(void *user, const char *section, const char *key, const char *value)
{
    struct ini_source *source = user;

    (void)section;
    source->expects_value = false;
    source->events->on_value(source->user, source->has_section ? source->section : NULL, key, value,
                             source->line);
    return 1;
}

/* Debian's shared inih takes these at run time, from whoever in the process set them last. */
static void
pin_inih_switches(void)
{
    static char comment_prefixes[] = ";#";
    static char inline_comment_prefixes[] = ";";

    ini_allow_multiline = false;      /* an indented line is an error of ours */
    ini_allow_bom = false;            /* skipped before inih sees it */
    ini_allow_inline_comments = true; /* " ;" */
    ini_start_comment_prefixes = comment_prefixes;
    ini_inline_comment_prefixes = inline_comment_prefixes;
    ini_use_stack = true;
    ini_max_line = INI_SOURCE_LINE_MAX + 1;
    ini_allow_realloc = false;
    ini_stop_on_first_error = false;
    ini_allow_no_value = false;
}

/* ---- the file ------------------------------------------------------------------------------ */

static const char *
kind_of(mode_t mode)
{
    return S_ISDIR(mode)    ? "a directory"
           : S_ISFIFO(mode) ? "a pipe"
           : S_ISSOCK(mode) ? "a socket"
                            : "a device";
}

/* Reads at most one byte more than allowed: enough to know. 0 or a negative errno. */
static int
read_bounded(int fd, struct buf *ret_bytes)
{
    while (ret_bytes->len <= INI_SOURCE_BYTES_MAX) {
        size_t more = INI_SOURCE_BYTES_MAX + 1 - ret_bytes->len;
        more = more < 65536 ? more : 65536;
        ssize_t n = fd_read(fd, buf_reserve(ret_bytes, more), more);
        if (n == -1) {
            return -errno;
        }
        if (n == 0) {
            return 0;
        }
        ret_bytes->len += (size_t)n;
    }
    return -EFBIG;
}

/* Reads the file whole. On failure *ret_message says why, and the result is a negative errno. */
static int
read_file(const char *path, struct buf *ret_bytes, char ret_message[256])
{
    struct stat status;
    /* O_NONBLOCK: opening a pipe would wait for its writer (fifo(7)). */
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    int result;

    if (fd == -1 || fstat(fd, &status) == -1) {
        result = -errno;
        /* open(2): ENXIO is the answer of a socket file. */
        (void)snprintf(ret_message, 256, "the settings file cannot be read: %s; %s",
                       result == -ENXIO ? "it is a socket or has no device" : strerror(-result),
                       result == -EMFILE || result == -ENFILE
                           ? "out of descriptors (LimitNOFILE=, ulimit -n)"
                           : "name one with -c FILE");
        fd_close(&fd);
        return result;
    }
    if (!S_ISREG(status.st_mode)) {
        (void)snprintf(ret_message, 256,
                       "is %s, not a settings file; name the file itself with -c "
                       "FILE",
                       kind_of(status.st_mode));
        fd_close(&fd);
        return S_ISDIR(status.st_mode) ? -EISDIR : -EINVAL;
    }
    result = read_bounded(fd, ret_bytes);
    fd_close(&fd);
    if (result == -EFBIG) {
        (void)snprintf(ret_message, 256, "is larger than the %d bytes a settings file may have",
                       INI_SOURCE_BYTES_MAX);
    } else if (result != 0) {
        (void)snprintf(ret_message, 256, "the settings file cannot be read: %s", strerror(-result));
    }
    return result;
}

int
ini_source_read(const char *path, const struct ini_source_events *events, void *user)
{
    static const char utf8_bom[] = "\xef\xbb\xbf";
    struct ini_source source = {.events = events, .user = user};
    struct buf bytes = {0};
    char message[256];
    int result = read_file(path, &bytes, message);

    if (result != 0) {
        events->on_error(user, 0, message);
        goto done;
    }
    source.rest = (struct str){bytes.ptr, bytes.len};
    if (bytes.len >= 2 &&
        (memcmp(bytes.ptr, "\xff\xfe", 2) == 0 || memcmp(bytes.ptr, "\xfe\xff", 2) == 0)) {
        events->on_error(user, 0, "is UTF-16; save the settings file as UTF-8");
        result = -EILSEQ;
        goto done;
    }
    if (bytes.len >= 3 && memcmp(bytes.ptr, utf8_bom, 3) == 0) {
        source.rest.ptr += 3;
        source.rest.len -= 3;
    }
    pin_inih_switches();
    int bad_line = ini_parse_stream(on_inih_read, &source, on_inih_value, &source);
    end_line(&source);
    if (bad_line != 0 && source.error_count == 0) {
        source.line = bad_line; /* judge_line() lets nothing pass that inih refuses; if it did: */
        tell_error(&source, "cannot be read as 'key = value' or '[section]'");
    }

done:
    buf_release(&bytes);
    return result;
}
