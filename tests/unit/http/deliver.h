/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs the head parsers over bytes delivered in every way that a network may choose, and checks
 * that the result is the same each time: in one piece at both ends of the guarded area, split at
 * every byte (the rest being parsed by a copy of the parser, at another address), byte by byte; all
 * of it at every scan level.
 */
#pragma once

#include "support.h"
#include "worker/http/request.h"
#include "worker/http/response.h"

/* ---- what the two kinds of parser have in common, by macro: DELIVER_DEFINE(request, ...) ------
 */

#define DELIVER_DEFINE(kind, extra_type, extra_pass)                                               \
    /* Whether two parsers that were given the same bytes agree in all that callers see. */        \
    static inline bool kind##_results_equal(                                                       \
        enum parse_result a_result, const struct kind##_parser *a, enum parse_result b_result,     \
        const struct kind##_parser *b)                                                             \
    {                                                                                              \
        if (a_result != b_result) {                                                                \
            return false;                                                                          \
        }                                                                                          \
        if (a_result == PARSE_BAD) {                                                               \
            return a->error.status == b->error.status && a->error.reason == b->error.reason &&     \
                   a->error.setting == b->error.setting;                                           \
        }                                                                                          \
        return a_result == PARSE_MORE ||                                                           \
               memcmp(&a->head, &b->head,                                                          \
                      offsetof(struct kind##_head, fields) +                                       \
                          a->head.field_count * sizeof(struct field)) == 0;                        \
    }                                                                                              \
                                                                                                   \
    static inline void kind##_must_equal(                                                          \
        const char *what, size_t at, const char *bytes, size_t length,                             \
        enum parse_result wanted_result, const struct kind##_parser *wanted,                       \
        enum parse_result got_result, const struct kind##_parser *got)                             \
    {                                                                                              \
        cr_assert(kind##_results_equal(wanted_result, wanted, got_result, got),                    \
                  "%s %zu gives result %d (%s), in one piece it is %d (%s): %s", what, at,         \
                  got_result, got->error.reason != NULL ? got->error.reason : "no error",          \
                  wanted_result, wanted->error.reason != NULL ? wanted->error.reason : "no error", \
                  printable(bytes, length));                                                       \
    }                                                                                              \
                                                                                                   \
    /* The parser's answer to all bytes at once is in *ret; split_step 1 splits at every byte. */  \
    static inline enum parse_result kind##_deliver(struct kind##_parser *ret, extra_type extra,    \
                                                   const char *bytes, size_t length,               \
                                                   size_t split_step)                              \
    {                                                                                              \
        static struct kind##_parser other;                                                         \
        static struct kind##_parser copy;                                                          \
        enum parse_result wanted = PARSE_BAD;                                                      \
        bool first = true;                                                                         \
                                                                                                   \
        FOR_EACH_SCAN_LEVEL(level)                                                                 \
        {                                                                                          \
            struct kind##_parser *parser = first ? ret : &other;                                   \
            kind##_parser_init(parser);                                                            \
            enum parse_result result =                                                             \
                kind##_parser_run(parser, extra_pass, guarded_at_end(bytes, length), length);      \
            if (first) {                                                                           \
                wanted = result;                                                                   \
                first = false;                                                                     \
            }                                                                                      \
            kind##_must_equal("another scan level,", (size_t)level, bytes, length, wanted, ret,    \
                              result, parser);                                                     \
                                                                                                   \
            kind##_parser_init(&other);                                                            \
            result =                                                                               \
                kind##_parser_run(&other, extra_pass, guarded_at_start(bytes, length), length);    \
            kind##_must_equal("the start of a page,", 0, bytes, length, wanted, ret, result,       \
                              &other);                                                             \
                                                                                                   \
            for (size_t at = 0; at < length; at += split_step) {                                   \
                memset(&copy, 0xa5, sizeof(copy));                                                 \
                kind##_parser_init(&other);                                                        \
                result = kind##_parser_run(&other, extra_pass, guarded_at_end(bytes, at), at);     \
                kind##_parser_copy(&copy, &other);                                                 \
                if (result == PARSE_MORE) {                                                        \
                    result = kind##_parser_run(&copy, extra_pass, guarded_at_end(bytes, length),   \
                                               length);                                            \
                }                                                                                  \
                kind##_must_equal("split at", at, bytes, length, wanted, ret, result, &copy);      \
            }                                                                                      \
                                                                                                   \
            kind##_parser_init(&other);                                                            \
            result = PARSE_MORE;                                                                   \
            const char *base = guarded_at_start(bytes, length);                                    \
            for (size_t at = 0; at <= length && result == PARSE_MORE; at++) {                      \
                result = kind##_parser_run(&other, extra_pass, base, at);                          \
            }                                                                                      \
            kind##_must_equal("byte by byte,", 0, bytes, length, wanted, ret, result, &other);     \
        }                                                                                          \
        scan_use(SCAN_SCALAR);                                                                     \
        return wanted;                                                                             \
    }

DELIVER_DEFINE(request, const struct request_limits *, extra)
DELIVER_DEFINE(response, bool, extra)

/* The default settings of narwhal. */
static const struct request_limits default_limits
    __attribute__((unused)) = {.line = 8192, .fields = 100, .field = 8192, .head = 32768};
