/* SPDX-License-Identifier: Apache-2.0
 *
 * Where characters of UTF-8 begin and end, in text that may be anything. Pure; runs in every
 * process.
 */
#pragma once

#include <stddef.h>

/* Length of the sequence of more than one byte that p begins with (RFC 3629: the shortest form, no
 * surrogates, nothing above U+10FFFF), or 0; left is not 0. */
size_t utf8_length(const unsigned char *p, size_t left);
