# SPDX-License-Identifier: Apache-2.0
"""Servers that refuse, stall, lie or die: the client can tell, and the log says why."""
import contextlib
import os
import socket
import threading

import pytest

import client
from backend import OK, Backend, free_port
from load import Load
from narwhal import Narwhal


def front(*servers, **more):
    return Narwhal({"backend:b": {"server": list(servers), **more},
                    "route:b": {"path": "/", "backend": "b"},
                    "route:hello": {"path": "=/hello", "respond": "200 hello"}}, errors=["."])


def failed(narwhal, status, *words, method="GET", body=None):
    mark = narwhal.mark()
    with client.Client(narwhal.address) as connection:
        response = connection.request(method, "/path", body=body)
        assert response.status in (status if isinstance(status, tuple) else (status,)), response
        assert len(response.body) < 1000
    line = narwhal.wait_log(r".* worker .*127\.0\.0\.1:\d+.*", since=mark)[0]
    assert all(word in line for word in words), (line, words)
    assert client.get(narwhal.address, "/hello").status == 200
    return response


def test_nobody_listens_is_502():
    address = f"127.0.0.1:{free_port()}"
    with front(address) as narwhal:
        failed(narwhal, 502, address, "refused")


def test_missing_unix_socket_is_502():
    with front("unix:/tmp/narwhal-test-no-such-socket") as narwhal:
        failed(narwhal, 502, "/tmp/narwhal-test-no-such-socket", "No such file")


def test_silent_server_is_504():
    with Backend(lambda exchange: exchange.receive()) as backend, \
            front(backend.server, response_timeout="300ms") as narwhal:
        failed(narwhal, 504, backend.server, "response_timeout")
        failed(narwhal, 504, backend.server, method="POST", body=b"x")
        assert len(backend.exchanges) == 2, "what may have been executed is not sent again"


@pytest.mark.parametrize("data", [
    b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Len",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", b"HTTP/3.0 200 OK\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n"],
    ids=lambda data: repr(data[:40]) + str(len(data)))
def test_nonsense_is_502(data):
    def answer(exchange):
        exchange.send(data)
        exchange.close()
    with Backend(answer) as backend, front(backend.server) as narwhal:
        failed(narwhal, 502, backend.server, method="POST", body=b"x")


def test_server_that_is_gone_between_head_and_body():
    """Many servers write the one and then the other. Nothing of such an answer has gone to the
    client yet, so it gets the one of another server, or an answer that says what was wrong."""
    def answer(exchange):
        # The head and the end in one packet: what comes later than in 5 ms is another matter.
        exchange.socket.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", socket.MSG_MORE)
        exchange.close()
    with Backend(answer) as bad, Backend() as good:
        with front(bad.server, good.server, balance="round_robin", max_fails=0) as narwhal:
            for _ in range(6):
                response = client.get(narwhal.address, "/")
                assert response.status == 200 and response.body == b"ok", response
            assert len(bad.exchanges) > 0
        with front(bad.server, max_fails=0) as narwhal:
            before = len(bad.exchanges)
            failed(narwhal, 502, bad.server, "before the body", method="POST", body=b"x")
            assert len(bad.exchanges) == before + 1, "it may have been executed"


def test_head_does_not_wait_for_its_body():
    """A moment, no more: a client may need the head to know what to do."""
    def answer(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        assert arrived.wait(client.DEADLINE), "the client got no head"
        exchange.send(b"hello")
    with Backend(answer) as backend, front(backend.server, response_timeout="10s") as narwhal:
        with client.Client(narwhal.address) as connection:
            for _ in range(2):
                arrived = threading.Event()
                connection.send(client.encode("GET", "/"))
                response = connection.response(on_head=lambda _: arrived.set())
                assert response.status == 200 and response.body == b"hello"


@pytest.mark.parametrize("head, sent", [
    (b"Content-Length: 1000000", b"x" * 5000), (b"Transfer-Encoding: chunked", b"5\r\nhel"),
    (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n")])
@pytest.mark.parametrize("ending", ["close", "reset"])
def test_server_that_stops_in_the_middle(head, sent, ending):
    """The client must be able to tell: the body ends short, it does not end well."""
    def answer(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + sent)
        arrived.wait(client.DEADLINE)
        getattr(exchange, ending)()
    with Backend(answer) as backend, front(backend.server) as narwhal:
        for version in ("HTTP/1.1", "HTTP/1.0"):
            arrived = threading.Event()
            mark = narwhal.mark()
            with client.Client(narwhal.address) as connection:
                connection.send(client.encode("GET", "/", version=version))
                with pytest.raises((client.BrokenResponse, ConnectionResetError)):
                    response = connection.response(on_head=lambda _: arrived.set())
                    # A body of unknown length to an HTTP/1.0 client ends with the connection:
                    # only a reset can tell it from a whole one.
                    assert response.framing != "close", "it looks whole"
            narwhal.wait_log(rf"{backend.server}", since=mark)
        assert client.get(narwhal.address, "/hello").status == 200


def test_server_that_stalls_in_the_middle_is_cut_after_stream_timeout():
    def answer(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234")
        while exchange.receive():
            pass
        exchange.close()
    with Backend(answer) as backend, front(backend.server, stream_timeout="300ms") as narwhal, \
            client.Client(narwhal.address) as connection:
        connection.send(client.encode("GET", "/"))
        with pytest.raises((client.BrokenResponse, ConnectionResetError)):
            connection.response()
        narwhal.wait_log("stream_timeout")


def test_dead_server_among_living_ones_costs_no_request():
    with Backend() as one, Backend() as two:
        with front(one.server, f"127.0.0.1:{free_port()}", two.server) as narwhal, \
                Load(narwhal.address) as load:
            load.wait_answers(20)


def test_post_is_tried_elsewhere_only_before_it_was_sent():
    """A refused connection has executed nothing; a broken answer may have executed everything."""
    def broken(exchange):
        exchange.body()
        exchange.close()
    with Backend() as good:
        with front(f"127.0.0.1:{free_port()}", good.server) as narwhal:
            for _ in range(6):
                assert client.request(narwhal.address, "POST", "/", body=b"x").status == 200
        assert len(good.exchanges) == 6
    with Backend(broken) as bad, front(bad.server) as narwhal:
        assert client.request(narwhal.address, "POST", "/", body=b"x").status == 502
        assert len(bad.exchanges) == 1


def test_server_that_comes_back_is_used_again():
    address = f"127.0.0.1:{free_port()}"
    import socket

    from narwhal import wait_until
    with front(address) as narwhal:
        assert client.get(narwhal.address).status == 502
        host, port = address.split(":")
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, int(port)))
            listener.listen()

            def serve():
                while True:
                    try:
                        stream, _ = listener.accept()
                    except OSError:
                        return
                    with stream:
                        stream.recv(65536)
                        stream.sendall(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            wait_until(lambda: client.get(narwhal.address).status == 200, "the server's return")
            listener.shutdown(socket.SHUT_RDWR)


def test_unreachable_server_is_given_up_after_connect_timeout():
    """A listener whose queue is full takes no handshake: connect() hangs."""
    import socket
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = "127.0.0.1:%d" % listener.getsockname()[1]
        fill = []
        for _ in range(4):
            stream = socket.socket()
            stream.setblocking(False)
            stream.connect_ex(listener.getsockname())
            fill.append(stream)
        with front(address, connect_timeout="300ms") as narwhal:
            failed(narwhal, (502, 504), address, "connect_timeout")
        for stream in fill:
            stream.close()


def test_length_of_a_204_is_not_passed_on():
    head = b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"
    with Backend(lambda exchange: exchange.send(head)) as backend, front(backend.server) as narwhal:
        response = client.get(narwhal.address)
        assert response.status == 204 and not response.all("Content-Length")


def test_upgrade_to_h2c_is_not_passed_on():
    with Backend() as backend, front(backend.server) as narwhal:
        client.get(narwhal.address, "/", {"Connection": "Upgrade", "Upgrade": "h2c",
                                          "HTTP2-Settings": "AAMAAABkAAQAAP__"})
        exchange = backend.next()
        assert not exchange.all("Upgrade") and not exchange.all("HTTP2-Settings")


def test_pause_of_the_client_is_not_the_servers_fault():
    """response_timeout runs from the end of the request."""
    with Backend(lambda exchange: exchange.body()) as backend, Narwhal({
            "worker": {"body_timeout": "1500ms"},
            "backend:b": {"server": backend.server, "response_timeout": "200ms"},
            "route:b": {"path": "/", "backend": "b"}}) as narwhal, \
            client.Client(narwhal.address) as connection:
        connection.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n12")
        assert connection.response("POST").status == 408


def test_full_accept_queue_waits_for_queue_timeout():
    """A unix listener whose queue is full says EAGAIN: busy, not broken; and not for ever."""
    path = f"/tmp/narwhal-test-full-{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        waiting = []
        try:
            with contextlib.suppress(BlockingIOError):
                while True:
                    filler = socket.socket(socket.AF_UNIX)
                    filler.setblocking(False)
                    waiting.append(filler)
                    filler.connect(path)
            with front(f"unix:{path}", queue_timeout="300ms") as narwhal:
                clients = [client.Client(narwhal.address).send(client.encode("GET", "/path"))
                           for _ in range(5)]
                assert client.get(narwhal.address, "/hello").status == 200
                for one in clients:
                    assert one.response().status == 503
                    one.close()
        finally:
            for filler in waiting:
                filler.close()
            os.unlink(path)
