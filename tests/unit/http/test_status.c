/* SPDX-License-Identifier: Apache-2.0
 *
 * Reason phrases.
 */
#include "support.h"
#include "worker/http/status.h"

Test(status, phrases_come_from_the_table)
{
    static const struct {
        int status;
        const char *phrase;
    } rows[] = {
#define STATUS(code, phrase) {code, phrase},
#include "worker/http/status.def"
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cr_expect_str_eq(status_phrase(rows[i].status), rows[i].phrase);
        cr_expect(i == 0 || rows[i].status > rows[i - 1].status, "%d is out of order",
                  rows[i].status);
    }
    cr_expect_str_eq(status_phrase(404), "Not Found");
}

Test(status, an_unknown_code_has_a_phrase_too)
{
    cr_expect_str_eq(status_phrase(299), "Unknown");
    cr_expect_str_eq(status_phrase(0), "Unknown");
    cr_expect_str_eq(status_phrase(-1), "Unknown");
}
