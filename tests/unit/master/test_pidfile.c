/* SPDX-License-Identifier: Apache-2.0
 *
 * The locked pid file: the lock decides, not the number.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "master/pidfile.h"

static char folder[] = "/tmp/narwhal-test.XXXXXX";
static char path[64];

static void
begin(void)
{
    cr_assert_not_null(mkdtemp(folder));
    (void)snprintf(path, sizeof(path), "%s/narwhal.pid", folder);
}

static void
end(void)
{
    (void)unlink(path);
    (void)rmdir(folder);
}

TestSuite(pidfile, .init = begin, .fini = end);

static void
write_file(const char *text)
{
    FILE *file = fopen(path, "we");

    cr_assert_not_null(file);
    (void)fputs(text, file);
    (void)fclose(file);
}

static void
expect_content_is_our_pid(void)
{
    char text[32] = "";
    char wanted[32];
    FILE *file = fopen(path, "re");

    cr_assert_not_null(file);
    cr_assert_not_null(fgets(text, sizeof(text), file));
    (void)fclose(file);
    (void)snprintf(wanted, sizeof(wanted), "%d\n", (int)getpid());
    cr_expect_str_eq(text, wanted);
}

Test(pidfile, holds_our_pid_and_goes_at_the_end)
{
    struct pidfile pidfile = {.fd = -1};
    struct buf error = {0};

    cr_assert_eq(pidfile_open(&pidfile, path, &error), 0);
    expect_content_is_our_pid();
    pidfile_close(&pidfile);
    cr_expect_neq(access(path, F_OK), 0);
}

Test(pidfile, a_stale_one_is_taken_over)
{
    struct pidfile pidfile = {.fd = -1};
    struct buf error = {0};

    write_file("1\nand a long rest of something else\n"); /* pid 1 lives: that says nothing */
    cr_assert_eq(pidfile_open(&pidfile, path, &error), 0);
    expect_content_is_our_pid();
    pidfile_close(&pidfile);
}

Test(pidfile, a_second_master_is_refused_and_told_who_holds_it)
{
    struct pidfile first = {.fd = -1};
    struct buf error = {0};
    char wanted[32];

    cr_assert_eq(pidfile_open(&first, path, &error), 0);
    pid_t child = fork();
    if (child == 0) {
        struct pidfile second = {.fd = -1};
        struct buf child_error = {0};
        (void)snprintf(wanted, sizeof(wanted), "pid %d", (int)getppid());
        int result = pidfile_open(&second, path, &child_error);
        bool told = child_error.ptr != NULL && strstr(child_error.ptr, wanted) != NULL;
        _exit(result == -EWOULDBLOCK && told ? 0 : 1);
    }
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_expect_eq(status, 0);
    expect_content_is_our_pid();
    pidfile_close(&first);
}

Test(pidfile, a_file_that_is_not_ours_any_more_stays)
{
    struct pidfile pidfile = {.fd = -1};
    struct buf error = {0};

    cr_assert_eq(pidfile_open(&pidfile, path, &error), 0);
    (void)unlink(path);
    write_file("another\n");
    pidfile_close(&pidfile);
    cr_expect_eq(access(path, F_OK), 0);
}

Test(pidfile, what_cannot_be_a_pid_file_says_why)
{
    struct pidfile pidfile = {.fd = -1};
    struct buf error = {0};

    cr_expect_eq(pidfile_open(&pidfile, "/nonexistent/narwhal.pid", &error), -ENOENT);
    cr_expect_gt(error.len, 0);
    buf_clear(&error);
    cr_expect_eq(pidfile_open(&pidfile, folder, &error), -EISDIR);
    cr_expect_gt(error.len, 0);
    buf_clear(&error);
    cr_assert_eq(symlink("/etc/hostname", path), 0);
    cr_expect_eq(pidfile_open(&pidfile, path, &error), -ELOOP);
    buf_release(&error);
}
