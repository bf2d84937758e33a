/* SPDX-License-Identifier: Apache-2.0
 *
 * Deliveries of a head; see delivery.h.
 */
#include "tests/fuzz/delivery.h"

#include <stdlib.h>
#include <string.h>

#include "config/base/check.h"
#include "worker/http/scan.h"

struct delivery {
    const struct delivery_kind *kind;
    const void *how;
    const char *base;
    size_t size;
    enum parse_result wanted;
    const void *wanted_parser;
};

/* A parser whose memory holds nothing that the code under test put there. */
static void *
parser_new(const struct delivery_kind *kind)
{
    void *parser = malloc(kind->parser_size);

    CHECK(parser != NULL);
    memset(parser, 0xa5, kind->parser_size);
    kind->init(parser);
    return parser;
}

static void
must_agree(const struct delivery *delivery, const char *what, size_t level,
           enum parse_result result, const void *parser)
{
    const struct delivery_kind *kind = delivery->kind;
    const char *reason = kind->reason(parser);
    const char *wanted_reason = kind->reason(delivery->wanted_parser);

    FUZZ_CHECK(result == delivery->wanted &&
                   (result == PARSE_MORE || kind->equal(result, parser, delivery->wanted_parser)),
               "%s, scan level %s: result %d (%s), whole and scalar it is %d (%s)", what,
               scan_level_name((enum scan_level)level), (int)result, reason == NULL ? "" : reason,
               (int)delivery->wanted, wanted_reason == NULL ? "" : wanted_reason);
    FUZZ_CHECK(kind->seen(parser) <= delivery->size, "%s: %llu bytes passed over of %zu", what,
               (unsigned long long)kind->seen(parser), delivery->size);
}

static void
deliver_whole(const struct delivery *delivery, size_t level)
{
    void *parser = parser_new(delivery->kind);

    enum parse_result result =
        delivery->kind->run(parser, delivery->how, delivery->base, delivery->size);
    must_agree(delivery, "whole", level, result, parser);
    /* What is over stays over. */
    result = delivery->kind->run(parser, delivery->how, delivery->base, delivery->size);
    must_agree(delivery, "asked again", level, result, parser);
    free(parser);
}

static void
deliver_bytes(const struct delivery *delivery, size_t level)
{
    void *parser = parser_new(delivery->kind);
    enum parse_result result = PARSE_MORE;
    size_t at = 0;

    for (; at <= delivery->size && result == PARSE_MORE; at++) {
        result = delivery->kind->run(parser, delivery->how, delivery->base, at);
    }
    must_agree(delivery, "byte by byte", level, result, parser);
    FUZZ_CHECK(result != PARSE_OK || at - 1 == delivery->kind->length(parser),
               "complete after %zu bytes, but its length is %zu", at - 1,
               delivery->kind->length(parser));
    free(parser);
}

static void
deliver_pieces(const struct delivery *delivery, const struct fuzz_cuts *cuts, size_t level)
{
    const struct delivery_kind *kind = delivery->kind;
    void *parser = parser_new(kind);
    enum parse_result result = PARSE_MORE;

    for (size_t i = 0; i <= FUZZ_CUTS && result == PARSE_MORE; i++) {
        size_t length = i < FUZZ_CUTS ? cuts->at[i] : delivery->size;
        char *piece = fuzz_copy(delivery->base, length);
        void *next = malloc(kind->parser_size);
        CHECK(next != NULL);
        memset(next, 0x5a, kind->parser_size);
        kind->copy(next, parser);
        free(parser);
        parser = next;
        result = kind->run(parser, delivery->how, piece, length);
        free(piece);
    }
    must_agree(delivery, "in pieces", level, result, parser);
    free(parser);
}

enum parse_result
delivery_check(const struct delivery_kind *kind, const void *how, const char *base, size_t size,
               const struct fuzz_cuts *cuts, void *ret_parser)
{
    struct delivery delivery = {
        .kind = kind, .how = how, .base = base, .size = size, .wanted_parser = ret_parser};

    FUZZ_CHECK(scan_use(SCAN_SCALAR), "there is no scalar scan");
    memset(ret_parser, 0xa5, kind->parser_size);
    kind->init(ret_parser);
    delivery.wanted = kind->run(ret_parser, how, base, size);
    FUZZ_CHECK((delivery.wanted == PARSE_BAD) == (kind->reason(ret_parser) != NULL),
               "result %d with reason %s", (int)delivery.wanted,
               kind->reason(ret_parser) == NULL ? "none" : kind->reason(ret_parser));
    for (size_t level = 0; level < SCAN_LEVEL_COUNT; level++) {
        if (scan_use((enum scan_level)level)) {
            deliver_whole(&delivery, level);
            deliver_pieces(&delivery, cuts, level);
            /* By far the slowest, and all levels look at single bytes alike: one is enough. */
            if (level == cuts->at[0] % SCAN_LEVEL_COUNT) {
                deliver_bytes(&delivery, level);
            }
        }
    }
    return delivery.wanted;
}
