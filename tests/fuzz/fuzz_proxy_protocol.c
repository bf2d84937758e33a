/* SPDX-License-Identifier: Apache-2.0
 *
 * PROXY protocol headers. Whatever comes: the verdict on a beginning is MORE until it is final, a
 * header ends inside the input, only the bytes of the header decide, and the client that was read
 * is read again from what narwhal writes.
 */
#include "worker/proxy_protocol.h"

#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"

static void
check_client(const struct peer *client)
{
    struct peer local = *client;

    for (int version = PROXY_V1; version <= PROXY_V2; version++) {
        char out[PROXY_HEADER_WRITE_MAX];
        struct proxy_header again;
        size_t length = proxy_header_write((enum proxy_version)version, client, &local, out);
        FUZZ_CHECK(proxy_header_parse(out, length, &again) == PARSE_OK && again.length == length,
                   "version %d of a written header: %s", version, again.reason);
        FUZZ_CHECK(
            client->family == PEER_UNIX ||
                (again.tells_client && again.client.family == client->family &&
                 again.client.port == client->port &&
                 memcmp(again.client.address, client->address, sizeof(client->address)) == 0),
            "another client in version %d", version);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *whole = fuzz_copy(data, size);
    struct proxy_header header;
    enum parse_result result = proxy_header_parse(whole, size, &header);
    struct fuzz_cuts cuts = fuzz_cuts_of(data, size);

    if (result == PARSE_OK) {
        FUZZ_CHECK(header.length > 0 && header.length <= size && header.length <= PROXY_HEADER_MAX,
                   "a header of %zu in %zu bytes", header.length, size);
        if (header.tells_client) {
            check_client(&header.client);
        }
    } else if (result == PARSE_BAD) {
        FUZZ_CHECK(header.reason != NULL, "refused without a reason");
    } else {
        FUZZ_CHECK(size < PROXY_HEADER_MAX, "more than %zu bytes wanted", size);
    }
    for (size_t i = 0; i < FUZZ_CUTS; i++) {
        struct proxy_header part;
        char *bytes = fuzz_copy(data, cuts.at[i]);
        enum parse_result early = proxy_header_parse(bytes, cuts.at[i], &part);
        free(bytes);
        if (early == PARSE_OK) {
            FUZZ_CHECK(result == PARSE_OK && part.length == header.length &&
                           part.tells_client == header.tells_client,
                       "a header that more bytes change");
        } else if (early == PARSE_BAD) {
            FUZZ_CHECK(result == PARSE_BAD, "a refusal that more bytes take back");
        }
    }
    free(whole);
    return 0;
}
