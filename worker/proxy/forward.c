/* SPDX-License-Identifier: Apache-2.0
 *
 * Rewriting heads on their way through (RFC 9110 sections 7.6 and 7.7). Stateless; runs in workers.
 */
#include "worker/proxy/forward.h"

#include <string.h>

#include "worker/forwarded.h"
#include "worker/http/connection_field.h"
#include "worker/http/target.h"

static void
put_target(struct head_writer *writer, const struct forward_input *input)
{
    struct str query = span_str(input->head->query, input->base);

    if (input->path_rewritten || input->cut > 0) {
        struct str rest = {input->path.ptr + input->cut, input->path.len - input->cut};
        if (rest.len == 0 || rest.ptr[0] != '/') {
            head_put(writer, STR("/"));
        }
        size_t need = 3 * rest.len;
        if ((size_t)(writer->end - writer->pos) < need) {
            writer->overflow = true;
            return;
        }
        writer->pos += target_encode(rest, writer->pos);
    } else {
        struct str path = span_str(input->head->path, input->base);
        head_put(writer, path.len > 0 ? path : STR("/"));
    }
    head_put(writer, query);
}

/* Whether a server that maps '-' to '_' (CGI, WSGI) would take the name for one of those that
 * narwhal looks at: X_Forwarded_For would pass for what only narwhal may say. */
static bool
is_disguised(struct str name)
{
    char plain[32];

    if (name.len > sizeof(plain) || memchr(name.ptr, '_', name.len) == NULL) {
        return false;
    }
    for (size_t i = 0; i < name.len; i++) {
        plain[i] = name.ptr[i];
        if (plain[i] == '_') {
            plain[i] = '-';
        }
    }
    return field_id_of((struct str){plain, name.len}) != FIELD_OTHER;
}

/* Fields that narwhal writes itself, or that are its own business. */
static bool
is_rewritten(enum field_id id, const struct forward_input *input)
{
    bool keeps_x_fields = input->believed && input->told_by == TOLD_BY_X_FORWARDED;

    switch (id) {
    case FIELD_HOST:
    case FIELD_CONTENT_LENGTH:
    case FIELD_TRANSFER_ENCODING:
    case FIELD_EXPECT:
    case FIELD_X_FORWARDED_FOR: /* one line of all hops */
    case FIELD_FORWARDED:
        return true;
    case FIELD_X_FORWARDED_PROTO:
    case FIELD_X_FORWARDED_HOST:
    case FIELD_X_FORWARDED_PORT:
        return !keeps_x_fields;
    case FIELD_X_FORWARDED_PREFIX:
        return !keeps_x_fields || input->cut > 0;
    default:
        return false;
    }
}

/* ---- who the client is ------------------------------------------------------------------------
 */

/* The values of all fields of that id as one list, without the line's end. Whether there were any.
 */
static bool
put_list(struct head_writer *writer, const struct forward_input *input, enum field_id id,
         struct str name)
{
    bool any = false;

    for (size_t i = 0; i < input->head->field_count; i++) {
        const struct field *field = &input->head->fields[i];
        if (field->id == id && field->value.len > 0) {
            head_put(writer, any ? STR(", ") : name);
            head_put(writer, span_str(field->value, input->base));
            any = true;
        }
    }
    return any;
}

/* Appended to what a trusted peer sent; a peer on a unix socket has no address to append. */
static void
put_x_forwarded_for(struct head_writer *writer, const struct forward_input *input)
{
    bool appends = input->believed && input->told_by == TOLD_BY_X_FORWARDED;
    const struct peer *last = appends ? input->peer : input->client;
    char address[PEER_TEXT_MAX];
    bool any = appends && put_list(writer, input, FIELD_X_FORWARDED_FOR, STR("X-Forwarded-For: "));

    if (last->family != PEER_UNIX) {
        size_t length = peer_format(last, address);
        head_put(writer, any ? STR(", ") : STR("X-Forwarded-For: "));
        head_put(writer, (struct str){address, length});
        any = true;
    }
    if (any) {
        head_put(writer, STR("\r\n"));
    }
}

/* The port that the client asked for: behind the host's last colon, or the scheme's. */
static void
put_port(struct head_writer *writer, struct str host, struct str proto)
{
    size_t digits = 0;

    while (digits < host.len && host.ptr[host.len - digits - 1] >= '0' &&
           host.ptr[host.len - digits - 1] <= '9') {
        digits++;
    }
    if (digits > 0 && digits <= 5 && digits < host.len && host.ptr[host.len - digits - 1] == ':') {
        head_put_field(writer, STR("X-Forwarded-Port"),
                       (struct str){host.ptr + host.len - digits, digits});
    } else if (str_equal_nocase(proto, STR("https")) || str_equal_nocase(proto, STR("wss"))) {
        head_put(writer, STR("X-Forwarded-Port: 443\r\n"));
    } else {
        head_put(writer, STR("X-Forwarded-Port: 80\r\n"));
    }
}

static bool
is_told(const struct forward_input *input, enum field_id id)
{
    return input->believed && input->told_by == TOLD_BY_X_FORWARDED &&
           request_field(input->head, id) != NULL;
}

/* A prefix that an outer proxy has cut off stands before ours. */
static void
put_prefix(struct head_writer *writer, const struct forward_input *input)
{
    struct str outer = STR("");

    if (is_told(input, FIELD_X_FORWARDED_PREFIX)) {
        outer = span_str(request_field(input->head, FIELD_X_FORWARDED_PREFIX)->value, input->base);
        while (outer.len > 0 && outer.ptr[outer.len - 1] == '/') {
            outer.len--;
        }
    }
    head_put(writer, STR("X-Forwarded-Prefix: "));
    head_put(writer, outer);
    head_put(writer, (struct str){input->path.ptr, input->cut});
    head_put(writer, STR("\r\n"));
}

/* One element of Forwarded (RFC 7239 section 4). */
static void
put_hop(struct head_writer *writer, const struct peer *client, struct str host, struct str proto)
{
    char address[PEER_TEXT_MAX];

    if (client->family == PEER_UNIX) {
        head_put(writer, STR("for=unknown"));
    } else {
        bool is_ipv6 = client->family == PEER_IPV6;
        size_t length = peer_format(client, address);
        head_put(writer, is_ipv6 ? STR("for=\"[") : STR("for="));
        head_put(writer, (struct str){address, length});
        head_put(writer, is_ipv6 ? STR("]\"") : STR(""));
    }
    if (host.len > 0 && host.len <= FORWARDED_HOST_MAX && memchr(host.ptr, '"', host.len) == NULL &&
        memchr(host.ptr, '\\', host.len) == NULL) {
        head_put(writer, STR(";host=\""));
        head_put(writer, host);
        head_put(writer, STR("\""));
    }
    head_put(writer, STR(";proto="));
    head_put(writer, proto);
}

static void
put_forwarded(struct head_writer *writer, const struct forward_input *input)
{
    const struct request_head *head = input->head;
    struct str authority = span_str(head->authority, input->base);
    struct forwarded_facts facts = {STR(""), STR("")};
    bool appends = input->believed && input->told_by == TOLD_BY_FORWARDED;

    if (input->believed) {
        forwarded_find_facts(head, input->base, input->told_by, input->trusted, &facts);
    }
    struct str proto = facts.proto.len > 0 ? facts.proto : STR("http");
    struct str host = facts.host.len > 0 ? facts.host : authority;
    put_x_forwarded_for(writer, input);
    if (!is_told(input, FIELD_X_FORWARDED_PROTO)) {
        head_put_field(writer, STR("X-Forwarded-Proto"), proto);
    }
    if (!is_told(input, FIELD_X_FORWARDED_HOST) && host.len > 0) {
        head_put_field(writer, STR("X-Forwarded-Host"), host);
    }
    if (!is_told(input, FIELD_X_FORWARDED_PORT)) {
        put_port(writer, host, proto);
    }
    if (input->cut > 0) {
        put_prefix(writer, input);
    }
    if (appends && put_list(writer, input, FIELD_FORWARDED, STR("Forwarded: "))) {
        head_put(writer, STR(", "));
        put_hop(writer, input->peer, authority, STR("http"));
        head_put(writer, STR("\r\n"));
    } else if (input->forwarded) {
        head_put(writer, STR("Forwarded: "));
        put_hop(writer, input->client, host, proto);
        head_put(writer, STR("\r\n"));
    }
}

/* ---- heads ------------------------------------------------------------------------------------
 */

bool
forward_asks_upgrade(const struct request_head *head, const char *base)
{
    const struct field *upgrade = head->upgrade ? request_field(head, FIELD_UPGRADE) : NULL;

    if (upgrade == NULL || upgrade->value.len == 0) {
        return false;
    }
    /* A second one has more of the list; a server may ignore Upgrade (RFC 9110 section 7.8). */
    for (size_t i = 0; i < head->field_count; i++) {
        if (head->fields[i].id == FIELD_UPGRADE && &head->fields[i] != upgrade) {
            return false;
        }
    }
    return !token_list_has(span_str(upgrade->value, base), STR("h2c"));
}

/* Whether the client said "TE: trailers" (RFC 9110 section 10.1.4). */
static bool
takes_trailers(const struct request_head *head, const char *base)
{
    const struct field *te = request_field(head, FIELD_TE);

    return te != NULL && token_list_has(span_str(te->value, base), STR("trailers"));
}

void
forward_trailer_names(struct head_writer *writer, const struct field *fields, size_t count,
                      const char *base)
{
    for (size_t i = 0; i < count; i++) {
        if (fields[i].id == FIELD_TRAILER) {
            head_put_field(writer, STR("Trailer"), span_str(fields[i].value, base));
        }
    }
}

/* RFC 9110 section 6.5.1: a recipient may merge trailers with the header fields that were acted
 * upon already, so none may come that authenticates, steers, or says how to read the message. */
static bool
is_trailer_refused(struct str name)
{
    static const char *const refused[] = {
        "accept",
        "age",
        "authorization",
        "cache-control",
        "clear-site-data",
        "content-encoding",
        "content-language",
        "content-location",
        "content-range",
        "content-security-policy",
        "cookie",
        "expires",
        "location",
        "max-forwards",
        "pragma",
        "retry-after",
        "set-cookie",
        "strict-transport-security",
        "vary",
        "warning",
        "www-authenticate",
    };

    if (field_id_of(name) != FIELD_OTHER || is_disguised(name)) {
        return true; /* it frames, routes, or is of one hop; see field.def */
    }
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        if (str_equal_nocase(name, str_from(refused[i]))) {
            return true;
        }
    }
    return false;
}

size_t
forward_trailers_size_max(const struct chunked_trailers *trailers)
{
    return trailers->length + trailers->length / 4 + 8; /* "a:\r\n" becomes "a: \r\n" */
}

void
forward_trailers(struct head_writer *writer, const struct chunked_trailers *trailers)
{
    struct str name;
    struct str value;
    uint32_t at = 0;

    head_put(writer, STR("0\r\n"));
    while (chunked_trailers_next(trailers, &at, &name, &value)) {
        if (!is_trailer_refused(name)) {
            head_put_field(writer, name, value);
        }
    }
    head_put_end(writer);
}

size_t
forward_request_size_max(const struct forward_input *input)
{
    /* What is passed on, which holds the lists too; the path, encoded, and its prefix; the
     * authority as X-Forwarded-Host; two hosts that are told; and what has a fixed length. */
    return (size_t)input->head->length + 4 * input->path.len + input->head->authority.len +
           input->host.len + 2 * FORWARDED_HOST_MAX + 768 + 4 * (size_t)input->head->field_count;
}

void
forward_request_head(struct head_writer *writer, const struct forward_input *input)
{
    const struct request_head *head = input->head;

    head_put(writer, span_str(head->method_text, input->base));
    head_put(writer, STR(" "));
    put_target(writer, input);
    head_put(writer, STR(" HTTP/1.1\r\n"));
    head_put_field(writer, STR("Host"),
                   input->host.len > 0 ? input->host : span_str(head->authority, input->base));
    for (size_t i = 0; i < head->field_count; i++) {
        const struct field *field = &head->fields[i];
        if (!is_rewritten(field->id, input) &&
            !(field->id == FIELD_OTHER && is_disguised(span_str(field->name, input->base))) &&
            !field_is_hop_by_hop(field, head->fields, head->field_count, input->base)) {
            head_put_field(writer, span_str(field->name, input->base),
                           span_str(field->value, input->base));
        }
    }
    put_forwarded(writer, input);
    if (head->framing == BODY_LENGTH) {
        head_put_number_field(writer, STR("Content-Length"), head->content_length);
    } else if (head->framing == BODY_CHUNKED) {
        head_put(writer, STR("Transfer-Encoding: chunked\r\n"));
    }
    bool upgrade = forward_asks_upgrade(head, input->base);
    bool te = input->trailers && takes_trailers(head, input->base);
    if (upgrade) {
        const struct field *protocol = request_field(head, FIELD_UPGRADE);
        head_put_field(writer, STR("Upgrade"), span_str(protocol->value, input->base));
    }
    if (te) {
        head_put(writer, STR("TE: trailers\r\n"));
    }
    if (upgrade || te) {
        head_put(writer, upgrade && te ? STR("Connection: upgrade, TE\r\n")
                         : upgrade     ? STR("Connection: upgrade\r\n")
                                       : STR("Connection: TE\r\n"));
    }
    if (input->trailers && head->framing == BODY_CHUNKED) {
        forward_trailer_names(writer, head->fields, head->field_count, input->base);
    }
    head_put_end(writer);
}

void
forward_response_head(struct head_writer *writer, const struct response_head *head,
                      const char *base, bool *ret_has_date)
{
    *ret_has_date = false;
    head_put_status_line(writer, head->status, span_str(head->reason, base));
    for (size_t i = 0; i < head->field_count; i++) {
        const struct field *field = &head->fields[i];
        if (field->id == FIELD_CONTENT_LENGTH || field->id == FIELD_TRANSFER_ENCODING ||
            field_is_hop_by_hop(field, head->fields, head->field_count, base)) {
            continue;
        }
        if (field->id == FIELD_DATE) {
            *ret_has_date = true;
        }
        head_put_field(writer, span_str(field->name, base), span_str(field->value, base));
    }
}
