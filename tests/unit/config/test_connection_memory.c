/* SPDX-License-Identifier: Apache-2.0
 *
 * The budget of a connection, over all limits and sizes: its parts never add up to more.
 */
#include <criterion/criterion.h>

#include "config/config.h"

#define KIB 1024

static int64_t
larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

Test(connection_memory, the_parts_are_never_more_than_the_whole)
{
    for (int64_t head = 1; head <= 60; head += 59 / 7) {
        for (int64_t line = 256; line <= 32 * KIB; line *= 2) {
            struct worker_settings settings = {.limit_request_head_bytes = head * KIB,
                                               .limit_request_line_bytes = line};
            int64_t least = config_connection_memory(&settings).least_bytes;
            int64_t before = 0;

            for (int64_t bytes = least; bytes < 4096 * KIB; bytes += 4096 + bytes / 9) {
                settings.connection_memory_bytes = bytes;
                struct connection_memory memory = config_connection_memory(&settings);
                int64_t input = larger(2 * (head + 1) * KIB, memory.read_bytes);
                int64_t whole = input + head * KIB + line + 16 * KIB + 80 * KIB +
                                memory.read_bytes + memory.queue_bytes;

                cr_assert_eq(memory.least_bytes, least);
                cr_assert_leq(whole, bytes, "head %lldk line %lld", (long long)head,
                              (long long)line);
                cr_assert_geq(memory.read_bytes, 16 * KIB);
                cr_assert_leq(memory.read_bytes, 64 * KIB);
                cr_assert_geq(memory.queue_bytes, 80 * KIB);
                cr_assert_geq(memory.queue_bytes + memory.read_bytes, before - 64 * KIB);
                before = memory.queue_bytes + memory.read_bytes;
            }
            cr_assert_geq(before, 1024 * KIB, "what is not needed otherwise is the client's");
        }
    }
}

Test(connection_memory, the_default_has_room_for_the_largest_heads)
{
    struct worker_settings settings = {.limit_request_head_bytes = 60 * KIB,
                                       .limit_request_line_bytes = 32 * KIB};

    cr_expect_eq(config_connection_memory(&settings).least_bytes, 406 * KIB);
    settings = (struct worker_settings){.limit_request_head_bytes = 32 * KIB,
                                        .limit_request_line_bytes = 8 * KIB,
                                        .connection_memory_bytes = 448 * KIB};
    cr_expect_eq(config_connection_memory(&settings).read_bytes, 64 * KIB);
    cr_expect_eq(config_connection_memory(&settings).queue_bytes, 182 * KIB);
}
