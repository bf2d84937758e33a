# SPDX-License-Identifier: Apache-2.0
"""A raw HTTP/1.1 client: sends any bytes, reads strictly.

The parser refuses what a lenient client would forgive: bare line feeds, a missing reason phrase's
blank, two Content-Length fields, a chunk without its end. A test that passes has seen the bytes.
"""
import dataclasses
import json as json_module
import re
import socket
import time

DEADLINE = 30.0


class ConnectionEnded(Exception):
    """The server closed before a response began."""


class BrokenResponse(AssertionError):
    """Not a whole, well-formed response. What came is in args."""


@dataclasses.dataclass
class Response:
    version: str
    status: int
    reason: str
    fields: list  # (name as sent, value)
    body: bytes
    framing: str  # none, length, chunked, close
    interim: list  # statuses of the 1xx responses before it
    trailers: list

    def all(self, name):
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def __getitem__(self, name):
        values = self.all(name)
        assert len(values) == 1, f"{len(values)} fields {name} in {self.fields}"
        return values[0]

    def get(self, name, default=None):
        return self[name] if self.all(name) else default

    @property
    def text(self):
        return self.body.decode()

    @property
    def json(self):
        return json_module.loads(self.body)

    @property
    def closes(self):
        words = [word.strip().lower() for value in self.all("Connection")
                 for word in value.split(",")]
        return "close" in words or (self.version == "HTTP/1.0" and "keep-alive" not in words)


class Client:
    """One connection. address is (host, port) or the path of a unix socket."""

    def __init__(self, address, deadline=DEADLINE, receive_buffer=None):
        self.deadline = deadline
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        else:
            self.socket = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET,
                                        socket.SOCK_STREAM)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(deadline)
        self.socket.connect(address)
        self.buffer = bytearray()  # grows and shrinks in place: bodies are large
        self.ended = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    # ---- bytes -----------------------------------------------------------------------------------
    def send(self, data):
        self.socket.sendall(data.encode("latin-1") if isinstance(data, str) else data)
        return self

    def fill(self, most=65536):
        """Reads more into the buffer; False at the end."""
        if self.ended:
            return False
        data = self.socket.recv(most)
        if not data:
            self.ended = True
            return False
        self.buffer += data
        return True

    def take(self, count):
        while len(self.buffer) < count:
            if not self.fill():
                raise BrokenResponse(f"ended {count - len(self.buffer)} bytes early", bytes(self.buffer[:200]))
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data

    def take_line(self):
        while b"\r\n" not in self.buffer:
            if not self.fill():
                raise BrokenResponse("ended inside a line", bytes(self.buffer))
        line = bytes(self.buffer[:self.buffer.index(b"\r\n")])
        del self.buffer[:len(line) + 2]
        if b"\n" in line or b"\r" in line or b"\0" in line:
            raise BrokenResponse("control byte in a line", line)
        return line

    def rest(self):
        """All until the server closes in order; a reset raises ConnectionResetError."""
        while self.fill():
            pass
        data = bytes(self.buffer)
        self.buffer.clear()
        return data

    def expect_close(self):
        """Asserts that the server sends nothing more and closes."""
        data = self.rest()
        assert data == b"", f"more came: {data[:200]!r}"

    def is_open(self):
        """Whether the server has neither closed nor sent anything, as of now."""
        self.socket.setblocking(False)
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        finally:
            self.socket.settimeout(self.deadline)

    # ---- requests --------------------------------------------------------------------------------
    def request(self, method, target, fields=(), body=None, version="HTTP/1.1", host="test"):
        self.send(encode(method, target, fields, body, version, host))
        return self.response(method)

    def get(self, target, fields=(), **more):
        return self.request("GET", target, fields, **more)

    # ---- responses -------------------------------------------------------------------------------
    def head(self):
        """(version, status, reason, fields) of the next response head, interim or final."""
        if not self.buffer and not self.fill():
            raise ConnectionEnded("closed before a response")
        line = self.take_line()
        match = re.fullmatch(rb"(HTTP/1\.[01]) ([1-9]\d\d) ([\t\x20-\x7e\x80-\xff]*)", line)
        if not match:
            raise BrokenResponse("bad status line", line)
        fields = []
        while True:
            text = self.take_line()
            if text == b"":
                break
            field = re.fullmatch(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*(.*?)[ \t]*", text)
            if not field:
                raise BrokenResponse("bad field line", text)
            fields.append((field[1].decode("latin-1"), field[2].decode("latin-1")))
        return match[1].decode(), int(match[2]), match[3].decode("latin-1"), fields

    def response(self, method="GET", on_head=None):
        interim = []
        while True:
            version, status, reason, fields = self.head()
            if status >= 200 or status == 101:
                break
            interim.append(status)
        found = Response(version, status, reason, fields, b"", "none", interim, [])
        if on_head:
            on_head(found)
        lengths, codings = found.all("Content-Length"), found.all("Transfer-Encoding")
        if lengths and codings:
            raise BrokenResponse("Content-Length with Transfer-Encoding", fields)
        if len(lengths) > 1 or any(not re.fullmatch(r"\d+", value) for value in lengths):
            raise BrokenResponse("bad Content-Length", fields)
        if status in (101, 204) and (lengths or codings):
            raise BrokenResponse(f"framing fields in a {status} (RFC 9110 section 8.6)", fields)
        if method == "HEAD" or status in (101, 204, 304):
            return found
        if codings:
            if [value.lower() for value in codings] != ["chunked"]:
                raise BrokenResponse("bad Transfer-Encoding", fields)
            found.framing, found.body = "chunked", self.chunked(found.trailers)
        elif lengths:
            found.framing, found.body = "length", self.take(int(lengths[0]))
        else:
            if not found.closes and version == "HTTP/1.1":
                raise BrokenResponse("a body until close without Connection: close", fields)
            found.framing, found.body = "close", self.rest()
        return found

    def chunked(self, trailers):
        parts = []
        while True:
            match = re.fullmatch(rb"([0-9A-Fa-f]{1,16})((?:;.*)?)", self.take_line())
            if not match:
                raise BrokenResponse("bad chunk size")
            size = int(match[1], 16)
            if size == 0:
                break
            parts.append(self.take(size))
            if self.take(2) != b"\r\n":
                raise BrokenResponse("chunk without its end")
        while line := self.take_line():
            name, _, value = line.decode("latin-1").partition(":")
            trailers.append((name, value.strip()))
        return b"".join(parts)


def encode(method, target, fields=(), body=None, version="HTTP/1.1", host="test"):
    lines = [f"{method} {target} {version}"]
    fields = list(fields.items() if isinstance(fields, dict) else fields)
    names = {name.lower() for name, _ in fields}
    if host is not None and "host" not in names:
        lines.append(f"Host: {host}")
    lines += [f"{name}: {value}" for name, value in fields]
    if body is not None and not names & {"content-length", "transfer-encoding"}:
        lines.append(f"Content-Length: {len(body)}")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    return head + (body or b"")


def chunks(*parts, trailer=""):
    """A chunked body."""
    data = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts if part)
    return data + b"0\r\n" + trailer.encode() + b"\r\n"


def get(address, target="/", fields=(), **more):
    return request(address, "GET", target, fields, **more)


def request(address, method, target="/", fields=(), body=None, **more):
    """One request on a connection of its own."""
    with Client(address) as client:
        return client.request(method, target, fields, body, **more)


def exchange(address, data):
    """Sends bytes, then reads until the server closes; all that came."""
    with Client(address) as client:
        client.send(data)
        return client.rest()


def wait_listening(address, deadline=DEADLINE):
    """Waits until something accepts at the address."""
    end = time.monotonic() + deadline
    while True:
        try:
            with Client(address):
                return
        except OSError:
            if time.monotonic() > end:
                raise
