# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 on the wire: keep-alive, pipelining, HTTP/1.0, limits, garbage."""
import re
import threading

import pytest

import client
from backend import OK, Backend
from client import encode
from narwhal import Narwhal

SETTINGS = {
    "route:hello": {"path": "/", "respond": "200 hello"},
    "route:files": {"path": "/files", "static": "root"},
    "worker": {"limit_request_line": "1k", "limit_request_fields": 20, "limit_request_head": "4k",
               "limit_request_body": "1k"},
}
FILES = {f"root/{number}": f"file {number}" * number for number in range(50)}
FILES["root/big"] = bytes(range(256)) * 8192


@pytest.fixture(name="narwhal", scope="module")
def running():
    with Narwhal(SETTINGS, files=FILES, errors=["status=501"]) as narwhal:
        yield narwhal


def test_keep_alive(narwhal):
    with client.Client(narwhal.address) as connection:
        for _ in range(100):
            response = connection.get("/")
            assert response.status == 200 and not response.closes


def test_connection_close_is_obeyed_and_announced(narwhal):
    with client.Client(narwhal.address) as connection:
        assert connection.get("/", {"Connection": "close"}).closes
        connection.expect_close()


@pytest.mark.parametrize("fields, kept", [((), False), ([("Connection", "keep-alive")], True)])
def test_http_1_0(narwhal, fields, kept):
    with client.Client(narwhal.address) as connection:
        response = connection.get("/", fields, version="HTTP/1.0")
        assert response.status == 200 and response.closes == (not kept)
        if kept:
            assert connection.get("/").status == 200
        else:
            connection.expect_close()


def test_http_1_0_without_host(narwhal):
    assert client.get(narwhal.address, "/", version="HTTP/1.0", host=None).status == 200


def test_many_requests_in_one_packet_are_answered_in_order(narwhal):
    order = [number % 50 for number in range(0, 700, 7)]
    with client.Client(narwhal.address) as connection:
        connection.send(b"".join(encode("GET", f"/files/{number}") for number in order))
        for number in order:
            assert connection.response().text == f"file {number}" * number
        assert connection.get("/").status == 200


def test_pipelined_requests_of_all_kinds(narwhal):
    requests = [("GET", "/files/3", 200), ("HEAD", "/files/4", 200), ("GET", "/files/none", 404),
                ("POST", "/files/3", 405), ("GET", "/files/big", 200), ("GET", "/", 200)]
    with client.Client(narwhal.address) as connection:
        connection.send(b"".join(
            encode(method, target, body=b"body" if method == "POST" else None)
            for method, target, _ in requests * 5))
        for method, target, status in requests * 5:
            assert connection.response(method).status == status, (method, target)


def test_pipelined_while_a_big_answer_is_read_slowly(narwhal):
    with client.Client(narwhal.address, receive_buffer=4096) as connection:
        connection.send(encode("GET", "/files/big") * 5 + encode("GET", "/files/1"))
        for _ in range(5):
            assert connection.response().body == FILES["root/big"]
        assert connection.response().text == "file 1"


def test_pipelined_behind_close_is_not_answered(narwhal):
    with client.Client(narwhal.address) as connection:
        connection.send(encode("GET", "/", {"Connection": "close"}) + encode("GET", "/"))
        assert connection.response().closes
        connection.expect_close()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_requests_in_pieces_of_any_size(narwhal, size):
    data = encode("GET", "/files/3") + encode("POST", "/", body=b"0123456789") + encode("GET", "/")
    with client.Client(narwhal.address) as connection:
        for start in range(0, len(data), size):
            connection.send(data[start:start + size])
        assert connection.response().text == "file 3" * 3
        assert connection.response().status in (200, 405)
        assert connection.response().text.rstrip("\n") == "hello"


def test_half_closed_client_is_still_answered(narwhal):
    import socket
    with client.Client(narwhal.address) as connection:
        connection.send(encode("GET", "/files/3") * 3)
        connection.socket.shutdown(socket.SHUT_WR)
        for _ in range(3):
            assert connection.response().text == "file 3" * 3
        connection.expect_close()


def test_unread_body_does_not_become_a_request(narwhal):
    inner = encode("GET", "/files/1")
    with client.Client(narwhal.address) as connection:
        connection.send(encode("POST", "/", body=inner) + encode("GET", "/files/2"))
        connection.response("POST")
        assert connection.response().text == "file 2" * 2


@pytest.mark.parametrize("data, status, setting", [
    (f"GET /{'x' * 2000} HTTP/1.1\r\nHost: t\r\n\r\n", 414, "limit_request_line"),
    ("GET / HTTP/1.1\r\nHost: t\r\n" + "A: b\r\n" * 30 + "\r\n", 431, "limit_request_fields"),
    (f"GET / HTTP/1.1\r\nHost: t\r\nA: {'x' * 5000}\r\n\r\n", 431, "limit_request_head"),
    ("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1025\r\n\r\n", 413, "limit_request_body"),
])
def test_limit_has_its_status_and_the_log_its_name(narwhal, data, status, setting):
    mark = narwhal.mark()
    with client.Client(narwhal.address) as connection:
        response = connection.send(data).response("POST")
        assert response.status == status
        # A body that was announced and is not read may be dropped instead, to keep the connection.
        assert response.closes or status == 413
    narwhal.wait_log(setting, since=mark)


def test_chunked_body_over_the_limit(narwhal):
    with client.Client(narwhal.address) as connection:
        connection.send("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.send(client.chunks(b"x" * 1000, b"y" * 1000))
        assert connection.response("POST").status in (200, 405, 413)


@pytest.mark.parametrize("garbage", [
    b"garbage\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n",
    b"GET / HTTP/1.1\nHost: t\n\n", b"\0" * 100, b"GET / HTTP/1.1\r\nHost t\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1 \r\nHost: t\r\n\r\n",
    b"GET  / HTTP/1.1\r\nHost: t\r\n\r\n", b" GET / HTTP/1.1\r\nHost: t\r\n\r\n"],
    ids=lambda data: repr(data[:20]))
def test_garbage_gets_400_a_close_and_one_line(narwhal, garbage):
    mark = narwhal.mark()
    with client.Client(narwhal.address) as connection:
        port = connection.socket.getsockname()[1]
        connection.send(garbage)
        response = connection.response()
        assert response.status == 400 and response.closes
        connection.expect_close()
    line = narwhal.wait_log(rf".*\b127\.0\.0\.1:{port}\b.*", since=mark)[0]
    assert re.search(r" info worker", line), line
    client.get(narwhal.address)
    lines = [line for line in narwhal.log(mark) if f"127.0.0.1:{port}" in line]
    assert len(lines) == 1, lines


def test_request_refused_by_its_head_is_one_line_in_the_log():
    """413 is the whole story: no 408 follows when the body does not come either."""
    with Narwhal({**SETTINGS, "master": {"workers": 1},
                  "worker": {"limit_request_body": "1k", "body_timeout": "100ms"}},
                 files=FILES) as narwhal:
        with client.Client(narwhal.address) as connection:
            port = connection.socket.getsockname()[1]
            connection.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1025\r\n\r\n")
            assert connection.response("POST").status == 413
            connection.rest()
        narwhal.stop()
        lines = [line for line in narwhal.log() if f"127.0.0.1:{port}" in line]
        assert len(lines) == 1, lines


def test_unknown_version(narwhal):
    with client.Client(narwhal.address) as connection:
        connection.send("GET / HTTP/2.0\r\nHost: t\r\n\r\n")
        assert connection.response().status == 505


def test_refused_request_ends_the_answers(narwhal):
    """What was answered before is answered; nothing behind it is."""
    with client.Client(narwhal.address) as connection:
        connection.send(encode("GET", "/files/1") + b"bad\r\n\r\n" + encode("GET", "/files/2"))
        assert connection.response().text == "file 1"
        assert connection.response().status == 400
        connection.expect_close()


def test_client_that_goes_away_in_the_middle(narwhal):
    for data in (b"", b"G", b"GET / HTTP/1.1\r\nHost: t\r\n", encode("GET", "/files/big"),
                 b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n012"):
        for _ in range(10):
            with client.Client(narwhal.address) as connection:
                connection.send(data)
    assert client.get(narwhal.address).status == 200


def test_fields_of_our_own(narwhal):
    response = client.get(narwhal.address)
    assert response["Server"].lower().startswith("narwhal")
    assert re.fullmatch(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} "
                        r"\d\d:\d\d:\d\d GMT", response["Date"])


def test_server_header_off():
    with Narwhal({"worker": {"server_header": "off"},
                  "route:hello": {"path": "/", "respond": "200 hello"}}) as narwhal:
        for target in ("/", "/x"):
            assert not client.get(narwhal.address, target).all("Server")
        assert b"Server:" not in client.exchange(narwhal.address, b"bad\r\n\r\n")


def test_keepalive_requests():
    with Narwhal({"worker": {"keepalive_requests": 3},
                  "route:hello": {"path": "/", "respond": "200 hello"}}) as narwhal, \
            client.Client(narwhal.address) as connection:
        assert [connection.get("/").closes for _ in range(3)] == [False, False, True]
        connection.expect_close()


def test_idle_connections_make_room():
    with Narwhal({"master": {"workers": 1}, "worker": {"connections": 10},
                  "route:hello": {"path": "/", "respond": "200 hello"}}) as narwhal:
        held = [client.Client(narwhal.address) for _ in range(10)]
        for connection in held:
            assert connection.get("/").status == 200
        for _ in range(30):
            more = client.Client(narwhal.address)
            held.append(more)
            assert more.get("/").status == 200
        for connection in held:
            connection.close()


def test_options_and_connect(narwhal):
    assert client.request(narwhal.address, "OPTIONS", "*").status in (200, 204)
    with client.Client(narwhal.address) as connection:
        connection.send("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
        assert connection.response("GET").status in (400, 405, 501)


def test_expect_that_nobody_can_meet(narwhal):
    with client.Client(narwhal.address) as connection:
        connection.send(encode("POST", "/", {"Expect": "the unexpected"}, b"x"))
        assert connection.response("POST").status == 417


def test_connections_is_a_limit():
    """Unfinished requests make room; when all connections are being served, new ones get 503."""
    release = threading.Event()

    def answer(exchange):
        release.wait(client.DEADLINE)
        exchange.send(OK)
    with Backend(answer) as backend, Narwhal({
            "master": {"workers": 1}, "worker": {"connections": 5},
            "backend:b": {"server": backend.server},
            "route:b": {"path": "/b", "backend": "b"},
            "route:r": {"path": "/", "respond": "200 ok"}},
            errors=["all connections are in use"]) as narwhal:
        slow = [client.Client(narwhal.address).send("GET / HTTP/1.1\r\nHo") for _ in range(20)]
        assert client.get(narwhal.address).status == 200
        status = narwhal.status()
        assert status["workers"][0]["connections"] <= 5
        busy = []
        for _ in range(5):
            busy.append(client.Client(narwhal.address).send(client.encode("GET", "/b")))
            backend.next()
        response = client.get(narwhal.address)
        assert response.status == 503 and response["Retry-After"].isdigit() and response.closes
        release.set()
        assert [one.response().status for one in busy] == [200] * 5
        for one in slow + busy:
            one.close()
