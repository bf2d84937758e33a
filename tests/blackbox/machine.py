# SPDX-License-Identifier: Apache-2.0
"""Boots a real systemd for a test: systemd-nspawn on an overlay of this machine's own root, whose
upper folder is a tmpfs, so that nothing of it stays. All mounts are in a mount namespace of their
own and end with its last process; the machine has its own network, too, which the test may enter.
"""
import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time

from narwhal import children_of, wait_until

CLONE_NEWNET = 0x40000000
BOOT_DEADLINE = 90
TARGET = "narwhal-test.target"

# Runs in the new mount namespace. $1 is an empty folder, $2 the build; then nspawn takes its place.
PREPARE = r"""
set -e
top=$1 build=$2 own=$3
mount -t tmpfs -o size=1g,mode=0755 tmpfs "$top"
mkdir "$top/upper" "$top/work" "$top/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$top/upper,workdir=$top/work" "$top/root"
root=$top/root
DESTDIR=$root cmake --install "$build" >"$top/install.log"
# Nothing of this machine's own services.
rm -rf "$root/etc/systemd/system" "$root/var/log/journal" "$root/run/systemd"
mkdir -p "$root/etc/systemd/system" "$root/etc/systemd/journald.conf.d" "$root/srv/www"
cp -r "$own/." "$root/"
systemd-sysusers --root="$root" "$root$4/lib/sysusers.d/narwhal.conf" >>"$top/install.log" 2>&1
exec systemd-nspawn --boot --directory="$root" --machine="narwhal-test-$$" --register=no --keep-unit \
    --private-network --quiet --console=pipe --link-journal=no systemd.unit=""" + TARGET + "\n"


def obstacle():
    """Why no machine can be booted here, or None."""
    if os.getuid() != 0:
        return "booting a machine needs root"
    for program, package in (("systemd-nspawn", "systemd-container"), ("nsenter", "util-linux"),
                             ("cmake", "cmake")):
        if shutil.which(program) is None:
            return f"there is no {program} here (package {package})"
    return None


class Unbootable(Exception):
    pass


class Machine:
    def __init__(self, build, prefix, files):
        """build: the folder that is installed, prefix: where to; files: {path there: content}"""
        self.folder = tempfile.mkdtemp(prefix="narwhal-machine-")
        top = os.path.join(self.folder, "top")
        own = os.path.join(self.folder, "own")
        os.mkdir(top)
        files = {f"/etc/systemd/system/{TARGET}":
                 "[Unit]\nRequires=sysinit.target systemd-journald.service\n"
                 "After=sysinit.target systemd-journald.service\nAllowIsolate=yes\n",
                 "/etc/systemd/journald.conf.d/test.conf":
                 "[Journal]\nStorage=volatile\nRateLimitBurst=0\nForwardToConsole=no\n", **files}
        for path, content in files.items():
            path = own + path
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
        self.console = open(os.path.join(self.folder, "console"), "w+b")
        self.process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", PREPARE, "sh", top,
             build, own, prefix], stdin=subprocess.DEVNULL, stdout=self.console,
            stderr=subprocess.STDOUT, start_new_session=True)
        self.leader = None
        try:
            self._boot()
        except BaseException:
            self.stop()
            raise

    def said(self):
        self.console.flush()
        with open(self.console.name, "rb") as file:
            return file.read()[-3000:].decode(errors="replace")

    def _boot(self):
        end = time.monotonic() + BOOT_DEADLINE
        while True:
            if self.process.poll() is not None or time.monotonic() > end:
                raise Unbootable("systemd does not boot in systemd-nspawn here: " + self.said())
            self.leader = next((pid for pid in children_of(self.process.pid)
                                if self._is_init(pid)), None)
            if self.leader and self.run("systemctl", "is-active", TARGET,
                                        check=False).stdout.strip() == "active":
                return
            time.sleep(0.2)

    @staticmethod
    def _is_init(pid):
        try:
            with open(f"/proc/{pid}/comm", encoding="ascii") as file:
                return file.read().strip() == "systemd"
        except FileNotFoundError:
            return False

    def run(self, *command, check=True, deadline=120):
        """Runs a command in the machine."""
        done = subprocess.run(
            ["nsenter", f"--target={self.leader}", "--mount", "--uts", "--ipc", "--net", "--pid",
             "--root", "--wd", "env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
             "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0", *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=deadline, check=False)
        assert not check or done.returncode == 0, \
            f"{command}: exit status {done.returncode}: {done.stdout}\n{self.journal()}"
        return done

    def path(self, path):
        """A file of the machine as this process sees it."""
        return f"/proc/{self.leader}/root{path}"

    def write(self, path, content):
        full = self.path(path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full + ".new", "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.chmod(full + ".new", 0o644)
        os.rename(full + ".new", full)

    def remove(self, path):
        shutil.rmtree(self.path(path), ignore_errors=True)
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            os.unlink(self.path(path))

    def journal(self, *arguments):
        return self.run("journalctl", "--no-pager", "-u", "narwhal.service", *arguments,
                        check=False).stdout

    def show(self, name, unit="narwhal.service"):
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", "-p", name, unit).stdout.strip()

    def wait_show(self, name, wanted, unit="narwhal.service", deadline=60):
        wait_until(lambda: self.show(name, unit) == wanted,
                   f"{name}={wanted} of {unit}", deadline)

    def host_pid(self, pid):
        """A process of the machine as this process numbers it."""
        def numbers(candidate):
            with contextlib.suppress(OSError), open(f"/proc/{candidate}/status",
                                                    encoding="ascii") as file:
                for line in file:
                    if line.startswith("NSpid:"):
                        return line.split()[1:]
            return []
        space = os.stat(f"/proc/{self.leader}/ns/pid").st_ino
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{name}/ns/pid").st_ino == space and \
                        numbers(name)[-1:] == [str(pid)]:
                    return int(name)
        raise AssertionError(f"no process {pid} in the machine")

    def main_pid(self):
        return self.host_pid(int(self.show("MainPID")))

    @contextlib.contextmanager
    def network(self):
        """Sockets that this thread, and threads that it starts, make are in the machine's
        network."""
        libc = ctypes.CDLL(None, use_errno=True)

        def enter(fd):
            if libc.setns(fd, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        inside = os.open(f"/proc/{self.leader}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            enter(inside)
            yield
        finally:
            enter(outside)
            os.close(outside)
            os.close(inside)

    def stop(self):
        if self.leader:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.leader, signal.SIGRTMIN + 4)  # poweroff.target, systemd(1)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        if self.leader:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.leader, signal.SIGKILL)  # and with it all of its PID namespace
        self.process.wait(30)
        self.console.close()
        shutil.rmtree(self.folder, ignore_errors=True)
