# SPDX-License-Identifier: Apache-2.0
"""Servers for narwhal to stand in front of, that do exactly what a test tells them to and record
the exact bytes that they got.

    def answer(exchange):
        exchange.send(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")

    with Backend(answer) as backend: ...

answer runs in a thread for each request, on a connection that may have had others before. An
exchange has .head (bytes), .line, .fields, .connection (number), .peer, and the verbs below.
"""
import contextlib
import os
import queue
import re
import shutil
import socket
import tempfile
import threading

DEADLINE = 30.0

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Exchange:
    def __init__(self, backend, stream, connection, head, rest):
        self.backend = backend
        self.socket = stream
        self.connection = connection
        self.head = head
        self.rest = rest  # bytes read beyond what was used
        self.line, *lines = head.decode("latin-1").split("\r\n")[:-2]
        self.fields = [tuple(part.strip() for part in line.split(":", 1)) for line in lines]
        self.keep = True

    @property
    def target(self):
        return self.line.split(" ")[1]

    def all(self, name):
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def get(self, name):
        values = self.all(name)
        assert len(values) <= 1, f"{len(values)} fields {name}: {self.fields}"
        return values[0] if values else None

    def send(self, data):
        self.socket.sendall(data)

    def receive(self, most=65536):
        """Some bytes; b"" at the end."""
        if self.rest:
            data, self.rest = self.rest[:most], self.rest[most:]
            return data
        return self.socket.recv(most)

    def take(self, count):
        data = b""
        while len(data) < count:
            more = self.receive(count - len(data))
            if not more:
                raise ConnectionError(f"ended {count - len(data)} bytes early")
            data += more
        return data

    def take_line(self):
        line = b""
        while not line.endswith(b"\r\n"):
            line += self.take(1)
        return line[:-2]

    def body(self):
        """The request's body, whole, by its framing; strictly."""
        if self.all("Transfer-Encoding"):
            assert self.get("Transfer-Encoding") == "chunked" and not self.all("Content-Length")
            data = b""
            while True:
                size = int(re.fullmatch(rb"([0-9A-Fa-f]+)(?:;.*)?", self.take_line())[1], 16)
                if size == 0:
                    while self.take_line():
                        pass
                    return data
                data += self.take(size)
                assert self.take(2) == b"\r\n"
        length = self.get("Content-Length")
        return self.take(int(length)) if length else b""

    def close(self):
        """Closes the connection after this exchange."""
        self.keep = False

    def reset(self):
        """Closes with a reset now."""
        self.keep = False
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                               b"\1\0\0\0\0\0\0\0")
        self.socket.close()


class Backend:
    """A server at 127.0.0.1 with a free port, or at a unix socket."""

    def __init__(self, answer=None, unix=False, receive_buffer=None):
        self.answer = answer or (lambda exchange: (exchange.body(), exchange.send(OK)))
        self.folder = tempfile.mkdtemp(prefix="narwhal-backend-") if unix else None
        self.listener = socket.socket(socket.AF_UNIX if unix else socket.AF_INET,
                                      socket.SOCK_STREAM)
        if receive_buffer:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.listener.bind(os.path.join(self.folder, "sock") if unix else ("127.0.0.1", 0))
        if unix:
            os.chmod(self.folder, 0o755)
            os.chmod(self.listener.getsockname(), 0o666)
        self.listener.listen(1024)
        self.server = (f"unix:{self.listener.getsockname()}" if unix else
                       "127.0.0.1:%d" % self.listener.getsockname()[1])
        self.connections = 0
        self.exchanges = []  # in order of arrival
        self.faults = []
        self.arrived = queue.Queue()  # the same, to wait for
        self.closed = queue.Queue()  # numbers of connections that the other side closed
        self._lock = threading.Lock()
        self._streams = set()
        self._stopping = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                stream, _ = self.listener.accept()
            except OSError:
                return
            with self._lock:
                if self._stopping:
                    stream.close()
                    return
                number = self.connections
                self.connections += 1
                self._streams.add(stream)
            threading.Thread(target=self._serve, args=(stream, number), daemon=True).start()

    def _serve(self, stream, number):
        rest = b""
        try:
            with stream:
                while True:
                    while b"\r\n\r\n" not in rest:
                        data = stream.recv(65536)
                        if not data:
                            if rest:
                                self.faults.append(f"ended inside a head: {rest!r}")
                            self.closed.put(number)
                            return
                        rest += data
                    head, _, rest = rest.partition(b"\r\n\r\n")
                    exchange = Exchange(self, stream, number, head + b"\r\n\r\n", rest)
                    with self._lock:
                        self.exchanges.append(exchange)
                    self.arrived.put(exchange)
                    self.answer(exchange)
                    rest = exchange.rest
                    if not exchange.keep:
                        return
        except OSError:
            self.closed.put(number)
        except AssertionError as fault:
            self.faults.append(repr(fault))
            raise
        finally:
            with self._lock:
                self._streams.discard(stream)

    def next(self):
        """The next request that arrives."""
        return self.arrived.get(timeout=DEADLINE)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.stop()
        if kind is None:
            assert not self.faults, self.faults

    def stop(self):
        with self._lock:
            self._stopping = True
            streams = list(self._streams)
        # close() alone does not wake a thread that waits in accept(2).
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for stream in streams:
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)


def free_port():
    """A port that was free a moment ago: for showing what happens when nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
