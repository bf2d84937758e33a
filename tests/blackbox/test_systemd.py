# SPDX-License-Identifier: Apache-2.0
"""narwhal as a service of a real systemd, in the unit as it is shipped: start, status, reload,
socket activation, watchdog, a master that is killed, restart and stop. One machine boots for all
of them (machine.py); where none can be booted, they are skipped."""
import json
import os
import re
import signal
import socket
import threading
import time

import pytest

import client
from machine import Machine, Unbootable, obstacle
from narwhal import binary, children_of, ini, process_stat, title_of, wait_until

ADDRESS = ("127.0.0.1", 8080)
INI = "/usr/local/etc/narwhal/narwhal.ini"
DROP_IN = "/etc/systemd/system/narwhal.service.d/test.conf"
BIG = 24 * 1024 * 1024
HELLO = {"master": {"bind": "127.0.0.1:8080", "workers": 2},
         "route:hello": {"path": "/", "respond": "200 hello"},
         "route:files": {"path": "/files/", "static": "/srv/www"}}
APP = """import os, socket
listener = socket.socket(fileno=3)
listener.setblocking(True)
while True:
    connection, _ = listener.accept()
    connection.recv(65536)
    body = str(os.getuid()).encode()
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n%b"
                       % (len(body), body))
    connection.close()
"""


@pytest.fixture(scope="module")
def machine():
    why = obstacle()
    if why:
        pytest.skip(why)
    prefix = install_prefix()
    if prefix != "/usr/local":
        pytest.skip(f"the build is installed below {prefix}, the test knows /usr/local")
    try:
        machine = Machine(os.path.dirname(binary()), prefix, {
            INI: ini(HELLO), "/srv/www/big": os.urandom(1024) * (BIG // 1024),
            "/srv/app/app.py": APP,
            # The leak check traces its own process, which the unit forbids.
            "/etc/default/narwhal": "ASAN_OPTIONS=detect_leaks=0\n"})
    except Unbootable as error:
        pytest.skip(str(error))
    try:
        machine.uid = machine.run("id", "-u", "narwhal").stdout.strip()
        with machine.network():
            yield machine
    finally:
        machine.stop()


def install_prefix():
    with open(os.path.join(os.path.dirname(binary()), "CMakeCache.txt"), encoding="utf-8") as file:
        return re.search(r"^CMAKE_INSTALL_PREFIX:PATH=(.*)$", file.read(), re.M)[1]


@pytest.fixture
def service(machine):
    """The service with the settings of HELLO, running; stopped and without drop-ins after it."""
    machine.write(INI, ini(HELLO))
    machine.run("systemctl", "start", "narwhal.service")
    yield machine
    machine.run("systemctl", "stop", "narwhal.socket", "narwhal.service", check=False)
    machine.run("systemctl", "reset-failed", check=False)
    machine.remove("/etc/systemd/system/narwhal.service.d")
    machine.remove("/etc/systemd/system/narwhal.socket.d")
    machine.run("systemctl", "daemon-reload")


def workers_of(machine):
    return [pid for pid in children_of(machine.main_pid()) if "worker" in title_of(pid)]


class Load:
    """Clients that come again and again, each request on a connection of its own."""

    def __init__(self, count=6):
        self.refused = []
        self.broken = []
        self.answered = 0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        self.wait_more(50)
        return self

    def __exit__(self, *about):
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait_more(self, count):
        before = self.answered
        wait_until(lambda: self.answered >= before + count, f"{count} more answers")

    def _run(self):
        while not self._over.is_set():
            try:
                with socket.create_connection(ADDRESS, timeout=30) as connection:
                    self._ask(connection)
            except OSError as error:  # of connect: the rest is caught below
                with self._lock:
                    self.refused.append(repr(error))

    def _ask(self, connection):
        got = b""
        try:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
            while piece := connection.recv(4096):
                got += piece
        except OSError as error:
            with self._lock:
                self.broken.append(repr(error))
            return
        with self._lock:
            if got.startswith(b"HTTP/1.1 200 ") and got.endswith(b"hello\n"):
                self.answered += 1
            else:
                self.broken.append(repr(got))


def test_start_and_status(service):
    assert service.show("ActiveState") == "active"
    assert client.get(ADDRESS).text == "hello\n"
    status = service.show("StatusText")
    assert re.match(r"2/2 workers ready, \d+ connections, \d+ requests/s; settings 1$",
                    status), status
    assert service.show("NFileDescriptorStore") == "3", "two lanes and the scoreboard"
    for pid in workers_of(service):
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            about = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        assert about["Uid"].split() == [service.uid] * 4, about["Uid"]
        assert about["NoNewPrivs"] == "1" and about["Seccomp"] == "2", about
    # Standard error goes to the journal: with the priority of each line and without a second time.
    lines = [json.loads(line) for line in service.journal("-o", "json").splitlines()]
    ready = next(line for line in lines if "ready workers=2" in line["MESSAGE"])
    assert ready["PRIORITY"] == "6" and ready["MESSAGE"].startswith("info master["), ready
    done = service.run("systemd-analyze", "security", "--threshold=25", "--no-pager",
                       "narwhal.service", check=False)
    assert done.returncode == 0, done.stdout


def test_reload_with_a_good_and_a_broken_file(service):
    service.write(INI, ini({**HELLO, "route:hello": {"path": "/", "respond": "200 changed"}}))
    service.run("systemctl", "reload", "narwhal.service")
    assert client.get(ADDRESS).text == "changed\n", "the command waits for the end of the reload"
    assert re.search("settings 2, last reload .* done$", service.show("StatusText"))
    service.write(INI, "[nonsense]\n")
    refused = service.run("systemctl", "reload", "narwhal.service", check=False)
    assert refused.returncode != 0, "a reload that was refused fails"
    assert client.get(ADDRESS).text == "changed\n"
    assert service.show("ActiveState") == "active"
    assert "failed: " in service.show("StatusText")
    assert service.show("StatusErrno") == "22"
    service.write(INI, ini(HELLO))
    service.run("systemctl", "reload", "narwhal.service")
    assert service.show("StatusErrno") == "0"
    assert client.get(ADDRESS).text == "hello\n"


def test_restart_under_load_loses_nothing(service):
    before = service.show("MainPID")
    with Load() as load:
        for _ in range(2):
            service.run("systemctl", "restart", "narwhal.service")
            load.wait_more(20)
    assert service.show("MainPID") != before
    assert (load.refused, load.broken) == ([], []), (load.answered, load.refused, load.broken)


def test_killed_master_under_load(service):
    """Nobody is refused, and who waits in a queue is served by the next master. What a worker had
    accepted is lost with it: one request of each client at most."""
    with Load(count=6) as load:
        old = service.main_pid()
        for pid in workers_of(service):
            os.kill(pid, signal.SIGSTOP)  # what comes now stays in the queues
        waiting = [client.Client(ADDRESS) for _ in range(30)]
        for connection in waiting:
            connection.send(client.encode("GET", "/"))
        os.kill(old, signal.SIGKILL)
        for connection in waiting:
            assert connection.response().status == 200
            connection.close()
        load.wait_more(50)
        broken = len(load.broken)
        assert broken <= 6, load.broken
        # And once more in full flight.
        wait_until(lambda: service.show("SubState") == "running", "running")
        os.kill(service.main_pid(), signal.SIGKILL)
        service.wait_show("NRestarts", "2")
        load.wait_more(50)
    assert load.refused == []
    assert len(load.broken) <= 12, load.broken
    journal = service.journal()
    assert "ended without a stop; the service manager kept lanes=2 counters=yes" in journal
    service.wait_show("NFileDescriptorStore", "3")


def test_stopped_master_is_killed_by_the_watchdog(service):
    service.write(DROP_IN, "[Service]\nWatchdogSec=2s\n")
    service.run("systemctl", "daemon-reload")
    service.run("systemctl", "restart", "narwhal.service")
    old = service.main_pid()
    begin = time.monotonic()
    os.kill(old, signal.SIGSTOP)
    wait_until(lambda: (process_stat(old) or "Z")[0] in "ZX", "the end of the stopped master")
    assert time.monotonic() - begin < 20
    service.wait_show("NRestarts", "1")
    service.wait_show("SubState", "running")
    assert client.get(ADDRESS).text == "hello\n"
    assert "Watchdog timeout" in service.journal()


def test_watchdog_kills_a_master_whose_workers_all_hang(service):
    service.write(DROP_IN, "[Service]\nWatchdogSec=2s\n")
    service.run("systemctl", "daemon-reload")
    service.run("systemctl", "restart", "narwhal.service")
    for pid in workers_of(service):
        os.kill(pid, signal.SIGSTOP)
    service.wait_show("NRestarts", "1")
    service.wait_show("SubState", "running")
    assert client.get(ADDRESS).text == "hello\n"


def test_stop_while_a_download_runs(service):
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.settimeout(client.DEADLINE)
        connection.connect(ADDRESS)
        connection.sendall(b"GET /files/big HTTP/1.1\r\nHost: t\r\n\r\n")
        got = bytearray(connection.recv(65536))
        service.run("systemctl", "stop", "--no-block", "narwhal.service")
        service.wait_show("ActiveState", "deactivating")
        while piece := connection.recv(1 << 20):
            got += piece
    head, _, body = bytes(got).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200") and len(body) == BIG
    service.wait_show("ActiveState", "inactive")
    assert service.show("Result") == "success"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(ADDRESS, timeout=5)


def test_socket_activation_by_the_first_request(service):
    service.run("systemctl", "stop", "narwhal.service")
    service.write("/etc/systemd/system/narwhal.socket.d/test.conf",
                  "[Socket]\nListenStream=\nListenStream=127.0.0.1:8081\n"
                  "ListenStream=/run/narwhal-activated.sock\n")
    service.write(INI, ini({**HELLO, "master": {"bind": "systemd:http", "workers": 2}}))
    service.run("systemctl", "daemon-reload")
    service.run("systemctl", "start", "narwhal.socket")
    assert service.show("ActiveState") == "inactive"
    assert client.get(("127.0.0.1", 8081)).text == "hello\n"
    assert service.show("ActiveState") == "active"
    assert client.get(service.path("/run/narwhal-activated.sock")).text == "hello\n"
    # A connection that comes while the service is restarted waits.
    service.run("systemctl", "stop", "narwhal.service")
    with client.Client(("127.0.0.1", 8081)) as early:
        early.send(client.encode("GET", "/"))
        assert early.response().status == 200


def test_name_that_no_socket_unit_passes_is_an_error(service):
    service.run("systemctl", "stop", "narwhal.service")
    service.write(INI, ini({**HELLO, "master": {"bind": "systemd:http"}}))
    assert service.run("systemctl", "start", "narwhal.service", check=False).returncode != 0
    assert "no socket was passed by that name" in service.journal()


def test_logs_of_journald(service):
    service.write(INI, ini({**HELLO, "log": {"error": "journald", "access": "journald"}}))
    service.run("systemctl", "restart", "narwhal.service")
    assert client.get(ADDRESS, "/seen").status == 200

    def entries(identifier):
        return [json.loads(line) for line in
                service.journal("-o", "json", "-t", identifier).splitlines()]
    access = wait_until(lambda: [entry for entry in entries("narwhal-access")
                                 if "GET /seen" in entry["MESSAGE"]], "the access log")
    assert access[0]["PRIORITY"] == "6"
    ready = [entry for entry in entries("narwhal") if "NARWHAL_ROLE" in entry]
    assert any(entry["NARWHAL_ROLE"] == "master" and "ready workers=2" in entry["MESSAGE"]
               for entry in ready), ready
    # The worker's own pid, as the kernel says it.
    pids = {entry["_PID"] for entry in access}
    assert service.show("MainPID") not in pids


def test_logs_of_syslog(service):
    service.write(INI, ini({**HELLO, "log": {"error": "syslog", "access": "syslog"}}))
    service.run("systemctl", "restart", "narwhal.service")
    assert client.get(ADDRESS, "/seen").status == 200
    wait_until(lambda: "GET /seen" in service.journal("-t", "narwhal-access"), "the access log")
    lines = [json.loads(line) for line in service.journal("-o", "json", "-t", "narwhal").splitlines()
             if json.loads(line).get("_TRANSPORT") == "syslog"]
    assert any(line["PRIORITY"] == "6" and "master: ready workers=2" in line["MESSAGE"]
               for line in lines), lines


def test_application_in_the_unit(service):
    """It starts within the hardened unit, as the user of the settings, and again after the master
    was killed."""
    service.write(INI, ini({**HELLO, "backend:app": {"command": "/usr/bin/python3 /srv/app/app.py",
                                                     "listen": "fd"},
                            "route:hello": {"path": "/", "backend": "app"}}))
    service.run("systemctl", "restart", "narwhal.service")

    def answer():
        response = client.get(ADDRESS)
        return response if response.status == 200 else None
    assert wait_until(answer, "the application").text == service.uid
    os.kill(service.main_pid(), signal.SIGKILL)
    service.wait_show("NRestarts", "1")
    service.wait_show("SubState", "running")
    assert wait_until(answer, "the application").text == service.uid
