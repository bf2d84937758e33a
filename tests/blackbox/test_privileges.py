# SPDX-License-Identifier: Apache-2.0
"""What processes are allowed, read from /proc/PID/status (proc(5)): of a master that is root and
gives it up for its children, and of one that never was."""
import os
import pwd
import shutil
import signal
import time

import pytest

import client
from dns import Dnsmasq
from narwhal import APPS, Narwhal, children_of, title_of, wait_app, wait_until

HELLO = {"route:hello": {"path": "/", "respond": "200 hello"}}
ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can change to another user")
SETPRIV = shutil.which("setpriv")
NOBODY = pwd.getpwnam("nobody")
NET_BIND_SERVICE = 1 << 10  # capabilities(7)
CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def status_of(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return {name: value.strip() for name, _, value in
                (line.partition(":") for line in file)}


def child_with_title(narwhal, title):
    return next((pid for pid in children_of(narwhal.pid) if title_of(pid) == title), None)


class Wrapped(Narwhal):
    """Started through another program that executes narwhal in its place."""

    def __init__(self, *arguments, wrapper, **more):
        self.wrapper = wrapper
        super().__init__(*arguments, **more)

    def start(self, ready=True):
        os.chown(self.folder, NOBODY.pw_uid, NOBODY.pw_gid)
        return super().start(ready)

    def command(self):
        return [*self.wrapper, *super().command()]


def application(folder):
    return {"command": "uvicorn app_fastapi:app --uds {socket}", "directory": folder}


@ROOT
def test_root_gives_everything_up_for_every_child(tmp_path):
    """Groups of the group file, too, which is one of this test's own."""
    groups = tmp_path / "group"
    groups.write_text(open("/etc/group", encoding="utf-8").read() + "narwhal-extra:x:54321:nobody\n")
    script = f'mount --bind {groups} /etc/group && exec "$0" "$@"'
    with Dnsmasq({"api.test": ["127.0.0.2"]}) as server, Wrapped(
            {"master": {"user": "nobody", "umask": "0137", "resolver": server.server},
             "backend:app": application("apps"), "route:app": {"path": "/", "backend": "app"},
             "backend:named": {"server": "dns:api.test:1"},
             "route:named": {"path": "/named", "backend": "named"}},
            files={"apps/app_fastapi.py": open(f"{APPS}/app_fastapi.py", "rb").read()},
            wrapper=["unshare", "--mount", "sh", "-c", script], errors=["api.test"]) as narwhal:
        wait_app(narwhal)
        resolver = wait_until(lambda: child_with_title(narwhal, "narwhal: resolver"), "the resolver")
        wait_until(lambda: status_of(resolver)["Seccomp"] == "2", "the sandbox of the resolver")
        fenced = [*narwhal.workers().values(), resolver]
        instances = list(narwhal.instances())
        assert len(fenced) == 3 and len(instances) == 1
        for pid in fenced + instances:
            status = status_of(pid)
            assert status["Uid"].split() == [str(NOBODY.pw_uid)] * 4
            assert status["Gid"].split() == [str(NOBODY.pw_gid)] * 4
            assert set(status["Groups"].split()) == {str(NOBODY.pw_gid), "54321"}
            assert status["Umask"] == "0137"
            assert status["NoNewPrivs"] == "1"
            for name in CAPABILITY_SETS:
                assert int(status[name], 16) == 0, (title_of(pid), name, status[name])
            assert status["Seccomp"] == ("2" if pid in fenced else "0"), title_of(pid)


@ROOT
def test_root_without_a_user_says_what_runs_as_root():
    with Narwhal(HELLO) as narwhal:
        assert sum("run as root" in line for line in narwhal.log()) == 1
        assert status_of(narwhal.workers()[0])["NoNewPrivs"] == "1"


@ROOT
@pytest.mark.skipif(SETPRIV is None, reason="no setpriv(1)")
def test_a_master_that_is_not_root_does_all_but_that():
    wrapper = [SETPRIV, f"--reuid={NOBODY.pw_uid}", f"--regid={NOBODY.pw_gid}", "--clear-groups"]
    with Wrapped({"master": {"pidfile": "pid"}, "log": {"access": "./access.log"},
                  "backend:app": application("apps"), "route:app": {"path": "/", "backend": "app"},
                  "route:files": {"path": "/files", "static": "files"}},
                 files={"apps/app_fastapi.py": open(f"{APPS}/app_fastapi.py", "rb").read(),
                        "files/x": "x"}, wrapper=wrapper) as narwhal:
        wait_app(narwhal)
        assert client.get(narwhal.address, "/files/x").text == "x"
        for worker in narwhal.status()["workers"]:
            assert worker["sandbox"]["seccomp"]
        for pid in [*narwhal.workers().values(), *narwhal.instances()]:
            status = status_of(pid)
            assert status["NoNewPrivs"] == "1"
            for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
                assert int(status[name], 16) == 0
        assert not any("as root" in line for line in narwhal.log())
        before = narwhal.workers()
        narwhal.signal(signal.SIGUSR1)
        narwhal.wait_log("logs reopened")
        narwhal.reload()
        assert narwhal.workers() == before


@ROOT
@pytest.mark.skipif(SETPRIV is None, reason="no setpriv(1)")
def test_capabilities_of_the_service_manager_stay_with_the_master():
    """AmbientCapabilities=CAP_NET_BIND_SERVICE of a unit, which would pass on to every child."""
    wrapper = [SETPRIV, f"--reuid={NOBODY.pw_uid}", f"--regid={NOBODY.pw_gid}", "--clear-groups",
               "--inh-caps=+net_bind_service", "--ambient-caps=+net_bind_service"]
    with Wrapped({"backend:app": application("apps"), "route:app": {"path": "/", "backend": "app"}},
                 files={"apps/app_fastapi.py": open(f"{APPS}/app_fastapi.py", "rb").read()},
                 wrapper=wrapper) as narwhal:
        wait_app(narwhal)
        assert int(status_of(narwhal.pid)["CapEff"], 16) == NET_BIND_SERVICE
        for pid in [*narwhal.workers().values(), *narwhal.instances()]:
            status = status_of(pid)
            for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
                assert int(status[name], 16) == 0, (title_of(pid), name)


@pytest.mark.parametrize("key,value,told", [("user", "no-such-user", "no such user"),
                                            ("group", "no-such-group", "no such group"),
                                            ("user", "99999999999", "no such user")])
def test_user_or_group_that_does_not_exist(key, value, told):
    narwhal = Narwhal({**HELLO, "master": {key: value}}, start=False, errors=[value])
    with narwhal:
        narwhal.start(ready=False)
        narwhal.wait_exit(78)
        assert any(value in line and told in line and "narwhal.ini:" in line
                   for line in narwhal.log())


@pytest.mark.parametrize("key,value", [("user", "no-such-user"), ("group", "no-such-group")])
def test_reload_with_one_that_does_not_exist_is_refused(key, value):
    with Narwhal(HELLO, errors=[value, "reload refused"]) as narwhal:
        before = narwhal.workers()
        narwhal.write({**HELLO, "master": {key: value}})
        narwhal.reload(expect="refused")
        assert narwhal.workers() == before and client.get(narwhal.address).status == 200


@ROOT
@pytest.mark.skipif(SETPRIV is None, reason="no setpriv(1)")
def test_another_user_without_being_root_is_an_error():
    wrapper = [SETPRIV, f"--reuid={NOBODY.pw_uid}", f"--regid={NOBODY.pw_gid}", "--clear-groups"]
    narwhal = Wrapped({**HELLO, "master": {"user": "daemon"}}, wrapper=wrapper, start=False,
                      errors=["user = daemon"])
    with narwhal:
        narwhal.start(ready=False)
        narwhal.wait_exit(78)
        assert any("started as root" in line for line in narwhal.log())


@pytest.mark.parametrize("key,value", [("umask", "8"), ("umask", "1000"), ("umask", "rwx"),
                                       ("unix_mode", "0o666"), ("unix_mode", "7777"),
                                       ("sandbox", "yes")])
def test_values_that_are_wrong_say_what_is_right(key, value):
    narwhal = Narwhal({**HELLO, "master": {key: value}}, start=False, errors=[key])
    with narwhal:
        narwhal.start(ready=False)
        narwhal.wait_exit(78)
        assert any(key in line and ("octal" in line or "auto, on or off" in line)
                   for line in narwhal.log())


# ---- unix sockets --------------------------------------------------------------------------------
@ROOT
def test_unix_sockets_have_mode_and_owner_when_they_appear():
    """Looked at as fast as one can, while narwhal starts again and again over the stale node."""
    found = set()
    for _ in range(3):
        with Narwhal(HELLO, start=False) as narwhal:
            path, control = narwhal.path("http.sock"), narwhal.control_path
            narwhal.write({**HELLO, "master": {"bind": f"unix:{path}", "unix_mode": "0640",
                                               "user": "nobody", "workers": 1}})
            narwhal.start(ready=False)
            end = time.monotonic() + client.DEADLINE
            while not any("ready workers" in line for line in narwhal.log()):
                assert time.monotonic() < end and narwhal.process.poll() is None
                for name in (path, control):
                    try:
                        about = os.stat(name)
                    except FileNotFoundError:
                        continue
                    found.add((os.path.basename(name), oct(about.st_mode & 0o7777), about.st_uid,
                               about.st_gid))
            assert client.get(path).text.strip() == "hello"
            assert not [name for name in os.listdir(narwhal.folder) if ".nw" in name]
    assert found == {("http.sock", "0o640", NOBODY.pw_uid, NOBODY.pw_gid),
                     ("ctl", "0o600", 0, 0)}


def test_control_socket_of_a_living_master_is_not_taken():
    with Narwhal(HELLO) as first:
        second = Narwhal({**HELLO, "master": {"control": first.control_path}},
                         errors=["control"])
        with second:
            assert client.get(second.address).status == 200, "it serves without one"
            assert first.status()["pid"] == first.pid
        assert first.status()["pid"] == first.pid


def test_control_socket_that_was_left_behind_is_replaced():
    with Narwhal(HELLO) as dead:
        for child in [dead.pid, *children_of(dead.pid)]:
            os.kill(child, signal.SIGKILL)
        dead.process.wait(client.DEADLINE)
        wait_until(lambda: not dead.processes(), "the end of all")
        assert os.path.exists(dead.control_path)
        with Narwhal({**HELLO, "master": {"control": dead.control_path}}) as narwhal:
            narwhal.control_path = dead.control_path
            assert narwhal.status()["pid"] == narwhal.pid
