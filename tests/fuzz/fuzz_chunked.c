/* SPDX-License-Identifier: Apache-2.0
 *
 * Chunked bodies. The input is taken twice: as what a peer sends, decoded in every way it can be
 * cut, and as data, which encoded and decoded must come back. What is accepted is read once more by
 * the laxest reader there is, who looks at nothing but the hexadecimal digits and the line ends:
 * where the two differ, a request could hide from one of them.
 */
#include "worker/http/chunked.h"

#include <stdlib.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "tests/fuzz/fuzz.h"

struct outcome {
    struct chunked_decoder decoder;
    enum chunked_result result;
    size_t consumed;
    struct buf data;
    struct chunked_trailers trailers;
};

static void
outcome_begin(struct outcome *outcome)
{
    memset(outcome, 0, sizeof(*outcome));
    memset(&outcome->decoder, 0xa5, sizeof(outcome->decoder));
    chunked_decoder_init(&outcome->decoder);
}

/* Gives the decoder the next bytes, in memory of their own, until it has used them up. */
static void
outcome_feed(struct outcome *outcome, const char *bytes, size_t length)
{
    char *in = fuzz_copy(bytes, length);
    size_t at = 0;

    do {
        struct str data = {NULL, 0};
        size_t used = 0;
        outcome->result = chunked_decode(&outcome->decoder, in + at, length - at, &used, &data);
        FUZZ_CHECK(used <= length - at, "used %zu of %zu bytes", used, length - at);
        if (outcome->result == CHUNKED_DATA) {
            FUZZ_CHECK(data.len > 0 && fuzz_inside((struct str){in + at, used}, data),
                       "data outside of what was used");
            buf_add_str(&outcome->data, data);
        }
        at += used;
    } while (outcome->result == CHUNKED_DATA);
    FUZZ_CHECK(outcome->result == CHUNKED_BAD || outcome->decoder.left <= INT64_MAX,
               "a chunk of %llu bytes", (unsigned long long)outcome->decoder.left);
    FUZZ_CHECK(outcome->result != CHUNKED_MORE || at == length, "more is wanted at %zu of %zu", at,
               length);
    FUZZ_CHECK((outcome->result == CHUNKED_BAD) == (outcome->decoder.reason != NULL),
               "result %d with reason %s", (int)outcome->result,
               outcome->decoder.reason == NULL ? "none" : outcome->decoder.reason);
    outcome->consumed += at;
    free(in);
}

/* The same trailers; written anew they are the trailers of a body, and the same. */
static void
check_trailers(const struct outcome *whole, const struct outcome *other)
{
    const struct chunked_trailers *trailers = &whole->trailers;
    struct buf written = {0};
    struct outcome again;
    struct str name;
    struct str value;
    uint32_t at = 0;

    FUZZ_CHECK(trailers->length == other->trailers.length &&
                   memcmp(trailers->bytes, other->trailers.bytes, trailers->length) == 0,
               "other trailers");
    if (whole->result != CHUNKED_END || trailers->length > CHUNKED_TRAILERS_MAX / 2) {
        return; /* written anew they may be longer: a blank after each colon */
    }
    buf_add_text(&written, "0\r\n");
    while (chunked_trailers_next(trailers, &at, &name, &value)) {
        buf_addf(&written, "%.*s: %.*s\r\n", STR_ARG(name), STR_ARG(value));
    }
    FUZZ_CHECK(at == trailers->length, "trailers end at %u of %u", at, trailers->length);
    buf_add_text(&written, "\r\n");
    outcome_begin(&again);
    again.decoder.trailers = &again.trailers;
    outcome_feed(&again, written.ptr, written.len);
    FUZZ_CHECK(again.result == CHUNKED_END && again.consumed == written.len,
               "written anew the trailers are refused: %s",
               again.decoder.reason == NULL ? "no reason" : again.decoder.reason);
    FUZZ_CHECK(again.trailers.length == written.len - 5 &&
                   memcmp(again.trailers.bytes, written.ptr + 3, again.trailers.length) == 0,
               "written anew the trailers are others");
    buf_release(&written);
    buf_release(&again.data);
}

static void
must_agree(const struct outcome *whole, const struct outcome *other, const char *what)
{
    FUZZ_CHECK(whole->result == other->result && whole->consumed == other->consumed &&
                   whole->decoder.reason == other->decoder.reason,
               "%s: result %d (%s) after %zu bytes, whole it is %d (%s) after %zu", what,
               (int)other->result, other->decoder.reason == NULL ? "" : other->decoder.reason,
               other->consumed, (int)whole->result,
               whole->decoder.reason == NULL ? "" : whole->decoder.reason, whole->consumed);
    FUZZ_CHECK(whole->data.len == other->data.len &&
                   (whole->data.len == 0 ||
                    memcmp(whole->data.ptr, other->data.ptr, whole->data.len) == 0),
               "%s: other data", what);
}

/* Reads as the laxest would. */
static void
check_lax(const char *in, const struct outcome *outcome)
{
    size_t length = outcome->consumed;
    size_t at = 0;
    size_t data = 0;

    for (;;) {
        char *end;
        FUZZ_CHECK(at < length && in[at] != '+' && in[at] != '-' && in[at] != ' ', "no size at %zu",
                   at);
        char digits[CHUNKED_LINE_MAX + 1] = {0};
        memcpy(digits, in + at, length - at < CHUNKED_LINE_MAX ? length - at : CHUNKED_LINE_MAX);
        unsigned long long size = strtoull(digits, &end, 16);
        FUZZ_CHECK(end > digits && memchr("\r;\t ", *end, 4) != NULL, "a bad size at %zu", at);
        const char *line_end = memmem(in + at, length - at, "\r\n", 2);
        FUZZ_CHECK(line_end != NULL && memchr(in + at, '\n', (size_t)(line_end - in) - at) == NULL,
                   "a size line without CRLF at %zu", at);
        at = (size_t)(line_end - in) + 2;
        if (size == 0) {
            break;
        }
        FUZZ_CHECK(size <= length - at && size <= outcome->data.len - data &&
                       memcmp(in + at, outcome->data.ptr + data, size) == 0,
                   "other data at %zu", at);
        at += size;
        data += size;
        FUZZ_CHECK(length - at >= 2 && memcmp(in + at, "\r\n", 2) == 0,
                   "data without CRLF at its end at %zu", at);
        at += 2;
    }
    FUZZ_CHECK(data == outcome->data.len, "%zu bytes of data, not %zu", outcome->data.len, data);
    /* Trailers end at the first empty line. */
    while (length - at < 2 || memcmp(in + at, "\r\n", 2) != 0) {
        const char *line_end = memmem(in + at, length - at, "\r\n", 2);
        FUZZ_CHECK(line_end != NULL, "a trailer without CRLF at %zu", at);
        at = (size_t)(line_end - in) + 2;
    }
    FUZZ_CHECK(at + 2 == length, "the body ends at %zu, not at %zu", length, at + 2);
}

static void
check_decoding(const char *in, size_t size, const struct fuzz_cuts *cuts)
{
    struct outcome whole;
    struct outcome other;
    size_t at = 0;

    outcome_begin(&whole);
    whole.decoder.trailers = &whole.trailers;
    outcome_feed(&whole, in, size);

    outcome_begin(&other);
    other.decoder.trailers = &other.trailers;
    do {
        outcome_feed(&other, in + at, at < size ? 1 : 0);
    } while (other.result == CHUNKED_MORE && at++ < size);
    must_agree(&whole, &other, "byte by byte");
    check_trailers(&whole, &other);
    buf_release(&other.data);

    outcome_begin(&other);
    at = 0;
    for (size_t i = 0; i <= FUZZ_CUTS && other.result == CHUNKED_MORE; i++) {
        size_t end = i < FUZZ_CUTS ? cuts->at[i] : size;
        outcome_feed(&other, in + at, end - at);
        at = end;
    }
    must_agree(&whole, &other, "in pieces");
    buf_release(&other.data);

    if (whole.result == CHUNKED_END) {
        check_lax(in, &whole);
    }
    if (whole.result != CHUNKED_MORE) {
        /* It is over, and what follows is none of its business. */
        struct outcome after = whole;
        after.consumed = 0;
        outcome_feed(&after, "0\r\n\r\n", 5);
        FUZZ_CHECK(after.result == whole.result && after.consumed == 0, "it went on after its end");
    }
    buf_release(&whole.data);
}

/* What chunk_head() frames, the decoder gives back. */
static void
check_encoding(const char *data, size_t size, const struct fuzz_cuts *cuts)
{
    struct buf body = {0};
    struct outcome outcome;
    size_t at = 0;

    for (size_t i = 0; i <= FUZZ_CUTS; i++) {
        size_t end = i < FUZZ_CUTS ? cuts->at[i] : size;
        char head[CHUNK_HEAD_MAX];
        if (end > at) {
            buf_add(&body, head, chunk_head(head, end - at));
            buf_add(&body, data + at, end - at);
            buf_add_text(&body, "\r\n");
        }
        at = end;
    }
    buf_add_text(&body, "0\r\n\r\n");
    outcome_begin(&outcome);
    outcome_feed(&outcome, body.ptr, body.len);
    FUZZ_CHECK(outcome.result == CHUNKED_END && outcome.consumed == body.len,
               "our own chunks are refused: %s",
               outcome.decoder.reason == NULL ? "no reason" : outcome.decoder.reason);
    FUZZ_CHECK(outcome.data.len == size && (size == 0 || memcmp(outcome.data.ptr, data, size) == 0),
               "other data came back");
    buf_release(&outcome.data);
    buf_release(&body);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_cuts cuts = fuzz_cuts_of(data, size);
    char *in = fuzz_copy(data, size);

    check_decoding(in, size, &cuts);
    check_encoding(in, size, &cuts);
    free(in);
    return 0;
}
