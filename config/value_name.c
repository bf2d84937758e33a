/* SPDX-License-Identifier: Apache-2.0
 *
 * Servers that are given by name: dns:HOST:PORT or HOST:PORT, and dns+srv:NAME. Nothing is resolved
 * here, because that would block: the name goes into the address as text, and the resolver process
 * asks for it later. Keeps no state.
 */
#include "config/value.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/value_private.h"

/* RFC 1035 section 2.3.4. */
#define LABEL_MAX 63

#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

/* Labels of letters, digits, '-' and, as SRV has them, '_'. The last one must not be a number: it
 * would be a mistyped address, which some resolvers even take for one. */
static bool
is_name(const char *text)
{
    bool is_number = false;

    while (*text != '\0') {
        size_t length = strspn(text, LOWER UPPER DIGITS "-_");
        if (length == 0 || length > LABEL_MAX || text[0] == '-' || text[length - 1] == '-') {
            return false;
        }
        is_number = strspn(text, DIGITS) == length;
        text += length;
        if (*text == '.') {
            text++;
        } else if (*text != '\0') {
            return false;
        }
    }
    return !is_number;
}

static char *
store(const char *text, enum address_kind kind, const char *scheme, const char *rest,
      struct address *ret_address)
{
    int length = snprintf(ret_address->text, sizeof(ret_address->text), "%s%s", scheme, rest);

    if (length < 0 || (size_t)length >= sizeof(ret_address->text)) {
        return value_error(text, "has a name that is too long; with its dns: it may have %zu bytes",
                           sizeof(ret_address->text) - 1);
    }
    for (char *c = ret_address->text; *c != '\0'; c++) {
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c + ('a' - 'A')) : *c;
    }
    ret_address->kind = kind;
    return NULL;
}

static char *
parse_srv(const char *text, const char *name, struct address *ret_address)
{
    if (name[0] == '\0' || !is_name(name)) {
        return value_error(text, "must be dns+srv: and the name of a service, for example "
                                 "dns+srv:_http._tcp.api.internal");
    }
    return store(text, ADDRESS_SRV, "dns+srv:", name, ret_address);
}

static char *
parse_host(const char *text, const char *rest, struct address *ret_address)
{
    const char *colon = strrchr(rest, ':');
    const char *digits = colon != NULL ? colon + 1 : "";
    char *host = xstrndup(rest, colon != NULL ? (size_t)(colon - rest) : strlen(rest));
    bool is_good = host[0] != '\0' && is_name(host);
    int64_t port = 0;

    free(host);
    if (!is_good) {
        return value_error(text, "must be dns:HOST:PORT with the name of a host, for example "
                                 "dns:api.internal:8000");
    }
    if (!value_scan_number(&digits, &port) || *digits != '\0' || port < 1 || port > 65535) {
        return value_error(text, "must have a port from 1 to 65535 behind its name");
    }
    ret_address->in.sin_port = htons((uint16_t)port);
    return store(text, ADDRESS_NAME, "dns:", rest, ret_address);
}

/* HOST:PORT whose host has a letter, and is not one of the forms of address_parse(). */
static bool
is_plain_name(const char *text)
{
    size_t length = strcspn(text, ":");
    char *host = xstrndup(text, length);
    bool result = text[length] == ':' && strchr(text + length + 1, ':') == NULL &&
                  strncmp(text, "unix:", 5) != 0 && strncmp(text, "fd:", 3) != 0 &&
                  strcasecmp(host, "localhost") != 0 && host[0] != '\0' &&
                  strpbrk(host, LOWER UPPER) != NULL && is_name(host);

    free(host);
    return result;
}

bool
value_parse_name(const char *text, struct address *ret_address, char **ret_error)
{
    const char *colon = strchr(text, ':');

    memset(ret_address, 0, sizeof(*ret_address));
    ret_address->fd = -1;
    *ret_error = NULL;
    if (strncmp(text, "dns+srv:", 8) == 0) {
        *ret_error = parse_srv(text, colon + 1, ret_address);
    } else if (strncmp(text, "dns:", 4) == 0 && strchr(colon + 1, ':') != NULL) {
        *ret_error = parse_host(text, colon + 1, ret_address);
    } else if (is_plain_name(text)) {
        *ret_error = parse_host(text, text, ret_address);
    } else {
        return false;
    }
    return true;
}

bool
address_is_name(const struct address *address)
{
    return address->kind == ADDRESS_NAME || address->kind == ADDRESS_SRV;
}

void
address_name(const struct address *address, char ret_name[ADDRESS_TEXT_MAX], uint16_t *ret_port)
{
    const char *name = strchr(address->text, ':') + 1;
    size_t length =
        address->kind == ADDRESS_SRV ? strlen(name) : (size_t)(strrchr(name, ':') - name);

    memcpy(ret_name, name, length);
    ret_name[length] = '\0';
    *ret_port = address->kind == ADDRESS_SRV ? 0 : ntohs(address->in.sin_port);
}
