/* SPDX-License-Identifier: Apache-2.0
 *
 * Waking by datagrams: who listens is woken, once or often; who is gone costs nobody anything.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "worker/wake.h"

static bool
is_woken(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

    return poll(&poll_fd, 1, 0) == 1;
}

Test(wake, wakes_the_one_with_the_name)
{
    unsigned char name[2][BOARD_WAKE_NAME] = {{0}};
    int fd[2];
    int sender;

    cr_assert_eq(wake_open(&sender), 0);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(wake_listen(&fd[i], name[i]), 0);
        cr_assert_eq(fcntl(fd[i], F_GETFD), FD_CLOEXEC);
        cr_assert_neq(fcntl(fd[i], F_GETFL) & O_NONBLOCK, 0);
    }
    cr_assert_neq(memcmp(name[0], name[1], BOARD_WAKE_NAME), 0);
    wake_send(sender, name[1]);
    cr_assert_not(is_woken(fd[0]));
    cr_assert(is_woken(fd[1]));
    wake_clear(fd[1]);
    cr_assert_not(is_woken(fd[1]));
    for (int i = 0; i < 10000; i++) { /* it does not look: nobody waits for it */
        wake_send(fd[1], name[0]);
    }
    cr_assert(is_woken(fd[0]));
    for (int i = 0; i < 1000 && is_woken(fd[0]); i++) {
        wake_clear(fd[0]);
    }
    cr_assert_not(is_woken(fd[0]));
    (void)close(fd[0]);
    wake_send(sender, name[0]);
    (void)close(fd[1]);
    (void)close(sender);
}

Test(wake, a_cell_without_a_name_is_nobody)
{
    unsigned char name[BOARD_WAKE_NAME] = {0};
    int sender;

    cr_assert_eq(wake_open(&sender), 0);
    wake_send(sender, name);
    memset(name, 0xff, sizeof(name)); /* a length that is none */
    wake_send(sender, name);
    (void)close(sender);
}
