# SPDX-License-Identifier: Apache-2.0
"""The PROXY protocol, in from trusted peers and out to servers."""
import re
import socket
import struct
import threading

import pytest

import client
from backend import OK, Backend
from narwhal import Narwhal, wait_until

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1 = b"PROXY TCP4 203.0.113.9 192.0.2.1 56324 443\r\n"
V2 = SIGNATURE + b"\x21\x11\0\x0c" + bytes([203, 0, 113, 9, 192, 0, 2, 1]) + struct.pack(
    ">HH", 56324, 443)
V2_IPV6 = (SIGNATURE + b"\x21\x21\0\x24" + socket.inet_pton(socket.AF_INET6, "2001:db8::9") +
           socket.inet_pton(socket.AF_INET6, "::1") + struct.pack(">HH", 7, 80))
GET = client.encode("GET", "/")


def listen(worker=None, **more):
    """narwhal that wants a header from 127.0.0.1, and not from 127.0.0.2."""
    return Narwhal({"master": {"workers": 1},
                    "worker": {"proxy_protocol_from": "127.0.0.1", **(worker or {})},
                    "log": {"access": "./access.log", "access_format": "%(h)s %(s)s"},
                    "route:b": {"path": "/", "respond": "200 hello"}, **more})


def logged(narwhal, count=1):
    def lines():
        with open(narwhal.path("access.log"), encoding="ascii") as file:
            found = file.read().splitlines()
        return found if len(found) >= count else None
    return wait_until(lines, f"{count} lines in the access log")


# ---- in ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("header,who", [
    (V1, "203.0.113.9"), (V2, "203.0.113.9"), (V2_IPV6, "2001:db8::9"),
    (b"PROXY TCP6 2001:db8::9 ::1 1 2\r\n", "2001:db8::9"),
    (b"PROXY UNKNOWN\r\n", "127.0.0.1"), (SIGNATURE + b"\x20\0\0\0", "127.0.0.1"),
])
def test_the_header_says_who_the_client_is(header, who):
    with listen() as narwhal:
        with client.Client(narwhal.address) as connection:
            connection.send(header + GET + GET)
            assert connection.response().status == 200
            assert connection.response().status == 200
            assert connection.get("/").status == 200
        assert logged(narwhal, 3) == [f"{who} 200"] * 3


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_a_header_may_come_byte_by_byte(header):
    with listen() as narwhal, client.Client(narwhal.address) as connection:
        for byte in header + GET:
            connection.send(bytes([byte]))
        assert connection.response().status == 200


def test_the_client_told_is_the_one_that_servers_see():
    with Backend() as backend, listen(**{"backend:b": {"server": backend.server},
                                         "route:b": {"path": "/", "backend": "b"}}) as narwhal:
        with client.Client(narwhal.address) as connection:
            connection.send(V1 + client.encode("GET", "/", {"X-Forwarded-For": "6.6.6.6"}))
            assert connection.response().status == 200
        assert backend.next().get("X-Forwarded-For") == "203.0.113.9"


@pytest.mark.parametrize("bad", [
    GET, b"PROXY TCP4 203.0.113.9 192.0.2.1 56324 443\n" + GET, b"PROXY TCP4 1.2.3.4\r\n" + GET,
    SIGNATURE + b"\x11\x11\0\0" + GET, SIGNATURE + b"\x21\x11\xff\xff", b"\x16\x03\x01",
    b"PROXY UNKNOWN " + b"x" * 200,
], ids=range(7))
def test_a_trusted_peer_without_a_good_header_is_cut_off(bad):
    with listen() as narwhal:
        with client.Client(narwhal.address) as connection:
            connection.send(bad)
            try:
                assert connection.rest() == b""
            except ConnectionResetError:
                pass  # what was sent behind the bad byte was not read
        narwhal.wait_log(r"warn .*PROXY protocol header, and this is .*"
                         r"setting=proxy_protocol_from client=127\.0\.0\.1")
        with client.Client(narwhal.address) as connection:
            assert connection.send(V1 + GET).response().status == 200


def test_an_unfinished_header_is_bounded_in_time():
    with listen({"head_timeout": "300ms"}) as narwhal:
        with client.Client(narwhal.address) as connection:
            connection.send(V2[:20])
            connection.expect_close()
        narwhal.wait_log("warn .*no whole PROXY protocol header in time setting=head_timeout")
        with client.Client(narwhal.address) as connection:  # a probe that says nothing is no news
            connection.expect_close()
        with client.Client(narwhal.address) as connection:
            connection.send(V2[:20])
            connection.socket.shutdown(socket.SHUT_WR)
            connection.expect_close()
        narwhal.wait_log("warn .*before the end of the stream setting=proxy_protocol_from")
        assert len([line for line in narwhal.lines if " warn worker " in line]) == 2


def from_address(narwhal, source):
    """A connection that comes from another address of this machine."""
    connection = client.Client(narwhal.address)
    connection.socket.close()
    connection.socket = socket.create_connection(narwhal.address, client.DEADLINE, (source, 0))
    return connection


def test_peers_that_are_not_trusted_have_no_header():
    with listen() as narwhal:
        with from_address(narwhal, "127.0.0.2") as connection:
            assert connection.get("/").status == 200
        with from_address(narwhal, "127.0.0.2") as connection:
            assert connection.send(V1 + GET).response().status == 400
        with from_address(narwhal, "127.0.0.2") as connection:
            assert connection.send(V2 + GET).response().status == 400
        assert logged(narwhal, 3) == ["127.0.0.2 200", "127.0.0.2 400", "127.0.0.2 400"]


def test_connections_per_client_counts_the_told_client():
    with listen({"connections_per_client": 2}) as narwhal:
        def connect(who):
            connection = client.Client(narwhal.address)
            connection.send(b"PROXY TCP4 %s 1.1.1.1 1 1\r\n" % who + GET)
            return connection, connection.response().status
        kept = [connect(b"203.0.113.%d" % number) for number in (1, 1, 2, 2, 3)]
        assert [status for _, status in kept] == [200] * 5
        over, status = connect(b"203.0.113.1")
        assert status == 503
        over.close()
        narwhal.wait_log("setting=connections_per_client")
        kept[0][0].close()
        wait_until(lambda: narwhal.status()["totals"]["closed"] >= 2, "the end of the first")
        again, status = connect(b"203.0.113.1")
        assert status == 200
        for connection, _ in kept[1:] + [(again, 200)]:
            connection.close()


# ---- out -----------------------------------------------------------------------------------------
class Server:
    """Takes a PROXY protocol header at the begin of each connection and answers requests with it."""

    def __init__(self, version):
        self.version = version
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.headers = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                stream, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(stream,), daemon=True).start()

    def serve(self, stream):
        with stream, stream.makefile("rb") as file:
            if self.version == "v1":
                header = file.readline()
            else:
                header = file.read(16)
                header += file.read(struct.unpack(">H", header[14:16])[0])
            self.headers.append(header)
            while True:
                line = file.readline()
                if not line:
                    return
                assert re.fullmatch(rb"GET / HTTP/1\.1\r\n", line), line
                while file.readline() != b"\r\n":
                    pass
                stream.sendall(OK)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def in_front(server, version, **more):
    return Narwhal({"master": {"workers": 1}, **more,
                    "backend:b": {"server": server.address, "proxy_protocol": version,
                                  "idle_timeout": "30s"},
                    "route:b": {"path": "/", "backend": "b"}})


def told(header, version):
    """(client, its port, local, its port)"""
    if version == "v1":
        word = header.decode().split()
        assert word[:2] == ["PROXY", "TCP4"] and header.endswith(b"\r\n")
        return word[2], int(word[4]), word[3], int(word[5])
    assert header[:16] == SIGNATURE + b"\x21\x11\0\x0c"
    return (socket.inet_ntoa(header[16:20]), *struct.unpack(">H", header[24:26]),
            socket.inet_ntoa(header[20:24]), *struct.unpack(">H", header[26:28]))


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_servers_are_told_the_client(version):
    with Server(version) as server, in_front(server, version) as narwhal:
        for _ in range(3):
            with client.Client(narwhal.address) as connection:
                own = connection.socket.getsockname()
                for _ in range(5):
                    assert connection.get("/").text == "ok"
                assert told(server.headers[-1], version) == (*own, *narwhal.address)
        # One connection for each client's connection: never lent to another, kept for its own.
        assert len(server.headers) == 3


def test_clients_behind_one_trusted_proxy_are_told_apart():
    with Server("v1") as server, in_front(
            server, "v1", worker={"trusted_proxies": "127.0.0.1"}) as narwhal, \
            client.Client(narwhal.address) as connection:
        for number in (1, 2, 1, 2, 3):
            assert connection.get("/", {"X-Forwarded-For": f"203.0.113.{number}"}).text == "ok"
        assert [told(header, "v1")[0] for header in server.headers] == [
            "203.0.113.1", "203.0.113.2", "203.0.113.3"]


def test_a_header_that_came_in_goes_out():
    with Server("v2") as server, in_front(
            server, "v2", worker={"proxy_protocol_from": "127.0.0.1"}) as narwhal, \
            client.Client(narwhal.address) as connection:
        assert connection.send(V1 + GET).response().text == "ok"
        assert told(server.headers[0], "v2")[:2] == ("203.0.113.9", 56324)


def test_a_client_on_a_unix_socket_has_no_address():
    for version, wanted in (("v1", b"PROXY UNKNOWN\r\n"), ("v2", SIGNATURE + b"\x21\0\0\0")):
        with Server(version) as server, Narwhal("", start=False) as narwhal:
            narwhal.write({
                "master": {"bind": f"unix:{narwhal.path('sock')}", "workers": 1},
                "backend:b": {"server": server.address, "proxy_protocol": version},
                "route:b": {"path": "/", "backend": "b"}})
            narwhal.start()
            assert client.get(narwhal.path("sock")).text == "ok"
            assert server.headers == [wanted]
