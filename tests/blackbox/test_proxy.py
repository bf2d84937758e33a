# SPDX-License-Identifier: Apache-2.0
"""What a server gets and what a client gets when narwhal stands between them."""
import threading

import pytest

import client
from backend import OK, Backend
from narwhal import Narwhal, wait_until


def front(backend, workers=1, errors=(), **more):
    return Narwhal({"master": {"workers": workers}, "worker": {"limit_request_body": "0"},
                    "backend:b": {"server": backend.server, **more},
                    "route:b": {"path": "/", "backend": "b"}}, errors=errors)


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_request_and_response_pass(unix):
    with Backend(unix=unix) as backend, front(backend) as narwhal:
        response = client.get(narwhal.address, "/a/b?c=d&%20", {"X-Mine": "one", "Accept": "*/*"})
        assert response.status == 200 and response.text == "ok"
        exchange = backend.next()
        assert exchange.line == "GET /a/b?c=d&%20 HTTP/1.1"
        assert exchange.get("Host") == "test" and exchange.get("X-Mine") == "one"


def test_connections_to_the_server_are_kept():
    with Backend() as backend, front(backend, idle_timeout="30s") as narwhal:
        with client.Client(narwhal.address) as connection:
            for _ in range(20):
                assert connection.get("/").text == "ok"
        for _ in range(20):
            assert client.get(narwhal.address).text == "ok"
        assert backend.connections == 1
        assert narwhal.status()["totals"]["upstream_reused"] == 39


def test_idle_connection_is_closed_after_idle_timeout():
    with Backend() as backend, front(backend, idle_timeout="100ms") as narwhal:
        client.get(narwhal.address)
        assert backend.closed.get(timeout=client.DEADLINE) == 0


def test_no_idle_connections_when_it_is_0():
    with Backend() as backend, front(backend, idle_timeout="0") as narwhal:
        for _ in range(3):
            client.get(narwhal.address)
        assert backend.connections == 3


def test_kept_connection_that_the_server_closed_is_not_an_error():
    """The race of every keep-alive: the request goes out again on a new connection."""
    def answer(exchange):
        exchange.send(OK)
        exchange.close()  # without having said so
    with Backend(answer) as backend, front(backend, idle_timeout="30s") as narwhal:
        for _ in range(30):
            assert client.get(narwhal.address).text == "ok"
        assert backend.connections == 30


@pytest.mark.parametrize("size", [0, 1, 1000, 65536, 300_000, 5_000_000])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_bodies_of_any_size_both_ways(size, chunked):
    data = bytes(range(251)) * (size // 251 + 1)
    data = data[:size]
    got = []

    def answer(exchange):
        got.append(exchange.body())
        if chunked:
            exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" +
                          client.chunks(*(got[-1][at:at + 7777] for at in range(0, size, 7777))))
        else:
            exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + got[-1])
    with Backend(answer) as backend, front(backend) as narwhal, \
            client.Client(narwhal.address) as connection:
        for _ in range(2):
            if chunked:
                pieces = [data[at:at + 5555] for at in range(0, size, 5555)]
                response = connection.request("POST", "/", {"Transfer-Encoding": "chunked"},
                                              client.chunks(*pieces))
            else:
                response = connection.request("POST", "/", body=data)
            assert response.body == data and got[-1] == data
            assert response.framing == ("chunked" if chunked else "length")


def test_chunks_with_extensions_and_trailers():
    def answer(exchange):
        assert exchange.body() == b"hello"
        exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
                      b"5;ext=1\r\nworld\r\n0\r\nX-Sum: 42\r\n\r\n")
    with Backend(answer) as backend, front(backend) as narwhal, \
            client.Client(narwhal.address) as connection:
        response = connection.request(
            "POST", "/", {"Transfer-Encoding": "chunked"},
            b"3;a=b\r\nhel\r\n002\r\nlo\r\n0\r\nX-Trailer: t\r\n\r\n")
        assert response.text == "world"


def test_response_that_ends_with_the_connection():
    def answer(exchange):
        exchange.send(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end")
        exchange.close()
    with Backend(answer) as backend, front(backend) as narwhal:
        for version in ("HTTP/1.1", "HTTP/1.0"):
            response = client.get(narwhal.address, version=version)
            assert response.text == "until the end"
            assert version == "HTTP/1.1" or response.framing in ("close", "length")


def test_each_piece_is_passed_on_at_once():
    """Server-sent events: nothing waits for more."""
    go = threading.Semaphore(0)

    def answer(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                      b"Transfer-Encoding: chunked\r\n\r\n")
        for number in range(5):
            assert go.acquire(timeout=client.DEADLINE)
            exchange.send(b"9\r\ndata: %d\n\n\r\n" % number)
        exchange.send(b"0\r\n\r\n")
    with Backend(answer) as backend, front(backend) as narwhal, \
            client.Client(narwhal.address) as connection:
        connection.send(client.encode("GET", "/"))
        assert connection.head()[1] == 200
        for number in range(5):
            go.release()
            assert connection.take_line() == b"9"
            assert connection.take(11) == b"data: %d\n\n\r\n" % number
        assert connection.take(5) == b"0\r\n\r\n"


def test_each_piece_of_a_request_is_passed_on_at_once_without_request_buffer():
    parts = []
    arrived = threading.Semaphore(0)

    def answer(exchange):
        while len(b"".join(parts)) < 30:
            parts.append(exchange.receive())
            arrived.release()
        exchange.send(OK)
    with Backend(answer) as backend, front(backend, request_buffer=0) as narwhal, \
            client.Client(narwhal.address) as connection:
        connection.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 30\r\n\r\n")
        for _ in range(3):
            connection.send(b"0123456789")
            assert arrived.acquire(timeout=client.DEADLINE)
        assert connection.response("POST").status == 200
        assert b"".join(parts) == b"0123456789" * 3


def test_hop_by_hop_fields_are_removed_both_ways():
    def answer(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X-Private\r\n"
                      b"X-Private: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\n"
                      b"X-Public: 2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\nok")
    with Backend(answer) as backend, front(backend) as narwhal:
        response = client.get(narwhal.address, "/", [
            ("Connection", "keep-alive, X-Secret"), ("X-Secret", "1"), ("Keep-Alive", "300"),
            ("Proxy-Connection", "keep-alive"), ("TE", "gzip"),
            ("Upgrade", "h2c"), ("X-Kept", "1"), ("Cookie", "a=1")])
        sent = {name.lower() for name, _ in backend.next().fields}
        assert not sent & {"x-secret", "keep-alive", "proxy-connection", "te", "upgrade"}, sent
        assert {"x-kept", "cookie", "host"} <= sent
        got = {name.lower() for name, _ in response.fields}
        assert "x-private" not in got, got
        assert response["Keep-Alive"] == "timeout=75"  # narwhal's own, not the server's
        assert "x-public" in got and response.all("Set-Cookie") == ["a=1", "b=2"]


def test_connection_field_cannot_remove_what_the_server_relies_on():
    with Backend() as backend, front(backend) as narwhal:
        client.get(narwhal.address, "/", {"Connection": "close, X-Forwarded-For, Host"})
        exchange = backend.next()
        assert exchange.get("Host") == "test" and exchange.get("X-Forwarded-For") == "127.0.0.1"


def test_forwarded_fields():
    with Backend() as backend, front(backend) as narwhal:
        client.get(narwhal.address, "/", host="www.example:8080")
        exchange = backend.next()
        assert exchange.get("X-Forwarded-For") == "127.0.0.1"
        assert exchange.get("X-Forwarded-Proto") == "http"
        assert exchange.get("X-Forwarded-Host") == "www.example:8080"
        assert exchange.get("Host") == "www.example:8080"


def test_forwarded_fields_of_a_client_are_not_believed():
    """Nobody is a trusted proxy unless the settings say so."""
    with Backend() as backend, front(backend) as narwhal:
        client.get(narwhal.address, "/", {
            "X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https",
            "X-Forwarded-Host": "evil.example", "X-Forwarded-Prefix": "/evil"})
        exchange = backend.next()
        assert exchange.get("X-Forwarded-For").split(",")[-1].strip() == "127.0.0.1"
        assert exchange.get("X-Forwarded-Proto") == "http"
        assert exchange.get("X-Forwarded-Host") == "test"
        assert exchange.get("X-Forwarded-Prefix") is None


def test_underscore_cannot_pass_for_a_dash():
    """CGI-like servers make HTTP_X_FORWARDED_FOR of both."""
    with Backend() as backend, front(backend) as narwhal:
        client.get(narwhal.address, "/", {"X_Forwarded_For": "6.6.6.6"})
        assert not backend.next().all("X_Forwarded_For")


def test_absolute_form_becomes_origin_form():
    with Backend() as backend, front(backend) as narwhal:
        client.get(narwhal.address, "http://real.example/x?y", host="real.example")
        exchange = backend.next()
        assert exchange.line == "GET /x?y HTTP/1.1" and exchange.get("Host") == "real.example"


@pytest.mark.parametrize("head, method", [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", "HEAD"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HEAD"),
    (b"HTTP/1.1 200 OK\r\n\r\n", "HEAD"),
    (b"HTTP/1.1 204 No Content\r\n\r\n", "GET"),
    (b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 7\r\n\r\n", "GET"),
    (b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n", "GET")])
def test_responses_without_a_body(head, method):
    def answer(exchange):
        exchange.send(head if exchange.target == "/none" else OK)
    with Backend(answer) as backend, front(backend) as narwhal, \
            client.Client(narwhal.address) as connection:
        for _ in range(3):
            response = connection.request(method, "/none")
            assert response.status == int(head[9:12]) and response.body == b""
            assert connection.get("/").text == "ok", "the connection is where it should be"
        assert backend.connections <= 3


def test_expect_100_continue_reaches_the_server_and_its_answer_the_client():
    def answer(exchange):
        if exchange.target == "/refuse":
            exchange.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n"
                          b"Connection: close\r\n\r\n")
            exchange.close()
            return
        exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        exchange.body()
        exchange.send(OK)
    with Backend(answer) as backend, front(backend) as narwhal:
        with client.Client(narwhal.address) as connection:
            connection.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n"
                            "Expect: 100-continue\r\n\r\n")
            assert connection.head()[1] == 100
            connection.send(b"hello")
            response = connection.response("POST")
            assert response.status == 200 and response.interim == []
        with client.Client(narwhal.address) as connection:
            connection.send("POST /refuse HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n"
                            "Expect: 100-continue\r\n\r\n")
            response = connection.response("POST")
            assert response.status == 403


@pytest.mark.parametrize("piece", [1, 7, 4096])
def test_response_heads_in_pieces(piece):
    """A head may come in any pieces, behind an interim one, and be larger than one read."""
    large = "x" * 6000
    fields = "".join(f"X-Large-{i}: {large}\r\n" for i in range(4 if piece > 100 else 1))
    heads = (f"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
             f"HTTP/1.1 200 OK\r\n{fields}Content-Length: 4\r\n\r\nbody").encode()

    def answer(exchange):
        for at in range(0, len(heads), piece):
            exchange.send(heads[at:at + piece])
    with Backend(answer) as backend, front(backend) as narwhal, \
            client.Client(narwhal.address) as connection:
        for _ in range(2):
            response = connection.get("/")
            assert response.status == 200 and response.text == "body"
            assert response["X-Large-0"] == large
            assert len(response.interim) == 1
        assert backend.connections == 1


def test_early_hints_pass():
    def answer(exchange):
        exchange.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x.css>\r\n\r\n" + OK)
    with Backend(answer) as backend, front(backend) as narwhal:
        response = client.get(narwhal.address)
        assert response.status == 200 and response.interim in ([103], [])
        assert client.get(narwhal.address, version="HTTP/1.0").interim == []


def test_response_before_the_request_has_ended():
    """413 from the application while the upload is still under way must reach the client."""
    def answer(exchange):
        if exchange.target != "/next":
            exchange.receive()
        exchange.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"
                      b"large")
        exchange.close()
    with Backend(answer) as backend, front(backend) as narwhal, \
            client.Client(narwhal.address) as connection:
        connection.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 50000000\r\n\r\nbegin")
        response = connection.response("POST")
        assert response.status == 413 and response.text == "large"
        if not response.closes:  # then the rest of the body is read, and the connection goes on
            connection.send(bytes(50_000_000 - len("begin")) + client.encode("GET", "/next"))
            assert connection.response().status == 413


def test_pipelined_requests_are_answered_in_order():
    def answer(exchange):
        text = exchange.target.encode()
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
    with Backend(answer) as backend, front(backend) as narwhal, \
            client.Client(narwhal.address) as connection:
        connection.send(b"".join(client.encode("GET", f"/{number}") for number in range(100)))
        for number in range(100):
            assert connection.response().text == f"/{number}"


def test_slots_make_requests_wait_for_their_turn():
    """One request at a time per server, over all workers."""
    running, most = [0], [0]
    lock = threading.Lock()

    def answer(exchange):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        threading.Event().wait(0.005)
        with lock:
            running[0] -= 1
        exchange.send(OK)
    with Backend(answer) as backend, front(backend, workers=2, slots=1,
                                           queue_timeout="30s") as narwhal:
        statuses = []

        def ask():
            for _ in range(5):
                statuses.append(client.get(narwhal.address).status)
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [200] * 40
        assert most[0] == 1


def test_full_queue_is_503_with_retry_after():
    release = threading.Event()

    def answer(exchange):
        release.wait(client.DEADLINE)
        exchange.send(OK)
    with Backend(answer) as backend, front(backend, slots=1, queue=1, queue_timeout="30s",
                                           errors=["status=503 .*setting=queue "]) as narwhal:
        first = client.Client(narwhal.address).send(client.encode("GET", "/"))
        backend.next()
        second = client.Client(narwhal.address).send(client.encode("GET", "/"))

        def refused():
            with client.Client(narwhal.address) as third:
                third.socket.settimeout(0.5)
                try:
                    response = third.get("/")
                except OSError:
                    return None  # it took the second's place in the queue
                return response if response.status == 503 else None
        assert wait_until(refused, "a 503")["Retry-After"].isdigit()
        release.set()
        assert first.response().status == 200 and second.response().status == 200
        first.close()
        second.close()


def test_queue_timeout_is_503():
    release = threading.Event()

    def answer(exchange):
        release.wait(client.DEADLINE)
        exchange.send(OK)
    with Backend(answer) as backend, front(backend, slots=1, queue_timeout="100ms",
                                           errors=["status=503 .*queue_timeout"]) as narwhal:
        with client.Client(narwhal.address) as first:
            first.send(client.encode("GET", "/"))
            backend.next()
            response = client.get(narwhal.address)
            assert response.status == 503 and response["Retry-After"].isdigit()
            release.set()
            assert first.response().status == 200


def test_client_that_leaves_cancels_the_exchange():
    def answer(exchange):
        while exchange.receive():
            pass
        exchange.close()
        exchange.backend.closed.put(exchange.connection)
    with Backend(answer) as backend, front(backend) as narwhal:
        with client.Client(narwhal.address) as connection:
            connection.send(client.encode("GET", "/"))
            backend.next()
        assert backend.closed.get(timeout=client.DEADLINE) == 0


@pytest.mark.parametrize("balance", ["least_busy", "round_robin"])
def test_all_servers_get_requests(balance):
    with Backend() as one, Backend() as two, Narwhal({
            "backend:b": {"server": [one.server, two.server], "balance": balance},
            "route:b": {"path": "/", "backend": "b"}}) as narwhal:
        for _ in range(20):
            assert client.get(narwhal.address).status == 200
        assert len(one.exchanges) + len(two.exchanges) == 20
        assert len(one.exchanges) >= 5 and len(two.exchanges) >= 5


def test_weight():
    with Backend() as one, Backend() as two, Narwhal({
            "master": {"workers": 1},
            "backend:b": {"server": [one.server, two.server + " weight=3"],
                          "balance": "round_robin"},
            "route:b": {"path": "/", "backend": "b"}}) as narwhal:
        for _ in range(40):
            assert client.get(narwhal.address).status == 200
        assert (len(one.exchanges), len(two.exchanges)) == (10, 30)


def test_hash_keeps_a_client_at_one_server():
    with Backend() as one, Backend() as two, Narwhal({
            "backend:b": {"server": [one.server, two.server], "balance": "hash"},
            "route:b": {"path": "/", "backend": "b"}}) as narwhal:
        for _ in range(20):
            assert client.get(narwhal.address).status == 200
        assert sorted((len(one.exchanges), len(two.exchanges))) == [0, 20]


def test_least_busy_goes_around_a_server_that_hangs():
    release = threading.Event()

    def hang(exchange):
        release.wait(client.DEADLINE)
        exchange.send(OK)
    with Backend(hang) as slow, Backend() as fast, Narwhal({
            "backend:b": {"server": [slow.server, fast.server]},
            "route:b": {"path": "/", "backend": "b"}}) as narwhal:
        held = []
        for _ in range(50):
            held.append(client.Client(narwhal.address).send(client.encode("GET", "/")))
            wait_until(lambda: len(slow.exchanges) + len(fast.exchanges) == len(held), "arrival")
            if slow.exchanges:
                break
        assert slow.exchanges, "the first server got no request"
        before = len(fast.exchanges)
        for _ in range(20):
            assert client.get(narwhal.address).status == 200
        assert len(slow.exchanges) == 1 and len(fast.exchanges) == before + 20
        release.set()
        for connection in held:
            connection.close()
