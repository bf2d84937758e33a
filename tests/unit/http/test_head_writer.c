/* SPDX-License-Identifier: Apache-2.0
 *
 * Heads that are written: exact bytes, never one too many, and what was written is read back.
 */
#include <signal.h>

#include "support.h"
#include "worker/http/head_writer.h"
#include "worker/http/response.h"

static const char wanted[] = "HTTP/1.1 200 OK\r\n"
                             "Server: narwhal\r\n"
                             "X-Empty: \r\n"
                             "Content-Length: 18446744073709551615\r\n"
                             "Age: 0\r\n"
                             "Retry-After: 120\r\n"
                             "\r\n";

static void
write_all(struct head_writer *writer)
{
    head_put_status_line(writer, 200, (struct str){NULL, 0});
    head_put_field(writer, STR("Server"), STR("narwhal"));
    head_put_field(writer, STR("X-Empty"), (struct str){NULL, 0});
    head_put_number_field(writer, STR("Content-Length"), UINT64_MAX);
    head_put_number_field(writer, STR("Age"), 0);
    head_put(writer, STR("Retry-After: "));
    head_put_number(writer, 120);
    head_put(writer, (struct str){NULL, 0});
    head_put(writer, STR("\r\n"));
    head_put_end(writer);
}

Test(head_writer, a_head_is_written_to_the_byte)
{
    struct head_writer writer;
    char out[512];

    head_writer_init(&writer, out, sizeof(out));
    write_all(&writer);
    cr_expect(head_writer_ok(&writer));
    cr_expect(str_is((struct str){out, head_writer_length(&writer)}, wanted));
}

Test(head_writer, with_too_little_room_it_says_so_and_writes_no_more)
{
    for (size_t room = 0; room < sizeof(wanted) + 2; room++) {
        struct head_writer writer;
        char *out = guarded_area() + GUARDED_MAX - room;

        head_writer_init(&writer, out, room);
        write_all(&writer);
        cr_expect_eq(head_writer_ok(&writer), room >= sizeof(wanted) - 1, "room for %zu", room);
        cr_assert(head_writer_length(&writer) <= room);
        cr_expect(memcmp(out, wanted, head_writer_length(&writer)) == 0,
                  "what was written before the end of the room is the head's beginning");
    }
}

Test(head_writer, status_lines_have_the_phrase_of_the_table_or_their_own)
{
    static const struct {
        int status;
        const char *reason;
        const char *line;
    } rows[] = {
        {100, "", "HTTP/1.1 100 Continue\r\n"},
        {404, "", "HTTP/1.1 404 Not Found\r\n"},
        {507, "", "HTTP/1.1 507 Insufficient Storage\r\n"},
        {299, "", "HTTP/1.1 299 Unknown\r\n"},
        {599, "", "HTTP/1.1 599 Unknown\r\n"},
        {600, "", "HTTP/1.1 600 Unknown\r\n"},
        {999, "", "HTTP/1.1 999 Unknown\r\n"},
        {200, "Fine", "HTTP/1.1 200 Fine\r\n"},
        {999, "Who knows", "HTTP/1.1 999 Who knows\r\n"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct head_writer writer;
        char out[64];

        head_writer_init(&writer, out, sizeof(out));
        head_put_status_line(&writer, rows[i].status, str_from(rows[i].reason));
        cr_expect(str_is((struct str){out, head_writer_length(&writer)}, rows[i].line), "%d %s",
                  rows[i].status, rows[i].reason);
    }
}

Test(head_writer, numbers_are_decimal)
{
    static const struct {
        uint64_t value;
        const char *text;
    } rows[] = {
        {0, "0"},
        {9, "9"},
        {10, "10"},
        {99, "99"},
        {100, "100"},
        {1234567890, "1234567890"},
        {INT64_MAX, "9223372036854775807"},
        {UINT64_MAX, "18446744073709551615"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct head_writer writer;
        char out[32];

        head_writer_init(&writer, out, sizeof(out));
        head_put_number(&writer, rows[i].value);
        cr_expect(str_is((struct str){out, head_writer_length(&writer)}, rows[i].text), "%s",
                  rows[i].text);
    }
}

Test(head_writer, every_status_line_is_read_back)
{
    static struct response_parser parser;

    for (int status = 100; status <= 999; status++) {
        struct head_writer writer;
        char out[128];

        head_writer_init(&writer, out, sizeof(out));
        head_put_status_line(&writer, status, (struct str){NULL, 0});
        head_put_end(&writer);
        response_parser_init(&parser);
        cr_assert(response_parser_run(&parser, true, out, head_writer_length(&writer)) == PARSE_OK);
        cr_expect_eq(parser.head.status, status);
    }
}

#ifndef NDEBUG
Test(head_writer, a_line_break_in_a_value_is_our_own_fault, .signal = SIGABRT)
{
    struct head_writer writer;
    char out[64];

    head_writer_init(&writer, out, sizeof(out));
    head_put_field(&writer, STR("A"), STR("b\r\nSet-Cookie: c"));
}
#endif

Test(head_writer, a_status_of_two_digits_is_our_own_fault, .signal = SIGABRT)
{
    struct head_writer writer;
    char out[64];

    head_writer_init(&writer, out, sizeof(out));
    head_put_status_line(&writer, 99, (struct str){NULL, 0});
}
