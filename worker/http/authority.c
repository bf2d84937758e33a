/* SPDX-License-Identifier: Apache-2.0
 *
 * Grammar of host and port. A host that two parsers read differently is the way around routing
 * and caches, so only what RFC 3986 allows passes; user information is not part of it (RFC 9110
 * section 4.2.4: treat its presence as an error). Runs in worker processes.
 */
#include "worker/http/authority.h"

#include <arpa/inet.h>

#include "worker/http/char_class.h"

static bool
host_is_ip_future(struct str text)
{
    /* "v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" ) */
    size_t i = 1;

    while (i < text.len && char_hex_value(text.ptr[i]) >= 0) {
        i++;
    }
    if (i == 1 || i + 1 >= text.len || text.ptr[i] != '.') {
        return false;
    }
    for (i++; i < text.len; i++) {
        if (!char_is(text.ptr[i], CHAR_REG_NAME) && text.ptr[i] != ':') {
            return false;
        }
    }
    return true;
}

/* What stands between the brackets. A zone ("%25eth0", RFC 6874) means nothing to a server and is
 * refused with all else that inet_pton() does not take. */
static bool
host_is_ip_literal(struct str text)
{
    char copy[INET6_ADDRSTRLEN];
    struct in6_addr address;

    if (text.len > 0 && (text.ptr[0] == 'v' || text.ptr[0] == 'V')) {
        return host_is_ip_future(text);
    }
    /* inet_pton() would stop at a NUL, so that "::1\0x" would pass. */
    if (text.len == 0 || text.len >= sizeof(copy) || memchr(text.ptr, '\0', text.len) != NULL) {
        return false;
    }
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    return inet_pton(AF_INET6, copy, &address) == 1;
}

static const char *
port_parse(struct str text, int32_t *ret_port)
{
    int32_t port = 0;

    /* port = *DIGIT: an empty one is the scheme's default (RFC 3986 section 3.2.3). */
    *ret_port = AUTHORITY_NO_PORT;
    if (text.len == 0) {
        return NULL;
    }
    for (size_t i = 0; i < text.len; i++) {
        if (!char_is(text.ptr[i], CHAR_DIGIT)) {
            return "a port that is no number";
        }
        port = port * 10 + (text.ptr[i] - '0');
        if (port > 65535) {
            return "a port above 65535";
        }
    }
    *ret_port = port;
    return NULL;
}

const char *
authority_parse(struct str text, struct authority *ret_authority)
{
    size_t i = 0;

    if (text.len > 0 && text.ptr[0] == '[') {
        const char *close = memchr(text.ptr, ']', text.len);
        if (close == NULL) {
            return "a host with '[' but without ']'";
        }
        i = (size_t)(close - text.ptr) + 1;
        if (!host_is_ip_literal((struct str){text.ptr + 1, i - 2})) {
            return "a host in brackets that is no IPv6 address";
        }
    } else {
        for (;;) {
            while (i < text.len && char_is(text.ptr[i], CHAR_REG_NAME)) {
                i++;
            }
            if (text.len - i < 3 || text.ptr[i] != '%' || char_hex_value(text.ptr[i + 1]) < 0 ||
                char_hex_value(text.ptr[i + 2]) < 0) {
                break;
            }
            i += 3;
        }
    }
    /* RFC 9110 section 4.2.1: an http URI with an empty host MUST be rejected as invalid, and
     * Host is where the host of the target URI comes from. (RFC 9112 section 3.2 has a client send
     * an empty Host for a target without authority; http and https have no such targets.) */
    if (i == 0) {
        return "an empty or malformed host";
    }
    ret_authority->host = (struct str){text.ptr, i};
    ret_authority->port = AUTHORITY_NO_PORT;
    if (i == text.len) {
        return NULL;
    }
    if (text.ptr[i] != ':') {
        return text.ptr[i] == '@' ? "user information before the host"
                                  : "a byte that may not stand in a host";
    }
    return port_parse((struct str){text.ptr + i + 1, text.len - i - 1}, &ret_authority->port);
}

bool
authority_equal(const struct authority *a, const struct authority *b, int32_t default_port)
{
    int32_t a_port = a->port == AUTHORITY_NO_PORT ? default_port : a->port;
    int32_t b_port = b->port == AUTHORITY_NO_PORT ? default_port : b->port;

    return a_port == b_port && str_equal_nocase(a->host, b->host);
}
