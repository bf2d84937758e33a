# SPDX-License-Identifier: Apache-2.0
"""Descriptors, memory, buffers of the kernel run out in a worker: it survives, says so once, and
connections that are open are served. narwhal_faults (faults.c) is the same program with calls that
fail when a test says so; what the kernel itself can be made to refuse is tested on the shipped
one."""
import contextlib
import errno
import mmap
import os
import re
import resource
import select
import shutil
import struct
import subprocess

import pytest

import client
from backend import Backend
from narwhal import Narwhal, binary, process_stat, wait_until

FAULTY = os.path.join(os.path.dirname(binary()), "tests", "narwhal_faults")
ONE = {"master": {"workers": 1}}
HELLO = {"route:hello": {"path": "/", "respond": "200 hello"}}
WORDS = {"pid": 0, "heap_limit": 1, "heap_used": 2, "refused": 3, "accept": 4, "send": 7, "recv": 10}


class Faults:
    """The words of struct faults (faults.c), shared with the processes of one narwhal."""

    def __init__(self, path):
        with open(path, "wb+") as file:
            file.truncate(4096)
            self.memory = mmap.mmap(file.fileno(), 4096)

    def get(self, name, offset=0):
        return struct.unpack_from("q", self.memory, 8 * (WORDS[name] + offset))[0]

    def set(self, name, value, offset=0):
        struct.pack_into("q", self.memory, 8 * (WORDS[name] + offset), value)

    def fail(self, call, error, times):
        self.set(call, error)
        self.set(call, times, offset=1)

    def left(self, call):
        return self.get(call, offset=1)


@contextlib.contextmanager
def faulty(tmp_path, settings, **more):
    if not os.access(FAULTY, os.X_OK):
        pytest.skip("narwhal_faults is not built")
    path = str(tmp_path / "faults")
    faults = Faults(path)
    with Narwhal({**ONE, **settings}, program=FAULTY, env={"FAULTS_FILE": path},
                 **more) as narwhal:
        worker = narwhal.workers()[0]
        faults.set("pid", worker)
        yield narwhal, faults
        assert narwhal.workers() == {0: worker}, "the worker was replaced"


def count(narwhal, pattern, mark=0):
    return len([line for line in narwhal.log(mark) if re.search(pattern, line)])


# ---- descriptors ---------------------------------------------------------------------------------
def test_no_descriptors_left():
    """EMFILE by the kernel: those that are open are served, those that wait are when one is free."""
    with Narwhal({**ONE, **HELLO, "route:files": {"path": "/files", "static": "root"}},
                 files={"root/big": bytes(1 << 20)},
                 errors=["cannot accept connections: Too many open files", "status=50[03]",
                         "static file error"]) as narwhal, \
            contextlib.ExitStack() as stack:
        worker = narwhal.workers()[0]
        kept = stack.enter_context(client.Client(narwhal.address))
        assert kept.get("/").status == 200
        used = len(os.listdir(f"/proc/{worker}/fd"))
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (used + 4, used + 4))
        others = [stack.enter_context(client.Client(narwhal.address)) for _ in range(12)]
        for one in others:
            one.send(client.encode("GET", "/"))
        narwhal.wait_log("cannot accept connections: Too many open files.*help=")
        for _ in range(50):
            assert kept.get("/").status == 200
        # A request that needs a descriptor itself is refused, not lost.
        assert kept.get("/files/big").status in (200, 500, 503)
        while others:  # each one that is answered and closed makes room for another
            ready = select.select([one.socket for one in others], [], [], client.DEADLINE)[0]
            assert ready, "one that is answered"
            for one in [one for one in others if one.socket in ready]:
                assert one.response().text.strip() == "hello"
                one.close()
                others.remove(one)
        assert kept.get("/").status == 200
        assert count(narwhal, "cannot accept connections") == 1
        assert narwhal.workers()[0] == worker


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM],
                         ids=errno.errorcode.get)
def test_accept_fails_again_and_again(tmp_path, error):
    with faulty(tmp_path, HELLO, errors=["cannot accept connections"]) as (narwhal, faults), \
            client.Client(narwhal.address) as kept:
        assert kept.get("/").status == 200
        faults.fail("accept", error, 5)
        with client.Client(narwhal.address) as waiting:
            waiting.send(client.encode("GET", "/"))
            while faults.left("accept") > 0:
                assert kept.get("/").status == 200
            assert waiting.response().status == 200
        assert count(narwhal, f"cannot accept connections: {os.strerror(error)}") == 1


# ---- buffers of the kernel -----------------------------------------------------------------------
@pytest.mark.parametrize("error", [errno.ENOBUFS, errno.ENOMEM], ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["send", "recv"])
def test_the_kernel_has_no_buffers(tmp_path, call, error):
    """For a moment: nothing is lost, of nobody."""
    files = {"root/small": b"s" * 100, "root/big": os.urandom(3 << 20)}
    with Backend() as backend, faulty(tmp_path, {
            **HELLO, "route:files": {"path": "/files", "static": "root"},
            "backend:b": {"server": backend.server},
            "route:b": {"path": "/b", "backend": "b"}}, files=files) as (narwhal, faults), \
            client.Client(narwhal.address) as connection:
        for target, body in (("/", b"hello\n"), ("/files/small", files["root/small"]),
                             ("/files/big", files["root/big"]), ("/b", b"ok")):
            for times in (1, 3):
                faults.fail(call, error, times)
                assert connection.get(target).body in (body, body.rstrip()), target
                assert faults.left(call) == 0


# ---- memory --------------------------------------------------------------------------------------
def test_no_memory_left(tmp_path):
    with faulty(tmp_path, {**HELLO, "route:files": {"path": "/files", "static": "root"},
                           "worker": {"head_timeout": "1h"}},
                files={f"root/{number}": "x" * 100 for number in range(9)},
                errors=["out of memory"]) as (narwhal, faults), \
            contextlib.ExitStack() as stack:
        kept = [stack.enter_context(client.Client(narwhal.address)) for _ in range(3)]
        for connection in kept:
            assert connection.get("/").status == 200
        faults.set("heap_limit", faults.get("heap_used") + (600 << 10))
        # Unfinished heads until there is no more; the kernel takes the bytes in any case.
        held = []
        while not count(narwhal, "out of memory") and len(held) < 2000:
            one = stack.enter_context(client.Client(narwhal.address))
            held.append(one)
            with contextlib.suppress(OSError):
                one.send("GET / HTTP/1.1\r\nHost: t\r\nX: " + "x" * 3000)
        narwhal.wait_log("error.*out of memory.*help=")
        assert faults.get("refused") > 0
        # What is open is answered: as ever, or told to come again.
        statuses = {connection.get(target).status for connection in kept
                    for target in ("/", "/files/1")[:1]}
        assert statuses <= {200, 503}
        for one in held:
            one.close()
        faults.set("heap_limit", 0)
        with client.Client(narwhal.address) as after:
            for number in range(9):
                assert after.get(f"/files/{number}").status == 200
        assert count(narwhal, "out of memory") == 1


def test_every_allocation_may_fail(tmp_path):
    """Memory ends at any place: an answer, a refusal or a close, and never the worker's end."""
    with Backend() as backend, faulty(tmp_path, {
            **HELLO, "worker": {"static_cache": "0", "connections_per_client": 1000},
            "route:files": {"path": "/files", "static": "root"},
            "backend:b": {"server": backend.server},
            "route:b": {"path": "/b", "backend": "b", "trailers": "on"}},
            files={"root/file": "x" * 5000, "root/dir/index.html": "i"},
            errors=["out of memory", "status=50[0-4]", "static file error",
                    "cannot accept"]) as (narwhal, faults):
        def ask():
            chunked = ("POST /b HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
                       "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n")
            for data in (client.encode("GET", "/files/file"), client.encode("GET", "/files/dir"),
                         client.encode("GET", "/b"), chunked.encode(),
                         client.encode("GET", "/" + "y" * 3000)):
                with contextlib.suppress(OSError, client.ConnectionEnded, client.BrokenResponse), \
                        client.Client(narwhal.address) as connection:
                    connection.send(data[:20])
                    connection.send(data[20:])
                    response = connection.response()
                    assert response.status in (200, 301, 404, 500, 502, 503), response
        ask()
        for room in list(range(0, 3000, 150)) + [5000, 10000, 20000, 100000]:
            faults.set("heap_limit", faults.get("heap_used") + room)
            ask()
            faults.set("heap_limit", 0)
            assert wait_until(lambda: client.get(narwhal.address).status == 200, "memory again")
        assert faults.get("refused") > 50


# ---- epoll ---------------------------------------------------------------------------------------
def test_the_kernel_watches_no_more_sockets():
    """fs.epoll.max_user_watches is reached: ENOSPC from epoll_ctl(2), whatever descriptor it is
    for. strace makes the kernel say so, by a call of number -1, which a filter would refuse."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    with Backend() as backend, Narwhal({
            "master": {**ONE["master"], "sandbox": "off"}, **HELLO,
            "backend:b": {"server": backend.server}, "route:b": {"path": "/b", "backend": "b"}},
            errors=["cannot accept connections", "status=50[234]"]) as narwhal:
        worker = narwhal.workers()[0]
        with client.Client(narwhal.address) as kept, client.Client(narwhal.address) as asks:
            assert kept.get("/").status == 200 and asks.get("/").status == 200
            tracer = subprocess.Popen(
                ["strace", "-qq", "-o", "/dev/null", "-e", "trace=epoll_ctl",
                 "-e", "inject=epoll_ctl:error=ENOSPC", "-p", str(worker)],
                stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                wait_until(lambda: tracer.poll() is not None or traced_by(worker) == tracer.pid,
                           "the tracer")
                if tracer.poll() is not None:
                    pytest.skip("strace may not trace here")
                assert kept.get("/").status == 200
                with contextlib.ExitStack() as stack:  # the first ones may come before the tracer
                    while not count(narwhal, "would not watch the socket"):
                        one = stack.enter_context(client.Client(narwhal.address))
                        one.send("GET / HT")  # its socket would have to be watched
                        assert kept.get("/").status == 200
                for _ in range(5):
                    with client.Client(narwhal.address) as refused:
                        refused.send("GET / HT")
                        while refused.is_open():  # libev tells it with the next event
                            assert kept.get("/").status == 200
                # A request for a server, whose connection would have to be watched.
                asks.send(client.encode("GET", "/b"))
                while not select.select([asks.socket], [], [], 0)[0]:
                    assert kept.get("/").status == 200
                assert asks.response().status in (502, 503)
                assert kept.get("/").status == 200
            finally:
                tracer.terminate()
                tracer.wait()
            assert client.get(narwhal.address).status == 200
            with client.Client(narwhal.address) as again:
                again.send("GET / HT")
                again.send("TP/1.1\r\nHost: t\r\n\r\n")
                assert again.response().status == 200
        assert narwhal.workers()[0] == worker and process_stat(worker)


def traced_by(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return int(re.search(r"^TracerPid:\s+(\d+)$", file.read(), re.M)[1])
