/* SPDX-License-Identifier: Apache-2.0
 *
 * The handler is not async-signal-safe to the letter: it formats log lines and asks the dynamic
 * linker for names. The process is lost anyway; when the handler gets stuck, the master's SIGKILL
 * ends it as it would have ended without a trace. All processes.
 */
#include "config/base/stack_trace.h"

#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "config/base/log.h"

#define FRAMES_MAX 48
/* The handler and what calls it say nothing. */
#define FRAMES_OURS 1
/* A stack of its own, because an overflown one cannot hold the handler (sigaltstack(2)). Formatting
 * a log line takes 3 KiB of it, unwinding more. */
#define HANDLER_STACK_SIZE 65536

static char own_name[64];

/* The linker calls the program by its argv[0], which may be a title by now. */
static const char *
file_name(const Dl_info *info)
{
    const char *slash = strrchr(info->dli_fname, '/');
    Dl_info own;

    if (dladdr((void *)(uintptr_t)file_name, &own) != 0 && own.dli_fbase == info->dli_fbase) {
        return own_name;
    }
    return slash != NULL ? slash + 1 : info->dli_fname;
}

/* Object and offset are what addr2line(1) needs: `addr2line -f -e /usr/bin/narwhal 0x1f2a1`. */
static void
tell_frame(int number, void *address)
{
    Dl_info info;

    if (dladdr(address, &info) == 0 || info.dli_fname == NULL) {
        log_error("stack #%d %p", number, address);
        return;
    }
    uintptr_t offset = (uintptr_t)address - (uintptr_t)info.dli_fbase;
    log_error("stack #%d %s+0x%zx%s%s", number, file_name(&info), (size_t)offset,
              info.dli_sname != NULL ? " " : "", info.dli_sname != NULL ? info.dli_sname : "");
}

static void
on_crash(int number, siginfo_t *info, void *context)
{
    void *frames[FRAMES_MAX];
    const char *name = sigabbrev_np(number);

    (void)context;
    /* si_code of kill(2) and tgkill(2) is not positive, that of a fault is. */
    if (info->si_code <= 0) {
        log_error("ended by signal=SIG%s sent_by=%d", name != NULL ? name : "?", (int)info->si_pid);
    } else {
        log_error("ended by signal=SIG%s address=%p", name != NULL ? name : "?", info->si_addr);
    }
    int count = backtrace(frames, FRAMES_MAX);
    for (int i = FRAMES_OURS; i < count; i++) {
        tell_frame(i - FRAMES_OURS, frames[i]);
    }
    (void)raise(number); /* SA_RESETHAND: now it does what it would have done, core included */
}

void
stack_trace_on_crash(void)
{
    static char handler_stack[HANDLER_STACK_SIZE];
    static const int numbers[] = {
        SIGABRT,
#ifndef __SANITIZE_ADDRESS__
        SIGSEGV, SIGBUS, SIGILL, SIGFPE, /* a sanitizer says more about these */
#endif
    };
    stack_t stack = {.ss_sp = handler_stack, .ss_size = sizeof(handler_stack)};
    struct sigaction action = {.sa_sigaction = on_crash,
                               .sa_flags = (int)(SA_SIGINFO | SA_RESETHAND | SA_ONSTACK)};
    void *frame;

    (void)snprintf(own_name, sizeof(own_name), "%s", program_invocation_short_name);
    (void)backtrace(&frame, 1); /* the first call loads libgcc_s: not in the handler */
    (void)sigaltstack(&stack, NULL);
    (void)sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        (void)sigaction(numbers[i], &action, NULL);
    }
}
