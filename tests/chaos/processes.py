# SPDX-License-Identifier: Apache-2.0
"""Processes: who is whose child, what they hold, and an end for all that were started."""
import array
import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import termios
import time

DEADLINE = 20.0
PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
SYS_PIDFD_GETFD = 438        # the same number on every architecture
_libc = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """A measurement that could not be made; the text says what and why."""


def wait_until(condition, what, deadline=DEADLINE):
    """The first true value of condition()."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed(f"not within {deadline:g} s: {what}")
        time.sleep(0.002)


def adopt_orphans():
    """What daemonizes below us stays below us, so that it can be found and ended."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def stat_of(pid):
    """(state, ppid, ticks of CPU used) or None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0].decode(), int(fields[1]), int(fields[11]) + int(fields[12])


def is_alive(pid):
    found = stat_of(pid)
    return found is not None and found[0] not in "ZX"


def title_of(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").strip().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def children_of(pid):
    """Living children, oldest first. A master has one thread."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(child) for child in file.read().split() if is_alive(int(child))]
    except (FileNotFoundError, ProcessLookupError):
        return []


def descendants_of(pid):
    found = []
    for child in children_of(pid):
        found += [child] + descendants_of(child)
    return found


def kill(pid, sig):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, sig)


def freeze(pid):
    """SIGSTOP, and waits until the process stands still. False: it is gone."""
    kill(pid, signal.SIGSTOP)
    end = time.monotonic() + 1
    while time.monotonic() < end:
        found = stat_of(pid)
        if found is None or found[0] in "ZX":
            return False
        if found[0] == "T":
            return True
    raise Failed(f"process {pid} does not stop")


@contextlib.contextmanager
def hurry():
    """What stands in the block runs before other processes, if we may ask for that: something is
    frozen meanwhile, and requests pile up on it."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    except PermissionError:
        pass
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


def _count_sockets(pid, wanted):
    """How many sockets of the frozen process are wanted(copy of it). Where we may not look into
    the process (pidfd_getfd(2) asks for what ptrace(2) asks for, and some containers refuse it)
    all of them count: what is said to be at most so much is still at most so much."""
    count = 0
    pidfd = os.pidfd_open(pid)
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                    continue
            except FileNotFoundError:
                continue
            copy = _libc.syscall(SYS_PIDFD_GETFD, pidfd, int(name), 0)
            if copy == -1:
                count += 1
                continue
            with socket.socket(fileno=copy) as sock:
                count += (sock.type == socket.SOCK_STREAM
                          and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                          and wanted(sock))
    finally:
        os.close(pidfd)
    return count


def connections_held(pid, port):
    """How many accepted connections to a TCP port the frozen process has open. Those that wait in
    an accept queue belong to nobody and do not count."""
    return _count_sockets(pid, lambda sock: sock.family == socket.AF_INET
                          and sock.getsockname()[1] == port)


def unread_connections(pid):
    """How many accepted unix connections of the frozen process hold bytes that it did not read."""
    def has_unread(sock):
        unread = array.array("i", [0])
        fcntl.ioctl(sock.fileno(), termios.FIONREAD, unread)
        return unread[0] > 0
    return _count_sockets(pid, lambda sock: sock.family == socket.AF_UNIX and has_unread(sock))


def end_all(pids, grace):
    """SIGTERM to each and, what is left after grace seconds, SIGKILL; by pid."""
    for pid in pids:
        kill(pid, signal.SIGCONT)
        kill(pid, signal.SIGTERM)
    end = time.monotonic() + grace
    while any(is_alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.01)
    for pid in pids:
        if is_alive(pid):
            kill(pid, signal.SIGKILL)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
