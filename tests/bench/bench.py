# SPDX-License-Identifier: Apache-2.0
"""narwhal and its peers on the same work in one run: requests/s and CPU microseconds per request, as
one table with ratios. run.sh installs, builds and calls this; docs/benchmarks.md says how to read
it. Not a test: nothing fails for being slow.

The servers are pinned to CPU 0, the load and the upstream to CPU 1. All run the whole time, only one
of them has load; they take turns within each round, in an order that turns from round to round.
"""
import argparse
import collections
import contextlib
import os
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
TICKS = os.sysconf("SC_CLK_TCK")

Row = collections.namedtuple("Row", "title path peers options")
# peers besides narwhal; options of wrk. limit and limit1k are canned.c with the same body, limit_copy
# and limit_copy100k are copy_proxy.c in front of the same upstream.
ROWS = {
    "tiny": Row("tiny response", "/tiny", ["nginx", "haproxy", "limit"], []),
    "1k": Row("1 KiB file", "/files/1k", ["nginx", "h2o", "lighttpd", "limit1k"], []),
    "100k": Row("100 KiB file", "/files/100k", ["nginx", "h2o", "lighttpd"], []),
    "10m": Row("10 MiB file", "/files/10m", ["nginx", "h2o", "lighttpd"], []),
    "connect": Row("1 KiB file, new connection", "/files/1k", ["nginx", "h2o", "lighttpd"],
                   ["-H", "Connection: close"]),
    "pipelined": Row("tiny response, pipelined 16 deep", "/tiny", ["nginx", "haproxy"],
                     ["-s", os.path.join(HERE, "pipeline.lua")]),
    "proxied": Row("proxied tiny response", "/proxied", ["nginx", "haproxy", "limit_copy"], []),
    "proxied100k": Row("proxied 100 KiB response", "/proxied100k",
                       ["nginx", "haproxy", "limit_copy100k"], []),
}
SIZES = {"1k": 1 << 10, "100k": 100 << 10, "10m": 10 << 20}


def fail(text):
    sys.exit(f"bench: {text}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def process_tree(pid):
    found = [pid]
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
            for child in file.read().split():
                found += process_tree(int(child))
    return found


def ticks_of(pid):
    """utime + stime of a process and all below it (proc(5)); the name may hold blanks."""
    total = 0
    for each in process_tree(pid):
        with open(f"/proc/{each}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total


def pss_kib_of(pid):
    total = 0
    for each in process_tree(pid):
        with open(f"/proc/{each}/smaps_rollup", encoding="ascii") as file:
            total += next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return total


# ---- servers -------------------------------------------------------------------------------------
class Bench:
    def __init__(self, binary):
        self.binary = binary
        self.folder = tempfile.mkdtemp(prefix="narwhal-bench-")
        os.chmod(self.folder, 0o755)  # peers that root starts read as another user
        os.mkdir(self.path("files"))
        for name, size in SIZES.items():
            with open(self.path("files", name), "wb") as file:
                file.write(os.urandom(size))
        self.processes = {}
        self.urls = {}

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="ascii") as file:
            file.write(text)
        return self.path(name)

    def run(self, name, command, cpu=0, **more):
        with open(self.path(f"{name}.log"), "wb") as log:
            self.processes[name] = subprocess.Popen(
                ["taskset", "-c", str(cpu), *command], stdin=subprocess.DEVNULL,
                stderr=log, cwd=self.folder, **{"stdout": log, **more})
        return self.processes[name]

    def wait_port(self, name, port):
        for _ in range(400):
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                self.urls[name] = f"http://127.0.0.1:{port}"
                return
            if self.processes[name].poll() is not None:
                break
            time.sleep(0.02)
        with open(self.path(f"{name}.log"), encoding="utf-8", errors="replace") as log:
            fail(f"{name} did not start; it said: {log.read()}")

    def stop(self):
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    # canned.c: the upstream, and the limits
    def start_canned(self, name, cpu, body_size=3, address="127.0.0.1"):
        program = self.path("canned")
        if not os.path.exists(program):
            subprocess.run(["cc", "-O2", "-D_GNU_SOURCE", "-o", program,
                            os.path.join(HERE, "canned.c")], check=True)
        process = self.run(name, [program, str(body_size), address], cpu, stdout=subprocess.PIPE)
        self.wait_port(name, int(process.stdout.readline()))

    def start_copy_proxy(self, name, cpu, upstream):
        program = self.path("copy_proxy")
        if not os.path.exists(program):
            subprocess.run(["cc", "-O2", "-D_GNU_SOURCE", "-o", program,
                            os.path.join(HERE, "copy_proxy.c")], check=True)
        process = self.run(name, [program, self.upstream(upstream).partition(":")[2]], cpu,
                           stdout=subprocess.PIPE)
        self.wait_port(name, int(process.stdout.readline()))

    def upstream(self, name):
        return self.urls[name].removeprefix("http://")

    def start_narwhal(self):
        port = free_port()
        self.run("narwhal", [self.binary, "-c", self.write("narwhal.ini", f"""
[master]
bind = 127.0.0.1:{port}
workers = 1
[log]
access = off
[backend:canned]
server = {self.upstream("upstream")}
[backend:canned100k]
server = {self.upstream("upstream100k")}
[route:tiny]
path = =/tiny
respond = 200 ok
[route:files]
path = /files
static = files
[route:proxied]
path = =/proxied
backend = canned
[route:proxied100k]
path = =/proxied100k
backend = canned100k
""")])
        self.wait_port("narwhal", port)

    def start_nginx(self):
        port = free_port()
        temporary = "".join(f"{kind}_temp_path {self.path('nginx-' + kind)};\n" for kind in
                            ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        self.run("nginx", ["/usr/sbin/nginx", "-e", self.path("nginx.log"), "-c",
                           self.write("nginx.conf", f"""
daemon off;
worker_processes 1;
pid {self.path('nginx.pid')};
events {{ worker_connections 10000; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 75s;
    keepalive_requests 1000000000;
    open_file_cache max=1000;
    open_file_cache_valid 1s;
    default_type application/octet-stream;
    {temporary}
    upstream canned {{
        server {self.upstream("upstream")};
        keepalive 32;
        keepalive_requests 1000000000;
    }}
    upstream canned100k {{
        server {self.upstream("upstream100k")};
        keepalive 32;
        keepalive_requests 1000000000;
    }}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Forwarded-Host $http_host;
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        location = /tiny {{ default_type text/plain; return 200 "ok\\n"; }}
        location /files {{ root {self.folder}; }}
        location = /proxied {{ proxy_pass http://canned; }}
        location = /proxied100k {{ proxy_pass http://canned100k; }}
    }}
}}
""")])
        self.wait_port("nginx", port)

    def start_h2o(self):
        port = free_port()
        user = "user: root\n" if os.geteuid() == 0 else ""
        self.run("h2o", ["h2o", "-c", self.write("h2o.conf", f"""{user}
num-threads: 1
max-connections: 9000
listen:
  host: 127.0.0.1
  port: {port}
http1-request-timeout: 75
hosts:
  default:
    paths:
      /files:
        file.dir: {self.path('files')}
""")])
        self.wait_port("h2o", port)

    def start_lighttpd(self):
        port = free_port()
        self.run("lighttpd", ["lighttpd", "-D", "-f", self.write("lighttpd.conf", f"""
server.document-root = "{self.folder}"
server.bind = "127.0.0.1"
server.port = {port}
server.max-keep-alive-requests = 1000000000
server.max-keep-alive-idle = 75
server.max-connections = 9000
server.max-fds = 18100
server.stat-cache-engine = "simple"
""")])
        self.wait_port("lighttpd", port)

    def start_haproxy(self):
        port = free_port()
        self.run("haproxy", ["haproxy", "-W", "-f", self.write("haproxy.cfg", f"""
global
    nbthread 1
    maxconn 9000
defaults
    mode http
    timeout client 75s
    timeout server 75s
    timeout connect 5s
    timeout http-keep-alive 75s
frontend front
    bind 127.0.0.1:{port}
    http-request return status 200 content-type text/plain lf-string "ok\\n" if {{ path /tiny }}
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    use_backend canned if {{ path /proxied }}
    use_backend canned100k if {{ path /proxied100k }}
backend canned
    http-reuse always
    server canned {self.upstream("upstream")}
backend canned100k
    http-reuse always
    server canned {self.upstream("upstream100k")}
""")])
        self.wait_port("haproxy", port)

    def start(self, names):
        self.start_canned("upstream", 1)
        self.start_canned("upstream100k", 1, SIZES["100k"])
        for name in names:
            if name == "limit":
                self.start_canned(name, 0)
            elif name == "limit1k":
                self.start_canned(name, 0, 1 << 10)
            elif name == "limit_copy":
                self.start_copy_proxy(name, 0, "upstream")
            elif name == "limit_copy100k":
                self.start_copy_proxy(name, 0, "upstream100k")
            else:
                getattr(self, f"start_{name}")()


# ---- measurements --------------------------------------------------------------------------------
def wrk(bench, row, server, seconds):
    """(requests/s, CPU µs a request, share of CPU 0)."""
    pid = bench.processes[server].pid
    url = bench.urls[server] + row.path
    before, begin = ticks_of(pid), time.monotonic()
    done = subprocess.run(["taskset", "-c", "1", "wrk", "-t1", "-c32", "--timeout", "10s", f"-d{seconds}s",
                           *row.options, url], stdout=subprocess.PIPE, text=True, check=True)
    used, took = (ticks_of(pid) - before) / TICKS, time.monotonic() - begin
    if re.search("Non-2xx|Socket errors", done.stdout):
        fail(f"{server} did not answer every request of {url}: {done.stdout}")
    requests = int(re.search(r"(\d+) requests in", done.stdout)[1])
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)[1])
    return rate, 1e6 * used / requests, used / took


def check_bodies(bench, row):
    bodies = {}
    for server in ["narwhal", *row.peers]:
        if not server.startswith("limit"):
            with urllib.request.urlopen(bench.urls[server] + row.path) as response:
                bodies[server] = response.read()
    if len(set(bodies.values())) != 1:
        fail(f"{row.path}: the servers send different bodies")


def measure(bench, names, rounds, seconds):
    results = collections.defaultdict(list)
    for name in names:
        check_bodies(bench, ROWS[name])
        for server in ["narwhal", *ROWS[name].peers]:
            wrk(bench, ROWS[name], server, 1)  # warm
    for number in range(rounds):
        print(f"bench: round {number + 1} of {rounds}", file=sys.stderr)
        for name in names:
            servers = ["narwhal", *ROWS[name].peers]
            servers = servers[number % len(servers):] + servers[:number % len(servers)]
            for server in servers if number % 2 == 0 else servers[::-1]:
                results[name, server].append(wrk(bench, ROWS[name], server, seconds))
    return results


def ratio(a, b):
    return f"{a / b:.2f}" if a is not None and b else ""


def print_table(results, names, raw):
    print("| work | server | requests/s | CPU µs/request | CPU 0 busy | CPU : best peer | "
          "CPU : limit | requests/s : nginx |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    for name in names:
        medians = {}
        for server in ["narwhal", *ROWS[name].peers]:
            columns = list(zip(*results[name, server]))
            medians[server] = [statistics.median(column) for column in columns]
            if raw:
                for values in results[name, server]:
                    print(name, server, *values, file=raw)
        limit = next((found for server, found in medians.items() if server.startswith("limit")),
                     None)
        best = min(found[1] for server, found in medians.items()
                   if server != "narwhal" and not server.startswith("limit"))
        for server, (rate, cpu, busy) in medians.items():
            is_limit = server.startswith("limit")
            source = "copy_proxy.c" if server.startswith("limit_copy") else "canned.c"
            print(f"| {ROWS[name].title} | {f'limit ({source})' if is_limit else server} | "
                  f"{rate:.0f} | {cpu:.2f} | {100 * busy:.0f} % | "
                  f"{'' if is_limit else ratio(cpu, best)} | "
                  f"{ratio(cpu, limit[1]) if limit else ''} | "
                  f"{'' if is_limit else ratio(rate, medians['nginx'][0])} |")


def idle_memory(bench, servers, count):
    """KiB of PSS that each of count idle connections costs after one request."""
    print(f"\n| {count} idle keep-alive connections after one request each | KiB PSS each |")
    print("|---|--:|")
    for server in servers:
        pid = bench.processes[server].pid
        host, port = bench.urls[server].removeprefix("http://").split(":")
        before = pss_kib_of(pid)
        with contextlib.ExitStack() as stack:
            for _ in range(count):
                client = stack.enter_context(socket.create_connection((host, int(port)), 10))
                client.sendall(b"GET /tiny HTTP/1.1\r\nHost: bench\r\n\r\n"
                               if server in ("narwhal", "nginx", "haproxy") else
                               b"GET /files/1k HTTP/1.1\r\nHost: bench\r\n\r\n")
                client.recv(65536)
            print(f"| {server} | {(pss_kib_of(pid) - before) / count:.3f} |")


def system_calls(bench, servers, requests=2000):
    """System calls of one kept connection, by strace -c."""
    print("\n| system calls of a keep-alive request | all | epoll_wait |")
    print("|---|--:|--:|")
    for server in servers:
        pids = process_tree(bench.processes[server].pid)
        out = bench.path("strace")
        tracer = subprocess.Popen(["strace", "-f", "-c", "-o", out,
                                   *[word for pid in pids for word in ("-p", str(pid))]],
                                  stderr=subprocess.PIPE)
        for _ in pids:
            tracer.stderr.readline()  # attached
        host, port = bench.urls[server].removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 10) as client:
            path = b"/files/1k" if server in ("h2o", "lighttpd") else b"/tiny"
            for _ in range(requests):
                client.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: bench\r\n\r\n")
                client.recv(65536)
        tracer.send_signal(signal.SIGINT)
        tracer.wait(30)
        tracer.stderr.close()
        calls = {}
        with open(out, encoding="ascii") as file:
            for line in file:
                fields = line.split()
                if len(fields) >= 5 and fields[3].isdigit():
                    calls[fields[-1]] = int(fields[3])
        total = calls.pop("total", sum(calls.values()))
        waits = sum(number for name, number in calls.items() if name.startswith("epoll_"))
        print(f"| {server} | {total / requests:.2f} | {waits / requests:.2f} |")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rounds = int(os.environ.get("ROUNDS", "5"))
    seconds = int(os.environ.get("SECONDS_EACH", "3"))
    names = os.environ.get("BENCH_ONLY", "").split() or [*ROWS, "memory", "calls"]
    unknown = [name for name in names if name not in [*ROWS, "memory", "calls"]]
    if unknown:
        fail(f"BENCH_ONLY: there is no row {unknown[0]}; there are {' '.join(ROWS)} memory calls")
    if not {0, 1} <= os.sched_getaffinity(0):
        fail("this needs the CPUs 0 and 1")
    with open("/proc/loadavg", encoding="ascii") as file:
        load = file.read().split()[0]
    rows = [name for name in names if name in ROWS]
    servers = {"narwhal"} | {peer for name in rows for peer in ROWS[name].peers}
    servers |= {"nginx", "h2o", "lighttpd", "haproxy"} if set(names) & {"memory", "calls"} else set()
    bench = Bench(os.path.abspath(arguments.binary))
    try:
        bench.start(sorted(servers))
        results = measure(bench, rows, rounds, seconds) if rows else {}
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next((line.partition(": ")[2].strip() for line in file
                          if line.startswith("model name")), "unknown CPU")
        version = subprocess.run([bench.binary, "--version"], stdout=subprocess.PIPE, text=True,
                                 check=True).stdout.strip()
        print(f"\n{time.strftime('%Y-%m-%d', time.gmtime())}, {model}, {os.cpu_count()} CPUs, "
              f"Linux {os.uname().release}, load average before the run {load}\n{version}, "
              f"median of {rounds} rounds of {seconds} s, wrk -t1 -c32\n")
        if rows:
            raw_path = os.environ.get("BENCH_RAW")
            with open(raw_path, "w", encoding="ascii") if raw_path else \
                    contextlib.nullcontext() as raw:
                print_table(results, rows, raw)
        everybody = ["narwhal", "nginx", "h2o", "lighttpd", "haproxy"]
        if "memory" in names:
            idle_memory(bench, everybody, 8000)
        if "calls" in names:
            system_calls(bench, everybody)
    finally:
        bench.stop()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
