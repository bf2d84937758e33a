/* SPDX-License-Identifier: Apache-2.0
 *
 * Parser of request heads (RFC 9112 sections 2-6), strict where laxness is exploitable. Pure:
 * bytes in, struct out; no I/O, no allocation. Incremental: bytes that were seen are not looked at
 * again, so that a head which arrives byte by byte costs no more than one that arrives whole.
 *
 * Refused with 400: bare CR, bare LF, NUL and control bytes, obs-fold, white space before the
 * colon, empty or non-token names, missing, repeated or malformed Host (by its grammar, RFC 3986
 * section 3.2.2), an absolute-form authority that differs from Host, repeated, listed or malformed
 * Content-Length, Transfer-Encoding but exactly "chunked" (501 when it is another coding),
 * Transfer-Encoding with Content-Length, Transfer-Encoding in HTTP/1.0, a target that is none of
 * the four forms. 505: a version that is not HTTP/1.0 or HTTP/1.1. 414/431: limits, that of one
 * field too. CONNECT and methods that are not in METHODS are parsed (METHOD_OTHER); whether they
 * are served is the caller's business.
 */
#pragma once

#include "worker/http/head.h"

#define METHODS(X) X(GET) X(HEAD) X(POST) X(PUT) X(DELETE) X(CONNECT) X(OPTIONS) X(TRACE) X(PATCH)

enum method {
    METHOD_OTHER = 0,
#define METHOD_ENUM(name) METHOD_##name,
    METHODS(METHOD_ENUM)
#undef METHOD_ENUM
        METHOD_COUNT
};

/* RFC 9112 section 3.2. */
enum target_form { TARGET_ORIGIN = 0, TARGET_ABSOLUTE, TARGET_AUTHORITY, TARGET_ASTERISK };

struct request_head {
    enum method method;
    struct span method_text;
    struct span target; /* as sent */
    enum target_form form;
    struct span path;      /* of origin- and absolute-form, without the query; "/" may be implied:
                              len 0 */
    struct span query;     /* with its '?'; len 0 without one */
    struct span authority; /* host[:port] of absolute-form, else the value of Host; len 0 without */
    struct span host;      /* the host of authority, without the port */
    uint8_t minor_version; /* of HTTP/1.x: 0 or 1 */
    bool keep_alive_said;  /* Connection names keep-alive */
    bool keep_alive;       /* the client allows another request on this connection */
    bool expect_continue;  /* Expect: 100-continue, HTTP/1.1 only */
    bool expect_other;     /* an expectation that nobody can meet (417) */
    bool upgrade;          /* Connection names upgrade and Upgrade is there, HTTP/1.1 only */
    enum body_framing framing; /* BODY_NONE, BODY_LENGTH or BODY_CHUNKED */
    uint64_t content_length;   /* BODY_LENGTH */
    uint32_t length;           /* of the whole head, with the empty line */
    uint16_t field_count;
    struct field fields[HTTP_FIELDS_MAX];
};

struct request_limits {
    uint32_t line;   /* bytes of the request line without CRLF */
    uint32_t fields; /* count */
    uint32_t head;   /* bytes of the whole head */
    uint32_t field;  /* bytes of one field line without CRLF; 0: as the whole head */
};

struct request_parser {
    struct request_head head;
    struct parse_error error; /* after PARSE_BAD */
    /* Resume state: private to request.c. */
    uint8_t state;
    uint32_t line_start; /* offset of the line being read */
    uint32_t scanned;    /* offset of the first byte not yet looked at */
    uint64_t seen;       /* bytes passed over so far, for the test that shows linear cost */
};

/* Makes parser ready for a new head. Does not clear the field table (it is large). */
void request_parser_init(struct request_parser *parser);

/* Goes on parsing the head that begins at base and of which len bytes are there (the bytes of
 * earlier calls included, base may have moved). PARSE_OK: parser->head is filled, and the body
 * begins at base + head.length. PARSE_BAD: parser->error says why; the connection cannot go on.
 * An empty line before the request line is skipped (RFC 9112 section 2.2) and counts as head. */
enum parse_result request_parser_run(struct request_parser *parser,
                                     const struct request_limits *limits, const char *base,
                                     size_t len);

/* Copies what an unfinished parser needs to go on, and no more than the fields found so far. */
void request_parser_copy(struct request_parser *to, const struct request_parser *from);

/* First field of that id, or NULL. */
const struct field *request_field(const struct request_head *head, enum field_id id);

/* "GET" …; "OTHER" for METHOD_OTHER. */
const char *method_name(enum method method);
/* Whether repeating the request has the same intended effect (RFC 9110 section 9.2.2). */
bool method_is_idempotent(enum method method);
