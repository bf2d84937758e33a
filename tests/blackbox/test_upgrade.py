# SPDX-License-Identifier: Apache-2.0
"""SIGUSR2: the process becomes another program, keeps its children and sockets, and no client
notices. A program that cannot take over is refused before anything changes."""
import asyncio
import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest
import websockets

import client
from load import Load
from narwhal import (APPS, DEADLINE, Narwhal, binary, children_of, is_alive, run_narwhal, wait_app,
                     wait_until)

HELLO = {"route:hello": {"path": "/", "respond": "200 hello"}}
APP = {"backend:app": {"command": "uvicorn app_fastapi:app --fd {fd}", "directory": APPS,
                       "instances": 2},
       "route:app": {"path": "/app", "backend": "app", "strip_prefix": "on"}, **HELLO}
REFUSED = ["upgrade refused, everything goes on as before", r"upgrade check\["]
# A program whose layouts are others than ours: made for the tests, see tests/CMakeLists.txt.
OTHER = os.path.join(os.path.dirname(binary()), "tests", "narwhal_other_layout")


@contextlib.contextmanager
def installed(settings, name="narwhal", **more):
    """A narwhal that runs from a copy of the binary in its own folder; settings may be a function
    of it."""
    with Narwhal(HELLO if callable(settings) else settings, start=False, **more) as narwhal:
        if callable(settings):
            narwhal.write(settings(narwhal))
        narwhal.program = narwhal.path(name)
        install(narwhal, binary())
        narwhal.start()
        yield narwhal


def install(narwhal, source, mode=0o755):
    """Puts a program where narwhal was started from, in one step, as package managers do."""
    new = narwhal.program + ".new"
    if isinstance(source, bytes):
        with open(new, "wb") as file:
            file.write(source)
    else:
        shutil.copyfile(source, new)
    os.chmod(new, mode)
    os.rename(new, narwhal.program)


def upgrade(narwhal, expect="upgraded"):
    """SIGUSR2, and waits for what comes of it. Returns the mark before."""
    before = narwhal.mark()
    narwhal.signal(signal.SIGUSR2)
    found = narwhal.wait_log(r"(upgraded) from|upgrade (refused), everything|"
                             r"upgrade (failed)", since=before)
    word = next(filter(None, found.groups()))
    assert word == expect, f"{word}, not {expect}"
    return before


def upgrade_and_roll(narwhal):
    """An upgrade, until every worker runs the new program and the old ones are gone."""
    before = narwhal.workers()
    mark = upgrade(narwhal)
    after = narwhal.wait_workers(len(before), without=before.values())
    wait_until(lambda: not any(map(is_alive, before.values())), "the old workers to leave")
    return mark, after


def descriptors(pid):
    return sorted(os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd"))


def inode_of_program(pid):
    found = os.stat(f"/proc/{pid}/exe")
    return found.st_dev, found.st_ino


# ---- what stays and what changes -----------------------------------------------------------------
def test_same_process_new_program():
    with installed(APP) as narwhal:
        wait_app(narwhal, "/app/pid")
        narwhal.wait_instances(2)
        instances, workers = sorted(narwhal.instances()), narwhal.workers()
        old = inode_of_program(narwhal.pid)
        addresses = narwhal.addresses()
        client.get(narwhal.address)
        counted = narwhal.status()["totals"]["requests"]
        install(narwhal, binary())
        with Load(narwhal.address, stay=False) as load, \
                Load(narwhal.address, "/app/pid", stay=False) as app_load:
            load.wait_answers(5)
            mark, _ = upgrade_and_roll(narwhal)
            load.wait_answers(10)
            app_load.wait_answers(3)
        line = narwhal.wait_log(r"upgraded from=(\S+) to=(\S+) pid=(\d+)", since=mark)
        assert line[1] == line[2] and int(line[3]) == narwhal.pid
        stat = os.stat(narwhal.program)
        assert inode_of_program(narwhal.pid) == (stat.st_dev, stat.st_ino) != old
        for worker in narwhal.workers().values():
            assert inode_of_program(worker) == (stat.st_dev, stat.st_ino)
        assert sorted(narwhal.instances()) == instances, "applications stay"
        assert not set(narwhal.workers().values()) & set(workers.values())
        assert narwhal.addresses() == addresses, "nothing is bound again"
        status = narwhal.status()
        assert status["totals"]["requests"] > counted, "the counters go on"
        with open(f"/proc/{narwhal.pid}/environ", "rb") as file:
            assert b"NARWHAL_STATE" in file.read(), "what the kernel shows is of the exec"
        for pid in instances + list(narwhal.workers().values()):
            with open(f"/proc/{pid}/environ", "rb") as file:
                if pid in instances:
                    assert b"NARWHAL_STATE" not in file.read()


def test_workers_are_replaced_one_by_one():
    with installed({**HELLO, "master": {"workers": 3}}) as narwhal:
        mark, _ = upgrade_and_roll(narwhal)
        ready = [line for line in narwhal.log(mark) if "is READY" in line]
        assert [line.split("slot=")[1][0] for line in ready] == ["0", "1", "2"]


def test_program_of_another_layout():
    """Neither scoreboard nor channel nor image mean the same to it: the counters begin again and
    the old workers finish by themselves; still nobody is refused."""
    if not os.access(OTHER, os.X_OK):
        pytest.skip("narwhal_other_layout is not built")
    with installed(APP) as narwhal:
        wait_app(narwhal, "/app/pid")
        narwhal.wait_instances(2)
        instances = sorted(narwhal.instances())
        for program in (OTHER, binary()):
            install(narwhal, program)
            with Load(narwhal.address, stay=False) as load, \
                    Load(narwhal.address, "/app/pid", stay=False) as app_load:
                load.wait_answers(5)
                mark, _ = upgrade_and_roll(narwhal)
                load.wait_answers(10)
                app_load.wait_answers(5)
            said = "\n".join(narwhal.log(mark))
            assert "the counters begin again" in said
            assert "those in use are of another version" in said
            assert sorted(narwhal.instances()) == instances
        # And the master still knows its instances: a killed one comes back.
        os.kill(instances[0], signal.SIGKILL)
        narwhal.expect_error("instance app/")
        narwhal.wait_instances(2, without=instances[:1])
        wait_until(lambda: client.get(narwhal.address, "/app/pid").status == 200, "an answer")


def test_current_link_is_followed():
    with Narwhal(HELLO, start=False) as narwhal:
        for version in ("v1", "v2"):
            os.mkdir(narwhal.path(version))
            shutil.copyfile(binary(), narwhal.path(version, "narwhal"))
            os.chmod(narwhal.path(version, "narwhal"), 0o755)
        os.symlink("v1", narwhal.path("current"))
        narwhal.program = "current/narwhal"  # relative, too
        narwhal.start()
        os.symlink("v2", narwhal.path("link"))
        os.rename(narwhal.path("link"), narwhal.path("current"))
        upgrade_and_roll(narwhal)
        assert os.readlink(f"/proc/{narwhal.pid}/exe") == narwhal.path("v2", "narwhal")


def test_program_from_path():
    with Narwhal(HELLO, start=False) as narwhal:
        os.mkdir(narwhal.path("bin"))
        shutil.copyfile(binary(), narwhal.path("bin", "narwhal"))
        os.chmod(narwhal.path("bin", "narwhal"), 0o755)
        narwhal.program = "narwhal"
        narwhal.env["PATH"] = narwhal.path("bin") + ":" + narwhal.env["PATH"]
        command = narwhal.command()
        narwhal.command = lambda: ["sh", "-c", 'exec "$0" "$@"', *command]
        narwhal.start()
        shutil.copyfile(binary(), narwhal.path("bin", "new"))
        os.chmod(narwhal.path("bin", "new"), 0o755)
        os.rename(narwhal.path("bin", "new"), narwhal.path("bin", "narwhal"))
        upgrade_and_roll(narwhal)
        assert os.readlink(f"/proc/{narwhal.pid}/exe") == narwhal.path("bin", "narwhal")


def test_nothing_leaks_over_ten_upgrades():
    def settings(narwhal):
        return {**APP, "log": {"access": narwhal.path("access.log")},
                "master": {"pidfile": "pid",
                           "bind": ["127.0.0.1:0", f"unix:{narwhal.path('sock')}"]}}
    with installed(settings) as narwhal:
        wait_app(narwhal, "/app/pid")
        narwhal.wait_instances(2)
        upgrade_and_roll(narwhal)

        def kinds():
            return sorted(name.split(":")[0] for name in descriptors(narwhal.pid))
        wait_until(lambda: children_of(narwhal.pid) and len(children_of(narwhal.pid)) == 4, "rest")
        before = kinds()
        for _ in range(10):
            upgrade_and_roll(narwhal)
        wait_until(lambda: kinds() == before, f"the descriptors of before: {before}")
        for pid in narwhal.instances():
            assert len(os.listdir(f"/proc/{pid}/fd")) < 25, descriptors(pid)
        with open(narwhal.path("pid"), encoding="ascii") as file:
            assert int(file.read()) == narwhal.pid
    assert not os.path.exists(narwhal.path("pid"))


def test_pidfile_and_folders_stay_locked():
    settings = {**APP, "master": {"pidfile": "pid", "runtime_dir": "run"}}
    with installed(settings) as narwhal:
        wait_app(narwhal, "/app/pid")
        upgrade_and_roll(narwhal)
        second = subprocess.run(narwhal.command(), cwd=narwhal.folder, env=narwhal.env, timeout=30,
                                capture_output=True, text=True, check=False)
        assert second.returncode == 69 and "another master is running" in second.stderr
        assert client.get(narwhal.address, "/app/pid").status == 200


# ---- clients -------------------------------------------------------------------------------------
def test_no_client_notices():
    """Kept and fresh connections, a download and a WebSocket across two upgrades."""
    settings = {**APP, "master": {"graceful_timeout": "60s", "workers": 3},
                "route:files": {"path": "/files", "static": "root"}}
    size = 9 << 20

    async def scenario(narwhal):
        uri = f"ws://127.0.0.1:{narwhal.port}/app/echo"
        async with websockets.connect(uri) as talk:
            with client.Client(narwhal.address, receive_buffer=4096) as download, \
                    Load(narwhal.address, stay=False) as load:
                download.send(client.encode("GET", "/files/big"))
                download.take(100)
                for turn in range(2):
                    load.wait_answers(10)
                    workers = narwhal.workers()
                    upgrade(narwhal)
                    wait_until(lambda old=workers: not set(old.values()) & {
                        worker["pid"] for worker in narwhal.status()["workers"]
                        if worker["state"].upper() == "READY"}, "new workers")
                    load.wait_answers(10)
                    await talk.send(f"turn {turn}")
                    assert await asyncio.wait_for(talk.recv(), 30) == f"turn {turn}"
                assert len(download.take(size - (1 << 20))) == size - (1 << 20)
    with installed(settings, files={"root/big": bytes(size)}) as narwhal:
        wait_app(narwhal, "/app/pid")
        asyncio.run(scenario(narwhal))


def test_request_that_waits_in_the_queue():
    """With all workers drained (WINCH) a client waits in a lane; the upgrade keeps lane and pause,
    and HUP lets the new program's workers answer."""
    with installed(HELLO) as narwhal:
        workers = narwhal.workers()
        narwhal.signal(signal.SIGWINCH)
        wait_until(lambda: not any(map(is_alive, workers.values())), "the workers to drain")
        with client.Client(narwhal.address) as waiting:
            waiting.send(client.encode("GET", "/"))
            upgrade(narwhal)
            assert not narwhal.workers(), "still paused"
            narwhal.reload()
            assert waiting.response().text.strip() == "hello"


def test_unix_and_inherited_sockets():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        number = listener.fileno()
        with Narwhal(HELLO, start=False) as narwhal:
            path = narwhal.path("http.sock")
            narwhal.write({**HELLO, "master": {"bind": ["fd://3", f"unix:{path}"]}})
            narwhal.program = narwhal.path("narwhal")
            install(narwhal, binary())
            narwhal._popen = {"pass_fds": [3], "preexec_fn": lambda: os.dup2(number, 3)}
            command = narwhal.command()
            narwhal.command = lambda: ["sh", "-c", 'exec env LISTEN_FDS=1 LISTEN_PID=$$ "$0" "$@"',
                                       *command]
            narwhal.start()
            node = os.stat(path).st_ino
            addresses = (listener.getsockname(), path)
            with Load(addresses[0], stay=False) as tcp, Load(path, stay=False) as unix:
                for _ in range(2):
                    tcp.wait_answers(5)
                    unix.wait_answers(5)
                    upgrade_and_roll(narwhal)
                tcp.wait_answers(5)
                unix.wait_answers(5)
            assert os.stat(path).st_ino == node, "the very same socket"
            narwhal.expect_error("narwhal's own")
            narwhal.expect_error("reload refused")
            own = next(int(name) for name in os.listdir(f"/proc/{narwhal.pid}/fd")
                       if os.readlink(f"/proc/{narwhal.pid}/fd/{name}") == unix_inode(path))
            narwhal.write({**HELLO, "master": {"bind": ["fd://3", f"fd://{own}"]}})
            narwhal.reload(expect="refused")
            narwhal.write({**HELLO, "master": {"bind": ["fd://3"]}})
            narwhal.reload()
            wait_until(lambda: not os.path.exists(path), "the socket file to go")
            assert client.get(addresses[0]).status == 200


def unix_inode(path):
    """The name in /proc/PID/fd of the listening socket at a path."""
    with open("/proc/net/unix", encoding="ascii", errors="replace") as file:
        next(file)  # the names of the columns
        for line in file:
            fields = line.split()
            # A rename made the path of the name that it was bound to.
            if len(fields) == 8 and int(fields[3], 16) & 0x10000 and \
                    os.path.basename(fields[7]).startswith(".nw") and \
                    os.path.dirname(fields[7]) == os.path.dirname(path):
                return f"socket:[{fields[6]}]"
    raise AssertionError(f"nobody listens at {path}")


def test_lanes_of_a_stopped_worker_stay_lent():
    """The new program must not give them back before it looks for the first time."""
    with installed({**HELLO, "master": {"graceful_timeout": "1s"}}) as narwhal:
        pid = narwhal.workers()[1]
        os.kill(pid, signal.SIGSTOP)
        narwhal.wait_log(rf"worker slot=1 stalls, siblings serve its lanes pid={pid}")
        mark = upgrade(narwhal)
        narwhal.wait_log(r"worker slot=1 is READY", since=mark)
        lines = [line for line in narwhal.log(mark) if "upgraded from" in line or "stalls" in line
                 or "is READY" in line]
        assert "upgraded from" in lines[0] and f"stalls, siblings serve its lanes pid={pid}" in \
            lines[1], lines
        narwhal.wait_log(rf"worker slot=1 left pid={pid} .*killed_for=graceful_timeout", since=mark)


# ---- settings ------------------------------------------------------------------------------------
def test_changed_settings_come_with_the_upgrade():
    with installed({"route:hello": {"path": "/", "respond": "200 one"}}) as narwhal:
        narwhal.write({"route:hello": {"path": "/", "respond": "200 two"}})
        with Load(narwhal.address, stay=False) as load:
            load.wait_answers(5)
            mark = upgrade(narwhal)
            narwhal.wait_log("reload done", since=mark)
            load.wait_answers(5, lambda body: body.strip() == b"two")


def test_broken_settings_are_refused():
    with installed(HELLO, errors=REFUSED) as narwhal:
        good = narwhal.text(HELLO)
        workers = narwhal.workers()
        narwhal.write(good + "[worker]\nkeepalife = 3s\n")
        mark = upgrade(narwhal, "refused")
        said = "\n".join(narwhal.log(mark))
        assert "keepalife" in said and "exit=78" in said
        assert narwhal.workers() == workers
        assert client.get(narwhal.address).status == 200
        narwhal.write(good)
        upgrade_and_roll(narwhal)


def wrapper(body):
    """A program that passes the check and does something before it takes over."""
    return (f'#!/bin/sh\nprogram={binary()}\ncase "$1" in --check-upgrade) ;;\n*) {body} ;;\nesac\n'
            'exec "$program" "$@"\n').encode()


def test_settings_that_break_after_the_check():
    """Those in use go on, with the new program."""
    with installed(HELLO, errors=["settings cannot be read again, those in use go on",
                                  "narwhal.ini"]) as narwhal:
        install(narwhal, wrapper(f"echo broken >> {narwhal.settings_path}"))
        upgrade_and_roll(narwhal)
        assert client.get(narwhal.address).text.strip() == "hello"
        narwhal.expect_error("reload refused")
        narwhal.reload(expect="refused")
        narwhal.write(HELLO)
        narwhal.reload()


def test_new_program_that_fails_after_its_check_gives_back():
    """It can read neither the settings nor what was in use: the old program is executed again."""
    if not os.access(OTHER, os.X_OK):
        pytest.skip("narwhal_other_layout is not built")
    with installed(APP, errors=["settings cannot be read again", "narwhal.ini", "upgrade failed",
                                "cannot take over: back to narwhal"]) as narwhal:
        wait_app(narwhal, "/app/pid")
        narwhal.wait_instances(2)
        workers, instances = narwhal.workers(), sorted(narwhal.instances())
        old = inode_of_program(narwhal.pid)
        install(narwhal, wrapper(f"echo broken >> {narwhal.settings_path}; program={OTHER}"))
        with Load(narwhal.address) as load:
            load.wait_answers(5)
            upgrade(narwhal, "failed")
            load.wait_answers(10)
        assert inode_of_program(narwhal.pid) == old
        assert narwhal.workers() == workers and sorted(narwhal.instances()) == instances
        narwhal.write(APP)
        narwhal.reload()
        install(narwhal, binary())
        upgrade_and_roll(narwhal)


# ---- programs that are refused -------------------------------------------------------------------
@pytest.mark.parametrize("program, mode, why", [
    (b"#!/bin/sh\nexit 1\n", 0o755, "exit=1"),
    (b"#!/bin/sh\nexit 0\n", 0o755, "does not answer as a narwhal does"),
    (b"#!/bin/sh\necho no such library >&2; exit 127\n", 0o755, "no such library"),
    (b"#!/bin/sh\nkill -SEGV $$\n", 0o755, "SIGSEGV"),
    (b"\x7fELF garbage", 0o755, "Exec format error"),
    (b"", 0o755, "Exec format error"),
    (b"#!/no/such/interpreter\n", 0o755, "No such file"),
    (b"#!/bin/sh\n", 0o644, "Permission denied"),
    (None, 0, "No such file"),
], ids=["fails", "another program", "library", "crashes", "garbage", "empty", "interpreter",
        "not executable", "missing"])
def test_no_narwhal_is_refused(program, mode, why):
    if mode == 0o644 and program and os.geteuid() == 0:
        mode = 0o600  # root, too, needs one x bit
    with installed(HELLO, errors=REFUSED) as narwhal:
        workers, before = narwhal.workers(), descriptors(narwhal.pid)
        if program is None:
            os.unlink(narwhal.program)
        else:
            install(narwhal, program, mode)
        with Load(narwhal.address) as load:
            load.wait_answers(5)
            mark = upgrade(narwhal, "refused")
            line = narwhal.wait_log("upgrade refused.*", since=mark)[0]
            assert why in line and narwhal.program in line
            load.wait_answers(5)
        assert narwhal.workers() == workers
        wait_until(lambda: len(descriptors(narwhal.pid)) == len(before), "the descriptors to go")
        install(narwhal, binary())
        upgrade_and_roll(narwhal)


def test_program_that_cannot_be_executed_after_its_check():
    """It vanishes behind its own check: exec fails, and nothing has changed."""
    with installed(APP, errors=REFUSED) as narwhal:
        wait_app(narwhal, "/app/pid")
        narwhal.wait_instances(2)
        workers, before = narwhal.workers(), descriptors(narwhal.pid)
        install(narwhal, f'#!/bin/sh\nrm -f "$0"\nexec {binary()} "$@"\n'.encode())
        mark = upgrade(narwhal, "refused")
        assert "No such file" in narwhal.wait_log("upgrade refused.*", since=mark)[0]
        assert narwhal.workers() == workers
        wait_until(lambda: len(descriptors(narwhal.pid)) == len(before), "the descriptors to go")
        # Nothing was left open for programs: a new instance inherits three descriptors and one.
        pid = narwhal.instances()[0]
        narwhal.expect_error("instance app/")
        os.kill(pid, signal.SIGKILL)
        new = narwhal.wait_instances(2, without=[pid])
        assert all(len(os.listdir(f"/proc/{number}/fd")) < 25 for number in new)
        install(narwhal, binary())
        upgrade_and_roll(narwhal)


def test_check_that_does_not_end():
    with installed(HELLO, errors=REFUSED + ["upgrade check is not READY"]) as narwhal:
        install(narwhal, b"#!/bin/sh\nexec sleep 1000\n")
        mark = narwhal.mark()
        narwhal.signal(signal.SIGUSR2)
        narwhal.wait_log("is checked", since=mark)
        assert client.get(narwhal.address).status == 200, "nobody waits for it"
        narwhal.signal(signal.SIGUSR2)
        narwhal.wait_log("upgrade ignored: another one is under way", since=mark)
        line = narwhal.wait_log("upgrade refused.*", since=mark)[0]
        assert "longer than" in line
        assert len(children_of(narwhal.pid)) == 2


def test_stop_during_the_check():
    with installed(HELLO) as narwhal:
        install(narwhal, b"#!/bin/sh\nexec sleep 1000\n")
        narwhal.signal(signal.SIGUSR2)
        narwhal.wait_log("is checked")
        narwhal.stop()
        assert "upgrade given up" in "\n".join(narwhal.log())


# ---- together with other events ------------------------------------------------------------------
def test_twice_in_a_row_and_then_everything():
    with installed({**APP, "master": {"workers": 3}}) as narwhal:
        wait_app(narwhal, "/app/pid")
        with Load(narwhal.address, stay=False) as load:
            load.wait_answers(3)
            mark = narwhal.mark()
            narwhal.signal(signal.SIGUSR2)
            narwhal.wait_log("upgraded from", since=mark)
            narwhal.signal(signal.SIGUSR2)  # the workers of the first are still being replaced
            narwhal.wait_log("upgraded from", since=mark, count=2)
            narwhal.signal(signal.SIGTTIN)
            narwhal.wait_workers(4)
            narwhal.reload()
            load.wait_answers(5)
            upgrade_and_roll(narwhal)
            assert len(narwhal.workers()) == 4, "TTIN survives"
            narwhal.signal(signal.SIGTTOU)
            narwhal.wait_workers(3)
            load.wait_answers(5)


def test_burst_of_signals():
    """USR2 in the middle of many HUP and TTIN and TTOU: all are done, in some order."""
    with installed(HELLO) as narwhal, Load(narwhal.address, stay=False) as load:
        load.wait_answers(3)
        mark = narwhal.mark()
        for number in range(60):
            narwhal.signal([signal.SIGHUP, signal.SIGUSR2, signal.SIGUSR1][number % 3])
        narwhal.wait_log("upgraded from", since=mark)
        load.wait_answers(5)

        def quiet():
            before = narwhal.mark()
            narwhal.reload()
            return not [line for line in narwhal.log(before) if "upgraded" in line]
        wait_until(quiet, "the last upgrade")
        load.wait_answers(5)


def test_term_right_behind_is_obeyed():
    with installed(HELLO) as narwhal:
        for _ in range(2):
            narwhal.signal(signal.SIGUSR2)
        narwhal.wait_log("the check is done")
        narwhal.stop()


def test_queued_behind_a_reload():
    with installed(APP) as narwhal:
        wait_app(narwhal, "/app/pid")
        narwhal.write({**APP, "master": {"workers": 3}})
        mark = narwhal.mark()
        # Both before the master looks.
        narwhal.signal(signal.SIGSTOP)
        narwhal.signal(signal.SIGHUP)
        narwhal.signal(signal.SIGUSR2)
        narwhal.signal(signal.SIGCONT)
        narwhal.wait_log("reload done", since=mark)
        narwhal.wait_log("upgraded from", since=mark)
        narwhal.wait_workers(3)


def test_crash_looping_instance():
    settings = {"backend:bad": {"command": "sh -c 'exit 3' {socket}"},
                "route:bad": {"path": "/bad", "backend": "bad"}, **HELLO}
    settings["log"] = {"level": "debug"}
    with installed(settings, errors=["instance bad/0"]) as narwhal:
        narwhal.wait_log(r"debug .*instance bad/0 died", count=2)  # folded by now
        mark, _ = upgrade_and_roll(narwhal)
        narwhal.wait_log("debug .*instance bad/0 died", since=mark)
        assert not [line for line in narwhal.log(mark) if "respawn_in=" in line], \
            "the row of deaths goes on"
        assert client.get(narwhal.address).status == 200


def test_booting_instance_becomes_ready():
    """It is between its start and its first connection when the program changes."""
    settings = {"backend:slow": {"command": "sh -c 'echo half; while [ ! -e go ]; do sleep 0.05; "
                                            "done; exec uvicorn app_fastapi:app --uds {socket}'",
                                 "directory": "."},
                "route:slow": {"path": "/", "backend": "slow"}}
    files = {}
    with open(os.path.join(APPS, "app_fastapi.py"), "rb") as file:
        files["app_fastapi.py"] = file.read()
    with installed(settings, files=files, errors=["no server is ready"]) as narwhal:
        narwhal.wait_log("instance slow/0.*half")
        before = narwhal.instances()
        upgrade_and_roll(narwhal)
        narwhal.file("go")
        assert wait_app(narwhal, "/pid").status == 200
        assert narwhal.instances() == before


def test_worker_killed_during_the_upgrade():
    with installed({**HELLO, "master": {"workers": 3}}) as narwhal:
        for _ in range(5):
            old = narwhal.workers()
            mark = narwhal.mark()
            narwhal.signal(signal.SIGUSR2)
            narwhal.wait_log("is checked", since=mark)
            os.kill(old[1], signal.SIGKILL)
            narwhal.wait_log("upgraded from", since=mark)
            with contextlib.suppress(ProcessLookupError):
                os.kill(old[2], signal.SIGKILL)
            narwhal.wait_workers(3, without=old.values())
            assert client.get(narwhal.address).status == 200
        wait_until(lambda: len(children_of(narwhal.pid)) == 3, "no zombie is left")


def test_instance_that_dies_while_nobody_is_master():
    """Its SIGCHLD comes between the two programs."""
    with installed(APP, errors=["instance app/"]) as narwhal:
        wait_app(narwhal, "/app/pid")
        narwhal.wait_instances(2)
        pid = narwhal.instances()[0]
        install(narwhal, wrapper(f"kill -9 {pid}"))
        mark, _ = upgrade_and_roll(narwhal)
        narwhal.wait_log(rf"instance app/\d died pid={pid} signal=SIGKILL", since=mark)
        wait_until(lambda: len(narwhal.instances()) == 2, "it is replaced")


def test_new_workers_that_cannot_boot():
    """The old ones go on, and a reload tries again when the reason is gone."""
    errors = ["settings cannot be read again, those in use go on", "narwhal.ini", "cannot use the "
              "settings", "replacement of the workers stops", "reload refused"]
    with installed({"route:files": {"path": "/", "static": "root"}}, files={"root/x": "here"},
                   errors=errors) as narwhal:
        workers = narwhal.workers()
        root, gone = narwhal.path("root"), narwhal.path("gone")
        install(narwhal, wrapper(f"mv {root} {gone}"))
        with Load(narwhal.address, "/x") as load:
            load.wait_answers(5)
            mark = upgrade(narwhal)
            narwhal.wait_log("replacement of the workers stops", since=mark)
            load.wait_answers(5)
        assert narwhal.workers() == workers
        os.rename(gone, root)
        with Load(narwhal.address, "/x", stay=False) as load:
            load.wait_answers(5)
            narwhal.reload()
            narwhal.wait_workers(2, without=workers.values())
            load.wait_answers(5)


def test_output_of_applications_goes_on():
    settings = {"backend:talk": {
        "command": "sh -c 'printf half; while [ ! -e go ]; do sleep 0.05; done; echo \" line\"; "
                   "exec sleep 1000' {socket}"},
        "route:talk": {"path": "/", "backend": "talk"}}
    with installed(settings) as narwhal:
        wait_until(lambda: len(narwhal.instances()) == 1, "the instance")
        upgrade_and_roll(narwhal)
        narwhal.file("go")
        narwhal.wait_log(r"instance talk/0\[\d+\]: half line$")


# ---- control and service manager -----------------------------------------------------------------
def test_narwhalctl_upgrade():
    with installed(HELLO) as narwhal:
        workers = narwhal.workers()
        assert narwhal.control_json("upgrade")["state"] == "running"
        narwhal.wait_log("upgraded from")
        narwhal.wait_workers(2, without=workers.values())
        started = narwhal.status()
        assert started["pid"] == narwhal.pid


def test_service_manager_is_told():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        with Narwhal(HELLO, start=False) as narwhal:
            path = narwhal.path("notify")
            listener.bind(path)
            listener.settimeout(DEADLINE)
            narwhal.env["NOTIFY_SOCKET"] = path
            narwhal.program = narwhal.path("narwhal")
            install(narwhal, binary())
            narwhal.start()
            upgrade(narwhal)
            wanted = f"READY=1\nMAINPID={narwhal.pid}".encode()
            end = time.monotonic() + DEADLINE
            count = 0
            while count < 2 and time.monotonic() < end:
                count += listener.recv(4096).startswith(wanted)
            assert count == 2, "once at the start, once after the upgrade"


# ---- the entries, by hand ------------------------------------------------------------------------
def state_bytes(version=1, length=None):
    return struct.pack("<QIIQQ", 0x004554415453574e, version, 0, length or 32, 0)


@pytest.mark.parametrize("content, why", [
    (b"", "only 0 bytes"),
    (b"x" * 100, "no state of a master"),
    (state_bytes(version=999), "of version 999"),
    (state_bytes(length=5000), "says that it has 5000"),
    (state_bytes(), "checksum"),
], ids=["empty", "something else", "another version", "cut short", "checksum"])
@pytest.mark.parametrize("entry", ["check", "takeover"])
def test_bad_state(entry, content, why):
    fd = os.memfd_create("state", 0)
    os.write(fd, content)
    try:
        flags = ["--check-upgrade", str(fd)] if entry == "check" else []
        env = {name: value for name, value in os.environ.items() if "NARWHAL" not in name}
        if entry == "takeover":
            env["NARWHAL_STATE_FD"] = str(fd)
        done = subprocess.run([binary(), *flags, "--static", "."], pass_fds=[fd], env=env,
                              capture_output=True, text=True, timeout=DEADLINE, check=False)
    finally:
        os.close(fd)
    assert done.returncode == 65 and why in done.stderr, done
    assert "cannot take over" in done.stderr and "Sanitizer" not in done.stderr
    assert not done.stdout


@pytest.mark.parametrize("number", ["99", "-1", "x", "", "2147483648"])
def test_no_state(number):
    status, _, error = run_narwhal("--check-upgrade", number, "--static", ".")
    assert status == 65 and "cannot take over" in error
    status, _, error = run_narwhal("--static", ".", env={"NARWHAL_STATE_FD": number})
    assert status == 65 and "cannot take over" in error


def test_state_of_another_process():
    """A real one, taken from a check, is refused by whoever is not its process."""
    with installed(HELLO, errors=REFUSED) as narwhal:
        kept = narwhal.path("state")
        install(narwhal, f"#!/bin/sh\ncat <&3 >{kept}\ncat /proc/self/fd/3 >{kept}\n"
                         "exit 1\n".encode())
        upgrade(narwhal, "refused")
        with open(kept, "rb") as file:
            env = {**os.environ, "NARWHAL_STATE_FD": str(file.fileno())}
            done = subprocess.run([binary(), "--static", "."], pass_fds=[file.fileno()], env=env,
                                  capture_output=True, text=True, timeout=DEADLINE, check=False)
        assert done.returncode == 65, done
        assert f"the state is of process {narwhal.pid}" in done.stderr
    assert sys.byteorder == "little", "the bytes above are those of a little-endian machine"


def test_control_clients_get_their_answers():
    """Whoever asks while the program is exchanged waits a moment, and is answered."""
    with installed(HELLO) as narwhal:
        problems = []
        ended = threading.Event()

        def ask():
            while not ended.is_set():
                done = narwhal.control("ping", check=False)
                if done.returncode != 0:
                    problems.append((done.returncode, done.stdout, done.stderr))
        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            upgrade(narwhal)
        ended.set()
        for thread in threads:
            thread.join()
        assert not problems, problems
