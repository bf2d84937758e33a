# SPDX-License-Identifier: Apache-2.0
"""TERM lets open requests end; INT and QUIT do not wait."""
import hashlib
import os
import signal
import threading
import time

import pytest

import client
from backend import OK, Backend
from narwhal import Narwhal, wait_until

HELLO = {"route:hello": {"path": "/", "respond": "200 hello"}}


def with_file(content, **master):
    return Narwhal({"master": master, "route:files": {"path": "/", "static": "root"}},
                   files={"root/big": content})


def stopping(narwhal, sig):
    """Sends the signal and waits until the master has taken note of it."""
    mark = narwhal.mark()
    narwhal.signal(sig)
    narwhal.wait_log(r" master\[", since=mark)


def draining(narwhal, sig=signal.SIGTERM):
    """Sends the signal and waits until the only worker drains: until it closes a kept
    connection."""
    with client.Client(narwhal.address) as probe:
        assert probe.get("/hello").status == 200
        narwhal.signal(sig)
        wait_until(lambda: probe.get("/hello").closes, "the worker to drain")
        probe.expect_close()


def test_slow_download_is_finished():
    content = os.urandom(1 << 20) * 24
    with with_file(content, graceful_timeout="60s") as narwhal:
        with client.Client(narwhal.address, receive_buffer=4096) as download:
            download.send(client.encode("GET", "/big"))
            head = download.head()
            assert head[1] == 200
            digest, left = hashlib.sha256(), len(content)
            piece = download.take(1000)
            digest.update(piece)
            left -= len(piece)
            stopping(narwhal, signal.SIGTERM)
            while left:
                assert narwhal.process.poll() is None, "the master left before the download's end"
                piece = download.take(min(left, 1 << 20))
                digest.update(piece)
                left -= len(piece)
            assert digest.digest() == hashlib.sha256(content).digest()
            download.expect_close()
        narwhal.wait_exit()


def test_request_at_a_backend_is_finished():
    release = threading.Event()

    def answer(exchange):
        release.wait(client.DEADLINE)
        exchange.send(OK)
    with Backend(answer) as backend, Narwhal({
            **HELLO, "master": {"workers": 1}, "backend:b": {"server": backend.server},
            "route:b": {"path": "/slow", "backend": "b"}}) as narwhal:
        with client.Client(narwhal.address) as connection:
            connection.send(client.encode("GET", "/slow"))
            backend.next()
            draining(narwhal)
            release.set()
            response = connection.response()
            assert response.text == "ok" and response.closes
            connection.expect_close()
        narwhal.wait_exit()


def test_request_on_the_wire_of_a_kept_connection_is_answered():
    """A client that is just sending its next request must not be cut: keepalive_drain."""
    with Narwhal({**HELLO, "master": {"workers": 1},
                  "worker": {"keepalive_drain": "20s"}}) as narwhal:
        with client.Client(narwhal.address) as connection:
            assert connection.get("/").status == 200
            draining(narwhal)
            response = connection.get("/")
            assert response.status == 200 and response.closes
            connection.expect_close()
        narwhal.wait_exit()


def test_idle_connections_do_not_hold_the_stop_up():
    with Narwhal({**HELLO, "worker": {"keepalive_drain": "200ms"}}) as narwhal:
        with client.Client(narwhal.address) as connection:
            assert connection.get("/").status == 200
            stopping(narwhal, signal.SIGTERM)
            connection.expect_close()
        narwhal.wait_exit()


def test_what_is_left_is_cut_at_graceful_timeout():
    with Backend(lambda exchange: exchange.receive()) as backend, Narwhal({
            "master": {"graceful_timeout": "500ms"},
            "backend:b": {"server": backend.server},
            "route:b": {"path": "/", "backend": "b"}}) as narwhal:
        with client.Client(narwhal.address) as connection:
            connection.send(client.encode("GET", "/"))
            backend.next()
            narwhal.stop(signal.SIGTERM)
            with pytest.raises((client.ConnectionEnded, ConnectionResetError)):
                connection.response()


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGQUIT])
def test_quick_stop_does_not_wait(sig):
    content = bytes(64 << 20)
    with with_file(content, graceful_timeout="10m") as narwhal:
        with client.Client(narwhal.address, receive_buffer=4096) as download:
            download.send(client.encode("GET", "/big"))
            download.take(1000)
            begin = time.monotonic()
            narwhal.stop(sig)
            assert time.monotonic() - begin < 25, "a quick stop"


def test_second_signal_makes_a_graceful_stop_quick():
    with with_file(bytes(64 << 20), graceful_timeout="10m") as narwhal:
        with client.Client(narwhal.address, receive_buffer=4096) as download:
            download.send(client.encode("GET", "/big"))
            download.take(1000)
            stopping(narwhal, signal.SIGTERM)
            narwhal.stop(signal.SIGINT)


def test_stop_before_it_is_ready():
    """A signal that comes at any moment of the start is a stop, not a death."""
    for _ in range(5):
        narwhal = Narwhal(HELLO, start=False)
        with narwhal:
            narwhal.start(ready=False)
            narwhal.wait_log("listening address")
            narwhal.stop(signal.SIGTERM)


def test_nobody_is_served_after_the_stop():
    with Narwhal(HELLO) as narwhal:
        address = narwhal.address
        narwhal.stop()
        with pytest.raises(ConnectionRefusedError):
            client.get(address)


def test_stop_under_load_breaks_no_answer_in_the_middle():
    """New connections are refused once it is over; no answer that began ends early."""
    problems = []
    ended = threading.Event()

    def ask(address):
        while not ended.is_set():
            try:
                response = client.get(address)
                assert response.text.strip() == "hello"
            except (ConnectionRefusedError, ConnectionResetError, client.ConnectionEnded):
                return
            except Exception as problem:
                problems.append(repr(problem))
                return
    with Narwhal({**HELLO, "worker": {"keepalive_drain": "300ms"}}) as narwhal:
        threads = [threading.Thread(target=ask, args=(narwhal.address,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: sum(w["requests"] for w in narwhal.status()["workers"]) > 50, "load")
        narwhal.stop()
        ended.set()
        for thread in threads:
            thread.join()
        assert not problems, problems


def test_new_clients_are_refused_at_once_while_open_requests_end():
    """A client that is refused tries elsewhere; one in a queue that nobody serves would wait."""
    with with_file(bytes(64 << 20), graceful_timeout="60s", workers=1) as narwhal:
        with client.Client(narwhal.address, receive_buffer=4096) as download:
            download.send(client.encode("GET", "/big"))
            download.take(1000)
            stopping(narwhal, signal.SIGTERM)

            def is_refused():
                try:
                    client.Client(narwhal.address).socket.close()
                except ConnectionRefusedError:
                    return True
                return False
            wait_until(is_refused, "the port to be closed")
            assert narwhal.process.poll() is None, "the download is still open"
            download.take(64 << 20 >> 1)
        narwhal.wait_exit()
