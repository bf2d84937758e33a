# SPDX-License-Identifier: Apache-2.0
"""Sends every file of tests/fixtures/requests to narwhal and to its peers, each in front of a
server that records what arrives, and compares. Started by run.sh; README.md says how to read it.

A case is one connection: the bytes of the file, and behind them an innocent request for /after,
which must not be taken for a request where the bytes before it were refused."""
import argparse
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "blackbox"))
import client  # noqa: E402
from backend import Backend, free_port  # noqa: E402

REQUESTS = HERE.parent / "fixtures/requests"
AFTER = b"GET /after HTTP/1.1\r\nHost: example.com\r\n\r\n"
# How long an answer may take before it counts as one that does not come.
PATIENCE = 1.0


class Recorder(Backend):
    """Answers everything with 200 and keeps the targets of the requests that were whole."""

    def __init__(self):
        self.whole = []
        super().__init__(self.record)

    def record(self, exchange):
        exchange.fields = [(name, value.lower() if name.lower() == "transfer-encoding" else value)
                           for name, value in exchange.fields]  # names of codings have no case
        try:
            exchange.body()
        except (AssertionError, OSError, TypeError):
            exchange.close()  # no request that a strict server takes
            return
        self.whole.append(exchange.target)
        body = b"" if exchange.line.startswith("HEAD ") else b"ok"
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + body)


class Verdict:
    def __init__(self, text, accepts, after):
        self.text, self.accepts, self.after = text, accepts, after

    def __str__(self):
        return self.text + ("+after" if self.after and not self.accepts else "")


class Server:
    """A peer that listens: how it is started, and what it makes of a case."""

    def __init__(self, name, program, folder, write):
        self.name, self.program, self.folder = name, program, folder / name
        self.folder.mkdir(mode=0o755)
        self.write = write
        self.process = None
        self.backend = Recorder()

    def start(self):
        environment = {name: value for name, value in os.environ.items()
                       if not name.startswith("NARWHAL_")}  # those are settings of narwhal
        for _ in range(5):  # the port was free a moment ago, which is no promise
            self.port = free_port()
            command = self.write(self)
            with open(self.folder / "log", "wb") as log:
                self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                                stderr=log, cwd=self.folder, env=environment)
            end = time.monotonic() + 20
            while time.monotonic() < end and self.process.poll() is None:
                try:
                    socket.create_connection(("127.0.0.1", self.port), 1).close()
                    return
                except OSError:
                    time.sleep(0.05)
            self.stop_process()
        raise SystemExit(f"differential: {self.name} does not start:\n"
                         + (self.folder / "log").read_text(errors="replace"))

    def stop_process(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def stop(self):
        self.stop_process()
        self.backend.stop()

    def file(self, name, text):
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    def judge(self, data):
        before = len(self.backend.whole)
        method = data.lstrip(b"\r\n").split(b" ")[0].decode("latin-1")
        status, text = 0, "closed"
        try:
            with client.Client(("127.0.0.1", self.port), deadline=PATIENCE) as connection:
                connection.send(data + AFTER)
                response = connection.response(method)
                status, text = response.status, str(response.status)
                if response.closes:
                    connection.rest()
                else:
                    connection.response("GET")
        except TimeoutError:
            text = text if status else "waits"
        except (client.ConnectionEnded, OSError):
            pass
        except client.BrokenResponse:
            # The head was good if the status is known; HTTP/0.9 has none.
            text = text if status else "broken"
        arrived = self.backend.whole[before:]
        after = any(target.endswith("/after") for target in arrived)
        others = [target for target in arrived if not target.endswith("/after")]
        return Verdict(text, bool(others) or 100 < status < 400, after)


class Parser:
    """libhttp-parser, which is a library: a program reads the bytes with it."""
    name = "http-parser"

    def __init__(self, folder):
        self.program = folder / "http_parser_probe"

    def start(self):
        subprocess.run(["cc", "-O1", "-o", self.program, HERE / "http_parser_probe.c",
                        "-lhttp_parser"], check=True)

    def stop(self):
        pass

    def judge(self, data):
        found = subprocess.run([self.program], input=data + AFTER, capture_output=True, check=True,
                               timeout=20).stdout.decode().split()
        return Verdict(found[0], found[0] == "accepts", "after" in found[1:])


# ---- how each is set up --------------------------------------------------------------------------
def narwhal(server):
    return [server.program, "--config", server.file("narwhal.ini", f"""\
[master]
bind = 127.0.0.1:{server.port}
workers = 1
[backend:b]
server = {server.backend.server}
[route:b]
path = /
backend = b
""")]


def nginx(server):
    return [server.program, "-p", str(server.folder), "-c", server.file("nginx.conf", f"""\
daemon off;
master_process off;
pid {server.folder}/pid;
error_log {server.folder}/error.log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {server.folder}/body;
    proxy_temp_path {server.folder}/proxy;
    fastcgi_temp_path {server.folder}/fastcgi;
    uwsgi_temp_path {server.folder}/uwsgi;
    scgi_temp_path {server.folder}/scgi;
    server {{
        listen 127.0.0.1:{server.port};
        location / {{
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_pass http://{server.backend.server};
        }}
    }}
}}
""")]


def haproxy(server):
    return [server.program, "-db", "-f", server.file("haproxy.cfg", f"""\
global
    maxconn 100
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 20s
    timeout server 20s
frontend f
    bind 127.0.0.1:{server.port}
    default_backend b
backend b
    server s {server.backend.server}
""")]


def h2o(server):
    user = "user: root\n" if os.geteuid() == 0 else ""
    return [server.program, "-c", server.file("h2o.conf", f"""\
{user}num-threads: 1
listen:
  host: 127.0.0.1
  port: {server.port}
hosts:
  default:
    paths:
      /:
        proxy.reverse.url: "http://{server.backend.server}/"
        proxy.preserve-host: ON
""")]


def program(name):
    return shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")


# ---- comparison ----------------------------------------------------------------------------------
def read_allowed(path):
    """{(file or *, peer or *): reason} of allowed.txt."""
    rows = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = re.fullmatch(r"(\S+)\s+(\S+)\s+(RFC \d+ section [\d.]+: .+)", line)
        if not match:
            raise SystemExit(f"{path}:{number}: not 'FILE PEER RFC N section N: reason'")
        rows[match[1], match[2]] = match[3]
    return rows


def run(peers, files):
    """{file: {peer: verdict}}; the peers side by side, each one case after the other."""
    found = {path: {} for path in files}

    def cases(peer):
        for path in files:
            found[path][peer.name] = peer.judge(path.read_bytes())
    threads = [threading.Thread(target=cases, args=(peer,)) for peer in peers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for path in files:
        for peer in peers:
            if peer.name not in found[path]:
                raise SystemExit(f"differential: {peer.name} did not judge {path.name}")
    return found


def compare(names, found, allowed, show_all):
    """Prints; returns the number of faults of narwhal."""
    width = max(len(str(path.relative_to(REQUESTS))) for path in found)
    print(f"{'request':{width}}  " + "  ".join(f"{name:11}" for name in names))
    faults, laxer, used = [], [], set()
    stricter = dict.fromkeys(names[1:], 0)
    smuggled = {name: [] for name in names}
    for path, verdicts in found.items():
        label = str(path.relative_to(REQUESTS))
        ours = verdicts["narwhal"]
        if show_all or len({verdict.accepts for verdict in verdicts.values()}) > 1:
            print(f"{label:{width}}  " + "  ".join(f"{str(verdicts[name]):11}" for name in names))
        if path.parent.name == "invalid" and ours.accepts:
            faults.append(f"{label} is invalid, and narwhal takes it")
        for name in names:
            verdict = verdicts[name]
            if path.parent.name == "invalid" and verdict.after:
                smuggled[name].append(path.stem)
            if name == "narwhal" or verdict.text == "waits":
                continue
            stricter[name] += verdict.accepts and not ours.accepts
            if ours.accepts and not verdict.accepts:
                keys = [key for key in ((path.stem, name), (path.stem, "*")) if key in allowed]
                used.update(keys)
                laxer.append((label, name, verdict, allowed[keys[0]] if keys else None))
    print("\nnarwhal is laxer than")
    for label, name, verdict, reason in laxer:
        print(f"  {name:11} {label} ({verdict}): {reason or 'NOT EXPLAINED'}")
        if reason is None:
            faults.append(f"narwhal takes {label}, {name} does not, and allowed.txt has no reason")
    if not laxer:
        print("  nobody")
    print("\nnarwhal is stricter than " +
          ", ".join(f"{name} in {count}" for name, count in stricter.items()) +
          f" of {len(found)} requests")
    print("\nthe request behind an invalid one is served by")
    for name, stems in smuggled.items():
        print(f"  {name:11} {len(stems)}" + (": " + " ".join(stems) if stems else ""))
    faults += [f"narwhal serves what stands behind invalid/{stem}.http"
               for stem in smuggled["narwhal"]]
    for key in sorted(set(allowed) - used):
        if (key[1] == "*" or key[1] in names) and any(path.stem == key[0] for path in found):
            faults.append(f"allowed.txt: {key[0]} {key[1]}: narwhal is not laxer there any more")
    print()
    for fault in faults:
        print("FAULT: " + fault)
    print(f"{len(found)} requests, {len(names) - 1} peers, {len(faults)} faults")
    return len(faults)


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--all", action="store_true")
    options.add_argument("names", nargs="*")
    options = options.parse_args()
    files = [path for folder in ("valid", "invalid")
             for path in sorted((REQUESTS / folder).glob("*.http"))
             if not options.names or any(name in path.name for name in options.names)]
    if not files:
        raise SystemExit("differential: no file has such a name")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="narwhal-differential-"))
    folder.chmod(0o755)
    peers = [Server("narwhal", os.environ["NARWHAL_BINARY"], folder, narwhal)]
    for name, write in (("nginx", nginx), ("haproxy", haproxy), ("h2o", h2o)):
        if program(name):
            peers.append(Server(name, program(name), folder, write))
        else:
            print(f"{name} is not installed", file=sys.stderr)
    if os.path.exists("/usr/include/http_parser.h"):
        peers.append(Parser(folder))
    try:
        for peer in peers:
            peer.start()
        found = run(peers, files)
    finally:
        for peer in peers:
            peer.stop()
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if compare([peer.name for peer in peers], found, read_allowed(HERE / "allowed.txt"),
                          options.all) else 0)


main()
