# SPDX-License-Identifier: Apache-2.0
"""Clients that ask, pause and ask again on kept connections, each request with a name of its own,
so that a record of what servers executed can be held against what was asked. One thread."""
import random
import selectors
import socket
import time

DEADLINE = 60.0


class Pausing:
    """count clients, half of them POST with a body, each with a pause of 0 to pause_ms between an
    answer and the next request; run() returns after that many answers of each, or seconds."""

    def __init__(self, address, count=48, pause_ms=10, posts=True, name="r"):
        self.address, self.count, self.pause = address, count, pause_ms / 1000
        self.posts, self.name = posts, name
        self.failures = []  # "POST /r-3-7: what was wrong"
        self.answered = []  # b"POST /r-3-7", whole answers with 200
        self.random = random.Random(1)

    def _request(self, client):
        number = client["asked"]
        client["asked"] += 1
        method = "POST" if self.posts and client["number"] % 2 else "GET"
        client["line"] = f"{method} /{self.name}-{client['number']}-{number}"
        body = "some body" if method == "POST" else ""
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        if client["socket"] is None:
            client["socket"] = socket.create_connection(self.address)
            client["socket"].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.selector.register(client["socket"], selectors.EVENT_READ, client)
        client["data"] = b""
        client["socket"].sendall(
            f"{client['line']} HTTP/1.1\r\nHost: t\r\n{length}\r\n{body}".encode())

    def _close(self, client):
        self.selector.unregister(client["socket"])
        client["socket"].close()
        client["socket"] = None

    def _done(self, client, problem=None):
        if problem:
            self.failures.append(f"{client['line']}: {problem}")
        else:
            self.answered.append(client["line"].encode())
        client["line"] = None
        client["next"] = time.monotonic() + self.random.random() * self.pause

    def _read(self, client):
        try:
            data = client["socket"].recv(65536)
        except OSError as problem:
            data, reason = b"", repr(problem)
        else:
            reason = "closed"
        if not data:
            self._close(client)
            if client["line"]:
                self._done(client, f"{reason} after {client['data']!r}")
            return
        client["data"] += data
        head, end, body = client["data"].partition(b"\r\n\r\n")
        if not end or client["line"] is None:
            return
        length = next((int(line[15:]) for line in head.split(b"\r\n")
                       if line.lower().startswith(b"content-length:")), None)
        if length is None or len(body) < length:
            return
        closes = b"\r\nconnection: close" in head.lower()
        self._done(client, None if head.startswith(b"HTTP/1.1 200 ") else
                   head.split(b"\r\n")[0].decode())
        if closes:
            self._close(client)

    def run(self, answers=0, seconds=None):
        """Returns itself. Ends when every client has that many answers more, or after seconds; no
        request is left open then."""
        self.selector = selectors.DefaultSelector()
        clients = [{"number": number, "asked": 0, "socket": None, "line": None, "data": b"",
                    "next": time.monotonic() + self.random.random() * self.pause}
                   for number in range(self.count)]
        begin = time.monotonic()
        end = begin + (seconds if seconds is not None else DEADLINE)
        while True:
            now = time.monotonic()
            is_over = now >= end or (answers and all(c["asked"] >= answers for c in clients))
            is_open = any(client["line"] for client in clients)
            if is_over and not is_open:
                break
            assert now < end + DEADLINE, "answers are missing"
            wait = 0.2
            for client in clients:
                if client["line"] is None and not is_over:
                    if client["next"] <= now:
                        self._request(client)
                    else:
                        wait = min(wait, client["next"] - now)
            for key, _ in self.selector.select(wait):
                self._read(key.data)
        for client in clients:
            if client["socket"] is not None:
                self._close(client)
        self.selector.close()
        self.seconds = time.monotonic() - begin
        return self
