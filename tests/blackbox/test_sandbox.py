# SPDX-License-Identifier: Apache-2.0
"""The sandbox of workers, tried from inside of one: the route setting attempt, which test builds
alone have, makes a worker that serves do what one that was taken over would do."""
import os
import signal
import socket

import pytest

import client
import kernel
from narwhal import Narwhal, binary, is_alive, wait_until

pytestmark = [
    pytest.mark.skipif(b"ptrace_master" not in open(binary(), "rb").read(),
                       reason="this build has no route setting attempt"),
    pytest.mark.skipif(b"at exit and has no sandbox" in open(binary(), "rb").read(),
                       reason="a build that measures coverage has no sandbox"),
    pytest.mark.skipif(os.uname().machine not in ("x86_64", "aarch64"),
                       reason="refused calls are told on x86-64 and ARM64")]
LANDLOCK = kernel.has_landlock()
REFUSED = "the sandbox refused a system call"

ROUTES = {"route:attempt": {"path": "/attempt", "respond": "200 attempt", "attempt": "on"},
          "route:files": {"path": "/", "static": "root"},
          "route:more": {"path": "/more", "static": "more/folder"}}
FILES = {"root/x": "x", "root/deep/er/y": "y", "more/folder/z": "z", "more/secret": "secret",
         "secret": "secret"}


def settings(workers=1, **master):
    return {"master": {"workers": workers, **master}, **ROUTES}


def attempt(narwhal, name, argument=""):
    return client.get(narwhal.address, f"/attempt/{name}?{argument}").text.strip()


@pytest.fixture(name="running", scope="module")
def fixture_running():
    with Narwhal(settings(), files=FILES, errors=[REFUSED]) as narwhal:
        yield narwhal


needs_landlock = pytest.mark.skipif(not LANDLOCK, reason="this kernel has no Landlock")


def test_status_and_log_say_what_is_active(running):
    status = running.status()
    assert status["sandbox"] == "auto"
    assert status["workers"][0]["sandbox"] == {"landlock_abi": LANDLOCK, "seccomp": True}
    assert f"landlock {LANDLOCK}, seccomp" in running.control("workers").stdout or not LANDLOCK
    assert "sandbox auto" in running.control("status").stdout
    told = [line for line in running.log() if "fenced in" in line]
    assert len(told) == 1 and "seccomp=yes" in told[0], told


@needs_landlock
@pytest.mark.parametrize("name", ["/etc/passwd", "/etc/shadow", "secret", "more/secret", "narwhal.ini",
                                  "root/../secret", "/proc/1/cmdline", "/proc/self/../1/environ",
                                  "/dev/null"])
def test_nothing_outside_of_static_folders_can_be_read(running, name):
    path = name if name.startswith("/") else running.path(name)
    assert os.path.exists(path) or name.startswith("/proc")
    assert attempt(running, "read", path) == "EACCES"


def test_static_folders_can_be_read(running):
    for name in ("root/x", "root/deep/er/y", "more/folder/z"):
        assert attempt(running, "read", running.path(name)) == "done"
    assert client.get(running.address, "/deep/er/y").text == "y"
    assert client.get(running.address, "/more/z").text == "z"


@needs_landlock
@pytest.mark.parametrize("name", ["root/x", "secret", "root/new", "/tmp/narwhal-attempt"])
def test_openat2_cannot_write_or_create(running, name):
    path = name if name.startswith("/") else running.path(name)
    for how in ("write_openat2", "create_openat2"):
        assert attempt(running, how, path) in ("EACCES", "ENOENT"), how
    assert not os.path.exists(running.path("root/new"))


@pytest.mark.parametrize("what,argument,call", [
    ("write", "root/x", "openat"), ("create", "root/new", "openat"), ("truncate", "root/x", "truncate"),
    ("unlink", "root/x", "unlink"), ("chmod", "root/x", "chmod"), ("mkdir", "root/d", "mkdir"),
    ("kill_master", "", "kill"), ("memfd", "", "memfd_create"), ("execute_memory", "", "mmap"),
    ("make_executable", "", "mprotect"), ("socket_raw", "", "socket"),
    ("socket_datagram", "", "socket"), ("socket_netlink", "", "socket"), ("bind", "", "bind")])
def test_call_is_refused_told_and_counted_and_the_worker_goes_on(running, what, argument, call):
    before = running.status()
    answer = attempt(running, what, running.path(argument) if argument else "")
    assert answer == "EPERM"
    after = running.status()
    assert after["totals"]["sandbox_refused"] == before["totals"]["sandbox_refused"] + 1
    assert after["workers"][0]["pid"] == before["workers"][0]["pid"]
    number = "22" if call in ("mmap", "mprotect") else None
    if number is None and os.uname().machine == "x86_64":
        running.wait_log(rf"{REFUSED} name={call} number=\d+")
    assert client.get(running.address, "/x").text == "x"


def test_a_refusal_is_told_once_for_each_call(running):
    for _ in range(5):
        assert attempt(running, "kill_master") == "EPERM"
    told = [line for line in running.log() if f"{REFUSED} name=kill " in line]
    assert len(told) == 1, told


@pytest.mark.parametrize("what,argument", [
    ("exec", "/bin/true"), ("fork", ""), ("clone3", ""), ("ptrace_master", ""), ("ptrace_me", ""),
    ("mount", "/mnt"), ("unshare", ""), ("setuid", "")])
def test_what_only_strangers_do_ends_the_worker_and_shows_among_the_deaths(what, argument):
    with Narwhal(settings(), files=FILES) as narwhal:
        victim = narwhal.workers()[0]
        with client.Client(narwhal.address) as stream:
            stream.send(client.encode("GET", f"/attempt/{what}?{argument}"))
            wait_until(lambda: not is_alive(victim), "the end of the worker")
        narwhal.wait_log(rf"died pid={victim} signal=SIGSYS .*last_request=\"GET /attempt/{what}\"")
        narwhal.wait_workers(1, without=[victim])
        assert client.get(narwhal.address, "/x").text == "x"
        assert "SIGSYS" in narwhal.control("deaths").stdout


def test_unix_sockets_of_servers_can_be_reached(running):
    path = running.path("server.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        assert attempt(running, "connect_unix", path) == "done"


def test_off_is_off():
    with Narwhal(settings(sandbox="off"), files=FILES) as narwhal:
        assert narwhal.status()["workers"][0]["sandbox"] == {"landlock_abi": 0, "seccomp": False}
        for what, argument in (("read", "/etc/passwd"), ("fork", ""), ("memfd", "")):
            assert attempt(narwhal, what, argument) == "done"
        assert any("not fenced in" in line for line in narwhal.log())


def test_reload_changes_it_by_new_workers():
    with Narwhal(settings(2), files=FILES) as narwhal:
        before = narwhal.workers()
        narwhal.write(settings(2, sandbox="off"))
        narwhal.reload()
        narwhal.wait_workers(2, without=before.values())
        assert all(not worker["sandbox"]["seccomp"] for worker in narwhal.status()["workers"]
                   if worker["state"] == "READY")


# ---- kernels that have less ----------------------------------------------------------------------
NO_LANDLOCK = kernel.without("landlock_create_ruleset")
NO_SECCOMP = kernel.without("seccomp")


@pytest.mark.parametrize("take_away,landlock,seccomp,told", [
    (NO_LANDLOCK, 0, True, r"landlock=no seccomp=yes: no Landlock: Function not implemented"),
    (NO_SECCOMP, LANDLOCK, False, r"seccomp=no: no seccomp filter: Function not implemented"),
    (kernel.without("landlock_create_ruleset", error=1), 0, True, r"container.* forbids it"),
    (kernel.without("landlock_create_ruleset", error=95), 0, True, r"add landlock to the lsm= list")],
    ids=["no_landlock", "no_seccomp", "forbidden_landlock", "disabled_landlock"])
def test_auto_takes_what_there_is_and_tells_once(take_away, landlock, seccomp, told):
    with Narwhal(settings(2), files=FILES, preexec_fn=take_away) as narwhal:
        for worker in narwhal.status()["workers"]:
            assert worker["sandbox"] == {"landlock_abi": landlock, "seccomp": seccomp}
        assert client.get(narwhal.address, "/x").text == "x"
        narwhal.wait_log(told)
        assert sum("fenced in" in line for line in narwhal.log()) == 1


@pytest.mark.parametrize("take_away,told", [(NO_LANDLOCK, "no Landlock"), (NO_SECCOMP, "no seccomp")])
def test_on_does_not_serve_without(take_away, told):
    narwhal = Narwhal(settings(sandbox="on"), files=FILES, preexec_fn=take_away, start=False,
                      errors=["sandbox = on"])
    with narwhal:
        narwhal.start(ready=False)
        narwhal.wait_exit(69)
        assert any("sandbox = on" in line and told in line and "narwhal.ini:" in line
                   for line in narwhal.log())


@needs_landlock
def test_on_serves_where_there_is_both():
    with Narwhal(settings(sandbox="on"), files=FILES) as narwhal:
        assert client.get(narwhal.address, "/x").text == "x"
        assert attempt(narwhal, "read", "/etc/passwd") == "EACCES"


def test_reload_to_on_is_refused_where_it_cannot_be():
    with Narwhal(settings(), files=FILES, preexec_fn=NO_LANDLOCK,
                 errors=["sandbox = on", "reload refused"]) as narwhal:
        narwhal.write(settings(sandbox="on"))
        narwhal.reload(expect="refused")
        assert client.get(narwhal.address, "/x").text == "x"


# ---- folders that change -------------------------------------------------------------------------
@needs_landlock
@pytest.mark.parametrize("way", ["link", "rename"])
def test_folder_that_is_replaced_is_served_by_new_workers(way):
    """What deployments do: a link that is switched, a folder that is moved into place."""
    files = {"one/file": "1", "two/file": "2", "three/file": "3", **FILES}
    with Narwhal(settings(2), files=files) as narwhal:
        root = narwhal.path("root")
        os.rename(root, narwhal.path("zero"))
        os.symlink("zero", root) if way == "link" else os.rename(narwhal.path("one"), root)
        narwhal.write({**settings(2), "worker": {"static_cache": "0"}})
        narwhal.reload()
        # Twice in a row, and while the first ones still drain.
        with client.Client(narwhal.address) as kept:
            kept.get("/x")
            for name, text in (("two", "2"), ("three", "3")):
                if way == "link":
                    os.symlink(name, narwhal.path("new"))
                    os.rename(narwhal.path("new"), root)
                else:
                    os.rename(root, narwhal.path(f"old-{name}"))
                    os.rename(narwhal.path(name), root)

                def arrived():
                    response = client.get(narwhal.address, "/file")
                    assert response.status in (200, 404), response
                    return response.text == text
                wait_until(arrived, f"the file of {name}")
        narwhal.wait_log("is replaced: its sandbox has no room for the folder")


@needs_landlock
def test_reload_with_a_new_folder_takes_new_workers_and_a_bad_one_is_refused():
    with Narwhal(settings(2), files={**FILES, "later/file": "later"},
                 errors=["reload refused", "cannot be used"]) as narwhal:
        before = narwhal.workers()
        narwhal.write({**settings(2), "route:later": {"path": "/later", "static": "nowhere"}})
        narwhal.reload(expect="refused")
        assert narwhal.workers() == before, "a folder that is not there costs no worker"
        narwhal.write({**settings(2), "route:later": {"path": "/later", "static": "later"}})
        narwhal.reload()
        after = narwhal.wait_workers(2, without=before.values())

        # What waits in the queue of one that leaves is still answered by it, with the old settings.
        def comes_always():
            answers = [client.get(narwhal.address, "/later/file") for _ in range(20)]
            assert all(answer.status in (200, 404) for answer in answers), answers
            return all(answer.text == "later" for answer in answers)
        wait_until(comes_always, "the new folder from all workers")
        # One below a folder that workers have is theirs already.
        narwhal.write({**settings(2), "route:later": {"path": "/later", "static": "later"},
                       "route:deep": {"path": "/deep", "static": "root/deep"}})
        narwhal.reload()
        assert client.get(narwhal.address, "/deep/er/y").text == "y"
        assert narwhal.workers() == after


def test_crash_still_leaves_a_trace():
    with Narwhal(settings(), files=FILES, errors=["ended by signal=SIGABRT", r"stack #\d+"]
                 ) as narwhal:
        os.kill(narwhal.workers()[0], signal.SIGABRT)
        narwhal.wait_log("ended by signal=SIGABRT")
        narwhal.wait_log(r"stack #0 ")
        narwhal.wait_log("died .*signal=SIGABRT")
