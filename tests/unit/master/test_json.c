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
    json_null(&out, "n");
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
