/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading X-Forwarded-* and Forwarded. Both are lists over all field lines of that name, oldest hop
 * first. A hop that cannot be read ends the search: beyond it nobody vouches for anything.
 * Stateless; runs in workers.
 */
#include "worker/forwarded.h"

#include <arpa/inet.h>
#include <string.h>

#include "worker/http/char_class.h"

_Static_assert((int)NETWORK_UNIX == (int)PEER_UNIX && (int)NETWORK_IPV4 == (int)PEER_IPV4 &&
                   (int)NETWORK_IPV6 == (int)PEER_IPV6,
               "families of networks are those of peers");

/* One element of Forwarded. */
struct hop {
    bool is_known; /* client holds an address */
    struct peer client;
    struct str proto;
    struct str host;
};

bool
forwarded_trusts(const struct network_list *trusted, const struct peer *peer)
{
    return network_list_has(trusted, (enum network_family)peer->family, peer->address);
}

/* ---- addresses -------------------------------------------------------------------------------
 */

static struct str
trim(struct str text)
{
    while (text.len > 0 && (text.ptr[0] == ' ' || text.ptr[0] == '\t')) {
        text = (struct str){text.ptr + 1, text.len - 1};
    }
    while (text.len > 0 && (text.ptr[text.len - 1] == ' ' || text.ptr[text.len - 1] == '\t')) {
        text.len--;
    }
    return text;
}

static bool
parse_port(struct str text, uint16_t *ret_port)
{
    unsigned int port = 0;

    if (text.len == 0 || text.len > 5) {
        return false;
    }
    for (size_t i = 0; i < text.len; i++) {
        if (!char_is(text.ptr[i], CHAR_DIGIT)) {
            return false;
        }
        port = port * 10 + (unsigned int)(text.ptr[i] - '0');
    }
    *ret_port = (uint16_t)port;
    return port <= 65535;
}

static bool
parse_ip(int family, struct str text, struct peer *ret_peer)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    char copy[INET6_ADDRSTRLEN];

    if (text.len >= sizeof(copy) || memchr(text.ptr, '\0', text.len) != NULL) {
        return false;
    }
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    if (family == AF_INET) {
        peer_from_sockaddr(ret_peer, (const struct sockaddr *)&in, sizeof(in));
        if (inet_pton(AF_INET, copy, &in.sin_addr) != 1) {
            return false;
        }
        peer_from_sockaddr(ret_peer, (const struct sockaddr *)&in, sizeof(in));
        return true;
    }
    if (inet_pton(AF_INET6, copy, &in6.sin6_addr) != 1) {
        return false;
    }
    peer_from_sockaddr(ret_peer, (const struct sockaddr *)&in6, sizeof(in6));
    return true;
}

/* 192.0.2.1, 192.0.2.1:80, [2001:db8::1], [2001:db8::1]:80 and, without a port, 2001:db8::1. */
static bool
parse_node(struct str text, struct peer *ret_peer)
{
    uint16_t port = 0;

    if (text.len == 0) {
        return false;
    }
    if (text.ptr[0] == '[') {
        const char *end = memchr(text.ptr, ']', text.len);
        if (end == NULL) {
            return false;
        }
        struct str inner = {text.ptr + 1, (size_t)(end - text.ptr) - 1};
        struct str rest = {end + 1, (size_t)(text.ptr + text.len - end) - 1};
        if (!parse_ip(AF_INET6, inner, ret_peer) ||
            (rest.len > 0 && (rest.ptr[0] != ':' ||
                              !parse_port((struct str){rest.ptr + 1, rest.len - 1}, &port)))) {
            return false;
        }
        ret_peer->port = port;
        return true;
    }
    const char *colon = memchr(text.ptr, ':', text.len);
    if (colon == NULL) {
        return parse_ip(AF_INET, text, ret_peer);
    }
    struct str before = {text.ptr, (size_t)(colon - text.ptr)};
    struct str after = {colon + 1, text.len - before.len - 1};
    if (memchr(after.ptr, ':', after.len) != NULL) {
        return parse_ip(AF_INET6, text, ret_peer);
    }
    if (!parse_ip(AF_INET, before, ret_peer) || !parse_port(after, &port)) {
        return false;
    }
    ret_peer->port = port;
    return true;
}

/* ---- X-Forwarded-For -------------------------------------------------------------------------
 */

/* Takes the last element off a list; empty ones are skipped. False: none is left. */
static bool
take_last(struct str *list, struct str *ret_element)
{
    while (list->len > 0) {
        const char *comma = memrchr(list->ptr, ',', list->len);
        size_t begin = comma != NULL ? (size_t)(comma - list->ptr) + 1 : 0;
        struct str element = trim((struct str){list->ptr + begin, list->len - begin});
        list->len = comma != NULL ? begin - 1 : 0;
        if (element.len > 0) {
            *ret_element = element;
            return true;
        }
    }
    return false;
}

static void
find_in_x_forwarded_for(const struct request_head *head, const char *base,
                        const struct network_list *trusted, struct peer *client)
{
    unsigned int hops = 0;

    for (size_t i = head->field_count; i-- > 0;) {
        if (head->fields[i].id != FIELD_X_FORWARDED_FOR) {
            continue;
        }
        struct str list = span_str(head->fields[i].value, base);
        struct str element;
        while (take_last(&list, &element)) {
            struct peer told;
            if (hops++ == FORWARDED_HOPS_MAX || !parse_node(element, &told)) {
                return;
            }
            *client = told;
            if (!forwarded_trusts(trusted, client)) {
                return;
            }
        }
    }
}

/* ---- Forwarded -------------------------------------------------------------------------------
 */

/* Takes a token or a quoted string off text; with a backslash in it, it is taken as empty: nothing
 * that is looked for needs one. False: there is neither. */
static bool
take_value(struct str *text, struct str *ret_value)
{
    size_t length = 0;

    if (text->len > 0 && text->ptr[0] == '"') {
        bool has_escape = false;
        for (length = 1; length < text->len && text->ptr[length] != '"'; length++) {
            if (text->ptr[length] == '\\') {
                has_escape = true;
                length++;
            }
        }
        if (length >= text->len) {
            return false;
        }
        *ret_value = (struct str){text->ptr + 1, has_escape ? 0 : length - 1};
        length++;
    } else {
        while (length < text->len && char_is(text->ptr[length], CHAR_TOKEN)) {
            length++;
        }
        if (length == 0) {
            return false;
        }
        *ret_value = (struct str){text->ptr, length};
    }
    *text = (struct str){text->ptr + length, text->len - length};
    return true;
}

static void
note_pair(struct hop *hop, struct str name, struct str value)
{
    if (str_equal_nocase(name, STR("for"))) {
        hop->is_known = parse_node(value, &hop->client);
    } else if (str_equal_nocase(name, STR("proto"))) {
        hop->proto = value;
    } else if (str_equal_nocase(name, STR("host"))) {
        hop->host = value;
    }
}

/* Takes one element, up to its comma or the end. False: it breaks the grammar. */
static bool
take_element(struct str *list, struct hop *ret_hop)
{
    *ret_hop = (struct hop){.proto = STR(""), .host = STR("")};
    for (;;) {
        struct str name;
        struct str value;
        *list = trim(*list);
        if (list->len > 0 && list->ptr[0] != ';' && list->ptr[0] != ',') {
            if (!take_value(list, &name) || list->len == 0 || list->ptr[0] != '=') {
                return false;
            }
            *list = (struct str){list->ptr + 1, list->len - 1};
            if (!take_value(list, &value)) {
                return false;
            }
            note_pair(ret_hop, name, value);
            *list = trim(*list);
        }
        if (list->len == 0) {
            return true;
        }
        char end = list->ptr[0];
        *list = (struct str){list->ptr + 1, list->len - 1};
        if (end == ',') {
            return true;
        }
        if (end != ';') {
            return false;
        }
    }
}

/* The last hops, the newest at the end of the ring; *ret_count of them count. */
static void
collect_hops(const struct request_head *head, const char *base, struct hop ring[FORWARDED_HOPS_MAX],
             size_t *ret_newest, size_t *ret_count)
{
    size_t total = 0;
    size_t usable = 0;

    for (size_t i = 0; i < head->field_count; i++) {
        if (head->fields[i].id != FIELD_FORWARDED) {
            continue;
        }
        struct str list = trim(span_str(head->fields[i].value, base));
        while (list.len > 0) {
            struct hop hop;
            if (!take_element(&list, &hop)) {
                usable = 0; /* and what is left of the line is not looked at */
                break;
            }
            ring[total++ % FORWARDED_HOPS_MAX] = hop;
            usable++;
        }
    }
    *ret_newest = total > 0 ? (total - 1) % FORWARDED_HOPS_MAX : 0;
    *ret_count = usable < FORWARDED_HOPS_MAX ? usable : FORWARDED_HOPS_MAX;
}

/* The hop that tells of the client; false: none does. */
static bool
find_in_forwarded(const struct request_head *head, const char *base,
                  const struct network_list *trusted, struct hop *ret_hop)
{
    struct hop ring[FORWARDED_HOPS_MAX];
    size_t newest;
    size_t count;
    bool found = false;

    collect_hops(head, base, ring, &newest, &count);
    for (size_t i = 0; i < count; i++) {
        const struct hop *hop = &ring[(newest + FORWARDED_HOPS_MAX - i) % FORWARDED_HOPS_MAX];
        if (!hop->is_known) {
            return found;
        }
        *ret_hop = *hop;
        found = true;
        if (!forwarded_trusts(trusted, &hop->client)) {
            return true;
        }
    }
    return found;
}

/* ---- interface -------------------------------------------------------------------------------
 */

void
forwarded_find_client(const struct request_head *head, const char *base, enum told_by told_by,
                      const struct network_list *trusted, const struct peer *peer,
                      struct peer *ret_client)
{
    struct hop hop;

    *ret_client = *peer;
    if (told_by == TOLD_BY_X_FORWARDED) {
        find_in_x_forwarded_for(head, base, trusted, ret_client);
    } else if (find_in_forwarded(head, base, trusted, &hop)) {
        *ret_client = hop.client;
    }
}

/* What could not be mistaken for anything else where it is written again. */
static struct str
plain_or_nothing(struct str text, size_t most, const char *more)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || char_is(c, CHAR_DIGIT);
        if (!is_plain && (c == '\0' || strchr(more, c) == NULL)) {
            return STR("");
        }
    }
    return text.len <= most ? text : STR("");
}

void
forwarded_find_facts(const struct request_head *head, const char *base, enum told_by told_by,
                     const struct network_list *trusted, struct forwarded_facts *ret_facts)
{
    struct hop hop = {.proto = STR(""), .host = STR("")};

    if (told_by == TOLD_BY_X_FORWARDED) {
        const struct field *proto = request_field(head, FIELD_X_FORWARDED_PROTO);
        const struct field *host = request_field(head, FIELD_X_FORWARDED_HOST);
        hop.proto = proto != NULL ? span_str(proto->value, base) : STR("");
        hop.host = host != NULL ? span_str(host->value, base) : STR("");
    } else {
        (void)find_in_forwarded(head, base, trusted, &hop);
    }
    ret_facts->proto = plain_or_nothing(hop.proto, 16, "+-.");
    ret_facts->host = plain_or_nothing(hop.host, FORWARDED_HOST_MAX, "-._:[]~");
}
