# SPDX-License-Identifier: Apache-2.0
"""An application of its own language behind narwhal, behind nginx and under gunicorn. apps.sh
installs, builds and calls this; docs/benchmarks.md says how to read it. Not a test: nothing fails for
being slow.

Nothing is pinned: the application takes all the CPU there is, and what the proxy takes is missing to
it. All servers run the whole time, only one of them has load; they take turns within each round, in
an order that turns from round to round."""
import collections
import os
import re
import signal
import statistics
import subprocess
import sys
import time
import urllib.request

from bench import HERE, TICKS, Bench, fail, free_port, process_tree

PEERS = ["narwhal", "nginx", "gunicorn"]
UVICORN = "/usr/bin/uvicorn"
CPUS = ",".join(map(str, sorted(os.sched_getaffinity(0))))


def start_narwhal(bench):
    port = free_port()
    bench.run("narwhal", [bench.binary, "-c", bench.write("narwhal.ini", f"""
[master]
bind = 127.0.0.1:{port}
workers = 2
[log]
access = off
[backend:hello]
command = {UVICORN} apps_hello:app --fd {{fd}} --no-access-log --log-level warning
directory = {HERE}
instances = 2
[route:all]
backend = hello
""")], CPUS)
    bench.wait_port("narwhal", port)


def start_nginx(bench):
    port, servers = free_port(), ""
    for number in (1, 2):
        path = bench.path(f"uvicorn{number}.sock")
        servers += f"server unix:{path};\n"
        bench.run(f"uvicorn{number}", [UVICORN, "apps_hello:app", "--uds", path, "--no-access-log",
                                       "--log-level", "warning", "--app-dir", HERE], CPUS)
    temporary = "".join(f"{kind}_temp_path {bench.path('nginx-' + kind)};\n" for kind in
                        ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root;" if os.geteuid() == 0 else ""
    bench.run("nginx", ["/usr/sbin/nginx", "-e", bench.path("nginx.log"), "-c",
                        bench.write("nginx.conf", f"""
daemon off;
{user}
worker_processes 2;
pid {bench.path('nginx.pid')};
events {{ worker_connections 1000; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    {temporary}
    upstream hello {{
        zone hello 256k;
        least_conn;
        {servers}
        keepalive 32;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://hello;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $http_host;
        }}
    }}
}}
""")], CPUS)
    bench.wait_port("nginx", port)


def start_gunicorn(bench):
    port = free_port()
    bench.run("gunicorn", ["/usr/bin/gunicorn", "apps_hello:app", "--workers", "2",
                           "--worker-class", "uvicorn.workers.UvicornWorker", "--chdir", HERE,
                           "--bind", f"127.0.0.1:{port}", "--log-level", "warning"], CPUS)
    bench.wait_port("gunicorn", port)


def wait_answer(bench, name):
    """Until the application itself answers; narwhal and nginx listen before it does."""
    for _ in range(600):
        try:
            with urllib.request.urlopen(bench.urls[name], timeout=10) as response:
                assert response.read() == b'{"hello":"world"}'
                return
        except OSError:
            time.sleep(0.05)
    fail(f"the application behind {name} does not answer")


def cpu_of(bench, name):
    """(CPU ticks of the proxy, of the application): which process is which says its command."""
    roots = [bench.processes[name].pid]
    if name == "nginx":
        roots += [bench.processes[each].pid for each in ("uvicorn1", "uvicorn2")]
    proxy = app = 0
    for pid in (each for root in roots for each in process_tree(root)):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = file.read()
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        if b"uvicorn" in command:
            app += ticks
        else:
            proxy += ticks
    return proxy, app


def wrk(bench, name, seconds):
    """(requests/s, p99 in ms, CPU µs a request of the proxy, of the application)"""
    before = cpu_of(bench, name)
    done = subprocess.run(["wrk", "-t1", "-c32", "--latency", "--timeout", "10s", f"-d{seconds}s",
                           bench.urls[name]], stdout=subprocess.PIPE, text=True, check=True)
    after = cpu_of(bench, name)
    if re.search("Non-2xx|Socket errors", done.stdout):
        fail(f"{name} did not answer every request: {done.stdout}")
    requests = int(re.search(r"(\d+) requests in", done.stdout)[1])
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)[1])
    value, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)\b", done.stdout).groups()
    p99 = float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit]
    used = [1e6 * (end - begin) / TICKS / requests for begin, end in zip(before, after)]
    return rate, p99, *used


def main():
    rounds = int(os.environ.get("ROUNDS", "5"))
    seconds = int(os.environ.get("SECONDS_EACH", "5"))
    with open("/proc/loadavg", encoding="ascii") as file:
        load = file.read().split()[0]
    loop = subprocess.run(["/usr/bin/python3", "-c", "import uvloop, httptools"],
                          stderr=subprocess.DEVNULL, check=False).returncode == 0
    bench = Bench(sys.argv[1])
    results = collections.defaultdict(list)
    try:
        for name in PEERS:
            globals()[f"start_{name}"](bench)
        for name in PEERS:
            wait_answer(bench, name)
            wrk(bench, name, 2)  # warm
        for number in range(rounds):
            print(f"bench: round {number + 1} of {rounds}", file=sys.stderr)
            turn = number % len(PEERS)
            order = PEERS[turn:] + PEERS[:turn]
            for name in order if number % 2 == 0 else order[::-1]:
                results[name].append(wrk(bench, name, seconds))
    finally:
        bench.stop()
    if os.environ.get("BENCH_RAW"):
        with open(os.environ["BENCH_RAW"], "w", encoding="ascii") as file:
            for name in PEERS:
                for values in results[name]:
                    print(name, *values, file=file)
    print(f"\n{time.strftime('%Y-%m-%d', time.gmtime())}, {os.cpu_count()} CPUs, "
          f"Linux {os.uname().release}, load average before the run {load}, uvicorn with "
          f"{'uvloop and httptools' if loop else 'asyncio and h11'}, median of {rounds} rounds of "
          f"{seconds} s, wrk -t1 -c32\n")
    print("| FastAPI hello world | requests/s | p99 ms | CPU µs/request, proxy | application | "
          "requests/s : nginx | : gunicorn |\n|---|--:|--:|--:|--:|--:|--:|")
    medians = {name: [statistics.median(column) for column in zip(*results[name])]
               for name in PEERS}
    for name, (rate, p99, proxy, app) in medians.items():
        proxy_text = "" if name == "gunicorn" else f"{proxy:.1f}"
        print(f"| {name} | {rate:.0f} | {p99:.1f} | {proxy_text} | {app:.0f} | "
              f"{rate / medians['nginx'][0]:.2f} | {rate / medians['gunicorn'][0]:.2f} |")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
