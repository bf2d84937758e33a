# SPDX-License-Identifier: Apache-2.0
"""Requests that two servers could read in two ways are refused, and nothing of them reaches a
server: every file of fixtures/requests/invalid gets the status that expected.txt says,
and the connection closes. Those of fixtures/requests/valid pass."""
import contextlib
import pathlib
import re
import socket

import pytest

import client
from backend import OK, Backend
from narwhal import REPOSITORY, Narwhal

REQUESTS = pathlib.Path(REPOSITORY, "tests/fixtures/requests")


def expected_statuses():
    found = {}
    for line in (REQUESTS / "expected.txt").read_text(encoding="utf-8").splitlines():
        match = re.match(r"([\w.+-]+)\.http\s+(\d{3})\b", line)
        if match and not line.startswith("#"):
            found[match[1]] = int(match[2])
    return found


EXPECTED = expected_statuses() if (REQUESTS / "expected.txt").exists() else {}
INVALID = sorted((REQUESTS / "invalid").glob("*.http"))
VALID = sorted((REQUESTS / "valid").glob("*.http"))


@contextlib.contextmanager
def make_stage():
    completed = []  # requests that the server read to their end

    def answer(exchange):
        exchange.body()
        completed.append(exchange)
        exchange.send(OK)
    with Backend(answer) as backend, Narwhal({
            "worker": {"head_timeout": "30s"},
            "backend:b": {"server": backend.server},
            "route:b": {"path": "/", "backend": "b"}}, errors=["status=50[15]"]) as narwhal:
        backend.completed = completed
        yield narwhal, backend


@pytest.fixture(name="stage", scope="module")
def running():
    with make_stage() as stage:
        yield stage


@pytest.fixture(name="body_stage", scope="module")
def running_for_bodies():
    """For requests whose head is good: it is on its way to the server when the body turns out not
    to be, and may arrive at any time after the client's answer."""
    with make_stage() as stage:
        yield stage


def test_every_file_has_its_status():
    assert len(INVALID) >= 20
    assert {path.stem for path in INVALID} == set(EXPECTED)


@pytest.mark.parametrize("path", INVALID, ids=lambda path: getattr(path, "stem", "none"))
def test_refused(stage, body_stage, path):
    late = path.stem.startswith("chunk")
    narwhal, backend = body_stage if late else stage
    before = len(backend.exchanges), len(backend.completed)
    with client.Client(narwhal.address) as connection:
        connection.send(path.read_bytes())
        # Nothing more comes: what could only be refused with more bytes is not in the table.
        connection.socket.shutdown(socket.SHUT_WR)
        response = connection.response("GET")
        assert response.status == EXPECTED[path.stem] and response.closes
        connection.expect_close()
    assert backend.completed[before[1]:] == [], "the server saw the end of it"
    if not late:
        assert [exchange.line for exchange in backend.exchanges[before[0]:]] == []


@pytest.mark.parametrize("path", VALID, ids=lambda path: getattr(path, "stem", "none"))
def test_accepted(stage, path):
    """In the middle of others on one connection, so that its framing must be right."""
    narwhal, _ = stage
    data = path.read_bytes()
    method = data.lstrip(b"\r\n").split(b" ")[0].decode("latin-1")
    with client.Client(narwhal.address) as connection:
        connection.send(client.encode("GET", "/before"))
        assert connection.response().status == 200
        connection.send(data)
        response = connection.response(method)
        # A method, a target or an expectation may be read right and still not be served.
        assert response.status in (200, 204, 405, 417, 501), response
        if not response.closes:
            connection.send(client.encode("GET", "/after"))
            assert connection.response().status == 200


def raw(*lines, body=b""):
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


SMUGGLED = raw("GET /smuggled HTTP/1.1", "Host: t")


@pytest.mark.parametrize("name, data", [
    ("both", raw("POST / HTTP/1.1", "Host: t", "Content-Length: 5", "Transfer-Encoding: chunked",
                 body=b"0\r\n\r\n" + SMUGGLED)),
    ("two lengths", raw("POST / HTTP/1.1", "Host: t", "Content-Length: 0", "Content-Length: 44",
                        body=SMUGGLED)),
    ("length list", raw("POST / HTTP/1.1", "Host: t", "Content-Length: 0, 44", body=SMUGGLED)),
    ("plus", raw("POST / HTTP/1.1", "Host: t", "Content-Length: +0", body=SMUGGLED)),
    ("hex", raw("POST / HTTP/1.1", "Host: t", "Content-Length: 0x0", body=SMUGGLED)),
    ("tab before colon", raw("POST / HTTP/1.1", "Host: t", "Transfer-Encoding\t: chunked",
                             body=b"0\r\n\r\n" + SMUGGLED)),
    ("xchunked", raw("POST / HTTP/1.1", "Host: t", "Transfer-Encoding: xchunked",
                     body=b"0\r\n\r\n" + SMUGGLED)),
    ("chunked twice", raw("POST / HTTP/1.1", "Host: t", "Transfer-Encoding: chunked, chunked",
                          body=b"0\r\n\r\n" + SMUGGLED)),
    ("chunked in 1.0", raw("POST / HTTP/1.0", "Host: t", "Transfer-Encoding: chunked",
                           body=b"0\r\n\r\n" + SMUGGLED)),
    ("folded", raw("POST / HTTP/1.1", "Host: t", "X: y", " Transfer-Encoding: chunked",
                   body=b"0\r\n\r\n" + SMUGGLED)),
    ("bare CR", raw("POST / HTTP/1.1", "Host: t", "X: y\rTransfer-Encoding: chunked",
                    body=b"0\r\n\r\n" + SMUGGLED)),
    ("bare LF", b"POST / HTTP/1.1\r\nHost: t\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n"
                b"0\r\n\r\n" + SMUGGLED),
    ("two hosts", raw("GET / HTTP/1.1", "Host: a", "Host: b")),
])
def test_nothing_is_smuggled(stage, name, data):
    narwhal, backend = stage
    before = len(backend.exchanges)
    with client.Client(narwhal.address) as connection:
        response = connection.send(data).response("POST")
        assert response.status in (400, 501) and response.closes, name
        connection.expect_close()
    assert len(backend.exchanges) == before, "it reached the server"


@pytest.mark.parametrize("body", [
    b"5\nhello\r\n0\r\n\r\n", b"5\r\nhello0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n", b"-1\r\n\r\n",
    b"0x5\r\nhello\r\n0\r\n\r\n", b" 5\r\nhello\r\n0\r\n\r\n", b"fffffffffffffffff\r\n",
    b"\r\n\r\n", b"5;a\nb\r\nhello\r\n0\r\n\r\n", b"g\r\n", b"5\rhello\r\n0\r\n\r\n"],
    ids=lambda body: repr(body[:16]))
def test_broken_chunks(body_stage, body):
    narwhal, _ = body_stage
    with client.Client(narwhal.address) as connection:
        connection.send(raw("POST / HTTP/1.1", "Host: t", "Transfer-Encoding: chunked", body=body))
        response = connection.response("POST")
        assert response.status == 400 and response.closes
        connection.expect_close()
