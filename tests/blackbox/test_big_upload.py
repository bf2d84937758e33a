# SPDX-License-Identifier: Apache-2.0
"""200 MiB through the proxy to a real application: every byte arrives, and the worker holds no more
than a few buffers of them.

The limit of 8 MiB is for the worker that ships, and is held under AddressSanitizer as well: all
that the sanitizer keeps of freed memory (its quarantine) is switched off, its shadow adds one
eighth, and what remains is the worker's own. NARWHAL_RELEASE_BINARY names a binary to measure
instead. Measured is VmHWM (the peak of resident memory) from after a first, small upload on, so
that code and tables are in memory already."""
import hashlib
import os
import socket
import threading

import client
from backend import Backend
from narwhal import APPS, Narwhal, reset_peak_memory, status_kib, wait_app

MIB = 1 << 20
EXTRA_KIB = 8 * 1024
PROGRAM = os.environ.get("NARWHAL_RELEASE_BINARY")
QUIET = {"ASAN_OPTIONS": "quarantine_size_mb=0:thread_local_quarantine_size_kb=0:"
                         "malloc_context_size=0:detect_leaks=1"}
# A block that no compression and no short cut can stand in for; its number makes each unlike the
# others, so that a lost, doubled or swapped piece changes the sum.
BLOCK = os.urandom(MIB - 8)


def blocks(count):
    for number in range(count):
        yield number.to_bytes(8, "big") + BLOCK


def upload(connection, count, chunked=False):
    digest = hashlib.sha256()
    framing = ("Transfer-Encoding: chunked" if chunked else f"Content-Length: {count * MIB}")
    connection.send(f"POST /sha256 HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n")
    for block in blocks(count):
        digest.update(block)
        connection.send(b"%x\r\n%s\r\n" % (len(block), block) if chunked else block)
    if chunked:
        connection.send(b"0\r\n\r\n")
    response = connection.response("POST")
    assert response.status == 200, response
    assert response.json == {"sha256": digest.hexdigest(), "length": count * MIB}


def measured(worker, work):
    reset_peak_memory(worker)
    before = status_kib(worker, "VmHWM")
    work()
    extra = status_kib(worker, "VmHWM") - before
    assert extra < EXTRA_KIB, f"{extra} KiB more than before"
    return extra


def test_200_mib_to_fastapi():
    with Narwhal({
            "master": {"workers": 1}, "worker": {"limit_request_body": "0"},
            "backend:app": {"command": "uvicorn app_fastapi:app --fd {fd}", "directory": APPS},
            "route:app": {"path": "/", "backend": "app"}}, env=QUIET, program=PROGRAM) as narwhal:
        wait_app(narwhal, "/pid")
        worker = narwhal.workers()[0]
        with client.Client(narwhal.address) as connection:
            upload(connection, 2)
            measured(worker, lambda: upload(connection, 200))
            measured(worker, lambda: upload(connection, 20, chunked=True))
        assert narwhal.workers() == {0: worker}


def test_upload_waits_for_a_slow_server():
    """The server reads nothing: the client is held back, not the bytes kept in memory."""
    reading = threading.Event()
    got = []

    def answer(exchange):
        reading.wait(client.DEADLINE)
        left = 64 * MIB
        while left:
            data = exchange.receive(min(left, MIB))
            left -= len(data)
        got.append(True)
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    with Backend(answer, receive_buffer=65536) as backend, Narwhal({
            "master": {"workers": 1}, "worker": {"limit_request_body": "0"},
            "backend:b": {"server": backend.server},
            "route:b": {"path": "/", "backend": "b"}}, env=QUIET, program=PROGRAM) as narwhal, \
            client.Client(narwhal.address) as connection:
        worker = narwhal.workers()[0]

        def work():
            connection.send(f"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {64 * MIB}\r\n\r\n")
            backend.next()
            sent, held = 0, False
            connection.socket.settimeout(1)  # no room for a second: held back
            while sent < 64 * MIB:
                try:
                    sent += connection.socket.send(BLOCK[:min(65536, 64 * MIB - sent)])
                except socket.timeout:
                    assert not reading.is_set(), "no progress though the server reads"
                    held = True
                    assert sent < 32 * MIB, f"{sent} bytes were taken for a server that reads none"
                    reading.set()
                    connection.socket.settimeout(client.DEADLINE)
            assert held, "64 MiB went to a server that reads nothing"
            assert connection.response("POST").status == 200 and got
        measured(worker, work)


def test_download_waits_for_a_slow_client():
    """The client reads nothing: the server is held back, not the bytes kept in memory."""
    sent = [0]
    stuck = threading.Event()

    def answer(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * MIB))
        exchange.socket.settimeout(1)
        while sent[0] < 64 * MIB:
            try:
                sent[0] += exchange.socket.send(BLOCK[:min(65536, 64 * MIB - sent[0])])
            except socket.timeout:
                exchange.socket.settimeout(client.DEADLINE)
                stuck.set()
    with Backend(answer) as backend, Narwhal({
            "master": {"workers": 1}, "backend:b": {"server": backend.server},
            "route:b": {"path": "/", "backend": "b"}}, env=QUIET, program=PROGRAM) as narwhal, \
            client.Client(narwhal.address, receive_buffer=65536) as connection:
        worker = narwhal.workers()[0]

        def work():
            connection.send(client.encode("GET", "/"))
            assert stuck.wait(client.DEADLINE), "64 MiB went to a client that reads nothing"
            assert sent[0] < 32 * MIB, f"{sent[0]} bytes were taken for a client that reads none"
            assert len(connection.response().body) == 64 * MIB
        measured(worker, work)
