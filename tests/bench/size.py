# SPDX-License-Identifier: Apache-2.0
"""Cost against size, as one table: CPU microseconds per request of one worker (and its master) while
connections go from 1 to 10,000, routes from 1 to 10,000 and header fields from 1 to 100. size.sh
installs, builds and calls this; docs/benchmarks.md says how to read it. Not a test: nothing fails for
being slow, but a request that fails ends the run.

The server is pinned to CPU 0 and the load (wrk) to CPU 1; a fresh server for every line, the sizes of
a row in turn, again in every round; shown is the median of the rounds and the range.
"""
import contextlib
import os
import re
import resource
import selectors
import socket
import statistics
import subprocess
import sys
import time

import bench

SIZES = {
    "connections, all of them busy": [1, 10, 100, 1000, 10000],
    "idle connections beside 32 busy ones": [1, 10, 100, 1000, 10000],
    "routes by path (the last one is asked)": [1, 10, 100, 1000, 10000],
    "routes by host (the last one is asked)": [1, 10, 100, 1000, 10000],
    "header fields": [1, 3, 10, 30, 100],
}
ROUNDS = int(os.environ.get("ROUNDS", "3"))
SECONDS = float(os.environ.get("SECONDS_EACH", "2"))


def fail(text):
    sys.exit(f"size: {text}")


def settings(row, size, port):
    if row.startswith("routes by path"):
        routes = "".join(f"[route:r{number}]\npath = /r{number}\nrespond = 200 ok\n"
                         for number in range(size))
    elif row.startswith("routes by host"):
        routes = "".join(f"[route:r{number}]\nhost = h{number}.example\nrespond = 200 ok\n"
                         for number in range(size))
    else:
        routes = "[route:r]\npath = /\nrespond = 200 ok\n"
    return (f"[master]\nbind = 127.0.0.1:{port}\nworkers = 1\n"
            "[worker]\nconnections = 11000\nlimit_request_fields = 128\nkeepalive = 10m\n"
            f"[log]\naccess = off\n{routes}")


def load(row, size):
    """(connections, path, header fields besides Host) of wrk."""
    if row.startswith("connections"):
        return size, "/", []
    if row.startswith("routes by path"):
        return 32, f"/r{size - 1}/x", []
    if row.startswith("routes by host"):
        return 32, "/", [f"Host: h{size - 1}.example"]
    if row == "header fields":
        return 32, "/", [f"X-Field-{number}: the value of it" for number in range(size - 1)]
    return 32, "/", []


def cpu_ns(pid):
    """On-CPU time of the process and all below it, to the nanosecond (schedstat, proc(5))."""
    total = 0
    for each in bench.process_tree(pid):
        with open(f"/proc/{each}/schedstat", encoding="ascii") as file:
            total += int(file.read().split()[0])
    return total


@contextlib.contextmanager
def idle(port, count):
    """Kept connections, one request each answered."""
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as waiting:
        for _ in range(count):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", port), 20))
            one.sendall(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
            waiting.register(one, selectors.EVENT_READ)
        left = count
        while left > 0:
            for key, _ in waiting.select(20) or fail("no answer on an idle connection"):
                if not key.fileobj.recv(4096).startswith(b"HTTP/1.1 200"):
                    fail("a connection was not answered")
                waiting.unregister(key.fileobj)
                left -= 1
        yield


def wrk(port, connections, path, fields, seconds):
    """Requests that were answered."""
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s",
               "--timeout", "20s"]
    for field in fields:
        command += ["-H", field]
    done = subprocess.run(command + [f"http://127.0.0.1:{port}{path}"], check=True, text=True,
                          stdout=subprocess.PIPE)
    if re.search(r"Non-2xx|Socket errors", done.stdout):
        fail(f"requests failed: {done.stdout}")
    return int(re.search(r"(\d+) requests in", done.stdout)[1])


def measure(binary, row, size):
    """CPU µs per request."""
    place = bench.Bench(binary)
    try:
        port = bench.free_port()
        process = place.run("narwhal", [binary, "-c", place.write("narwhal.ini",
                                                                 settings(row, size, port))])
        place.wait_port("narwhal", port)
        with socket.create_connection(("127.0.0.1", port), 60) as first:
            first.sendall(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
            first.recv(4096)  # the settings are loaded, here and in the worker
        connections, path, fields = load(row, size)
        with idle(port, size) if row.startswith("idle") else contextlib.nullcontext():
            # Longer for many, so that most of it is not the making of the connections, and longer
            # once more when wrk found no time for anything else.
            seconds = SECONDS + connections / 1250
            for _ in range(3):
                before = cpu_ns(process.pid)
                requests = wrk(port, connections, path, fields, seconds)
                if requests >= 5 * connections:
                    return (cpu_ns(process.pid) - before) / requests / 1000
                seconds *= 2
            return fail(f"{requests} answers for {connections} connections: is the machine busy?")
    finally:
        place.stop()


# ---- instructions of the parser ------------------------------------------------------------------
def instructions(program, path, count):
    done = subprocess.run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program,
                           "sse4.2", str(count), path], check=False, text=True,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    found = re.search(r"Collected : (\d+)", done.stderr)
    return int(found[1]) if done.returncode == 0 and found else None


def parser_row(program):
    """Instructions per head for each number of fields; empty without SSE4.2."""
    found = []
    place = bench.Bench(program)
    try:
        for size in SIZES["header fields"]:
            _, path, fields = load("header fields", size)
            head = place.write("head", "\r\n".join([f"GET {path} HTTP/1.1", "Host: 127.0.0.1:12345",
                                                    *fields]) + "\r\n\r\n")
            few, many = instructions(program, head, 100), instructions(program, head, 300)
            if few is None or many is None:
                return []
            found.append((many - few) // 200)
    finally:
        place.stop()
    return found


def main():
    binary = os.path.abspath(sys.argv[1])
    program = sys.argv[2] if len(sys.argv) > 2 else None
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 12000:
        fail(f"10,000 connections need a hard limit of open files above {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    begin = time.monotonic()
    figures = {(row, size): [] for row, sizes in SIZES.items() for size in sizes}
    for number in range(ROUNDS):
        for row, size in figures if number % 2 == 0 else reversed(figures):
            figures[row, size].append(measure(binary, row, size))
    print(f"CPU µs per request of the whole process tree; median of {ROUNDS} rounds of {SECONDS:g} s "
          f"(lowest to highest); {time.monotonic() - begin:.0f} s\n")
    for row, sizes in SIZES.items():
        print(f"| {row} | " + " | ".join(f"{size:,}" for size in sizes) + " |")
        print("|---|" + "--:|" * len(sizes))
        cells = [figures[row, size] for size in sizes]
        print("| CPU µs | " + " | ".join(
            f"{statistics.median(cell):.2f} ({min(cell):.2f} to {max(cell):.2f})"
            for cell in cells) + " |")
        if row == "header fields" and program and (counts := parser_row(program)):
            print("| instructions of the parser (SSE4.2) | " +
                  " | ".join(f"{count:,}" for count in counts) + " |")
            print("| of these per field | " + " | ".join(
                f"{count / size:,.0f}" for count, size in zip(counts, sizes)) + " |")
        print()


if __name__ == "__main__":
    main()
