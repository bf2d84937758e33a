# SPDX-License-Identifier: Apache-2.0
"""Servers that send what no server should: narwhal says so once, drops the connection, and nobody
gets an answer that was meant for another."""
import socket
import threading
import time

import pytest

import client
from backend import OK, Backend
from narwhal import Narwhal, status_kib, wait_until


def front(backend, errors=(".",), **more):
    return Narwhal({"master": {"workers": 1}, "backend:b": {"server": backend.server, **more},
                    "route:b": {"path": "/", "backend": "b"},
                    "route:hello": {"path": "=/hello", "respond": "200 hello"}}, errors=errors)


def test_head_that_never_ends_is_504_and_bounded():
    """A byte now and then moves no clock."""
    def answer(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\n")
        number = 0
        try:
            while True:
                exchange.send(b"X-%d: y\r\n" % number)
                number += 1
                time.sleep(0.05)
        except OSError:
            ended.set()
            raise
    ended = threading.Event()
    with Backend(answer) as backend, front(backend, response_timeout="600ms") as narwhal:
        began = time.monotonic()
        assert client.get(narwhal.address).status == 504
        assert time.monotonic() - began < 10
        assert ended.wait(client.DEADLINE), "the connection is dropped"
        narwhal.wait_log("status=504 .*setting=response_timeout")


@pytest.mark.parametrize("endless, words", [
    (b"X: y\r\n", "more than 256 header fields"),
    (b"x" * 1000, "a response head of more than 60000 bytes"),
    (b"\0" * 1000, "a NUL in a field value"), (b"\r\n" * 1000, "")], ids=["fields", "line", "zeros", "empty"])
def test_endless_garbage_is_502_and_bounded(endless, words):
    def answer(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\nX: " if endless[:1] in b"x\0" else
                      b"HTTP/1.1 200 OK\r\n" if endless[:1] == b"X" else b"")
        try:
            while True:
                exchange.send(endless * 100)
        except OSError:
            ended.set()
            raise
    ended = threading.Event()
    with Backend(answer) as backend, front(backend) as narwhal:
        worker = narwhal.workers()[0]
        assert client.get(narwhal.address, "/hello").status == 200
        before = status_kib(worker, "VmHWM")
        for _ in range(5):
            ended.clear()
            assert client.get(narwhal.address).status == 502
            assert ended.wait(client.DEADLINE), "the connection is dropped"
        narwhal.wait_log(f"status=502 .*{words}")
        assert status_kib(worker, "VmHWM") - before < 4096


def test_endless_interim_responses_end_with_response_timeout():
    def answer(exchange):
        while True:
            exchange.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 10)
            time.sleep(0.02)
    with Backend(answer) as backend, front(backend, response_timeout="500ms") as narwhal:
        response = client.get(narwhal.address)
        assert response.status == 504 and response.interim[0] == 103


@pytest.mark.parametrize("second", [OK, b"x", b"HTTP/1.1 500 Oops\r\n\r\n"], ids=repr)
@pytest.mark.parametrize("pause", [False, True], ids=["at once", "later"])
def test_second_answer_is_nobodys(second, pause):
    """Whatever follows an answer on a connection ends it; no other request gets it."""
    def answer(exchange):
        text = exchange.target.encode()
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s%s" %
                      (len(text), text, b"" if pause else second))
        if pause:
            assert idle.acquire(timeout=client.DEADLINE)
            exchange.send(second)
    idle = threading.Semaphore(0)
    with Backend(answer) as backend, front(backend, errors=(), idle_timeout="1h") as narwhal, \
            client.Client(narwhal.address) as connection:
        for number in range(20):
            assert connection.get(f"/{number}").text == f"/{number}"
            if pause:
                idle.release()
            assert backend.closed.get(timeout=client.DEADLINE) == number, "it is dropped"
        assert backend.connections == 20


@pytest.mark.parametrize("early, status", [
    (b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbusy", 503),
    (b"SSH-2.0-OpenSSH_9.2p1\r\n", 502)], ids=["busy", "banner"])
def test_server_that_speaks_first(early, status):
    """At its accept, and then it closes: an answer is an answer, anything else is 502."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run():
        while True:
            try:
                stream, _ = listener.accept()
            except OSError:
                return
            with stream:
                stream.sendall(early)
                stream.shutdown(socket.SHUT_WR)
                while stream.recv(65536):  # closing over the unread request would reset
                    pass

    class Server:
        server = "127.0.0.1:%d" % listener.getsockname()[1]
    threading.Thread(target=run, daemon=True).start()
    try:
        with front(Server) as narwhal, client.Client(narwhal.address) as connection:
            for number in range(30):
                assert connection.request("POST", f"/{number}", body=b"x").status == status
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.mark.parametrize("head, body, whole", [
    (b"Content-Length: 5", b"hello world", b"hello"),
    (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\nworld", b"hello")],
    ids=["length", "chunked"])
def test_body_that_is_longer_than_it_says(head, body, whole):
    """The rest is dropped with the connection."""
    with Backend(lambda exchange: exchange.send(
            b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + body)) as backend, \
            front(backend, errors=()) as narwhal, client.Client(narwhal.address) as connection:
        for number in range(3):
            assert connection.get("/").body == whole
        assert backend.connections == 3


@pytest.mark.parametrize("head", [
    b"Content-Length: 5\r\nContent-Length: 5", b"Content-Length: 5, 5", b"Content-Length: +5",
    b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding:\x0bchunked",
    b"Content-Length: 99999999999999999999", b"Content-Length : 5", b"X: y\nContent-Length: 5",
    b"X: a\r\n b", b"Transfer-Encoding: identity"], ids=repr)
def test_bad_framing_is_502_and_reaches_nobody(head):
    def answer(exchange):
        exchange.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n5\r\nsecret\r\n0\r\n\r\n")
    with Backend(answer) as backend, front(backend) as narwhal, \
            client.Client(narwhal.address) as connection:
        response = connection.get("/")
        assert response.status == 502 and b"secret" not in response.body
        assert connection.get("/hello").text == "hello\n", "the client's connection goes on"
        wait_until(lambda: not backend.closed.empty(), "the server's connection is dropped")


def test_body_of_a_head_request_and_of_a_204_is_dropped():
    def answer(exchange):
        if exchange.line.startswith("HEAD"):
            exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        else:
            exchange.send(b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello")
    with Backend(answer) as backend, front(backend, errors=()) as narwhal, \
            client.Client(narwhal.address) as connection:
        for _ in range(5):
            assert connection.request("HEAD", "/").status == 200
            assert connection.get("/").status == 204
        assert connection.get("/hello").text == "hello\n"


@pytest.mark.parametrize("answer, body", [
    (b"HTTP/1.0 200 OK\r\n\r\nno length", b"no length"),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    (b"HTTP/1.0 304 Not Modified\r\n\r\n", b"")], ids=repr)
def test_http_1_0_servers(answer, body):
    keeps = b"keep-alive" in answer

    def serve(exchange):
        exchange.body()
        exchange.send(answer)
        if not keeps:
            exchange.close()
    with Backend(serve) as backend, front(backend, errors=()) as narwhal, \
            client.Client(narwhal.address) as connection:
        for _ in range(3):
            response = connection.request("PUT", "/", body=b"x")
            assert response.body == body and response.version == "HTTP/1.1"
        assert backend.connections == (1 if keeps else 3)
