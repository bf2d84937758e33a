/* SPDX-License-Identifier: Apache-2.0
 *
 * X-Forwarded-* and Forwarded of a trusted peer. The input is a request head. The client is the
 * peer, or an address that stands in the fields; nobody whose hop is untrusted hides behind it; the
 * facts lie in the head and are plain.
 */
#include "worker/forwarded.h"

#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "worker/http/scan.h"

static struct request_parser parser;
static const struct request_limits limits = {.line = 8192, .fields = 100, .head = 32768};

static void
check_plain(struct str whole, struct str fact)
{
    FUZZ_CHECK(fact.len == 0 || fuzz_inside(whole, fact), "a fact from elsewhere");
    for (size_t i = 0; i < fact.len; i++) {
        FUZZ_CHECK(fact.ptr[i] > 0x20 && fact.ptr[i] < 0x7f &&
                       strchr("\"\\,;=", fact.ptr[i]) == NULL,
                   "a fact that is not plain: %.*s", STR_ARG(fact));
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct network network = {.family = NETWORK_IPV4, .bits = 8, .address = {10}};
    const struct network_list trusted = {1, &network};
    const struct peer peer = {.family = PEER_IPV4, .port = 1, .address = {10, 0, 0, 1}};
    char *bytes = fuzz_copy(data, size);

    scan_init();
    request_parser_init(&parser);
    if (request_parser_run(&parser, &limits, bytes, size) == PARSE_OK) {
        for (int told_by = 0; told_by < TOLD_BY_COUNT; told_by++) {
            enum field_id id =
                told_by == TOLD_BY_X_FORWARDED ? FIELD_X_FORWARDED_FOR : FIELD_FORWARDED;
            struct peer client;
            struct forwarded_facts facts;
            forwarded_find_client(&parser.head, bytes, (enum told_by)told_by, &trusted, &peer,
                                  &client);
            FUZZ_CHECK(client.family == PEER_IPV4 || client.family == PEER_IPV6, "family %d",
                       client.family);
            FUZZ_CHECK(request_field(&parser.head, id) != NULL ||
                           memcmp(&client, &peer, sizeof(peer)) == 0,
                       "a client that nobody told");
            forwarded_find_facts(&parser.head, bytes, (enum told_by)told_by, &trusted, &facts);
            check_plain((struct str){bytes, parser.head.length}, facts.proto);
            check_plain((struct str){bytes, parser.head.length}, facts.host);
        }
    }
    free(bytes);
    return 0;
}
