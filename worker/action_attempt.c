/* SPDX-License-Identifier: Apache-2.0
 *
 * A route that tries what a worker which was taken over would try, from inside of a worker that
 * serves: the last segment of the path names the attempt, the query is its path or address, and the
 * answer is the name of the error, or "done". Only builds with NARWHAL_TEST_ROUTES have it; the
 * binary that ships knows neither the action nor its setting.
 */
#include "worker/action.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "config/base/fd.h"
#include "worker/exchange.h"
#include "worker/live.h"
#include "worker/worker_private.h"

/* ---- attempts: a descriptor, or 0 or more; -1 with errno -------------------------------------
 */

static int
try_read(const char *path)
{
    return open(path, O_RDONLY | O_CLOEXEC);
}

static int
try_list(const char *path)
{
    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int
try_write(const char *path)
{
    return open(path, O_WRONLY | O_CLOEXEC);
}

static int
try_create(const char *path)
{
    return open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
}

/* The one way of opening whose flags the filter cannot see. */
static int
try_write_openat2(const char *path)
{
    struct open_how how = {.flags = O_WRONLY | O_CLOEXEC};

    return (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));
}

static int
try_create_openat2(const char *path)
{
    struct open_how how = {.flags = O_RDWR | O_CREAT | O_CLOEXEC, .mode = 0600};

    return (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));
}

static int
try_truncate(const char *path)
{
    return truncate(path, 0);
}

static int
try_unlink(const char *path)
{
    return unlink(path);
}

static int
try_chmod(const char *path)
{
    return chmod(path, 0777);
}

static int
try_mkdir(const char *path)
{
    return mkdir(path, 0700);
}

static int
try_exec(const char *path)
{
    char *const argv[] = {(char[]){"true"}, NULL};

    return execve(path, argv, NULL);
}

static int
try_fork(const char *unused)
{
    (void)unused;
    long pid = syscall(SYS_clone, (long)SIGCHLD, 0L, 0L, 0L, 0L);
    if (pid == 0) {
        _exit(0);
    }
    return (int)pid;
}

static int
try_clone3(const char *unused)
{
    (void)unused;
    return (int)syscall(SYS_clone3, NULL, (size_t)0);
}

static int
try_ptrace_master(const char *unused)
{
    (void)unused;
    return (int)ptrace(PTRACE_ATTACH, getppid(), NULL, NULL);
}

static int
try_ptrace_me(const char *unused)
{
    (void)unused;
    return (int)ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}

static int
try_mount(const char *path)
{
    return mount("none", path, "tmpfs", 0, NULL);
}

static int
try_unshare(const char *unused)
{
    (void)unused;
    return unshare(CLONE_NEWUSER);
}

static int
try_setuid(const char *unused)
{
    (void)unused;
    return setresuid(0, 0, 0);
}

static int
try_kill_master(const char *unused)
{
    (void)unused;
    return kill(getppid(), 0);
}

static int
try_memfd(const char *unused)
{
    (void)unused;
    return memfd_create("attempt", MFD_CLOEXEC);
}

static int
try_execute_memory(const char *unused)
{
    (void)unused;
    void *memory =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? -1 : 0;
}

static int
try_make_executable(const char *unused)
{
    static _Alignas(4096) char page[4096];

    (void)unused;
    return mprotect(page, sizeof(page), PROT_READ | PROT_EXEC);
}

static int
try_socket_raw(const char *unused)
{
    (void)unused;
    return socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
}

static int
try_socket_datagram(const char *unused)
{
    (void)unused;
    return socket(AF_INET, SOCK_DGRAM, 0);
}

static int
try_socket_netlink(const char *unused)
{
    (void)unused;
    return socket(AF_NETLINK, SOCK_RAW, 0);
}

static int
try_bind(const char *unused)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)unused;
    int result = bind(fd, (const struct sockaddr *)&address, sizeof(address));
    int bind_errno = errno;
    fd_close(&fd);
    errno = bind_errno;
    return result;
}

static int
try_connect_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    int result = connect(fd, (const struct sockaddr *)&address, sizeof(address));
    int connect_errno = errno;
    fd_close(&fd);
    errno = connect_errno;
    return result;
}

static const struct {
    const char *name;
    int (*run)(const char *argument);
    bool gives_descriptor;
} attempts[] = {
    {"read", try_read, true},
    {"list", try_list, true},
    {"write", try_write, true},
    {"create", try_create, true},
    {"write_openat2", try_write_openat2, true},
    {"create_openat2", try_create_openat2, true},
    {"truncate", try_truncate, false},
    {"unlink", try_unlink, false},
    {"chmod", try_chmod, false},
    {"mkdir", try_mkdir, false},
    {"exec", try_exec, false},
    {"fork", try_fork, false},
    {"clone3", try_clone3, false},
    {"ptrace_master", try_ptrace_master, false},
    {"ptrace_me", try_ptrace_me, false},
    {"mount", try_mount, false},
    {"unshare", try_unshare, false},
    {"setuid", try_setuid, false},
    {"kill_master", try_kill_master, false},
    {"memfd", try_memfd, true},
    {"execute_memory", try_execute_memory, false},
    {"make_executable", try_make_executable, false},
    {"socket_raw", try_socket_raw, true},
    {"socket_datagram", try_socket_datagram, true},
    {"socket_netlink", try_socket_netlink, true},
    {"bind", try_bind, false},
    {"connect_unix", try_connect_unix, false},
};

/* ---- the action ------------------------------------------------------------------------------
 */

static const char *
attempt(struct str name, const char *argument)
{
    for (size_t i = 0; i < sizeof(attempts) / sizeof(attempts[0]); i++) {
        if (strlen(attempts[i].name) == name.len &&
            memcmp(attempts[i].name, name.ptr, name.len) == 0) {
            int result = attempts[i].run(argument);
            const char *answer = result == -1 ? strerrorname_np(errno) : "done";
            if (result != -1 && attempts[i].gives_descriptor) {
                fd_close(&result);
            }
            return answer;
        }
    }
    return "there is no such attempt";
}

static void
attempt_start(struct exchange *exchange)
{
    struct str path = exchange->path;
    struct str query = span_str(exchange->head->query, exchange->base);
    const char *slash = memrchr(path.ptr, '/', path.len);
    struct str name = {slash + 1, (size_t)(path.ptr + path.len - slash - 1)};
    char argument[1024];
    struct buf head = {0};
    struct buf body = {0};

    (void)snprintf(argument, sizeof(argument), "%.*s", (int)(query.len > 0 ? query.len - 1 : 0),
                   query.len > 0 ? query.ptr + 1 : ""); /* without its '?' */
    buf_addf(&body, "%s\n", attempt(name, argument));
    buf_addf(&head, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n",
             body.len);
    exchange_answer(exchange, 200, (struct str){head.ptr, head.len},
                    (struct str){body.ptr, body.len});
    buf_release(&head);
    buf_release(&body);
}

const struct action action_attempt = {.name = "attempt", .start = attempt_start};
