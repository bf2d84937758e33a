/* SPDX-License-Identifier: Apache-2.0
 *
 * Parser of response heads, as application servers send them. Pure and incremental, as
 * request.h. What is ambiguous is refused (the client gets 502): the framing of a response decides
 * where the next one begins.
 */
#pragma once

#include "worker/http/head.h"

struct response_head {
    int status; /* 100..999 */
    struct span reason;
    uint8_t minor_version;
    bool keep_alive;           /* the server allows another request on this connection */
    int64_t keep_alive_ms;     /* from Keep-Alive: timeout=N; -1 when it is not said */
    bool upgrade;              /* a 101 with Upgrade */
    enum body_framing framing; /* by RFC 9112 section 6.3, for a response to head_request or not */
    uint64_t content_length;   /* BODY_LENGTH; also kept for a response to HEAD and for 304 */
    bool has_content_length;   /* Content-Length was there */
    uint32_t length;           /* of the whole head */
    uint16_t field_count;
    struct field fields[HTTP_FIELDS_MAX];
};

struct response_parser {
    struct response_head head;
    struct parse_error error;
    /* Resume state: private to response.c. */
    uint8_t state;
    uint32_t line_start;
    uint32_t scanned;
};

/* Largest head taken from a server. */
#define RESPONSE_HEAD_MAX 60000u

void response_parser_init(struct response_parser *parser);
/* As request_parser_run(). head_request: the request was HEAD, so that no body follows. */
enum parse_result response_parser_run(struct response_parser *parser, bool head_request,
                                      const char *base, size_t len);
void response_parser_copy(struct response_parser *to, const struct response_parser *from);
const struct field *response_field(const struct response_head *head, enum field_id id);
