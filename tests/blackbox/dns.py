# SPDX-License-Identifier: Apache-2.0
"""Name servers for tests.

    with Dnsmasq({"api.test": ["127.0.0.2"]}, ttl=1) as dns:      the real one, on 127.0.0.1
        dns.set({"api.test": ["127.0.0.3"]})                      other records
        dns.stop(); dns.start()                                   at the same port

    with Liar(lambda query: [...]) as dns:                        sends the bytes that it is told to
"""
import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

DEADLINE = 30.0
A, CNAME, AAAA, SRV = 1, 5, 28, 33


def free_udp_port():
    """A port that was free a moment ago for UDP and TCP."""
    while True:
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            with contextlib.suppress(OSError):
                udp.bind(tcp.getsockname())
                return tcp.getsockname()[1]


class Dnsmasq:
    """hosts: {name: [addresses]}; lines: more lines of dnsmasq's settings, such as srv-host=."""

    def __init__(self, hosts=None, lines=(), ttl=1):
        self.program = shutil.which("dnsmasq", path="/usr/sbin:/usr/bin:/sbin")
        assert self.program, "Debian package dnsmasq-base is not installed"
        self.folder = tempfile.mkdtemp(prefix="narwhal-dns-")
        os.chmod(self.folder, 0o755)
        self.process = None
        self.port = free_udp_port()
        self.server = f"127.0.0.1:{self.port}"
        with open(self.path("dnsmasq.conf"), "w", encoding="ascii") as file:
            file.write("\n".join([
                "no-resolv", "no-hosts", "keep-in-foreground", "user=root" if os.getuid() == 0 else
                "", "bind-interfaces", "listen-address=127.0.0.1", f"port={self.port}", "pid-file=",
                f"local-ttl={ttl}", "local=/test/", f"addn-hosts={self.path('hosts')}", *lines])
                + "\n")
        self.set(hosts or {})
        self.start()

    def path(self, name):
        return os.path.join(self.folder, name)

    def set(self, hosts):
        """Other records, from now on."""
        with open(self.path("new"), "w", encoding="ascii") as file:
            for name, addresses in hosts.items():
                file.write("".join(f"{address} {name}\n" for address in addresses))
        os.rename(self.path("new"), self.path("hosts"))
        if self.process is not None:
            self.process.send_signal(signal.SIGHUP)

    def start(self):
        self.process = subprocess.Popen(
            [self.program, "-C", self.path("dnsmasq.conf")],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            assert self.process.poll() is None, self.process.stderr.read()
            with contextlib.suppress(OSError), \
                    socket.create_connection(("127.0.0.1", self.port), 1):
                return
            threading.Event().wait(0.01)
        raise AssertionError("dnsmasq does not listen")

    def stop(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(DEADLINE)
            self.process.stderr.close()
            self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


# ---- a name server of our own --------------------------------------------------------------------
def encode_name(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def record(name, kind, data, ttl=1):
    return encode_name(name) + struct.pack(">HHIH", kind, 1, ttl, len(data)) + data


def answer(query, records, flags=0x8580, number=None):
    """A response to the question of query with these records."""
    return (struct.pack(">HHHHHH", query.number if number is None else number, flags, 1,
                        len(records), 0, 0) + query.question + b"".join(records))


class Query:
    def __init__(self, data):
        self.number = struct.unpack(">H", data[:2])[0]
        at, labels = 12, []
        while data[at]:
            labels.append(data[at + 1:at + 1 + data[at]].decode())
            at += 1 + data[at]
        self.name = ".".join(labels).lower()
        self.kind = struct.unpack(">H", data[at + 1:at + 3])[0]
        self.question = data[12:at + 5]


class Liar:
    """answer_to(query) returns the datagrams to send back; over_tcp(query) the stream, when it is
    asked over TCP."""

    def __init__(self, answer_to, over_tcp=None):
        self.answer_to = answer_to
        self.over_tcp = over_tcp
        self.queries = []
        self.port = free_udp_port()
        self.server = f"127.0.0.1:{self.port}"
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", self.port))
        self.tcp = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self.serve_udp, daemon=True).start()
        threading.Thread(target=self.serve_tcp, daemon=True).start()

    def serve_udp(self):
        while True:
            try:
                data, peer = self.udp.recvfrom(65536)
            except OSError:
                return
            if data == b"stop":
                return
            query = Query(data)
            self.queries.append(query)
            for datagram in self.answer_to(query):
                with contextlib.suppress(OSError):
                    self.udp.sendto(datagram, peer)

    def serve_tcp(self):
        while True:
            try:
                stream, _ = self.tcp.accept()
            except OSError:
                return
            with stream, contextlib.suppress(OSError):
                while len(head := stream.recv(2, socket.MSG_WAITALL)) == 2:
                    query = Query(stream.recv(struct.unpack(">H", head)[0], socket.MSG_WAITALL))
                    stream.sendall(self.over_tcp(query) if self.over_tcp else b"")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wake:
            wake.sendto(b"stop", ("127.0.0.1", self.port))
        with contextlib.suppress(OSError):
            self.tcp.shutdown(socket.SHUT_RDWR)
        self.tcp.close()
        self.udp.close()
