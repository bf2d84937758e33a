/* SPDX-License-Identifier: Apache-2.0
 *
 * What the master takes from a resolver, and what it does not.
 */
#include "worker/resolver/answer.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static struct answer_address
address_of(const char *text, uint16_t port)
{
    struct answer_address address = {.port = port, .weight = 1};

    if (inet_pton(AF_INET, text, address.address) == 1) {
        address.family = 4;
    } else {
        cr_assert_eq(inet_pton(AF_INET6, text, address.address), 1, "%s", text);
        address.family = 6;
    }
    return address;
}

static struct answer *
good(void)
{
    static struct answer answer;

    memset(&answer, 0, sizeof(answer));
    answer.magic = ANSWER_MAGIC;
    answer.kind = ANSWER_ADDRESSES;
    answer.question = 1;
    answer.count = 3;
    answer.item[0] = address_of("10.0.0.1", 80);
    answer.item[1] = address_of("10.0.0.1", 81);
    answer.item[2] = address_of("2001:db8::1", 80);
    return &answer;
}

static void
expect_error(const struct answer *answer, size_t length, const char *wanted)
{
    const char *error = answer_error(answer, length, 2);

    cr_assert_not_null(error, "not refused: %s", wanted);
    cr_expect_not_null(strstr(error, wanted), "%s, not %s", error, wanted);
}

Test(answer, good_ones_are_taken)
{
    struct answer *answer = good();

    cr_expect_null(answer_error(answer, sizeof(*answer), 2));
    answer->kind = ANSWER_HELLO;
    cr_expect_null(answer_error(answer, sizeof(*answer), 2));
    answer->kind = ANSWER_FAILED;
    strcpy(answer->why, "no such name");
    cr_expect_null(answer_error(answer, sizeof(*answer), 2));
}

Test(answer, others_are_refused)
{
    struct answer *answer = good();
    size_t length = sizeof(*answer);

    expect_error(answer, length - 1, "no message");
    expect_error(answer, length + 1, "no message");
    answer->magic++;
    expect_error(answer, length, "no message");
    answer = good();
    answer->unused = 1;
    expect_error(answer, length, "no message");
    answer = good();
    answer->kind = ANSWER_NONE;
    expect_error(answer, length, "unknown kind");
    answer = good();
    answer->kind = ANSWER_FAILED + 1;
    expect_error(answer, length, "unknown kind");
    answer = good();
    answer->question = 2;
    expect_error(answer, length, "without a question");
    answer->kind = ANSWER_FAILED;
    expect_error(answer, length, "without a question");
    answer = good();
    answer->count = 0;
    expect_error(answer, length, "a number of addresses");
    answer->count = ANSWER_ADDRESSES_MAX + 1;
    expect_error(answer, length, "a number of addresses");
    answer = good();
    answer->item[1] = answer->item[0];
    expect_error(answer, length, "out of order");
    answer = good();
    answer->item[0] = answer->item[2];
    expect_error(answer, length, "out of order");
    answer = good();
    answer->kind = ANSWER_FAILED;
    memset(answer->why, 'x', sizeof(answer->why));
    expect_error(answer, length, "without its end");
    strcpy(answer->why, "two\nlines");
    expect_error(answer, length, "not printable");
}

Test(answer, addresses_that_cannot_be_are_refused)
{
    struct answer *answer = good();
    size_t length = sizeof(*answer);
    static const char *const lies[] = {"0.0.0.0",         "0.1.2.3", "224.0.0.1", "240.1.1.1",
                                       "255.255.255.255", "::",      "ff02::1"};

    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        answer = good();
        answer->count = 1;
        answer->item[0] = address_of(lies[i], 80);
        expect_error(answer, length, "cannot be");
    }
    answer = good();
    answer->item[0].port = 0;
    expect_error(answer, length, "cannot be");
    answer = good();
    answer->item[0].weight = 0;
    expect_error(answer, length, "cannot be");
    answer = good();
    answer->item[0].weight = ANSWER_WEIGHT_MAX + 1;
    expect_error(answer, length, "cannot be");
    answer = good();
    answer->item[0].family = 5;
    expect_error(answer, length, "cannot be");
    answer = good();
    answer->item[0].is_backup = 2;
    expect_error(answer, length, "cannot be");
    answer = good();
    answer->item[0].unused = 1;
    expect_error(answer, length, "cannot be");
    answer = good();
    answer->item[0].address[15] = 1; /* behind one of IPv4 */
    expect_error(answer, length, "cannot be");
}

Test(answer, lists_hold_each_usable_address_once)
{
    struct answer_address list[2];
    struct answer_address one = address_of("10.0.0.1", 80);
    struct answer_address other = address_of("10.0.0.1", 81);
    struct answer_address third = address_of("10.0.0.2", 81);
    struct answer_address lie = address_of("0.0.0.0", 81);
    struct answer_address portless = address_of("10.0.0.3", 0);
    size_t count = 0;

    answer_list_add(list, &count, 2, &lie);
    answer_list_add(list, &count, 2, &portless);
    cr_expect_eq(count, 0);
    answer_list_add(list, &count, 2, &one);
    answer_list_add(list, &count, 2, &one);
    cr_expect_eq(count, 1);
    answer_list_add(list, &count, 2, &other);
    answer_list_add(list, &count, 2, &third);
    cr_expect_eq(count, 2);
    cr_expect_eq(answer_compare(&list[1], &other), 0);
}

Test(answer, addresses_are_those_of_settings)
{
    static const char *const texts[] = {"10.0.0.1:80", "[2001:db8::1]:65535"};
    const struct answer_address from[] = {address_of("10.0.0.1", 80),
                                          address_of("2001:db8::1", 65535)};

    for (size_t i = 0; i < 2; i++) {
        struct address made;
        struct address parsed;
        answer_to_address(&from[i], &made);
        cr_assert_null(address_parse(texts[i], &parsed));
        cr_expect_str_eq(made.text, texts[i]);
        cr_expect_eq(made.kind, ADDRESS_TCP);
        cr_expect_eq(made.length, parsed.length);
        cr_expect_eq(memcmp(&made.sa, &parsed.sa, parsed.length), 0);
    }
}
