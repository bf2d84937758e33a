# SPDX-License-Identifier: Apache-2.0
"""Fields behind a chunked body: dropped, unless the route asks for them."""
import time

import pytest

import client
from backend import OK, Backend
from narwhal import Narwhal

TRAILERS = ("X-Sum: 1\r\nX-Empty:\r\nx-blanks:\t a  b \t\r\nX_Forwarded_For: 6.6.6.6\r\n"
            "X-Forwarded-For: 6.6.6.6\r\nX-Obs: \xe4\r\n")
KEPT = [b"X-Sum: 1", b"X-Empty: ", b"x-blanks: a  b", b"X-Obs: \xe4"]
RAW = b"5\r\nhello\r\n0\r\n" + TRAILERS.encode("latin-1") + b"\r\n"


@pytest.fixture(name="stage", scope="module")
def running():
    def answer(exchange):
        lines, data = [], b""
        while size := int(exchange.take_line(), 16):
            data += exchange.take(size)
            assert exchange.take(2) == b"\r\n"
        while line := exchange.take_line():
            lines.append(line)
        exchange.data, exchange.lines = data, lines
        exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
                      + RAW)
    with Backend(answer) as backend, Narwhal({
            "backend:b": {"server": backend.server},
            "route:kept": {"path": "/kept", "backend": "b", "trailers": "on"},
            "route:b": {"path": "/", "backend": "b"}}, errors=["status=501"]) as narwhal:
        yield narwhal, backend


def ask(narwhal, target, size=1 << 20, version="HTTP/1.1", fields=""):
    data = (f"POST {target} {version}\r\nHost: t\r\nTransfer-Encoding: chunked\r\n{fields}\r\n"
            ).encode() + RAW
    with client.Client(narwhal.address) as connection:
        for start in range(0, len(data), size):
            connection.send(data[start:start + size])
        response = connection.response("POST")
        assert response.status == 200 and response.body == b"hello"
        # The next request begins where it should.
        data = client.encode("POST", "/", {"Transfer-Encoding": "chunked"}) + b"0\r\n\r\n"
        assert connection.send(data).response("POST").status == 200
    return response


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_dropped(stage, size):
    narwhal, backend = stage
    before = len(backend.exchanges)
    response = ask(narwhal, "/", size, fields="TE: trailers\r\nTrailer: X-Sum\r\n")
    assert response.trailers == [] and not response.all("Trailer")
    exchange = backend.exchanges[before]
    assert (exchange.data, exchange.lines) == (b"hello", [])
    assert not exchange.all("TE") and not exchange.all("Trailer")


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_passed_on_where_the_route_asks_for_them(stage, size):
    narwhal, backend = stage
    before = len(backend.exchanges)
    response = ask(narwhal, "/kept", size,
                   fields="TE: trailers, deflate;q=0.5\r\nTrailer: X-Sum\r\n")
    assert [f"{name}: {value}".encode("latin-1") for name, value in response.trailers] == KEPT
    assert response["Trailer"] == "X-Sum"
    exchange = backend.exchanges[before]
    assert (exchange.data, exchange.lines) == (b"hello", KEPT)
    assert exchange.get("TE") == "trailers" and exchange.get("Connection") == "TE"
    assert exchange.get("Trailer") == "X-Sum"


def test_a_client_that_does_not_say_te_is_not_made_to(stage):
    narwhal, backend = stage
    before = len(backend.exchanges)
    ask(narwhal, "/kept")
    exchange = backend.exchanges[before]
    assert not exchange.all("TE") and not exchange.all("Connection")


def test_a_response_cut_anywhere_in_its_trailers():
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
    data = head + b"5\r\nworld\r\n0\r\nX-Sum: 42\r\nServer-Timing: db;dur=2\r\n\r\n"

    def answer(exchange):
        cut = int(exchange.target.rpartition("/")[2])
        exchange.send(data[:cut])
        if cut < len(data):
            time.sleep(0.002)  # most likely two reads; both ways must do
        exchange.send(data[cut:])
    with Backend(answer) as backend, Narwhal({
            "backend:b": {"server": backend.server},
            "route:b": {"path": "/", "backend": "b", "trailers": "on"}}) as narwhal, \
            client.Client(narwhal.address) as connection:
        for cut in (len(data), *range(len(data) - 44, len(data) - 1, 5)):
            response = connection.get(f"/{cut}", {"TE": "trailers", "Connection": "TE"})
            assert response.text == "world"
            assert response.trailers == [("X-Sum", "42"), ("Server-Timing", "db;dur=2")], cut


def test_trailers_that_act_as_header_fields_are_dropped():
    """RFC 9110 section 6.5.1: none that route, authenticate or say how to read the body."""
    bad = (b"Set-Cookie: a=1\r\nContent-Type: text/html\r\nCache-Control: public\r\n"
           b"Location: /\r\nAuthorization: x\r\nWWW-Authenticate: Basic\r\nKeep-Alive: timeout=1\r\n"
           b"Trailer: x\r\nTE: x\r\nContent-Encoding: gzip\r\nVary: x\r\nCookie: a=1\r\n")
    raw = b"5\r\nhello\r\n0\r\n" + bad + b"X-Sum: 1\r\n\r\n"
    seen = []

    def answer(exchange):
        line = exchange.take_line()
        exchange.take(int(line, 16) + 2)
        while line := exchange.take_line():
            seen.append(line)
        exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + raw)
    with Backend(answer) as backend, Narwhal({
            "backend:b": {"server": backend.server},
            "route:b": {"path": "/", "backend": "b", "trailers": "on"}}) as narwhal, \
            client.Client(narwhal.address) as connection:
        connection.send(client.encode("POST", "/", {"Transfer-Encoding": "chunked"}) + raw)
        assert connection.response("POST").trailers == [("X-Sum", "1")]
        assert seen == [b"0", b"X-Sum: 1"]


def test_a_collected_body_is_sent_again_with_its_trailers():
    """PUT on a kept connection that the server closes just then."""
    seen = []

    def answer(exchange):
        if exchange.target == "/fatal":
            lines = []
            while line := exchange.take_line():
                lines.append(line)
            seen.append(lines)
            if exchange.connection == 0:
                exchange.close()
                return
        exchange.send(OK)
    with Backend(answer) as backend, Narwhal({
            "backend:b": {"server": backend.server},
            "route:b": {"path": "/", "backend": "b", "trailers": "on"}},
            errors=["502"]) as narwhal, client.Client(narwhal.address) as connection:
        assert connection.get("/").status == 200
        connection.send(client.encode("PUT", "/fatal", {"Transfer-Encoding": "chunked"}))
        connection.send(b"2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n")
        assert connection.response("PUT").status == 200
        assert seen == [[b"2", b"hi", b"0", b"X-Sum: 1"]] * 2


def test_http_1_0_knows_no_trailers():
    def answer(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
                      + RAW)
    with Backend(answer) as backend, Narwhal({
            "backend:b": {"server": backend.server},
            "route:b": {"path": "/", "backend": "b", "trailers": "on"}}) as narwhal:
        response = client.get(narwhal.address, "/", version="HTTP/1.0")
        assert response.body == b"hello" and response.framing == "close"
        assert not response.all("Trailer")


@pytest.mark.parametrize("trailer", ["Content-Length: 5", "Transfer-Encoding: chunked", "Host: x",
                                     "Connection: close", "Upgrade: x", " X: y", "X : y", "X"])
def test_trailers_that_are_refused_are_on_such_a_route_too(stage, trailer):
    narwhal, _ = stage
    with client.Client(narwhal.address) as connection:
        connection.send("POST /kept HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
                        f"0\r\n{trailer}\r\n\r\n")
        response = connection.response("POST")
        assert response.status == 400 and response.closes
        connection.expect_close()
