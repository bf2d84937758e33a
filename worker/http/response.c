/* SPDX-License-Identifier: Apache-2.0
 *
 * Parser of response heads. Runs in worker processes. Works as request.c does:
 *
 *   VERSION -> STATUS -> AFTER_STATUS -> [REASON ->] LINE_LF -> FIELDS+n -> DONE
 *       any of them -> BAD
 *
 * Lax in one thing only, the reason phrase, which nothing depends on: it may be empty, and then
 * the space before it may be missing too, as many servers send it.
 */
#include "worker/http/response.h"

#include "worker/http/char_class.h"
#include "worker/http/connection_field.h"
#include "worker/http/field_lines.h"
#include "worker/http/message.h"
#include "worker/http/scan.h"

enum response_state {
    RESPONSE_VERSION = 0, /* "HTTP/1.1 200", byte by byte */
    RESPONSE_AFTER_STATUS,
    RESPONSE_REASON,
    RESPONSE_LINE_LF,
    RESPONSE_FIELDS, /* + enum field_lines_state */
    RESPONSE_DONE = RESPONSE_FIELDS + FIELD_LINES_STATE_COUNT,
    RESPONSE_BAD,
};

/* Of "HTTP/1.1 200". */
#define STATUS_END 12

static __attribute__((cold, noinline)) enum parse_result
refuse(struct response_parser *parser, const char *reason)
{
    parser->state = RESPONSE_BAD;
    parser->error = (struct parse_error){502, reason, NULL};
    return PARSE_BAD;
}

void
response_parser_init(struct response_parser *parser)
{
    memset(&parser->head, 0, offsetof(struct response_head, fields));
    parser->head.keep_alive_ms = -1;
    memset(&parser->error, 0, sizeof(*parser) - offsetof(struct response_parser, error));
}

void
response_parser_copy(struct response_parser *to, const struct response_parser *from)
{
    /* One more than field_count: the line being read. */
    size_t fields = (size_t)from->head.field_count + 1;

    if (fields > HTTP_FIELDS_MAX) {
        fields = HTTP_FIELDS_MAX;
    }
    memcpy(&to->head, &from->head,
           offsetof(struct response_head, fields) + fields * sizeof(struct field));
    memcpy(&to->error, &from->error, sizeof(*to) - offsetof(struct response_parser, error));
}

/* ---- the status line
 * ---------------------------------------------------------------------------*/

static enum parse_result
read_version_and_status(struct response_parser *parser, const char *base, uint32_t len)
{
    static const char pattern[STATUS_END + 1] = "HTTP/1.v ddd";

    while (parser->scanned < STATUS_END) {
        uint32_t at = parser->scanned;
        if (at == len) {
            return PARSE_MORE;
        }
        char c = base[at];
        switch (pattern[at]) {
        case 'v':
            if (c != '0' && c != '1') {
                return refuse(parser, "a version that is not HTTP/1.0 or HTTP/1.1");
            }
            parser->head.minor_version = (uint8_t)(c - '0');
            break;
        case 'd':
            /* The first digit is the class (RFC 9110 section 15), and there is no class 0. */
            if (!char_is(c, CHAR_DIGIT) || (parser->head.status == 0 && c == '0')) {
                return refuse(parser, "a status that is not three digits from 100 on");
            }
            parser->head.status = parser->head.status * 10 + (c - '0');
            break;
        default:
            if (c != pattern[at]) {
                return refuse(parser, at == 0 ? "a first byte that is not of HTTP"
                                              : "a malformed status line");
            }
            break;
        }
        parser->scanned = at + 1;
    }
    return PARSE_OK;
}

static enum parse_result
read_status_line(struct response_parser *parser, const char *base, uint32_t len)
{
    struct response_head *head = &parser->head;
    uint32_t at;

    if (parser->state == RESPONSE_VERSION) {
        enum parse_result result = read_version_and_status(parser, base, len);
        if (result != PARSE_OK) {
            return result;
        }
        parser->state = RESPONSE_AFTER_STATUS;
    }
    at = parser->scanned;
    if (parser->state == RESPONSE_AFTER_STATUS) {
        if (at == len) {
            return PARSE_MORE;
        }
        if (base[at] == ' ') {
            parser->state = RESPONSE_REASON;
            head->reason.off = ++at;
        } else if (base[at] == '\r') {
            head->reason = (struct span){at, 0};
            parser->state = RESPONSE_LINE_LF;
            at++;
        } else {
            return refuse(parser, "a malformed status line");
        }
    }
    if (parser->state == RESPONSE_REASON) {
        at = (uint32_t)(scan_field_value(base + at, base + len) - base);
        parser->scanned = at;
        if (at == len) {
            return PARSE_MORE;
        }
        if (base[at] != '\r') {
            return refuse(parser, base[at] == '\n' ? "a bare LF in the status line"
                                                   : "a control byte in the reason phrase");
        }
        head->reason.len = at - head->reason.off;
        parser->state = RESPONSE_LINE_LF;
        at++;
    }
    parser->scanned = at;
    if (at == len) {
        return PARSE_MORE;
    }
    if (base[at] != '\n') {
        return refuse(parser, "a bare CR in the status line");
    }
    parser->scanned = parser->line_start = at + 1;
    parser->state = RESPONSE_FIELDS + FIELD_LINES_START;
    return PARSE_OK;
}

/* ---- the whole head
 * ----------------------------------------------------------------------------*/

/* RFC 9112 section 6.3, in its order, after what makes the framing doubtful was refused. */
static enum parse_result
check_framing(struct response_parser *parser, bool head_request, const struct message_facts *facts)
{
    struct response_head *head = &parser->head;
    bool never_has_body = head->status < 200 || head->status == 204;

    if (facts->content_length_count > 1) {
        return refuse(parser, "more than one Content-Length");
    }
    if (facts->content_length_bad != NULL) {
        return refuse(parser, facts->content_length_bad);
    }
    if (facts->transfer_encoding_count > 0) {
        if (facts->content_length_count > 0) {
            return refuse(parser, "Transfer-Encoding together with Content-Length");
        }
        if (head->minor_version == 0) {
            return refuse(parser, "Transfer-Encoding in HTTP/1.0");
        }
        if (facts->coding != CODING_CHUNKED) {
            return refuse(parser, "a Transfer-Encoding that is not exactly \"chunked\"");
        }
        if (never_has_body) {
            /* Section 6.1: a server MUST NOT; one that does may send the chunks as well. */
            return refuse(parser, "Transfer-Encoding in a 1xx or 204 response");
        }
    }
    head->has_content_length = facts->content_length_count > 0;
    head->content_length = facts->content_length;
    if (never_has_body || head_request || head->status == 304) {
        head->framing = BODY_NONE;
        /* A server MUST NOT send Content-Length with 1xx and 204 (RFC 9110 section 8.6). Many send
         * 0, which is harmless. With another number the body may follow, and would be taken for
         * the next response: the response ends here, and so does the connection. */
        if (never_has_body && head->content_length > 0) {
            head->keep_alive = false;
        }
    } else if (facts->transfer_encoding_count > 0) {
        head->framing = BODY_CHUNKED;
    } else if (head->has_content_length) {
        head->framing = BODY_LENGTH;
    } else {
        head->framing = BODY_UNTIL_CLOSE;
        head->keep_alive = false;
    }
    return PARSE_OK;
}

static enum parse_result
finish(struct response_parser *parser, bool head_request, const char *base)
{
    struct response_head *head = &parser->head;
    struct message_facts facts;

    message_facts_collect(&facts, head->fields, head->field_count, base);
    if (facts.connection_bytes > CONNECTION_OPTIONS_MAX) {
        return refuse(parser, "more than 1024 bytes of Connection options");
    }
    /* RFC 9112 section 9.3. */
    head->keep_alive =
        !facts.connection_close && (head->minor_version >= 1 || facts.connection_keep_alive);
    if (check_framing(parser, head_request, &facts) == PARSE_BAD) {
        return PARSE_BAD;
    }
    head->keep_alive_ms = facts.keep_alive_ms;
    head->upgrade = head->status == 101 && facts.upgrade;
    head->length = parser->scanned;
    parser->state = RESPONSE_DONE;
    return PARSE_OK;
}

static enum parse_result
read_fields(struct response_parser *parser, bool head_request, const char *base, uint32_t len)
{
    struct field_lines lines = {
        .fields = parser->head.fields,
        .count = parser->head.field_count,
        .max = HTTP_FIELDS_MAX,
        .pos = parser->scanned,
        .state = (uint8_t)(parser->state - RESPONSE_FIELDS),
    };
    enum field_lines_result result = field_lines_run(&lines, base, len);

    parser->scanned = lines.pos;
    parser->state = (uint8_t)(RESPONSE_FIELDS + lines.state);
    parser->head.field_count = (uint16_t)lines.count;
    switch (result) {
    case FIELD_LINES_MORE:
        return PARSE_MORE;
    case FIELD_LINES_DONE:
        return finish(parser, head_request, base);
    case FIELD_LINES_TOO_MANY:
        return refuse(parser, "more than 256 header fields");
    case FIELD_LINES_BAD:
        break;
    }
    return refuse(parser, lines.reason);
}

enum parse_result
response_parser_run(struct response_parser *parser, bool head_request, const char *base, size_t len)
{
    uint32_t visible = len < RESPONSE_HEAD_MAX ? (uint32_t)len : RESPONSE_HEAD_MAX;
    enum parse_result result = PARSE_OK;

    if (parser->state >= RESPONSE_DONE) {
        return parser->state == RESPONSE_DONE ? PARSE_OK : PARSE_BAD;
    }
    if (parser->state < RESPONSE_FIELDS) {
        result = read_status_line(parser, base, visible);
    }
    if (result == PARSE_OK) {
        result = read_fields(parser, head_request, base, visible);
    }
    if (result == PARSE_MORE && visible >= RESPONSE_HEAD_MAX) {
        return refuse(parser, "a response head of more than 60000 bytes");
    }
    return result;
}

const struct field *
response_field(const struct response_head *head, enum field_id id)
{
    for (const struct field *field = head->fields; field < head->fields + head->field_count;
         field++) {
        if (field->id == id) {
            return field;
        }
    }
    return NULL;
}
