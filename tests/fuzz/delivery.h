/* SPDX-License-Identifier: Apache-2.0
 *
 * One message head, delivered in every way that a network may choose: whole, byte by byte, and in
 * pieces cut where the input says, with the buffer moved and the parser copied at each cut, as a
 * connection does; at every scan level of this CPU. The outcome must be the same.
 */
#pragma once

#include "tests/fuzz/fuzz.h"
#include "worker/http/head.h"

/* What request and response parsers have in common. */
struct delivery_kind {
    size_t parser_size;
    void (*init)(void *parser);
    enum parse_result (*run)(void *parser, const void *how, const char *base, size_t len);
    void (*copy)(void *to, const void *from);
    /* Whether two parsers with the same result agree in all that callers see. */
    bool (*equal)(enum parse_result result, const void *a, const void *b);
    /* Bytes passed over so far, and how many of the input are needed to know the result. */
    uint64_t (*seen)(const void *parser);
    size_t (*length)(const void *parser);
    const char *(*reason)(const void *parser);
};

/* Leaves the parser that got base[0..size) whole in ret_parser, its scan level the best. how goes
 * to run(). base is memory of exactly that size. */
enum parse_result delivery_check(const struct delivery_kind *kind, const void *how,
                                 const char *base, size_t size, const struct fuzz_cuts *cuts,
                                 void *ret_parser);
