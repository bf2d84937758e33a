# SPDX-License-Identifier: Apache-2.0
"""The control socket and narwhalctl: every command, what --wait says, live events, and clients that
behave badly."""
import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

import client
from load import Load
from narwhal import (APPS, DEADLINE, REPOSITORY, Narwhal, binary, control_binary, is_alive,
                     wait_app, wait_until)

HELLO = {"route:hello": {"path": "/", "respond": "200 hello"}}
APP = {"backend:app": {"command": "uvicorn app_fastapi:app --fd {fd}", "directory": APPS,
                       "instances": 2},
       "route:app": {"path": "/app", "backend": "app", "strip_prefix": "on"}, **HELLO}
ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")


class Raw:
    """A client of the control socket without narwhalctl."""

    def __init__(self, narwhal):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE)
        self.socket.connect(narwhal.control_path)
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.file.close()
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def line(self):
        line = self.file.readline()
        assert line.endswith(b"\n"), line
        return json.loads(line)

    def ask(self, words):
        self.send(words.encode() + b"\n")
        return self.line()


def installed(narwhal):
    """Makes it run from a copy of the binary, which a test may exchange."""
    narwhal.program = narwhal.path("narwhal")
    shutil.copyfile(binary(), narwhal.program)
    os.chmod(narwhal.program, 0o755)
    return narwhal


def frugal(narwhal):
    """Starts it; a sanitizer keeps little of what is freed, so that memory can be measured."""
    narwhal.env["ASAN_OPTIONS"] += ":quarantine_size_mb=1:thread_local_quarantine_size_kb=64"
    return narwhal.start()


def wait_for(narwhal, *words, status=0):
    """An order with --wait; returns (stdout, stderr)."""
    done = narwhal.control(*words, "--wait", check=False)
    assert done.returncode == status, done
    return done.stdout, done.stderr


# ---- looking -------------------------------------------------------------------------------------
def test_every_look_has_a_table_and_json():
    with Narwhal(APP) as narwhal:
        wait_app(narwhal, "/app/pid")
        narwhal.wait_instances(2)
        for command, head in (("workers", r"SLOT +PID +STATE"), ("backends", r"BACKEND +SERVER"),
                              ("lanes", r"LANE +ADDRESS +SLOT +SERVED BY +QUEUE")):
            text = narwhal.control(command).stdout
            assert re.match(" *" + head, text), text
            lines = text.splitlines()
            assert len(lines) == 3 and "\033" not in text, text
            rows = narwhal.control_json(command)[command]
            assert rows and isinstance(rows, list)
        whole = narwhal.control("status").stdout
        assert re.match(r"narwhal \S+, pid %d, up \S+, running, settings 1, "
                        r"workers 2 of 2 ready, sandbox auto\n" % narwhal.pid, whole), whole
        assert "SLOT" in whole and "BACKEND" in whole and "LANE" in whole
        status = narwhal.status()
        assert status["phase"] == "running" and status["workers_ready"] == 2
        assert status["workers"][0].keys() >= {"slot", "pid", "state", "connections"}
        assert [lane["queue"] for lane in status["lanes"]] == [0, 0]
        assert narwhal.control("ping").stdout == f"narwhal answers, pid {narwhal.pid}\n"
        assert narwhal.control_json("ping") == {"answer": "pong", "pid": narwhal.pid}
        assert narwhal.control("deaths").stdout == "no deaths\n"
        victim = narwhal.workers()[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: narwhal.control_json("deaths")["deaths"], "the record")
        text = narwhal.control("deaths").stdout
        assert re.search(r"worker slot=0 +%d +SIGKILL +unknown" % victim, text), text


def test_lanes_show_who_waits():
    """A worker that stands still leaves its clients in the queue."""
    with Narwhal({**HELLO, "master": {"workers": 1}}) as narwhal:
        os.kill(narwhal.workers()[0], signal.SIGSTOP)
        try:
            with contextlib.ExitStack() as stack:
                for _ in range(3):
                    stack.enter_context(socket.create_connection(narwhal.address))
                wait_until(lambda: narwhal.control_json("lanes")["lanes"][0]["queue"] == 3,
                           "three in the queue")
        finally:
            os.kill(narwhal.workers()[0], signal.SIGCONT)


# ---- orders --------------------------------------------------------------------------------------
def test_reload_wait_tells_how_it_went():
    with Narwhal(HELLO, errors=["."]) as narwhal:
        out, _ = wait_for(narwhal, "reload")
        assert re.match(r"reload done: settings 2 are in use, changes: 0 \(operation 1, ", out)
        narwhal.write({**HELLO, "worker": {"keepalive": "7s"}})
        out, _ = wait_for(narwhal, "reload")
        assert "settings 3 are in use, changes: 1" in out
        narwhal.write("[nonsense]\nx = 1\n[log]\nlevel = loud\n")
        for words in (("reload",), ("reload", "--wait")):  # it is refused at once
            done = narwhal.control(*words, check=False)
            assert done.returncode == 1 and not done.stdout, done
            assert "narwhal.ini:1" in done.stderr and "narwhal.ini:4" in done.stderr, done
            assert done.stderr.startswith("narwhalctl: reload failed:\n"), done
        done = narwhal.control("--json", "reload", "--wait", check=False)
        answer = json.loads(done.stdout)
        assert done.returncode == 1 and answer["state"] == "failed" and not done.stderr
        assert client.get(narwhal.address).status == 200


def test_reload_wait_waits_for_the_applications():
    """Their code is what is deployed by a reload."""
    good = ("import http.server, os, socket\n"
            "class H(http.server.BaseHTTPRequestHandler):\n"
            "    def do_GET(self):\n"
            "        self.send_response(200); self.send_header('Content-Length', '1')\n"
            "        self.end_headers(); self.wfile.write(b'x')\n"
            "    def address_string(self): return 'x'\n"
            "    def log_message(self, *words): pass\n"
            "s = http.server.HTTPServer(('127.0.0.1', 0), H, bind_and_activate=False)\n"
            "s.socket = socket.socket(fileno=int(os.environ['FD'])); s.server_activate()\n"
            "s.serve_forever()\n")
    with Narwhal({"backend:app": {"command": "env FD={fd} python3 app.py", "directory": "."},
                  "route:app": {"path": "/", "backend": "app"}},
                 files={"app.py": good}, errors=["."]) as narwhal:
        wait_app(narwhal, "/")
        before = narwhal.wait_instances(1)
        out, _ = wait_for(narwhal, "reload")
        assert "settings 2 are in use" in out
        before = narwhal.wait_instances(1, without=before)
        narwhal.file("app.py", "raise SystemExit('no such module: frobnicate')\n")
        for words in (("reload",), ("restart", "app")):
            _, error = wait_for(narwhal, *words, status=1)
            assert "frobnicate" in error and "go on" in error, error
        assert narwhal.instances() == before
        assert client.get(narwhal.address).status == 200


def test_restart_replaces_instances_without_loss():
    with Narwhal(APP) as narwhal:
        wait_app(narwhal, "/app/pid")
        before = narwhal.wait_instances(2)
        workers = narwhal.workers()
        with Load(narwhal.address, "/app/pid") as load:
            load.wait_answers(5)
            out, error = wait_for(narwhal, "restart", "app")
            load.wait_answers(5)
        assert out.startswith("restart done: 2 of 2 instances are new"), out
        assert "instances are new" in error, "progress"
        assert not set(before) & set(narwhal.wait_instances(2, without=before))
        assert narwhal.workers() == workers
        assert "reload" not in "\n".join(narwhal.log()), "the settings are not read again"


def test_scale_up_and_down():
    with Narwhal(HELLO) as narwhal:
        with Load(narwhal.address, stay=False) as load:
            out, _ = wait_for(narwhal, "scale", "5")
            assert out.startswith("scale done: 5 workers serve"), out
            assert len(narwhal.workers()) == 5
            load.wait_answers(10)
            wait_for(narwhal, "scale", "1")
            assert list(narwhal.workers()) == [0]
            load.wait_answers(10)
        narwhal.reload()
        assert narwhal.status()["workers_wanted"] == 1, "kept across a reload, as TTOU is"


def test_drain_replaces_one_worker_without_loss():
    with Narwhal(HELLO) as narwhal:
        before = narwhal.workers()
        with Load(narwhal.address, stay=False) as load:
            load.wait_answers(10)
            out, _ = wait_for(narwhal, "drain", "1")
            load.wait_answers(10)
        after = narwhal.wait_workers(2)
        assert re.match(r"drain done: replaced pid=%d by pid=%d " % (before[1], after[1]), out), out
        assert after[0] == before[0] and not is_alive(before[1])
        assert not narwhal.control_json("deaths")["deaths"]


def test_upgrade_wait_crosses_the_exec():
    with installed(Narwhal(HELLO, start=False, errors=["."])) as narwhal:
        narwhal.start()
        before = narwhal.workers()
        out, _ = wait_for(narwhal, "upgrade")
        assert re.match(r"upgrade done: narwhal \S+ has taken over, all workers are new", out), out
        assert not set(before.values()) & set(narwhal.wait_workers(2).values())
        narwhal.file("narwhal.new", "#!/bin/sh\necho 'no, thank you' >&2\nexit 3\n", mode=0o755)
        os.rename(narwhal.path("narwhal.new"), narwhal.program)
        _, error = wait_for(narwhal, "upgrade", status=1)
        assert "no, thank you" in error and "everything goes on as before" in error, error
        assert client.get(narwhal.address).status == 200
        # What was ordered before the exec is known after it.
        assert "taken over" in narwhal.control("operation", "1").stdout


def test_wait_ends_in_time():
    with Narwhal(HELLO, errors=["."]) as narwhal:
        narwhal.write({**HELLO, "backend:b": {"command": "sleep 1000"},
                       "route:b": {"path": "/b", "backend": "b"}})
        done = narwhal.control("reload", "--wait", "--timeout", "1", check=False)
        assert done.returncode == 75, done
        assert re.search(r"reload is not done after 1 s: .*\"narwhalctl operation 1\"",
                         done.stderr), done
        assert narwhal.control_json("operation", "1")["state"] == "running"
        narwhal.signal(signal.SIGTERM)
        narwhal.wait_exit()


def test_orders_that_cannot_be():
    with Narwhal(APP) as narwhal:
        wait_app(narwhal, "/app/pid")
        for words, text in ((("scale", "0"), "1 to 256"), (("scale", "257"), "1 to 256"),
                            (("scale", "x"), "it is: scale N"),
                            (("scale", "99999999999999999999"), "it is: scale N"),
                            (("drain", "2"), "there is no worker slot 2: they are 0 to 1"),
                            (("drain", "one"), "it is: drain SLOT"),
                            (("restart", "nope"), "there is no backend nope with a command"),
                            (("operation", "77"), "not known"), (("operation", "x"), "NUMBER")):
            done = narwhal.control(*words, check=False)
            assert done.returncode == 1 and text in done.stderr and not done.stdout, done
            done = narwhal.control("--json", *words, check=False)
            assert done.returncode == 1 and text in json.loads(done.stdout)["error"], done
        narwhal.signal(signal.SIGWINCH)
        wait_until(lambda: narwhal.status()["phase"] == "paused", "the pause")
        for words in (("scale", "3"), ("drain", "0")):
            done = narwhal.control(*words, check=False)
            assert done.returncode == 1 and "paused" in done.stderr, done
        wait_for(narwhal, "reload")
        status = narwhal.status()
        assert status["phase"] == "running" and status["workers_ready"] == 2


# ---- the command line ----------------------------------------------------------------------------
def test_wrong_usage():
    for words in ([], ["nope"], ["ping", "more"], ["scale"], ["scale", "1", "2"], ["drain"],
                  ["restart"], ["restart", ""], ["restart", "a b"], ["server", "b", "a"],
                  ["--nope"], ["-s"], ["ping", "--wait"], ["ping", "--timeout", "3"],
                  ["reload", "--timeout", "3"], ["reload", "--wait", "--timeout"],
                  ["reload", "--wait", "--timeout", "0"], ["reload", "--wait", "--timeout", "x"],
                  ["reload", "--wait", "--timeout", "99999999999"], ["restart", "x" * 600]):
        done = subprocess.run([control_binary(), *words], capture_output=True, text=True,
                              check=False, timeout=DEADLINE)
        assert done.returncode == 64 and "usage:" in done.stderr and not done.stdout, (words, done)


def test_help_and_version():
    help_text = subprocess.run([control_binary(), "--help"], capture_output=True, text=True,
                               check=True, timeout=DEADLINE).stdout
    for word in ("ping", "status", "workers", "backends", "lanes", "deaths", "events", "reload",
                 "restart BACKEND", "scale N", "drain SLOT", "upgrade", "--json", "--wait"):
        assert word in help_text
    assert all(len(line) <= 100 for line in help_text.splitlines())
    for flag in ("--help", "--version"):
        with open("/dev/full", "w", encoding="ascii") as full:
            done = subprocess.run([control_binary(), flag], stdout=full, stderr=subprocess.PIPE,
                                  text=True, check=False, timeout=DEADLINE)
        assert done.returncode == 74 and "cannot write" in done.stderr, done


def ctl(*words, env=None):
    return subprocess.run([control_binary(), *words], capture_output=True, text=True, check=False,
                          timeout=DEADLINE, env={**os.environ, **(env or {})})


def test_no_master(tmp_path):
    for words in (["ping"], ["status"], ["reload", "--wait"], ["events"]):
        done = ctl("-s", str(tmp_path / "none"), *words)
        assert done.returncode == 69 and "is narwhal running with control = " in done.stderr, done
    done = ctl("-s", "x" * 200, "ping")
    assert done.returncode == 69 and "too long" in done.stderr, done
    done = ctl("reload", "--wait", env={"NARWHAL_CONTROL": ""})
    assert done.returncode == 64 and "no control socket to ask" in done.stderr, done


@contextlib.contextmanager
def somebody_else(tmp_path, says):
    """A control socket that is not narwhal's, with one answer."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve():
            with contextlib.suppress(OSError):
                peer, _ = listener.accept()
                with peer:
                    peer.recv(100)
                    peer.sendall(says)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield path
        thread.join(DEADLINE)


@pytest.mark.parametrize("says, why", [
    (b"HTTP/1.1 400 Bad Request\r\n", "is no narwhal"), (b"[1]\n", "is no narwhal"),
    (b"{\"a\":\n", "is no narwhal"), (b"", "no answer"), (b"[" * 100_000 + b"\n", "is no narwhal"),
], ids=["http", "array", "half", "nothing", "deep"])
def test_somebody_else_answers(tmp_path, says, why):
    with somebody_else(tmp_path, says) as path:
        done = ctl("-s", path, "status")
    assert done.returncode == 69 and why in done.stderr, done


def test_answer_that_cannot_be_written():
    with Narwhal(HELLO) as narwhal, open("/dev/full", "w", encoding="ascii") as full:
        for words in (["status"], ["--json", "status"], ["events"]):
            done = subprocess.run([control_binary(), "-s", narwhal.control_path, *words],
                                  stdout=full, stderr=subprocess.PIPE, text=True, check=False,
                                  timeout=DEADLINE)
            assert done.returncode == 74 and "cannot write" in done.stderr, done


# ---- completion ----------------------------------------------------------------------------------
COMPLETION = os.path.join(REPOSITORY, "etc", "bash-completion", "narwhalctl")


def complete(line, env=None):
    """What bash offers at the end of the line, which it divides as readline does."""
    words = re.findall(r":|[^\s:]+", line)
    if line.endswith(" "):
        words.append("")
    words[0] = control_binary()
    script = (f"source {COMPLETION}\n"
              "COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1))\n"
              "[[ $(complete -p narwhalctl) == *'-F _narwhalctl narwhalctl' ]] || exit 3\n"
              "_narwhalctl; printf '%s\\n' \"${COMPREPLY[@]}\"\n")
    done = subprocess.run(["bash", "--norc", "-c", script, "bash", *words],
                          capture_output=True, text=True, timeout=DEADLINE, check=False,
                          env={**os.environ, **(env or {})})
    assert done.returncode == 0 and not done.stderr, done
    return done.stdout.split()


def test_completion_of_bash():
    help_text = ctl("--help").stdout
    commands = complete("narwhalctl ")
    assert len(commands) == 14 and all(re.search(rf"^  {word}\b", help_text, re.M)
                                       for word in commands)
    options = complete("narwhalctl -")
    assert all(word in help_text for word in options) and "--wait" in options
    assert sorted(complete("narwhalctl re")) == ["reload", "restart"]
    assert complete("narwhalctl --json re") == complete("narwhalctl re")
    assert complete("narwhalctl reload --wait --t") == ["--timeout"]
    assert complete("narwhalctl reload --wait --timeout ") == []
    assert complete("narwhalctl ping ") == []
    assert "/etc/passwd" in complete("narwhalctl -s /etc/passw")
    with Narwhal({**HELLO, "backend:first": {"server": ["127.0.0.1:1234", "127.0.0.1:1299"]},
                  "backend:second": {"server": "unix:/no/such.sock"},
                  "route:a": {"path": "/a", "backend": "first"},
                  "route:b": {"path": "/b", "backend": "second"}}) as narwhal:
        env = {"NARWHAL_CONTROL": narwhal.control_path}
        assert complete("narwhalctl restart ", env) == ["first", "second"]
        assert complete("narwhalctl server se", env) == ["second"]
        assert complete("narwhalctl drain ", env) == ["0", "1"]
        assert complete("narwhalctl server first ", env) == ["127.0.0.1:1234", "127.0.0.1:1299"]
        assert complete("narwhalctl server first 127.0.0.1:12", env) == ["1234", "1299"]
        assert complete("narwhalctl server second unix:/n", env) == ["/no/such.sock"]
        assert complete("narwhalctl server first 127.0.0.1:1234 d", env) == ["drain", "disable"]
        assert complete(f"narwhalctl -s {narwhal.control_path} drain ") == ["0", "1"]
    assert complete("narwhalctl restart ", {"NARWHAL_CONTROL": "/no/such"}) == []


@pytest.mark.parametrize("line", ["restart ", "restart $", "server good "])
def test_completion_runs_nothing_that_it_is_told(tmp_path, line):
    """Names and addresses come from the settings, the scoreboard, or whoever has the socket; the key
    may be pressed by root."""
    evil = [f"{start}touch$IFS{tmp_path}/owned{end}" for start, end in (("$(", ")"), ("`", "`"),
                                                                        ("x;", ""), ("x&", ""))]
    answer = {"backends": [{"name": "good", "servers": [{"address": text} for text in
                                                        [*evil, "127.0.0.1:1"]]},
                           *({"name": text, "servers": []} for text in evil)]}
    says = json.dumps(answer, separators=(",", ":")).encode() + b"\n"
    with somebody_else(tmp_path, says) as path:
        offered = complete(f"narwhalctl -s {path} {line}")
    assert offered == {"restart ": ["good"], "server good ": ["127.0.0.1:1"]}.get(line, [])
    assert not os.path.exists(tmp_path / "owned")


# ---- the socket ----------------------------------------------------------------------------------
def test_off_without_a_path():
    with Narwhal({**HELLO, "master": {"control": ""}}) as narwhal:
        assert not any("control socket" in line for line in narwhal.log())
        assert client.get(narwhal.address).status == 200


def test_socket_that_cannot_be_opened_is_not_fatal():
    with Narwhal({**HELLO, "master": {"control": "/proc/no/such/folder/ctl"}}) as narwhal:
        narwhal.wait_log(r"warn .*there is no control socket, narwhalctl will not work: .*"
                         r"narwhal\.ini:\d+")
        assert client.get(narwhal.address).status == 200
        narwhal.reload()


@ROOT
def test_strangers_are_turned_away():
    """Also when somebody has opened the mode of the socket."""
    with Narwhal(HELLO) as narwhal:
        os.chmod(narwhal.control_path, 0o666)
        program = ("import os, socket, sys\n"
                   f"os.setgid(65534); os.setuid({pwd.getpwnam('nobody').pw_uid})\n"
                   "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
                   "print(s.makefile().read())\n")
        done = subprocess.run([sys.executable, "-c", program, narwhal.control_path],
                              capture_output=True, text=True, check=False, timeout=DEADLINE)
        assert done.returncode == 0 and "only root and the user" in done.stdout, done
        narwhal.wait_log(r"warn .*a control client was turned away uid=65534")


def test_a_worker_cannot_give_orders():
    """It has the user of a master that is not root. Here the settings make it connect: the body of a
    request is an order, if only somebody listens."""
    with Narwhal(HELLO, start=False, errors=["."]) as narwhal:
        narwhal.write({**HELLO, "backend:self": {"server": f"unix:{narwhal.control_path}"},
                       "route:self": {"path": "/self", "backend": "self"}})
        narwhal.start()
        before = narwhal.workers()
        answer = client.request(narwhal.address, "POST", "/self", body=b"\nscale 5\n")
        assert answer.status == 502
        narwhal.wait_log(r"warn .*a control client was turned away uid=\d+ pid=(%s) of=worker slot=\d "
                         % "|".join(map(str, before.values())))
        status = narwhal.status()
        assert status["workers_wanted"] == 2 and narwhal.workers() == before
        with Raw(narwhal) as raw:
            assert "not known" in raw.ask("operation 1")["error"]


GIVES_ORDERS = """
import http.server, os, socket, subprocess
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == '/itself':
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(os.environ['CONTROL'])
                said = s.recv(1000)
        elif self.path == '/below':
            said = subprocess.run(['sh', '-c', '"$CTL" -s "$CONTROL" scale 5; true'],
                                  stderr=subprocess.STDOUT, stdout=subprocess.PIPE).stdout
        else:
            said = b'hello'
        self.send_response(200); self.send_header('Content-Length', str(len(said)))
        self.end_headers(); self.wfile.write(said)
    def address_string(self): return 'x'
    def log_message(self, *words): pass
s = http.server.HTTPServer(('127.0.0.1', 0), H, bind_and_activate=False)
s.socket = socket.socket(fileno=int(os.environ['FD'])); s.server_activate()
s.serve_forever()
"""


def test_an_application_cannot_give_orders():
    with Narwhal(HELLO, start=False, files={"app.py": GIVES_ORDERS}) as narwhal:
        words = f"env FD={{fd}} CTL={control_binary()} CONTROL={narwhal.control_path} python3 app.py"
        narwhal.write({"backend:app": {"command": words, "directory": "."},
                       "route:app": {"path": "/", "backend": "app"}})
        narwhal.start()
        wait_app(narwhal, "/")
        for target in ("/itself", "/below"):
            said = client.get(narwhal.address, target).text
            assert "a process that narwhal started" in said, said
        assert narwhal.status()["workers_wanted"] == 2


def test_a_client_that_is_gone_gives_no_orders():
    """Nobody can tell any more whether it was a worker. The master stands still meanwhile, so that
    it finds the order and not the client."""
    with Narwhal(HELLO) as narwhal:
        narwhal.signal(signal.SIGSTOP)
        try:
            program = ("import socket, sys\n"
                       "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
                       "s.sendall(b'scale 5\\n')\n")
            subprocess.run([sys.executable, "-c", program, narwhal.control_path], check=True,
                           timeout=DEADLINE)
        finally:
            narwhal.signal(signal.SIGCONT)
        narwhal.wait_log(r"turned away .*the client is gone")
        assert narwhal.status()["workers_wanted"] == 2


@pytest.mark.parametrize("byte", [0xff, 0x80, 0x22, 0x01, 0x02])
def test_answers_from_a_spoilt_scoreboard(byte):
    """A worker can write all of it. Its numbers are wrong then; the master answers, and lives."""
    with Narwhal({**HELLO, "backend:b": {"server": ["127.0.0.1:1", "127.0.0.1:2"]},
                  "route:b": {"path": "/b", "backend": "b"}}, errors=["."]) as narwhal:
        folder = f"/proc/{narwhal.pid}/fd"
        board = next(f"{folder}/{fd}" for fd in os.listdir(folder)
                     if "narwhal-scoreboard" in os.readlink(f"{folder}/{fd}"))
        workers = narwhal.workers().values()
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)  # they need not live with what they would have done
        size = os.stat(board).st_size
        with open(board, "r+b") as file:
            file.seek(64)  # behind the magic number
            while file.tell() < size:
                file.write(bytes([byte]) * min(1 << 20, size - file.tell()))
        for words in ("status", "workers", "backends", "lanes", "deaths"):
            assert narwhal.control_json(words)
            assert narwhal.control(words).stdout
        with Raw(narwhal) as raw:
            assert raw.ask("events")["event"] == "listening"
            assert narwhal.control("ping").returncode == 0
        narwhal.signal(signal.SIGTERM)
        for pid in workers:
            os.kill(pid, signal.SIGKILL)  # what they held is given back, in the master
        narwhal.wait_exit()


# ---- events --------------------------------------------------------------------------------------
class Events:
    """narwhalctl --json events."""

    def __init__(self, narwhal):
        self.process = subprocess.Popen(
            [control_binary(), "-s", narwhal.control_path, "--json", "events"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=narwhal.env)
        self.seen = []
        self.changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()
        self.wait(event="listening")

    def _read(self):
        for line in self.process.stdout:
            with self.changed:
                self.seen.append(json.loads(line))
                self.changed.notify_all()

    def wait(self, since=0, **members):
        """The first event with these members."""
        end = time.monotonic() + DEADLINE
        with self.changed:
            while True:
                for event in self.seen[since:]:
                    if all(event.get(key) == value for key, value in members.items()):
                        return event
                left = end - time.monotonic()
                assert left > 0, f"no event {members} among {self.seen}"
                self.changed.wait(left)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.terminate()
        self.process.wait(DEADLINE)
        self.process.stdout.close()


def test_events_tell_what_happens():
    with Narwhal({**HELLO, "backend:b": {"server": ["127.0.0.1:1", "127.0.0.1:2"]},
                  "route:b": {"path": "/b", "backend": "b"}}, errors=["."]) as narwhal, \
            Events(narwhal) as events:
        victim = narwhal.workers()[0]
        os.kill(victim, signal.SIGKILL)
        death = events.wait(event="death", pid=victim)
        assert death["signal"] == "SIGKILL" and death["name"] == "worker slot=0"
        new = narwhal.wait_workers(2, without=[victim])[0]
        events.wait(event="child", name="worker slot=0", pid=new, state="STARTING")
        events.wait(event="child", name="worker slot=0", pid=new, state="READY")
        narwhal.control("scale", "3")
        events.wait(event="workers", wanted=3, before=2)
        events.wait(event="scale", state="done")
        narwhal.signal(signal.SIGTTOU)
        events.wait(event="workers", wanted=2, before=3)
        narwhal.control("server", "b", "127.0.0.1:1", "drain")
        events.wait(event="server", address="127.0.0.1:1", wish="DRAINED")
        # A connection that is refused makes the server rest.
        for _ in range(3):  # max_fails
            assert client.get(narwhal.address, "/b").status == 502
        events.wait(event="server", address="127.0.0.1:2", rests=True)
        narwhal.signal(signal.SIGHUP)
        assert "settings 2" in events.wait(event="reload", state="done")["text"]
        narwhal.write("[nonsense]\n")
        narwhal.signal(signal.SIGHUP)
        assert "narwhal.ini:1" in events.wait(event="reload", state="failed")["text"]
        narwhal.signal(signal.SIGWINCH)
        events.wait(event="master", phase="running", paused=True)
        narwhal.stop()
        events.wait(event="master", phase="stopping")
        assert events.process.wait(DEADLINE) == 69, "the master is gone"


def test_events_go_on_after_an_upgrade():
    with installed(Narwhal(HELLO, start=False)) as narwhal:
        narwhal.start()
        with Events(narwhal) as events:
            for count in (1, 2):
                seen = len(events.seen)
                narwhal.control("upgrade")
                events.wait(seen, event="listening")
                events.wait(seen, event="upgrade", operation=count, state="done")


def test_events_for_people():
    with Narwhal(HELLO) as narwhal:
        process = subprocess.Popen([control_binary(), "-s", narwhal.control_path, "events"],
                                   stdout=subprocess.PIPE, text=True, env=narwhal.env)
        with process:
            assert " listening version=" in process.stdout.readline()
            narwhal.signal(signal.SIGHUP)
            lines = [process.stdout.readline() for _ in range(2)]
            process.terminate()
        assert re.match(r"\S+Z reload operation=1 state=running\n", lines[0]), lines
        assert re.match(r"\S+Z reload operation=1 state=done text=\"settings 2 are in use, "
                        r"changes: 0\"\n", lines[1]), lines


def test_slow_listener_loses_events_and_is_told():
    """Its events are bounded, and none goes missing without being counted."""
    orders = 1500
    with frugal(Narwhal(HELLO, errors=["."], start=False)) as narwhal, \
            Raw(narwhal) as slow, Raw(narwhal) as other:
        assert slow.ask("events")["event"] == "listening"
        narwhal.write("[nonsense]\n")
        before = memory_kib(narwhal.pid)
        for _ in range(orders):  # begun and refused: two events each
            assert other.ask("reload")["state"] == "failed"
        grown = memory_kib(narwhal.pid) - before
        counted = lost = 0
        while counted + lost < 2 * orders:
            event = slow.line()
            if event["event"] == "lost":
                lost += event["count"]
            else:
                assert event["event"] == "reload"
                counted += 1
        assert counted + lost == 2 * orders and lost > 0 and counted > 0, (counted, lost)
        assert grown < 16 * 1024, grown
        # It reads again: it gets all again.
        other.ask("reload")
        assert [slow.line()["state"] for _ in range(2)] == ["running", "failed"]


def test_too_many_listeners():
    with Narwhal(HELLO) as narwhal, contextlib.ExitStack() as stack:
        for _ in range(16):
            assert stack.enter_context(Raw(narwhal)).ask("events")["event"] == "listening"
        with Raw(narwhal) as raw:
            assert "too many listen" in raw.ask("events")["error"]
            assert raw.ask("ping")["answer"] == "pong"
        stack.close()
        with Raw(narwhal) as raw:
            wait_until(lambda: "error" not in raw.ask("events"), "room for another one")


# ---- clients that behave badly -------------------------------------------------------------------
def memory_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_wrong_words_over_the_socket():
    with Narwhal(HELLO) as narwhal:
        with Raw(narwhal) as raw:
            for words, text in (("", "unknown command"), ("  ", "unknown command"),
                                ("pin", "did you mean ping?"), ("PING!", "did you mean ping?"),
                                ("frobnicate", "unknown command \"frobnicate\""),
                                ("x" * 3000, "unknown command \"xxx"),
                                ("ping now", "ping takes no more words, not \"now\""),
                                ("status x", "takes no more words"),
                                ("events all", "takes no more words"),
                                ("scale", "needs more words"), ("scale 1 2", "it is: scale N"),
                                ("scale -1", "it is: scale N"), ("scale 1e9", "it is: scale N"),
                                ("drain 18446744073709551616", "it is: drain SLOT"),
                                ("drain 9223372036854775807", "there is no worker slot"),
                                ("restart a b", "there is no backend a b"),
                                ("operation 0", "not known"), ("server", "needs more words"),
                                ("server b", "it is: server"),
                                ("server x y drain", "there is no backend x"),
                                ("\x01\x02\x7f", "unknown command"), ("\"}\\", "unknown command")):
                answer = raw.ask(words)
                assert text in answer["error"], (words, answer)
            raw.send(b"ping\0\nping\r\n")
            assert "NUL" in raw.line()["error"]
            assert raw.line()["answer"] == "pong"
        # The answers of what came before the end.
        with Raw(narwhal) as raw:
            raw.send(b"ping\nping\nnope\npi")
            raw.socket.shutdown(socket.SHUT_WR)
            lines = raw.file.read().splitlines()
            assert len(lines) == 3 and b"pong" in lines[1] and b"unknown" in lines[2], lines


def spoil(raw, number):
    """One bad client: 10 MiB without a line end, half a line, half an answer, or nothing."""
    raw.settimeout(DEADLINE)
    with contextlib.suppress(ConnectionError):
        if number % 4 == 0:
            for _ in range(10 * 16):
                raw.sendall(b"x" * 65536)
        elif number % 4 == 1:
            raw.sendall(b"statu")
        elif number % 4 == 2:
            raw.sendall(b"status\n" * 20)
            raw.recv(10)


def test_long_line_is_refused():
    with Narwhal(HELLO) as narwhal:
        with Raw(narwhal) as raw:
            with pytest.raises(ConnectionError):
                for _ in range(10 * 16):
                    raw.send(b"x" * 65536)
            assert "longer than 4096" in raw.line()["error"]
        assert narwhal.control("ping").returncode == 0


def test_a_thousand_bad_clients_at_once():
    with frugal(Narwhal(HELLO, start=False)) as narwhal:
        narwhal.control("ping")
        before = descriptors(narwhal.pid)
        memory = memory_kib(narwhal.pid)
        clients = [socket.socket(socket.AF_UNIX) for _ in range(1000)]
        problems = []

        def run(part):
            for number in range(part, 1000, 8):
                try:
                    clients[number].connect(narwhal.control_path)
                    spoil(clients[number], number)
                except ConnectionError:
                    pass  # it had to make room for another one
                except OSError as problem:
                    problems.append(repr(problem))
        threads = [threading.Thread(target=run, args=(part,)) for part in range(8)]
        for thread in threads:
            thread.start()
        answered = 0
        while any(thread.is_alive() for thread in threads) or answered < 20:
            answered += narwhal.control("ping", check=False).returncode == 0
            assert client.get(narwhal.address).status == 200
        for thread in threads:
            thread.join()
        assert not problems, problems[:3]
        assert narwhal.control("status").returncode == 0, "with all of them still there"
        assert descriptors(narwhal.pid) <= before + 64 + 2
        for connection in clients:
            connection.close()
        wait_until(lambda: descriptors(narwhal.pid) <= before, "their end")
        assert memory_kib(narwhal.pid) - memory < 64 * 1024
        assert client.get(narwhal.address).status == 200


def test_client_that_does_not_read_is_not_asked():
    """Who pipelines without taking answers is stopped by its own socket, not by the master's
    memory; once it reads, each command is answered, in order."""
    with frugal(Narwhal(HELLO, start=False)) as narwhal, Raw(narwhal) as raw:
        memory = memory_kib(narwhal.pid)
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        raw.socket.setblocking(False)
        commands = b"".join(b"status\n" if number % 2 else b"ping\n" for number in range(10_000))
        sent = 0
        with pytest.raises(BlockingIOError):
            while sent < 64 << 20:
                sent += raw.socket.send(commands[sent % len(commands):])
        assert narwhal.control("ping").returncode == 0
        assert memory_kib(narwhal.pid) - memory < 8 * 1024
        raw.socket.setblocking(True)
        raw.socket.settimeout(DEADLINE)
        whole = (commands * (sent // len(commands) + 1))[:sent].decode().splitlines()
        raw.socket.shutdown(socket.SHUT_WR)
        if not commands[(sent - 1) % len(commands):].startswith(b"\n"):
            whole.pop()  # cut in the middle of a word
        for word in whole:
            assert ("workers" if word == "status" else "answer") in raw.line(), word
        assert not raw.file.read()


def test_silent_clients_make_room():
    with Narwhal(HELLO) as narwhal, contextlib.ExitStack() as stack:
        silent = [stack.enter_context(Raw(narwhal)) for _ in range(64)]
        for raw in (silent[63], silent[0]):  # all are accepted; then the first is not silent
            assert raw.ask("ping")["answer"] == "pong"
        assert narwhal.control("ping").returncode == 0
        # The longest silent one, and that is not the one that asked.
        assert "had to go" in silent[1].line()["error"]
        assert not silent[1].file.read()
        assert silent[0].ask("ping")["answer"] == "pong"
        assert silent[63].ask("ping")["answer"] == "pong"
