# SPDX-License-Identifier: Apache-2.0
"""The access log in all its forms, the error log, and USR1 after a rotation."""
import json
import os
import re
import shutil
import signal
import subprocess
import threading

import pytest

import client
from backend import Backend
from load import Load
from narwhal import Narwhal, title_of, wait_until

HELLO = {"route:hello": {"path": "/", "respond": "200 hello"}}
AGENT = {"Referer": "http://ref.example/", "User-Agent": "agent/1.0", "Connection": "close"}


def lines_of(narwhal, count, name="access.log"):
    def read():
        with open(narwhal.path(name), encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
        return lines if len(lines) >= count else None
    return wait_until(read, f"{count} lines in {name}")


def logging(form, **sections):
    return Narwhal({**HELLO, "log": {"access": "./access.log", "access_format": form}, **sections})


TIME = r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"


@pytest.mark.parametrize("form, expected", [
    ("common", rf'127\.0\.0\.1 - - {TIME} "GET /path\?q=1 HTTP/1\.1" 200 (\d+)'),
    ("combined", rf'127\.0\.0\.1 - - {TIME} "GET /path\?q=1 HTTP/1\.1" 200 (\d+) '
                 r'"http://ref\.example/" "agent/1\.0"'),
    ('%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"',
     rf'127\.0\.0\.1 - - {TIME} "GET /path\?q=1 HTTP/1\.1" 200 (\d+) '
     r'"http://ref\.example/" "agent/1\.0"'),
    ("%(m)s %(U)s %(q)s %(H)s %(s)s %(B)s", r"GET /path q=1 HTTP/1\.1 200 (\d+)"),
    ("100%% %(T)s %(M)s %(D)s %(L)s %(b)s", r"100% \d+ \d+ \d+ \d+\.\d{6} (\d+)"),
    ("<%({user-agent}i)s> <%({x-none}i)s> %(b)s",
     r"<agent/1\.0> <-> (\d+)"),
])
def test_exact_line(form, expected):
    with logging(form) as narwhal:
        body = client.get(narwhal.address, "/path?q=1", AGENT).body
        line = lines_of(narwhal, 1)[0]
        match = re.fullmatch(expected, line)
        assert match, line
        assert int(match[1]) == len(body)


def test_pid_atom_is_the_worker():
    with logging("%(p)s") as narwhal:
        client.get(narwhal.address)
        assert int(re.search(r"\d+", lines_of(narwhal, 1)[0])[0]) in narwhal.workers().values()


def test_json_line():
    with logging("json") as narwhal:
        client.get(narwhal.address, "/path?q=\"\\%C3%A9", AGENT)
        entry = json.loads(lines_of(narwhal, 1)[0])
        values = [str(value) for value in entry.values()]
        for wanted in ("127.0.0.1", "GET", "200", "http://ref.example/", "agent/1.0"):
            assert wanted in values, (wanted, entry)
        assert any("/path" in value for value in values), entry


@pytest.mark.parametrize("form", ["combined", "json", '"%(r)s" "%({x}i)s" "%(a)s"'])
def test_a_client_cannot_forge_a_line(form):
    with logging(form) as narwhal:
        client.exchange(narwhal.address, b'GET /"\x22\\ HTTP/1.1\r\nHost: t\r\nConnection: close\r\n'
                        b'User-Agent: a" 200 5 "\xff\xfe\\\tb\r\nX: "\x80\r\n\r\n')
        client.get(narwhal.address, "/next", {"Connection": "close"})
        lines = lines_of(narwhal, 2)
        assert len(lines) == 2, lines
        for line in lines:
            if form == "json":
                json.loads(line)
            else:
                # Quotes within a quoted part are escaped: what is between them cannot end it.
                assert 'a" 200' not in line, line
            assert not re.search(r"[\x00-\x1f\x7f]", line)


def test_every_kind_of_answer_is_logged():
    with Backend() as backend, Narwhal({
            "log": {"access": "./access.log", "access_format": "%(m)s %(U)s %(s)s %(B)s"},
            "backend:b": {"server": backend.server},
            "route:b": {"path": "/b", "backend": "b"},
            "route:s": {"path": "/s", "static": "."},
            "route:r": {"path": "/r", "redirect": "/x"}}) as narwhal:
        narwhal.file("file", "0123456789")
        for method, target in (("GET", "/b"), ("GET", "/s/file"), ("HEAD", "/s/file"),
                               ("GET", "/r"), ("GET", "/none")):
            client.request(narwhal.address, method, target, {"Connection": "close"})
        lines = sorted(lines_of(narwhal, 5))
        assert [" ".join(line.split()[:3]) for line in lines] == [
            "GET /b 200", "GET /none 404", "GET /r 308", "GET /s/file 200", "HEAD /s/file 200"]
        assert "GET /b 200 2" in lines and "GET /s/file 200 10" in lines
        assert "HEAD /s/file 200 0" in lines


def test_off_writes_nothing_and_stdout_is_stdout():
    with Narwhal({**HELLO, "log": {"access": "stdout", "access_format": "access %(U)s"}},
                 errors=["^access /x"]) as narwhal:
        client.get(narwhal.address, "/x")
        narwhal.wait_log("^access /x$")
    with Narwhal(HELLO) as narwhal:
        client.get(narwhal.address, "/only-here")
        narwhal.stop()
        assert "/only-here" not in "\n".join(narwhal.log())


def test_no_line_is_lost_at_the_end():
    """Lines are written in buffers: a stop writes what is in them."""
    with logging("%(U)s") as narwhal:
        for number in range(500):
            client.get(narwhal.address, f"/{number}")
        narwhal.stop()
        assert sorted(lines_of(narwhal, 500), key=lambda line: int(line[1:])) == [
            f"/{number}" for number in range(500)]


def test_usr1_after_a_rotation_loses_no_line():
    with logging("%(U)s%(q)s") as narwhal:
        asked = 0
        for turn in range(4):
            for number in range(50):
                client.get(narwhal.address, f"/{turn}-{number}")
                asked += 1
            os.rename(narwhal.path("access.log"), narwhal.path(f"access.log.{turn}"))
            narwhal.signal(signal.SIGUSR1)
            wait_until(lambda: os.path.exists(narwhal.path("access.log")), "the new file")
        narwhal.stop()
        lines = []
        for name in ["access.log"] + [f"access.log.{turn}" for turn in range(4)]:
            with open(narwhal.path(name), encoding="ascii") as file:
                lines += file.read().splitlines()
        assert sorted(lines) == sorted(f"/{turn}-{number}" for turn in range(4)
                                       for number in range(50))
        assert asked == len(lines)


def test_usr1_under_load():
    with logging("%(s)s") as narwhal:
        with Load(narwhal.address) as load:
            for turn in range(5):
                os.rename(narwhal.path("access.log"), narwhal.path(f"old.{turn}"))
                narwhal.signal(signal.SIGUSR1)
                wait_until(lambda: os.path.exists(narwhal.path("access.log")), "the new file")
                load.wait_answers(10)
        narwhal.stop()
        count = 0
        for name in ["access.log"] + [f"old.{turn}" for turn in range(5)]:
            with open(narwhal.path(name), encoding="ascii") as file:
                text = file.read()
            assert text == "200\n" * (len(text) // 4), "no line is torn"
            count += len(text) // 4
        assert count == len(load.answers)


ROTATIONS = 1000


def test_a_thousand_rotations_under_load():
    """Every request has a number of its own, and each is in exactly one line of one file. The
    workers may not write into the folder, nor open anything in it, where the test is root."""
    master = {"user": "nobody"} if os.getuid() == 0 else {}
    asked = [0] * 4
    failures = []
    ending = threading.Event()

    def ask(narwhal, number):
        try:
            with client.Client(narwhal.address) as connection:
                while not ending.is_set():
                    assert connection.get(f"/{number}-{asked[number]}").status == 200
                    asked[number] += 1
        except Exception as problem:  # whatever it is, it is a failed request
            failures.append(problem)

    with Narwhal({**HELLO, "master": master,
                  "log": {"access": "./logs/access.log", "access_format": "%(U)s %(s)s end"}},
                 files={"logs/.keep": ""}) as narwhal:
        path = narwhal.path("logs", "access.log")
        clients = [threading.Thread(target=ask, args=(narwhal, number)) for number in range(4)]
        for thread in clients:
            thread.start()
        for turn in range(ROTATIONS):
            os.rename(path, f"{path}.{turn}")
            narwhal.signal(signal.SIGUSR1)
            wait_until(lambda: os.path.exists(path), "the new file")
        ending.set()
        for thread in clients:
            thread.join()
        assert not failures, failures
        narwhal.stop()
        found = []
        for name in os.listdir(narwhal.path("logs")):
            with open(narwhal.path("logs", name), encoding="ascii") as file:
                text = file.read()
            assert text == "" or text.endswith("\n"), f"{name} ends within a line"
            found += text.splitlines()
        wanted = {f"/{number}-{i} 200 end" for number, count in enumerate(asked)
                  for i in range(count)}
        assert len(found) == len(set(found)), "a line is there twice"
        assert set(found) == wanted, (set(found) ^ wanted)
        assert len(os.listdir(narwhal.path("logs"))) == ROTATIONS + 2


class OnTmpfs(Narwhal):
    """With a file system of its own at logs/, of 64 KiB, which the test sees through /proc."""

    def command(self):
        script = (f'mount -t tmpfs -o size=64k none {self.path("logs")} && exec "$0" "$@"')
        return ["unshare", "--mount", "sh", "-c", script, *super().command()]

    def inside(self, name):
        return f"/proc/{self.pid}/root{self.path('logs', name)}"

    def run_inside(self, *command):
        subprocess.run(["nsenter", f"--mount=/proc/{self.pid}/ns/mnt", *command], check=True)


ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a file system")


@ROOT
def test_file_system_of_the_logs_is_full_for_a_while():
    """Nobody waits, no worker dies; what was lost is counted, and no line runs into the next."""
    with OnTmpfs({**HELLO, "master": {"workers": 1},
                  "log": {"access": "./logs/access.log", "error": "./logs/error.log",
                          "level": "debug"}},
                 files={"logs/.keep": ""}, start=False) as narwhal:
        narwhal.start(ready=False)
        error_log = wait_until(lambda: os.path.exists(narwhal.inside("error.log")) and
                               narwhal.inside("error.log"), "the error log")

        def told(text):
            with open(error_log, encoding="utf-8", errors="replace") as file:
                return text in file.read()
        wait_until(lambda: told("ready workers=1"), "the worker")
        worker = narwhal.workers()
        with open(error_log, encoding="utf-8") as file:
            port = int(re.search(r"listening address=127\.0\.0\.1:(\d+)", file.read())[1])
        filler = narwhal.inside("filler")
        with open(filler, "wb", buffering=0) as file:
            with pytest.raises(OSError):
                while True:
                    file.write(b"x" * 4096)
        for _ in range(300):
            client.exchange(("127.0.0.1", port), b"bad\r\n\r\n")
            assert client.get(("127.0.0.1", port)).status == 200
        os.unlink(filler)

        def works_again():
            client.exchange(("127.0.0.1", port), b"bad\r\n\r\n")
            return told("lines are lost lost=")
        wait_until(works_again, "the error log to go on")
        # Every line but one that was cut where the room ended is whole.
        with open(error_log, encoding="utf-8") as file:
            broken = [line for line in file.read().splitlines()
                      if not re.match(r"\d{4}-\d\d-\d\dT\S+ \w+ .+\[\d+\]: ", line)]
        assert len(broken) <= 2, broken
        assert narwhal.workers() == worker


@ROOT
def test_folder_of_the_logs_becomes_read_only():
    """The open files go on as far as the file system lets them; the service does in any case."""
    with OnTmpfs({**HELLO, "log": {"access": "./logs/access.log"}}, files={"logs/.keep": ""},
                 errors=["logs are not reopened"]) as narwhal:
        narwhal.run_inside("mount", "-t", "tmpfs", "-o", "ro", "none", narwhal.path("logs"))
        workers = narwhal.workers()
        narwhal.signal(signal.SIGUSR1)
        line = narwhal.wait_log("the logs are not reopened, the old files go on: .*")[0]
        assert "Read-only file system" in line and "access.log" in line and "USR1" in line
        assert client.get(narwhal.address).status == 200 and narwhal.workers() == workers
        narwhal.run_inside("umount", narwhal.path("logs"))
        narwhal.signal(signal.SIGUSR1)
        narwhal.wait_log("logs reopened")


@ROOT
def test_read_only_folder_of_the_logs_is_an_error_at_start():
    class ReadOnly(OnTmpfs):
        def command(self):
            command = super().command()
            command[4] = command[4].replace("size=64k", "ro,size=64k")
            return command
    narwhal = ReadOnly({**HELLO, "log": {"access": "./logs/access.log"}},
                       files={"logs/.keep": ""}, start=False, errors=["access.log"])
    with narwhal:
        narwhal.start(ready=False)
        narwhal.wait_exit(73)
        assert any("Read-only file system" in line and "narwhal.ini:" in line
                   for line in narwhal.log())


def test_folder_of_the_logs_vanishes():
    with Narwhal({**HELLO, "log": {"access": "./logs/access.log"}}, files={"logs/.keep": ""},
                 errors=["logs are not reopened"]) as narwhal:
        shutil.rmtree(narwhal.path("logs"))
        workers = narwhal.workers()
        for _ in range(3):
            mark = narwhal.mark()
            narwhal.signal(signal.SIGUSR1)
            line = narwhal.wait_log("logs are not reopened.*", since=mark)[0]
            assert "No such file or directory" in line and "logs/access.log" in line
            assert client.get(narwhal.address).status == 200
        assert narwhal.workers() == workers
        os.mkdir(narwhal.path("logs"))
        narwhal.signal(signal.SIGUSR1)
        narwhal.wait_log("logs reopened")

        def is_there():
            client.get(narwhal.address, "/there")
            with open(narwhal.path("logs/access.log"), encoding="ascii") as file:
                return "/there" in file.read()
        wait_until(is_there, "a line in the new file")


def test_error_log_to_a_file_and_usr1():
    narwhal = Narwhal({**HELLO, "log": {"error": "./error.log"}}, start=False)
    with narwhal:
        narwhal.start(ready=False)
        wait_until(lambda: os.path.exists(narwhal.path("error.log")) and
                   "ready workers" in open(narwhal.path("error.log"), encoding="utf-8").read(),
                   "the log file")
        os.rename(narwhal.path("error.log"), narwhal.path("error.log.1"))
        narwhal.signal(signal.SIGUSR1)
        wait_until(lambda: os.path.exists(narwhal.path("error.log")), "the new file")
        with open(narwhal.path("error.log.1"), encoding="utf-8") as file:
            port = int(re.search(r"listening address=127\.0\.0\.1:(\d+)", file.read())[1])

        def worker_writes():
            client.exchange(("127.0.0.1", port), b"bad\r\n\r\n")
            with open(narwhal.path("error.log"), encoding="utf-8") as file:
                return "worker" in file.read()
        # Workers write to the new one too, as soon as each of them has got it from the master.
        wait_until(worker_writes, "a worker's line in the new file")


def test_error_log_says_who_asked_for_what_and_why():
    from backend import free_port
    server = f"127.0.0.1:{free_port()}"
    with Narwhal({"backend:b": {"server": server}, "route:b": {"path": "/", "backend": "b"}},
                 errors=[server]) as narwhal, client.Client(narwhal.address) as connection:
        port = connection.socket.getsockname()[1]
        assert connection.get("/the/path?q").status == 502
        line = narwhal.wait_log(rf".*{server}.*")[0]
        assert f"127.0.0.1:{port}" in line and "/the/path" in line and "GET" in line
        assert "refused" in line


@pytest.mark.parametrize("level, seen", [("error", False), ("info", True)])
def test_level(level, seen):
    with Narwhal({**HELLO, "log": {"level": level}}, start=False) as narwhal:
        narwhal.start(ready=False)
        wait_until(lambda: os.path.exists(narwhal.control_path) and
                   narwhal.control("status", check=False).returncode == 0 and
                   all(worker["state"].upper() == "READY"
                       for worker in narwhal.status()["workers"]), "the workers")
        narwhal.stop()
        assert any(" info " in line for line in narwhal.log()) == seen


def test_worker_lines_name_the_slot():
    with Narwhal(HELLO) as narwhal:
        client.exchange(narwhal.address, b"bad\r\n\r\n")
        match = narwhal.wait_log(r"info worker (\d)\[(\d+)\]: .*400")
        assert narwhal.workers()[int(match[1])] == int(match[2])
        assert title_of(int(match[2])) == f"narwhal: worker {match[1]}"


def test_log_that_cannot_be_opened_is_an_error_at_start():
    narwhal = Narwhal({**HELLO, "log": {"access": "/no/such/folder/access.log"}}, start=False,
                      errors=["."])
    with narwhal:
        narwhal.start(ready=False)
        assert narwhal.process.wait(client.DEADLINE) != 0
        narwhal._reader.join()
        assert "/no/such/folder/access.log" in "\n".join(narwhal.log())
