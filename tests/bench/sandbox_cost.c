/* SPDX-License-Identifier: Apache-2.0
 *
 * What the sandbox costs a system call: nanoseconds for one of the hot path, one with conditions
 * and one that goes by Landlock, before and after entering. Prints the fastest of many rounds,
 * because other processes only ever add to it.
 *
 *   gcc -O2 -D_GNU_SOURCE -I. tests/bench/sandbox_cost.c worker/sandbox.c config/base/[a-z]*.c \
 *       -lseccomp -lev -o /tmp/sandbox_cost && /tmp/sandbox_cost
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "worker/sandbox.h"

#define ROUNDS 200
#define CALLS 2000

static int ends[2];

static double
now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void
call_recv(void)
{
    char byte;

    (void)!recv(ends[0], &byte, 1, MSG_DONTWAIT);
}

static void
call_getppid(void)
{
    (void)syscall(SYS_getppid);
}

static void
call_socket(void)
{
    (void)close(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
}

static void
call_open(void)
{
    (void)close(open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

static const struct {
    const char *name;
    void (*call)(void);
} calls[] = {{"recv, nothing there", call_recv},
             {"getppid", call_getppid},
             {"socket and close", call_socket},
             {"open and close of a static folder", call_open}};
#define COUNT (sizeof(calls) / sizeof(calls[0]))

static void
measure(double ret_ns[COUNT])
{
    for (size_t i = 0; i < COUNT; i++) {
        ret_ns[i] = 1e12;
        for (int round = 0; round < ROUNDS; round++) {
            double began_ns = now_ns();
            for (int n = 0; n < CALLS; n++) {
                calls[i].call();
            }
            double ns = (now_ns() - began_ns) / CALLS;
            ret_ns[i] = ns < ret_ns[i] ? ns : ret_ns[i];
        }
    }
}

int
main(void)
{
    double before_ns[COUNT];
    double after_ns[COUNT];
    char text[SANDBOX_TEXT_MAX];
    struct sandbox_state state;
    struct buf why = {0};
    int folder = open(".", O_PATH | O_CLOEXEC);

    if (folder == -1 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == -1) {
        perror("sandbox_cost");
        return EXIT_FAILURE;
    }
    const struct sandbox_plan plan = {.mode = SANDBOX_AUTO, .folders = &folder, .folder_count = 1};
    measure(before_ns);
    double began_ns = now_ns();
    if (sandbox_enter(&plan, &state, &why) != 0) {
        fprintf(stderr, "sandbox_cost: %s\n", why.ptr);
        return EXIT_FAILURE;
    }
    double enter_ms = (now_ns() - began_ns) / 1e6;
    measure(after_ns);
    sandbox_print(&state, text);
    printf("%s, entered in %.2f ms\n", text, enter_ms);
    for (size_t i = 0; i < COUNT; i++) {
        printf("%-36s %7.1f ns -> %7.1f ns\n", calls[i].name, before_ns[i], after_ns[i]);
    }
    return EXIT_SUCCESS;
}
