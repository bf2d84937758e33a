# SPDX-License-Identifier: Apache-2.0
"""Single-request servers behind narwhal, nginx and HAProxy, and the cost of many servers and of many
requests that wait. backends.sh installs, builds and calls this; docs/benchmarks.md says how to read
it. Not a test: nothing fails for being slow."""
import concurrent.futures
import contextlib
import http.client
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from bench import HERE, Bench, Row, fail, free_port, wrk

REPOSITORY = os.path.dirname(os.path.dirname(HERE))
TABLES = ["busy", "eight", "servers", "pooled", "queued", "choice"]
PEERS = ["narwhal", "nginx", "haproxy"]
# A quick request takes a millisecond or two; one that stood behind a held one takes far longer.
WAITED_S = 0.1


class SingleServer:
    """Takes one request at a time, as a synchronous application server does, and closes after each.
    /hold is answered when it is let go, /sleep after 0.25 s, everything else at once."""

    def __init__(self):
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(128)
        self.port = self.listener.getsockname()[1]
        self.holds = threading.Event()
        self.let_go = threading.Event()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            stream, _ = self.listener.accept()
            with stream, contextlib.suppress(OSError):
                head = b""
                while b"\r\n\r\n" not in head:
                    data = stream.recv(65536)
                    if not data:
                        break
                    head += data
                if head.startswith(b"GET /hold"):
                    self.holds.set()
                    self.let_go.wait()
                    self.holds.clear()
                elif head.startswith(b"GET /sleep"):
                    time.sleep(0.25)
                stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")


def start_peer(bench, name, ports):
    port = free_port()
    if name == "narwhal":
        servers = "\n".join(f"server = 127.0.0.1:{each}" for each in ports)
        bench.run(name, [bench.binary, "-c", bench.write("single.ini", f"""
[master]
bind = 127.0.0.1:{port}
workers = 2
[log]
access = off
[backend:single]
{servers}
slots = 1
[route:all]
backend = single
""")])
    elif name == "nginx":
        servers = "\n".join(f"server 127.0.0.1:{each} max_conns=1;" for each in ports)
        temporary = "".join(f"{kind}_temp_path {bench.path('nginx-' + kind)};\n" for kind in
                            ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        bench.run(name, ["/usr/sbin/nginx", "-e", bench.path("nginx.log"), "-c",
                         bench.write("single.conf", f"""
daemon off;
worker_processes 2;
pid {bench.path('nginx.pid')};
events {{ worker_connections 1000; }}
http {{
    access_log off;
    {temporary}
    upstream single {{
        zone single 256k;
        least_conn;
        {servers}
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://single; }}
    }}
}}
""")])
    else:
        servers = "\n".join(f"    server s{each} 127.0.0.1:{each} maxconn 1" for each in ports)
        bench.run(name, ["haproxy", "-W", "-f", bench.write("single.cfg", f"""
global
    nbthread 2
defaults
    mode http
    timeout client 75s
    timeout server 75s
    timeout connect 5s
    timeout queue 5s
frontend front
    bind 127.0.0.1:{port}
    default_backend single
backend single
    balance leastconn
{servers}
""")])
    bench.wait_port(name, port)


def get(url, path):
    """(status, seconds); status 0: the connection broke."""
    begin = time.monotonic()
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except OSError:
        status = 0
    finally:
        connection.close()
    return status, time.monotonic() - begin


@contextlib.contextmanager
def front(binary, name):
    """A proxy before four new single-request servers."""
    bench = Bench(binary)
    servers = [SingleServer() for _ in range(4)]
    try:
        start_peer(bench, name, [server.port for server in servers])
        yield bench.urls[name], servers
    finally:
        for server in servers:
            server.let_go.set()
        bench.stop()


def busy(binary, rounds, _seconds):
    print("\n4 single-request servers, 3 busy: 60 quick requests, one after another\n")
    print("| server | waited | failed | median ms | worst ms |\n|---|--:|--:|--:|--:|")
    for name in PEERS:
        results = []
        for _ in range(rounds):
            with front(binary, name) as (url, servers), \
                    concurrent.futures.ThreadPoolExecutor(70) as pool:
                held = []
                for count in range(1, 4):
                    held.append(pool.submit(get, url, "/hold"))
                    while sum(server.holds.is_set() for server in servers) < count:
                        time.sleep(0.001)
                # What stands behind a held request would never end: after a second all are let go.
                ending = threading.Timer(1.0, lambda servers=servers:
                                         [server.let_go.set() for server in servers])
                ending.start()
                results += [get(url, "/quick") for _ in range(60)]
                ending.cancel()
                for server in servers:
                    server.let_go.set()
                concurrent.futures.wait(held)
        times = [seconds for _, seconds in results]
        print(f"| {name} | {sum(seconds > WAITED_S for seconds in times)} of {len(times)} | "
              f"{sum(status != 200 for status, _ in results)} | "
              f"{1000 * statistics.median(times):.1f} | {1000 * max(times):.1f} |")


def eight(binary, rounds, _seconds):
    print("\n8 requests of 0.25 s at once, 4 single-request servers\n")
    print("| server | failed | median of the worst ms | worst ms |\n|---|--:|--:|--:|")
    for name in PEERS:
        worst, failed = [], 0
        with front(binary, name) as (url, _), concurrent.futures.ThreadPoolExecutor(8) as pool:
            get(url, "/quick")
            for _ in range(rounds):
                results = list(pool.map(lambda _, url=url: get(url, "/sleep"), range(8)))
                worst.append(1000 * max(seconds for _, seconds in results))
                failed += sum(status != 200 for status, _ in results)
        print(f"| {name} | {failed} of {8 * rounds} | {statistics.median(worst):.0f} | "
              f"{max(worst):.0f} |")


def established_to(port):
    """Connections to a port of this machine (proc(5), /proc/net/tcp)."""
    with open("/proc/net/tcp", encoding="ascii") as file:
        next(file)
        return sum(fields[2].endswith(f":{port:04X}") and fields[3] == "01"
                   for fields in map(str.split, file))


def cpu_of(binary, backend, connections, seconds, rounds, fill=0):
    """CPU µs a request of one worker, median; the upstream answers on all of 127.0.0.0/8. With fill,
    so many clients were there before, and the pool has what they left: (µs, connections in it)."""
    bench = Bench(binary)
    try:
        bench.start_canned("upstream", 1, address="0.0.0.0")
        upstream_port = bench.urls["upstream"].rpartition(":")[2]
        port = free_port()
        bench.run("narwhal", [binary, "-c", bench.write("cost.ini", f"""
[master]
bind = 127.0.0.1:{port}
workers = 1
[worker]
connections = 12000
[log]
access = off
[backend:canned]
{backend(upstream_port)}
[route:all]
backend = canned
""")])
        bench.wait_port("narwhal", port)
        row = Row("", "/", [], [f"-c{connections}", "--timeout", "30s"])
        seconds += connections // 2000  # ten thousand connections take a while to be there
        if fill:
            wrk(bench, Row("", "/", [], [f"-c{fill}", "--timeout", "30s"]), "narwhal", 2 + fill // 2000)
        wrk(bench, row, "narwhal", 1 + connections // 2000)  # warm
        pooled = established_to(int(upstream_port))
        cost = statistics.median(wrk(bench, row, "narwhal", seconds)[1] for _ in range(rounds))
        return (cost, pooled) if fill else cost
    finally:
        bench.stop()


def servers(binary, rounds, seconds):
    print("\nservers of one backend, wrk -c32, slots = 0 (idle ones are there) and slots = 1\n")
    print("| balance | servers | CPU µs/request | slots = 1 |\n|---|--:|--:|--:|")
    for balance in ("least_busy", "round_robin", "hash", "random2"):
        for count in (1, 10, 100, 1000):
            def lines(port, slots, count=count, balance=balance):
                addresses = (f"server = 127.0.{1 + i // 250}.{1 + i % 250}:{port}"
                             for i in range(count))
                return "\n".join([*addresses, f"balance = {balance}", f"slots = {slots}",
                                  "idle_timeout = 30s"])
            cells = [cpu_of(binary, lambda port, slots=slots, lines=lines: lines(port, slots), 32,
                            seconds, rounds) for slots in (0, 1)]
            print(f"| {balance} | {count} | {cells[0]:.1f} | {cells[1]:.1f} |", flush=True)


def pooled(binary, rounds, seconds):
    print("\nidle connections to one server, of which 8 at a time are used (wrk -c8)\n")
    print("| in the pool | CPU µs/request |\n|--:|--:|")
    for count in (8, 100, 1000, 8000):
        cost, there = cpu_of(binary, lambda port: f"server = 127.0.0.1:{port}\n"
                             "idle_connections = 16000\nidle_timeout = 10m", 8, seconds, rounds,
                             count)
        print(f"| {there} | {cost:.1f} |", flush=True)


def queued(binary, rounds, seconds):
    print("\nrequests that wait for the only slot, all the time (wrk -c as many and one)\n")
    print("| waiting | CPU µs/request |\n|--:|--:|")
    for waiting in (0, 1, 10, 100, 1000, 10000):
        cost = cpu_of(binary, lambda port: f"server = 127.0.0.1:{port}\nslots = 1\nqueue = 16000\n"
                      "queue_timeout = 30s", waiting + 1, seconds, rounds)
        print(f"| {waiting} | {cost:.1f} |", flush=True)


def choice(_binary, _rounds, _seconds):
    """The choice and the queue alone, without a network: balance_cost.c."""
    with tempfile.TemporaryDirectory(prefix="narwhal-bench-") as folder:
        program = os.path.join(folder, "balance_cost")
        sources = ["tests/bench/balance_cost.c", "worker/proxy/balance.c", "worker/scoreboard.c",
                   "worker/proxy/health.c", "worker/slot_queue.c", "config/base/buf.c",
                   "config/base/check.c", "config/base/clock.c", "config/base/fd.c",
                   "config/base/log.c", "config/base/reserve.c", "config/base/stack_trace.c"]
        subprocess.run(["cc", "-O2", "-flto", "-std=gnu11", "-D_GNU_SOURCE", f"-I{REPOSITORY}",
                        "-o", program, *(os.path.join(REPOSITORY, source) for source in sources)],
                       check=True)
        print("\nthe choice and the queue alone, nanoseconds each\n", flush=True)
        subprocess.run(["taskset", "-c", "0", program], check=True)


def main():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    names = os.environ.get("BENCH_ONLY", "").split() or TABLES
    for name in names:
        if name not in TABLES:
            fail(f"BENCH_ONLY: there is no table {name}; there are {' '.join(TABLES)}")
    rounds = int(os.environ.get("ROUNDS", "5"))
    seconds = int(os.environ.get("SECONDS_EACH", "3"))
    with open("/proc/loadavg", encoding="ascii") as file:
        load = file.read().split()[0]
    print(f"{time.strftime('%Y-%m-%d', time.gmtime())}, {os.cpu_count()} CPUs, "
          f"Linux {os.uname().release}, load average before the run {load}, {rounds} rounds, "
          f"{seconds} s each")
    for name in names:
        globals()[name](sys.argv[1], rounds, seconds)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
