# SPDX-License-Identifier: Apache-2.0
"""A thousand clients that read or send slowly (200 under AddressSanitizer): what the worker holds
for them is bounded by request_buffer and response_buffer, what the kernel holds is bounded, too,
everybody else is served, and in the end every byte arrives.

Measured is the worker's resident memory, as in test_big_upload.py; the figures are printed (pytest
-s) and those of a release build are in docs/benchmarks.md."""
import contextlib
import os
import resource
import selectors
import socket
import threading
import time

import pytest

import client
from narwhal import Narwhal, binary, status_kib, wait_until

KIB, MIB = 1024, 1 << 20
SIZE = 100 * MIB
PROGRAM = os.environ.get("NARWHAL_RELEASE_BINARY") or binary()
with open(PROGRAM, "rb") as program_file:
    SANITIZED = b"__asan_init" in program_file.read()
# Under AddressSanitizer each costs several times as much, in memory and in time.
COUNT = 200 if SANITIZED else 1000
# What one exchange costs besides its buffers: two sockets' structures, the head, ASan's red zones.
BESIDES_KIB = 64 if SANITIZED else 24
QUIET = {"ASAN_OPTIONS": "quarantine_size_mb=0:thread_local_quarantine_size_kb=0:"
                         "malloc_context_size=0:detect_leaks=1"}
# What the kernel may hold for one, on both sides of narwhal: 600 to 1,000 KiB were seen, and some
# for others on this machine. Without a bound it is above 2 MiB, until the machine has no more.
KERNEL_KIB = 1280
PIECE = memoryview(bytes(256 * KIB))


@pytest.fixture(autouse=True, scope="module")
def descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4 * COUNT:
        pytest.skip(f"{hard} descriptors are not enough")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Server:
    """One thread for all connections. GET: 100 MiB as fast as they go. POST: reads nothing until
    told to, then all of it, and answers with the length."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4 * COUNT)
        # What the kernel holds for the server's own writes is none of narwhal's business.
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * KIB)
        self.listener.setblocking(False)
        self.server = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.moved = 0  # bytes sent and received
        self.heads = 0
        self.reading = threading.Event()
        self.held = []
        self.wake, self.wake_end = socket.socketpair()
        self.selector.register(self.wake, selectors.EVENT_READ)
        self.ended = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.ended:
            for key, _ in self.selector.select():
                if key.fileobj is self.listener:
                    with contextlib.suppress(BlockingIOError):
                        stream, _ = self.listener.accept()
                        stream.setblocking(False)
                        self.selector.register(stream, selectors.EVENT_READ, [b"", None, 0])
                elif key.fileobj is self.wake:
                    self.wake.recv(1)
                    for stream, state in self.held:
                        self.selector.register(stream, selectors.EVENT_READ, state)
                    self.held.clear()
                else:
                    self.step(key.fileobj, key.data)

    def step(self, stream, state):
        try:
            if state[1] is None:
                self.head(stream, state)
            elif state[1] == "GET":
                self.send(stream, state)
            else:
                self.receive(stream, state)
        except BlockingIOError:
            pass
        except OSError:
            self.selector.unregister(stream)
            stream.close()

    def head(self, stream, state):
        data = stream.recv(64 * KIB)
        if not data:
            raise ConnectionError
        state[0] += data
        head, end, body = state[0].partition(b"\r\n\r\n")
        if not end:
            return
        self.heads += 1
        state[1] = head[:head.index(b" ")].decode()
        if state[1] == "GET":
            state[2] = SIZE
            stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
            self.selector.modify(stream, selectors.EVENT_WRITE, state)
            return
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        state[2] = length - len(body)
        state[0] = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%d" % (len(str(length)), length)
        self.moved += len(body)
        if state[2] == 0:
            self.answer(stream, state)
        elif not self.reading.is_set():
            self.selector.unregister(stream)
            self.held.append((stream, state))

    def answer(self, stream, state):
        stream.sendall(state[0])
        state[:] = [b"", None, 0]
        self.selector.modify(stream, selectors.EVENT_READ, state)

    def send(self, stream, state):
        sent = stream.send(PIECE[:min(len(PIECE), state[2])])
        state[2] -= sent
        self.moved += sent
        if state[2] == 0:
            state[:] = [b"", None, 0]
            self.selector.modify(stream, selectors.EVENT_READ, state)

    def receive(self, stream, state):
        got = len(stream.recv(256 * KIB))
        if not got:
            raise ConnectionError
        state[2] -= got
        self.moved += got
        if state[2] == 0:
            self.answer(stream, state)

    def read_all(self):
        self.reading.set()
        self.wake_end.send(b"x")

    def wait_still(self):
        """Waits until nothing moves any more: for what does not happen there is no event."""
        seen, since = -1, time.monotonic()

        def still():
            nonlocal seen, since
            if self.moved != seen:
                seen, since = self.moved, time.monotonic()
            return time.monotonic() - since > 1.0
        wait_until(still, "stillness", 120)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ended = True
        self.wake_end.send(b"x")
        self.thread.join()
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        self.wake_end.close()


def front(server, **more):
    return Narwhal({
        "master": {"workers": 1},
        "worker": {"limit_request_body": "0", "body_timeout": "10m", "body_rate": "0",
                   "send_timeout": "10m"},
        "backend:b": {"server": server.server, "idle_connections": 2 * COUNT, **more},
        "route:b": {"path": "/", "backend": "b"},
        "route:hello": {"path": "=/hello", "respond": "200 hello"}}, env=QUIET, program=PROGRAM)


def kernel_tcp_kib():
    with open("/proc/net/sockstat", encoding="ascii") as file:
        line = next(line for line in file if line.startswith("TCP:"))
    return int(line.split()[-1]) * resource.getpagesize() // 1024


@contextlib.contextmanager
def crowd(narwhal):
    connections = []
    try:
        for _ in range(COUNT):
            connection = client.Client(narwhal.address, deadline=120, receive_buffer=4096)
            # What the kernel holds for the client's own writes is none of narwhal's business.
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * KIB)
            connections.append(connection)
        yield connections
    finally:
        for connection in connections:
            connection.close()


def prompt(narwhal):
    """Nobody waits for the slow ones."""
    began = time.monotonic()
    for _ in range(20):
        assert client.get(narwhal.address, "/hello").status == 200
    assert time.monotonic() - began < 5


def report(what, worker, before, kernel):
    extra = status_kib(worker, "VmHWM") - before
    held = kernel_tcp_kib() - kernel
    print(f"\n{what}: worker {extra / 1024:.1f} MiB more, {extra / COUNT:.1f} KiB each; "
          f"kernel {held / 1024:.0f} MiB of TCP memory, {held / COUNT:.0f} KiB each")
    assert held < COUNT * KERNEL_KIB
    return extra


def warm(narwhal):
    worker = narwhal.workers()[0]
    assert client.get(narwhal.address, "/hello").status == 200
    assert client.request(narwhal.address, "POST", "/", body=b"x").text == "1"
    return worker, status_kib(worker, "VmHWM"), kernel_tcp_kib()


@pytest.mark.parametrize("buffer_kib", [64, 128])
def test_slow_readers_of_100_mib(buffer_kib):
    with Server() as server, front(server, response_buffer=f"{buffer_kib}k") as narwhal:
        worker, before, kernel = warm(narwhal)
        with crowd(narwhal) as connections:
            for connection in connections:
                connection.send(client.encode("GET", "/"))
            wait_until(lambda: server.heads == COUNT + 1, "all requests at the server", 120)
            server.wait_still()
            prompt(narwhal)
            extra = report(f"{COUNT} slow readers, response_buffer={buffer_kib}k", worker, before,
                           kernel)
            # One read more than the buffer, and what one write to the kernel left of it.
            assert extra < COUNT * (buffer_kib + 64 + BESIDES_KIB)
            for connection in connections[::100]:  # and they go on, all the way for one of them
                assert connection.head()[1] == 200
                assert connection.take(MIB) == bytes(MIB)
            left = SIZE - MIB
            while left:
                left -= len(connections[0].take(min(left, MIB)))
        wait_until(lambda: narwhal.status()["workers"][0]["connections"] == 0, "all have left")
        prompt(narwhal)


def test_slow_senders_of_small_bodies():
    """60 KB of 64 each: collected, and no server knows of any."""
    part, size = bytes(60_000), 64_000
    with Server() as server, front(server, slots=1, queue=2 * COUNT,
                                   queue_timeout="60s") as narwhal:
        worker, before, kernel = warm(narwhal)
        with crowd(narwhal) as connections:
            for connection in connections:
                connection.send(client.encode("POST", "/", {"Content-Length": str(size)}) + part)
            # A request of each has been read when one that came later was answered.
            wait_until(lambda: narwhal.status()["totals"]["bytes_in"] > COUNT * len(part),
                       "all that they sent", 120)
            prompt(narwhal)
            assert client.request(narwhal.address, "POST", "/", body=b"x").text == "1"
            assert server.heads == 2
            extra = report(f"{COUNT} slow senders of {size} bytes", worker, before, kernel)
            assert extra < COUNT * (64 + BESIDES_KIB)
            for connection in connections:
                connection.send(bytes(size - len(part)))
            server.read_all()
            for connection in connections:
                assert connection.response("POST").text == str(size)
        prompt(narwhal)


def test_large_bodies_to_a_server_that_does_not_read():
    """100 MiB each, as fast as they are taken: they are not taken."""
    with Server() as server, front(server) as narwhal:
        worker, before, kernel = warm(narwhal)
        with crowd(narwhal) as connections:
            left = {}
            for connection in connections:
                connection.send(client.encode("POST", "/", {"Content-Length": str(SIZE)}))
                connection.socket.setblocking(False)
                left[connection] = SIZE
            wait_until(lambda: server.heads == COUNT + 1, "all heads at the server", 120)

            def fill():
                moved = 0
                for connection in connections:
                    with contextlib.suppress(BlockingIOError):
                        sent = connection.socket.send(PIECE[:min(len(PIECE), left[connection])])
                        left[connection] -= sent
                        moved += sent
                return moved
            quiet = 0
            while quiet < 5:
                quiet = 0 if fill() else quiet + 1
                prompt(narwhal)
            extra = report(f"{COUNT} senders of 100 MiB to a server that reads nothing", worker,
                           before, kernel)
            # One read that the server did not take, and one that waits behind it.
            assert extra < COUNT * (64 + 64 + BESIDES_KIB)
            server.read_all()
            connection = connections[0]
            connection.socket.settimeout(120)
            while left[connection]:
                part = PIECE[:min(len(PIECE), left[connection])]
                connection.socket.sendall(part)
                left[connection] -= len(part)
            assert connection.response("POST").text == str(SIZE)
