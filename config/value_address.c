/* SPDX-License-Identifier: Apache-2.0
 *
 * Addresses and servers as text. Numeric only, but for servers (value_name.c): a name would have to
 * be resolved, which blocks and may change between two looks. "localhost" is the one exception,
 * because everybody types it; it is 127.0.0.1 here (RFC 6761 section 6.3 lets it be any loopback
 * address). Runs in the master while it loads settings and in workers while they read an image;
 * keeps no state.
 */
#include "config/value.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/base/str.h"
#include "config/value_private.h"

/* 0, 1 and 2 are standard input and the logs. */
#define INHERITED_FD_MIN 3
#define INHERITED_FD_MAX 65535
#define PORT_MAX 65535
#define WEIGHT_MAX 1000
#define SLOTS_MAX 65535 /* as of [backend] slots */

#define ADDRESS_FORMS "HOST:PORT, [IPV6]:PORT, :PORT, unix:/PATH, systemd:NAME or fd://N"

static char *
parse_unix(const char *text, const char *path, struct address *ret_address)
{
    size_t length = strlen(path);

    if (path[0] != '/') {
        return value_error(text, "must be unix: and an absolute path, for example "
                                 "unix:/run/narwhal/http.sock");
    }
    /* sun_path needs no NUL on Linux, but much that reads it back expects one (unix(7)). */
    if (length >= sizeof(ret_address->un.sun_path)) {
        return value_error(text,
                           "has a path of %zu bytes; the kernel takes at most %zu for a unix "
                           "socket (unix(7))",
                           length, sizeof(ret_address->un.sun_path) - 1);
    }
    if (path[length - 1] == '/') {
        return value_error(text, "names a folder; name the socket itself");
    }
    ret_address->kind = ADDRESS_UNIX;
    ret_address->un.sun_family = AF_UNIX;
    memcpy(ret_address->un.sun_path, path, length + 1);
    ret_address->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + 1);
    (void)snprintf(ret_address->text, sizeof(ret_address->text), "unix:%s", path);
    return NULL;
}

static char *
parse_fd(const char *text, const char *digits, struct address *ret_address)
{
    int64_t number;

    if (!value_scan_number(&digits, &number) || *digits != '\0' || number < INHERITED_FD_MIN ||
        number > INHERITED_FD_MAX) {
        return value_error(text, "must be fd:// and a descriptor number from %d to %d",
                           INHERITED_FD_MIN, INHERITED_FD_MAX);
    }
    ret_address->kind = ADDRESS_FD;
    ret_address->fd = (int)number;
    (void)snprintf(ret_address->text, sizeof(ret_address->text), "fd://%d", (int)number);
    return NULL;
}

/* As systemd has them (FileDescriptorName= of systemd.socket(5)): printable ASCII without ':'. */
static char *
parse_systemd(const char *text, const char *name, struct address *ret_address)
{
    size_t length = strlen(name);
    bool is_good = length > 0 && strlen(text) < sizeof(ret_address->text);

    for (size_t i = 0; i < length && is_good; i++) {
        is_good = name[i] > ' ' && name[i] < 0x7f && name[i] != ':';
    }
    if (!is_good) {
        return value_error(text,
                           "must be systemd: and the name that FileDescriptorName= of a .socket "
                           "unit gives to its sockets (at most %zu characters, no ':'), for "
                           "example systemd:http",
                           sizeof(ret_address->text) - sizeof("systemd:"));
    }
    ret_address->kind = ADDRESS_SYSTEMD;
    (void)snprintf(ret_address->text, sizeof(ret_address->text), "systemd:%s", name);
    return NULL;
}

/* host has no brackets; "" is all IPv4 addresses. Not [::], which would fail where IPv6 is off. */
static char *
parse_ipv4(const char *text, const char *host, in_port_t port, struct address *ret_address)
{
    char numeric[INET_ADDRSTRLEN];

    if (host[0] == '\0') {
        host = "0.0.0.0";
    } else if (strcasecmp(host, "localhost") == 0) {
        host = "127.0.0.1";
    }
    if (inet_pton(AF_INET, host, &ret_address->in.sin_addr) != 1) {
        if (strchr(host, ':') != NULL) {
            return value_error(text, "must have its IPv6 address in brackets: [IPV6]:PORT");
        }
        return value_error(text, "must have a numeric host such as 127.0.0.1; names other than "
                                 "localhost are not resolved");
    }
    ret_address->kind = ADDRESS_TCP;
    ret_address->in.sin_family = AF_INET;
    ret_address->in.sin_port = port;
    ret_address->length = sizeof(ret_address->in);
    CHECK(inet_ntop(AF_INET, &ret_address->in.sin_addr, numeric, sizeof(numeric)) != NULL);
    (void)snprintf(ret_address->text, sizeof(ret_address->text), "%s:%u", numeric, ntohs(port));
    return NULL;
}

static char *
parse_ipv6(const char *text, const char *host, in_port_t port, struct address *ret_address)
{
    char numeric[INET6_ADDRSTRLEN];

    if (inet_pton(AF_INET6, host, &ret_address->in6.sin6_addr) != 1) {
        return value_error(text, "must have a numeric IPv6 address without a zone in its brackets, "
                                 "for example [::1]:8000");
    }
    ret_address->kind = ADDRESS_TCP;
    ret_address->in6.sin6_family = AF_INET6;
    ret_address->in6.sin6_port = port;
    ret_address->length = sizeof(ret_address->in6);
    CHECK(inet_ntop(AF_INET6, &ret_address->in6.sin6_addr, numeric, sizeof(numeric)) != NULL);
    (void)snprintf(ret_address->text, sizeof(ret_address->text), "[%s]:%u", numeric, ntohs(port));
    return NULL;
}

char *
address_parse(const char *text, struct address *ret_address)
{
    char host[64]; /* longer than any numeric address */
    const char *digits;
    const char *host_end;
    const char *host_start = text;
    int64_t port;

    memset(ret_address, 0, sizeof(*ret_address));
    ret_address->fd = -1;
    if (strncmp(text, "unix:", 5) == 0) {
        return parse_unix(text, text + 5, ret_address);
    }
    if (strncmp(text, "fd://", 5) == 0) {
        return parse_fd(text, text + 5, ret_address);
    }
    if (strncmp(text, ADDRESS_SYSTEMD_PREFIX, sizeof(ADDRESS_SYSTEMD_PREFIX) - 1) == 0) {
        return parse_systemd(text, text + sizeof(ADDRESS_SYSTEMD_PREFIX) - 1, ret_address);
    }
    if (text[0] == '[') {
        host_start = text + 1;
        host_end = strchr(text, ']');
        if (host_end == NULL || host_end[1] != ':') {
            return value_error(text, "must be [IPV6]:PORT, for example [::1]:8000");
        }
        digits = host_end + 2;
    } else {
        host_end = strrchr(text, ':');
        if (host_end == NULL) {
            return value_error(text, "is no address; allowed are " ADDRESS_FORMS);
        }
        digits = host_end + 1;
    }
    if (!value_scan_number(&digits, &port) || *digits != '\0' || port > PORT_MAX) {
        return value_error(
            text, "must end in a port number from 0 to %d; allowed are " ADDRESS_FORMS, PORT_MAX);
    }
    size_t length = (size_t)(host_end - host_start);
    if (length >= sizeof(host)) {
        return value_error(text, "must have a numeric host such as 127.0.0.1 or [::1]");
    }
    memcpy(host, host_start, length);
    host[length] = '\0';
    in_port_t network_port = htons((uint16_t)port);
    return text[0] == '[' ? parse_ipv6(text, host, network_port, ret_address)
                          : parse_ipv4(text, host, network_port, ret_address);
}

static uint16_t
address_port(const struct address *address)
{
    return ntohs(address->sa.sa_family == AF_INET6 ? address->in6.sin6_port : address->in.sin_port);
}

/* One word behind the address of a server; false: it is none, or is there for the second time. */
static bool
server_word(struct str word, struct server *server)
{
    char text[32];
    const char *digits;
    int64_t number = 0;

    if (word.len >= sizeof(text)) {
        return false;
    }
    memcpy(text, word.ptr, word.len);
    text[word.len] = '\0';
    if (strcmp(text, "backup") == 0 && !server->backup) {
        server->backup = true;
        return true;
    }
    digits = strchr(text, '=');
    if (digits == NULL) {
        return false;
    }
    digits++;
    if (!value_scan_number(&digits, &number) || *digits != '\0') {
        return false;
    }
    if (strncmp(text, "weight=", 7) == 0 && server->weight == 0) {
        server->weight = number;
        return number >= 1 && number <= WEIGHT_MAX;
    }
    if (strncmp(text, "slots=", 6) == 0 && server->slots == -1) {
        server->slots = number;
        return number >= 0 && number <= SLOTS_MAX;
    }
    return false;
}

char *
server_parse(const char *text, struct server *ret_server)
{
    size_t length = strcspn(text, " \t");
    const char *word = text + length + strspn(text + length, " \t");

    *ret_server = (struct server){.slots = -1};
    while (*word != '\0') {
        size_t word_length = strcspn(word, " \t");
        if (!server_word((struct str){word, word_length}, ret_server)) {
            return value_error(text,
                               "may have nothing but weight=N (1 to %d), slots=N (0 to %d) and "
                               "backup behind the address, each once",
                               WEIGHT_MAX, SLOTS_MAX);
        }
        word += word_length;
        word += strspn(word, " \t");
    }
    if (ret_server->weight == 0) {
        ret_server->weight = 1;
    }
    char *address_text = xstrndup(text, length);
    char *error;
    if (!value_parse_name(address_text, &ret_server->address, &error)) {
        error = address_parse(address_text, &ret_server->address);
    }
    if (error == NULL &&
        (ret_server->address.kind == ADDRESS_FD || ret_server->address.kind == ADDRESS_SYSTEMD)) {
        error = value_error(address_text, "is no address to connect to; allowed are HOST:PORT, "
                                          "[IPV6]:PORT and unix:/PATH");
    }
    if (error == NULL && ret_server->address.kind == ADDRESS_TCP) {
        if (address_text[0] == ':') {
            error = value_error(address_text, "must say which host, for example 127.0.0.1%s",
                                address_text);
        } else if (address_port(&ret_server->address) == 0) {
            error =
                value_error(address_text, "must have a port from 1 to %d to connect to", PORT_MAX);
        }
    }
    free(address_text);
    return error;
}
