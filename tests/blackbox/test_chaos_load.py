# SPDX-License-Identifier: Apache-2.0
"""The load client of the chaos runs counts every end of a request as what it is."""
import contextlib
import socket
import struct
import threading
import time

import pytest

from chaos_load import ChaosLoad

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
ENDS = ("complete refused connect_failed reset_before closed_before reset_fresh closed_fresh "
        "reset_used closed_used partial timeout_connect timeout bad_status bad_response").split()


class Server:
    """Listens, and lets handle(connection) do what it wants with each connection, then closes it;
    in the same thread, one after the other."""

    def __init__(self, handle):
        self.handle = handle
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(30)
                self.handle(connection)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(30)


def read_head(connection):
    """One request head; raises at the end of the connection."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = connection.recv(1)
        if not piece:
            raise ConnectionError("the client has closed")
        head += piece
    return head


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def ends(result):
    """What was counted and is not zero; every request ended exactly once."""
    assert sum(result[end] for end in ENDS) == result["requests"], result
    assert result["lost"] == result["requests"] - result["complete"], result
    assert len(result["losses"]) == result["lost"], result
    assert sum(result["slices"]) == result["complete"], result
    return {end: result[end] for end in ENDS if result[end]}


def run(handle, *options, requests=3):
    with Server(handle) as server:
        return ChaosLoad(server.address, "-c", 1, "-n", requests, "-w", 1, *options).result()


def answer(connection, count=1, response=OK):
    for _ in range(count):
        read_head(connection)
        connection.sendall(response)


def wait_client(connection):
    """Until the client has closed, so that what it saw was not our close."""
    while connection.recv(4096):
        pass


# ---- what is complete ----------------------------------------------------------------------------
def test_complete_with_a_connection_each():
    heads = []

    def handle(connection):
        heads.append(read_head(connection))
        connection.sendall(OK)
        wait_client(connection)
    result = run(handle, requests=5)
    assert ends(result) == {"complete": 5}
    assert result["connections"] == 5
    assert heads[0] == b"GET / HTTP/1.1\r\nHost: chaos.test\r\nConnection: close\r\n\r\n"


def test_complete_on_one_kept_connection():
    def handle(connection):
        while True:
            assert b"Connection" not in read_head(connection)
            for byte in OK:  # however it is cut
                connection.sendall(bytes([byte]))
    result = run(handle, "-k", requests=5)
    assert ends(result) == {"complete": 5}
    assert result["connections"] == 1 and result["idle_closed"] == 0


def test_a_close_that_was_announced_is_no_loss():
    def handle(connection):
        answer(connection, 1, OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    result = run(handle, "-k", requests=4)
    assert ends(result) == {"complete": 4}
    assert (result["connections"], result["announced_closes"]) == (4, 4)


@pytest.mark.parametrize("end, counter", [(lambda connection: None, "idle_closed"),
                                          (reset, "idle_reset")], ids=["closed", "reset"])
def test_an_idle_connection_that_ends_is_no_loss(end, counter):
    def handle(connection):
        answer(connection)
        time.sleep(0.05)  # the client has read the answer, and pauses for ten times as long
        end(connection)
    result = run(handle, "-k", "-w", 500)
    assert ends(result) == {"complete": 3}
    assert result["connections"] == 3
    assert result[counter] == 2, "the third one has no request after it"


# ---- what is lost --------------------------------------------------------------------------------
def test_refused():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # keeps others away from the port, and does not listen
        result = ChaosLoad(bound.getsockname(), "-c", 2, "-n", 6, "-w", 1).result()
    assert ends(result) == {"refused": 6}


def test_connect_failed():
    result = ChaosLoad("unix:/nonexistent/socket", "-c", 1, "-n", 2, "-w", 1).result()
    assert ends(result) == {"connect_failed": 2}


def test_reset_and_closed_before_the_request():
    # -d: the write comes so late that the end of the connection is seen before it.
    assert ends(run(reset, "-d", 5000)) == {"reset_before": 3}
    assert ends(run(lambda connection: None, "-d", 5000)) == {"closed_before": 3}


@pytest.mark.parametrize("hold_ms, end", [(5000, "reset_before"), (0, "reset_fresh")])
def test_accept_queue_that_is_thrown_away(hold_ms, end):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with ChaosLoad(listener.getsockname(), "-c", 3, "-n", 3, "-d", hold_ms) as load:
            held = [listener.accept()[0]]  # of the three two wait in the queue
            if hold_ms == 0:
                read_head(held[0])
            deadline = time.monotonic() + 30
            while queue_length(listener) < 2:
                assert time.monotonic() < deadline, "the clients do not connect"
                time.sleep(0.01)
            listener.close()
            reset(held[0])
            held[0].close()
            result = load.result()
    found = ends(result)
    assert sum(found.values()) == 3
    if hold_ms:
        assert found == {end: 3}
    else:
        # Which of the writes came before the reset is the scheduler's choice, but no end of this
        # can be anything else.
        assert set(found) <= {"reset_before", "reset_fresh"}, found


def queue_length(listener):
    """Connections that wait to be accepted: tcpi_unacked of a listening socket (tcp_diag.c)."""
    return struct.unpack_from("I", listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104),
                              24)[0]


def test_no_answer_on_a_fresh_connection():
    def handle_reset(connection):
        read_head(connection)
        reset(connection)
    assert ends(run(handle_reset)) == {"reset_fresh": 3}
    assert ends(run(read_head)) == {"closed_fresh": 3}
    assert ends(run(read_head, "-k")) == {"closed_fresh": 3}


def test_no_answer_on_a_used_connection():
    def handle(connection):
        answer(connection)
        read_head(connection)

    def handle_reset(connection):
        handle(connection)
        reset(connection)
    assert ends(run(handle, "-k", requests=4)) == {"complete": 2, "closed_used": 2}
    assert ends(run(handle_reset, "-k", requests=4)) == {"complete": 2, "reset_used": 2}


@pytest.mark.parametrize("cut", [1, 12, len(OK) - 1])
@pytest.mark.parametrize("keep", [(), ("-k",)], ids=["fresh", "kept"])
def test_partial_response(cut, keep):
    assert ends(run(lambda connection: answer(connection, 1, OK[:cut]), *keep)) == {"partial": 3}


def test_partial_response_with_reset():
    def handle(connection):
        answer(connection, 1, OK[:-1])
        reset(connection)
    found = ends(run(handle))
    # A reset may overtake the bytes that wait in the client's socket.
    assert set(found) <= {"partial", "reset_fresh"} and sum(found.values()) == 3, found


@pytest.mark.parametrize("part", [b"", OK[:20], OK[:-1]])
def test_timeout(part):
    def handle(connection):
        answer(connection, 1, part)
        wait_client(connection)
    result = run(handle, "-T", 200, "-s", 150)
    assert ends(result) == {"timeout": 3}
    assert result["slow_count"] == 3
    assert all(took >= 200 for _, _, took in result["slow"]), result["slow"]


def test_timeout_of_the_connect():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)  # room for one; the kernel drops the SYN of the next
        with socket.create_connection(listener.getsockname()):
            result = ChaosLoad(listener.getsockname(), "-c", 1, "-n", 2, "-T", 200).result()
    assert ends(result) == {"timeout_connect": 2}


def test_bad_status():
    response = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\n\r\nok\n"
    result = run(lambda connection: answer(connection, 1, response))
    assert ends(result) == {"bad_status": 3}
    assert result["first_bad"].startswith("HTTP/1.1 503 Service Unavailable..")


@pytest.mark.parametrize("response", [
    b"nonsense",
    OK.replace(b"1.1", b"1.0"),
    OK.replace(b"200 OK", b"2000"),
    OK.replace(b"200", b"2x0"),
    OK.replace(b"ok\n", b"ko\n"),
    OK.replace(b": 3", b": 2"),
    OK.replace(b": 3", b": "),
    OK.replace(b": 3", b": 3x"),
    OK.replace(b": 3", b": 3\r\nContent-Length: 3"),
    OK.replace(b"Content-Length: 3", b"X: y"),
    OK.replace(b"Content-Length: 3", b"Transfer-Encoding: chunked"),
    OK.replace(b"Content-Length: 3", b"Content-Length: 3\r\nno colon"),
    OK.replace(b"Content-Length: 3", b"Content-Length : 3"),
    OK.replace(b": 3", b": 9000"),
    OK + b"x",
    OK + OK,
    OK[:17] + b"X: " + 9000 * b"x",
], ids=lambda response: repr(response[:60]))
def test_bad_response(response):
    def handle(connection):
        answer(connection, 1, response)
        wait_client(connection)
    assert ends(run(handle)) == {"bad_response": 3}


def test_expected_body():
    def handle(connection):
        answer(connection, 1, OK.replace(b"3\r\n\r\nok\n", b"11\r\n\r\nhello world"))
        wait_client(connection)
    assert ends(run(handle, "-b", "hello world")) == {"complete": 3}


# ---- time ----------------------------------------------------------------------------------------
def test_latency_and_slow_requests():
    count = 0

    def handle(connection):
        nonlocal count
        while True:
            read_head(connection)
            count += 1
            if count == 5:
                time.sleep(0.6)
            connection.sendall(OK)
    result = run(handle, "-k", "-s", 500, requests=10)
    assert ends(result) == {"complete": 10}
    assert (result["over_500ms"], result["slow_count"]) == (result["slow_count"], 1)
    end, start, took = result["slow"][0]
    assert end == "complete" and took >= 600 and took == pytest.approx(result["max_ms"], abs=0.1)
    assert start + took <= result["seconds"] * 1000 + 1
    assert result["p50_ms"] < result["p99_ms"], result
    assert result["p99_ms"] == pytest.approx(result["max_ms"], rel=0.02)


def test_rate_goes_by_the_clock():
    """What is due while the server sleeps is late by as much as the server slept."""
    first = True

    def handle(connection):
        nonlocal first
        read_head(connection)
        if first:
            first = False
            time.sleep(0.5)
        connection.sendall(OK)
    result = run(handle, "-r", 20, "-s", 100, requests=20)
    assert ends(result) == {"complete": 20}
    assert result["seconds"] >= 0.95, "20 requests at 20 a second"
    # Due at 0, 50, … 350 ms and answered not before 500.
    assert result["slow_count"] >= 8, result["slow"]


def test_ends_by_time():
    def handle(connection):
        answer(connection)
    with Server(handle) as server:
        result = ChaosLoad(server.address, "-c", 2, "-t", 1).result()
    assert set(ends(result)) == {"complete"} and 1 <= result["seconds"] < 30
