# SPDX-License-Identifier: Apache-2.0
"""The work of failures.sh: recording servers behind each proxy, clients that pause, and what failed
or was executed twice."""
import collections
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "blackbox"))
from pausing import Pausing  # noqa: E402
from recorder import Recorder  # noqa: E402

ROUNDS = int(os.environ.get("ROUNDS", "3"))
CLIENTS = 48


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_listening(port):
    end = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


NARWHAL = """[master]
bind = 127.0.0.1:{port}
workers = 2
[backend:b]
{servers}
[route:b]
path = /
backend = b
"""
NGINX = """worker_processes 2;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log crit;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    upstream b {{ {servers} keepalive 32; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection ""; }}
    }}
}}
"""
HAPROXY = """global
    nbthread 2
defaults
    mode http
    timeout connect 1s
    timeout client 30s
    timeout server 30s
    option redispatch
frontend f
    bind 127.0.0.1:{port}
    default_backend b
backend b
    {servers}
"""


def narwhal_command(folder, port, servers):
    path = os.path.join(folder, "narwhal.ini")
    with open(path, "w", encoding="ascii") as file:
        file.write(NARWHAL.format(port=port, servers="\n".join(f"server = {one}"
                                                               for one in servers)))
    return [os.path.abspath(sys.argv[1]), "-c", path]


def nginx_command(folder, port, servers):
    path = os.path.join(folder, "nginx.conf")
    with open(path, "w", encoding="ascii") as file:
        file.write(NGINX.format(folder=folder, port=port,
                                servers=" ".join(f"server {one};" for one in servers)))
    return ["nginx", "-p", folder, "-c", path]


def haproxy_command(folder, port, servers):
    path = os.path.join(folder, "haproxy.cfg")
    with open(path, "w", encoding="ascii") as file:
        file.write(HAPROXY.format(port=port, servers="\n    ".join(
            f"server s{number} {one} check inter 200ms" for number, one in enumerate(servers))))
    return ["haproxy", "-db", "-f", path]


PROXIES = {"narwhal": narwhal_command, "nginx": nginx_command, "HAProxy": haproxy_command}


@contextlib.contextmanager
def running(command):
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def run(proxy, folder, count, ends=None, **options):
    """One run: (asked, failed GET, failed POST, executed twice)."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Recorder(folder, f"s{number}", **options))
                   for number in range(count)]
        port = free_port()
        stack.enter_context(running(
            PROXIES[proxy](folder, port, [one.server for one in servers])))
        wait_listening(port)
        time.sleep(0.3)  # HAProxy's first checks
        load = Pausing(("127.0.0.1", port), CLIENTS, pause_ms=10)
        thread = threading.Thread(target=load.run, kwargs={"seconds": 4})
        thread.start()
        for number in range(count if ends else 0):
            time.sleep(0.4)
            servers[number].kill(ends)
            time.sleep(0.4)
            servers[number].start()
        thread.join()
        executed = collections.Counter(line for one in servers for line in one.executed())
        failed = collections.Counter(line.split()[0] for line in load.failures)
        return (len(load.answered) + len(load.failures), failed["GET"], failed["POST"],
                sum(count > 1 for count in executed.values()))


ROWS = [("1 server closes idle connections after 4 ms", {"count": 1, "idle_ms": 4}),
        ("each of 3 servers ends (SIGTERM) and returns",
         {"count": 3, "delay_ms": 1, "ends": signal.SIGTERM}),
        ("each of 3 servers is killed (SIGKILL) and returns",
         {"count": 3, "delay_ms": 1, "ends": signal.SIGKILL})]


def main():
    print(f"{CLIENTS} clients, half of them POST, pausing 0 to 10 ms; {ROUNDS} runs of 4 s each\n")
    print("| what happens | proxy | requests | failed GET | failed POST | executed twice |")
    print("|---|---|---|---|---|---|")
    for text, options in ROWS:
        for proxy in PROXIES:
            total = [0, 0, 0, 0]
            for _ in range(ROUNDS):
                with tempfile.TemporaryDirectory(prefix="narwhal-failures-") as folder:
                    os.chmod(folder, 0o755)
                    total = [a + b for a, b in zip(total, run(proxy, folder, **options))]
            print(f"| {text} | {proxy} | " + " | ".join(map(str, total)) + " |", flush=True)


if __name__ == "__main__":
    main()
