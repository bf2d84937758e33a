# SPDX-License-Identifier: Apache-2.0
"""Runs the shipped binary for a test.

    with Narwhal({"route:hello": {"path": "/", "respond": "200 hello"}}) as narwhal:
        assert http.get(narwhal.address, "/").status == 200

Each Narwhal has a folder of its own, binds port 0, and is waited for by its log lines. Leaving the
with block stops it and asserts what every test wants to hold: exit status 0, no sanitizer report,
no error line that the test did not announce, no process left behind. When the block fails, the
whole log is printed. Nothing here sleeps for a time: everything waits for an event, with a
deadline that is generous because the machine may be loaded.
"""
import contextlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import uuid

import client

DEADLINE = 30.0
# The error line of a request for an application that is not up.
NO_SERVER = r'status=503 reason="no server is ready'

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
APPS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "apps")

# Time, level, role, pid, message: config/base/log.h.
LOG_LINE = re.compile(
    r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (error|warn|info|debug) (.+?)\[(\d+)\]: (.*)$")


def binary():
    path = os.environ.get("NARWHAL_BINARY")
    if not path:
        path = next((found for preset in ("dev", "release")
                     if os.access(found := os.path.join(REPOSITORY, "build", preset, "narwhal"),
                                  os.X_OK)), None)
    if not path or not os.access(path, os.X_OK):
        raise RuntimeError("no narwhal binary: build preset dev, or set NARWHAL_BINARY")
    return path


def control_binary():
    return os.environ.get("NARWHALCTL_BINARY",
                          os.path.join(os.path.dirname(binary()), "narwhalctl"))


def wait_until(condition, what, deadline=DEADLINE):
    """Returns the first true value of condition(). For what cannot be waited for by an event, such
    as the end of a process that is not ours."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline:g} s: {what}")
        threading.Event().wait(0.01)


def wait_app(narwhal, target="/pid"):
    """Waits until the application behind the target answers, and returns the answer. Until then
    there is a 503 that says when to come again, and nothing else."""
    narwhal.expect_error(NO_SERVER)

    def answer():
        response = client.get(narwhal.address, target)
        if response.status == 503:
            assert response["Retry-After"].isdigit(), response
            return None
        assert response.status == 200, response
        return response
    return wait_until(answer, f"200 for {target}")


def ini(settings):
    """The text of a settings file: {"section": {"key": value or [values]}}."""
    lines = []
    for section, keys in settings.items():
        lines.append(f"[{section}]")
        for key, value in keys.items():
            for item in value if isinstance(value, list) else [value]:
                lines.append(f"{key} = {item}")
        lines.append("")
    return "\n".join(lines)


# ---- processes -----------------------------------------------------------------------------------
def process_stat(pid):
    """(state, ppid, session) or None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0].decode(), int(fields[1]), int(fields[3])


def is_alive(pid):
    found = process_stat(pid)
    return found is not None and found[0] not in "ZX"


def children_of(pid):
    pids = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except FileNotFoundError:
        return []
    for task in tasks:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                pids += [int(child) for child in file.read().split()]
    return pids


def descendants_of(pid):
    found = []
    for child in children_of(pid):
        found += [child] + descendants_of(child)
    return found


def title_of(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").strip().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def status_kib(pid, field):
    """A number of /proc/PID/status in KiB: VmHWM, RssAnon …"""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1])
    raise KeyError(field)


def reset_peak_memory(pid):
    """Makes VmHWM of the process begin again at what it holds now (proc(5), clear_refs)."""
    with open(f"/proc/{pid}/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


class Narwhal:
    """One running narwhal.

    settings   {"section": {"key": value}}: [master] gets bind = 127.0.0.1:0, workers = 2 and a
               control socket unless it has its own; or the text of the file, taken as it is; or
               None for no file
    flags      more arguments
    env        added to the environment
    files      {"name": content} written into its folder first
    errors     regular expressions of the error lines that this test provokes
    """

    def __init__(self, settings=None, flags=(), env=None, files=None, errors=(), start=True,
                 program=None, **popen):
        self.folder = tempfile.mkdtemp(prefix="narwhal-test-")
        os.chmod(self.folder, 0o755)
        self.program = program or binary()
        self.settings_path = self.path("narwhal.ini")
        self.control_path = self.path("ctl")
        self.flags = [str(flag) for flag in flags]
        self.allowed_errors = list(errors)
        self.process = None
        self.lines = []
        self.checked = 0
        self._changed = threading.Condition()
        self._reader = None
        self._ended = False
        self._mark = f"BLACKBOX_RUN={uuid.uuid4().hex}"
        self._popen = popen
        self._settings = settings
        self.env = {name: value for name, value in os.environ.items()
                    if not name.startswith(("NARWHAL_", "LISTEN_", "NOTIFY_"))}
        # Reports go to files: a process that has closed its standard error still has one.
        options = f"log_path={self.path('sanitizer')}:detect_leaks=1:print_stacktrace=1"
        self.env["ASAN_OPTIONS"] = options + ":" + os.environ.get("ASAN_OPTIONS", "")
        self.env["UBSAN_OPTIONS"] = options
        self.env.update(env or {})
        name, _, value = self._mark.partition("=")
        self.env[name] = value
        for file_name, content in (files or {}).items():
            self.file(file_name, content)
        if settings is not None:
            self.write(settings)
        if start:
            try:
                self.start()
            except BaseException:
                self.show()
                self.destroy()
                raise

    # ---- files ---------------------------------------------------------------------------------
    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def file(self, name, content=b"", mode=None):
        """Writes a file below the folder and returns its path."""
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        if mode is not None:
            os.chmod(path, mode)
        return path

    def text(self, settings):
        if isinstance(settings, str):
            return settings
        master = {"bind": "127.0.0.1:0", "workers": 2, "control": self.control_path}
        master.update(settings.get("master", {}))
        whole = {"master": master}
        whole.update({name: keys for name, keys in settings.items() if name != "master"})
        return ini(whole)

    def write(self, settings):
        """Replaces the settings file in one step, so that nobody reads half of it."""
        text = self.text(settings)
        with open(self.settings_path + ".new", "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(self.settings_path + ".new", self.settings_path)

    # ---- start and stop --------------------------------------------------------------------------
    def command(self):
        file = ["--config", self.settings_path] if self._settings is not None else []
        return [self.program] + file + self.flags

    def start(self, ready=True):
        self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        env=self.env, cwd=self.folder, start_new_session=True,
                                        **self._popen)
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,),
                                        daemon=True)
        self._reader.start()
        if ready:
            self.wait_log(r"ready workers=\d+")
        return self

    def _read(self, pipe):
        with pipe:
            for line in pipe:
                with self._changed:
                    self.lines.append(line.decode(errors="replace").rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def pid(self):
        return self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        try:
            if kind is None:
                if self.process is not None and self.process.poll() is None:
                    self.stop()
                self.check()
        except BaseException:
            self.show()
            raise
        finally:
            if kind is not None:
                self.show()
            self.destroy()

    def show(self):
        print(f"---- log of {' '.join(self.command())}", file=sys.stderr)
        with contextlib.suppress(OSError), open(self.settings_path, encoding="utf-8",
                                                errors="replace") as file:
            print("---- settings\n" + file.read() + "----", file=sys.stderr)
        with self._changed:
            print("\n".join(self.lines), file=sys.stderr)
        for name in self.sanitizer_reports():
            with open(self.path(name), encoding="utf-8", errors="replace") as file:
                print(f"---- {name}\n{file.read()}", file=sys.stderr)
        print("---- end of the log", file=sys.stderr)

    def stop(self, sig=signal.SIGTERM, status=0, deadline=DEADLINE):
        """Ends the master with a signal and asserts its exit status."""
        self.process.send_signal(sig)
        self.wait_exit(status, deadline)

    def wait_exit(self, status=0, deadline=DEADLINE):
        try:
            found = self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"the master did not leave within {deadline:g} s; its children: "
                f"{[title_of(pid) for pid in children_of(self.pid)]}") from None
        # The pipe ends when the last process that has it leaves.
        self._reader.join(deadline)
        assert found == status, f"exit status {found}, not {status}"

    def check(self):
        """What must hold after any run."""
        reports = self.sanitizer_reports()
        assert not reports, f"sanitizer reports: {reports}"
        left = {pid: title_of(pid) for pid in self.processes()}
        assert not left, f"left behind: {left}"
        for line in self.lines:
            assert "AddressSanitizer" not in line and "runtime error:" not in line, line
            match = LOG_LINE.match(line)
            if match and match[1] != "error":
                continue
            expected = any(re.search(pattern, line) for pattern in self.allowed_errors)
            assert expected, ("unexpected error: " if match else "not a log line: ") + line

    def expect_error(self, pattern):
        self.allowed_errors.append(pattern)

    def sanitizer_reports(self):
        try:
            return sorted(name for name in os.listdir(self.folder)
                          if name.startswith("sanitizer."))
        except FileNotFoundError:
            return []

    def processes(self):
        """The living processes of this run: those of the master's session (Popen made one), and
        those that inherited the mark of its environment."""
        found = []
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) == os.getpid():
                continue
            pid = int(name)
            about = process_stat(pid)
            if about is None or about[0] in "ZX":
                continue
            ours = self.process is not None and about[2] == self.process.pid
            if not ours:
                with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
                    ours = self._mark.encode() in file.read()
            if ours:
                found.append(pid)
        return found

    def destroy(self):
        for _ in range(20):
            pids = self.processes()
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if self.process is not None:
                self.process.wait(DEADLINE)
            if not pids:
                break
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- log -----------------------------------------------------------------------------------
    def mark(self):
        """A place in the log, for since= below."""
        with self._changed:
            return len(self.lines)

    def log(self, since=0):
        with self._changed:
            return self.lines[since:]

    def wait_log(self, pattern, deadline=DEADLINE, since=0, count=1):
        """Waits for a line that matches and returns the match; with count, for the last of that
        many lines."""
        expression = re.compile(pattern)
        end = time.monotonic() + deadline
        with self._changed:
            while True:
                found = [match for line in self.lines[since:] if (match := expression.search(line))]
                if len(found) >= count:
                    return found[count - 1]
                left = end - time.monotonic()
                if self._ended or left <= 0:
                    raise AssertionError(f"no log line matches {pattern!r}" +
                                         (", and narwhal has ended" if self._ended else
                                          f" after {deadline:g} s"))
                self._changed.wait(left)

    # ---- addresses -----------------------------------------------------------------------------
    def addresses(self):
        """Where it listens, in the order of the log: (host, port) or the path of a unix socket."""
        found = []
        for line in self.log():
            match = re.search(r"listening address=(\S+)", line)
            if match:
                if match[1].startswith("unix:"):
                    found.append(match[1][5:])
                elif not match[1].startswith("fd:"):
                    host, _, port = match[1].rpartition(":")
                    found.append((host.strip("[]"), int(port)))
        return found

    @property
    def address(self):
        return self.addresses()[0]

    @property
    def port(self):
        return self.address[1]

    @property
    def url(self):
        return "http://%s:%d" % self.address

    # ---- children --------------------------------------------------------------------------------
    def workers(self):
        """{slot: pid} of the worker processes, by their titles."""
        found = {}
        for pid in children_of(self.pid):
            match = re.match(r"narwhal: worker (\d+)", title_of(pid))
            if match and is_alive(pid):
                found[int(match[1])] = pid
        return found

    def instances(self):
        """Pids of the app instances: the master's children that are no workers."""
        workers = set(self.workers().values())
        return [pid for pid in children_of(self.pid)
                if pid not in workers and is_alive(pid) and
                not title_of(pid).startswith("narwhal")]

    def wait_instances(self, count, without=()):
        """Waits until there are count app instances, none of them in without, all READY (before
        that the master holds their boot's descriptors, too); returns their pids."""
        def settled():
            ready = {int(pid) for pid in
                     re.findall(r"instance \S+ is READY pid=(\d+)", "\n".join(self.log()))}
            pids = self.instances()
            return len(pids) == count and ready.issuperset(pids) and \
                not set(pids) & set(without) and pids
        return wait_until(settled, f"{count} instances that are READY")

    def wait_workers(self, count, without=()):
        """Waits until there are count workers, none of them in without, all READY; returns
        {slot: pid}."""
        def settled():
            workers = self.workers()
            ready = {worker["pid"] for worker in self.status()["workers"]
                     if worker["state"].upper() == "READY"}
            return (workers if len(workers) == count and not set(workers.values()) & set(without)
                    and ready == set(workers.values()) else None)
        return wait_until(settled, f"{count} workers other than {list(without)}")

    def signal(self, sig):
        self.process.send_signal(sig)

    def reload(self, expect="done"):
        """SIGHUP, and waits for what comes of it. Returns the mark before."""
        before = self.mark()
        self.signal(signal.SIGHUP)
        match = self.wait_log(r"reload (done|refused)", since=before)
        assert match[1] == expect, f"reload {match[1]}, not {expect}"
        return before

    # ---- narwhalctl ------------------------------------------------------------------------------
    def control(self, *words, check=True):
        done = subprocess.run([control_binary(), "-s", self.control_path, *words],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=DEADLINE, env=self.env, check=False)
        if check:
            assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
        return done

    def status(self):
        return self.control_json("status")

    def control_json(self, *words):
        return json.loads(self.control("--json", *words).stdout)


def run_narwhal(*arguments, env=None, stdin=subprocess.DEVNULL, cwd=None, deadline=DEADLINE):
    """Runs narwhal to its end and returns (exit status, stdout, stderr) as bytes turned to text."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("NARWHAL_")}
    clean.update(env or {})
    done = subprocess.run([binary(), *map(os.fspath, arguments)], stdin=stdin,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean, cwd=cwd,
                          timeout=deadline, check=False)
    text = done.stderr.decode(errors="replace")
    assert "Sanitizer" not in text and "runtime error:" not in text, text
    return done.returncode, done.stdout.decode(errors="replace"), text


def mode_of(path):
    return stat.S_IMODE(os.stat(path).st_mode)
