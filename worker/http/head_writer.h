/* SPDX-License-Identifier: Apache-2.0
 *
 * Writes a message head into memory of a fixed size. Running out of room is remembered, not
 * written over: check head_writer_ok() at the end. Values must be free of CR, LF and NUL; those
 * that were parsed are, and head_put_field() CHECKs it in debug builds.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/base/str.h"

struct head_writer {
    char *start;
    char *pos;
    char *end;
    bool overflow;
};

void head_writer_init(struct head_writer *writer, char *out, size_t capacity);
bool head_writer_ok(const struct head_writer *writer);
size_t head_writer_length(const struct head_writer *writer);

/* "HTTP/1.1 200 OK\r\n"; reason may be empty for the standard phrase. */
void head_put_status_line(struct head_writer *writer, int status, struct str reason);
/* Raw bytes. */
void head_put(struct head_writer *writer, struct str bytes);
/* "name: value\r\n". */
void head_put_field(struct head_writer *writer, struct str name, struct str value);
void head_put_number_field(struct head_writer *writer, struct str name, uint64_t value);
/* Decimal digits alone. */
void head_put_number(struct head_writer *writer, uint64_t value);
/* The empty line. */
void head_put_end(struct head_writer *writer);
