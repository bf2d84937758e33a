/* SPDX-License-Identifier: Apache-2.0
 *
 * The chunked coding: each body whole, split at every byte and byte by byte, against guard pages,
 * with the same result.
 */
#include "support.h"
#include "worker/http/chunked.h"

struct outcome {
    enum chunked_result result;
    const char *reason;
    size_t used;
    size_t length;
    char body[4096];
};

/* Decodes what is there of bytes[0..length) after `at`, adding to outcome. */
static void
decode(struct chunked_decoder *decoder, struct outcome *outcome, const char *bytes, size_t length)
{
    const char *in = guarded_at_end(bytes, length);
    size_t at = 0;

    do {
        struct str data = {NULL, 0};
        size_t used = SIZE_MAX;
        outcome->result = chunked_decode(decoder, in + at, length - at, &used, &data);
        cr_assert(used <= length - at, "more was used than there was");
        at += used;
        if (outcome->result == CHUNKED_DATA) {
            cr_assert(data.len > 0, "an empty piece of data");
            cr_assert(data.ptr >= in && data.ptr + data.len == in + at, "data outside the input");
            cr_assert(outcome->length + data.len <= sizeof(outcome->body));
            memcpy(outcome->body + outcome->length, data.ptr, data.len);
            outcome->length += data.len;
        }
    } while (outcome->result == CHUNKED_DATA);
    if (outcome->result == CHUNKED_MORE) {
        cr_assert_eq(at, length, "not everything was used");
    }
    outcome->used += at;
    outcome->reason = decoder->reason;
}

static void
outcome_must_equal(const struct outcome *wanted, const struct outcome *got, const char *how,
                   size_t at, const char *bytes, size_t length)
{
    cr_assert(wanted->result == got->result && wanted->reason == got->reason &&
                  wanted->used == got->used && wanted->length == got->length &&
                  memcmp(wanted->body, got->body, wanted->length) == 0,
              "%s %zu: result %d (%s) after %zu bytes, not %d (%s) after %zu: %s", how, at,
              got->result, got->reason, got->used, wanted->result, wanted->reason, wanted->used,
              printable(bytes, length));
}

static void
decode_in_every_way(struct outcome *ret, const char *bytes, size_t length)
{
    struct chunked_decoder decoder;
    static struct outcome other;

    *ret = (struct outcome){.result = CHUNKED_MORE};
    chunked_decoder_init(&decoder);
    decode(&decoder, ret, bytes, length);

    for (size_t split = 0; split <= length; split++) {
        other = (struct outcome){.result = CHUNKED_MORE};
        chunked_decoder_init(&decoder);
        decode(&decoder, &other, bytes, split);
        if (other.result == CHUNKED_MORE) {
            decode(&decoder, &other, bytes + split, length - split);
        }
        outcome_must_equal(ret, &other, "split at", split, bytes, length);
    }
    other = (struct outcome){.result = CHUNKED_MORE};
    chunked_decoder_init(&decoder);
    for (size_t at = 0; at < length && other.result == CHUNKED_MORE; at++) {
        decode(&decoder, &other, bytes + at, 1);
    }
    outcome_must_equal(ret, &other, "byte by byte", 0, bytes, length);
}

Test(chunked, bodies_are_decoded)
{
    static const struct {
        const char *text;
        const char *body;
        size_t after; /* bytes behind the end */
    } rows[] = {
        {"0\r\n\r\n", "", 0},
        {"000\r\n\r\n", "", 0},
        {"5\r\nhello\r\n0\r\n\r\n", "hello", 0},
        {"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", "hello world", 0},
        {"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", 0},
        {"0000000000000000000000000005\r\nhello\r\n0\r\n\r\n", "hello", 0},
        {"7\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n", "0\r\n\r\n\r\n", 0},
        {"1\r\n\n\r\n0\r\n\r\n", "\n", 0},
        /* extensions */
        {"1;a\r\nx\r\n0;b\r\n\r\n", "x", 0},
        {"1;a=b\r\nx\r\n0\r\n\r\n", "x", 0},
        {"1;a=b;c=d;e\r\nx\r\n0\r\n\r\n", "x", 0},
        {"1 ;\ta = b ; c\t=\td;e\r\nx\r\n0\r\n\r\n", "x", 0},
        {"1;a=\"b c;\\\"\\\\\t\xe4\"\r\nx\r\n0\r\n\r\n", "x", 0},
        {"1;a=\"\" ;b\r\nx\r\n0\r\n\r\n", "x", 0},
        {"1;!#$%&'*+-.^_`|~=~\r\nx\r\n0\r\n\r\n", "x", 0},
        /* trailers */
        {"0\r\nA: b\r\n\r\n", "", 0},
        {"0\r\nA:\r\nContent-Lengths: 5\r\nontent-length: 5\r\nX-Host:\ta \r\n\r\n", "", 0},
        {"0\r\nTransfer-Encodingg: 5\r\nTransfer-Encodin: 5\r\nHos: 1\r\nHostt: 2\r\n\r\n", "", 0},
        {"0\r\nA: \xe4: \t\r\n\r\n", "", 0},
        /* what follows is the next message's */
        {"0\r\n\r\nGET / HTTP/1.1\r\n", "", 16},
        {"1\r\nx\r\n0\r\n\r\n\r\n", "x", 2},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        static struct outcome outcome;
        size_t length = strlen(rows[i].text);

        decode_in_every_way(&outcome, rows[i].text, length);
        cr_expect(outcome.result == CHUNKED_END, "%s: %s", printable(rows[i].text, length),
                  outcome.reason);
        cr_expect_eq(outcome.used, length - rows[i].after, "%s", printable(rows[i].text, length));
        cr_expect(str_is((struct str){outcome.body, outcome.length}, rows[i].body), "%s",
                  printable(rows[i].text, length));
    }
}

Test(chunked, trailers_are_kept_for_who_wants_them)
{
    static const char text[] = "1\r\nx\r\n0\r\nA: b\r\nEmpty:\r\nc-d: \t e f \t\r\n\r\n";
    static const char *const fields[][2] = {{"A", "b"}, {"Empty", ""}, {"c-d", "e f"}};
    static struct chunked_trailers trailers;
    size_t length = sizeof(text) - 1;

    for (size_t split = 0; split <= length; split++) {
        static struct outcome outcome;
        struct chunked_decoder decoder;
        struct str name;
        struct str value;
        uint32_t at = 0;

        outcome = (struct outcome){.result = CHUNKED_MORE};
        trailers = (struct chunked_trailers){0};
        chunked_decoder_init(&decoder);
        decoder.trailers = &trailers;
        decode(&decoder, &outcome, text, split);
        if (outcome.result == CHUNKED_MORE) {
            decode(&decoder, &outcome, text + split, length - split);
        }
        cr_assert_eq(outcome.result, CHUNKED_END);
        for (size_t i = 0; i < 3; i++) {
            cr_assert(chunked_trailers_next(&trailers, &at, &name, &value), "field %zu", i);
            cr_expect(str_is(name, fields[i][0]) && str_is(value, fields[i][1]), "field %zu", i);
        }
        cr_expect(!chunked_trailers_next(&trailers, &at, &name, &value));
    }
}

Test(chunked, the_most_trailers_fit)
{
    static struct chunked_trailers trailers;
    static char text[CHUNKED_TRAILERS_MAX + 16];
    struct chunked_decoder decoder;
    struct str data;
    struct str name;
    struct str value;
    size_t used;
    uint32_t at = 0;
    uint32_t count = 0;
    size_t length = 0;

    memcpy(text, "0\r\n", 3);
    length = 3;
    while (length + 4 <= 3 + CHUNKED_TRAILERS_MAX - 4) {
        memcpy(text + length, "a:\r\n", 4);
        length += 4;
    }
    memcpy(text + length, "\r\n", 2);
    length += 2;
    chunked_decoder_init(&decoder);
    decoder.trailers = &trailers;
    cr_assert_eq(chunked_decode(&decoder, text, length, &used, &data), CHUNKED_END, "%s",
                 decoder.reason);
    while (chunked_trailers_next(&trailers, &at, &name, &value)) {
        cr_assert(str_is(name, "a") && value.len == 0);
        count++;
    }
    cr_expect_eq(count * 4, trailers.length);
    cr_expect_eq(at, trailers.length);
}

Test(chunked, unfinished_bodies_ask_for_more)
{
    static const char text[] = "5;a=\"b\"\r\nhello\r\n0\r\nA: b\r\n\r\n";
    static struct outcome outcome;

    for (size_t length = 0; length < sizeof(text) - 1; length++) {
        decode_in_every_way(&outcome, text, length);
        cr_expect(outcome.result == CHUNKED_MORE, "the first %zu bytes", length);
    }
}

Test(chunked, each_fault_is_refused_at_its_byte)
{
    static const struct {
        const char *text; /* its last byte is the wrong one */
        const char *reason;
    } rows[] = {
        {"\r", "a chunk size without a hexadecimal digit"},
        {"\n", "a bare LF in a chunk size line"},
        {" ", "a chunk size without a hexadecimal digit"},
        {"+", "a chunk size without a hexadecimal digit"},
        {"-", "a chunk size without a hexadecimal digit"},
        {";", "a chunk size without a hexadecimal digit"},
        {"g", "a chunk size without a hexadecimal digit"},
        {"0x", "a byte that may not follow a chunk size"},
        {"5g", "a byte that may not follow a chunk size"},
        {"5,", "a byte that may not follow a chunk size"},
        {"5\n", "a bare LF in a chunk size line"},
        {"5\r5", "a bare CR in a chunk size line"},
        {"5\r\r", "a bare CR in a chunk size line"},
        {"5 \r", "white space after a chunk size"},
        {"5 5", "white space after a chunk size"},
        {"5\t\n", "a bare LF in a chunk size line"},
        {"ffffffffffffffff", "a chunk size that is too large for any machine"},
        {"8000000000000000", "a chunk size that is too large for any machine"},
        {"10000000000000000", "a chunk size that is too large for any machine"},
        {"5;\r", "a chunk extension without a name"},
        {"5;;", "a chunk extension without a name"},
        {"5;=", "a chunk extension without a name"},
        {"5; \r", "a chunk extension without a name"},
        {"5;a\n", "a bare LF in a chunk size line"},
        {"5;a\x01", "a malformed chunk extension"},
        {"5;a \r", "a malformed chunk extension"},
        {"5;a b", "a malformed chunk extension"},
        {"5;a=\r", "a malformed chunk extension"},
        {"5;a==", "a malformed chunk extension"},
        {"5;a=b \r", "white space after a chunk size"},
        {"5;a=b\"", "a malformed chunk extension"},
        {"5;a=\"\r", "a control byte in a chunk extension"},
        {"5;a=\"\n", "a bare LF in a chunk size line"},
        {"5;a=\"\\\n", "a bare LF in a chunk size line"},
        {"5;a=\"\\\x7f", "a control byte in a chunk extension"},
        {"5;a=\"b\"c", "a malformed chunk extension"},
        {"5;a=\"b\"\"", "a malformed chunk extension"},
        {"5\r\nhello0", "chunk data that is longer than its size says"},
        {"5\r\nhello\n", "chunk data that is longer than its size says"},
        {"5\r\nhello\rx", "a bare CR after chunk data"},
        {"5\r\nhello\r\n\r", "a chunk size without a hexadecimal digit"},
        {"0\r\n\n", "a byte that may not begin a trailer name"},
        {"0\r\n ", "a trailer line that begins with white space (obs-fold)"},
        {"0\r\n:", "a byte that may not begin a trailer name"},
        {"0\r\nA ", "a byte that may not stand in a trailer name"},
        {"0\r\nA\r", "a byte that may not stand in a trailer name"},
        {"0\r\nA: b\n", "a bare LF in a trailer"},
        {"0\r\nA: b\x01", "a control byte in a trailer"},
        {"0\r\nA: b\rc", "a bare CR in a trailer"},
        {"0\r\nA: b\r\n\t", "a trailer line that begins with white space (obs-fold)"},
        {"0\r\n\rx", "a bare CR at the end of a chunked body"},
        {"0\r\nContent-Length:", "a trailer that would frame or route the message"},
        {"0\r\nA:\r\ntransfer-ENCODING:", "a trailer that would frame or route the message"},
        {"0\r\nhost:", "a trailer that would frame or route the message"},
        {"0\r\nConnection:", "a trailer that would frame or route the message"},
        {"0\r\nUpgrade:", "a trailer that would frame or route the message"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        static struct outcome outcome;
        size_t length = strlen(rows[i].text);

        decode_in_every_way(&outcome, rows[i].text, length);
        cr_expect(outcome.result == CHUNKED_BAD, "%s is taken", printable(rows[i].text, length));
        cr_assert(outcome.reason != NULL);
        cr_expect_str_eq(outcome.reason, rows[i].reason);
        decode_in_every_way(&outcome, rows[i].text, length - 1);
        cr_expect(outcome.result == CHUNKED_MORE, "%s is refused a byte early",
                  printable(rows[i].text, length));
    }
}

Test(chunked, a_nul_is_refused_wherever_it_stands_but_in_data)
{
    static const char text[] = "5;a=\"b\"\r\nhello\r\n0\r\nA: b\r\n\r\n";

    for (size_t at = 0; at < sizeof(text) - 1; at++) {
        static struct outcome outcome;
        char spoiled[sizeof(text)];
        bool in_data = at >= 9 && at < 14;

        memcpy(spoiled, text, sizeof(text));
        spoiled[at] = '\0';
        decode_in_every_way(&outcome, spoiled, sizeof(text) - 1);
        cr_expect(outcome.result == (in_data ? CHUNKED_END : CHUNKED_BAD), "NUL at %zu", at);
    }
}

Test(chunked, the_largest_size_is_that_of_a_file)
{
    static struct outcome outcome;
    static const char text[] = "7fffffffffffffff\r\nx";

    decode_in_every_way(&outcome, text, sizeof(text) - 1);
    cr_expect(outcome.result == CHUNKED_MORE);
    cr_expect_eq(outcome.length, 1);
}

Test(chunked, size_lines_and_trailers_are_bounded)
{
    static struct outcome outcome;
    static char text[16 * 1024];
    struct chunked_decoder decoder;

    memset(text, '0', sizeof(text));
    memcpy(text + CHUNKED_LINE_MAX - 2, "\r\n\r\n", 4);
    decode_in_every_way(&outcome, text, CHUNKED_LINE_MAX + 2);
    cr_expect(outcome.result == CHUNKED_END, "%s", outcome.reason);
    memcpy(text + CHUNKED_LINE_MAX - 2, "0\r\n\r\n", 5);
    decode_in_every_way(&outcome, text, CHUNKED_LINE_MAX + 3);
    cr_expect(outcome.result == CHUNKED_BAD);
    cr_expect_str_eq(outcome.reason, "a chunk size line of more than 256 bytes");

    memcpy(text, "0\r\nA:", 5);
    memset(text + 5, 'a', sizeof(text) - 5);
    memcpy(text + 3 + CHUNKED_TRAILERS_MAX - 4, "\r\n\r\n", 4);
    outcome = (struct outcome){.result = CHUNKED_MORE};
    chunked_decoder_init(&decoder);
    decode(&decoder, &outcome, text, 3 + CHUNKED_TRAILERS_MAX);
    cr_expect(outcome.result == CHUNKED_END, "%s", outcome.reason);
    text[3 + CHUNKED_TRAILERS_MAX - 4] = 'a';
    memcpy(text + 3 + CHUNKED_TRAILERS_MAX - 3, "\r\n\r\n", 4);
    outcome = (struct outcome){.result = CHUNKED_MORE};
    chunked_decoder_init(&decoder);
    decode(&decoder, &outcome, text, 4 + CHUNKED_TRAILERS_MAX);
    cr_expect(outcome.result == CHUNKED_BAD);
    cr_expect_str_eq(outcome.reason, "more than 8192 bytes of trailers");
}

static enum chunked_result
decode_repeated(const char *chunk, int times)
{
    struct chunked_decoder decoder;
    size_t length = strlen(chunk);
    enum chunked_result result = CHUNKED_MORE;

    chunked_decoder_init(&decoder);
    for (int i = 0; i < times && result == CHUNKED_MORE; i++) {
        size_t at = 0;
        do {
            struct str data;
            size_t used;
            result = chunked_decode(&decoder, chunk + at, length - at, &used, &data);
            at += used;
        } while (result == CHUNKED_DATA);
    }
    return result;
}

Test(chunked, framing_far_above_data_is_refused_and_small_chunks_are_not)
{
    char padded[256];

    cr_expect(decode_repeated("1\r\nx\r\n", 100000) == CHUNKED_MORE, "plain chunks of one byte");
    cr_expect(decode_repeated("5;a=b\r\nhello\r\n", 100000) == CHUNKED_MORE, "short extensions");
    snprintf(padded, sizeof(padded), "1;%0200d\r\nx\r\n", 7);
    cr_expect(decode_repeated(padded, 50) == CHUNKED_MORE, "a few long extensions");
    cr_expect(decode_repeated(padded, 200) == CHUNKED_BAD, "a long extension for every byte");
}

Test(chunked, after_the_end_or_a_fault_nothing_changes)
{
    struct chunked_decoder decoder;
    struct str data;
    size_t used = 99;

    chunked_decoder_init(&decoder);
    cr_assert(chunked_decode(&decoder, "0\r\n\r\n", 5, &used, &data) == CHUNKED_END);
    cr_expect(chunked_decode(&decoder, "x", 1, &used, &data) == CHUNKED_END);
    cr_expect_eq(used, 0);
    chunked_decoder_init(&decoder);
    cr_assert(chunked_decode(&decoder, "x", 1, &used, &data) == CHUNKED_BAD);
    cr_expect(chunked_decode(&decoder, "0\r\n\r\n", 5, &used, &data) == CHUNKED_BAD);
    cr_expect_eq(used, 0);
}

Test(chunked, mutated_bodies_give_the_same_result_in_every_delivery, .timeout = 60)
{
    static const char seed_text[] = "5;a=\"b\\c\" ; d\r\nhello\r\n1A\r\nabcdefghijklmnopqrstuvwxyz"
                                    "\r\n0\r\nX-A: b\r\nX-B:\r\n\r\n";
    static const char spice[] = "\r\n\t ;=\"\\:\0\x7f\x80"
                                "0a5g";
    static struct outcome outcome;
    uint64_t seed = 7;
    size_t taken = 0;

    for (int round = 0; round < 2000; round++) {
        char text[sizeof(seed_text)];
        size_t length = sizeof(seed_text) - 1;

        memcpy(text, seed_text, sizeof(text));
        for (size_t n = 1 + next_below(&seed, 2); n > 0; n--) {
            text[next_below(&seed, length)] = spice[next_below(&seed, sizeof(spice))];
        }
        decode_in_every_way(&outcome, text, length);
        taken += outcome.result == CHUNKED_END;
    }
    cr_expect(taken > 100 && taken < 1900, "%zu were taken", taken);
}

Test(chunked, size_lines_are_written_as_they_are_read)
{
    static const struct {
        size_t length;
        const char *line;
    } rows[] = {
        {0, "0\r\n"},
        {1, "1\r\n"},
        {15, "f\r\n"},
        {16, "10\r\n"},
        {500, "1f4\r\n"},
        {65536, "10000\r\n"},
        {0xabcdef, "abcdef\r\n"},
        {SIZE_MAX, "ffffffffffffffff\r\n"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char out[CHUNK_HEAD_MAX];
        size_t length = chunk_head(out, rows[i].length);
        cr_expect(str_is((struct str){out, length}, rows[i].line), "%zu", rows[i].length);
    }
}
