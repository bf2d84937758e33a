/* SPDX-License-Identifier: Apache-2.0
 *
 * Telling servers who the client is before the first request. Stateless; runs in workers.
 */
#include "worker/proxy/preface.h"

#include <string.h>
#include <sys/socket.h>

#include "worker/conn.h"
#include "worker/exchange.h"
#include "worker/live.h"
#include "worker/proxy/proxy_private.h"
#include "worker/proxy/upstream.h"
#include "worker/proxy_protocol.h"

struct preface_owner
preface_owner_of(const struct proxy *proxy)
{
    enum proxy_version version = proxy->backend->settings->proxy_protocol;

    if (version == PROXY_OFF) {
        return (struct preface_owner){.version = PROXY_OFF};
    }
    return (struct preface_owner){.version = version,
                                  .conn_number = proxy->exchange->conn->number,
                                  .client = proxy->exchange->client};
}

bool
preface_owner_equal(const struct preface_owner *a, const struct preface_owner *b)
{
    if (a == NULL) {
        return b->version == PROXY_OFF;
    }
    return a->version == b->version && a->conn_number == b->conn_number &&
           a->client.family == b->client.family && a->client.port == b->client.port &&
           memcmp(a->client.address, b->client.address, sizeof(a->client.address)) == 0;
}

/* The address that the client's connection came to. */
static void
find_local(const struct conn *conn, struct peer *ret_local)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof(address);

    if (getsockname(conn->stream.io.fd, (struct sockaddr *)&address, &length) == -1) {
        length = 0; /* shown as a unix socket: no address to tell */
    }
    peer_from_sockaddr(ret_local, (const struct sockaddr *)&address, length);
}

void
preface_put(const struct proxy *proxy)
{
    const struct upstream_conn *conn = proxy->conn;
    char header[PROXY_HEADER_WRITE_MAX];
    struct peer local;

    if (conn->owner == NULL || conn->requests > 0) {
        return;
    }
    find_local(proxy->exchange->conn, &local);
    stream_put_copy(&proxy->conn->stream, header,
                    proxy_header_write(conn->owner->version, &conn->owner->client, &local, header));
}
