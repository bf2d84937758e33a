# SPDX-License-Identifier: Apache-2.0
"""WebSockets need no settings: an Upgrade becomes a tunnel."""
import asyncio
import os
import shutil
import subprocess
import threading

import pytest
import websockets

import client
from backend import Backend
from narwhal import APPS, DEADLINE, Narwhal, wait_app

APP = {"backend:app": {"command": "uvicorn app_fastapi:app --fd {fd}", "directory": APPS},
       "route:app": {"path": "/app", "backend": "app", "strip_prefix": "on"}}

# Debian's modules of node; a node that is not Debian's does not look there by itself.
NODE = {"NODE_PATH": "/usr/share/nodejs"}


def app(narwhal):
    wait_app(narwhal, "/app/pid")
    return f"ws://127.0.0.1:{narwhal.port}/app"


def test_chat_through_two_workers():
    """Everybody reads what everybody writes, whichever worker they came through."""
    members, rounds = 24, 5

    async def scenario(uri, narwhal):
        sockets = [await websockets.connect(f"{uri}/chat") for _ in range(members)]
        greetings = [await asyncio.wait_for(socket.recv(), 30) for socket in sockets]
        assert greetings == [f"joined {number + 1}" for number in range(members)]
        status = narwhal.status()
        held = [worker["connections"] for worker in status["workers"]]
        assert sum(held) >= members and all(held), f"through both workers: {held}"
        assert status["totals"]["tunnels"] == members

        async def member(number):
            socket, heard = sockets[number], set()
            for turn in range(rounds):
                await socket.send(f"{number} says {turn}")
            while len(heard) < members * rounds:
                heard.add(await asyncio.wait_for(socket.recv(), 30))
            return heard
        everything = {f"{number} says {turn}" for number in range(members)
                      for turn in range(rounds)}
        for heard in await asyncio.gather(*map(member, range(members))):
            assert heard == everything
        await asyncio.gather(*(socket.close() for socket in sockets))
        assert all(socket.close_code == 1000 for socket in sockets)

    with Narwhal(APP) as narwhal:
        asyncio.run(scenario(app(narwhal), narwhal))


SERVERS = {"uvicorn": "uvicorn app_fastapi:app --fd {fd} --ws-max-size 100000000",
           "websockets": "/usr/bin/python3 app_websockets.py {fd}",
           "node": "node ws_server.js {fd}"}


async def converse_as_websockets(uri):
    async with websockets.connect(uri, max_size=None) as socket:
        await asyncio.wait_for(await socket.ping(b"are you there"), DEADLINE)
        for size in (0, 1, 125, 126, 65535, 65536, 900_000):
            for message in (os.urandom(size // 2 + 1).hex()[:size], os.urandom(size)):
                await socket.send(message)
                assert await asyncio.wait_for(socket.recv(), DEADLINE) == message
        await socket.send("close 4321")
        await asyncio.wait_for(socket.wait_closed(), DEADLINE)
        assert socket.close_code == 4321


def converse_as_node(uri):
    done = subprocess.run(["node", os.path.join(APPS, "ws_client.js"), uri],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=DEADLINE, env={**os.environ, **NODE}, check=False)
    assert (done.returncode, done.stdout) == (0, "good\n"), done


@pytest.mark.parametrize("speaker", ["websockets", "node"])
@pytest.mark.parametrize("server", SERVERS)
def test_real_clients_and_servers(speaker, server):
    """Messages of all sizes, text and binary, ping and pong, and the code of the close."""
    if "node" in (speaker, server) and not shutil.which("node"):
        pytest.skip("node is not installed")
    with Narwhal({"backend:app": {"command": SERVERS[server], "directory": APPS},
                  "route:app": {"path": "/", "backend": "app"}}, env=NODE) as narwhal:
        narwhal.wait_instances(1)
        uri = f"ws://127.0.0.1:{narwhal.port}/echo"
        if speaker == "node":
            converse_as_node(uri)
        else:
            asyncio.run(converse_as_websockets(uri))


def test_bytes_right_behind_the_handshake():
    """What a client sends with the request, and a server with the 101, belongs to the tunnel."""
    def answer(exchange):
        assert exchange.get("Upgrade") == "thing" and "upgrade" in exchange.get(
            "Connection").lower()
        exchange.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                      b"Upgrade: thing\r\n\r\nat once")
        # Only now: until the 101 it was not known whether these were for the tunnel.
        assert exchange.take(5) == b"early"
        exchange.send(exchange.take(4).upper())
        while exchange.receive():
            pass
        exchange.close()
    with Backend(answer) as backend, Narwhal({
            "backend:b": {"server": backend.server},
            "route:b": {"path": "/", "backend": "b"}}) as narwhal, \
            client.Client(narwhal.address) as connection:
        connection.send(client.encode("GET", "/", {"Connection": "Upgrade", "Upgrade": "thing"}) +
                        b"early")
        response = connection.response()
        assert response.status == 101 and response["Upgrade"] == "thing"
        assert connection.take(7) == b"at once"
        connection.send(b"more")
        assert connection.take(4) == b"MORE"


def test_half_closed_tunnel_still_carries_the_other_way():
    import socket as sockets

    def answer(exchange):
        exchange.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                      b"Upgrade: thing\r\n\r\n")
        got = b""
        while data := exchange.receive():
            got += data
        exchange.send(b"got " + got)
        exchange.close()
    with Backend(answer) as backend, Narwhal({
            "backend:b": {"server": backend.server},
            "route:b": {"path": "/", "backend": "b"}}) as narwhal, \
            client.Client(narwhal.address) as connection:
        connection.send(client.encode("GET", "/", {"Connection": "Upgrade", "Upgrade": "thing"}))
        assert connection.response().status == 101
        connection.send(b"all of it")
        connection.socket.shutdown(sockets.SHUT_WR)
        assert connection.rest() == b"got all of it"


def test_server_that_declines_answers_as_usual():
    with Backend() as backend, Narwhal({
            "backend:b": {"server": backend.server},
            "route:b": {"path": "/", "backend": "b"}}) as narwhal, \
            client.Client(narwhal.address) as connection:
        for _ in range(2):
            response = connection.get("/", {"Connection": "Upgrade", "Upgrade": "thing"})
            assert response.status == 200 and response.text == "ok"


def test_silent_tunnel_ends_after_tunnel_timeout():
    def answer(exchange):
        exchange.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                      b"Upgrade: thing\r\n\r\n")
        while exchange.receive():
            pass
        exchange.close()
    with Backend(answer) as backend, Narwhal({
            "backend:b": {"server": backend.server, "tunnel_timeout": "300ms"},
            "route:b": {"path": "/", "backend": "b"}}) as narwhal, \
            client.Client(narwhal.address) as connection:
        connection.send(client.encode("GET", "/", {"Connection": "Upgrade", "Upgrade": "thing"}))
        assert connection.response().status == 101
        connection.expect_close()


def test_answer_to_an_upgrade_in_pieces_with_bytes_behind_it():
    def answer(exchange):
        exchange.send(b"HTTP/1.1 101 Switching Proto")
        release.wait(client.DEADLINE)
        exchange.send(b"cols\r\nConnection: Upgrade\r\nUpgrade: any\r\n\r\n" + b"f" * 300)
        exchange.receive()
        exchange.close()
    release = threading.Event()
    with Backend(answer) as backend, Narwhal({
            "backend:b": {"server": backend.server},
            "route:b": {"path": "/", "backend": "b"}}) as narwhal, \
            client.Client(narwhal.address) as connection:
        connection.send("GET / HTTP/1.1\r\nHost: t\r\nConnection: upgrade\r\nUpgrade: any\r\n\r\n")
        backend.next()
        release.set()
        assert connection.head()[1] == 101
        assert connection.take(300) == b"f" * 300
        connection.send(b"bye")
        connection.expect_close()
