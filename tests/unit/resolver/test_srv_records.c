/* SPDX-License-Identifier: Apache-2.0
 *
 * SRV records out of DNS messages, good ones and broken ones.
 */
#include "worker/resolver/srv_records.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BYTES(literal) (const uint8_t *)(literal), sizeof(literal) - 1
#define HEADER(answers) "\0\1\x81\x80\0\1\0" answers "\0\0\0\0"
#define QUESTION "\5_http\4_tcp\1a\0\0\x21\0\1"
/* A record of the question's name; length counts the six bytes of its own and the target. */
#define RECORD(ttl, length, priority, weight, port)                                                \
    "\xc0\x0c\0\x21\0\1\0\0\0" ttl "\0" length "\0" priority "\0" weight "\0" port

static struct srv_records records;

/* A copy of exactly that size, so that the sanitizer sees the first byte beyond it. */
static int
parse(const uint8_t *bytes, size_t length)
{
    uint8_t *copy = malloc(length > 0 ? length : 1);

    memcpy(copy, bytes, length);
    int result = srv_records_parse(copy, length, &records);
    free(copy);
    return result;
}

Test(srv_records, targets_come_in_order_with_the_shortest_ttl)
{
    cr_assert_eq(
        parse(BYTES(
            HEADER("\3") QUESTION RECORD("\x3c", "\x0b", "\x14", "\1", "\x50") "\1b\1t\0" RECORD(
                "\x0a", "\x0b", "\x0a", "\2", "\x51") "\1c\1t\0" RECORD("\x1e", "\x0b", "\x0a",
                                                                        "\3", "\x52") "\1a\1t\0")),
        0);
    cr_assert_eq(records.count, 3);
    cr_expect_eq(records.ttl_s, 10);
    cr_expect_str_eq(records.item[0].name, "a.t");
    cr_expect_eq(records.item[0].priority, 10);
    cr_expect_eq(records.item[0].weight, 3);
    cr_expect_eq(records.item[0].port, 0x52);
    cr_expect_str_eq(records.item[1].name, "c.t");
    cr_expect_str_eq(records.item[2].name, "b.t");
    cr_expect_eq(records.left_out, 0);
}

Test(srv_records, other_records_are_skipped)
{
    cr_assert_eq(parse(BYTES(HEADER("\2") QUESTION "\xc0\x0c\0\1\0\1\0\0\0\1\0\4\x7f\0\0\1" RECORD(
                     "\x0a", "\x0b", "\1", "\1", "\x50") "\1b\1t\0")),
                 0);
    cr_expect_eq(records.count, 1);
}

Test(srv_records, the_root_is_no_target)
{
    cr_assert_eq(parse(BYTES(HEADER("\1") QUESTION RECORD("\x0a", "\7", "\0", "\0", "\0") "\0")),
                 0);
    cr_expect_eq(records.count, 0);
    cr_assert_eq(parse(BYTES(HEADER("\0") QUESTION)), 0);
    cr_expect_eq(records.count, 0);
}

Test(srv_records, every_cut_is_refused)
{
    static const char whole[] = HEADER("\2")
        QUESTION RECORD("\x0a", "\x0b", "\1", "\1",
                        "\x50") "\1b\1t\0" RECORD("\x0a", "\x08", "\1", "\1", "\x50") "\xc0\x0c";

    cr_assert_eq(parse(BYTES(whole)), 0);
    cr_expect_eq(records.count, 2);
    cr_expect_str_eq(records.item[0].name, "_http._tcp.a");
    for (size_t length = 0; length < sizeof(whole) - 1; length++) {
        cr_expect_eq(parse((const uint8_t *)whole, length), -EBADMSG, "at %zu", length);
    }
}

Test(srv_records, broken_ones_are_refused)
{
    /* A target that ends before, and behind, its record. */
    cr_expect_eq(
        parse(BYTES(HEADER("\1") QUESTION RECORD("\x0a", "\x0c", "\1", "\1", "\x50") "\1b\1t\0\0")),
        -EBADMSG);
    cr_expect_eq(
        parse(BYTES(HEADER("\1") QUESTION RECORD("\x0a", "\x0a", "\1", "\1", "\x50") "\1b\1t\0")),
        -EBADMSG);
    /* Too short for a target; a pointer to itself, and out of the message. */
    cr_expect_eq(parse(BYTES(HEADER("\1") QUESTION RECORD("\x0a", "\6", "\1", "\1", "\x50"))),
                 -EBADMSG);
    cr_expect_eq(
        parse(BYTES(HEADER("\1") QUESTION RECORD("\x0a", "\x08", "\1", "\1", "\x50") "\xc0\x2f")),
        -EBADMSG);
    cr_expect_eq(
        parse(BYTES(HEADER("\1") QUESTION RECORD("\x0a", "\x08", "\1", "\1", "\x50") "\xcf\xff")),
        -EBADMSG);
    /* More answers than there are, and more questions. */
    cr_expect_eq(parse(BYTES(HEADER("\xff") QUESTION)), -EBADMSG);
    cr_expect_eq(parse(BYTES("\0\1\x81\x80\xff\xff\0\0\0\0\0\0" QUESTION)), -EBADMSG);
}

Test(srv_records, of_too_many_the_first_in_order_stay)
{
    uint8_t message[16384];
    size_t length = sizeof(HEADER("\0") QUESTION) - 1;

    memcpy(message, HEADER("\0") QUESTION, length);
    message[7] = 200;
    for (int i = 0; i < 200; i++) {
        const uint8_t record[] = {
            0xc0, 0x0c, 0, 0x21, 0, 1,   0,   0, 0, 1, 0, 10, 0, (uint8_t)(199 - i),
            0,    1,    0, 80,   2, 'a', 'b', 0};
        memcpy(message + length, record, sizeof(record));
        length += sizeof(record);
    }
    cr_assert_eq(parse(message, length), 0);
    cr_expect_eq(records.count, SRV_TARGETS_MAX);
    cr_expect_eq(records.left_out, 200 - SRV_TARGETS_MAX);
    for (size_t i = 0; i < SRV_TARGETS_MAX; i++) {
        cr_expect_eq(records.item[i].priority, i);
    }
}
