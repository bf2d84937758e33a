/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading and writing PROXY protocol headers. Section numbers are those of HAProxy's
 * doc/proxy-protocol.txt. No state; runs in workers.
 */
#include "worker/proxy_protocol.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "config/base/check.h"

/* Section 2.1: with its CRLF. */
#define V1_LENGTH_MAX 107
/* Section 2.2. */
#define V2_HEAD_BYTES 16u
#define V2_VERSION 0x20u
#define V2_LOCAL 0x0u
#define V2_PROXY 0x1u
#define V2_UNSPEC 0x00u
#define V2_TCP4 0x11u
#define V2_TCP6 0x21u
#define V2_UNIX 0x31u
#define V2_TCP4_BYTES 12u
#define V2_TCP6_BYTES 36u
#define V2_UNIX_BYTES 216u
#define V2_TLV_HEAD_BYTES 3u
#define V2_TLV_CRC32C 0x03u

static const char v2_signature[12] = "\r\n\r\n\0\r\nQUIT\n";
static const char v1_prefix[] = "PROXY ";

_Static_assert(PROXY_HEADER_WRITE_MAX >= V1_LENGTH_MAX + 1, "a line of version 1 and its NUL");
_Static_assert(PROXY_HEADER_WRITE_MAX >= V2_HEAD_BYTES + V2_TCP6_BYTES, "or one of version 2");

static enum parse_result
bad(struct proxy_header *header, const char *reason)
{
    header->reason = reason;
    return PARSE_BAD;
}

/* ---- version 1 -------------------------------------------------------------------------------
 */

/* Takes a word up to the next single blank, or the last one. False: there is none, or it does not
 * fit into out. */
static bool
take_word(struct str *rest, bool is_last, char *out, size_t capacity)
{
    const char *blank = memchr(rest->ptr, ' ', rest->len);

    if (is_last ? blank != NULL : blank == NULL) {
        return false;
    }
    size_t length = is_last ? rest->len : (size_t)(blank - rest->ptr);
    if (length == 0 || length >= capacity || memchr(rest->ptr, '\0', length) != NULL) {
        return false;
    }
    memcpy(out, rest->ptr, length);
    out[length] = '\0';
    size_t used = is_last ? length : length + 1;
    *rest = (struct str){rest->ptr + used, rest->len - used};
    return true;
}

static bool
take_port(struct str *rest, bool is_last, uint16_t *ret_port)
{
    char word[6];
    unsigned int number = 0;

    if (!take_word(rest, is_last, word, sizeof(word)) || (word[0] == '0' && word[1] != '\0')) {
        return false;
    }
    for (const char *c = word; *c != '\0'; c++) {
        if (*c < '0' || *c > '9') {
            return false;
        }
        number = number * 10 + (unsigned int)(*c - '0');
    }
    *ret_port = (uint16_t)number;
    return number <= 65535;
}

static bool
take_address(struct str *rest, int family, struct sockaddr_storage *ret_address)
{
    char word[INET6_ADDRSTRLEN];
    void *binary = family == AF_INET ? (void *)&((struct sockaddr_in *)ret_address)->sin_addr
                                     : (void *)&((struct sockaddr_in6 *)ret_address)->sin6_addr;

    memset(ret_address, 0, sizeof(*ret_address));
    ret_address->ss_family = (sa_family_t)family;
    return take_word(rest, false, word, sizeof(word)) && inet_pton(family, word, binary) == 1;
}

static enum parse_result
parse_v1_line(struct str rest, struct proxy_header *header)
{
    struct sockaddr_storage source;
    struct sockaddr_storage destination;
    uint16_t destination_port;
    char protocol[8];
    int family;

    if (str_equal(rest, STR("UNKNOWN")) || str_starts_with(rest, STR("UNKNOWN "))) {
        return PARSE_OK; /* what follows is to be ignored */
    }
    if (!take_word(&rest, false, protocol, sizeof(protocol))) {
        return bad(header, "no protocol in its line");
    }
    if (strcmp(protocol, "TCP4") == 0) {
        family = AF_INET;
    } else if (strcmp(protocol, "TCP6") == 0) {
        family = AF_INET6;
    } else {
        return bad(header, "a protocol that is none of TCP4, TCP6 and UNKNOWN");
    }
    if (!take_address(&rest, family, &source) || !take_address(&rest, family, &destination)) {
        return bad(header, "no address of its protocol where one must be");
    }
    peer_from_sockaddr(&header->client, (const struct sockaddr *)&source, sizeof(source));
    if (!take_port(&rest, false, &header->client.port) ||
        !take_port(&rest, true, &destination_port)) {
        return bad(header, "no port where one must be");
    }
    header->tells_client = true;
    return PARSE_OK;
}

static enum parse_result
parse_v1(const char *bytes, size_t length, struct proxy_header *header)
{
    size_t seen = length < V1_LENGTH_MAX ? length : V1_LENGTH_MAX;
    const char *end = memchr(bytes, '\r', seen);

    if (memchr(bytes, '\n', end != NULL ? (size_t)(end - bytes) : seen) != NULL) {
        return bad(header, "a line end without its CR");
    }
    if (end == NULL) {
        return length < V1_LENGTH_MAX ? PARSE_MORE : bad(header, "a line of more than 107 bytes");
    }
    header->length = (size_t)(end - bytes) + 2;
    if (header->length > V1_LENGTH_MAX) {
        return bad(header, "a line of more than 107 bytes");
    }
    if (header->length > length) {
        return PARSE_MORE;
    }
    if (end[1] != '\n') {
        return bad(header, "a CR without its LF");
    }
    size_t skip = sizeof(v1_prefix) - 1;
    return parse_v1_line((struct str){bytes + skip, (size_t)(end - bytes) - skip}, header);
}

/* ---- version 2 -------------------------------------------------------------------------------
 */

static size_t
load_u16(const char *bytes)
{
    const unsigned char *octets = (const unsigned char *)bytes;

    return (size_t)octets[0] << 8 | octets[1];
}

/* CRC-32C (RFC 4960 appendix B) of the header with the four bytes at `skip` taken as zero. */
static uint32_t
crc32c(const char *bytes, size_t length, size_t skip)
{
    uint32_t crc = UINT32_MAX;

    for (size_t i = 0; i < length; i++) {
        crc ^= i - skip < 4 ? 0 : (uint32_t)(unsigned char)bytes[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ (UINT32_C(0x82f63b78) & (0 - (crc & 1)));
        }
    }
    return ~crc;
}

/* The extensions must fill what is left exactly; a checksum that is there must be right (section
 * 2.2.3). All others are skipped. */
static enum parse_result
check_extensions(const char *bytes, size_t at, size_t length, struct proxy_header *header)
{
    while (at < length) {
        if (length - at < V2_TLV_HEAD_BYTES ||
            length - at - V2_TLV_HEAD_BYTES < load_u16(bytes + at + 1)) {
            return bad(header, "an extension that goes beyond its header");
        }
        size_t size = load_u16(bytes + at + 1);
        if ((unsigned char)bytes[at] == V2_TLV_CRC32C) {
            uint32_t wanted;
            if (size != sizeof(wanted)) {
                return bad(header, "a checksum that has not four bytes");
            }
            memcpy(&wanted, bytes + at + V2_TLV_HEAD_BYTES, sizeof(wanted));
            if (ntohl(wanted) != crc32c(bytes, length, at + V2_TLV_HEAD_BYTES)) {
                return bad(header, "a wrong checksum");
            }
        }
        at += V2_TLV_HEAD_BYTES + size;
    }
    return PARSE_OK;
}

static enum parse_result
parse_v2_addresses(const char *bytes, unsigned int family, struct proxy_header *header)
{
    const char *body = bytes + V2_HEAD_BYTES;
    size_t size = header->length - V2_HEAD_BYTES;
    size_t used = 0;

    if (family == V2_TCP4 && size >= V2_TCP4_BYTES) {
        struct sockaddr_in in = {.sin_family = AF_INET};
        memcpy(&in.sin_addr, body, 4);
        memcpy(&in.sin_port, body + 8, 2);
        peer_from_sockaddr(&header->client, (const struct sockaddr *)&in, sizeof(in));
        used = V2_TCP4_BYTES;
    } else if (family == V2_TCP6 && size >= V2_TCP6_BYTES) {
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
        memcpy(&in6.sin6_addr, body, 16);
        memcpy(&in6.sin6_port, body + 32, 2);
        peer_from_sockaddr(&header->client, (const struct sockaddr *)&in6, sizeof(in6));
        used = V2_TCP6_BYTES;
    } else if (family == V2_UNIX && size >= V2_UNIX_BYTES) {
        header->client = (struct peer){.family = PEER_UNIX};
        used = V2_UNIX_BYTES;
    } else if (family == V2_TCP4 || family == V2_TCP6 || family == V2_UNIX) {
        return bad(header, "too short for its addresses");
    } else if (family != V2_UNSPEC) {
        return bad(header, "a protocol that is no stream");
    }
    header->tells_client = used > 0;
    /* Without a known family nobody knows where the extensions would begin. */
    return used > 0 ? check_extensions(bytes, V2_HEAD_BYTES + used, header->length, header)
                    : PARSE_OK;
}

static enum parse_result
parse_v2(const char *bytes, size_t length, struct proxy_header *header)
{
    unsigned int command = (unsigned char)bytes[12];

    if ((command & 0xf0u) != V2_VERSION) {
        return bad(header, "a version that is not 2");
    }
    if ((command & 0x0fu) != V2_LOCAL && (command & 0x0fu) != V2_PROXY) {
        return bad(header, "a command that is neither LOCAL nor PROXY");
    }
    if (length < V2_HEAD_BYTES) {
        return PARSE_MORE;
    }
    header->length = V2_HEAD_BYTES + load_u16(bytes + 14);
    if (header->length > PROXY_HEADER_MAX) {
        return bad(header, "longer than 4096 bytes");
    }
    if (length < header->length) {
        return PARSE_MORE;
    }
    if ((command & 0x0fu) == V2_LOCAL) {
        return PARSE_OK; /* whatever addresses there are must be discarded */
    }
    return parse_v2_addresses(bytes, (unsigned char)bytes[13], header);
}

static bool
begins_like(const char *bytes, size_t length, const char *wanted, size_t wanted_length)
{
    return memcmp(bytes, wanted, length < wanted_length ? length : wanted_length) == 0;
}

enum parse_result
proxy_header_parse(const char *bytes, size_t length, struct proxy_header *ret_header)
{
    *ret_header = (struct proxy_header){0};
    if (length == 0) {
        return PARSE_MORE;
    }
    if (begins_like(bytes, length, v1_prefix, sizeof(v1_prefix) - 1)) {
        return length < sizeof(v1_prefix) - 1 ? PARSE_MORE : parse_v1(bytes, length, ret_header);
    }
    if (begins_like(bytes, length, v2_signature, sizeof(v2_signature))) {
        return length <= sizeof(v2_signature) ? PARSE_MORE : parse_v2(bytes, length, ret_header);
    }
    return bad(ret_header, "no PROXY protocol header at all");
}

/* ---- writing ---------------------------------------------------------------------------------
 */

/* As one of IPv6, mapped if it is one of IPv4 (RFC 4291 section 2.5.5.2). */
static void
store_ipv6(const struct peer *peer, uint8_t out[16])
{
    if (peer->family == PEER_IPV6) {
        memcpy(out, peer->address, 16);
        return;
    }
    memset(out, 0, 16);
    out[10] = 0xff;
    out[11] = 0xff;
    memcpy(out + 12, peer->address, 4);
}

static size_t
write_v1(const struct peer *client, const struct peer *local, char *out)
{
    bool is_ipv4 = client->family == PEER_IPV4 && local->family == PEER_IPV4;
    char source[INET6_ADDRSTRLEN];
    char destination[INET6_ADDRSTRLEN];
    uint8_t wide[2][16];

    store_ipv6(client, wide[0]);
    store_ipv6(local, wide[1]);
    CHECK(inet_ntop(is_ipv4 ? AF_INET : AF_INET6, is_ipv4 ? client->address : wide[0], source,
                    sizeof(source)) != NULL);
    CHECK(inet_ntop(is_ipv4 ? AF_INET : AF_INET6, is_ipv4 ? local->address : wide[1], destination,
                    sizeof(destination)) != NULL);
    int length = snprintf(out, PROXY_HEADER_WRITE_MAX, "PROXY TCP%d %s %s %u %u\r\n",
                          is_ipv4 ? 4 : 6, source, destination, client->port, local->port);
    CHECK(length > 0 && length <= V1_LENGTH_MAX);
    return (size_t)length;
}

static size_t
write_v2(unsigned int command, const struct peer *client, const struct peer *local, char *out)
{
    uint16_t ports[2] = {htons(client->port), htons(local->port)};
    bool has_addresses = client->family != PEER_UNIX && local->family != PEER_UNIX;
    bool is_ipv4 = client->family == PEER_IPV4 && local->family == PEER_IPV4;
    size_t size = !has_addresses ? 0 : is_ipv4 ? V2_TCP4_BYTES : V2_TCP6_BYTES;
    size_t each = is_ipv4 ? 4 : 16;
    uint8_t wide[2][16];

    memcpy(out, v2_signature, sizeof(v2_signature));
    out[12] = (char)(V2_VERSION | command);
    out[13] = (char)(!has_addresses ? V2_UNSPEC : is_ipv4 ? V2_TCP4 : V2_TCP6);
    out[14] = 0;
    out[15] = (char)size;
    if (has_addresses) {
        store_ipv6(client, wide[0]);
        store_ipv6(local, wide[1]);
        memcpy(out + V2_HEAD_BYTES, is_ipv4 ? client->address : wide[0], each);
        memcpy(out + V2_HEAD_BYTES + each, is_ipv4 ? local->address : wide[1], each);
        memcpy(out + V2_HEAD_BYTES + 2 * each, ports, sizeof(ports));
    }
    return V2_HEAD_BYTES + size;
}

size_t
proxy_header_write(enum proxy_version version, const struct peer *client, const struct peer *local,
                   char out[PROXY_HEADER_WRITE_MAX])
{
    if (version == PROXY_V2) {
        return write_v2(V2_PROXY, client, local, out);
    }
    if (client->family == PEER_UNIX || local->family == PEER_UNIX) {
        return proxy_header_write_local(version, out);
    }
    return write_v1(client, local, out);
}

size_t
proxy_header_write_local(enum proxy_version version, char out[PROXY_HEADER_WRITE_MAX])
{
    static const char unknown[] = "PROXY UNKNOWN\r\n";
    const struct peer nobody = {.family = PEER_UNIX};

    if (version == PROXY_V2) {
        return write_v2(V2_LOCAL, &nobody, &nobody, out);
    }
    memcpy(out, unknown, sizeof(unknown) - 1);
    return sizeof(unknown) - 1;
}
