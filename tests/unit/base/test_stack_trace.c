/* SPDX-License-Identifier: Apache-2.0
 *
 * A process that is ended by a signal says where it stood, and ends by that signal all the same.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "config/base/fd.h"
#include "config/base/log.h"
#include "config/base/stack_trace.h"

Test(stack_trace, an_aborted_process_says_where_it_stood)
{
    char text[16384];
    size_t length = 0;
    int status;
    int ends[2];
    char own[64];

    cr_assert_eq(pipe(ends), 0);
    pid_t pid = fork();
    cr_assert_neq(pid, -1);
    if (pid == 0) {
        struct rlimit no_core = {0};
        (void)setrlimit(RLIMIT_CORE, &no_core);
        log_setup(ends[1], LOG_LEVEL_ERROR, "test");
        stack_trace_on_crash();
        (void)raise(SIGABRT);
        _exit(0);
    }
    (void)close(ends[1]);
    for (ssize_t n; (n = fd_read(ends[0], text + length, sizeof(text) - 1 - length)) > 0;) {
        length += (size_t)n;
    }
    text[length] = '\0';
    (void)close(ends[0]);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    cr_expect_not_null(strstr(text, "ended by signal=SIGABRT sent_by="), "%s", text);
    cr_expect_not_null(strstr(text, "stack #0 "), "%s", text);
    (void)snprintf(own, sizeof(own), "%s+0x", program_invocation_short_name);
    cr_expect_not_null(strstr(text, own), "our own code: %s", text);
}
