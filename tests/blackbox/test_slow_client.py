# SPDX-License-Identifier: Apache-2.0
"""A client that sends one byte a second, or stops in the middle, costs nobody else anything."""
import threading

import pytest

import client
from backend import Backend
from load import Load
from narwhal import Narwhal, wait_until

HELLO = {"route:hello": {"path": "/", "respond": "200 hello"}}


def drip(connection, data, pause):
    """Sends one byte per pause from a thread, until the other side closes."""
    def run():
        end = threading.Event()
        try:
            for number in range(len(data)):
                connection.send(data[number:number + 1])
                end.wait(pause)
        except OSError:
            pass
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_one_byte_a_second_hurts_nobody_and_gets_408():
    with Narwhal({**HELLO, "worker": {"head_timeout": "5s"}}) as narwhal:
        slow = [client.Client(narwhal.address) for _ in range(20)]
        for connection in slow:
            drip(connection, client.encode("GET", "/a-rather-long-path-that-takes-a-while"), 1)
        with Load(narwhal.address) as load:
            load.wait_answers(50)
            for connection in slow:
                response = connection.response()
                assert response.status == 408 and response.closes
                connection.close()
            load.wait_answers(10)


def test_a_slow_head_that_is_whole_in_time_is_answered():
    with Narwhal({**HELLO, "worker": {"head_timeout": "30s"}}) as narwhal, \
            client.Client(narwhal.address) as connection:
        drip(connection, client.encode("GET", "/"), 0.005)
        assert connection.response().status == 200


def test_time_of_a_head_begins_with_its_first_byte():
    """An idle kept connection is under keepalive, not head_timeout."""
    with Narwhal({**HELLO, "worker": {"head_timeout": "300ms", "keepalive": "1h"}}) as narwhal, \
            client.Client(narwhal.address) as connection:
        assert connection.get("/").status == 200
        with client.Client(narwhal.address) as other:  # one whole head_timeout goes by
            other.send("GET / HT")
            assert other.response().status == 408
        assert connection.get("/").status == 200


def test_idle_connection_is_closed_after_keepalive_without_a_word():
    with Narwhal({**HELLO, "worker": {"keepalive": "300ms"}}) as narwhal, \
            client.Client(narwhal.address) as connection:
        assert connection.get("/").status == 200
        connection.expect_close()


@pytest.mark.parametrize("sent", [b"", b"01234"])
def test_body_that_stops_gets_408(sent):
    with Backend(lambda exchange: exchange.body()) as backend, Narwhal({
            "worker": {"body_timeout": "300ms"},
            "backend:b": {"server": backend.server},
            "route:b": {"path": "/", "backend": "b"}}) as narwhal, \
            client.Client(narwhal.address) as connection:
        connection.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n" + sent)
        response = connection.response("POST")
        assert response.status == 408 and response.closes


def test_client_that_reads_nothing_is_cut_after_send_timeout():
    with Narwhal({"worker": {"send_timeout": "500ms"},
                  "route:files": {"path": "/", "static": "root"}},
                 files={"root/big": bytes(64 << 20)}) as narwhal, \
            client.Client(narwhal.address, receive_buffer=4096) as connection:
        connection.send(client.encode("GET", "/big"))
        narwhal.wait_log(rf"{connection.socket.getsockname()[1]}\b")  # the log names the client
        with pytest.raises((client.BrokenResponse, ConnectionResetError)):
            connection.response()


def send_queue(address, peer):
    """Bytes that the kernel holds for the connection, by the server's row of /proc/net/tcp."""
    wanted = ["%02X%02X%02X%02X:%04X" % (*reversed([int(part) for part in host.split(".")]), port)
              for host, port in (address, peer)]
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table]
    return next((int(row[4].split(":")[0], 16) for row in rows if row[1:3] == wanted), 0)


def test_slow_reader_does_not_fill_the_memory_for_tcp():
    """The kernel would take 2 MiB and more of a file for each of them."""
    with Narwhal({"route:files": {"path": "/", "static": "root"}},
                 files={"root/big": bytes(64 << 20), "root/small": b"small"}) as narwhal, \
            client.Client(narwhal.address, receive_buffer=4096) as connection:
        connection.send(client.encode("GET", "/big"))
        peer = connection.socket.getsockname()
        wait_until(lambda: send_queue(narwhal.address, peer) > 0, "the first piece of the file")
        for _ in range(30):  # turns of the loop, in which more would be sent
            assert client.get(narwhal.address, "/small").text == "small"
            assert send_queue(narwhal.address, peer) < 1 << 20
