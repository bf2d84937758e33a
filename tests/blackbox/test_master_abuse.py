# SPDX-License-Identifier: Apache-2.0
"""What a master must bear: signals in every state and in bursts, forks that fail, descriptors that
run out, workers that do not boot, do not read, or send nonsense on their channel. Whatever it is,
the service goes on, the log says what it was, and it is over when its cause is."""
import array
import contextlib
import ctypes
import os
import random
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import time

import pytest

import client
from backend import Backend
from narwhal import REPOSITORY, Narwhal, children_of, status_kib, title_of, wait_app, wait_until

HELLO = {"route:hello": {"path": "/", "respond": "200 hello"}}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: other processes' "
                                                          "descriptors, limits and users")


def source(path):
    with open(os.path.join(REPOSITORY, path), encoding="utf-8") as file:
        return file.read()


STOPS = ["TERM", "INT", "QUIT"]
# Of the table, so that a new row is tested too.
SIGNALS = re.findall(r"^SIGNAL\((\w+),", source("master/signals.def"), re.M)
HARMLESS = [name for name in SIGNALS if name not in STOPS]


def number(name):
    return getattr(signal, "SIG" + name)


def serves(narwhal):
    return client.get(narwhal.address).status == 200


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


# ---- signals -------------------------------------------------------------------------------------
@contextlib.contextmanager
def in_state(state):
    """A narwhal in that state, and what ends the state."""
    with contextlib.ExitStack() as stack:
        settings = {**HELLO, "master": {"workers": 2, "timeout": "60s"}}
        if state == "stopping":
            backend = stack.enter_context(Backend(lambda exchange: exchange.receive()))
            settings.update({"backend:b": {"server": backend.server},
                             "route:slow": {"path": "/slow", "backend": "b"}})
        narwhal = stack.enter_context(Narwhal(settings, start=False, errors=["upgrade"]))
        narwhal.start(ready=state != "booting")
        end = lambda: None  # noqa: E731
        if state == "booting":
            narwhal.wait_log("listening address")
            end = lambda: narwhal.wait_log(r"ready workers=\d+")  # noqa: E731
        elif state == "reloading":
            # The worker that tries the new settings first does not answer.
            canary = narwhal.workers()[0]
            os.kill(canary, signal.SIGSTOP)
            narwhal.signal(signal.SIGHUP)
            narwhal.wait_log("received SIGHUP")
            end = lambda: os.kill(canary, signal.SIGCONT)  # noqa: E731
        elif state == "paused":
            narwhal.signal(signal.SIGWINCH)
            wait_until(lambda: not narwhal.workers(), "the workers to leave")
        elif state == "stopping":
            slow = stack.enter_context(client.Client(narwhal.address))
            slow.send(client.encode("GET", "/slow"))
            backend.next()
            narwhal.signal(signal.SIGTERM)
            narwhal.wait_log("stopping gracefully")
            end = slow.close
        yield narwhal, end


STATES = ["booting", "running", "reloading", "paused", "stopping"]


@pytest.mark.parametrize("state", STATES)
def test_every_harmless_signal(state):
    with in_state(state) as (narwhal, end):
        pid = narwhal.pid
        for name in HARMLESS:
            narwhal.signal(number(name))
            # The next one only when this one was taken: the same answer to all would hide it.
            wait_until(lambda: not pending(pid) & 1 << number(name) - 1, f"SIG{name} to be taken")
            assert narwhal.process.poll() is None
            if state != "stopping":
                narwhal.control("ping")
        end()
        if state == "stopping":
            narwhal.wait_exit()
            return
        mark = narwhal.mark()
        narwhal.signal(signal.SIGHUP)
        narwhal.wait_log("reload done", since=mark)
        narwhal.wait_workers(2)
        assert serves(narwhal)


def pending(pid):
    """Signals that were sent and not yet taken, as a mask (proc(5), ShdPnd)."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return int(next(line.split()[1] for line in file if line.startswith("ShdPnd:")), 16)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", STOPS)
def test_every_stop(state, name):
    with in_state(state) as (narwhal, end):
        narwhal.signal(number(name))
        end = end if state != "booting" else lambda: None
        end()
        narwhal.wait_exit()


@pytest.mark.parametrize("seed", [1, 2])
def test_burst_of_mixed_signals(seed):
    """A thousand in no time, while clients ask. WINCH is among them, so clients may wait, but
    none may be refused or reset."""
    from load import Load
    names = [name for name in HARMLESS if name not in ("TTIN", "TTOU")]
    # As many up as down, in turns: the burst shall not start hundreds of workers.
    chosen = random.Random(seed)
    burst = [chosen.choice(names + [("TTIN", "TTOU")]) for _ in range(1000)]
    with Narwhal({**HELLO, "worker": {"keepalive_drain": "10s"}}, errors=["upgrade"]) as narwhal:
        before = descriptors(narwhal.pid)
        with Load(narwhal.address, "/", keepalive=0, fresh=3) as load:
            load.wait_answers(5)
            for entry in burst:
                for name in entry if isinstance(entry, tuple) else (entry,):
                    os.kill(narwhal.pid, number(name))
            # Signals that wait together have no order: the HUP that ends a pause comes after the
            # turn of the loop in which the last WINCH was taken.
            wait_until(lambda: not pending(narwhal.pid), "the last one to be taken")
            narwhal.control("ping")
            narwhal.signal(signal.SIGHUP)
            load.wait_answers(20)
            assert not load.failures, load.failures
        wait_until(lambda: all(worker["state"] == "READY"
                               for worker in narwhal.status()["workers"]), "all READY")
        mark = narwhal.mark()
        narwhal.signal(signal.SIGHUP)
        narwhal.wait_log("reload done", since=mark)
        # Per worker a channel and the lanes that were made for it, never more.
        lanes = len(narwhal.status()["lanes"])
        workers = len(narwhal.workers())
        assert descriptors(narwhal.pid) <= before + lanes + workers + 4


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_burst_that_ends_in_a_stop(sig):
    with Narwhal(HELLO, errors=["upgrade"]) as narwhal:
        chosen = random.Random(3)
        for _ in range(500):
            os.kill(narwhal.pid, number(chosen.choice([n for n in HARMLESS if n != "TTIN"])))
        narwhal.stop(sig)


# ---- forks that fail -----------------------------------------------------------------------------
@contextlib.contextmanager
def as_nobody_else(settings, files=None, **more):
    """A master of a user that nobody else is, because RLIMIT_NPROC counts by user."""
    uid = 200000 + os.getpid() % 50000
    narwhal = Narwhal(settings, start=False, files=files, user=uid, group=uid, extra_groups=[],
                      env={"HOME": "/nonexistent"}, **more)
    os.chown(narwhal.folder, uid, uid)
    with narwhal:
        narwhal.start()
        yield narwhal


def set_soft_limit(pid, kind, soft):
    """Another soft limit for a running process, -1: up to the hard one; by a process of its own
    user, because a container's root may not have CAP_SYS_RESOURCE."""
    program = (f"import resource as r; hard = r.prlimit({pid}, {kind})[1]; "
               f"r.prlimit({pid}, {kind}, ({soft} if {soft} != -1 else hard, hard))")
    owner = os.stat(f"/proc/{pid}")
    subprocess.run([sys.executable, "-c", program], check=True, user=owner.st_uid,
                   group=owner.st_gid, extra_groups=[])


@contextlib.contextmanager
def limited(pid, kind, soft):
    set_soft_limit(pid, kind, soft)
    try:
        yield
    finally:
        set_soft_limit(pid, kind, -1)


@needs_root
def test_fork_fails_for_a_worker():
    with as_nobody_else(HELLO, errors=["cannot start worker"]) as narwhal:
        victim = narwhal.workers()[0]
        with limited(narwhal.pid, resource.RLIMIT_NPROC, 1):
            os.kill(victim, signal.SIGKILL)
            line = narwhal.wait_log("cannot start worker slot=0: .*")[0]
            assert "limit of processes" in line and "TasksMax=" in line, line
            assert re.search(r"trying again in \d+ms", line), line
            narwhal.wait_log("cannot start worker slot=0", count=2)
            for _ in range(20):
                assert serves(narwhal)
        narwhal.wait_workers(2, without=[victim])
        assert serves(narwhal)


@needs_root
def test_fork_fails_for_all_workers():
    """Nobody serves for a while: clients wait in the queues, and are answered."""
    with as_nobody_else(HELLO, errors=["cannot start worker"]) as narwhal:
        victims = list(narwhal.workers().values())
        with limited(narwhal.pid, resource.RLIMIT_NPROC, 1):
            for victim in victims:
                os.kill(victim, signal.SIGKILL)
            narwhal.wait_log("cannot start worker slot=0")
            narwhal.wait_log("cannot start worker slot=1")
            waiting = [client.Client(narwhal.address).send(client.encode("GET", "/"))
                       for _ in range(5)]
            narwhal.control("ping")
        for connection in waiting:
            with connection:
                assert connection.response().status == 200
        narwhal.wait_workers(2, without=victims)


APP = ("import http.server, os, sys\n"
       "class H(http.server.BaseHTTPRequestHandler):\n"
       "    def do_GET(self):\n"
       "        body = str(os.getpid()).encode()\n"
       "        self.send_response(200)\n"
       "        self.send_header('Content-Length', str(len(body)))\n"
       "        self.end_headers()\n"
       "        self.wfile.write(body)\n"
       "    def log_message(self, *_):\n"
       "        pass\n"
       "http.server.ThreadingHTTPServer.daemon_threads = True\n"
       "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()\n")
WITH_APP = {"backend:app": {"command": f"{sys.executable} app.py {{port}}"},
            "route:app": {"path": "/app", "backend": "app"}, **HELLO}


@needs_root
def test_fork_fails_for_an_instance():
    with as_nobody_else(WITH_APP, files={"app.py": APP},
                        errors=["cannot start instance", r"app/0 died"]) as narwhal:
        victim = int(wait_app(narwhal, "/app").text)
        with limited(narwhal.pid, resource.RLIMIT_NPROC, 1):
            os.kill(victim, signal.SIGKILL)
            line = narwhal.wait_log("cannot start instance app/0: .*")[0]
            assert "limit of processes" in line and "TasksMax=" in line, line
            narwhal.wait_log("cannot start instance app/0", count=2)
            assert serves(narwhal)
            assert client.get(narwhal.address, "/app").status in (502, 503)
        assert int(wait_app(narwhal, "/app").text) != victim


@needs_root
def test_fork_fails_during_a_reload():
    """The old instance serves on; the reload goes on when a process can be made."""
    with as_nobody_else(WITH_APP, files={"app.py": APP},
                        errors=["cannot start instance"]) as narwhal:
        old = int(wait_app(narwhal, "/app").text)
        with limited(narwhal.pid, resource.RLIMIT_NPROC, 1):
            narwhal.signal(signal.SIGHUP)
            narwhal.wait_log("cannot start instance app/0: .*limit of processes")
            for _ in range(10):
                assert int(wait_app(narwhal, "/app").text) == old and serves(narwhal)
        narwhal.wait_log("instances replaced backend=app")
        assert int(wait_app(narwhal, "/app").text) != old


# ---- descriptors run out -------------------------------------------------------------------------
def no_descriptor_left(pid):
    """Whatever number is free for it, it may not have (setrlimit(2): one more than the largest)."""
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    return next(number for number in range(65536) if number not in used)


@needs_root
def test_no_descriptor_for_a_worker():
    with Narwhal(HELLO, errors=["cannot start worker"]) as narwhal:
        victim = narwhal.workers()[0]
        with limited(narwhal.pid, resource.RLIMIT_NOFILE, 3):
            os.kill(victim, signal.SIGKILL)
            line = narwhal.wait_log("cannot start worker slot=0: .*")[0]
            assert "descriptors" in line and "LimitNOFILE=" in line, line
            for _ in range(20):
                assert serves(narwhal)
        narwhal.wait_workers(2, without=[victim])


@needs_root
def test_no_descriptor_for_an_instance():
    with Narwhal(WITH_APP, files={"app.py": APP},
                 errors=["cannot start instance", "app/0 died"]) as narwhal:
        victim = int(wait_app(narwhal, "/app").text)
        with limited(narwhal.pid, resource.RLIMIT_NOFILE, 3):
            os.kill(victim, signal.SIGKILL)
            line = narwhal.wait_log("cannot start instance app/0: .*")[0]
            assert "Too many open files" in line and "LimitNOFILE=" in line, line
            assert serves(narwhal)
        assert int(wait_app(narwhal, "/app").text) != victim


@needs_root
def test_no_descriptor_for_a_reload():
    with Narwhal(HELLO, errors=["."]) as narwhal:
        before = narwhal.workers()
        with limited(narwhal.pid, resource.RLIMIT_NOFILE, no_descriptor_left(narwhal.pid)):
            mark = narwhal.mark()
            narwhal.signal(signal.SIGHUP)
            narwhal.wait_log("reload refused", since=mark)
            text = "\n".join(narwhal.log(mark))
            assert "Too many open files" in text and "LimitNOFILE=" in text, text
            narwhal.signal(signal.SIGUSR1)
            assert serves(narwhal)
        narwhal.reload()
        assert narwhal.workers() == before


@needs_root
def test_no_descriptor_for_a_control_client():
    with Narwhal(HELLO) as narwhal:
        with limited(narwhal.pid, resource.RLIMIT_NOFILE, no_descriptor_left(narwhal.pid)):
            with socket.socket(socket.AF_UNIX) as waiting:
                waiting.settimeout(client.DEADLINE)
                waiting.connect(narwhal.control_path)
                waiting.sendall(b"ping\n")
                line = narwhal.wait_log("cannot accept a control client.*")[0]
                assert "LimitNOFILE=" in line, line
                ticks = cpu_ticks(narwhal.pid)
                assert serves(narwhal)
                time.sleep(0.5)  # a span to measure the CPU in, not a wait for anything
                assert cpu_ticks(narwhal.pid) - ticks <= 20, "it spins"
                set_soft_limit(narwhal.pid, resource.RLIMIT_NOFILE, -1)
                assert b"pong" in waiting.recv(4096)


def cpu_ticks(pid):
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return int(fields[11]) + int(fields[12])


# ---- workers that do not boot --------------------------------------------------------------------
def stop_at_birth(narwhal):
    """TTIN, and SIGSTOP for the new worker before it is READY. It is a race; the loser goes away by
    TTOU and another one is tried."""
    for _ in range(100):
        known = set(children_of(narwhal.pid))
        narwhal.signal(signal.SIGTTIN)
        newborn = None
        while newborn is None:
            newborn = next((pid for pid in children_of(narwhal.pid) if pid not in known), None)
        os.kill(newborn, signal.SIGSTOP)
        state = next(worker["state"] for worker in narwhal.status()["workers"]
                     if worker["pid"] == newborn)
        if state == "STARTING":
            return newborn
        os.kill(newborn, signal.SIGCONT)
        narwhal.signal(signal.SIGTTOU)
        wait_until(lambda: newborn not in children_of(narwhal.pid), "it to leave")
    raise AssertionError("no worker could be stopped before it was READY")


def test_worker_that_never_becomes_ready():
    with Narwhal({**HELLO, "master": {"boot_timeout": "1s"}},
                 errors=["is not READY in time"]) as narwhal:
        before = narwhal.workers()
        stuck = stop_at_birth(narwhal)
        line = narwhal.wait_log(rf"is not READY in time and is killed pid={stuck}\b.*")[0]
        assert "[master] boot_timeout" in line, line
        for _ in range(20):
            assert serves(narwhal)
        narwhal.wait_log(rf"died pid={stuck} .*killed_for=boot_timeout .*ready=never")
        after = narwhal.wait_workers(3, without=[stuck])
        assert before.items() <= after.items(), "the others are the same as before"


# ---- the channel ---------------------------------------------------------------------------------
CHANNEL = source("worker/channel.h")
MAGIC = int(re.search(r"CHANNEL_MAGIC (0x[0-9a-f]+)u", CHANNEL)[1], 16)
TEXT_MAX = int(re.search(r"CHANNEL_TEXT_MAX (\d+)", CHANNEL)[1])
TYPES = re.findall(r"X\((\w+)\)", CHANNEL[CHANNEL.index("#define CHANNEL_MESSAGES"):
                                         CHANNEL.index("enum channel_type")])
SYS_PIDFD_GETFD = 438  # the same on every architecture


def message(kind, serial=0, text=b"", magic=MAGIC):
    kind = TYPES.index(kind) + 1 if isinstance(kind, str) else kind
    return struct.pack(f"=IIQIIq{TEXT_MAX}s", magic, kind, serial, 0, 0, 0, text)


def channel_of(pid):
    """A copy of the worker's end of its channel: its only SOCK_SEQPACKET socket."""
    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(pid)
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            fd = libc.syscall(SYS_PIDFD_GETFD, process, int(name), 0)
            if fd == -1:
                continue
            try:
                found = socket.socket(fileno=fd)
            except OSError:
                os.close(fd)
                continue
            if found.type & 0xf == socket.SOCK_SEQPACKET:
                found.setblocking(True)
                return found
            found.close()
    finally:
        os.close(process)
    raise AssertionError(f"no channel in {pid}")


def send_with_descriptors(channel, count):
    channel.sendmsg([message("DRAINED")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
                                            array.array("i", [0] * count))])


NONSENSE = {
    "garbage": lambda channel: channel.send(b"x" * 100),
    "one byte": lambda channel: channel.send(b"x"),
    "oversized": lambda channel: channel.send(message("DRAINED") * 100),
    "cut short": lambda channel: channel.send(message("DRAINED")[:-1]),
    "other version": lambda channel: channel.send(message("DRAINED", magic=MAGIC + 1)),
    "no type": lambda channel: channel.send(message(0)),
    "unknown type": lambda channel: channel.send(message(99999)),
    "only the master's": lambda channel: channel.send(message("LANE_ASSIGN")),
    "READY again": lambda channel: channel.send(message("READY")),
    "settings nobody sent": lambda channel: channel.send(message("SETTINGS_APPLIED", 1 << 40)),
    "refusal of nothing": lambda channel: channel.send(
        message("SETTINGS_REFUSED", 1, b"\n\x1b[31m" * 20)),
    "DRAINED twice": lambda channel: channel.send(message("DRAINED")) and
    channel.send(message("DRAINED")),
    "a descriptor": lambda channel: send_with_descriptors(channel, 1),
    "many descriptors": lambda channel: send_with_descriptors(channel, 200),
}


@needs_root
@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_on_the_channel(what):
    with Narwhal(HELLO, errors=["nonsense on its channel"]) as narwhal:
        workers = narwhal.workers()
        before = descriptors(narwhal.pid)
        with channel_of(workers[0]) as channel:
            NONSENSE[what](channel)
        line = narwhal.wait_log(rf"worker slot=0 sent nonsense on its channel and is killed "
                                rf"pid={workers[0]}\b.*")[0]
        assert "\x1b" not in line
        narwhal.wait_log(rf"died pid={workers[0]} .*killed_for=nonsense on its channel")
        after = narwhal.wait_workers(2, without=[workers[0]])
        assert after[1] == workers[1] and serves(narwhal)
        # A control client of a moment ago may still be there.
        wait_until(lambda: descriptors(narwhal.pid) <= before, "every descriptor to go")


@needs_root
@pytest.mark.parametrize("kind", ["DRAINED", "READY", "SETTINGS_APPLIED", "SETTINGS_REFUSED"])
def test_flood_on_the_channel(kind):
    """Messages of the right form, as fast as they go: the log does not grow with them, and the
    master goes on with its work."""
    with Narwhal(HELLO, errors=["nonsense on its channel"]) as narwhal:
        workers = narwhal.workers()
        with channel_of(workers[0]) as channel:
            channel.settimeout(client.DEADLINE)
            with pytest.raises(OSError):  # EPIPE or ECONNRESET: the other end is closed
                for _ in range(1000000):
                    channel.send(message(kind, 1, b"flood"))
        after = narwhal.wait_workers(2, without=[workers[0]])
        assert after[1] == workers[1] and serves(narwhal)
        assert len([line for line in narwhal.log() if "flood" in line]) == 0
        assert len(narwhal.log()) < 60, "the log is bounded"


@needs_root
@pytest.mark.parametrize("how", ["shutdown", "empty message"])
def test_worker_that_closes_its_channel(how):
    with Narwhal(HELLO) as narwhal:
        workers = narwhal.workers()
        os.kill(workers[0], signal.SIGSTOP)  # else it leaves by itself: its master seems gone
        with channel_of(workers[0]) as channel:
            if how == "shutdown":
                channel.shutdown(socket.SHUT_RDWR)
            else:
                channel.send(b"")
            narwhal.wait_log(rf"died pid={workers[0]} .*killed_for=it closed its channel")
        after = narwhal.wait_workers(2, without=[workers[0]])
        assert after[1] == workers[1] and serves(narwhal)


# ---- a worker that does not read -----------------------------------------------------------------
def test_worker_that_does_not_read():
    """Reloads and reopened logs by the hundred, while a worker is stopped: the master neither waits
    nor grows; and the worker finds itself up to date when it goes on."""
    settings = {**HELLO, "master": {"timeout": "120s"}, "log": {"access": "./access.log"}}
    with Narwhal(settings) as narwhal:
        workers = narwhal.workers()
        before = descriptors(narwhal.pid)
        memory = status_kib(narwhal.pid, "VmRSS")
        os.kill(workers[1], signal.SIGSTOP)
        try:
            for turn in range(300):
                mark = narwhal.mark()
                narwhal.signal(signal.SIGUSR1)
                narwhal.wait_log("logs reopened", since=mark)
                narwhal.signal(signal.SIGHUP)
                narwhal.wait_log("received SIGHUP", since=mark)
                if turn % 50 == 0:
                    narwhal.control("ping")
            assert descriptors(narwhal.pid) <= before + 8, "descriptors wait in the queue"
            assert status_kib(narwhal.pid, "VmRSS") < memory + 16 * 1024
            mark = narwhal.mark()
        finally:
            os.kill(workers[1], signal.SIGCONT)
        narwhal.wait_log("reload done", since=mark)
        assert narwhal.workers() == workers
        # It writes to the log that was opened last.
        os.rename(narwhal.path("access.log"), narwhal.path("old.log"))
        mark = narwhal.mark()
        narwhal.signal(signal.SIGUSR1)
        narwhal.wait_log("logs reopened", since=mark)

        def both_write():
            for _ in range(10):
                assert serves(narwhal)
            with open(narwhal.path("access.log"), encoding="ascii") as file:
                return file.read()
        wait_until(both_write, "lines in the new log")


def test_lanes_are_moved_about_while_a_worker_does_not_read():
    with Narwhal({**HELLO, "master": {"timeout": "120s"}}) as narwhal:
        workers = narwhal.workers()
        os.kill(workers[0], signal.SIGSTOP)
        try:
            for _ in range(20):
                narwhal.signal(signal.SIGTTIN)
                narwhal.wait_workers(3)
                narwhal.signal(signal.SIGTTOU)
                narwhal.wait_workers(2)
            assert title_of(workers[0]) == "narwhal: worker 0", "it is still there"
        finally:
            os.kill(workers[0], signal.SIGCONT)
        assert narwhal.wait_workers(2) == workers
        for _ in range(20):
            assert serves(narwhal)
