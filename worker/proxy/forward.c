/* SPDX-License-Identifier: Apache-2.0
 *
 * Rewriting heads on their way through (RFC 9110 sections 7.6 and 7.7). Stateless; runs in workers.
 */
#include "worker/proxy/forward.h"

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
is_rewritten(enum field_id id, bool believe_peer)
{
    switch (id) {
    case FIELD_HOST:
    case FIELD_CONTENT_LENGTH:
    case FIELD_TRANSFER_ENCODING:
    case FIELD_EXPECT:
        return true;
    case FIELD_X_FORWARDED_FOR:
    case FIELD_X_FORWARDED_PROTO:
    case FIELD_X_FORWARDED_HOST:
    case FIELD_X_FORWARDED_PREFIX:
    case FIELD_FORWARDED:
        return !believe_peer;
    default:
        return false;
    }
}

static void
put_forwarded(struct head_writer *writer, const struct forward_input *input)
{
    char client[PEER_TEXT_MAX];
    size_t length = peer_format(input->peer, client);
    struct str host = span_str(input->head->authority, input->base);

    head_put_field(writer, STR("X-Forwarded-For"), (struct str){client, length});
    head_put(writer, STR("X-Forwarded-Proto: http\r\n"));
    if (host.len > 0) {
        head_put_field(writer, STR("X-Forwarded-Host"), host);
    }
    if (input->cut > 0) {
        head_put_field(writer, STR("X-Forwarded-Prefix"),
                       (struct str){input->path.ptr, input->cut});
    }
}

bool
forward_asks_upgrade(const struct request_head *head, const char *base)
{
    const struct field *upgrade = head->upgrade ? request_field(head, FIELD_UPGRADE) : NULL;

    return upgrade != NULL && !token_list_has(span_str(upgrade->value, base), STR("h2c"));
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
        if (field_id_of(name) == FIELD_OTHER && !is_disguised(name)) {
            head_put_field(writer, name, value);
        }
    }
    head_put_end(writer);
}

size_t
forward_request_size_max(const struct forward_input *input)
{
    return (size_t)input->head->length + 4 * input->path.len + input->head->authority.len + 512 +
           4 * (size_t)input->head->field_count;
}

void
forward_request_head(struct head_writer *writer, const struct forward_input *input)
{
    const struct request_head *head = input->head;
    bool believe_peer = input->peer->family == PEER_UNIX;

    head_put(writer, span_str(head->method_text, input->base));
    head_put(writer, STR(" "));
    put_target(writer, input);
    head_put(writer, STR(" HTTP/1.1\r\n"));
    head_put_field(writer, STR("Host"), span_str(head->authority, input->base));
    for (size_t i = 0; i < head->field_count; i++) {
        const struct field *field = &head->fields[i];
        if (!is_rewritten(field->id, believe_peer) &&
            !(field->id == FIELD_OTHER && is_disguised(span_str(field->name, input->base))) &&
            !field_is_hop_by_hop(field, head->fields, head->field_count, input->base)) {
            head_put_field(writer, span_str(field->name, input->base),
                           span_str(field->value, input->base));
        }
    }
    if (!believe_peer) {
        put_forwarded(writer, input);
    }
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
