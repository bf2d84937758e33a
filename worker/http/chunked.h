/* SPDX-License-Identifier: Apache-2.0
 *
 * Decoder of the chunked transfer coding (RFC 9112 section 7.1). Pure, incremental, strict: CRLF
 * only, hexadecimal sizes without sign or overflow, extensions by their grammar and bounded,
 * trailer fields checked as header fields are, bounded, and dropped unless the caller keeps them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/base/str.h"

enum chunked_result { CHUNKED_MORE = 0, CHUNKED_DATA, CHUNKED_END, CHUNKED_BAD };

/* Longest size line with its extensions, all trailers together, and what the size lines of a body
 * may cost above its data. */
#define CHUNKED_LINE_MAX 256
#define CHUNKED_TRAILERS_MAX 8192
#define CHUNKED_EXCESS_MAX 16384

/* Trailer fields as lines, each with its CRLF; the fields' grammar is checked, no more. */
struct chunked_trailers {
    uint32_t length; /* of the whole lines */
    uint32_t end;    /* with the line that is being read */
    char bytes[CHUNKED_TRAILERS_MAX];
};

struct chunked_decoder {
    uint8_t state;
    uint8_t name_length; /* of the trailer name so far, as far as it fits in name */
    char name[18];       /* in lower case; long enough for every name that is looked for, and one */
    uint64_t left;       /* data bytes of the current chunk still to come */
    uint32_t line_bytes; /* of the size line or of all trailers so far, for the limits */
    uint32_t excess;     /* bytes of size lines beyond what their data justifies */
    const char *reason;  /* after CHUNKED_BAD */
    struct chunked_trailers *trailers; /* borrowed; NULL, as init sets it: they are dropped */
};

void chunked_decoder_init(struct chunked_decoder *decoder);
/* Looks at in[0..len), sets *ret_consumed to the bytes used up, and returns
 * CHUNKED_DATA  *ret_data is the next piece of the body, inside in; call again with the rest
 * CHUNKED_MORE  everything was used, more is needed
 * CHUNKED_END   the body and its trailers ended; what follows is the next message
 * CHUNKED_BAD   decoder->reason says why; the connection cannot go on */
enum chunked_result chunked_decode(struct chunked_decoder *decoder, const char *in, size_t len,
                                   size_t *ret_consumed, struct str *ret_data);

/* The next trailer field of what was kept, from *at on (0 at first), without the white space around
 * its value; false: there is none left. */
bool chunked_trailers_next(const struct chunked_trailers *trailers, uint32_t *at,
                           struct str *ret_name, struct str *ret_value);

/* Writes the size line of a chunk ("1f4\r\n") and returns its length. */
#define CHUNK_HEAD_MAX 20
size_t chunk_head(char out[CHUNK_HEAD_MAX], size_t data_length);
