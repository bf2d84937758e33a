/* SPDX-License-Identifier: Apache-2.0
 *
 * The path of a target in the form that routes are compared with and files are looked up by:
 * percent-decoded exactly once, dot segments removed (RFC 3986 section 5.2.4), runs of '/' merged.
 *
 * "%2F" is not decoded: a slash that was written as data does not become a separator. Refused: a
 * bad percent escape, an encoded NUL or control byte, dot segments that climb above the root, a
 * "%2F" that would only come about by decoding ("%25%32F").
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "config/base/str.h"

/* Writes the normal form of path (which begins with '/', or is empty for "/") to out, of which
 * capacity must be at least path.len + 1, and its length to *ret_length. Returns NULL, or why the
 * path is refused (400), a constant. *ret_rewritten: dot segments or double slashes were removed,
 * so that passing the path on as it came would show another path than the one that was routed. */
const char *target_normalise(struct str path, char *out, size_t capacity, size_t *ret_length,
                             bool *ret_rewritten);

/* Percent-encodes a normal path for a request line or a Location: all but unreserved, sub-delims,
 * ':', '@' and '/'; "%2F" stays. Needs 3 * path.len bytes at out; returns the length. */
size_t target_encode(struct str path, char *out);
