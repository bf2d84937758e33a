/* SPDX-License-Identifier: Apache-2.0
 *
 * The JSON that narwhalctl reads: what the master writes comes back, and nothing else is taken.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "config/base/buf.h"
#include "master/ctl_json.h"
#include "master/json.h"

static struct ctl_value *
parse(const char *text)
{
    return ctl_json_parse(text, strlen(text));
}

Test(ctl_json, what_the_master_writes_comes_back)
{
    static const char bytes[] = "a\"b\\c\n\x7f\xc3\xa9{";
    struct buf out = {0};

    json_open(&out, NULL, '{');
    json_text(&out, "text", bytes);
    json_number(&out, "number", -42);
    json_bool(&out, "yes", true);
    json_bool(&out, "no", false);
    json_null(&out, "nothing");
    json_open(&out, "list", '[');
    json_open(&out, NULL, '{');
    json_number(&out, "x", INT64_MAX);
    json_close(&out, '}');
    json_text(&out, NULL, "");
    json_close(&out, ']');
    json_close(&out, '}');
    struct ctl_value *value = ctl_json_parse(out.ptr, out.len);
    cr_assert_not_null(value);
    cr_expect_str_eq(ctl_text(value, "text", ""), bytes);
    cr_expect_eq(ctl_number(value, "number", 0), -42);
    cr_expect_str_eq(ctl_text(value, "number", ""), "-42");
    cr_expect_eq(ctl_number(value, "yes", 7), 1);
    cr_expect_eq(ctl_number(value, "no", 7), 0);
    cr_expect_eq(ctl_get(value, "nothing")->kind, CTL_NULL);
    cr_expect_eq(ctl_number(value, "nothing", 7), 7);
    cr_expect_str_eq(ctl_text(value, "missing", "none"), "none");
    const struct ctl_value *list = ctl_get(value, "list");
    cr_expect_eq(ctl_number(list->child, "x", 0), INT64_MAX);
    cr_expect_str_eq(list->child->next->text, "");
    cr_expect_null(list->child->next->next);
    ctl_json_free(value);
    buf_release(&out);
}

Test(ctl_json, other_texts_are_refused)
{
    static const char *const bad[] = {"",           " ",
                                      "{",          "}",
                                      "[",          "[1",
                                      "[1,",        "[1,]",
                                      "{\"a\"}",    "{\"a\":}",
                                      "{\"a\":1,}", "{a:1}",
                                      "\"a",        "\"\\x\"",
                                      "\"\\u12\"",  "\"\\u12g4\"",
                                      "\"a\nb\"",   "nul",
                                      "tru",        "1 2",
                                      "{} {}",      "1x",
                                      "--1",        "+",
                                      "\"\\",       "{\"a\":1 \"b\":2}"};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct ctl_value *value = parse(bad[i]);
        cr_expect_null(value, "%s", bad[i]);
        ctl_json_free(value);
    }
}

Test(ctl_json, escapes)
{
    struct ctl_value *value = parse(" [ \"\\u0041\\u00e9\\u0000\\u20ac\\u0151\\/\\t\" ] ");

    cr_assert_not_null(value);
    cr_expect_str_eq(value->child->text, "A\xe9?\xe2\x82\xac\xc5\x91/\t");
    ctl_json_free(value);
}

Test(ctl_json, depth_is_bounded)
{
    char deep[2000];

    memset(deep, '[', sizeof(deep) - 1);
    deep[sizeof(deep) - 1] = '\0';
    cr_expect_null(parse(deep));
    memset(deep, '[', 16);
    memset(deep + 16, ']', 16);
    deep[32] = '\0';
    struct ctl_value *value = parse(deep);
    cr_expect_not_null(value);
    ctl_json_free(value);
}
