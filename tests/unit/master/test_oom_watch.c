/* SPDX-License-Identifier: Apache-2.0
 *
 * Finding the cgroup and its counter of OOM kills, and putting kills down to deaths.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "master/oom_watch.h"

Test(oom_watch, finds_the_unified_cgroup)
{
    char path[64];

    cr_expect(oom_parse_cgroup("0::/system.slice/narwhal.service\n", path, sizeof(path)));
    cr_expect_str_eq(path, "/system.slice/narwhal.service");
    cr_expect(oom_parse_cgroup("4:memory:/old\n1:cpu:/0::/x\n0::/new", path, sizeof(path)));
    cr_expect_str_eq(path, "/new");
    cr_expect_not(oom_parse_cgroup("4:memory:/old\n", path, sizeof(path)));
    cr_expect_not(oom_parse_cgroup("", path, sizeof(path)));
    cr_expect_not(oom_parse_cgroup("0::/too/long", path, 9));
}

Test(oom_watch, reads_the_counter)
{
    cr_expect_eq(oom_parse_events("low 0\nhigh 0\nmax 5\noom 4\noom_kill 3\noom_group_kill 1\n"),
                 3);
    cr_expect_eq(oom_parse_events("low 0\noom 4\n"), 0);
    cr_expect_eq(oom_parse_events("oom_kill 18446744073709551615\n"), UINT64_MAX);
    cr_expect_eq(oom_parse_events(""), 0);
}

static void
write_events(const char *path, unsigned int kills)
{
    FILE *file = fopen(path, "w");

    cr_assert_not_null(file);
    cr_assert_gt(fprintf(file, "low 0\noom 9\noom_kill %u\n", kills), 0);
    cr_assert_eq(fclose(file), 0);
}

Test(oom_watch, puts_each_kill_down_to_one_death)
{
    struct oom_watch watch = {.seen = 2};

    (void)snprintf(watch.path, sizeof(watch.path), "/tmp/narwhal-oom-%d", (int)getpid());
    write_events(watch.path, 2);
    cr_expect_not(oom_watch_take(&watch, 100000), "nothing was counted since");
    write_events(watch.path, 5);
    cr_expect(oom_watch_take(&watch, 100100));
    cr_expect(oom_watch_take(&watch, 100200));
    cr_expect(oom_watch_take(&watch, 100300));
    cr_expect_not(oom_watch_take(&watch, 100400));
    write_events(watch.path, 7);
    cr_expect(oom_watch_take(&watch, 100500));
    cr_expect_not(oom_watch_take(&watch, 200000), "the other kill was somebody else's, long ago");
    cr_assert_eq(unlink(watch.path), 0);
    cr_expect_not(oom_watch_take(&watch, 300000), "the counter is gone");
}

Test(oom_watch, no_cgroup_is_no_oom)
{
    struct oom_watch watch = {.path = ""};

    cr_expect_not(oom_watch_take(&watch, 1));
}
