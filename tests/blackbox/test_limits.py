# SPDX-License-Identifier: Apache-2.0
"""Every limit and every clock of a client has its answer, and the log names its setting. (Those of
the head as a whole: test_connections.py and test_slow_client.py.)"""
import contextlib
import socket
import threading

import pytest

import client
from backend import OK, Backend
from client import encode
from narwhal import Narwhal

HELLO = {"route:hello": {"path": "/", "respond": "200 hello"}}


def test_field_size():
    with Narwhal({**HELLO, "worker": {"limit_request_field_size": 300}}) as narwhal:
        line = "X-Long: " + "x" * 292
        with client.Client(narwhal.address) as connection:
            assert connection.get("/", {"X-Long": "x" * 292}).status == 200
            response = connection.get("/", {"X-Long": "x" * 293})
            assert response.status == 431 and response.closes
            connection.expect_close()
        assert len(line) == 300
        narwhal.wait_log("status=431.*setting=limit_request_field_size")


# ---- pipelining ----------------------------------------------------------------------------------
def test_pipelined_beyond_the_limit_gets_429():
    with Narwhal({**HELLO, "worker": {"limit_pipelined": 10}}) as narwhal, \
            client.Client(narwhal.address) as connection:
        for _ in range(3):  # as many as allowed, again and again
            connection.send(encode("GET", "/") * 10)
            assert [connection.response().status for _ in range(10)] == [200] * 10
        connection.send(encode("GET", "/") * 12)
        assert [connection.response().status for _ in range(10)] == [200] * 10
        response = connection.response()
        assert response.status == 429 and response.closes
        connection.expect_close()
        narwhal.wait_log("status=429.*setting=limit_pipelined")


@pytest.mark.parametrize("half_close", [False, True])
def test_a_long_pipeline_is_answered_to_its_end(half_close):
    """Longer than what is served in one turn of the loop."""
    with Narwhal({**HELLO, "route:files": {"path": "/files", "static": "root"}},
                 files={"root/a": "a" * 5000}) as narwhal, \
            client.Client(narwhal.address) as connection:
        connection.send((encode("GET", "/") + encode("POST", "/", body=b"123")) * 150
                        + encode("GET", "/files/a") * 200 + encode("HEAD", "/files/a"))
        if half_close:
            connection.socket.shutdown(socket.SHUT_WR)
        for _ in range(300):
            assert connection.response().text.strip() == "hello"
        for _ in range(200):
            assert connection.response().text == "a" * 5000
        assert connection.response("HEAD")["Content-Length"] == "5000"
        if half_close:
            connection.expect_close()
        else:
            assert connection.get("/").status == 200


def test_a_long_pipeline_to_a_server():
    with Backend() as backend, Narwhal({
            "backend:b": {"server": backend.server},
            "route:b": {"path": "/", "backend": "b"}}) as narwhal, \
            client.Client(narwhal.address) as connection:
        connection.send(b"".join(encode("GET", f"/{number}") for number in range(300)))
        for _ in range(300):
            assert connection.response().status == 200
        assert [exchange.target for exchange in backend.exchanges] == \
            [f"/{number}" for number in range(300)]


# ---- the rate of a body --------------------------------------------------------------------------
@contextlib.contextmanager
def dripping(connection, piece):
    """Sends piece without end, twenty times a second."""
    stop = threading.Event()

    def run():
        with contextlib.suppress(OSError):
            while not stop.wait(0.05):
                connection.send(piece)
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("framing, piece", [
    ("Content-Length: 1000000", b"x"), ("Transfer-Encoding: chunked", b"1\r\nx\r\n")])
def test_a_body_that_drips_gets_408(framing, piece):
    with Backend(lambda exchange: exchange.body()) as backend, Narwhal({
            "worker": {"body_timeout": "2s", "body_rate": "1k"},
            "backend:b": {"server": backend.server},
            "route:b": {"path": "/", "backend": "b"}}) as narwhal, \
            client.Client(narwhal.address) as connection:
        connection.send(f"POST / HTTP/1.1\r\nHost: t\r\n{framing}\r\n\r\n")
        with dripping(connection, piece):
            response = connection.response("POST")
            assert response.status == 408 and response.closes
        narwhal.wait_log("status=408.*setting=body_rate")


def test_a_body_that_nobody_wants_may_not_drip_either():
    with Narwhal({**HELLO, "worker": {"body_timeout": "1s", "body_rate": "1k"}}) as narwhal, \
            client.Client(narwhal.address) as connection:
        connection.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 50000\r\n\r\n")
        assert connection.response("POST").status == 200
        with dripping(connection, b"x"):
            assert connection.rest() == b""


def test_time_in_which_the_server_takes_nothing_does_not_count():
    release = threading.Event()
    body = bytes(24 << 20)

    def answer(exchange):
        if exchange.target == "/slow":
            release.wait(client.DEADLINE)
        left = int(exchange.get("Content-Length"))
        while left > 0:
            left -= len(exchange.receive())
        exchange.send(OK)
    with Backend(answer, receive_buffer=65536) as backend, Narwhal({
            "worker": {"body_timeout": "2s", "body_rate": "100m", "limit_request_body": "64m"},
            "backend:b": {"server": backend.server},
            "route:b": {"path": "/", "backend": "b"},
            "route:hello": {"path": "/hello", "respond": "200 hello"}}) as narwhal, \
            client.Client(narwhal.address) as connection:
        found = []
        sender = threading.Thread(target=lambda: found.append(
            connection.request("POST", "/slow", body=body)))
        sender.start()
        backend.next()
        for _ in range(2):  # a whole body_timeout goes by each time
            with client.Client(narwhal.address) as other:
                other.send("POST /hello HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\n")
                assert other.response("POST").status == 200
                other.expect_close()
        release.set()
        sender.join()
        assert found[0].status == 200


def test_no_minimum_rate():
    with Backend() as backend, Narwhal({
            "worker": {"body_timeout": "20s", "body_rate": 0},
            "backend:b": {"server": backend.server},
            "route:b": {"path": "/", "backend": "b"}}) as narwhal, \
            client.Client(narwhal.address) as connection:
        connection.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n")
        for _ in range(10):
            connection.send("x")
        assert connection.response("POST").status == 200


# ---- connections of one client -------------------------------------------------------------------
def connect_from(narwhal, source):
    connection = client.Client(narwhal.address)
    connection.close()
    connection.socket = socket.create_connection(narwhal.address, client.DEADLINE, (source, 0))
    return connection


def test_connections_per_client():
    settings = {"master": {"workers": 1}, "worker": {"connections_per_client": 3}, **HELLO}
    with Narwhal(settings) as narwhal, contextlib.ExitStack() as stack:
        held = [stack.enter_context(connect_from(narwhal, "127.0.0.2")) for _ in range(3)]
        for connection in held:
            assert connection.get("/").status == 200
        mark = narwhal.mark()
        response = stack.enter_context(connect_from(narwhal, "127.0.0.2")).response()
        assert response.status == 503 and response["Retry-After"].isdigit() and response.closes
        narwhal.wait_log("503.*setting=connections_per_client client=127.0.0.2", since=mark)
        # Others have their own count.
        assert stack.enter_context(connect_from(narwhal, "127.0.0.3")).get("/").status == 200
        # One that ends makes room; its last answer comes before it is counted off.
        assert held[0].get("/", {"Connection": "close"}).closes
        held[0].expect_close()
        held[0] = stack.enter_context(connect_from(narwhal, "127.0.0.2"))
        assert held[0].get("/").status == 200
        # Switched off and on again while connections are open.
        narwhal.write({**settings, "worker": {"connections_per_client": 0}})
        narwhal.reload()
        more = stack.enter_context(connect_from(narwhal, "127.0.0.2"))
        assert more.get("/").status == 200
        narwhal.write(settings)
        narwhal.reload()
        for connection in held:
            assert connection.get("/", {"Connection": "close"}).closes
            connection.expect_close()
        held = [stack.enter_context(connect_from(narwhal, "127.0.0.2")) for _ in range(3)]
        for connection in held:
            assert connection.get("/").status == 200
        assert stack.enter_context(connect_from(narwhal, "127.0.0.2")).response().status == 503


def test_clients_of_a_unix_socket_are_not_counted(tmp_path):
    path = str(tmp_path / "sock")
    with Narwhal({"master": {"bind": f"unix:{path}", "workers": 1},
                  "worker": {"connections_per_client": 1}, **HELLO}), \
            contextlib.ExitStack() as stack:
        for _ in range(5):
            connection = stack.enter_context(client.Client(path))
            assert connection.get("/").status == 200


# ---- keep-alive ----------------------------------------------------------------------------------
def test_last_request_of_a_connection_is_logged_with_its_setting():
    with Narwhal({**HELLO, "worker": {"keepalive_requests": 2}, "log": {"level": "debug"}}) as narwhal, \
            client.Client(narwhal.address) as connection:
        assert [connection.get("/").closes for _ in range(2)] == [False, True]
        narwhal.wait_log("setting=keepalive_requests")


@pytest.mark.parametrize("version, said, expected", [
    ("HTTP/1.1", None, None), ("HTTP/1.1", "keep-alive", "timeout=7"),
    ("HTTP/1.1", "Keep-Alive, x", "timeout=7"), ("HTTP/1.0", "keep-alive", "timeout=7"),
    ("HTTP/1.1", "keep-alive, close", None), ("HTTP/1.0", None, None)])
def test_a_client_that_asks_is_told_how_long_its_connection_is_kept(version, said, expected):
    with Backend() as backend, Narwhal({
            **HELLO, "worker": {"keepalive": "7s"}, "backend:b": {"server": backend.server},
            "route:b": {"path": "/b", "backend": "b"}}) as narwhal:
        for target in ("/", "/b", "/none"):
            with client.Client(narwhal.address) as connection:
                response = connection.get(target, {"Connection": said} if said else (),
                                          version=version)
                assert response.get("Keep-Alive") == expected
                assert response.closes == (version == "HTTP/1.0" and not said or
                                           "close" in str(said))
                assert (response.get("Connection") == "keep-alive") == bool(expected)


def test_the_longest_idle_one_makes_room():
    """The client that was cut after head_timeout is the clock."""
    with Narwhal({**HELLO, "master": {"workers": 1}, "log": {"level": "debug"},
                  "worker": {"connections": 4, "head_timeout": "2s"}}) as narwhal, \
            contextlib.ExitStack() as stack:
        first, second, third = [stack.enter_context(client.Client(narwhal.address))
                                for _ in range(3)]
        for connection in (first, second, third):
            assert connection.get("/").status == 200
        with client.Client(narwhal.address) as clock:
            assert clock.send("GET / HT").response().status == 408
            clock.expect_close()
        assert first.get("/").status == 200 and third.get("/").status == 200
        more = [stack.enter_context(client.Client(narwhal.address)) for _ in range(2)]
        for connection in more:
            assert connection.get("/").status == 200
        second.expect_close()
        narwhal.wait_log("longest idle one made room: limit is connections")
        for connection in (first, third, *more):
            assert connection.get("/").status == 200


# ---- every clock and limit has its name in the log -----------------------------------------------
@pytest.mark.parametrize("data, status, line", [
    ("GET / HT", 408, "status=408.*setting=head_timeout"),
    ("POST /b HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\n1", 408,
     "status=408.*setting=body_timeout"),
    ("POST /b HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n1", 408,
     "status=408.*setting=body_timeout"),
    ("", None, "no request within head_timeout"),
    ("GET / HTTP/1.1\r\nHost: t\r\n\r\n", 200, "no request for keepalive"),
    ("GET /big HTTP/1.1\r\nHost: t\r\n\r\n", None, "client took no byte for send_timeout")])
def test_every_clock_is_logged_with_its_name(data, status, line):
    with Backend(lambda exchange: exchange.body()) as backend, Narwhal({
            **HELLO, "worker": {"head_timeout": "400ms", "body_timeout": "400ms", "body_rate": 0,
                                "keepalive": "400ms", "send_timeout": "400ms"},
            "log": {"level": "debug"}, "backend:b": {"server": backend.server},
            "route:b": {"path": "/b", "backend": "b"},
            "route:big": {"path": "/big", "static": "root"}},
            files={"root/index.html": bytes(64 << 20)}) as narwhal, \
            client.Client(narwhal.address, receive_buffer=4096) as connection:
        connection.send(data.replace("/big ", "/big/ "))
        if status:
            assert connection.response("POST").status == status
        narwhal.wait_log(line)


@pytest.mark.parametrize("collected", [False, True], ids=["streamed", "collected"])
def test_chunked_body_that_grows_over_the_limit_gets_413(collected):
    release = threading.Event()

    def answer(exchange):
        with contextlib.suppress(ConnectionError):
            exchange.body()
        release.set()
    with Backend(answer) as backend, Narwhal({
            "worker": {"limit_request_body": "10k"},
            "backend:b": {"server": backend.server, "request_buffer": "64k" if collected else "0"},
            "route:b": {"path": "/", "backend": "b"}}) as narwhal, \
            client.Client(narwhal.address) as connection:
        connection.send("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(10):
            connection.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
        connection.send(b"1\r\nx\r\n")
        response = connection.response("POST")
        assert response.status == 413 and response.closes
        narwhal.wait_log("status=413.*setting=limit_request_body")
        if collected:
            assert backend.connections == 0, "a server knew"
        else:
            assert release.wait(client.DEADLINE), "the server was not told"


# ---- lingering close -----------------------------------------------------------------------------
@pytest.mark.parametrize("framing, first, status", [
    ("Content-Length: 20000000", b"", 413),
    ("Transfer-Encoding: chunked", b"x\r\n", 400),
    ("Transfer-Encoding: chunked, gzip", b"", 400),
    ("Content-Length: 20000000\r\nExpect: else", b"", 417)])
def test_an_early_answer_survives_what_the_client_still_sends(framing, first, status):
    """Without lingering a reset would overtake the answer: it is read only after the last byte."""
    with Backend(lambda exchange: exchange.receive()) as backend, Narwhal({
            "worker": {"limit_request_body": "1m"}, "backend:b": {"server": backend.server},
            "route:b": {"path": "/", "backend": "b"}}) as narwhal, \
            client.Client(narwhal.address) as connection:
        connection.send(f"POST / HTTP/1.1\r\nHost: t\r\n{framing}\r\n\r\n".encode() + first)
        for _ in range(20):
            connection.send(bytes(1_000_000))
        response = connection.response("POST")
        assert response.status == status and response.closes
        connection.expect_close()


def test_lingering_ends():
    with Narwhal({**HELLO, "worker": {"linger_timeout": "300ms"}}) as narwhal, \
            client.Client(narwhal.address) as connection:
        connection.send("bad\r\n\r\n")
        assert connection.response().status == 400
        connection.expect_close()
        with dripping(connection, b"x"), pytest.raises(OSError):
            while True:  # until what was sent into the close comes back as a reset
                connection.socket.send(b"y")
