/* SPDX-License-Identifier: Apache-2.0
 *
 * The JSON that narwhalctl reads: what the master writes comes back, whatever the texts were.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "config/base/buf.h"
#include "master/ctl_json.h"
#include "master/json.h"

Test(ctl_json, what_the_master_writes_comes_back)
{
    static const char text[] = "a\"b\\c\n\x7f\xc3\xa9\xf0\x9f\x90\xb3\xc2\x9b{";
    struct buf out = {0};

    json_open(&out, NULL, '{');
    json_text(&out, "text", text);
    json_text(&out, "stray", "\xe9");
    json_number(&out, "number", -42);
    json_number(&out, "most", INT64_MAX);
    json_number(&out, "least", INT64_MIN);
    json_bool(&out, "yes", true);
    json_bool(&out, "no", false);
    json_none(&out, "nothing");
    json_close(&out, '}');
    json_t *value = ctl_json_parse(out.ptr, out.len);
    cr_assert_not_null(value, "%s", out.ptr);
    cr_expect_str_eq(ctl_text(value, "text", ""), text);
    cr_expect_str_eq(ctl_text(value, "stray", ""), "\xc3\xa9");
    cr_expect_eq(ctl_number(value, "number", 0), -42);
    cr_expect_str_eq(ctl_text(value, "number", ""), "-42");
    cr_expect_eq(ctl_number(value, "most", 0), INT64_MAX);
    cr_expect_str_eq(ctl_text(value, "least", ""), "-9223372036854775808");
    cr_expect_eq(ctl_number(value, "yes", 7), 1);
    cr_expect_eq(ctl_number(value, "no", 7), 0);
    cr_expect_eq(ctl_number(value, "nothing", 7), 7);
    cr_expect_str_eq(ctl_text(value, "nothing", "none"), "none");
    cr_expect_str_eq(ctl_text(value, "missing", "none"), "none");
    cr_expect_str_eq(ctl_text(NULL, "missing", "none"), "none");
    json_decref(value);
    buf_release(&out);
}

/* Every byte there is, alone and before a quote: the master writes nothing that cannot be read. */
Test(ctl_json, every_byte_can_be_read)
{
    for (int byte = 1; byte < 256; byte++) {
        char text[] = {(char)byte, '"', (char)byte, '\0'};
        struct buf out = {0};
        json_open(&out, NULL, '{');
        json_text(&out, text, text);
        json_close(&out, '}');
        json_t *value = ctl_json_parse(out.ptr, out.len);
        cr_expect_not_null(value, "%d: %s", byte, out.ptr);
        json_decref(value);
        buf_release(&out);
    }
}

Test(ctl_json, fractions_of_another_version)
{
    static const char text[] = " {\"a\":1.75,\"b\":1e300} ";
    json_t *value = ctl_json_parse(text, strlen(text));

    cr_assert_not_null(value);
    cr_expect_eq(ctl_number(value, "a", 0), 1);
    cr_expect_str_eq(ctl_text(value, "a", ""), "1.75");
    cr_expect_eq(ctl_number(value, "b", 7), 7);
    json_decref(value);
}

Test(ctl_json, what_is_no_object_is_refused)
{
    static const char *const bad[] = {"",
                                      " ",
                                      "{",
                                      "[]",
                                      "1",
                                      "\"a\"",
                                      "null",
                                      "{} {}",
                                      "{\"a\":}",
                                      "{\"a\":1,}",
                                      "{\"a\":\"\xff\"}"};
    char deep[20000];

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        cr_expect_null(ctl_json_parse(bad[i], strlen(bad[i])), "%s", bad[i]);
    }
    for (size_t i = 0; i + 5 <= sizeof(deep); i += 5) {
        memcpy(deep + i, "{\"a\":", 5);
    }
    cr_expect_null(ctl_json_parse(deep, sizeof(deep)));
}
