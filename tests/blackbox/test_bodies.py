# SPDX-License-Identifier: Apache-2.0
"""Bodies on their way to a server and back: collected before a server is chosen, taken off it for
clients that read slowly, and cut so that the client can tell."""
import contextlib
import os
import socket
import threading
import time

import pytest

import client
from backend import OK, Backend
from narwhal import Narwhal, wait_until

KIB = 1024


def front(backend, workers=1, errors=(), worker=None, master=None, **more):
    return Narwhal({"master": {"workers": workers, **(master or {})},
                    "worker": {"limit_request_body": "0", **(worker or {})},
                    "backend:b": {"server": backend.server, **more},
                    "route:b": {"path": "/", "backend": "b"},
                    "route:hello": {"path": "=/hello", "respond": "200 hello"}}, errors=errors)


def echo(exchange):
    body = exchange.body()
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


# ---- request_buffer ------------------------------------------------------------------------------
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_slow_uploader_holds_no_slot(chunked):
    """One request at a time: those who send slowly are not among them."""
    with Backend(echo) as backend, front(backend, slots=1, queue_timeout="30s") as narwhal:
        slow = [client.Client(narwhal.address) for _ in range(5)]
        for connection in slow:
            connection.send("POST /slow HTTP/1.1\r\nHost: t\r\n" +
                            ("Transfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n" if chunked else
                             "Content-Length: 11\r\n\r\nhello "))
        for _ in range(5):
            assert client.request(narwhal.address, "POST", "/quick", body=b"x").text == "x"
        assert [exchange.target for exchange in backend.exchanges] == ["/quick"] * 5
        for connection in slow:
            connection.send("5\r\nworld\r\n0\r\n\r\n" if chunked else "world")
            assert connection.response("POST").text == "hello world"
            connection.close()


def test_begin_of_a_large_body_takes_no_slot():
    """A slot is not given for a promise: first so much of the body must have come."""
    with Backend(echo) as backend, \
            front(backend, slots=1, request_buffer="4k", queue_timeout="30s") as narwhal, \
            client.Client(narwhal.address) as slow:
        slow.send("POST /slow HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\n" + "x" * 4000)
        assert client.request(narwhal.address, "POST", "/quick", body=b"y").text == "y"
        assert len(backend.exchanges) == 1
        slow.send("x" * 4000)
        backend.next(), backend.next()
        slow.send("x" * 92000)
        assert slow.response("POST").body == b"x" * 100000


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize("slots", [0, 1])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_bodies_around_the_size_of_the_buffer(chunked, slots, method):
    """Whole at once, in two pieces, byte by byte at the border. POST waits for a connection to
    prove itself before it uses it again, so that most pieces come before there is one."""
    with Backend(echo) as backend, front(backend, slots=slots, request_buffer="4k") as narwhal, \
            client.Client(narwhal.address) as connection:
        for size in (1, 4095, 4096, 4097, 8192, 200_000):
            body = os.urandom(size)
            for cut in (0, size // 2, size - 1):
                if chunked:
                    connection.send(client.encode(method, "/", {"Transfer-Encoding": "chunked"}) +
                                    (b"%x\r\n%s\r\n" % (cut, body[:cut]) if cut else b""))
                    connection.send(client.chunks(body[cut:], trailer="X-Sum: 1\r\n"))
                else:
                    connection.send(client.encode(method, "/", {"Content-Length": str(size)}) +
                                    body[:cut])
                    connection.send(body[cut:])
                assert connection.response(method).body == body, (size, cut)
        if method == "PUT":
            assert backend.connections == 1


def test_collected_body_is_sent_again_where_that_is_safe():
    """PUT on a kept connection that the server closes just then: once more, with its body."""
    def answer(exchange):
        if exchange.target == "/fatal" and exchange.connection == 0:
            exchange.receive()
            exchange.close()
        else:
            echo(exchange)
    with Backend(answer) as backend, front(backend, errors=["502"]) as narwhal, \
            client.Client(narwhal.address) as connection:
        assert connection.get("/").status == 200
        body = os.urandom(30 * KIB)
        assert connection.request("PUT", "/fatal", body=body).body == body
        assert backend.connections == 2


def test_client_that_leaves_in_its_body_reaches_no_server():
    with Backend(echo) as backend, front(backend) as narwhal:
        with client.Client(narwhal.address) as connection:
            connection.send("POST /left HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n12345")
        with client.Client(narwhal.address) as connection:
            connection.send("POST /bad HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
                            "5\r\nhello\r\nnonsense\r\n")
            assert connection.response("POST").status == 400
        assert client.get(narwhal.address).status == 200
        assert [exchange.target for exchange in backend.exchanges] == ["/"]


# ---- Expect --------------------------------------------------------------------------------------
ASK = ("POST {} HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n")


@pytest.mark.parametrize("length", [5, 1_000_000])
def test_server_may_refuse_a_body_unseen(length):
    def answer(exchange):
        exchange.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
    with Backend(answer) as backend, front(backend) as narwhal, \
            client.Client(narwhal.address) as connection:
        connection.send(ASK.format("/", length))
        response = connection.response("POST")
        assert response.status == 403 and response.closes
        assert backend.next().all("Expect") == [], "the 100 is narwhal's"


def test_question_takes_no_slot():
    """Where a question would hold a slot narwhal answers it."""
    with Backend(echo) as backend, front(backend, slots=1) as narwhal, \
            client.Client(narwhal.address) as connection:
        connection.send(ASK.format("/asked", 5))
        assert connection.head()[1] == 100
        assert client.get(narwhal.address, "/other").status == 200
        connection.send("hello")
        assert connection.response("POST").text == "hello"
        assert [exchange.target for exchange in backend.exchanges] == ["/other", "/asked"]
        assert not backend.exchanges[1].all("Expect")


# ---- response_buffer -----------------------------------------------------------------------------
@contextlib.contextmanager
def slow_reader(response_buffer, connection_memory="2m"):
    """One slot, and a client at a unix socket (whose buffers do not grow) that reads nothing of
    600 KiB. Yields (client, narwhal, event: the server got rid of all of it)."""
    done = threading.Event()
    body = b"x" * (600 * KIB)

    def answer(exchange):
        if exchange.target == "/large":
            exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
            exchange.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * KIB)
            exchange.send(body)
            done.set()
        else:
            exchange.send(OK)
    path = f"/tmp/narwhal-test-bodies-{os.getpid()}.sock"
    with Backend(answer, unix=True) as backend, \
            front(backend, slots=1, response_buffer=response_buffer, queue_timeout="1s",
                  worker={"connection_memory": connection_memory},
                  master={"bind": ["127.0.0.1:0", f"unix:{path}"]}) as narwhal, \
            client.Client(path) as connection:
        connection.send(client.encode("GET", "/large"))
        assert connection.head()[1] == 200
        yield connection, narwhal, done
        assert connection.take(len(body)) == body
        assert done.wait(client.DEADLINE)


def test_response_is_taken_off_the_server_for_a_slow_reader():
    with slow_reader("1m") as (_, narwhal, done):
        assert done.wait(client.DEADLINE)
        assert client.get(narwhal.address).status == 200, "the slot is free"


def test_response_buffer_is_bounded_by_connection_memory():
    with slow_reader("1m", connection_memory="448k") as (_, narwhal, done):
        assert client.get(narwhal.address).status == 503, "the slot is not free"
        assert not done.is_set()


def test_server_waits_for_a_slow_reader_beyond_response_buffer():
    with slow_reader("64k") as (_, narwhal, done):
        assert client.get(narwhal.address).status == 503, "the slot is not free"
        assert not done.is_set()


# ---- interim responses, early answers ------------------------------------------------------------
def test_interim_responses_arrive_before_the_final_one():
    def answer(exchange):
        exchange.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n"
                      b"Connection: close\r\nKeep-Alive: timeout=1\r\n\r\n")
        assert go.wait(client.DEADLINE)
        exchange.send(b"HTTP/1.1 102 Processing\r\n\r\n" + OK)
    go = threading.Event()
    with Backend(answer) as backend, front(backend) as narwhal, \
            client.Client(narwhal.address) as connection:
        connection.send(client.encode("GET", "/"))
        _, status, _, fields = connection.head()
        assert status == 103 and fields == [("Link", "</a.css>; rel=preload")]
        go.set()
        response = connection.response()
        assert response.interim == [102] and response.text == "ok"


def test_early_answer_streams_while_the_upload_goes_on():
    """Both directions at once: an answer that begins before the request has ended."""
    size = 3_000_000

    def answer(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        left = size
        while left:
            data = exchange.receive(min(left, 65536))
            left -= len(data)
            exchange.send(b"%x\r\n%s\r\n" % (len(data), data))
        exchange.send(b"0\r\n\r\n")
    with Backend(answer) as backend, front(backend, worker={"body_timeout": "30s"}) as narwhal, \
            client.Client(narwhal.address) as connection:
        body = os.urandom(size)

        def upload():
            for at in range(0, size, 50_000):
                connection.send(body[at:at + 50_000])
        connection.send(f"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {size}\r\n\r\n")
        thread = threading.Thread(target=upload)
        thread.start()
        response = connection.response("POST")
        thread.join(client.DEADLINE)
        assert response.body == body and response.closes


# ---- servers that end in the middle --------------------------------------------------------------
@pytest.mark.parametrize("framing, sent", [
    ("Content-Length: 100", b"x" * 99), ("Transfer-Encoding: chunked", b"5\r\nhello\r\n"),
    ("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n"),
    ("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n"),
    ("Transfer-Encoding: chunked", b"5\r\nhelloX"),
    ("Transfer-Encoding: chunked", b"5\r\nhello\r\nzz\r\n"),
    ("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\nContent-Length: 3\r\n\r\n")],
    ids=repr)
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_broken_body_never_ends_well(framing, sent, version):
    def answer(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\n" + framing.encode() + b"\r\n\r\n" + sent)
        exchange.close()
    with Backend(answer) as backend, front(backend, errors=["."]) as narwhal, \
            client.Client(narwhal.address) as connection:
        connection.send(client.encode("GET", "/", {"TE": "trailers"}, version=version))
        with pytest.raises((client.BrokenResponse, ConnectionResetError)):
            response = connection.response()
            assert response.framing != "close", "it looks whole"
        assert client.get(narwhal.address, "/hello").status == 200


def test_reset_while_a_body_without_length_is_not_its_end():
    def answer(exchange):
        exchange.send(b"HTTP/1.0 200 OK\r\n\r\nthe begin")
        assert arrived.wait(client.DEADLINE)
        exchange.reset()
    for version in ("HTTP/1.1", "HTTP/1.0"):
        arrived = threading.Event()
        with Backend(answer) as backend, front(backend, errors=["."]) as narwhal, \
                client.Client(narwhal.address) as connection:
            connection.send(client.encode("GET", "/", version=version))
            with pytest.raises((client.BrokenResponse, ConnectionResetError)):
                connection.response(on_head=lambda _: arrived.set())


# ---- what waiting costs --------------------------------------------------------------------------
def cpu_ticks(pid):
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return int(fields[11]) + int(fields[12])


def switches(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return sum(int(line.split()[1]) for line in file if "voluntary_ctxt" in line)


def test_long_polls_wake_nobody():
    """200 of them wait; the worker does not run until one is answered."""
    answers = threading.Event()

    def answer(exchange):
        assert answers.wait(client.DEADLINE)
        exchange.send(OK)
    with Backend(answer) as backend, front(backend, response_timeout="1h") as narwhal:
        worker = narwhal.workers()[0]
        polls = [client.Client(narwhal.address) for _ in range(200)]
        for connection in polls:
            connection.send(client.encode("GET", "/poll"))
        for _ in polls:
            backend.next()
        time.sleep(1.2)  # the short deadlines of the beginning, set lazily, run out
        before = switches(worker), cpu_ticks(worker)
        time.sleep(1.0)
        after = switches(worker), cpu_ticks(worker)
        assert after[0] - before[0] <= 5 and after[1] - before[1] <= 1, (before, after)
        answers.set()
        for connection in polls:
            assert connection.response().text == "ok"
            connection.close()
        wait_until(lambda: client.get(narwhal.address, "/hello").status == 200, "an answer")


# ---- latency -------------------------------------------------------------------------------------
EVENT = b"data: %08d\n\n"
EVENT_CHUNK = b"10\r\n%s\r\n"


def median_latency(send, receive, rounds=300):
    """Seconds from one side's send to the other's receive, one event at a time: nothing that comes
    behind could push it along."""
    times = []
    for number in range(rounds):
        event = EVENT % number
        began = time.perf_counter()
        send(event)
        assert receive(len(event)) == event
        times.append(time.perf_counter() - began)
    return sorted(times)[rounds // 2]


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_event_is_delayed_by_less_than_a_millisecond(framing):
    """Server-sent events, against the same two sockets without narwhal between them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()

        class Server:
            server = "127.0.0.1:%d" % address[1]
        with front(Server) as narwhal, client.Client(narwhal.address) as connection:
            connection.send(client.encode("GET", "/events"))
            stream = listener.accept()[0]
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while b"\r\n\r\n" not in stream.recv(65536):
                pass
            stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" +
                           (b"Transfer-Encoding: chunked\r\n\r\n" if framing == "chunked"
                            else b"\r\n"))
            assert connection.head()[1] == 200

            def send(event):
                stream.sendall(EVENT_CHUNK % event if framing == "chunked" else event)

            def receive(length):  # as a chunk, in both cases
                assert connection.take_line() == b"%x" % length
                event = connection.take(length)
                assert connection.take(2) == b"\r\n"
                return event
            with client.Client(address) as plain, listener.accept()[0] as peer:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

                def receive_plain(length):
                    assert plain.take_line() == b"%x" % length
                    event = plain.take(length)
                    assert plain.take(2) == b"\r\n"
                    return event
                def added():
                    direct = median_latency(lambda event: peer.sendall(EVENT_CHUNK % event),
                                            receive_plain)
                    more = median_latency(send, receive) - direct
                    print(f"\n{framing}: direct {direct * 1e6:.0f} us, added {more * 1e6:.0f} us")
                    return more
                # A busy machine may be busy for a while; a timer of ours would be there each time.
                wait_until(lambda: added() < 0.001, "less than 1 ms on top")
            stream.close()
