/* SPDX-License-Identifier: Apache-2.0
 *
 * Unix sockets with a path: stale ones are replaced, live ones are not, only ours are removed.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "master/unix_listener.h"

static const struct unix_listener_options options = {.mode = 0640, .backlog = 4};
static char folder[] = "/tmp/narwhal-test.XXXXXX";
static char path[64];
static struct buf error;

static void
begin(void)
{
    cr_assert_not_null(mkdtemp(folder));
    (void)snprintf(path, sizeof(path), "%s/http.sock", folder);
}

static void
end(void)
{
    (void)unlink(path);
    cr_expect_eq(rmdir(folder), 0, "something was left behind");
    buf_release(&error);
}

TestSuite(unix_listener, .init = begin, .fini = end);

static int
connect_to_path(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(address.sun_path, path);
    int result = connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 ? 0 : -errno;
    (void)close(fd);
    return result;
}

Test(unix_listener, listens_with_its_mode_and_goes_at_the_end)
{
    struct unix_listener listener;
    struct stat st;

    cr_assert_eq(unix_listener_open(&listener, path, &options, &error), 0);
    cr_expect_eq(connect_to_path(), 0);
    cr_assert_eq(lstat(path, &st), 0);
    cr_expect_eq(st.st_mode & 0777, 0640);
    cr_expect(unix_listener_is_ours(&listener));
    unix_listener_close(&listener);
    cr_expect_neq(access(path, F_OK), 0);
    cr_expect_eq(listener.fd, -1);
}

Test(unix_listener, a_stale_one_is_replaced)
{
    struct unix_listener stale;
    struct unix_listener listener;

    cr_assert_eq(unix_listener_open(&stale, path, &options, &error), 0);
    (void)close(stale.fd);
    cr_assert_eq(connect_to_path(), -ECONNREFUSED);
    cr_assert_eq(unix_listener_open(&listener, path, &options, &error), 0);
    cr_expect_eq(connect_to_path(), 0);
    unix_listener_close(&listener);
}

Test(unix_listener, a_live_one_is_never_taken)
{
    struct unix_listener live;
    struct unix_listener listener = {.fd = -1};

    cr_assert_eq(unix_listener_open(&live, path, &options, &error), 0);
    cr_expect_eq(unix_listener_open(&listener, path, &options, &error), -EADDRINUSE);
    cr_expect_gt(error.len, 0);
    cr_expect_eq(connect_to_path(), 0);
    cr_expect(unix_listener_is_ours(&live));
    unix_listener_close(&live);
}

#define RACES 200
#define RACERS 3

/* Opens, says whether it could, and keeps the socket until the pipe ends. */
static void
race(int go, int said)
{
    struct unix_listener listener;
    char byte;

    (void)!read(go, &byte, 1);
    byte = unix_listener_open(&listener, path, &options, &error) == 0 ? 'y' : 'n';
    (void)!write(said, &byte, 1);
    (void)!read(go, &byte, 1);
    _exit(0);
}

Test(unix_listener, of_several_that_find_a_stale_one_together_one_gets_it)
{
    for (int i = 0; i < RACES; i++) {
        struct unix_listener stale;
        int go[RACERS][2];
        int said[2];
        char answers[RACERS];
        int winners = 0;
        cr_assert_eq(unix_listener_open(&stale, path, &options, &error), 0);
        (void)close(stale.fd);
        cr_assert_eq(pipe2(said, O_CLOEXEC), 0);
        for (int n = 0; n < RACERS; n++) {
            cr_assert_eq(pipe2(go[n], O_CLOEXEC), 0);
            if (fork() == 0) {
                for (int other = 0; other <= n; other++) {
                    (void)close(go[other][1]);
                }
                race(go[n][0], said[1]);
            }
        }
        for (int n = 0; n < RACERS; n++) {
            cr_assert_eq(write(go[n][1], "g", 1), 1);
        }
        for (int n = 0; n < RACERS; n++) {
            cr_assert_eq(read(said[0], &answers[n], 1), 1);
            winners += answers[n] == 'y';
        }
        cr_expect_eq(winners, 1, "%d of %d have it", winners, RACERS);
        cr_expect_eq(connect_to_path(), 0, "the winner can be reached");
        for (int n = 0; n < RACERS; n++) {
            (void)close(go[n][0]);
            (void)close(go[n][1]);
        }
        for (int n = 0; n < RACERS; n++) {
            (void)wait(NULL);
        }
        (void)close(said[0]);
        (void)close(said[1]);
    }
}

Test(unix_listener, a_folder_that_somebody_keeps_locked_stops_nobody)
{
    struct unix_listener listener;
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    cr_assert_eq(flock(fd, LOCK_EX), 0);
    cr_assert_eq(unix_listener_open(&listener, path, &options, &error), 0);
    unix_listener_close(&listener);
    (void)close(fd);
}

Test(unix_listener, also_when_its_queue_is_full)
{
    struct unix_listener_options tiny = options;
    struct unix_listener live;
    struct unix_listener listener = {.fd = -1};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int clients[16];
    int result = 0;
    size_t count = 0;

    tiny.backlog = 0;
    strcpy(address.sun_path, path);
    cr_assert_eq(unix_listener_open(&live, path, &tiny, &error), 0);
    while (result == 0 && count < 16) {
        clients[count] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        result = connect(clients[count++], (const struct sockaddr *)&address, sizeof(address));
    }
    cr_assert_eq(errno, EAGAIN);
    cr_expect_eq(unix_listener_open(&listener, path, &options, &error), -EADDRINUSE);
    while (count > 0) {
        (void)close(clients[--count]);
    }
    unix_listener_close(&live);
}

Test(unix_listener, a_file_in_the_way_stays)
{
    struct unix_listener listener = {.fd = -1};
    FILE *file = fopen(path, "we");

    cr_assert_not_null(file);
    (void)fclose(file);
    cr_expect_eq(unix_listener_open(&listener, path, &options, &error), -EEXIST);
    cr_expect_eq(access(path, F_OK), 0);
}

Test(unix_listener, a_successor_of_the_node_is_not_removed)
{
    struct unix_listener first;
    FILE *file;

    cr_assert_eq(unix_listener_open(&first, path, &options, &error), 0);
    (void)unlink(path);
    file = fopen(path, "we");
    cr_assert_not_null(file);
    (void)fclose(file);
    cr_expect(!unix_listener_is_ours(&first));
    unix_listener_close(&first);
    cr_expect_eq(access(path, F_OK), 0);
}

Test(unix_listener, one_that_was_kept_gets_another_mode_and_nothing_else_does)
{
    const struct unix_listener_options closed = {.mode = 0600, .backlog = 4};
    struct unix_listener listener;
    struct stat st;
    char other[80];

    (void)snprintf(other, sizeof(other), "%s.other", path);
    cr_assert_eq(unix_listener_open(&listener, path, &options, &error), 0);
    cr_assert_eq(unix_listener_set_access(&listener, &closed), 0);
    cr_assert_eq(lstat(path, &st), 0);
    cr_expect_eq(st.st_mode & 07777, 0600);
    cr_expect_eq(connect_to_path(), 0);
    /* A link to it stands at its path. */
    cr_assert_eq(rename(path, other), 0);
    cr_assert_eq(symlink(other, path), 0);
    cr_expect_eq(unix_listener_set_access(&listener, &options), -ESTALE);
    cr_assert_eq(lstat(other, &st), 0);
    cr_expect_eq(st.st_mode & 07777, 0600);
    cr_assert_eq(unlink(path), 0);
    cr_expect_eq(unix_listener_set_access(&listener, &options), -ENOENT);
    unix_listener_close(&listener);
    (void)unlink(other);
}

Test(unix_listener, in_place_has_its_own_name)
{
    struct unix_listener_options in_place = options;
    struct unix_listener listener;
    struct sockaddr_un name = {0};
    socklen_t size = sizeof(name);

    in_place.in_place = true;
    cr_assert_eq(unix_listener_open(&listener, path, &in_place, &error), 0);
    cr_assert_eq(getsockname(listener.fd, (struct sockaddr *)&name, &size), 0);
    cr_expect_str_eq(name.sun_path, path);
    unix_listener_close(&listener);
}

Test(unix_listener, a_path_that_is_too_long_says_so)
{
    struct unix_listener listener = {.fd = -1};
    char text[200];

    memset(text, 'x', sizeof(text) - 1);
    text[0] = '/';
    text[sizeof(text) - 1] = '\0';
    cr_expect_eq(unix_listener_open(&listener, text, &options, &error), -ENAMETOOLONG);
    cr_expect_not_null(strstr(error.ptr, "107"));
}
