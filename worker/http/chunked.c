/* SPDX-License-Identifier: Apache-2.0
 *
 * Decoder of the chunked transfer coding. Runs in worker processes.
 *
 *   SIZE_START -> SIZE -> [extensions] -> SIZE_LF -> DATA -> DATA_CR -> DATA_LF -> SIZE_START
 *                                           | size 0
 *                                           v
 *                  TRAILER_START -> TRAILER_NAME -> TRAILER_VALUE -> TRAILER_LF -> TRAILER_START
 *                    | CR
 *                    v
 *                  END_LF -> END                                        any of them -> BAD
 *
 * Data is passed over in one step; only what lies between is read byte by byte. Every laxness here
 * (bare LF, white space after the size, garbage for an extension, a sign) was used to make two
 * servers see different requests, so the grammar of RFC 9112 section 7.1 is kept to the letter.
 */
#include "worker/http/chunked.h"

#include <stdbool.h>

#include "worker/http/char_class.h"

/* RFC 9112 section 7.1.1: chunk-ext = *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted ) ] ) */
enum chunked_state {
    CHUNKED_SIZE_START = 0,
    CHUNKED_SIZE,
    CHUNKED_EXT_BEFORE,     /* white space after a size or a value: only ";" may follow */
    CHUNKED_EXT_NAME_START, /* after ";" */
    CHUNKED_EXT_NAME,
    CHUNKED_EXT_AFTER_NAME, /* white space after a name: "=" or ";" must follow */
    CHUNKED_EXT_VALUE_START,
    CHUNKED_EXT_VALUE,
    CHUNKED_EXT_QUOTED,
    CHUNKED_EXT_ESCAPE,
    CHUNKED_EXT_QUOTED_END,
    CHUNKED_SIZE_LF,
    CHUNKED_IN_DATA,
    CHUNKED_DATA_CR,
    CHUNKED_DATA_LF,
    CHUNKED_TRAILER_START,
    CHUNKED_TRAILER_NAME,
    CHUNKED_TRAILER_VALUE,
    CHUNKED_TRAILER_LF,
    CHUNKED_END_LF,
    CHUNKED_ENDED,
    CHUNKED_FAILED,
};

void
chunked_decoder_init(struct chunked_decoder *decoder)
{
    *decoder = (struct chunked_decoder){.state = CHUNKED_SIZE_START};
}

static __attribute__((cold, noinline)) bool
refuse(struct chunked_decoder *decoder, const char *reason)
{
    decoder->state = CHUNKED_FAILED;
    decoder->reason = reason;
    return false;
}

static __attribute__((cold, noinline)) bool
refuse_after(struct chunked_decoder *decoder, char c, const char *reason)
{
    return refuse(decoder, c == '\n' ? "a bare LF in a chunk size line" : reason);
}

static bool
step_to(struct chunked_decoder *decoder, enum chunked_state state)
{
    decoder->state = (uint8_t)state;
    return true;
}

static bool
read_size_digit(struct chunked_decoder *decoder, int digit)
{
    /* Not above INT64_MAX: lengths become an off_t, and sums of them must not wrap. */
    if (decoder->left > ((uint64_t)INT64_MAX >> 4)) {
        return refuse(decoder, "a chunk size that is too large for any machine");
    }
    decoder->left = (decoder->left << 4) | (uint64_t)digit;
    return step_to(decoder, CHUNKED_SIZE);
}

/* After a complete size, name or value: what may follow each of them alike. */
static bool
read_after_part(struct chunked_decoder *decoder, char c, enum chunked_state if_blank,
                const char *reason)
{
    if (c == '\r') {
        return step_to(decoder, CHUNKED_SIZE_LF);
    }
    if (c == ';') {
        return step_to(decoder, CHUNKED_EXT_NAME_START);
    }
    if (char_is_blank(c)) {
        return step_to(decoder, if_blank);
    }
    return refuse_after(decoder, c, reason);
}

static bool
end_size_line(struct chunked_decoder *decoder)
{
    /* A chunk per byte and an extension per chunk would make a body cost many times its length.
     * Each byte of data pays for two of framing, each line has 16 free; what remains adds up. */
    uint32_t cost = decoder->line_bytes + 2;
    uint64_t paid = 16 + 2 * (decoder->left < CHUNKED_EXCESS_MAX ? decoder->left
                                                                 : (uint64_t)CHUNKED_EXCESS_MAX);

    decoder->excess += cost;
    decoder->excess -= decoder->excess < paid ? decoder->excess : (uint32_t)paid;
    if (decoder->excess > CHUNKED_EXCESS_MAX) {
        return refuse(decoder, "a chunked body with far more framing than data");
    }
    decoder->line_bytes = 0;
    return step_to(decoder, decoder->left > 0 ? CHUNKED_IN_DATA : CHUNKED_TRAILER_START);
}

/* The size line, from its first digit to its LF. */
static bool
read_size_line(struct chunked_decoder *decoder, char c)
{
    int digit;

    if (++decoder->line_bytes > CHUNKED_LINE_MAX) {
        return refuse(decoder, "a chunk size line of more than 256 bytes");
    }
    switch ((enum chunked_state)decoder->state) {
    case CHUNKED_SIZE_START:
        digit = char_hex_value(c);
        return digit >= 0 ? read_size_digit(decoder, digit)
                          : refuse_after(decoder, c, "a chunk size without a hexadecimal digit");
    case CHUNKED_SIZE:
        digit = char_hex_value(c);
        return digit >= 0 ? read_size_digit(decoder, digit)
                          : read_after_part(decoder, c, CHUNKED_EXT_BEFORE,
                                            "a byte that may not follow a chunk size");
    case CHUNKED_EXT_BEFORE:
        if (char_is_blank(c)) {
            return true;
        }
        /* BWS belongs to the ";" behind it: "5 \r\n" is no chunk size. */
        return c == ';' ? step_to(decoder, CHUNKED_EXT_NAME_START)
                        : refuse_after(decoder, c, "white space after a chunk size");
    case CHUNKED_EXT_NAME_START:
        if (char_is_blank(c)) {
            return true;
        }
        return char_is(c, CHAR_TOKEN)
                   ? step_to(decoder, CHUNKED_EXT_NAME)
                   : refuse_after(decoder, c, "a chunk extension without a name");
    case CHUNKED_EXT_NAME:
        if (char_is(c, CHAR_TOKEN)) {
            return true;
        }
        return c == '=' ? step_to(decoder, CHUNKED_EXT_VALUE_START)
                        : read_after_part(decoder, c, CHUNKED_EXT_AFTER_NAME,
                                          "a malformed chunk extension");
    case CHUNKED_EXT_AFTER_NAME:
        if (char_is_blank(c)) {
            return true;
        }
        if (c == '=') {
            return step_to(decoder, CHUNKED_EXT_VALUE_START);
        }
        return c == ';' ? step_to(decoder, CHUNKED_EXT_NAME_START)
                        : refuse_after(decoder, c, "a malformed chunk extension");
    case CHUNKED_EXT_VALUE_START:
        if (char_is_blank(c)) {
            return true;
        }
        if (c == '"') {
            return step_to(decoder, CHUNKED_EXT_QUOTED);
        }
        return char_is(c, CHAR_TOKEN) ? step_to(decoder, CHUNKED_EXT_VALUE)
                                      : refuse_after(decoder, c, "a malformed chunk extension");
    case CHUNKED_EXT_VALUE:
        return char_is(c, CHAR_TOKEN) ||
               read_after_part(decoder, c, CHUNKED_EXT_BEFORE, "a malformed chunk extension");
    case CHUNKED_EXT_QUOTED:
        if (c == '"') {
            return step_to(decoder, CHUNKED_EXT_QUOTED_END);
        }
        if (c == '\\') {
            return step_to(decoder, CHUNKED_EXT_ESCAPE);
        }
        return char_is(c, CHAR_VALUE) ||
               refuse_after(decoder, c, "a control byte in a chunk extension");
    case CHUNKED_EXT_ESCAPE:
        return char_is(c, CHAR_VALUE)
                   ? step_to(decoder, CHUNKED_EXT_QUOTED)
                   : refuse_after(decoder, c, "a control byte in a chunk extension");
    case CHUNKED_EXT_QUOTED_END:
        return read_after_part(decoder, c, CHUNKED_EXT_BEFORE, "a malformed chunk extension");
    case CHUNKED_SIZE_LF:
        return c == '\n' ? end_size_line(decoder)
                         : refuse(decoder, "a bare CR in a chunk size line");
    case CHUNKED_IN_DATA:
    case CHUNKED_DATA_CR:
    case CHUNKED_DATA_LF:
    case CHUNKED_TRAILER_START:
    case CHUNKED_TRAILER_NAME:
    case CHUNKED_TRAILER_VALUE:
    case CHUNKED_TRAILER_LF:
    case CHUNKED_END_LF:
    case CHUNKED_ENDED:
    case CHUNKED_FAILED:
        break;
    }
    return refuse(decoder, "a chunked decoder in no state");
}

/* RFC 9110 section 6.5.1: fields that frame or route the message MUST NOT come as trailers.
 * Everybody drops them in silence or takes them at their word; here the message ends. */
static bool
trailer_is_forbidden(const struct chunked_decoder *decoder)
{
    struct str name = {decoder->name, decoder->name_length};

    return str_equal(name, STR("content-length")) || str_equal(name, STR("transfer-encoding")) ||
           str_equal(name, STR("host")) || str_equal(name, STR("connection")) ||
           str_equal(name, STR("upgrade"));
}

static void
remember_name_byte(struct chunked_decoder *decoder, char c)
{
    if (decoder->name_length < sizeof(decoder->name)) {
        decoder->name[decoder->name_length++] = c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
    }
}

/* Every byte that is kept is one of the line_bytes that are bounded. */
static void
keep_trailer_byte(struct chunked_trailers *trailers, char c, bool ends_line)
{
    trailers->bytes[trailers->end++] = c;
    if (ends_line) {
        trailers->length = trailers->end;
    }
}

bool
chunked_trailers_next(const struct chunked_trailers *trailers, uint32_t *at, struct str *ret_name,
                      struct str *ret_value)
{
    if (*at >= trailers->length) {
        return false;
    }
    const char *line = trailers->bytes + *at;
    const char *colon = memchr(line, ':', trailers->length - *at);
    const char *end = memchr(colon, '\r', (size_t)(trailers->bytes + trailers->length - colon));

    *at = (uint32_t)(end + 2 - trailers->bytes);
    *ret_name = (struct str){line, (size_t)(colon - line)};
    for (colon++; colon < end && char_is_blank(*colon); colon++) {
    }
    while (end > colon && char_is_blank(end[-1])) {
        end--;
    }
    *ret_value = (struct str){colon, (size_t)(end - colon)};
    return true;
}

static bool
read_trailer_byte(struct chunked_decoder *decoder, char c)
{
    if (++decoder->line_bytes > CHUNKED_TRAILERS_MAX) {
        return refuse(decoder, "more than 8192 bytes of trailers");
    }
    switch ((enum chunked_state)decoder->state) {
    case CHUNKED_TRAILER_START:
        if (c == '\r') {
            return step_to(decoder, CHUNKED_END_LF);
        }
        if (!char_is(c, CHAR_TOKEN)) {
            return refuse(decoder, char_is_blank(c)
                                       ? "a trailer line that begins with white space (obs-fold)"
                                       : "a byte that may not begin a trailer name");
        }
        decoder->name_length = 0;
        remember_name_byte(decoder, c);
        return step_to(decoder, CHUNKED_TRAILER_NAME);
    case CHUNKED_TRAILER_NAME:
        if (char_is(c, CHAR_TOKEN)) {
            remember_name_byte(decoder, c);
            return true;
        }
        if (c != ':') {
            return refuse(decoder, "a byte that may not stand in a trailer name");
        }
        return trailer_is_forbidden(decoder)
                   ? refuse(decoder, "a trailer that would frame or route the message")
                   : step_to(decoder, CHUNKED_TRAILER_VALUE);
    case CHUNKED_TRAILER_VALUE:
        if (char_is(c, CHAR_VALUE)) {
            return true;
        }
        return c == '\r' ? step_to(decoder, CHUNKED_TRAILER_LF)
                         : refuse(decoder, c == '\n' ? "a bare LF in a trailer"
                                                     : "a control byte in a trailer");
    case CHUNKED_TRAILER_LF:
        return c == '\n' ? step_to(decoder, CHUNKED_TRAILER_START)
                         : refuse(decoder, "a bare CR in a trailer");
    case CHUNKED_END_LF:
        return c == '\n' ? step_to(decoder, CHUNKED_ENDED)
                         : refuse(decoder, "a bare CR at the end of a chunked body");
    case CHUNKED_SIZE_START:
    case CHUNKED_SIZE:
    case CHUNKED_EXT_BEFORE:
    case CHUNKED_EXT_NAME_START:
    case CHUNKED_EXT_NAME:
    case CHUNKED_EXT_AFTER_NAME:
    case CHUNKED_EXT_VALUE_START:
    case CHUNKED_EXT_VALUE:
    case CHUNKED_EXT_QUOTED:
    case CHUNKED_EXT_ESCAPE:
    case CHUNKED_EXT_QUOTED_END:
    case CHUNKED_SIZE_LF:
    case CHUNKED_IN_DATA:
    case CHUNKED_DATA_CR:
    case CHUNKED_DATA_LF:
    case CHUNKED_ENDED:
    case CHUNKED_FAILED:
        break;
    }
    return refuse(decoder, "a chunked decoder in no state");
}

static bool
read_trailer(struct chunked_decoder *decoder, char c)
{
    enum chunked_state before = (enum chunked_state)decoder->state;

    if (!read_trailer_byte(decoder, c)) {
        return false;
    }
    if (decoder->trailers != NULL && before != CHUNKED_END_LF && decoder->state != CHUNKED_END_LF) {
        keep_trailer_byte(decoder->trailers, c, before == CHUNKED_TRAILER_LF);
    }
    return true;
}

static bool
read_between(struct chunked_decoder *decoder, char c)
{
    switch ((enum chunked_state)decoder->state) {
    case CHUNKED_DATA_CR:
        return c == '\r' ? step_to(decoder, CHUNKED_DATA_LF)
                         : refuse(decoder, "chunk data that is longer than its size says");
    case CHUNKED_DATA_LF:
        return c == '\n' ? step_to(decoder, CHUNKED_SIZE_START)
                         : refuse(decoder, "a bare CR after chunk data");
    case CHUNKED_TRAILER_START:
    case CHUNKED_TRAILER_NAME:
    case CHUNKED_TRAILER_VALUE:
    case CHUNKED_TRAILER_LF:
    case CHUNKED_END_LF:
        return read_trailer(decoder, c);
    default:
        return read_size_line(decoder, c);
    }
}

enum chunked_result
chunked_decode(struct chunked_decoder *decoder, const char *in, size_t len, size_t *ret_consumed,
               struct str *ret_data)
{
    size_t at = 0;

    while (decoder->state != CHUNKED_ENDED) {
        if (decoder->state == CHUNKED_FAILED) {
            *ret_consumed = at;
            return CHUNKED_BAD;
        }
        if (at == len) {
            *ret_consumed = at;
            return CHUNKED_MORE;
        }
        if (decoder->state == CHUNKED_IN_DATA) {
            size_t piece = len - at < decoder->left ? len - at : (size_t)decoder->left;

            *ret_data = (struct str){in + at, piece};
            *ret_consumed = at + piece;
            decoder->left -= piece;
            if (decoder->left == 0) {
                decoder->state = CHUNKED_DATA_CR;
            }
            return CHUNKED_DATA;
        }
        if (read_between(decoder, in[at])) {
            at++;
        }
    }
    *ret_consumed = at;
    return CHUNKED_END;
}

size_t
chunk_head(char out[CHUNK_HEAD_MAX], size_t data_length)
{
    static const char digits[] = "0123456789abcdef";
    size_t at = 0;
    int shift = 60;

    while (shift > 0 && ((uint64_t)data_length >> shift) == 0) {
        shift -= 4;
    }
    for (; shift >= 0; shift -= 4) {
        out[at++] = digits[((uint64_t)data_length >> shift) & 0xf];
    }
    out[at++] = '\r';
    out[at++] = '\n';
    return at;
}
