# SPDX-License-Identifier: Apache-2.0
"""The access log in all its forms, the error log, and USR1 after a rotation."""
import json
import os
import re
import signal

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
