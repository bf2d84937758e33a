# SPDX-License-Identifier: Apache-2.0
"""What slow clients cost the others: the latency of one normal client, alone and beside 2,000 that
send their head, send their body or read their answer as slowly as they can.

    /usr/bin/python3 tests/bench/slow.py

One worker. The slow ones live in a process of their own, each doing its one byte (a reader: 1 KiB)
a second, and connect again when they are cut. The normal one asks for a file of 1 KiB on a kept
connection, a thousand times a second at most. Quiet and slow rounds take turns; shown is the median
of the rounds. Nothing fails for being slow, but a normal request that fails ends the run.

    SLOW_CLIENTS=2000  ROUNDS=3  SECONDS_EACH=3   BENCH_BINARY=build/release/narwhal
"""
import os
import pathlib
import resource
import selectors
import socket
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "blackbox"))
import client  # noqa: E402
import narwhal  # noqa: E402

COUNT = int(os.environ.get("SLOW_CLIENTS", "2000"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
SECONDS = float(os.environ.get("SECONDS_EACH", "3"))
BINARY = os.environ.get("BENCH_BINARY", str(HERE.parent.parent / "build/release/narwhal"))
HEAD = b"GET /" + b"x" * 4000 + b" HTTP/1.1\r\nHost: t\r\n\r\n"
KINDS = {
    "head": (b"", HEAD, None),
    "body": (b"POST /respond HTTP/1.1\r\nHost: t\r\nContent-Length: 60000\r\n\r\n", b"x" * 60000, None),
    "read": (b"GET /big HTTP/1.1\r\nHost: t\r\n\r\n", b"", 1024),
}


def raise_files():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < COUNT + 100:
        raise SystemExit(f"slow: {COUNT} clients need a hard limit of open files above {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# ---- the slow ones: a process of their own -------------------------------------------------------
class Slow:
    def __init__(self, kind, port):
        self.first, self.drip, self.read = KINDS[kind]
        self.port = port
        self.cut = -1
        self.socket = None
        self.connect()

    def connect(self):
        if self.socket is not None:
            self.socket.close()
        self.cut += 1
        self.at = 0
        self.socket = socket.socket()
        if self.read:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect(("127.0.0.1", self.port))
        self.socket.sendall(self.first)
        self.socket.setblocking(False)

    def step(self):
        try:
            if self.read:
                if self.socket.recv(self.read) == b"":
                    self.connect()
            else:
                self.socket.send(self.drip[self.at:self.at + 1])
                self.at += 1
        except BlockingIOError:
            pass
        except OSError:
            self.connect()


def be_slow(kinds, port):
    raise_files()
    clients = [Slow(kinds[number % len(kinds)], port) for number in range(COUNT)]
    print("ready", flush=True)
    with selectors.DefaultSelector() as waiting:
        waiting.register(sys.stdin, selectors.EVENT_READ)
        begin, steps = time.monotonic(), 0
        while not waiting.select(0.02):  # until the parent closes the pipe
            due = int((time.monotonic() - begin) * COUNT)
            for number in range(steps, due):
                clients[number % COUNT].step()
            steps = max(steps, due)
    print(sum(one.cut for one in clients), flush=True)


class SlowProcess:
    def __init__(self, kinds, port):
        self.process = subprocess.Popen(
            [sys.executable, __file__, "slow", str(port), *kinds], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        if self.process.stdout.readline() != "ready\n":
            raise SystemExit("slow: the slow clients cannot connect")
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.cut = int(self.process.stdout.read() or -1)
        self.process.wait(20)


# ---- the normal one ------------------------------------------------------------------------------
def measure(address):
    """Latencies in microseconds, sorted."""
    found = []
    with client.Client(address) as connection:
        request = client.encode("GET", "/small")
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            begin = time.perf_counter_ns()
            connection.send(request)
            response = connection.response()
            found.append((time.perf_counter_ns() - begin) / 1000)
            assert response.status == 200 and len(response.body) == 1024
            time.sleep(0.001)
    return sorted(found)


def whole(server):
    """The connections that the worker has, once it has accepted all of them."""
    held = server.status()["workers"][0]["connections"]
    return held if held >= COUNT else 0


def main():
    raise_files()
    rows = [("alone", ()), ("slow heads", ("head",)), ("slow bodies", ("body",)),
            ("slow readers", ("read",)), ("all three kinds", ("head", "body", "read"))]
    figures = {name: [] for name, _ in rows}
    with narwhal.Narwhal({"master": {"workers": 1}, "worker": {"connections": COUNT + 100},
                          "route:files": {"path": "/", "static": "root"},
                          "route:respond": {"path": "=/respond", "respond": "200 ok"}},
                         files={"root/small": b"s" * 1024, "root/big": bytes(10 << 20)},
                         program=BINARY) as server:
        worker = server.status()["workers"][0]["pid"]
        for _ in range(ROUNDS):
            for name, kinds in rows:
                if kinds:
                    with SlowProcess(kinds, server.address[1]) as slow:
                        held = narwhal.wait_until(lambda: whole(server), "all slow clients in")
                        found = measure(server.address)
                else:
                    held, slow, found = 0, None, measure(server.address)
                figures[name].append((found[len(found) // 2], found[len(found) * 99 // 100],
                                      found[-1], len(found), held, slow.cut if slow else 0,
                                      narwhal.status_kib(worker, "VmRSS")))
    print(f"{COUNT} slow clients, one normal one; median of {ROUNDS} rounds of {SECONDS:g} s\n")
    print(f"| beside | p50 µs | p99 µs | max µs | requests | slow connections | cut | worker MiB |\n"
          f"|---|---|---|---|---|---|---|---|")
    for name, rounds in figures.items():
        p50, p99, most, count, held, cut, kib = map(statistics.median, zip(*rounds))
        print(f"| {name} | {p50:.0f} | {p99:.0f} | {most:.0f} | {count:.0f} | {held:.0f} | "
              f"{cut:.0f} | {kib / 1024:.1f} |")


if sys.argv[1:2] == ["slow"]:
    be_slow(sys.argv[3:], int(sys.argv[2]))
else:
    main()
