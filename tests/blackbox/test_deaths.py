# SPDX-License-Identifier: Apache-2.0
"""What narwhal tells of a process that died, of one that dies again and again, and of the requests
that a drain had to cut."""
import json
import os
import re
import signal
import sys
import threading

import pytest

import client
from backend import OK, Backend
from narwhal import Narwhal, binary, wait_until

HELLO = {"route:hello": {"path": "/", "respond": "200 hello"}}


SERVER = ("import http.server, sys\n"
          "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), "
          "http.server.SimpleHTTPRequestHandler).serve_forever()\n")


def deaths(narwhal):
    return narwhal.control_json("deaths")["deaths"]


def wait_death(narwhal, pid):
    return wait_until(lambda: next((death for death in deaths(narwhal) if death["pid"] == pid),
                                   None), f"the record of {pid}")


def with_app(program, errors=("app/0",), files=None, **master):
    return Narwhal({"master": master,
                    "backend:app": {"command": f"{sys.executable} app.py {{port}}"},
                    "route:app": {"path": "/app", "backend": "app"}, **HELLO},
                   files={"app.py": program, **(files or {})}, errors=list(errors))


def test_nobody_died():
    with Narwhal(HELLO) as narwhal:
        assert deaths(narwhal) == []


def test_killed_worker_with_its_last_request():
    release = threading.Event()

    def answer(exchange):
        release.wait(client.DEADLINE)
        exchange.send(OK)
    with Backend(answer) as backend, Narwhal({
            "master": {"workers": 1}, "backend:b": {"server": backend.server},
            "route:b": {"path": "/", "backend": "b"}}) as narwhal:
        hanging = client.Client(narwhal.address)
        hanging.send(client.encode("POST", "/report%20me?token=secret", body=b""))
        backend.next()
        victim = narwhal.workers()[0]
        os.kill(victim, signal.SIGKILL)
        line = narwhal.wait_log(rf"died pid={victim}\b.*")[0]
        for part in ("signal=SIGKILL", "by=unknown", "cpu_ms=", "maxrss_kib=", "ready=yes",
                     'last_request="POST /report%20me"', "last_request_age="):
            assert part in line, (part, line)
        narwhal.wait_workers(1, without=[victim])
        death = wait_death(narwhal, victim)
        assert death["name"] == "worker slot=0" and death["slot"] == 0
        assert death["signal"] == "SIGKILL" and death["by"] == "unknown" and "exit" not in death
        assert death["last_request"] == "POST /report%20me"
        assert death["maxrss_kib"] > 0 and death["switches_voluntary"] > 0
        assert death["uptime_ms"] >= death["ready_ms"] >= 0 and death["generation"] == 1
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", death["time"])
        assert "secret" not in "\n".join(narwhal.log()) + json.dumps(deaths(narwhal))
        release.set()
        hanging.close()


def test_last_request_is_bounded_and_blunt():
    with Narwhal({**HELLO, "master": {"workers": 1}}) as narwhal:
        target = "/" + "a" * 3000
        assert client.get(narwhal.address, target).status == 200
        victim = narwhal.workers()[0]
        os.kill(victim, signal.SIGTRAP)  # others are taken by the sanitizers
        death = wait_death(narwhal, victim)
        assert death["signal"] == "SIGTRAP" and death["by"] == "itself"
        assert 100 < len(death["last_request"]) < 200
        assert ("GET " + target).startswith(death["last_request"])
        # Its successor has answered nothing yet.
        second = narwhal.wait_workers(1, without=[victim])[0]
        os.kill(second, signal.SIGKILL)
        assert "last_request" not in wait_death(narwhal, second)


def test_newest_first():
    with Narwhal(HELLO) as narwhal:
        pids = []
        for _ in range(3):
            victim = narwhal.workers()[0]
            os.kill(victim, signal.SIGKILL)
            narwhal.wait_workers(2, without=[victim])
            pids.insert(0, victim)
        assert [death["pid"] for death in deaths(narwhal)] == pids
        assert [death["generation"] for death in deaths(narwhal)] == [3, 2, 1]


def test_instance_killed_by_narwhal():
    with with_app("import time; print('I am slow', flush=True); time.sleep(1000)",
                  boot_timeout="1s") as narwhal:
        pid = wait_until(narwhal.instances, "the instance")[0]
        death = wait_death(narwhal, pid)
        assert death["name"] == "instance app/0" and death["signal"] == "SIGKILL"
        assert death["by"] == "narwhal" and death["reason"] == "boot_timeout"
        assert death["ready_ms"] is None and death["last_words"] == "I am slow"
        line = narwhal.wait_log(rf"died pid={pid}\b.*")[0]
        assert "by=narwhal" in line and "killed_for=boot_timeout" in line, line


def test_last_words_in_any_writing():
    """They are text in JSON, for everybody who reads it, and no commands for a terminal: U+009B is
    one of ISO 6429, as ESC [ is."""
    program = ("import sys; sys.stderr.buffer.write('kein Gru\u00df \U0001f433 \u009b31m'.encode()"
               " + b' \\xff'); sys.exit(3)")
    with with_app(program) as narwhal:
        wait_until(lambda: deaths(narwhal), "a death")
        assert deaths(narwhal)[0]["last_words"].startswith("kein Gru\u00df \U0001f433 ")
        for words in (["deaths"], ["--json", "deaths"]):
            shown = narwhal.control(*words).stdout
            assert "kein Gru\u00df \U0001f433 " in shown, shown
            assert not any(0x7f <= ord(c) < 0xa0 for c in shown), shown


def test_crash_loop_is_folded():
    """The first deaths are told one by one with all lines of the application, then there are
    summaries; and in the records the loop does not push out what was before it."""
    program = "import sys; print('cannot find my config', file=sys.stderr); sys.exit(3)"
    with with_app(program) as narwhal:
        victim = narwhal.workers()[1]
        os.kill(victim, signal.SIGKILL)
        narwhal.wait_workers(2, without=[victim])
        wait_until(lambda: deaths(narwhal)[0]["deaths"] >= 7, "seven deaths")
        records = deaths(narwhal)
        loop = [death["deaths"] for death in records if death["name"] == "instance app/0"]
        assert loop[0] >= 7 and loop[1:] == [2, 1], records
        assert victim in [death["pid"] for death in records]
        assert records[0]["exit"] == 3 and records[0]["by"] == "itself"
        assert records[0]["last_words"] == "cannot find my config"
        told = [line for line in narwhal.log() if re.search(r"app/0 died pid=", line)]
        assert len(told) == 3, told
        # Of each life there are its own lines, and nothing else.
        lives = [line for line in narwhal.log() if "cannot find my config" in line and
                 "died" not in line]
        others = [line for line in narwhal.log() if "app/0" in line and line not in lives + told]
        assert not others, others


def test_successors_that_fail_again_and_again():
    """Each reload says why it failed, and the records keep what was before."""
    settings = {"backend:app": {"command": f"{sys.executable} app.py {{port}}"},
                "route:app": {"path": "/app", "backend": "app"}, **HELLO}
    with Narwhal(settings, files={"app.py": SERVER}, errors=["app/0", "reload"]) as narwhal:
        narwhal.wait_log("instance app/0 is READY")
        victim = narwhal.workers()[0]
        os.kill(victim, signal.SIGKILL)
        wait_death(narwhal, victim)
        serving = narwhal.instances()
        narwhal.file("app.py", "raise SystemExit('typo in line 3')")
        for _ in range(6):
            mark = narwhal.mark()
            narwhal.signal(signal.SIGHUP)
            narwhal.wait_log("app/0 died .*respawn_in=never.*typo in line 3", since=mark)
            narwhal.wait_log("the new instance app/0 did not become READY", since=mark)
            wait_until(lambda: narwhal.instances() == serving, "the old one alone")
        assert [death["deaths"] for death in deaths(narwhal)] == [6, 2, 1, 1]
        assert deaths(narwhal)[3]["pid"] == victim


def test_who_leaves_when_asked_is_no_death():
    program = ("import http.server, signal, sys\n"
               "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
               "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), "
               "http.server.SimpleHTTPRequestHandler).serve_forever()\n")
    with with_app(program, errors=()) as narwhal:
        narwhal.wait_log("instance app/0 is READY")
        narwhal.reload()
        narwhal.wait_log("instance app/0 left .* exit=5")
        narwhal.signal(signal.SIGTTOU)
        narwhal.wait_log("worker slot=1 left")
        assert deaths(narwhal) == []


def test_instance_that_does_not_leave_is_a_death():
    program = ("import signal, sys, http.server; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
               "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), "
               "http.server.SimpleHTTPRequestHandler).serve_forever()")
    with with_app(program, errors=(), graceful_timeout="500ms") as narwhal:
        narwhal.wait_log("instance app/0 is READY")
        pid = narwhal.instances()[0]
        narwhal.reload()
        death = wait_death(narwhal, pid)
        assert death["by"] == "narwhal" and death["reason"] == "graceful_timeout"


def unified_cgroup():
    with open("/proc/self/cgroup", encoding="ascii") as file:
        return next((line[3:].strip() for line in file if line.startswith("0::/")), None)


@pytest.mark.skipif(os.geteuid() != 0 or unified_cgroup() is None,
                    reason="needs root, for a mount namespace, and a kernel with cgroup v2")
def test_oom_kill_is_told():
    """In a mount namespace with a memory.events of our own; the kernel's word against an unknown
    kill."""
    script = ('#!/bin/sh\nexec unshare -m sh -ec \'mount -t tmpfs none /sys/fs/cgroup; '
              'mkdir -p "/sys/fs/cgroup$GROUP"; '
              'echo "oom_kill 4" > "/sys/fs/cgroup$GROUP/memory.events"; '
              'exec "$BINARY" "$@"\' sh "$@"\n')
    group = unified_cgroup()
    narwhal = Narwhal(HELLO, start=False, env={"GROUP": group, "BINARY": binary()})
    narwhal.program = narwhal.file("in-namespace", script, mode=0o755)
    with narwhal:
        narwhal.start()
        events = f"/proc/{narwhal.pid}/root/sys/fs/cgroup{group}/memory.events"
        first, second = narwhal.workers()[0], narwhal.workers()[1]
        with open(events, "w", encoding="ascii") as file:
            file.write("low 0\noom 1\noom_kill 5\n")
        os.kill(first, signal.SIGKILL)
        line = narwhal.wait_log(rf"died pid={first}\b.*")[0]
        assert "by=kernel-oom" in line and "oom_kill=+1" in line, line
        death = wait_death(narwhal, first)
        assert death["by"] == "kernel-oom" and death["oom_kill"] == 1
        os.kill(second, signal.SIGKILL)  # nothing was counted since
        death = wait_death(narwhal, second)
        assert death["by"] == "unknown" and death["oom_kill"] == 0


# ---- who a drain cut -----------------------------------------------------------------------------
def test_drain_says_who_was_cut():
    def answer(exchange):
        if exchange.target == "/tunnel":
            exchange.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n"
                          b"Upgrade: test\r\n\r\n")
        exchange.receive()
    with Backend(answer) as backend, Narwhal({
            "master": {"workers": 1, "graceful_timeout": "500ms"},
            "worker": {"keepalive_drain": "1m"},
            "backend:b": {"server": backend.server}, "route:b": {"path": "/", "backend": "b"},
            "route:hello": {"path": "/hello", "respond": "200 hello"}}) as narwhal:
        slow = client.Client(narwhal.address).send(client.encode("PUT", "/slow?token=secret",
                                                                 body=b""))
        backend.next()
        tunnel = client.Client(narwhal.address)
        tunnel.send(client.encode("GET", "/tunnel", {"Connection": "upgrade", "Upgrade": "test"}))
        assert tunnel.response().status == 101
        idle = client.Client(narwhal.address)
        assert idle.get("/hello").status == 200
        head = client.Client(narwhal.address).send(b"GET /never-whole HTTP/1.1\r\n")
        wait_until(lambda: narwhal.status()["workers"][0]["connections"] == 4, "all four")
        narwhal.stop()
        line = narwhal.wait_log(r'request cut .*request="PUT /slow" age=(\d+)ms '
                                r'connection_age=(\d+)ms status=0 sent=0$')
        assert 400 <= int(line[1]) <= int(line[2])
        narwhal.wait_log(r'tunnel cut .*request="GET /tunnel" age=\d+ms connection_age=\d+ms '
                         r"status=101 ")
        narwhal.wait_log(r"request cut at graceful_timeout in the middle of its head client=")
        narwhal.wait_log(r"what was open is cut requests=2 tunnels=1 idle=1$")
        cut = [line for line in narwhal.log() if " cut at " in line]
        assert len(cut) == 3 and "secret" not in "".join(cut), cut
        for connection in (slow, tunnel, idle, head):
            connection.close()


def test_drain_tells_no_more_than_a_bounded_number():
    with Narwhal({**HELLO, "master": {"workers": 1, "graceful_timeout": "500ms"}}) as narwhal:
        heads = [client.Client(narwhal.address).send(b"GET / HTTP/1.1\r\n") for _ in range(230)]
        wait_until(lambda: narwhal.status()["workers"][0]["connections"] == 230, "all of them")
        narwhal.stop()
        narwhal.wait_log(r"is cut requests=230 tunnels=0 idle=0; the lines above tell the first")
        assert len([line for line in narwhal.log() if " cut at " in line]) == 200
        for connection in heads:
            connection.close()
