/* SPDX-License-Identifier: Apache-2.0
 *
 * Entering, with each version of Landlock that this kernel has, and what holds then. Each test is a
 * process of its own, which never gets out again; blackbox.sandbox tries the same in a worker.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/base/buf.h"
#include "worker/sandbox.h"

/* What every machine has; nothing could be cleaned up after entering. */
#define FOLDER "/usr/lib"
#define FILE_NAME "os-release"

static int folder_fd;

static void
open_folder(void)
{
    folder_fd = open(FOLDER, O_PATH | O_CLOEXEC);
    cr_assert_neq(folder_fd, -1);
    (void)close(STDERR_FILENO); /* refusals are told, and nobody shall read that in a report */
}

TestSuite(sandbox, .init = open_folder);

static bool
can_open(const char *path, int flags)
{
    int fd = openat(folder_fd, path, flags | O_CLOEXEC);

    if (fd != -1) {
        (void)close(fd);
    }
    return fd != -1;
}

static struct sandbox_state
enter(int abi_max, bool datagrams, _Atomic uint64_t *refused)
{
    const struct sandbox_plan plan = {.mode = SANDBOX_AUTO,
                                      .folders = &folder_fd,
                                      .folder_count = 1,
                                      .landlock_abi_max = abi_max,
                                      .datagrams = datagrams,
                                      .refused = refused};
    struct sandbox_state state;
    struct buf why = {0};

    cr_assert_eq(sandbox_enter(&plan, &state, &why), 0, "%s", why.ptr);
    return state;
}

/* landlock(7): 13 rights, then REFER, TRUNCATE, IOCTL_DEV with versions 2, 3 and 5. */
Test(sandbox, rights_of_each_version)
{
    static const uint64_t wanted[] = {0,      0x1fff, 0x3fff, 0x7fff, 0x7fff,
                                      0xffff, 0xffff, 0xffff, 0xffff};

    for (int abi = 0; abi < (int)(sizeof(wanted) / sizeof(wanted[0])); abi++) {
        cr_expect_eq(sandbox_landlock_rights(abi), wanted[abi], "version %d", abi);
    }
}

static void
check_version(int abi)
{
    struct buf missing = {0};
    struct sandbox_state offered = sandbox_offered(&missing);

    buf_release(&missing);
    if (offered.landlock_abi < abi) {
        cr_skip_test("this kernel has version %d of Landlock", offered.landlock_abi);
    }
    cr_assert(can_open("/etc/passwd", O_RDONLY));
    struct sandbox_state state = enter(abi, false, NULL);
    cr_expect_eq(state.landlock_abi, abi);
    cr_expect(can_open(FILE_NAME, O_RDONLY));
    cr_expect(can_open(".", O_RDONLY | O_DIRECTORY));
    cr_expect(!can_open("/etc/passwd", O_RDONLY));
    cr_expect_eq(errno, EACCES);
    cr_expect(!can_open("../", O_RDONLY | O_DIRECTORY));
}

#define VERSION_TEST(number)                                                                       \
    Test(sandbox, version_##number)                                                                \
    {                                                                                              \
        check_version(number);                                                                     \
    }
VERSION_TEST(1)
VERSION_TEST(2)
VERSION_TEST(3)
VERSION_TEST(4)
VERSION_TEST(5)
VERSION_TEST(6)
VERSION_TEST(7)

Test(sandbox, what_is_refused_is_counted)
{
    static _Atomic uint64_t refused;

    if (!enter(0, false, &refused).seccomp) {
        cr_skip_test("this kernel has no seccomp filter");
    }
    cr_expect_eq(unlinkat(folder_fd, "no-such-file", 0), -1);
    cr_expect_eq(errno, EPERM);
    cr_expect_eq(fchmodat(folder_fd, "no-such-file", 0600, 0), -1);
    cr_expect_eq(atomic_load(&refused), 2);
    cr_expect(can_open(FILE_NAME, O_RDONLY));
}

Test(sandbox, off_changes_nothing)
{
    const struct sandbox_plan plan = {.mode = SANDBOX_OFF};
    struct sandbox_state state;
    struct buf why = {0};

    cr_assert_eq(sandbox_enter(&plan, &state, &why), 0);
    cr_expect_eq(sandbox_pack(&state), 0);
    cr_expect(can_open("/etc/passwd", O_RDONLY));
    cr_expect_eq(unlinkat(folder_fd, "no-such-file", 0), -1);
    cr_expect_eq(errno, ENOENT);
}

Test(sandbox, packs_what_it_prints)
{
    struct sandbox_state state = {.landlock_abi = 7, .seccomp = true};
    struct sandbox_state again = sandbox_unpack(sandbox_pack(&state));
    char text[SANDBOX_TEXT_MAX];

    cr_expect_eq(again.landlock_abi, 7);
    cr_expect(again.seccomp);
    sandbox_print(&again, text);
    cr_expect_str_eq(text, "landlock=7 seccomp=yes");
    sandbox_print(&(struct sandbox_state){0}, text);
    cr_expect_str_eq(text, "landlock=no seccomp=no");
}
