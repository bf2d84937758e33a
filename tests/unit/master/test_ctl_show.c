/* SPDX-License-Identifier: Apache-2.0
 *
 * What narwhalctl shows of answers, also of those of another version, which may have less.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "config/base/buf.h"
#include "master/ctl_json.h"
#include "master/ctl_show.h"

static void
expect_shown(const char *command, const char *json, const char *text)
{
    json_t *value = ctl_json_parse(json, strlen(json));
    struct buf out = {0};

    cr_assert_not_null(value, "%s", json);
    ctl_show(command, value, &out);
    cr_expect_str_eq(out.ptr != NULL ? out.ptr : "", text);
    json_decref(value);
    buf_release(&out);
}

Test(ctl_show, answers)
{
    expect_shown("ping", "{\"answer\":\"pong\",\"pid\":12}", "narwhal answers, pid 12\n");
    expect_shown("workers", "{\"workers\":[]}", "no workers\n");
    expect_shown("workers",
                 "{\"workers\":[{\"slot\":0,\"sandbox\":{\"landlock_abi\":7,\"seccomp\":true}},"
                 "{\"slot\":1,\"sandbox\":{\"landlock_abi\":0,\"seccomp\":true}},"
                 "{\"slot\":2,\"sandbox\":{\"landlock_abi\":4,\"seccomp\":false}},"
                 "{\"slot\":3,\"sandbox\":{\"landlock_abi\":0,\"seccomp\":false}},{\"slot\":4}]}",
                 "SLOT  PID  STATE  GENERATION  UP  CONNECTIONS  REQUESTS  TUNNELS  SANDBOX"
                 "              NOTE\n"
                 "   0    -  -               -   -            -         -        -  landlock 7, "
                 "seccomp  -\n"
                 "   1    -  -               -   -            -         -        -  seccomp     "
                 "         -\n"
                 "   2    -  -               -   -            -         -        -  landlock 4  "
                 "         -\n"
                 "   3    -  -               -   -            -         -        -  none        "
                 "         -\n"
                 "   4    -  -               -   -            -         -        -  -           "
                 "         -\n");
    expect_shown("lanes",
                 "{\"lanes\":[{\"id\":1,\"address\":\"a:80\",\"slot\":0,\"served_by_slot\":null,"
                 "\"queue\":3}]}",
                 "LANE  ADDRESS  SLOT  SERVED BY  QUEUE\n"
                 "   1  a:80        0     nobody      3\n");
    expect_shown("reload",
                 "{\"operation\":3,\"kind\":\"reload\",\"state\":\"done\",\"took_ms\":61000,"
                 "\"text\":\"a\\u001bb\"}",
                 "reload done: a?b (operation 3, 1m01s)\n");
    expect_shown("unheard-of", "{\"a\":1,\"b\":true,\"c\":null,\"d\":\"x\\n\"}",
                 "a: 1\nb: yes\nc: -\nd: x?\n");
}

Test(ctl_show, what_is_missing_is_a_dash)
{
    expect_shown("deaths", "{\"deaths\":[{\"name\":\"worker slot=1\"}]}",
                 "TIME  WHO            PID  END     BY  UP  CPU  MEMORY  LAST WORDS OR REQUEST\n"
                 "Z     worker slot=1    -  exit ?  -    -  0ms      0M  -\n");
    expect_shown("backends", "{}", "no backends\n");
    expect_shown("ping", "{}", "narwhal answers, pid ?\n");
}

Test(ctl_show, events)
{
    static const char json[] =
        "{\"time\":\"T\",\"event\":\"child\",\"name\":\"worker slot=1\",\"pid\":7,\"ok\":true,"
        "\"none\":null,\"empty\":\"\",\"text\":\"a\\nb\",\"half\":1.5}";
    json_t *value = ctl_json_parse(json, strlen(json));
    struct buf out = {0};

    ctl_show_event(value, &out);
    cr_expect_str_eq(out.ptr, "T child name=\"worker slot=1\" pid=7 ok=yes text=a?b half=1.5");
    json_decref(value);
    buf_release(&out);
}
