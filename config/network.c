/* SPDX-License-Identifier: Apache-2.0
 *
 * Networks as text and as a question. No state; runs in the master while it loads settings, and in
 * workers.
 */
#include "config/network.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "config/base/buf.h"
#include "config/base/check.h"
#include "config/value_private.h"

#define NETWORK_FORMS                                                                              \
    "an IPv4 or IPv6 address, a network such as 10.0.0.0/8 or 2001:db8::/32, or unix"

/* RFC 4291 section 2.5.5.2. Peers of that form are IPv4 peers to narwhal, whichever socket they
 * came through, so such a network would never match. */
static const uint8_t mapped_prefix[12] = {[10] = 0xff, [11] = 0xff};

static size_t
address_bits(enum network_family family)
{
    return family == NETWORK_UNIX ? 0 : family == NETWORK_IPV4 ? 32 : 128;
}

/* Whether the first bits of both are the same. */
static bool
is_prefix_equal(const uint8_t *a, const uint8_t *b, size_t bits)
{
    size_t whole = bits / 8;
    uint8_t mask = (uint8_t)(0xff00u >> (bits % 8));

    return memcmp(a, b, whole) == 0 && (bits % 8 == 0 || (a[whole] & mask) == (b[whole] & mask));
}

static void
clear_host_bits(struct network *network)
{
    for (size_t bit = network->bits; bit < address_bits(network->family); bit++) {
        network->address[bit / 8] &= (uint8_t) ~(0x80u >> (bit % 8));
    }
}

static char *
parse_prefix(const char *text, const char *digits, struct network *network)
{
    struct network whole = *network;
    int64_t bits;

    if (!value_scan_number(&digits, &bits) || *digits != '\0' ||
        bits > (int64_t)address_bits(network->family)) {
        return value_error(text, "must have a number from 0 to %zu behind the slash",
                           address_bits(network->family));
    }
    network->bits = (uint8_t)bits;
    clear_host_bits(network);
    if (memcmp(network->address, whole.address, sizeof(whole.address)) != 0) {
        struct buf wanted = {0};
        network_print(network, &wanted);
        char *error = value_error(text,
                                  "has bits behind its prefix: write %s for that network, or "
                                  "leave the slash away for one address",
                                  wanted.ptr);
        buf_release(&wanted);
        return error;
    }
    return NULL;
}

char *
network_parse(const char *text, struct network *ret_network)
{
    char address[INET6_ADDRSTRLEN];
    const char *slash = strchr(text, '/');
    size_t length = slash != NULL ? (size_t)(slash - text) : strlen(text);

    memset(ret_network, 0, sizeof(*ret_network));
    if (strcmp(text, "unix") == 0) {
        ret_network->family = NETWORK_UNIX;
        return NULL;
    }
    if (length >= sizeof(address)) {
        return value_error(text, "is no network; it must be " NETWORK_FORMS);
    }
    memcpy(address, text, length);
    address[length] = '\0';
    if (inet_pton(AF_INET, address, ret_network->address) == 1) {
        ret_network->family = NETWORK_IPV4;
    } else if (inet_pton(AF_INET6, address, ret_network->address) == 1) {
        ret_network->family = NETWORK_IPV6;
    } else {
        return value_error(text, "is no network; it must be " NETWORK_FORMS);
    }
    ret_network->bits = (uint8_t)address_bits(ret_network->family);
    char *error = slash != NULL ? parse_prefix(text, slash + 1, ret_network) : NULL;
    if (error == NULL && ret_network->family == NETWORK_IPV6 && ret_network->bits >= 96 &&
        memcmp(ret_network->address, mapped_prefix, sizeof(mapped_prefix)) == 0) {
        error = value_error(text, "is an IPv4 network in the clothes of IPv6; write it as IPv4");
    }
    return error;
}

void
network_print(const struct network *network, struct buf *out)
{
    char text[INET6_ADDRSTRLEN];

    if (network->family == NETWORK_UNIX) {
        buf_add_text(out, "unix");
        return;
    }
    CHECK(inet_ntop(network->family == NETWORK_IPV4 ? AF_INET : AF_INET6, network->address, text,
                    sizeof(text)) != NULL);
    buf_add_text(out, text);
    if (network->bits < address_bits(network->family)) {
        buf_addf(out, "/%u", network->bits);
    }
}

bool
network_list_has(const struct network_list *list, enum network_family family,
                 const uint8_t *address)
{
    for (size_t i = 0; i < list->count; i++) {
        const struct network *network = &list->item[i];
        if (network->family == family &&
            is_prefix_equal(network->address, address, network->bits)) {
            return true;
        }
    }
    return false;
}
