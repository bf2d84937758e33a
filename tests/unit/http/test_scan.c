/* SPDX-License-Identifier: Apache-2.0
 *
 * Every scan level finds the same byte, and reads nothing outside its range.
 */
#include "support.h"

#include "worker/http/char_class.h"

/* The rules, written down once more and in another way than in char_class.c. */
static bool
is_value(int c)
{
    return c == 9 || (c >= 32 && c <= 126) || c >= 128;
}

static bool
is_token(int c)
{
    return c != 0 && c < 128 &&
           strchr("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
                  c) != NULL;
}

static bool
is_target(int c)
{
    return c > 32 && c < 127 && c != '#';
}

static const struct {
    const char *name;
    scan_fn *scan;
    bool (*allowed)(int c);
    char filler;
} scans[] = {
    {"field value", &scan_field_value, is_value, 'a'},
    {"token", &scan_token, is_token, 'a'},
    {"target", &scan_target, is_target, 'a'},
};
#define SCAN_COUNT (sizeof(scans) / sizeof(scans[0]))

Test(scan, every_byte_is_judged_alike_at_every_place_of_a_block)
{
    char bytes[72];

    FOR_EACH_SCAN_LEVEL(level)
    {
        for (size_t s = 0; s < SCAN_COUNT; s++) {
            for (int c = 0; c < 256; c++) {
                for (size_t at = 0; at < sizeof(bytes); at++) {
                    memset(bytes, scans[s].filler, sizeof(bytes));
                    bytes[at] = (char)c;
                    const char *p = guarded_at_end(bytes, sizeof(bytes));
                    size_t stop = (size_t)((*scans[s].scan)(p, p + sizeof(bytes)) - p);
                    size_t wanted = scans[s].allowed(c) ? sizeof(bytes) : at;
                    cr_assert(stop == wanted, "%s %s: byte %d at %zu stops at %zu",
                              scan_level_name((enum scan_level)level), scans[s].name, c, at, stop);
                }
            }
        }
    }
}

Test(scan, every_length_is_read_to_its_end_and_no_further)
{
    char bytes[200];

    memset(bytes, 'a', sizeof(bytes));
    FOR_EACH_SCAN_LEVEL(level)
    {
        for (size_t s = 0; s < SCAN_COUNT; s++) {
            for (size_t length = 0; length <= sizeof(bytes); length++) {
                const char *p = guarded_at_end(bytes, length);
                cr_assert((*scans[s].scan)(p, p + length) == p + length, "%s at its end",
                          scans[s].name);
                p = guarded_at_start(bytes, length);
                cr_assert((*scans[s].scan)(p, p + length) == p + length, "%s at its start",
                          scans[s].name);
            }
        }
    }
}

Test(scan, the_first_of_several_bytes_is_found)
{
    uint64_t seed = 0x9e3779b97f4a7c15u;
    char bytes[160];

    for (int round = 0; round < 4000; round++) {
        size_t length = next_below(&seed, sizeof(bytes) + 1);
        for (size_t i = 0; i < length; i++) {
            /* Mostly allowed, with bytes from the edges of every rule among them. */
            static const unsigned char edges[] = {0,   9,   10,  13,  31,  32,  33,  34,
                                                  '#', ':', 126, 127, 128, 129, 255, '/',
                                                  '@', '[', '`', '{', '|', '}', '~', 'a'};
            bytes[i] = next_below(&seed, 8) == 0 ? (char)edges[next_below(&seed, sizeof(edges))]
                                                 : (char)('a' + next_below(&seed, 26));
        }
        for (size_t s = 0; s < SCAN_COUNT; s++) {
            size_t wanted = 0;
            while (wanted < length && scans[s].allowed((unsigned char)bytes[wanted])) {
                wanted++;
            }
            FOR_EACH_SCAN_LEVEL(level)
            {
                const char *p = guarded_at_end(bytes, length);
                size_t stop = (size_t)((*scans[s].scan)(p, p + length) - p);
                cr_assert(stop == wanted, "%s %s: %zu instead of %zu in %s",
                          scan_level_name((enum scan_level)level), scans[s].name, stop, wanted,
                          printable(bytes, length));
            }
        }
    }
}

Test(scan, the_table_has_the_classes_of_the_rfcs)
{
    for (int c = 0; c < 256; c++) {
        bool alphanumeric =
            (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        bool reg_name = alphanumeric || (c != 0 && c < 128 && strchr("-._~!$&'()*+,;=", c) != NULL);
        bool path = reg_name || c == ':' || c == '@' || c == '/';

        cr_expect_eq(char_is((char)c, CHAR_VALUE), is_value(c), "value %d", c);
        cr_expect_eq(char_is((char)c, CHAR_TOKEN), is_token(c), "token %d", c);
        cr_expect_eq(char_is((char)c, CHAR_TARGET), is_target(c), "target %d", c);
        cr_expect_eq(char_is((char)c, CHAR_REG_NAME), reg_name, "reg-name %d", c);
        cr_expect_eq(char_is((char)c, CHAR_PATH), path, "path %d", c);
        cr_expect_eq(char_is((char)c, CHAR_DIGIT), c >= '0' && c <= '9', "digit %d", c);
        cr_expect_eq(char_is((char)c, CHAR_ETAG), c > 32 && c != 34 && c != 127, "etagc %d", c);
    }
}

Test(scan, init_takes_the_best_level_there_is)
{
    scan_fn best = NULL;

    FOR_EACH_SCAN_LEVEL(level)
    {
        best = scan_field_value;
    }
    cr_assert(scan_use(SCAN_SCALAR));
    scan_init();
    cr_assert(scan_field_value == best);
}

Test(scan, a_level_that_does_not_exist_is_refused)
{
    cr_expect(!scan_use(SCAN_LEVEL_COUNT));
    cr_expect_str_eq(scan_level_name(SCAN_SCALAR), "scalar");
    cr_expect_str_eq(scan_level_name(SCAN_SSE42), "sse4.2");
    cr_expect_str_eq(scan_level_name(SCAN_AVX2), "avx2");
    cr_expect_str_eq(scan_level_name(SCAN_LEVEL_COUNT), "unknown");
}
