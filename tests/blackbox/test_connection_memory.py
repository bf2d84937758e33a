# SPDX-License-Identifier: Apache-2.0
"""connection_memory is a promise: however bad its client, a connection makes the worker hold no
more. Measured is what the worker's own memory (RssAnon) grows by for each of many such clients.

It holds for the worker that ships; under AddressSanitizer the quarantine is switched off, and half
as much is allowed for its shadow and for the sizes that it rounds up. NARWHAL_RELEASE_BINARY names a binary to measure instead."""
import contextlib
import os
import threading

import pytest

import client
from backend import Backend
from narwhal import Narwhal, status_kib

COUNT = 40
PIECE = client.chunks(bytes(30000))[:-5]
PROGRAM = os.environ.get("NARWHAL_RELEASE_BINARY")
QUIET = {"ASAN_OPTIONS": "quarantine_size_mb=0:thread_local_quarantine_size_kb=0:"
                         "malloc_context_size=0:detect_leaks=1:max_free_fill_size=0"}
SHARE = 1 if PROGRAM else 3 / 2
# A head of nearly 32k: two large fields, and small ones so that the table of fields is large, too.
HEAD = ("Host: t\r\n" + "".join(f"X-{name}: {'x' * 7900}\r\n" for name in "abc")
        + "".join(f"Y-{number}: {'y' * 60}\r\n" for number in range(90)))


class Stage:
    """A narwhal with one worker before a server that sends without end, reads nothing, or begins a
    head that never ends."""

    def __init__(self, memory):
        self.release = threading.Event()
        self.sent = 0
        self.backend = Backend(self.answer)
        self.narwhal = Narwhal({
            "worker": {"connection_memory": memory, "limit_request_body": 0,
                       "body_timeout": "1h", "head_timeout": "1h", "send_timeout": "1h",
                       "limit_pipelined": 100000},
            "master": {"workers": 1, "graceful_timeout": "1s"},
            "backend:b": {"server": self.backend.server, "response_timeout": "1h",
                          "stream_timeout": "1h",
                          # As much as there is: the promise holds whatever they say.
                          "request_buffer": "16m", "response_buffer": "64m"},
            "route:b": {"path": "/b", "backend": "b"},
            "route:files": {"path": "/files", "static": "root"},
            "route:r": {"path": "/", "respond": "200 hello"}},
            files={"root/in-memory": bytes(30 << 10), "root/big": bytes(8 << 20)},
            env=QUIET, program=PROGRAM)
        self.worker = self.narwhal.workers()[0]

    def answer(self, exchange):
        with contextlib.suppress(OSError):
            if exchange.target == "/b/head":
                exchange.send(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 50000)
            elif exchange.target == "/b/endless":
                exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                while not self.release.is_set():
                    exchange.send(PIECE)
                    self.sent += 1
            self.release.wait(client.DEADLINE)

    def __enter__(self):
        self.narwhal.__enter__()
        return self

    def __exit__(self, *what):
        self.release.set()
        try:
            self.narwhal.__exit__(*what)
        finally:
            self.backend.stop()

    def used_kib(self):
        return status_kib(self.worker, "RssAnon")

    def grow(self, be_bad):
        """KiB that each of COUNT bad clients adds, at the most that is seen until it stays so."""
        with client.Client(self.narwhal.address) as first:  # what is made once is there
            be_bad(first)
        before, most, calm, sent = self.used_kib(), 0, 0, 0
        with contextlib.ExitStack() as stack:
            for _ in range(COUNT):
                connection = stack.enter_context(
                    client.Client(self.narwhal.address, receive_buffer=4096))
                be_bad(connection)
            while calm < 100:  # answers of the worker between which nobody moved
                assert client.get(self.narwhal.address).status == 200
                now = self.used_kib()
                calm = calm + 1 if now <= most + 16 and sent == self.sent else 0
                most, sent = max(most, now), self.sent
        return max(0, most - before) / COUNT


def until_full(connection, data):
    """Sends until the other side takes no more for a while."""
    connection.socket.settimeout(0.01)
    with contextlib.suppress(OSError):
        for _ in range(1000):
            connection.socket.sendall(data)


def unfinished_head(connection):
    connection.send("GET / HTTP/1.1\r\n" + HEAD)


def slow_reader(connection):
    connection.send("GET /b/endless HTTP/1.1\r\n" + HEAD + "\r\n")


def slow_reader_that_pipelines(connection):
    slow_reader(connection)
    until_full(connection, client.encode("GET", "/files/in-memory") * 100)


def pipelines_and_reads_nothing(connection):
    until_full(connection, client.encode("GET", "/files/in-memory") * 500)


def reads_no_file(connection):
    until_full(connection, client.encode("GET", "/files/big") * 500)


def uploads_to_who_takes_nothing(connection):
    connection.send("POST /b/none HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + HEAD + "\r\n")
    until_full(connection, b"400\r\n" + bytes(1024) + b"\r\n")


def sends_half_a_body(connection):
    """It is collected, and no server knows of it."""
    connection.send("POST /b/none HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + HEAD + "\r\n" +
                    ("400\r\n" + 1024 * "x" + "\r\n") * 170)


def waits_for_an_endless_head(connection):
    connection.send("GET /b/head HTTP/1.1\r\n" + HEAD + "\r\n")


BAD = [unfinished_head, slow_reader, slow_reader_that_pipelines, pipelines_and_reads_nothing,
       reads_no_file, uploads_to_who_takes_nothing, sends_half_a_body, waits_for_an_endless_head]


@pytest.mark.parametrize("promise", [448, 320])
@pytest.mark.parametrize("be_bad", BAD, ids=lambda bad: bad.__name__)
def test_no_client_makes_a_connection_hold_more_than_its_memory(promise, be_bad):
    with Stage(f"{promise}k") as stage:
        held = stage.grow(be_bad)
    print(f"{be_bad.__name__}: {held:.0f} KiB of {promise}")
    assert held <= promise * SHARE


def test_more_memory_is_used_when_it_is_given():
    """So the setting is what bounds it."""
    with Stage("320k") as small:
        little = small.grow(slow_reader)
    with Stage("4m") as large:
        much = large.grow(slow_reader)
    print(f"320k: {little:.0f} KiB, 4m: {much:.0f} KiB")
    assert 80 < little <= 320 * SHARE and 1024 < much <= 4096 * SHARE


def test_too_little_is_refused_with_the_number_that_would_do():
    settings = {"worker": {"connection_memory": "200k"}, "route:r": {"respond": "200 ok"}}
    narwhal = Narwhal(settings, start=False)
    narwhal.start(ready=False)
    narwhal.wait_exit(78)
    assert any("connection_memory: must be at least 298k" in line for line in narwhal.log())
    narwhal.destroy()
