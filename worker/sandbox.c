/* SPDX-License-Identifier: Apache-2.0
 *
 * Landlock (landlock(7)) and seccomp (seccomp(2), through libseccomp), entered once and for good.
 *
 * A call that only a process which was taken over makes (FATAL) ends it with SIGSYS. Any other
 * call that is not on the list fails with EPERM, is told once for each number, is counted, and the
 * process goes on: a new C library must not take a service down. What is on the list without a
 * condition is answered from the kernel's bitmap of constant actions (Linux 5.11), so that reading,
 * sending and waiting cost next to nothing.
 */
#include "worker/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <linux/sockios.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "config/base/fd.h"
#include "config/base/log.h"
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

/* ---- Landlock --------------------------------------------------------------------------------
 * Of linux/landlock.h, which is as old as the headers of the machine that builds; the kernel that
 * runs may be newer. */

#define LANDLOCK_VERSION_QUESTION 1u /* LANDLOCK_CREATE_RULESET_VERSION */
#define LANDLOCK_PATH_BENEATH 1      /* LANDLOCK_RULE_PATH_BENEATH */
#define ACCESS_READ_FILE (UINT64_C(1) << 2)
#define ACCESS_READ_DIR (UINT64_C(1) << 3)
#define ACCESS_REFER_BIT 13     /* version 2 */
#define ACCESS_TRUNCATE_BIT 14  /* 3 */
#define ACCESS_IOCTL_DEV_BIT 15 /* 5 */
#define NET_BIND_TCP UINT64_C(1)
#define SCOPE_SIGNAL (UINT64_C(1) << 1)

struct ruleset_attr {
    uint64_t handled_access_fs;
    uint64_t handled_access_net; /* version 4 */
    uint64_t scoped;             /* version 6 */
};

struct path_attr {
    uint64_t allowed_access;
    int32_t parent_fd;
} __attribute__((packed));

uint64_t
sandbox_landlock_rights(int abi)
{
    int known = abi < 2   ? ACCESS_REFER_BIT
                : abi < 3 ? ACCESS_TRUNCATE_BIT
                : abi < 5 ? ACCESS_IOCTL_DEV_BIT
                          : ACCESS_IOCTL_DEV_BIT + 1;

    return abi < 1 ? 0 : (UINT64_C(1) << known) - 1;
}

/* Returns the version, or a negative errno. */
static int
landlock_version(void)
{
    long version = syscall(SYS_landlock_create_ruleset, NULL, (size_t)0, LANDLOCK_VERSION_QUESTION);

    return version == -1 ? -errno : (int)version;
}

static const char *
landlock_advice(int error)
{
    switch (error) {
    case ENOSYS:
        return "the kernel is older than 5.13 or was built without it";
    case EOPNOTSUPP:
        return "switched off at boot; add landlock to the lsm= list of the kernel's command line";
    case EPERM:
        return "the seccomp filter of the container forbids it; use a newer container runtime";
    default:
        return "unexpected";
    }
}

static int
allow_reading(int ruleset_fd, int fd)
{
    struct path_attr rule = {.allowed_access = ACCESS_READ_FILE, .parent_fd = fd};
    struct stat st;

    if (fstat(fd, &st) == -1) {
        return -errno;
    }
    if (S_ISDIR(st.st_mode)) {
        rule.allowed_access |= ACCESS_READ_DIR;
    }
    return syscall(SYS_landlock_add_rule, ruleset_fd, LANDLOCK_PATH_BENEATH, &rule, 0u) == -1
               ? -errno
               : 0;
}

#ifdef __SANITIZE_ADDRESS__
static int
allow_reading_path(int ruleset_fd, const char *path)
{
    int fd = open(path, O_PATH | O_CLOEXEC);
    int result = fd == -1 ? -errno : allow_reading(ruleset_fd, fd);

    fd_close(&fd);
    return result;
}
#endif

/* What only the run-time library of a build that measures reads: its own memory map and threads,
 * its own program for names in reports. */
static int
allow_sanitizer(int ruleset_fd)
{
#ifdef __SANITIZE_ADDRESS__
    int result = allow_reading_path(ruleset_fd, "/proc/self");

    return result != 0 ? result : allow_reading_path(ruleset_fd, "/proc/self/exe");
#else
    (void)ruleset_fd;
    return 0;
#endif
}

static int
landlock_enter(const struct sandbox_plan *plan, int abi)
{
    struct ruleset_attr attr = {.handled_access_fs = sandbox_landlock_rights(abi)};
    size_t size = offsetof(struct ruleset_attr, handled_access_net);
    int result = 0;

    if (abi >= 4) {
        attr.handled_access_net = NET_BIND_TCP; /* it listens on what it is given, and nowhere */
        size = offsetof(struct ruleset_attr, scoped);
    }
    if (abi >= 6) {
        /* Not the scope of abstract sockets: workers wake each other by these (wake.c). */
        attr.scoped = SCOPE_SIGNAL;
        size = sizeof(attr);
    }
    int fd = (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0u);
    if (fd == -1) {
        return -errno;
    }
    for (size_t i = 0; i < plan->folder_count && result == 0; i++) {
        result = allow_reading(fd, plan->folders[i]);
    }
    if (result == 0) {
        result = allow_sanitizer(fd);
    }
    if (result == 0 && syscall(SYS_landlock_restrict_self, fd, 0u) == -1) {
        result = -errno;
    }
    fd_close(&fd);
    return result;
}

/* ---- the list of system calls ----------------------------------------------------------------
 */

/* Without a condition. The list is what strace(1) saw over the whole test suite, and what the C
 * library does instead on other kernels and machines. */
static const char *const allowed[] = {
    /* sockets and pipes: the hot path */
    "read", "readv", "pread64", "preadv", "preadv2", "write", "writev", "recvfrom", "recvmsg",
    "recvmmsg", "recv", "sendto", "sendmsg", "sendmmsg", "send", "sendfile", "sendfile64", "splice",
    "accept4", "accept", "connect", "shutdown", "getsockname", "getpeername", "getsockopt",
    "setsockopt", "close", "close_range", "dup", "dup2", "dup3", "fcntl", "fcntl64",
    /* the event loop */
    "epoll_create1", "epoll_create", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2",
    "eventfd2", "eventfd", "timerfd_create", "timerfd_settime", "timerfd_gettime", "signalfd4",
    "poll", "ppoll", "select", "pselect6", "_newselect", "pipe2", "pipe",
    /* files, which Landlock guards; these change none */
    "openat2", "fstat", "fstat64", "newfstatat", "fstatat64", "stat", "stat64", "lstat", "lstat64",
    "statx", "lseek", "_llseek", "readlink", "readlinkat", "getdents64", "fadvise64",
    /* memory */
    "brk", "munmap", "mremap", "madvise", "membarrier",
    /* time, chance, itself */
    "clock_gettime", "clock_gettime64", "clock_getres", "clock_nanosleep", "nanosleep",
    "gettimeofday", "time", "times", "getrandom", "getpid", "gettid", "getppid", "getuid",
    "geteuid", "getgid", "getegid", "getcpu", "sched_yield", "sched_getaffinity", "getrusage",
    "getrlimit", "ugetrlimit", "sysinfo", "uname", "futex", "futex_time64", "set_robust_list",
    "rseq", "arch_prctl",
    /* signals and the end */
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigpending", "sigreturn", "sigaltstack",
    "restart_syscall", "exit", "exit_group",
#ifdef __SANITIZE_ADDRESS__
    "wait4", "getdents", /* the leak check waits for its thread, which lists all threads */
#endif
};

/* Nothing of ours, no library of ours and no C library makes one of these in a worker: whoever does
 * runs somebody else's code. */
static const char *const fatal[] = {
    "execve",
    "execveat",
    "fork",
    "vfork",
    "clone3",
    "kexec_load",
    "kexec_file_load",
    "init_module",
    "finit_module",
    "delete_module",
    "mount",
    "umount",
    "umount2",
    "pivot_root",
    "chroot",
    "move_mount",
    "open_tree",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "mount_setattr",
    "unshare",
    "setns",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "process_vm_readv",
    "process_vm_writev",
    "pidfd_getfd",
    "keyctl",
    "add_key",
    "request_key",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "setuid",
    "setgid",
    "setreuid",
    "setregid",
    "setresuid",
    "setresgid",
    "setfsuid",
    "setfsgid",
    "setgroups",
    "capset",
    "personality",
    "reboot",
    "swapon",
    "swapoff",
    "acct",
    "iopl",
    "ioperm",
    "modify_ldt",
    "open_by_handle_at",
    "settimeofday",
    "clock_settime",
    "adjtimex",
    "clock_adjtime",
    "sethostname",
    "setdomainname",
    "quotactl",
    "syslog",
};

/* Of the address space: writing it and executing it are two different things. */
#define ARG_PROT 2
/* LeakSanitizer: a thread of ours that shares everything and looks at us while we stand still
 * (sanitizer_stoptheworld_linux_libcdep.cpp). The filter holds for it, too. */
#define LEAK_CHECK_CLONE (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_UNTRACED)

struct filter {
    scmp_filter_ctx context;
    int result; /* the first error */
};

static void
add_rule(struct filter *filter, uint32_t action, const char *name, unsigned int count,
         const struct scmp_arg_cmp *conditions)
{
    int number = seccomp_syscall_resolve_name(name);

    /* Negative: this machine, or this libseccomp, does not know it. */
    if (filter->result == 0 && number >= 0) {
        filter->result = seccomp_rule_add_array(filter->context, action, number, count, conditions);
    }
}

static void
allow_if(struct filter *filter, const char *name, struct scmp_arg_cmp condition)
{
    add_rule(filter, SCMP_ACT_ALLOW, name, 1, &condition);
}

/* kill, tgkill: abort() and raise() send a signal to itself. */
static void
add_signals(struct filter *filter)
{
    scmp_datum_t self = (scmp_datum_t)getpid();

    allow_if(filter, "kill", SCMP_A0_64(SCMP_CMP_EQ, self));
    allow_if(filter, "tgkill", SCMP_A0_64(SCMP_CMP_EQ, self));
#ifdef __SANITIZE_ADDRESS__
    /* No process can trace itself: only that thread of the leak check can use this. */
    allow_if(filter, "clone", SCMP_A0_64(SCMP_CMP_EQ, LEAK_CHECK_CLONE));
    add_rule(filter, SCMP_ACT_KILL_PROCESS, "clone", 1, &SCMP_A0_64(SCMP_CMP_NE, LEAK_CHECK_CLONE));
    allow_if(filter, "ptrace", SCMP_A1_64(SCMP_CMP_EQ, self));
    add_rule(filter, SCMP_ACT_KILL_PROCESS, "ptrace", 1, &SCMP_A1_64(SCMP_CMP_NE, self));
    allow_if(filter, "prctl", SCMP_A0_64(SCMP_CMP_EQ, PR_SET_PTRACER));
    allow_if(filter, "prctl", SCMP_A0_64(SCMP_CMP_EQ, PR_SET_PDEATHSIG));
    allow_if(filter, "prctl", SCMP_A0_64(SCMP_CMP_EQ, PR_GET_DUMPABLE));
    allow_if(filter, "prctl", SCMP_A0_64(SCMP_CMP_EQ, PR_SET_DUMPABLE));
#else
    add_rule(filter, SCMP_ACT_KILL_PROCESS, "clone", 0, NULL);
    add_rule(filter, SCMP_ACT_KILL_PROCESS, "ptrace", 0, NULL);
#endif
}

static void
add_conditional(struct filter *filter, bool datagrams)
{
    static const scmp_datum_t families[] = {AF_UNIX, AF_INET, AF_INET6};
    static const scmp_datum_t requests[] = {SIOCOUTQ, SIOCOUTQNSD, FIONREAD, FIONBIO};
    const scmp_datum_t writing =
        O_WRONLY | O_RDWR | O_CREAT | O_TRUNC | O_APPEND | (O_TMPFILE & ~O_DIRECTORY);
    const scmp_datum_t type_bits = ~(scmp_datum_t)(SOCK_NONBLOCK | SOCK_CLOEXEC) & UINT32_MAX;

    /* openat2(2) has its flags in memory, where no filter can look: Landlock alone holds there. */
    allow_if(filter, "openat", SCMP_A2_64(SCMP_CMP_MASKED_EQ, writing, 0));
    allow_if(filter, "open", SCMP_A1_64(SCMP_CMP_MASKED_EQ, writing, 0));
    allow_if(filter, "mmap", SCMP_CMP64(ARG_PROT, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    allow_if(filter, "mmap2", SCMP_CMP64(ARG_PROT, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    allow_if(filter, "mprotect", SCMP_CMP64(ARG_PROT, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    allow_if(filter, "prlimit64", SCMP_A2_64(SCMP_CMP_EQ, 0));      /* reading */
    allow_if(filter, "prctl", SCMP_A0_64(SCMP_CMP_EQ, PR_SET_VMA)); /* names of the allocator */
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        allow_if(filter, "ioctl", SCMP_A1_64(SCMP_CMP_EQ, requests[i]));
    }
    for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
        const struct scmp_arg_cmp stream[] = {
            SCMP_A0_64(SCMP_CMP_EQ, families[i]),
            SCMP_A1_64(SCMP_CMP_MASKED_EQ, type_bits, SOCK_STREAM)};
        const struct scmp_arg_cmp datagram[] = {
            SCMP_A0_64(SCMP_CMP_EQ, families[i]),
            SCMP_A1_64(SCMP_CMP_MASKED_EQ, type_bits, SOCK_DGRAM)};
        add_rule(filter, SCMP_ACT_ALLOW, "socket", 2, stream);
        if (datagrams) {
            add_rule(filter, SCMP_ACT_ALLOW, "socket", 2, datagram);
        }
    }
    add_signals(filter);
}

/* ---- a call that is refused ------------------------------------------------------------------
 */

static _Atomic uint64_t *refused_count;
#define NUMBERS_TOLD 1024 /* one line for each number below it, and one for all others */
static bool told[NUMBERS_TOLD + 1];

/* By SIGSYS in the middle of the call: what the call returns is put in place of what the kernel
 * would have said. Naming allocates memory, as a log line never does, so not while the allocator
 * itself is refused something. */
static void
on_refused(int signal_number, siginfo_t *info, void *context)
{
    ucontext_t *machine = context;
    int saved_errno = errno;
    unsigned int number = (unsigned int)info->si_syscall;
    unsigned int row = number < NUMBERS_TOLD ? number : NUMBERS_TOLD;
    bool is_memory = number == SYS_mmap || number == SYS_mprotect || number == SYS_brk;

    (void)signal_number;
#if defined(__x86_64__)
    machine->uc_mcontext.gregs[REG_RAX] = -EPERM;
#elif defined(__aarch64__)
    machine->uc_mcontext.regs[0] = (uint64_t)-EPERM;
#else
    (void)machine;
#endif
    if (refused_count != NULL) {
        uint64_t before = atomic_load_explicit(refused_count, memory_order_relaxed);
        atomic_store_explicit(refused_count, before + 1, memory_order_relaxed);
    }
    if (!told[row]) {
        told[row] = true;
        char *name =
            is_memory ? NULL : seccomp_syscall_resolve_num_arch(seccomp_arch_native(), (int)number);
        log_error("the sandbox refused a system call name=%s number=%u help=\"tell the authors of "
                  "narwhal; [master] sandbox = off goes on without the sandbox\"",
                  name != NULL ? name : "?", number);
        free(name);
    }
    errno = saved_errno;
}

/* Without a handler that can answer, the kernel does. */
#if defined(__x86_64__) || defined(__aarch64__)
#define REFUSE SCMP_ACT_TRAP
#else
#define REFUSE SCMP_ACT_ERRNO(EPERM)
#endif

static int
seccomp_enter(const struct sandbox_plan *plan)
{
    struct filter filter = {.context = seccomp_init(REFUSE)};
    struct sigaction action = {.sa_sigaction = on_refused, .sa_flags = SA_SIGINFO};

    if (filter.context == NULL) {
        return -ENOMEM;
    }
    refused_count = plan->refused;
    (void)sigemptyset(&action.sa_mask);
    if (sigaction(SIGSYS, &action, NULL) == -1) {
        filter.result = -errno;
    }
    for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++) {
        add_rule(&filter, SCMP_ACT_ALLOW, allowed[i], 0, NULL);
    }
    for (size_t i = 0; i < sizeof(fatal) / sizeof(fatal[0]); i++) {
        add_rule(&filter, SCMP_ACT_KILL_PROCESS, fatal[i], 0, NULL);
    }
    add_conditional(&filter, plan->datagrams);
    if (filter.result == 0) {
        filter.result =
            seccomp_attr_set(filter.context, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    }
    if (filter.result == 0) {
        /* A tree instead of a list for the calls that have conditions. */
        (void)seccomp_attr_set(filter.context, SCMP_FLTATR_CTL_OPTIMIZE, 2);
        /* Kernels before 5.16 slow a filtered process down against Spectre, unless it says that it
         * runs no code of strangers (SECCOMP_FILTER_FLAG_SPEC_ALLOW). */
        (void)seccomp_attr_set(filter.context, SCMP_FLTATR_CTL_SSB, 1);
        filter.result = seccomp_load(filter.context);
    }
    seccomp_release(filter.context);
    return filter.result;
}

/* ---- interface -------------------------------------------------------------------------------
 */

struct sandbox_state
sandbox_offered(struct buf *missing)
{
    struct sandbox_state offered = {0};
#ifdef NARWHAL_NO_SANDBOX
    buf_add_text(missing, "this build writes its counters at exit and has no sandbox");
#else
    uint32_t action = SECCOMP_RET_KILL_PROCESS;
    int abi = landlock_version();

    if (abi > 0) {
        offered.landlock_abi = abi;
    } else {
        buf_addf(missing, "no Landlock: %s (%s)", strerror(-abi), landlock_advice(-abi));
    }
    offered.seccomp = syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0u, &action) == 0;
    if (!offered.seccomp) {
        buf_addf(missing,
                 "%sno seccomp filter: %s (it needs Linux 4.14 and a kernel built with it)",
                 missing->len > 0 ? "; " : "", strerror(errno));
    }
#endif
    return offered;
}

void
sandbox_print(const struct sandbox_state *state, char ret_text[SANDBOX_TEXT_MAX])
{
    char abi[16];

    (void)snprintf(abi, sizeof(abi), "%d", state->landlock_abi);
    (void)snprintf(ret_text, SANDBOX_TEXT_MAX, "landlock=%s seccomp=%s",
                   state->landlock_abi > 0 ? abi : "no", state->seccomp ? "yes" : "no");
}

#define PACKED_SECCOMP 0x10000u
#define PACKED_ABI 0xffffu

uint32_t
sandbox_pack(const struct sandbox_state *state)
{
    return ((uint32_t)state->landlock_abi & PACKED_ABI) | (state->seccomp ? PACKED_SECCOMP : 0);
}

struct sandbox_state
sandbox_unpack(uint32_t packed)
{
    return (struct sandbox_state){.landlock_abi = (int)(packed & PACKED_ABI),
                                  .seccomp = (packed & PACKED_SECCOMP) != 0};
}

int
sandbox_enter(const struct sandbox_plan *plan, struct sandbox_state *ret_state, struct buf *why)
{
    struct buf missing = {0};
    int result = 0;

    *ret_state = (struct sandbox_state){0};
    if (plan->mode == SANDBOX_OFF) {
        return 0;
    }
    struct sandbox_state offered = sandbox_offered(&missing);
    if (plan->mode == SANDBOX_ON && missing.len > 0) {
        buf_addf(why, "[master] sandbox = on: %s", missing.ptr);
        buf_release(&missing);
        return -ENOTSUP;
    }
    buf_release(&missing);
    if (plan->landlock_abi_max > 0 && offered.landlock_abi > plan->landlock_abi_max) {
        offered.landlock_abi = plan->landlock_abi_max;
    }
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_set_report_path("stderr"); /* it could make no file for a report any more */
#endif
    if ((offered.landlock_abi > 0 || offered.seccomp) &&
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1) {
        result = -errno;
        buf_addf(why, "cannot set no_new_privs: %s", strerror(-result));
    }
    if (result == 0 && offered.landlock_abi > 0) {
        result = landlock_enter(plan, offered.landlock_abi);
        if (result != 0) {
            buf_addf(why,
                     "cannot enter the Landlock sandbox: %s; [master] sandbox = off goes on "
                     "without it",
                     strerror(-result));
        }
    }
    if (result == 0 && offered.seccomp) {
        result = seccomp_enter(plan);
        if (result != 0) {
            buf_addf(why,
                     "cannot load the seccomp filter: %s; [master] sandbox = off goes on "
                     "without it",
                     strerror(-result));
        }
    }
    if (result == 0) {
        *ret_state = offered;
    }
    return result;
}
