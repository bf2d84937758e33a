# SPDX-License-Identifier: Apache-2.0
"""What clients that ask too much cost the others: the latency of one normal client, alone, beside
2,000 that send their head, send their body or read their answer as slowly as they can, and beside
one that takes all it can get: pipelines without end, or reads a (sparse) file of 10 GiB.

    /usr/bin/python3 tests/bench/slow.py

One worker. The slow ones live in a process of their own, each doing its one byte (a reader: 1 KiB)
a second, and connect again when they are cut; the greedy one lives in another, at the lowest priority,
so that it takes the worker's time and not the measuring client's. The normal one asks for a file of 1 KiB on a kept
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
PIPELINE = b"GET /respond HTTP/1.1\r\nHost: t\r\n\r\n" * 500
GREEDY = ("pipeline", "download")
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


# ---- the greedy one ------------------------------------------------------------------------------
def be_greedy(kind, port):
    """Takes what it can get, until the parent closes the pipe; prints how many bytes that were."""
    os.nice(19)
    taken, buffer = 0, bytearray(1 << 20)
    with socket.create_connection(("127.0.0.1", port)) as stream, \
            selectors.DefaultSelector() as waiting:
        waiting.register(sys.stdin, selectors.EVENT_READ)
        if kind == "download":
            stream.sendall(b"GET /huge HTTP/1.1\r\nHost: t\r\n\r\n")
        else:
            stream.setblocking(False)
            waiting.register(stream, selectors.EVENT_READ | selectors.EVENT_WRITE)
        print("ready", flush=True)
        left = b""
        while not any(key.fileobj is sys.stdin for key, _ in waiting.select(
                0 if kind == "download" else None)):
            if kind == "pipeline":
                try:
                    left = left or PIPELINE
                    left = left[stream.send(left):]
                except BlockingIOError:
                    pass
            try:
                count = stream.recv_into(buffer)
            except BlockingIOError:
                continue
            if count == 0:
                raise SystemExit("slow: the greedy client was cut")
            taken += count
    print(taken, flush=True)


class Process:
    """One of the above beside us; cut is the number that it prints at its end."""

    def __init__(self, *what):
        self.process = subprocess.Popen(
            [sys.executable, __file__, *map(str, what)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError("slow: the other clients cannot connect")
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.cut = int(self.process.stdout.read() or -1)
        self.process.stdout.close()
        if self.process.wait(20) != 0:
            raise RuntimeError("slow: the other clients failed")


def beside(kinds, port):
    if kinds[0] in GREEDY:
        return Process("greedy", port, *kinds)
    return Process("slow", port, *kinds)


# ---- the normal one ------------------------------------------------------------------------------
def measure(address, seconds=SECONDS):
    """Latencies in microseconds, sorted."""
    found = []
    with client.Client(address) as connection:
        request = client.encode("GET", "/small")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begin = time.perf_counter_ns()
            connection.send(request)
            response = connection.response()
            found.append((time.perf_counter_ns() - begin) / 1000)
            assert response.status == 200 and len(response.body) == 1024
            time.sleep(0.001)
    return sorted(found)


def whole(server, wanted):
    """The connections that the worker has, once it has accepted all of them."""
    held = server.status()["workers"][0]["connections"]
    return held if held >= wanted else 0


def serve(**more):
    server = narwhal.Narwhal({
        "master": {"workers": 1},
        "worker": {"connections": COUNT + 100, "limit_pipelined": 100000},
        "route:files": {"path": "/", "static": "root"},
        "route:respond": {"path": "=/respond", "respond": "200 ok"}},
        files={"root/small": b"s" * 1024, "root/big": bytes(10 << 20)}, start=False, **more)
    with open(server.path("root/huge"), "wb") as file:
        file.truncate(10 << 30)
    return server


ROWS = [("alone", ()), ("slow heads", ("head",)), ("slow bodies", ("body",)),
        ("slow readers", ("read",)), ("all three kinds", ("head", "body", "read")),
        ("one that pipelines without end", ("pipeline",)),
        ("one that reads 10 GiB", ("download",))]


def main():
    raise_files()
    rows = ROWS
    figures = {name: [] for name, _ in rows}
    server = serve(program=BINARY)
    server.start()
    with server:
        worker = server.status()["workers"][0]["pid"]
        for _ in range(ROUNDS):
            for name, kinds in rows:
                if kinds:
                    with beside(kinds, server.address[1]) as slow:
                        wanted = 1 if kinds[0] in GREEDY else COUNT
                        held = narwhal.wait_until(lambda: whole(server, wanted), "all clients in")
                        found = measure(server.address)
                else:
                    held, slow, found = 0, None, measure(server.address)
                figures[name].append((found[len(found) // 2], found[len(found) * 99 // 100],
                                      found[-1], len(found), held,
                                      slow.cut if slow and kinds[0] not in GREEDY else 0,
                                      slow.cut / SECONDS / 1e6 if slow and kinds[0] in GREEDY else 0,
                                      narwhal.status_kib(worker, "VmRSS")))
    print(f"{COUNT} slow clients or a greedy one, and one normal one; median of {ROUNDS} rounds of "
          f"{SECONDS:g} s\n")
    print("| beside | p50 µs | p99 µs | max µs | requests | other connections | cut | "
          "taken MB/s | worker MiB |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for name, rounds in figures.items():
        p50, p99, most, count, held, cut, rate, kib = map(statistics.median, zip(*rounds))
        print(f"| {name} | {p50:.0f} | {p99:.0f} | {most:.0f} | {count:.0f} | {held:.0f} | "
              f"{cut:.0f} | {rate:.1f} | {kib / 1024:.1f} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["slow"]:
        be_slow(sys.argv[3:], int(sys.argv[2]))
    elif sys.argv[1:2] == ["greedy"]:
        be_greedy(sys.argv[3], int(sys.argv[2]))
    else:
        main()
