# SPDX-License-Identifier: Apache-2.0
"""What an upgraded connection may rely on: both directions with their own end, bounded buffers, a
clock for silence, settings that change around it, and time to leave; and what 5,000 of them cost."""
import os
import resource
import selectors
import socket
import threading
import time

import pytest

import client
from backend import Backend
from narwhal import Narwhal, status_kib, wait_until

KIB, MIB = 1024, 1 << 20
COUNT = 5000
# Nothing of what the sanitizer keeps of freed memory counts.
QUIET = {"ASAN_OPTIONS": "quarantine_size_mb=0:thread_local_quarantine_size_kb=0:"
                         "malloc_context_size=0:detect_leaks=1"}
UPGRADE = {"Connection": "Upgrade", "Upgrade": "any-token/1.0"}
SWITCH = (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
          b"Upgrade: any-token/1.0\r\n\r\n")


def echo(exchange):
    """Upgrades, and sends back what it gets until the end."""
    assert exchange.get("Upgrade") == "any-token/1.0"
    exchange.send(SWITCH)
    while data := exchange.receive():
        exchange.send(data)
    exchange.close()


def settings(*servers, backend="b", graceful="30s", worker=None, **more):
    return {"master": {"workers": 1, "graceful_timeout": graceful}, "worker": worker or {},
            f"backend:{backend}": {"server": list(servers), **more},
            "route:b": {"path": "/", "backend": backend},
            "route:hello": {"path": "=/hello", "respond": "200 hello"}}


def upgrade(narwhal, **more):
    connection = client.Client(narwhal.address, **more)
    connection.send(client.encode("GET", "/tunnel?secret", UPGRADE))
    response = connection.response()
    assert response.status == 101 and response["Upgrade"] == "any-token/1.0"
    return connection


def talk(connection, data=b"ping"):
    connection.send(data)
    assert connection.take(len(data)) == data


def open_tunnels(narwhal):
    return sum(worker["tunnels"] for worker in narwhal.status()["workers"])


def test_server_may_end_its_direction_first():
    def answer(exchange):
        exchange.send(SWITCH + b"all I have to say")
        exchange.socket.shutdown(socket.SHUT_WR)
        got.append(exchange.take(5))
        while exchange.receive():
            pass
        ended.set()
        exchange.close()
    got, ended = [], threading.Event()
    with Backend(answer) as backend, Narwhal(settings(backend.server)) as narwhal:
        with upgrade(narwhal) as connection:
            assert connection.rest() == b"all I have to say"
            connection.send(b"heard")
            wait_until(lambda: got == [b"heard"], "what the client said after the server's end")
            assert open_tunnels(narwhal) == 1
            connection.socket.shutdown(socket.SHUT_WR)
            assert ended.wait(client.DEADLINE)
            wait_until(lambda: open_tunnels(narwhal) == 0, "the end of the tunnel")


@pytest.mark.parametrize("who", ["client", "server"])
def test_reset_of_one_side_ends_the_other(who):
    def answer(exchange):
        exchange.send(SWITCH)
        if who == "server":
            exchange.take(4)
            exchange.reset()
            return
        try:
            while exchange.receive():
                pass
        finally:
            ended.set()
        exchange.close()
    ended = threading.Event()
    with Backend(answer) as backend, Narwhal(settings(backend.server)) as narwhal, \
            upgrade(narwhal) as connection:
        if who == "server":
            connection.send(b"ping")
            with pytest.raises((ConnectionResetError, AssertionError)):
                connection.rest()
                raise AssertionError("ended")
        else:
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                         b"\1\0\0\0\0\0\0\0")
            connection.close()
            assert ended.wait(client.DEADLINE)
        wait_until(lambda: open_tunnels(narwhal) == 0, "the end of the tunnel")


@pytest.mark.parametrize("direction", ["up", "down"])
def test_side_that_does_not_read_holds_the_other_back(direction):
    """64 MiB into a tunnel whose other side sleeps: little of it is taken, all of it arrives."""
    size = 64 * MIB
    block = os.urandom(MIB)
    go = threading.Event()
    total = []

    def read_all(receive, before=0):
        left = size - before
        while left:
            data = receive()
            assert data, f"ended {left} bytes early"
            left -= len(data)
        total.append(True)

    def write_all(stream):
        sent = 0
        stream.settimeout(1)
        while sent < size:
            try:
                at = sent % MIB
                sent += stream.send(block[at:at + 65536])
            except socket.timeout:
                assert not go.is_set(), "no progress though the other side reads"
                assert sent < 24 * MIB, f"{sent} bytes were taken"
                go.set()
                stream.settimeout(client.DEADLINE)
        assert go.is_set()

    def answer(exchange):
        exchange.send(SWITCH)
        if direction == "up":
            go.wait(client.DEADLINE)
            read_all(lambda: exchange.receive(MIB))
        else:
            write_all(exchange.socket)
        while exchange.receive():
            pass
        exchange.close()
    with Backend(answer, receive_buffer=65536) as backend, \
            Narwhal(settings(backend.server), env=QUIET) as narwhal, \
            upgrade(narwhal, receive_buffer=65536) as connection:
        worker = narwhal.workers()[0]
        before = status_kib(worker, "VmHWM")
        if direction == "up":
            write_all(connection.socket)
            wait_until(lambda: total, "all of it")
        else:
            assert go.wait(client.DEADLINE)
            connection.socket.settimeout(client.DEADLINE)
            # Some came with the head.
            read_all(lambda: connection.socket.recv(MIB), len(connection.buffer))
        assert status_kib(worker, "VmHWM") - before < 8 * KIB


def test_bytes_of_either_side_end_the_silence():
    with Backend(echo) as backend, \
            Narwhal(settings(backend.server, tunnel_timeout="1s")) as narwhal, \
            upgrade(narwhal) as connection:
        for _ in range(8):
            talk(connection)
            time.sleep(0.25)
        talk(connection)
        began = time.monotonic()
        connection.expect_close()
        assert time.monotonic() - began > 0.7
        narwhal.wait_log("tunnel_timeout")


def test_half_closed_tunnel_is_not_kept_for_ever():
    def answer(exchange):
        exchange.send(SWITCH)
        while exchange.receive():
            pass
        client_end.wait(client.DEADLINE)
        exchange.close()
    client_end = threading.Event()
    with Backend(answer) as backend, \
            Narwhal(settings(backend.server, tunnel_timeout="300ms")) as narwhal, \
            upgrade(narwhal) as connection:
        connection.socket.shutdown(socket.SHUT_WR)
        connection.expect_close()
        client_end.set()


# ---- settings ------------------------------------------------------------------------------------
def test_reload_that_keeps_the_route_keeps_the_tunnel():
    """Over 20 of them, each with other settings around it; and the new clock counts."""
    with Backend(echo) as backend, Backend(echo) as other, \
            Narwhal(settings(backend.server)) as narwhal, upgrade(narwhal) as connection:
        for number in range(20):
            changed = settings(backend.server, other.server, response_timeout=f"{50 + number}s")
            changed["route:more"] = {"path": f"/{number}", "respond": "200 more"}
            narwhal.write(changed)
            narwhal.reload()
            assert client.get(narwhal.address, f"/{number}").status == 200
            talk(connection)
        assert open_tunnels(narwhal) == 1
        narwhal.write(settings(backend.server, tunnel_timeout="300ms"))
        narwhal.reload()
        connection.expect_close()
        narwhal.wait_log("silence for tunnel_timeout")


@pytest.mark.parametrize("gone", ["route", "backend", "server"])
def test_tunnel_whose_route_or_server_is_gone_has_time_to_leave(gone):
    with Backend(echo) as backend, Backend(echo) as other, \
            Narwhal(settings(backend.server)) as narwhal, \
            upgrade(narwhal) as connection:
        talk(connection)
        if gone == "server":
            changed = settings(other.server, graceful="1500ms")
        elif gone == "backend":
            changed = settings(other.server, backend="other", graceful="1500ms")
        else:
            changed = settings(backend.server, graceful="1500ms")
            del changed["route:b"]
        narwhal.write(changed)
        mark = narwhal.reload()
        began = time.monotonic()
        narwhal.wait_log(r"tunnel's route or server is gone .*setting=graceful_timeout", since=mark)
        talk(connection)
        with pytest.raises((AssertionError, ConnectionResetError)):
            while True:  # talking does not prolong it
                talk(connection)
                time.sleep(0.05)
        assert 1.0 < time.monotonic() - began < 20
        wait_until(lambda: open_tunnels(narwhal) == 0, "the end of the tunnel")


def test_route_that_comes_back_in_time_keeps_its_tunnel():
    with Backend(echo) as backend, Narwhal(settings(backend.server)) as narwhal, \
            upgrade(narwhal) as connection:
        changed = settings(backend.server)
        del changed["route:b"]
        narwhal.write(changed)
        mark = narwhal.reload()
        narwhal.wait_log("tunnel's route or server is gone", since=mark)
        narwhal.write(settings(backend.server, tunnel_timeout="1h"))
        narwhal.reload()
        talk(connection)
        assert open_tunnels(narwhal) == 1


def test_stop_gives_a_tunnel_time_to_leave():
    with Backend(echo) as backend, Narwhal(settings(backend.server)) as narwhal, \
            upgrade(narwhal) as connection:
        narwhal.signal(15)
        narwhal.wait_log("stopping gracefully")
        for _ in range(5):
            talk(connection)
            time.sleep(0.1)
        connection.socket.shutdown(socket.SHUT_WR)
        connection.expect_close()
        narwhal.wait_exit()


def test_tunnels_are_counted_and_logged(tmp_path):
    log = str(tmp_path / "access.log")
    with Backend(echo) as backend, Narwhal({
            **settings(backend.server),
            "log": {"access": log, "access_format":
                    '%(m)s %(U)s?%(q)s %(s)s %(B)s %({x-id}i)s "%(a)s"'}}) as narwhal:
        with client.Client(narwhal.address) as connection:
            connection.send(client.encode("GET", "/tunnel?q=1", {
                **UPGRADE, "X-Id": "id-7", "User-Agent": "ua", "X-Other": "y" * 500}))
            assert connection.response().status == 101
            talk(connection, b"x" * 1000)
            talk(connection, b"y" * 1000)
            status = narwhal.status()
            assert status["workers"][0]["tunnels"] == 1 and status["totals"]["tunnels"] == 1
        wait_until(lambda: open_tunnels(narwhal) == 0, "the end of the tunnel")
        assert narwhal.status()["totals"]["tunnels_ended"] == 1
        line = wait_until(lambda: os.path.exists(log) and open(log, encoding="ascii").read(),
                          "the line in the access log")
        assert line == 'GET /tunnel?q=1 101 2000 id-7 "ua"\n'


# ---- what they cost ------------------------------------------------------------------------------
class Crowd:
    """A server of tunnels and their clients, all in one thread."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.server = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.selector = selectors.DefaultSelector()
        self.listener.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.servers, self.clients = [], []
        self.waiting = set()

    def join(self, narwhal, count):
        data = client.encode("GET", "/tunnel", {
            **UPGRADE, "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/128.0",
            "Cookie": "session=" + "0123456789abcdef" * 8, "Accept-Language": "en",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13"})
        for at in range(0, count, 100):  # no more at once than the backlog takes
            for _ in range(min(100, count - at)):
                stream = socket.create_connection(narwhal.address)
                stream.sendall(data)
                stream.setblocking(False)
                self.selector.register(stream, selectors.EVENT_READ, "client")
                self.waiting.add(stream)
            self.run(lambda: not self.waiting)

    def run(self, done):
        end = time.monotonic() + 120
        while not done():
            assert time.monotonic() < end
            for key, _ in self.selector.select(1):
                self.step(key)

    def step(self, key):
        if key.fileobj is self.listener:
            stream, _ = self.listener.accept()
            stream.setblocking(False)
            self.selector.register(stream, selectors.EVENT_READ, "server")
        elif key.data == "client":
            data = key.fileobj.recv(4096)
            assert data.startswith(b"HTTP/1.1 101 ") and data.endswith(b"\r\n\r\n"), data
            self.selector.unregister(key.fileobj)
            self.waiting.discard(key.fileobj)
            self.clients.append(key.fileobj)
        else:
            assert key.fileobj.recv(4096).endswith(b"\r\n\r\n")
            key.fileobj.sendall(SWITCH)
            self.selector.unregister(key.fileobj)
            self.servers.append(key.fileobj)

    def close(self):
        for stream in [self.listener, *self.servers, *self.clients]:
            stream.close()
        self.selector.close()


def test_5000_idle_tunnels_cost_1_kib_each():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * COUNT + 500:
        pytest.skip(f"{hard} descriptors are not enough")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    crowd = Crowd()
    program = os.environ.get("NARWHAL_RELEASE_BINARY")
    try:
        with Narwhal(settings(crowd.server, worker={"connections": 2 * COUNT}), env=QUIET,
                     program=program) as narwhal:
            worker = narwhal.workers()[0]
            crowd.join(narwhal, 200)  # what the first ones touch is there for all
            before = status_kib(worker, "RssAnon")
            crowd.join(narwhal, COUNT)
            each = (status_kib(worker, "RssAnon") - before) * KIB / COUNT
            print(f"\n{COUNT} idle tunnels: {each:.0f} bytes each in the worker")
            with open(narwhal.program, "rb") as file:
                sanitized = b"__asan_init" in file.read()
            assert each <= (4 if sanitized else 1) * KIB
            assert open_tunnels(narwhal) == COUNT + 200
            first, last = crowd.clients[0], crowd.clients[-1]
            for stream in (first, last):
                stream.setblocking(True)
                stream.sendall(b"still there")
            heard = []

            def hear():
                for stream in crowd.servers:
                    try:
                        heard.append(stream.recv(64))
                    except BlockingIOError:
                        pass
                return len(heard) == 2
            wait_until(hear, "what the first and the last one say")
            assert heard == [b"still there"] * 2
            crowd.close()
            wait_until(lambda: open_tunnels(narwhal) == 0, "the end of all tunnels", 60)
    finally:
        crowd.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
