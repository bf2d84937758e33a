/* SPDX-License-Identifier: Apache-2.0
 *
 * Walks tests/fixtures/requests: every file of valid/ is exactly one request, head and body; every
 * file of invalid/ is refused with the status that expected.txt gives it.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>

#include "deliver.h"
#include "worker/http/chunked.h"
#include "worker/http/target.h"

#ifndef NARWHAL_FIXTURES
#error "NARWHAL_FIXTURES is the path of tests/fixtures/requests"
#endif

static struct request_parser parser;

struct file {
    char bytes[64 * 1024];
    size_t length;
};

static void
file_read(struct file *file, const char *folder, const char *name)
{
    char path[1024];

    snprintf(path, sizeof(path), "%s/%s/%s", NARWHAL_FIXTURES, folder, name);
    FILE *stream = fopen(path, "rb");
    cr_assert(stream != NULL, "%s: %s", path, strerror(errno));
    file->length = fread(file->bytes, 1, sizeof(file->bytes), stream);
    cr_assert(file->length < sizeof(file->bytes), "%s is too large", path);
    fclose(stream);
}

/* Splitting a long file at every byte would take minutes; an odd step still meets all its kinds of
 * byte. */
static size_t
step_for(size_t length)
{
    return length < 1500 ? 1 : length / 211 | 1;
}

/* Bytes of a chunked body that were used; *ret_reason is why it was refused, or NULL. */
static size_t
decode_body(const char *bytes, size_t length, enum chunked_result *ret_result,
            const char **ret_reason)
{
    struct chunked_decoder decoder;
    struct str data;
    size_t at = 0;

    chunked_decoder_init(&decoder);
    do {
        size_t used = 0;
        *ret_result = chunked_decode(&decoder, bytes + at, length - at, &used, &data);
        at += used;
    } while (*ret_result == CHUNKED_DATA);
    *ret_reason = decoder.reason;
    return at;
}

/* Why the path of the head that was just taken is refused when its route is looked up, or NULL. */
static const char *
path_refusal(const struct file *file)
{
    static char path[sizeof(file->bytes) + 1];
    size_t length;
    bool rewritten;

    if (parser.head.form != TARGET_ORIGIN && parser.head.form != TARGET_ABSOLUTE) {
        return NULL;
    }
    return target_normalise(span_str(parser.head.path, file->bytes), path, sizeof(path), &length,
                            &rewritten);
}

static bool
is_fixture(const struct dirent *entry)
{
    size_t length = strlen(entry->d_name);

    return length > 5 && strcmp(entry->d_name + length - 5, ".http") == 0;
}

Test(fixtures, every_valid_request_is_taken_whole, .timeout = 60)
{
    static struct file file;
    DIR *folder = opendir(NARWHAL_FIXTURES "/valid");
    size_t count = 0;

    cr_assert(folder != NULL, "%s/valid: %s", NARWHAL_FIXTURES, strerror(errno));
    for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        if (!is_fixture(entry)) {
            continue;
        }
        file_read(&file, "valid", entry->d_name);
        enum parse_result result = request_deliver(&parser, &default_limits, file.bytes,
                                                   file.length, step_for(file.length));
        cr_assert(result == PARSE_OK, "%s: result %d, %s", entry->d_name, result,
                  parser.error.reason != NULL ? parser.error.reason : "no error");
        const char *path_refused = path_refusal(&file);
        cr_expect(path_refused == NULL, "%s: %s", entry->d_name, path_refused);
        size_t body = file.length - parser.head.length;
        enum chunked_result chunked = CHUNKED_END;
        const char *reason = NULL;
        size_t used = 0;
        switch (parser.head.framing) {
        case BODY_NONE:
            break;
        case BODY_LENGTH:
            used = (size_t)parser.head.content_length;
            break;
        case BODY_CHUNKED:
            used = decode_body(file.bytes + parser.head.length, body, &chunked, &reason);
            break;
        case BODY_UNTIL_CLOSE:
            cr_assert_fail("%s: a request cannot end with the connection", entry->d_name);
        }
        cr_expect(chunked == CHUNKED_END, "%s: %s", entry->d_name,
                  reason != NULL ? reason : "the body does not end");
        cr_expect_eq(used, body, "%s: %zu of %zu bytes of the body", entry->d_name, used, body);
        count++;
    }
    closedir(folder);
    cr_expect(count >= 120, "only %zu files in %s/valid", count, NARWHAL_FIXTURES);
}

Test(fixtures, every_invalid_request_is_refused_with_its_status, .timeout = 60)
{
    static struct file file;
    char line[512];
    FILE *expected = fopen(NARWHAL_FIXTURES "/expected.txt", "r");
    size_t count = 0;

    cr_assert(expected != NULL, "%s/expected.txt: %s", NARWHAL_FIXTURES, strerror(errno));
    while (fgets(line, sizeof(line), expected) != NULL) {
        char name[256];
        int status;

        if (line[0] == '#') {
            continue;
        }
        cr_assert(sscanf(line, "%255s %d", name, &status) == 2, "expected.txt: %s", line);
        file_read(&file, "invalid", name);
        enum parse_result result = request_deliver(&parser, &default_limits, file.bytes,
                                                   file.length, step_for(file.length));
        if (result == PARSE_OK && path_refusal(&file) != NULL) {
            cr_expect_eq(status, 400, "%s: a bad path is 400", name);
        } else if (result == PARSE_OK && parser.head.framing == BODY_CHUNKED) {
            enum chunked_result chunked;
            const char *reason;
            decode_body(file.bytes + parser.head.length, file.length - parser.head.length, &chunked,
                        &reason);
            cr_expect(chunked == CHUNKED_BAD && reason != NULL, "%s is taken", name);
            cr_expect_eq(status, 400, "%s: a bad body is 400", name);
        } else {
            cr_expect(result == PARSE_BAD, "%s is taken", name);
            cr_expect_eq(parser.error.status, status, "%s: %d (%s)", name, parser.error.status,
                         parser.error.reason);
        }
        count++;
    }
    fclose(expected);
    cr_expect(count >= 300, "only %zu lines in expected.txt", count);
}

Test(fixtures, every_invalid_file_is_expected)
{
    char listing[64 * 1024] = "\n";
    size_t length = 1;
    FILE *expected = fopen(NARWHAL_FIXTURES "/expected.txt", "r");
    DIR *folder = opendir(NARWHAL_FIXTURES "/invalid");

    cr_assert(expected != NULL && folder != NULL);
    length += fread(listing + 1, 1, sizeof(listing) - 2, expected);
    listing[length] = '\0';
    fclose(expected);
    for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        char wanted[300];
        snprintf(wanted, sizeof(wanted), "\n%s ", entry->d_name);
        cr_expect(!is_fixture(entry) || strstr(listing, wanted) != NULL,
                  "invalid/%s has no line in expected.txt", entry->d_name);
    }
    closedir(folder);
}
