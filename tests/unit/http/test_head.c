/* SPDX-License-Identifier: Apache-2.0
 *
 * Field names and ids: every row of field.def, in every case, and nothing that only looks like it.
 */
#include <ctype.h>

#include "support.h"
#include "worker/http/head.h"

static const struct {
    enum field_id id;
    const char *name;
} rows[] = {
#define FIELD(id, text) {FIELD_##id, text},
#include "worker/http/field.def"
};
#define ROW_COUNT (sizeof(rows) / sizeof(rows[0]))

static enum field_id
id_of(const char *name, size_t length)
{
    return field_id_of((struct str){guarded_at_end(name, length), length});
}

Test(head, every_row_is_found_in_any_case)
{
    for (size_t i = 0; i < ROW_COUNT; i++) {
        char name[64];
        size_t length = strlen(rows[i].name);

        cr_assert(id_of(rows[i].name, length) == rows[i].id, "%s", rows[i].name);
        cr_assert_str_eq(field_name(rows[i].id), rows[i].name);
        for (size_t at = 0; at < length; at++) {
            name[at] = (char)toupper((unsigned char)rows[i].name[at]);
        }
        cr_assert(id_of(name, length) == rows[i].id, "%s in upper case", rows[i].name);
        cr_assert(field_id_of((struct str){guarded_at_start(name, length), length}) == rows[i].id);
    }
}

Test(head, a_name_with_any_other_byte_is_another_name)
{
    for (size_t i = 0; i < ROW_COUNT; i++) {
        size_t length = strlen(rows[i].name);

        for (size_t at = 0; at < length; at++) {
            for (int c = 0; c < 256; c++) {
                char name[64];
                memcpy(name, rows[i].name, length);
                if (tolower(c) == name[at] && c < 128) {
                    continue;
                }
                name[at] = (char)c;
                cr_assert(id_of(name, length) == FIELD_OTHER, "%s is taken for %s",
                          printable(name, length), rows[i].name);
            }
        }
    }
}

Test(head, other_lengths_are_other_names)
{
    for (size_t i = 0; i < ROW_COUNT; i++) {
        char name[64];
        size_t length = strlen(rows[i].name);

        memcpy(name, rows[i].name, length);
        name[length] = 's';
        cr_expect(id_of(name, length + 1) == FIELD_OTHER, "%ss", rows[i].name);
        enum field_id shorter = id_of(name, length - 1);
        cr_expect(shorter == FIELD_OTHER || strlen(field_name(shorter)) == length - 1, "%s cut",
                  rows[i].name);
    }
    cr_expect(id_of("", 0) == FIELD_OTHER);
    cr_expect(id_of("x", 1) == FIELD_OTHER);
    cr_expect(field_name(FIELD_OTHER) == NULL);
    cr_expect(field_name(FIELD_ID_COUNT) == NULL);
}
