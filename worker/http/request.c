/* SPDX-License-Identifier: Apache-2.0
 *
 * Parser of request heads. Runs in worker processes.
 *
 * The states follow the bytes; each names what the byte at `scanned` must be or continue:
 *
 *   START -> [EMPTY_LF ->] METHOD -> TARGET -> VERSION -> LINE_CR -> LINE_LF -> FIELDS+n -> DONE
 *                     any of them -> BAD
 *
 * `scanned` only grows. Spans of the part being read are stored as soon as its start is known, so
 * that nothing but the state and the offset is needed to go on. Limits are tested by never looking
 * beyond them: the visible bytes end at the limit, and running out of them there is the error. So
 * the result does not depend on how the bytes were divided into calls.
 */
#include "worker/http/request.h"

#include "worker/http/authority.h"
#include "worker/http/char_class.h"
#include "worker/http/connection_field.h"
#include "worker/http/field_lines.h"
#include "worker/http/message.h"
#include "worker/http/scan.h"

enum request_state {
    REQUEST_START = 0,
    REQUEST_EMPTY_LF, /* the CR of an empty line before the request line was seen */
    REQUEST_METHOD,
    REQUEST_TARGET,
    REQUEST_VERSION,
    REQUEST_LINE_CR,
    REQUEST_LINE_LF,
    REQUEST_FIELDS, /* + enum field_lines_state */
    REQUEST_DONE = REQUEST_FIELDS + FIELD_LINES_STATE_COUNT,
    REQUEST_BAD,
};

#define VERSION_LENGTH 8 /* "HTTP/1.1" */

static __attribute__((cold, noinline)) enum parse_result
refuse(struct request_parser *parser, int status, const char *reason, const char *setting)
{
    parser->state = REQUEST_BAD;
    parser->error = (struct parse_error){status, reason, setting};
    return PARSE_BAD;
}

static __attribute__((cold, noinline)) enum parse_result
refuse_400(struct request_parser *parser, const char *reason)
{
    return refuse(parser, 400, reason, NULL);
}

void
request_parser_init(struct request_parser *parser)
{
    memset(&parser->head, 0, offsetof(struct request_head, fields));
    memset(&parser->error, 0, sizeof(*parser) - offsetof(struct request_parser, error));
}

void
request_parser_copy(struct request_parser *to, const struct request_parser *from)
{
    /* One more than field_count: the line being read. */
    size_t fields = (size_t)from->head.field_count + 1;

    if (fields > HTTP_FIELDS_MAX) {
        fields = HTTP_FIELDS_MAX;
    }
    memcpy(&to->head, &from->head,
           offsetof(struct request_head, fields) + fields * sizeof(struct field));
    memcpy(&to->error, &from->error, sizeof(*to) - offsetof(struct request_parser, error));
}

/* ---- the request line
 * --------------------------------------------------------------------------*/

/* Methods are case-sensitive (RFC 9110 section 9.1). */
static enum method
method_of(struct str text)
{
#define METHOD_CASE(name)                                                                          \
    if (text.len == sizeof(#name) - 1 && memcmp(text.ptr, #name, sizeof(#name) - 1) == 0) {        \
        return METHOD_##name;                                                                      \
    }
    METHODS(METHOD_CASE)
#undef METHOD_CASE
    return METHOD_OTHER;
}

static __attribute__((cold, noinline)) enum parse_result
refuse_first_byte(struct request_parser *parser, char c)
{
    switch (c) {
    case '\r':
        return refuse_400(parser, "more than one empty line before the request line");
    case '\n':
        return refuse_400(parser, "a bare LF before the request line");
    case 0x16:
        return refuse_400(parser, "a TLS handshake on a port that speaks plain HTTP");
    default:
        return refuse_400(parser, "a first byte that no method begins with");
    }
}

static __attribute__((cold, noinline)) enum parse_result
refuse_target_byte(struct request_parser *parser, char c)
{
    switch (c) {
    case '\r':
    case '\n':
        return refuse_400(parser, "a request line without a version (HTTP/0.9)");
    case '#':
        return refuse_400(parser, "a fragment in the request target");
    default:
        return refuse_400(parser, "a byte that may not stand in a request target");
    }
}

/* A scan from at, counted by what it passed over, not by what it says was new, so that the count
 * grows when bytes are scanned again. */
static uint32_t
scan_from(struct request_parser *parser, scan_fn scan, const char *base, uint32_t at, uint32_t end)
{
    uint32_t stop = (uint32_t)(scan(base + at, base + end) - base);

    parser->seen += stop - at;
    return stop;
}

/* The version byte by byte: what the fast comparison did not recognise or could not see whole. */
static __attribute__((noinline)) enum parse_result
read_version(struct request_parser *parser, const char *base, uint32_t start, uint32_t end)
{
    static const char pattern[VERSION_LENGTH + 1] = "HTTP/d.d";

    for (uint32_t i = parser->scanned - start; i < VERSION_LENGTH; i++) {
        if (start + i >= end) {
            return PARSE_MORE;
        }
        char c = base[start + i];
        parser->seen++;
        bool matches = pattern[i] == 'd' ? char_is(c, CHAR_DIGIT) : c == pattern[i];
        if (!matches) {
            /* "HTTP" is case-sensitive (RFC 9112 section 2.3). A second space or a tab comes here
             * too: RFC 9112 section 3 allows exactly one space. */
            return refuse_400(parser, "a version that is not HTTP/1.0 or HTTP/1.1");
        }
        parser->scanned = start + i + 1;
    }
    char major = base[start + 5];
    char minor = base[start + 7];
    if (major != '1' || (minor != '0' && minor != '1')) {
        return refuse(parser, 505, "a version that is not HTTP/1.0 or HTTP/1.1", NULL);
    }
    parser->head.minor_version = (uint8_t)(minor - '0');
    return PARSE_OK;
}

/* RFC 9112 section 3.2.2. "scheme://authority[/path][?query]" */
static enum parse_result
split_absolute(struct request_parser *parser, const char *base)
{
    struct request_head *head = &parser->head;
    struct str target = span_str(head->target, base);
    size_t scheme;

    if (target.len >= 7 && strncasecmp(target.ptr, "http://", 7) == 0) {
        scheme = 7;
    } else if (target.len >= 8 && strncasecmp(target.ptr, "https://", 8) == 0) {
        scheme = 8;
    } else {
        return refuse_400(parser, "a request target that is none of the four forms");
    }
    size_t i = scheme;
    while (i < target.len && target.ptr[i] != '/' && target.ptr[i] != '?') {
        i++;
    }
    head->form = TARGET_ABSOLUTE;
    head->authority = (struct span){head->target.off + (uint32_t)scheme, (uint32_t)(i - scheme)};
    head->path = (struct span){head->target.off + (uint32_t)i, (uint32_t)(target.len - i)};
    return PARSE_OK;
}

/* Which of the four forms the target is (RFC 9112 section 3.2), and where its parts are. */
static enum parse_result
split_target(struct request_parser *parser, const char *base)
{
    struct request_head *head = &parser->head;
    const char *target = base + head->target.off;

    if (head->method == METHOD_CONNECT) {
        /* Section 3.2.3: only CONNECT has the authority form, and it has no other. */
        struct authority authority;
        const char *reason = authority_parse(span_str(head->target, base), &authority);
        if (reason != NULL || authority.port == AUTHORITY_NO_PORT) {
            return refuse_400(parser, "a CONNECT target that is not host:port");
        }
        head->form = TARGET_AUTHORITY;
        return PARSE_OK;
    }
    if (target[0] == '/') {
        head->form = TARGET_ORIGIN;
        head->path = head->target;
    } else if (target[0] == '*' && head->target.len == 1) {
        if (head->method != METHOD_OPTIONS) {
            return refuse_400(parser, "the target * with another method than OPTIONS");
        }
        head->form = TARGET_ASTERISK;
        return PARSE_OK;
    } else if (split_absolute(parser, base) == PARSE_BAD) {
        return PARSE_BAD;
    }
    const char *path = base + head->path.off;
    const char *question = memchr(path, '?', head->path.len);
    if (question != NULL) {
        uint32_t length = (uint32_t)(question - path);
        head->query = (struct span){head->path.off + length, head->path.len - length};
        head->path.len = length;
    }
    return PARSE_OK;
}

/* PARSE_OK when the whole line was read. base[0..len) is visible, line_end <= len is where the
 * line's own bytes must end. */
static enum parse_result
read_request_line(struct request_parser *parser, const struct request_limits *limits,
                  const char *base, uint32_t len)
{
    struct request_head *head = &parser->head;
    enum request_state state = (enum request_state)parser->state;
    uint32_t at = parser->scanned;
    uint32_t line_end = len;
    enum parse_result result;

    if (state == REQUEST_START) {
        if (at == len) {
            return PARSE_MORE;
        }
        if (base[at] == '\r' && parser->line_start == 0) {
            parser->state = state = REQUEST_EMPTY_LF;
            parser->scanned = ++at;
        } else if (!char_is(base[at], CHAR_TOKEN)) {
            return refuse_first_byte(parser, base[at]);
        } else {
            parser->state = state = REQUEST_METHOD;
        }
    }
    if (state == REQUEST_EMPTY_LF) {
        if (at == len) {
            return PARSE_MORE;
        }
        if (base[at] != '\n') {
            return refuse_400(parser, "a bare CR before the request line");
        }
        parser->scanned = parser->line_start = ++at;
        if (at == len) {
            parser->state = REQUEST_START;
            return PARSE_MORE;
        }
        if (!char_is(base[at], CHAR_TOKEN)) {
            return refuse_first_byte(parser, base[at]);
        }
        parser->state = state = REQUEST_METHOD;
    }

    if (limits->line < len - parser->line_start) {
        line_end = parser->line_start + limits->line;
    }
    if (at > line_end && state < REQUEST_LINE_CR) {
        goto too_long; /* the limit was lowered while the line was coming in */
    }
    if (state == REQUEST_METHOD) {
        at = scan_from(parser, scan_token, base, at, line_end);
        if (at == line_end) {
            goto out;
        }
        if (base[at] != ' ') {
            parser->scanned = at;
            return refuse_400(parser, "a byte that may not stand in a method");
        }
        head->method_text = (struct span){parser->line_start, at - parser->line_start};
        head->method = method_of(span_str(head->method_text, base));
        at++;
        head->target.off = at;
        state = REQUEST_TARGET;
    }
    if (state == REQUEST_TARGET) {
        at = scan_from(parser, scan_target, base, at, line_end);
        if (at == line_end) {
            goto out;
        }
        parser->scanned = at;
        if (base[at] != ' ') {
            return refuse_target_byte(parser, base[at]);
        }
        head->target.len = at - head->target.off;
        if (head->target.len == 0) {
            return refuse_400(parser, "an empty request target");
        }
        at++;
        state = REQUEST_VERSION;
    }
    if (state == REQUEST_VERSION) {
        uint32_t start = head->target.off + head->target.len + 1;

        if (at == start && line_end - at >= VERSION_LENGTH &&
            memcmp(base + at, "HTTP/1.1", VERSION_LENGTH) == 0) {
            head->minor_version = 1;
            at += VERSION_LENGTH;
        } else {
            parser->state = (uint8_t)state;
            parser->scanned = at;
            result = read_version(parser, base, start, line_end);
            if (result == PARSE_BAD) {
                return result;
            }
            at = parser->scanned;
            if (result == PARSE_MORE) {
                goto out;
            }
        }
        state = REQUEST_LINE_CR;
    }
    if (state == REQUEST_LINE_CR) {
        if (at == len) {
            goto out;
        }
        if (base[at] != '\r') {
            parser->scanned = at;
            return refuse_400(parser, base[at] == '\n' ? "a bare LF in the request line"
                                                       : "bytes after the version");
        }
        at++;
        state = REQUEST_LINE_LF;
    }
    if (at == len) {
        goto out;
    }
    parser->scanned = at;
    if (base[at] != '\n') {
        return refuse_400(parser, "a bare CR in the request line");
    }
    if (split_target(parser, base) == PARSE_BAD) {
        return PARSE_BAD;
    }
    parser->scanned = parser->line_start = at + 1;
    parser->state = REQUEST_FIELDS + FIELD_LINES_START;
    return PARSE_OK;

out:
    parser->state = (uint8_t)state;
    parser->scanned = at;
    if (state >= REQUEST_LINE_CR || at - parser->line_start < limits->line) {
        return PARSE_MORE;
    }
too_long:
    return refuse(parser, 414, "a request line that is too long", "limit_request_line");
}

/* ---- the whole head
 * ----------------------------------------------------------------------------*/

static enum parse_result
check_host(struct request_parser *parser, const char *base, const struct message_facts *facts)
{
    struct request_head *head = &parser->head;
    struct authority from_host = {{NULL, 0}, AUTHORITY_NO_PORT};
    struct authority authority;
    const char *reason;

    /* RFC 9112 section 3.2: 400 for a 1.1 request that lacks Host, and for any request with more
     * than one or with an invalid one. */
    if (facts->host_count > 1) {
        return refuse_400(parser, "more than one Host");
    }
    if (facts->host_count == 0) {
        if (head->minor_version >= 1) {
            return refuse_400(parser, "a request of HTTP/1.1 without Host");
        }
    } else {
        reason = authority_parse(span_str(facts->host->value, base), &from_host);
        if (reason != NULL) {
            return refuse_400(parser, reason);
        }
    }
    if (head->form == TARGET_ABSOLUTE) {
        reason = authority_parse(span_str(head->authority, base), &authority);
        if (reason != NULL) {
            return refuse_400(parser, reason);
        }
        /* The target's authority would win (RFC 9112 section 3.2.2), but what sits in front of us
         * may have looked at Host; a client MUST send both alike. "http://a:80/" with "Host: a"
         * is alike (RFC 9110 section 4.2.3), and sent by real clients. */
        int32_t default_port = (base[head->target.off + 4] | 0x20) == 's' ? 443 : 80;
        if (facts->host_count == 1 && !authority_equal(&authority, &from_host, default_port)) {
            return refuse_400(parser, "an absolute target that names another host than Host");
        }
    } else {
        authority = from_host;
        if (facts->host_count == 1) {
            head->authority = facts->host->value;
        }
    }
    head->host = (struct span){head->authority.off, (uint32_t)authority.host.len};
    return PARSE_OK;
}

static enum parse_result
check_framing(struct request_parser *parser, const struct message_facts *facts)
{
    struct request_head *head = &parser->head;

    if (facts->transfer_encoding_count > 0) {
        /* RFC 9112 section 6.1: Transfer-Encoding in HTTP/1.0 means faulty framing, and with
         * Content-Length it ought to be handled as an error: both are how requests are smuggled. */
        if (head->minor_version == 0) {
            return refuse_400(parser, "Transfer-Encoding in HTTP/1.0");
        }
        if (facts->content_length_count > 0) {
            return refuse_400(parser, "Transfer-Encoding together with Content-Length");
        }
        switch (facts->coding) {
        case CODING_NONE:
        case CODING_MALFORMED:
            return refuse_400(parser, "a Transfer-Encoding that is not exactly \"chunked\"");
        case CODING_OTHER:
            return refuse(parser, 501, "a transfer coding that is not implemented", NULL);
        case CODING_CHUNKED:
            break;
        }
        head->framing = BODY_CHUNKED;
    } else if (facts->content_length_count > 0) {
        if (facts->content_length_count > 1) {
            return refuse_400(parser, "more than one Content-Length");
        }
        if (facts->content_length_bad != NULL) {
            return refuse_400(parser, facts->content_length_bad);
        }
        head->framing = BODY_LENGTH;
        head->content_length = facts->content_length;
    } else {
        head->framing = BODY_NONE; /* RFC 9112 section 6.3, case 7 */
    }
    return PARSE_OK;
}

static enum parse_result
finish(struct request_parser *parser, const struct request_limits *limits, const char *base)
{
    struct request_head *head = &parser->head;
    struct message_facts facts;

    message_facts_collect(&facts, head->fields, head->field_count, base);
    if (limits->field > 0 && facts.longest_bytes > limits->field) {
        return refuse(parser, 431, "a header field that is too large", "limit_request_field_size");
    }
    if (check_host(parser, base, &facts) == PARSE_BAD ||
        check_framing(parser, &facts) == PARSE_BAD) {
        return PARSE_BAD;
    }
    if (facts.connection_bytes > CONNECTION_OPTIONS_MAX) {
        return refuse(parser, 431, "more than 1024 bytes of Connection options", NULL);
    }
    /* RFC 9112 section 9.3. */
    head->keep_alive_said = facts.connection_keep_alive;
    head->keep_alive =
        !facts.connection_close && (head->minor_version >= 1 || facts.connection_keep_alive);
    /* RFC 9110 section 10.1.1 and 7.8: both to be ignored in HTTP/1.0. */
    head->expect_continue = head->minor_version >= 1 && facts.expect_continue;
    head->expect_other = facts.expect_other;
    head->upgrade = head->minor_version >= 1 && facts.connection_upgrade && facts.upgrade;
    head->length = parser->scanned;
    parser->state = REQUEST_DONE;
    return PARSE_OK;
}

static enum parse_result
read_fields(struct request_parser *parser, const struct request_limits *limits, const char *base,
            uint32_t len)
{
    struct field_lines lines = {
        .fields = parser->head.fields,
        .count = parser->head.field_count,
        .max = limits->fields < HTTP_FIELDS_MAX ? limits->fields : HTTP_FIELDS_MAX,
        .pos = parser->scanned,
        .state = (uint8_t)(parser->state - REQUEST_FIELDS),
    };
    enum field_lines_result result = field_lines_run(&lines, base, len);

    parser->seen += lines.seen;
    parser->scanned = lines.pos;
    parser->state = (uint8_t)(REQUEST_FIELDS + lines.state);
    parser->head.field_count = (uint16_t)lines.count;
    switch (result) {
    case FIELD_LINES_MORE:
        return PARSE_MORE;
    case FIELD_LINES_DONE:
        return finish(parser, limits, base);
    case FIELD_LINES_TOO_MANY:
        return refuse(parser, 431, "too many header fields", "limit_request_fields");
    case FIELD_LINES_BAD:
        break;
    }
    return refuse_400(parser, lines.reason);
}

enum parse_result
request_parser_run(struct request_parser *parser, const struct request_limits *limits,
                   const char *base, size_t len)
{
    /* Nothing beyond the limit is looked at, so the head cannot grow past 32-bit offsets. */
    uint32_t visible = len < limits->head ? (uint32_t)len : limits->head;
    uint32_t before = parser->scanned;
    enum parse_result result = PARSE_OK;

    if (parser->state >= REQUEST_DONE) {
        return parser->state == REQUEST_DONE ? PARSE_OK : PARSE_BAD;
    }
    if (before > visible) {
        visible = before; /* the limit was lowered meanwhile: nothing new to look at */
    }
    if (parser->state < REQUEST_FIELDS) {
        result = read_request_line(parser, limits, base, visible);
    }
    if (result == PARSE_OK) {
        result = read_fields(parser, limits, base, visible);
    }
    if (result == PARSE_MORE && visible >= limits->head) {
        /* Within the request line it is the target that is too long (RFC 9110 section 15.5.15). */
        return refuse(parser, parser->state < REQUEST_FIELDS ? 414 : 431,
                      "a request head that is too large", "limit_request_head");
    }
    return result;
}

/* ---- lookups
 * -----------------------------------------------------------------------------------*/

const struct field *
request_field(const struct request_head *head, enum field_id id)
{
    for (const struct field *field = head->fields; field < head->fields + head->field_count;
         field++) {
        if (field->id == id) {
            return field;
        }
    }
    return NULL;
}

const char *
method_name(enum method method)
{
    static const char *const names[METHOD_COUNT] = {[METHOD_OTHER] = "OTHER",
#define METHOD_NAME(name) [METHOD_##name] = #name,
                                                    METHODS(METHOD_NAME)
#undef METHOD_NAME
    };

    return method < METHOD_COUNT ? names[method] : names[METHOD_OTHER];
}

bool
method_is_idempotent(enum method method)
{
    switch (method) {
    case METHOD_GET:
    case METHOD_HEAD:
    case METHOD_PUT:
    case METHOD_DELETE:
    case METHOD_OPTIONS:
    case METHOD_TRACE:
        return true;
    case METHOD_OTHER:
    case METHOD_POST:
    case METHOD_CONNECT:
    case METHOD_PATCH:
    case METHOD_COUNT:
        break;
    }
    return false;
}
