/* SPDX-License-Identifier: Apache-2.0
 *
 * Descriptors and process group of a new child. Close-on-exec does not help a child that never
 * executes anything, so it closes all but what its heritage names: also the lanes, the ends of its
 * siblings' channels (whose EOF would never come otherwise), the lock of the pid file and the
 * master's epoll descriptor, which libev holds and no list of ours could name.
 */
#include "master/after_fork.h"

#include <stdlib.h>
#include <unistd.h>

#include "config/base/check.h"

#define KEEP_MAX 16

static int
compare_numbers(const void *a, const void *b)
{
    const int *left = a;
    const int *right = b;

    return (*left > *right) - (*left < *right);
}

/* close_range(2) came with Linux 5.9. */
static void
close_between(int first, int last)
{
    if (first > last || close_range((unsigned int)first, (unsigned int)last, 0) == 0) {
        return;
    }
    long limit = sysconf(_SC_OPEN_MAX);
    for (int fd = first; fd <= last && fd < limit; fd++) {
        (void)close(fd); /* most are not open */
    }
}

void
after_fork_close_all_but(const int *keep, size_t count)
{
    int sorted[KEEP_MAX];
    size_t kept = 0;

    CHECK(count <= KEEP_MAX);
    for (size_t i = 0; i < count; i++) {
        if (keep[i] > STDERR_FILENO) {
            sorted[kept++] = keep[i];
        }
    }
    qsort(sorted, kept, sizeof(sorted[0]), compare_numbers);
    int next = STDERR_FILENO + 1;
    for (size_t i = 0; i < kept; i++) {
        close_between(next, sorted[i] - 1);
        next = sorted[i] + 1;
    }
    close_between(next, __INT_MAX__);
}

void
after_fork_leave_group(void)
{
    (void)setpgid(0, 0); /* fails for a session leader only, which a new child is not */
}
