/* SPDX-License-Identifier: Apache-2.0
 *
 * Writing JSON (RFC 8259) into a buffer, without the commas being anybody's business. What is
 * written is ASCII and UTF-8, whatever the texts were. Pure; runs in the master.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct buf;

/* Members begin with their key; elements of arrays have key NULL. The comma before a value is put
 * when something other than an opening bracket stands before it. */
void json_open(struct buf *out, const char *key, char bracket); /* '{' or '[' */
void json_close(struct buf *out, char bracket);                 /* '}' or ']' */
void json_text(struct buf *out, const char *key, const char *text);
void json_number(struct buf *out, const char *key, int64_t number);
void json_bool(struct buf *out, const char *key, bool value);
void json_none(struct buf *out, const char *key); /* null; jansson.h has the other name */
