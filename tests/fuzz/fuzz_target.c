/* SPDX-License-Identifier: Apache-2.0
 *
 * Target normalisation. The input is a path, as it may stand in a request line or not. A second
 * reading of the rules, with a stack of segments, must come to the same path; a normal path leads
 * nowhere but down, and encoded and normalised again it is itself.
 */
#include "worker/http/target.h"

#include <stdlib.h>

#include "config/base/check.h"
#include "tests/fuzz/fuzz.h"

static int
hex_value(char c)
{
    const char *digits = "0123456789abcdef0123456789ABCDEF";
    const char *at = c == '\0' ? NULL : strchr(digits, c);

    return at == NULL ? -1 : (int)((at - digits) % 16);
}

/* "%2F", "%252F", "%25252F" … at text: a slash that was written as data. */
static size_t
kept_escape(struct str text)
{
    size_t i = 1;

    while (text.len - i >= 2 && memcmp(text.ptr + i, "25", 2) == 0) {
        i += 2;
    }
    return text.len - i >= 2 && text.ptr[i] == '2' && (text.ptr[i + 1] | 0x20) == 'f' ? i + 2 : 0;
}

/* The decoded segment in out; false when there is none. */
static bool
decode(struct str in, char *out, size_t *ret_length)
{
    size_t length = 0;

    for (size_t i = 0; i < in.len;) {
        char c = in.ptr[i];
        if (c == '%') {
            size_t kept = kept_escape((struct str){in.ptr + i, in.len - i});
            if (kept > 0) {
                memcpy(out + length, in.ptr + i, kept - 1);
                out[length + kept - 1] = 'F';
                length += kept;
                i += kept;
                continue;
            }
            if (in.len - i < 3 || hex_value(in.ptr[i + 1]) < 0 || hex_value(in.ptr[i + 2]) < 0) {
                return false;
            }
            c = (char)(hex_value(in.ptr[i + 1]) * 16 + hex_value(in.ptr[i + 2]));
            i += 3;
        } else {
            i++;
        }
        if ((unsigned char)c < 0x20 || c == 0x7f) {
            return false;
        }
        out[length++] = c;
    }
    *ret_length = length;
    return true;
}

/* The second reading. out has room for the path and one byte more; false: to be refused. */
static bool
normalise_again(struct str path, char *out, size_t *ret_length, bool *ret_rewritten)
{
    size_t *starts = calloc(path.len + 1, sizeof(*starts));
    size_t depth = 0;
    size_t length = 0;
    bool is_ok = path.len > 0 && path.ptr[0] == '/';
    bool ends_in_slash = false;

    CHECK(starts != NULL);
    *ret_rewritten = false;
    for (size_t at = 1; is_ok && at <= path.len;) {
        const char *slash = memchr(path.ptr + at, '/', path.len - at);
        size_t end = slash == NULL ? path.len : (size_t)(slash - path.ptr);
        size_t segment = 0;
        bool is_last = slash == NULL;
        char *into = out + length + 1;
        is_ok = decode((struct str){path.ptr + at, end - at}, into, &segment);
        ends_in_slash = true;
        if (segment == 2 && memcmp(into, "..", 2) == 0) {
            *ret_rewritten = true;
            if (depth == 0) {
                is_ok = false;
            } else {
                length = starts[--depth];
            }
        } else if (segment == 1 && into[0] == '.') {
            *ret_rewritten = true;
        } else if (segment == 0) {
            *ret_rewritten |= !is_last;
        } else {
            out[length] = '/';
            starts[depth++] = length;
            length += segment + 1;
            ends_in_slash = false;
        }
        at = end + 1;
    }
    if (length == 0 || ends_in_slash) {
        out[length++] = '/';
    }
    free(starts);
    *ret_length = length;
    return is_ok;
}

static void
check_normal(struct str path, const char *normal, size_t length)
{
    FUZZ_CHECK(length >= 1 && normal[0] == '/' && length <= (path.len == 0 ? 1 : path.len),
               "%zu bytes of %zu", length, path.len);
    FUZZ_CHECK(normal[length] == '\0', "no NUL behind the path");
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)normal[i];
        FUZZ_CHECK(c >= 0x20 && c != 0x7f, "a control byte at %zu", i);
        if (c != '/') {
            continue;
        }
        const char *next = normal + i + 1;
        size_t segment = strcspn(next, "/");
        FUZZ_CHECK(segment > 0 || i + 1 == length, "an empty segment at %zu", i);
        FUZZ_CHECK(!(segment == 1 && next[0] == '.') &&
                       !(segment == 2 && memcmp(next, "..", 2) == 0),
                   "a dot segment at %zu", i);
    }
    /* A server that decodes "%2F", takes '\' for a slash or cuts at ';' finds no "..", either. */
    for (const char *dots = strstr(normal, ".."); dots != NULL; dots = strstr(dots + 1, "..")) {
        bool begins = dots[-1] == '/' || dots[-1] == '\\' ||
                      (dots - normal >= 3 && strncasecmp(dots - 3, "%2f", 3) == 0);
        bool ends = dots[2] == '\0' || dots[2] == '/' || dots[2] == '\\' || dots[2] == ';' ||
                    strncasecmp(dots + 2, "%2f", 3) == 0;
        FUZZ_CHECK(!begins || !ends, "dots that another server may follow in %s", normal);
    }
}

/* Percent-encoded, a normal path is a target of the request line, and means itself. */
static void
check_encoded(const char *normal, size_t length)
{
    char *encoded = malloc(3 * length);
    bool rewritten;
    size_t again_length;

    CHECK(encoded != NULL);
    size_t encoded_length = target_encode((struct str){normal, length}, encoded);
    FUZZ_CHECK(encoded_length >= length && encoded_length <= 3 * length, "%zu bytes of %zu",
               encoded_length, length);
    for (size_t i = 0; i < encoded_length; i++) {
        char c = encoded[i];
        FUZZ_CHECK(c > ' ' && c < 0x7f && strchr("#?\"<>\\^`{|}", c) == NULL,
                   "byte %d in an encoded path", c);
    }
    char *again = malloc(encoded_length + 1);
    CHECK(again != NULL);
    const char *reason = target_normalise((struct str){encoded, encoded_length}, again,
                                          encoded_length + 1, &again_length, &rewritten);
    FUZZ_CHECK(reason == NULL, "a normal path is refused: %s", reason);
    FUZZ_CHECK(!rewritten && again_length == length && memcmp(again, normal, length) == 0,
               "%s became %s", normal, again);
    free(again);
    free(encoded);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str path = {fuzz_copy(data, size), size};
    size_t capacity = size == 0 ? 2 : size + 1;
    char *normal = malloc(capacity);
    char *wanted = malloc(size + 2);
    size_t length = SIZE_MAX;
    size_t wanted_length;
    bool rewritten = false;
    bool wanted_rewritten;

    CHECK(normal != NULL && wanted != NULL);
    memset(normal, 'x', capacity);
    if (size == 0) {
        normal[1] = '\0'; /* of the empty path only the slash is promised */
    }
    const char *reason = target_normalise(path, normal, capacity, &length, &rewritten);
    if (size > 0) {
        bool is_ok = normalise_again(path, wanted, &wanted_length, &wanted_rewritten);
        FUZZ_CHECK(reason != NULL || is_ok, "'%s' is taken, and must not be", normal);
        FUZZ_CHECK(reason == NULL || !is_ok || strstr(reason, "encoded s") != NULL,
                   "refused (%s), and is '%.*s'", reason, (int)wanted_length, wanted);
        FUZZ_CHECK(reason != NULL || (rewritten == wanted_rewritten && length == wanted_length &&
                                      memcmp(normal, wanted, length) == 0),
                   "'%s', and is '%.*s'", normal, (int)wanted_length, wanted);
    }
    if (reason == NULL) {
        check_normal(path, normal, length);
        check_encoded(normal, length);
    }
    free(wanted);
    free(normal);
    free((void *)(uintptr_t)path.ptr);
    return 0;
}
