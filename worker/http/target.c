/* SPDX-License-Identifier: Apache-2.0
 *
 * Normal form of paths. Runs in worker processes.
 *
 * The order is the point: every escape is decoded once and only then are segments looked at, so
 * that "%2e%2e" is what ".." is, and "%252e" is not. Two escapes survive, because decoding them
 * would change what the path means: "%2F" (data, no separator) and any "%25..." that would become
 * one ("%252F" must not turn into "%2F", or a second decoder behind us would see a separator that
 * the client never sent). So the normal form can be told from every other path's, and
 * target_encode() gives back the path that came.
 */
#include "worker/http/target.h"

#include <stdint.h>

#include "config/base/check.h"
#include "worker/http/char_class.h"

/* Length of "%2F", "%252F", "%25252F" ... at p; 0 when there is none. */
static size_t
slash_escape_length(const char *p, const char *end)
{
    const char *at = p + 1;

    if (p == end || *p != '%') {
        return 0;
    }
    while (end - at >= 2 && at[0] == '2' && at[1] == '5') {
        at += 2;
    }
    if (end - at >= 2 && at[0] == '2' && (at[1] | 0x20) == 'f') {
        return (size_t)(at + 2 - p);
    }
    return 0;
}

/* Whether what begins at p ends a name for somebody: "%2F" for a server that decodes it, '\' for
 * one on Windows, ';' for one that cuts path parameters off (Tomcat's "..;/"). */
static bool
is_foreign_separator(const char *p, const char *end)
{
    return p < end && (*p == '\\' || *p == ';' || slash_escape_length(p, end) > 0);
}

/* A decoded segment in which somebody behind us could find a dot segment that we do not: it would
 * lead out of the route that was chosen. No honest client writes one. */
static bool
segment_hides_dots(const char *segment, const char *end)
{
    const char *part = segment;

    for (const char *p = segment;; p++) {
        if (p < end && !is_foreign_separator(p, end)) {
            continue;
        }
        size_t length = (size_t)(p - part);
        bool has_separators = p < end || part > segment;
        if (has_separators && (length == 1 || length == 2) && part[0] == '.' &&
            part[length - 1] == '.') {
            return true;
        }
        if (p >= end) {
            return false;
        }
        if (*p == '%') {
            p += slash_escape_length(p, end) - 1;
        }
        part = p + 1;
    }
}

static size_t
count_slash_escapes(const char *p, const char *end)
{
    size_t count = 0;

    for (; (p = memchr(p, '%', (size_t)(end - p))) != NULL; p++) {
        count += slash_escape_length(p, end) > 0 ? 1 : 0;
    }
    return count;
}

/* Decodes one segment, from in up to the next '/', to out. */
static const char *
decode_segment(const char **in, const char *end, char **out)
{
    const char *p = *in;
    char *o = *out;
    size_t kept_count = 0;
    bool has_percent = false; /* a '%' that was decoded */

    while (p < end && *p != '/') {
        char c = *p;
        if (c != '%') {
            p++;
        } else {
            size_t kept = slash_escape_length(p, end);
            if (kept > 0) {
                memcpy(o, p, kept);
                o += kept;
                o[-1] = 'F';
                p += kept;
                kept_count++;
                continue;
            }
            int high = end - p >= 3 ? char_hex_value(p[1]) : -1;
            int low = end - p >= 3 ? char_hex_value(p[2]) : -1;
            if (high < 0 || low < 0) {
                return "a percent escape that is not two hexadecimal digits in the path";
            }
            c = (char)(high << 4 | low);
            p += 3;
            has_percent |= c == '%';
        }
        if (c == '\0') {
            return "a NUL in the path";
        }
        if ((unsigned char)c < 0x20 || c == 0x7f) {
            return "a control byte in the path";
        }
        *o++ = c;
    }
    /* "%25%32F" is "%252F" in disguise. No client has a reason to escape a digit. */
    if (has_percent && count_slash_escapes(*out, o) > kept_count) {
        return "a percent sign that would begin an encoded slash in the path";
    }
    *in = p;
    *out = o;
    return NULL;
}

const char *
target_normalise(struct str path, char *out, size_t capacity, size_t *ret_length,
                 bool *ret_rewritten)
{
    const char *p = path.ptr;
    const char *end = p + path.len;
    char *o = out;

    CHECK(capacity > path.len);
    *ret_rewritten = false;
    *ret_length = 0;
    if (path.len == 0) {
        out[0] = '/';
        *ret_length = 1;
        return NULL;
    }
    if (*p != '/') {
        return "a path that does not begin with a slash";
    }
    /* Invariant: out is normal, and o is behind a '/' whenever a segment begins. */
    while (p < end) {
        p++; /* the '/' */
        if (o == out || o[-1] != '/') {
            *o++ = '/';
        }
        char *segment = o;
        const char *reason = decode_segment(&p, end, &o);
        if (reason != NULL) {
            return reason;
        }
        size_t length = (size_t)(o - segment);
        if (length == 0) {
            *ret_rewritten |= p < end; /* "//"; the empty segment at the end is just "/" */
        } else if (length == 1 && segment[0] == '.') {
            *ret_rewritten = true;
            o = segment;
        } else if (length == 2 && segment[0] == '.' && segment[1] == '.') {
            *ret_rewritten = true;
            /* RFC 3986 section 5.2.4 would stay at the root; who climbs above it is no browser. */
            if (segment == out + 1) {
                return "a path that climbs above the root";
            }
            o = segment - 1;
            while (o[-1] != '/') {
                o--;
            }
        } else if (segment_hides_dots(segment, o)) {
            return "a dot segment beside an encoded separator in the path";
        }
    }
    *o = '\0'; /* there is room: nothing above makes a path longer */
    *ret_length = (size_t)(o - out);
    return NULL;
}

size_t
target_encode(struct str path, char *out)
{
    static const char digits[] = "0123456789ABCDEF";
    const char *p = path.ptr;
    const char *end = p + path.len;
    char *o = out;

    while (p < end) {
        if (char_is(*p, CHAR_PATH)) {
            *o++ = *p++;
            continue;
        }
        size_t kept = slash_escape_length(p, end);
        if (kept > 0) {
            memcpy(o, p, kept);
            o += kept;
            p += kept;
            continue;
        }
        unsigned char byte = (unsigned char)*p++;
        *o++ = '%';
        *o++ = digits[byte >> 4];
        *o++ = digits[byte & 0xf];
    }
    return (size_t)(o - out);
}
