# SPDX-License-Identifier: Apache-2.0
"""A kernel that has less than this one, for one process and its children: chosen system calls fail
as they do where they do not exist. Made with libseccomp, which narwhal itself needs.

    Narwhal(settings, preexec_fn=kernel.without("landlock_create_ruleset"))
"""
import ctypes
import errno

ALLOW = 0x7fff0000
ERRNO = 0x00050000


def without(*names, error=errno.ENOSYS):
    """For preexec_fn: the library is loaded before the fork."""
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_load.argtypes = [ctypes.c_void_p]
    library.seccomp_rule_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int,
                                         ctypes.c_uint]
    numbers = [library.seccomp_syscall_resolve_name(name.encode()) for name in names]
    assert all(number >= 0 for number in numbers), names

    def take_away():
        context = library.seccomp_init(ALLOW)
        for number in numbers:
            assert library.seccomp_rule_add(context, ERRNO | error, number, 0) == 0
        assert library.seccomp_load(context) == 0
    return take_away


def has_landlock():
    """Whether this kernel has Landlock: its version, 0 without it."""
    libc = ctypes.CDLL(None, use_errno=True)
    number = ctypes.CDLL("libseccomp.so.2").seccomp_syscall_resolve_name(
        b"landlock_create_ruleset")
    return max(0, libc.syscall(number, None, ctypes.c_size_t(0), 1))
