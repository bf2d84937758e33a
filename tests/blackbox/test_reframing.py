# SPDX-License-Identifier: Apache-2.0
"""What a server gets is written anew from what was parsed, never passed on raw: over all of
fixtures/requests, one request in is one well-formed request out, and a bad one is none."""
import pathlib
import re
import socket

import client
from backend import OK, Backend
from narwhal import REPOSITORY, Narwhal, wait_until

REQUESTS = pathlib.Path(REPOSITORY, "tests/fixtures/requests")
AFTER = client.encode("GET", "/after")
# RFC 9110 section 7.6.1, and what else is for one hop; Connection and Upgrade are looked at alone.
ONE_HOP = {"keep-alive", "proxy-connection", "proxy-authorization", "te", "trailer", "expect",
           "http2-settings"}
TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"


class Recorder(Backend):
    """Reads strictly, byte by byte what narwhal may send and nothing else."""

    def __init__(self):
        self.whole = []  # (exchange, body)
        super().__init__(self.record)

    def record(self, exchange):
        body = self.strict_body(exchange)
        assert exchange.rest == b"", f"{exchange.rest!r} behind {exchange.head!r}"
        self.whole.append((exchange, body))
        exchange.send(OK.removesuffix(b"ok") if exchange.line.startswith("HEAD ") else OK)

    @staticmethod
    def strict_body(exchange):
        if not exchange.all("Transfer-Encoding"):
            return exchange.take(int(exchange.get("Content-Length") or 0))
        data = b""
        while True:
            line = exchange.take_line()
            assert re.fullmatch(rb"0|[1-9a-f][0-9a-f]*", line), line
            part = exchange.take(int(line, 16))
            assert exchange.take(2) == b"\r\n"
            if not part:
                return data
            data += part


def make(backend):
    return Narwhal({"master": {"workers": 1},
                    "backend:b": {"server": backend.server},
                    "route:b": {"path": "/", "backend": "b"}}, errors=[r"status=50\d"])


def sent_body(data):
    """The body of a valid file, read by other code than narwhal's."""
    head, _, body = data.lstrip(b"\r\n").partition(b"\r\n\r\n")
    if not re.search(rb"\r\ntransfer-encoding[ \t]*:", head, re.I):
        return body
    found = b""
    while True:
        line, _, body = body.partition(b"\r\n")
        size = int(re.match(rb"[0-9A-Fa-f]+", line)[0], 16)
        if size == 0:
            return found
        found, body = found + body[:size], body[size + 2:]


def check_head(head):
    assert head.endswith(b"\r\n\r\n") and head.count(b"\r\n\r\n") == 1
    line, *lines = head[:-4].split(b"\r\n")
    assert re.fullmatch(rb"(GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH) /[\x21-\x7e]* HTTP/1\.1", line)
    fields = []
    for text in lines:
        # Neither white space around the value nor a control byte in it.
        match = re.fullmatch(rb"(%s):(?: ([\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*"
                             rb"[\x21-\x7e\x80-\xff])?)?)?" % TOKEN, text)
        assert match, text
        fields.append((match[1].decode().lower(), match[2] or b""))
    names = [name for name, _ in fields]
    assert names.count("host") == 1
    assert names.count("content-length") + names.count("transfer-encoding") <= 1
    values = dict(fields)
    assert re.fullmatch(rb"0|[1-9]\d*", values.get("content-length", b"0"))
    assert values.get("transfer-encoding", b"chunked") == b"chunked"
    assert not ONE_HOP & set(names), names
    assert names.count("connection") == names.count("upgrade") <= 1
    assert values.get("connection", b"upgrade") == b"upgrade"
    # "_" passes for "-" in CGI and WSGI: nothing may come that looks like these.
    assert not {"content_length", "transfer_encoding", "x_forwarded_for"} & set(names)
    return fields


def test_every_valid_request_arrives_as_one_well_formed_request():
    """With another behind it in the same packet, which is a request of its own."""
    with Recorder() as backend, make(backend) as narwhal:
        passed = answered = 0
        for path in sorted((REQUESTS / "valid").glob("*.http")):
            data = path.read_bytes()
            method = data.lstrip(b"\r\n").split(b" ")[0].decode("latin-1")
            before = len(backend.whole)
            with client.Client(narwhal.address) as connection:
                connection.send(data + AFTER)
                response = connection.response(method)
                kept = not response.closes
                if kept:
                    assert connection.response().status == 200, path.name
                else:
                    connection.expect_close()
            arrived = backend.whole[before:]
            if kept:
                assert arrived.pop()[0].target == "/after", path.name
            if response.status != 200:
                # Not for servers: OPTIONS *, CONNECT, TRACE, unknown methods and expectations.
                assert response.status in (204, 405, 417, 501) and arrived == [], path.name
                answered += 1
                continue
            assert len(arrived) == 1, path.name
            exchange, body = arrived[0]
            try:
                fields = check_head(exchange.head)
            except AssertionError as fault:
                raise AssertionError(f"{path.name}: {exchange.head!r}") from fault
            assert body == sent_body(data), path.name
            assert exchange.line.split(" ")[0] == method, path.name
            names = [name for name, _ in fields]
            assert ("transfer-encoding" in names) == \
                bool(re.search(rb"(?i)\r\ntransfer-encoding[ \t]*:", data.partition(b"\r\n\r\n")[0]))
            if path.stem == "connection-names-another-field":
                assert "x-secret" not in names and "x-kept" in names
            if path.stem == "x-forwarded-fields-of-a-client":
                assert b"10.0.0.1" not in exchange.head and b"evil" not in exchange.head
            passed += 1
        assert passed >= 100 and answered >= 8
        assert len(backend.exchanges) == len(backend.whole)


def test_of_invalid_requests_nothing_arrives():
    """A request whose head is good is on its way when its chunks turn out not to be: its head may
    arrive, its end never does."""
    with Recorder() as backend:
        with make(backend) as narwhal:
            files = sorted((REQUESTS / "invalid").glob("*.http"))
            for path in files:
                with client.Client(narwhal.address) as connection:
                    data = path.read_bytes()
                    # What is refused only because it does not go on must not go on.
                    connection.send(data if "unfinished" in path.stem else data + AFTER)
                    connection.socket.shutdown(socket.SHUT_WR)
                    response = connection.response()
                    assert response.status >= 400 and response.closes, path.name
                    connection.expect_close()
            assert client.get(narwhal.address, "/end").status == 200
        # narwhal is gone, so that all it sent was sent; the server has read it when it says so.
        wait_until(lambda: not backend._streams, "the end of all connections to the server")
    assert [exchange.target for exchange, _ in backend.whole] == ["/end"]
    heads = {exchange.target for exchange in backend.exchanges}
    assert "/after" not in heads and "/smuggled" not in heads
    chunked = sum(path.stem.startswith("chunk") for path in files)
    assert len(backend.exchanges) <= chunked + 1
