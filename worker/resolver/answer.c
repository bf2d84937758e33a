/* SPDX-License-Identifier: Apache-2.0
 *
 * Making and judging messages of the resolver. The master believes no byte of them before
 * answer_error() has seen all: who wrote them reads what strangers send. Stateless; runs in both.
 */
#include "worker/resolver/answer.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "config/base/check.h"

int
answer_compare(const struct answer_address *a, const struct answer_address *b)
{
    int order = a->family - b->family;

    if (order == 0) {
        order = memcmp(a->address, b->address, sizeof(a->address));
    }
    return order != 0 ? order : a->port - b->port;
}

bool
answer_address_is_usable(const struct answer_address *address)
{
    static const uint8_t zero[16];
    const uint8_t *bytes = address->address;

    if (address->family == 4) {
        return memcmp(bytes + 4, zero, 12) == 0 && bytes[0] != 0 && bytes[0] < 224;
    }
    return address->family == 6 && memcmp(bytes, zero, 16) != 0 && bytes[0] != 0xff;
}

void
answer_list_add(struct answer_address *list, size_t *count, size_t capacity,
                const struct answer_address *address)
{
    if (!answer_address_is_usable(address) || address->port == 0 || *count == capacity) {
        return;
    }
    for (size_t i = 0; i < *count; i++) {
        if (answer_compare(&list[i], address) == 0) {
            return;
        }
    }
    list[(*count)++] = *address;
}

static const char *
why_error(const char why[ANSWER_WHY_MAX])
{
    const char *end = memchr(why, '\0', ANSWER_WHY_MAX);

    if (end == NULL) {
        return "a text without its end";
    }
    for (const char *c = why; c < end; c++) {
        if (*c < 0x20 || *c > 0x7e) {
            return "a text that is not printable";
        }
    }
    return NULL;
}

static const char *
addresses_error(const struct answer *answer)
{
    if (answer->count == 0 || answer->count > ANSWER_ADDRESSES_MAX) {
        return "a number of addresses that cannot be";
    }
    for (uint32_t i = 0; i < answer->count; i++) {
        const struct answer_address *item = &answer->item[i];
        if (!answer_address_is_usable(item) || item->port == 0 || item->weight == 0 ||
            item->weight > ANSWER_WEIGHT_MAX || item->is_backup > 1 || item->unused != 0) {
            return "an address that cannot be";
        }
        if (i > 0 && answer_compare(item - 1, item) >= 0) {
            return "addresses out of order";
        }
    }
    return NULL;
}

const char *
answer_error(const struct answer *answer, size_t length, size_t question_count)
{
    if (length != sizeof(*answer) || answer->magic != ANSWER_MAGIC || answer->unused != 0) {
        return "no message of a resolver";
    }
    switch (answer->kind) {
    case ANSWER_HELLO:
        return NULL;
    case ANSWER_ADDRESSES:
        return answer->question < question_count ? addresses_error(answer)
                                                 : "an answer without a question";
    case ANSWER_FAILED:
        return answer->question < question_count ? why_error(answer->why)
                                                 : "an answer without a question";
    default:
        return "a message of an unknown kind";
    }
}

void
answer_to_address(const struct answer_address *from, struct address *ret_address)
{
    char numeric[INET6_ADDRSTRLEN];
    bool is_ipv6 = from->family == 6;

    memset(ret_address, 0, sizeof(*ret_address));
    ret_address->kind = ADDRESS_TCP;
    ret_address->fd = -1;
    if (is_ipv6) {
        ret_address->in6.sin6_family = AF_INET6;
        ret_address->in6.sin6_port = htons(from->port);
        memcpy(&ret_address->in6.sin6_addr, from->address, 16);
        ret_address->length = sizeof(ret_address->in6);
    } else {
        ret_address->in.sin_family = AF_INET;
        ret_address->in.sin_port = htons(from->port);
        memcpy(&ret_address->in.sin_addr, from->address, 4);
        ret_address->length = sizeof(ret_address->in);
    }
    CHECK(inet_ntop(is_ipv6 ? AF_INET6 : AF_INET, from->address, numeric, sizeof(numeric)) != NULL);
    (void)snprintf(ret_address->text, sizeof(ret_address->text), is_ipv6 ? "[%s]:%u" : "%s:%u",
                   numeric, from->port);
}
