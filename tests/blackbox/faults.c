/* SPDX-License-Identifier: Apache-2.0
 *
 * Shortages on demand, for test_shortage.py: narwhal_faults is narwhal with the C library's calls
 * below wrapped by the linker (ld(1), --wrap). A file that the test maps too (FAULTS_FILE) says
 * which process suffers, and what: memory that ends at a number of bytes, and calls that fail with
 * an errno for a number of times. Without the variable, and in every other process, nothing is
 * different. Runs in all processes of a test; one thread each.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

enum fault_call { FAULT_ACCEPT = 0, FAULT_SEND, FAULT_RECV, FAULT_CALL_COUNT };

/* As test_shortage.py has it: native 64-bit words in this order. */
struct faults {
    int64_t pid;        /* who suffers; 0: nobody */
    int64_t heap_limit; /* bytes; 0: none */
    int64_t heap_used;  /* of that process, out */
    int64_t refused;    /* allocations refused, out */
    struct {
        int64_t error; /* errno */
        int64_t left;  /* calls that still fail with it */
        int64_t done;  /* calls that did, out */
    } call[FAULT_CALL_COUNT];
};

static volatile struct faults *faults;
static int64_t heap_used;

__attribute__((constructor)) static void
map_faults(void)
{
    const char *path = getenv("FAULTS_FILE");
    int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;

    if (fd == -1) {
        return;
    }
    void *memory = mmap(NULL, sizeof(*faults), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    faults = memory != MAP_FAILED ? memory : NULL;
    (void)close(fd);
}

static volatile struct faults *
mine(void)
{
    return faults != NULL && faults->pid == getpid() ? faults : NULL;
}

/* ---- memory ---------------------------------------------------------------------------------- */

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
void __real_free(void *memory);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *memory, size_t size);
void __wrap_free(void *memory);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t length);

static bool
refuses(size_t more)
{
    volatile struct faults *now = mine();

    if (now == NULL || now->heap_limit == 0 || heap_used + (int64_t)more <= now->heap_limit) {
        return false;
    }
    now->refused++;
    errno = ENOMEM;
    return true;
}

static void *
counted(void *memory)
{
    volatile struct faults *now = mine();

    heap_used += memory != NULL ? (int64_t)malloc_usable_size(memory) : 0;
    if (now != NULL) {
        now->heap_used = heap_used;
    }
    return memory;
}

void *
__wrap_malloc(size_t size)
{
    return refuses(size) ? NULL : counted(__real_malloc(size));
}

void *
__wrap_calloc(size_t count, size_t size)
{
    return refuses(count * size) ? NULL : counted(__real_calloc(count, size));
}

void *
__wrap_realloc(void *memory, size_t size)
{
    size_t before = memory != NULL ? malloc_usable_size(memory) : 0;

    if (size > before && refuses(size - before)) {
        return NULL;
    }
    heap_used -= (int64_t)before;
    return counted(__real_realloc(memory, size));
}

void
__wrap_free(void *memory)
{
    if (memory != NULL) {
        heap_used -= (int64_t)malloc_usable_size(memory);
        (void)counted(NULL);
    }
    __real_free(memory);
}

char *
__wrap_strndup(const char *text, size_t length)
{
    size_t whole = strnlen(text, length);
    char *copy = __wrap_malloc(whole + 1);

    if (copy != NULL) {
        memcpy(copy, text, whole);
        copy[whole] = '\0';
    }
    return copy;
}

char *
__wrap_strdup(const char *text)
{
    return __wrap_strndup(text, strlen(text));
}

/* ---- sockets --------------------------------------------------------------------------------- */

int __real_accept4(int fd, struct sockaddr *address, socklen_t *length, int flags);
ssize_t __real_send(int fd, const void *bytes, size_t size, int flags);
ssize_t __real_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __real_sendfile(int to, int from, off_t *offset, size_t count);
ssize_t __real_recv(int fd, void *bytes, size_t size, int flags);
int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *length, int flags);
ssize_t __wrap_send(int fd, const void *bytes, size_t size, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __wrap_sendfile(int to, int from, off_t *offset, size_t count);
ssize_t __wrap_recv(int fd, void *bytes, size_t size, int flags);

static bool
fails(enum fault_call call)
{
    volatile struct faults *now = mine();

    if (now == NULL || now->call[call].left <= 0) {
        return false;
    }
    now->call[call].left--;
    now->call[call].done++;
    errno = (int)now->call[call].error;
    return true;
}

int
__wrap_accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
    return fails(FAULT_ACCEPT) ? -1 : __real_accept4(fd, address, length, flags);
}

ssize_t
__wrap_send(int fd, const void *bytes, size_t size, int flags)
{
    return fails(FAULT_SEND) ? -1 : __real_send(fd, bytes, size, flags);
}

ssize_t
__wrap_sendmsg(int fd, const struct msghdr *message, int flags)
{
    return fails(FAULT_SEND) ? -1 : __real_sendmsg(fd, message, flags);
}

ssize_t
__wrap_sendfile(int to, int from, off_t *offset, size_t count)
{
    return fails(FAULT_SEND) ? -1 : __real_sendfile(to, from, offset, count);
}

ssize_t
__wrap_recv(int fd, void *bytes, size_t size, int flags)
{
    return fails(FAULT_RECV) ? -1 : __real_recv(fd, bytes, size, flags);
}
