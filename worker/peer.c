/* SPDX-License-Identifier: Apache-2.0
 *
 * Addresses of clients and their textual form. Stateless; runs in workers.
 *
 * Invariant: an IPv4 client is PEER_IPV4 whichever socket it came through, so that what compares or
 * hashes a peer sees one client as one.
 */
#include "worker/peer.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "config/base/check.h"

_Static_assert(PEER_TEXT_MAX >= INET6_ADDRSTRLEN, "the longest address must fit");

/* RFC 4291 section 2.5.5.2: how a dual-stack socket shows an IPv4 client. */
static const uint8_t mapped_prefix[12] = {[10] = 0xff, [11] = 0xff};

void
peer_from_sockaddr(struct peer *ret_peer, const struct sockaddr *sa, socklen_t length)
{
    *ret_peer = (struct peer){.family = PEER_UNIX};
    /* An unnamed unix socket has no more than the family; the address may also be missing. */
    if (length < sizeof(sa->sa_family)) {
        return;
    }
    if (sa->sa_family == AF_INET && length >= sizeof(struct sockaddr_in)) {
        struct sockaddr_in in;
        memcpy(&in, sa, sizeof(in));
        ret_peer->family = PEER_IPV4;
        ret_peer->port = ntohs(in.sin_port);
        memcpy(ret_peer->address, &in.sin_addr, sizeof(in.sin_addr));
    } else if (sa->sa_family == AF_INET6 && length >= sizeof(struct sockaddr_in6)) {
        struct sockaddr_in6 in6;
        memcpy(&in6, sa, sizeof(in6));
        ret_peer->port = ntohs(in6.sin6_port);
        if (memcmp(&in6.sin6_addr, mapped_prefix, sizeof(mapped_prefix)) == 0) {
            ret_peer->family = PEER_IPV4;
            memcpy(ret_peer->address, in6.sin6_addr.s6_addr + sizeof(mapped_prefix), 4);
        } else {
            ret_peer->family = PEER_IPV6;
            memcpy(ret_peer->address, &in6.sin6_addr, sizeof(in6.sin6_addr));
        }
    }
}

/* Runs for every line of the access log, where inet_ntop(3), which goes through snprintf(3), would
 * be most of the cost of the line. */
static size_t
format_ipv4(const uint8_t address[4], char *out)
{
    char *p = out;

    for (int i = 0; i < 4; i++) {
        unsigned int octet = address[i];
        if (octet >= 100) {
            *p++ = (char)('0' + octet / 100);
        }
        if (octet >= 10) {
            *p++ = (char)('0' + octet / 10 % 10);
        }
        *p++ = (char)('0' + octet % 10);
        *p++ = i < 3 ? '.' : '\0';
    }
    return (size_t)(p - out) - 1;
}

size_t
peer_format(const struct peer *peer, char out[PEER_TEXT_MAX])
{
    switch ((enum peer_family)peer->family) {
    case PEER_UNIX:
        memcpy(out, "unix:", sizeof("unix:"));
        return sizeof("unix:") - 1;
    case PEER_IPV4:
        return format_ipv4(peer->address, out);
    case PEER_IPV6:
        CHECK(inet_ntop(AF_INET6, peer->address, out, PEER_TEXT_MAX) != NULL);
        return strlen(out);
    }
    CHECK(peer->family <= PEER_IPV6);
    return 0;
}
