/* SPDX-License-Identifier: Apache-2.0
 *
 * The hash of tables: every byte, the length and the seed count, and values spread.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "config/base/hash.h"

Test(hash, every_byte_and_the_length_count)
{
    char bytes[40];

    memset(bytes, 'a', sizeof(bytes));
    for (size_t length = 0; length <= sizeof(bytes); length++) {
        uint64_t hash = hash_bytes(1, bytes, length);
        cr_expect_eq(hash, hash_bytes(1, bytes, length));
        cr_expect_neq(hash, hash_bytes(2, bytes, length));
        if (length > 0) {
            cr_expect_neq(hash, hash_bytes(1, bytes, length - 1));
        }
        for (size_t i = 0; i < length; i++) {
            bytes[i] = 'b';
            cr_expect_neq(hash, hash_bytes(1, bytes, length), "length %zu byte %zu", length, i);
            bytes[i] = 'a';
        }
    }
    /* a NUL at the end is a byte like others */
    cr_expect_neq(hash_bytes(1, "ab\0", 2), hash_bytes(1, "ab\0", 3));
}

Test(hash, reads_only_its_bytes_at_any_alignment)
{
    char bytes[64];

    for (size_t offset = 0; offset < 16; offset++) {
        memset(bytes, 'x', sizeof(bytes));
        memcpy(bytes + offset, "/static/app.js", 14);
        cr_expect_eq(hash_bytes(3, bytes + offset, 14), hash_bytes(3, "/static/app.js", 14));
    }
}

Test(hash, similar_keys_spread_over_a_table)
{
    enum { KEYS = 4096, CELLS = 4096 };
    static unsigned int low[CELLS];
    unsigned int used = 0;
    unsigned int most = 0;

    for (int i = 0; i < KEYS; i++) {
        char key[32];
        int length = snprintf(key, sizeof(key), "/route/%d/", i);
        unsigned int *cell = &low[hash_bytes(0, key, (size_t)length) % CELLS];
        used += *cell == 0;
        *cell += 1;
        most = *cell > most ? *cell : most;
    }
    /* Random placing uses 1 - 1/e = 63 % of the cells, the fullest one holds about 7. */
    cr_assert_gt(used, CELLS * 60 / 100);
    cr_assert_leq(most, 12);
}
