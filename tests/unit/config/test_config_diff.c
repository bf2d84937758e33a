/* SPDX-License-Identifier: Apache-2.0
 *
 * What a reload changes.
 */
#include "tests/unit/config/support.h"

TestSuite(config_diff, .init = enter_folder, .fini = leave_folder);

#define ROUTE "[route:r]\nrespond = 200 ok\n"

static void
expect_diff(const char *before_text, const char *after_text, enum reload_class strongest,
            const char *expected)
{
    struct config *before = load_text(before_text);
    struct config *after = load_text(after_text);
    struct config_diff diff;
    struct buf text = {0};

    config_diff(before, after, &diff);
    buf_add(&text, "", 0);
    for (size_t i = 0; i < diff.count; i++) {
        buf_addf(&text, "%d %s\n", (int)diff.item[i].reload, diff.item[i].text);
    }
    cr_expect_str_eq(text.ptr, expected, "got:\n%s\nexpected:\n%s", text.ptr, expected);
    if (diff.count > 0) {
        cr_expect_eq(diff.strongest, strongest);
    }
    buf_release(&text);
    config_diff_release(&diff);
    config_free(before);
    config_free(after);
}

Test(config_diff, same_settings_in_other_words_are_no_change)
{
    expect_diff("[worker]\nkeepalive = 60s\n" ROUTE,
                "[worker]\nkeepalive = 1m\nconnections = 10000\n" ROUTE, RELOAD_LIVE, "");
    expect_diff("[route:a]\npath = /a\nrespond = 200\n" ROUTE,
                ROUTE "[route:a]\npath = /a\nrespond = 200\n", RELOAD_LIVE, "");
}

Test(config_diff, keys_change_with_their_class)
{
    expect_diff("[worker]\nkeepalive = 75s\n" ROUTE, "[worker]\nkeepalive = 10s\n" ROUTE,
                RELOAD_LIVE, "0 [worker] keepalive: 75s -> 10s\n");
    expect_diff(ROUTE, "[master]\nuser = www\n" ROUTE, RELOAD_WORKERS,
                "1 [master] user: (not set) -> www\n");
    expect_diff("[master]\nbacklog = 5\npidfile = /x\n[log]\nlevel = debug\n" ROUTE, ROUTE,
                RELOAD_RESTART,
                "2 [master] backlog: 5 -> 2048\n2 [master] pidfile: /x -> (not set)\n"
                "0 [log] level: debug -> info\n");
    expect_diff("[master]\nbind = :1\nbind = :2\n" ROUTE, "[master]\nbind = :2\n" ROUTE,
                RELOAD_LIVE, "0 [master] bind: 0.0.0.0:1, 0.0.0.0:2 -> 0.0.0.0:2\n");
    expect_diff(ROUTE, "[route:r]\nrespond = 404 no\n", RELOAD_LIVE,
                "0 [route:r] respond: 200 ok -> 404 no\n");
}

Test(config_diff, sections_come_and_go)
{
    expect_diff("[route:old]\npath = /old\nrespond = 200\n" ROUTE,
                "[backend:b]\nserver = 127.0.0.1:1\n[route:new]\npath = /new\nbackend = b\n" ROUTE,
                RELOAD_LIVE, "0 [backend:b] added\n0 [route:old] removed\n0 [route:new] added\n");
}

Test(config_diff, environment_is_not_told)
{
    expect_diff("[backend:b]\ncommand = a\nenvironment = PASSWORD=old\n[route:r]\nbackend = b\n",
                "[backend:b]\ncommand = a\nenvironment = PASSWORD=new\n[route:r]\nbackend = b\n",
                RELOAD_LIVE, "0 [backend:b] environment: changed\n");
}
