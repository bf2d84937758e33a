/* SPDX-License-Identifier: Apache-2.0
 *
 * JSON: commas, nesting, and text that must not break it.
 */
#include <criterion/criterion.h>

#include "config/base/buf.h"
#include "master/json.h"

Test(json, commas_are_where_they_belong)
{
    struct buf out = {0};

    json_open(&out, NULL, '{');
    json_number(&out, "a", -5);
    json_open(&out, "empty", '[');
    json_close(&out, ']');
    json_open(&out, "list", '[');
    json_number(&out, NULL, 1);
    json_open(&out, NULL, '{');
    json_close(&out, '}');
    json_text(&out, NULL, "x");
    json_close(&out, ']');
    json_none(&out, "n");
    json_close(&out, '}');
    cr_expect_str_eq(out.ptr, "{\"a\":-5,\"empty\":[],\"list\":[1,{},\"x\"],\"n\":null}");
    buf_release(&out);
}

Test(json, text_is_escaped)
{
    struct buf out = {0};

    json_open(&out, NULL, '[');
    json_text(&out, NULL, "a\"b\\c\n\x7f\xff{");
    json_number(&out, NULL, 1);
    json_close(&out, ']');
    cr_expect_str_eq(out.ptr, "[\"a\\\"b\\\\c\\u000a\\u007f\\u00ff{\",1]");
    buf_release(&out);
}

/* Last words of applications are in UTF-8, and anything may be among them. */
Test(json, characters_stay_and_stray_bytes_become_some)
{
    static const struct {
        const char *text;
        const char *json;
    } cases[] = {{"caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x90\xb3",
                  "\"caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x90\xb3\""},
                 {"a\xc2\x9b[31mb", "\"a\\u009b[31mb\""},
                 {"\xc3", "\"\\u00c3\""},
                 {"\xe2\x82", "\"\\u00e2\\u0082\""},
                 {"\xc0\xaf\xed\xa0\x80", "\"\\u00c0\\u00af\\u00ed\\u00a0\\u0080\""}};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buf out = {0};
        json_open(&out, NULL, '[');
        json_text(&out, NULL, cases[i].text);
        cr_expect_str_eq(out.ptr + 1, cases[i].json);
        buf_release(&out);
    }
}
