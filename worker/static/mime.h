/* SPDX-License-Identifier: Apache-2.0
 *
 * Media types by file name extension, from mime.def.
 */
#pragma once

#include "config/base/str.h"

#define MIME_DEFAULT "application/octet-stream"

/* The media type for the extension of the last segment of path, in any case; MIME_DEFAULT without
 * a known one. A constant, never NULL. */
const char *mime_type_of(struct str path);
