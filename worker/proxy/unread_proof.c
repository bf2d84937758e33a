/* SPDX-License-Identifier: Apache-2.0
 *
 * Proofs that a request was not read. Runs in workers.
 *
 * TCP. A segment with FIN acknowledges all that the server's kernel had received when the server
 * closed (RFC 9293 section 3.4: ACK is in every segment after the handshake). So a FIN that
 * acknowledges nothing of the request was sent before the request arrived, and no program read it
 * by then. What arrives at a closed socket is answered with RST (RFC 9293 section 3.5.2), which
 * Linux reports as EPIPE when the FIN came before it and as ECONNRESET when none did
 * (net/ipv4/tcp_input.c, tcp_reset()). EPIPE with nothing acknowledged is therefore a proof;
 * ECONNRESET is not, for a program that closes with unread bytes may have read some of them, and an
 * acknowledgement may be on its way for 40 ms (delayed ACK) while the program works already.
 *
 * A unix socket has no acknowledgements: bytes are with the peer when send(2) returns. Only what
 * the kernel did not take was certainly not read (EPIPE at the first byte).
 */
#include "worker/proxy/unread_proof.h"

#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* The active side's SYN counts as one byte in tcpi_bytes_acked. */
#define SYN_BYTES 1u
/* The RST comes one round trip after the request; when it does not come in this time it was lost.
 */
#define WAIT_MAX_MS 250

/* Both counters of the kernel must say that nothing of the request was acknowledged. */
static bool
is_unacknowledged(int fd, uint64_t sent_before, uint64_t sent, uint32_t *ret_rtt_us)
{
    struct tcp_info info = {0};
    socklen_t length = sizeof(info);
    int unacknowledged = 0;

    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) == -1 ||
        length < offsetof(struct tcp_info, tcpi_bytes_acked) + sizeof(info.tcpi_bytes_acked) ||
        ioctl(fd, SIOCOUTQ, &unacknowledged) == -1) {
        return false; /* no TCP, or a kernel before 4.1 */
    }
    *ret_rtt_us = info.tcpi_rtt;
    return info.tcpi_bytes_acked <= sent_before + SYN_BYTES && unacknowledged >= 0 &&
           (uint64_t)unacknowledged == sent - sent_before;
}

enum unread_proof
unread_proof_look(int fd, int error, uint64_t sent_before, uint64_t sent, int64_t *ret_wait_ms)
{
    socklen_t length = sizeof(error);
    uint32_t rtt_us = 0;

    if (sent == sent_before) {
        return UNREAD_PROVED;
    }
    if (error == 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == -1) {
        return UNREAD_UNKNOWN;
    }
    if ((error != 0 && error != EPIPE) || !is_unacknowledged(fd, sent_before, sent, &rtt_us)) {
        return UNREAD_UNKNOWN;
    }
    if (error == EPIPE) {
        return UNREAD_PROVED;
    }
    *ret_wait_ms = 1 + 2 * (int64_t)rtt_us / 1000;
    if (*ret_wait_ms > WAIT_MAX_MS) {
        *ret_wait_ms = WAIT_MAX_MS;
    }
    return UNREAD_SOON;
}
