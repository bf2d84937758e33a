# SPDX-License-Identifier: Apache-2.0
"""What systemd and root expect: readiness, units, an identity that is given up."""
import contextlib
import os
import pwd
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import pytest

import client
from narwhal import APPS, Narwhal, binary, wait_app, wait_until

HELLO = {"route:hello": {"path": "/", "respond": "200 hello"}}
ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can change to another user")


@contextlib.contextmanager
def notify_socket(abstract=False):
    folder = tempfile.mkdtemp(prefix="narwhal-notify-")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        path = f"{folder}/notify"
        listener.bind("\0" + path if abstract else path)
        listener.settimeout(client.DEADLINE)
        yield listener, "@" + path if abstract else path
    shutil.rmtree(folder, ignore_errors=True)


def wait_message(listener, word):
    seen = []
    while True:
        try:
            message = listener.recv(65536).decode()
        except socket.timeout:
            raise AssertionError(f"no {word} among {seen}") from None
        seen.append(message)
        if word in message.splitlines():
            return seen


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_ready_is_told_after_the_workers_are(abstract):
    with notify_socket(abstract) as (listener, path), \
            Narwhal(HELLO, env={"NOTIFY_SOCKET": path}, start=False) as narwhal:
        narwhal.start(ready=False)
        wait_message(listener, "READY=1")
        assert all(worker["state"].upper() == "READY" for worker in narwhal.status()["workers"])
        narwhal.wait_log("ready workers=2")
        assert client.get(narwhal.address).status == 200
        narwhal.signal(signal.SIGHUP)
        told = wait_message(listener, "READY=1")
        assert any("RELOADING=1" in message and "MONOTONIC_USEC=" in message for message in told)
        narwhal.signal(signal.SIGTERM)
        wait_message(listener, "STOPPING=1")
        narwhal.wait_exit()


def test_refused_reload_is_ready_again():
    with notify_socket() as (listener, path), \
            Narwhal(HELLO, env={"NOTIFY_SOCKET": path}, errors=["."]) as narwhal:
        wait_message(listener, "READY=1")
        narwhal.write("[nonsense]\n")
        narwhal.reload(expect="refused")
        wait_message(listener, "READY=1")


def test_notify_socket_is_not_handed_to_instances():
    """Or the application would tell systemd that the service is ready."""
    with notify_socket() as (_, path), Narwhal({
            "backend:app": {"command": "uvicorn app_fastapi:app --fd {fd}", "directory": APPS},
            "route:app": {"path": "/", "backend": "app"}}, env={"NOTIFY_SOCKET": path}) as narwhal:
        wait_app(narwhal, "/pid")
        pid = client.get(narwhal.address, "/pid").json["pid"]
        with open(f"/proc/{pid}/environ", "rb") as file:
            assert b"NOTIFY_SOCKET=" not in file.read()


def test_notify_socket_that_nobody_reads_is_no_harm():
    with Narwhal(HELLO, env={"NOTIFY_SOCKET": "/no/such/socket"}, errors=["."]) as narwhal:
        assert client.get(narwhal.address).status == 200


def identity(pid):
    found = {}
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name in ("Uid", "Gid", "Groups", "CapEff"):
                found[name] = value.split()
    return found


@ROOT
def test_workers_and_instances_give_up_root():
    nobody = pwd.getpwnam("nobody")
    with Narwhal({"master": {"user": "nobody", "group": "nogroup"},
                  "log": {"access": "./access.log"},
                  "backend:app": {"command": "uvicorn app_fastapi:app --fd {fd}",
                                  "directory": "/"},
                  "route:app": {"path": "/app", "backend": "app"},
                  "route:files": {"path": "/", "static": "root"}},
                 files={"root/x": "x"}, errors=["app/0"]) as narwhal:
        everybody = list(narwhal.workers().values())
        assert len(everybody) == 2
        everybody += wait_until(narwhal.instances, "the instance")
        for pid in everybody:
            try:
                about = identity(pid)
            except FileNotFoundError:
                continue  # the application is not found from / and ends
            assert about["Uid"] == [str(nobody.pw_uid)] * 4, about
            assert about["Gid"] == [str(nobody.pw_gid)] * 4, about
            assert "0" not in about["Groups"], about
            assert int(about["CapEff"][0], 16) == 0, about
        assert client.get(narwhal.address, "/x").text == "x"
        # The logs were opened by root and go on.
        wait_until(lambda: os.path.getsize(narwhal.path("access.log")), "the access log")


@ROOT
def test_replaced_worker_gives_up_root_too():
    with Narwhal({**HELLO, "master": {"user": "nobody"}}) as narwhal:
        victim = narwhal.workers()[0]
        os.kill(victim, signal.SIGKILL)
        after = narwhal.wait_workers(2, without=[victim])
        uid = str(pwd.getpwnam("nobody").pw_uid)
        assert all(identity(pid)["Uid"] == [uid] * 4 for pid in after.values())


@ROOT
def test_instance_may_use_its_socket_as_another_user():
    with Narwhal({"master": {"user": "nobody"},
                  "backend:app": {"command": "uvicorn app_fastapi:app --uds {socket}",
                                  "directory": "apps"},
                  "route:app": {"path": "/", "backend": "app"}},
                 files={"apps/app_fastapi.py": open(f"{APPS}/app_fastapi.py", "rb").read()}
                 ) as narwhal:
        wait_app(narwhal, "/pid")


def test_unknown_user_is_an_error():
    narwhal = Narwhal({**HELLO, "master": {"user": "no-such-user"}}, start=False, errors=["."])
    with narwhal:
        narwhal.start(ready=False)
        assert narwhal.process.wait(client.DEADLINE) != 0
        narwhal._reader.join()
        assert "no-such-user" in "\n".join(narwhal.log())


def test_install_puts_everything_where_debian_expects_it(tmp_path):
    """Below whatever prefix the build has; that the units pass systemd-analyze: style.systemd."""
    done = subprocess.run(["cmake", "--install", os.path.dirname(binary())],
                          env={**os.environ, "DESTDIR": str(tmp_path)}, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    found = [os.path.join(folder, name) for folder, _, names in os.walk(tmp_path)
             for name in names]
    for wanted in (r"/s?bin/narwhal$", r"/s?bin/narwhalctl$", r"/etc/narwhal/narwhal\.ini$",
                   r"/lib/systemd/system/narwhal\.service$",
                   r"/lib/systemd/system/narwhal\.socket$", r"/share/man/man1/narwhal\.1$",
                   r"/share/doc/narwhal/README\.md$",
                   r"/share/man/man1/narwhalctl\.1$",
                   r"/share/bash-completion/completions/narwhalctl$"):
        assert any(re.search(wanted, path) for path in found), (wanted, found)
    program = next(path for path in found if re.search(r"/s?bin/narwhal$", path))
    assert subprocess.run([program, "--version"], check=False).returncode == 0


def test_control_client_that_finds_no_descriptor_takes_no_cpu():
    """It stays in the queue and keeps the socket readable; it is served when there is room."""
    def ticks(pid):
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    with Narwhal(HELLO) as narwhal, contextlib.ExitStack() as stack:
        highest = max(map(int, os.listdir(f"/proc/{narwhal.pid}/fd")))
        before = resource.prlimit(narwhal.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(narwhal.pid, resource.RLIMIT_NOFILE, (highest + 1, before[1]))
        clients = []
        for _ in range(8):  # fills what is free below the limit, too
            clients.append(stack.enter_context(socket.socket(socket.AF_UNIX)))
            clients[-1].connect(narwhal.control_path)
        narwhal.wait_log("cannot accept a control client, it waits: .*LimitNOFILE")
        # Twenty turns of the pause: a loop that spins has taken all of the time by then.
        begin, used = time.monotonic(), ticks(narwhal.pid)
        wait_until(lambda: time.monotonic() - begin > 2, "two seconds")
        assert ticks(narwhal.pid) - used < os.sysconf("SC_CLK_TCK"), "half of a CPU"
        resource.prlimit(narwhal.pid, resource.RLIMIT_NOFILE, before)
        for connection in clients:
            connection.close()
        assert narwhal.status()["workers"]
