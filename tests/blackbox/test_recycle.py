# SPDX-License-Identifier: Apache-2.0
"""Recycling (max_requests, max_lifetime, max_memory) of workers and app instances, its budget, and
the adaptive number of workers. Nothing may be lost, and nobody may be missing meanwhile."""
import contextlib
import os
import re
import signal
import socket
import sys
import threading

import pytest

import client
from load import Load
from narwhal import (APPS, DEADLINE, Narwhal, children_of, process_stat, run_narwhal, wait_app,
                     wait_until)

HELLO = {"route:hello": {"path": "/", "respond": "200 hello"}}
REPLACED = r"worker slot=%s is to be replaced pid=\d+ reason=%s "


def served(**master):
    return Narwhal({"master": master, **HELLO})


class Watch:
    """Asks for the status all the time and notes the fewest READY workers that it saw, and the most
    workers in STARTING at a time."""

    def __init__(self, narwhal):
        self.narwhal = narwhal
        self.fewest, self.most_starting, self.looks, self.problem = 1 << 30, 0, 0, None
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _look(self, control, file):
        control.sendall(b"status\n")
        line = file.readline()
        if not line:
            return False
        states = re.findall(rb'"slot": ?\d+, ?"pid": ?\d+, ?"state": ?"(\w+)"', line)
        assert states, line
        self.fewest = min(self.fewest, states.count(b"READY"))
        self.most_starting = max(self.most_starting, states.count(b"STARTING"))
        self.looks += 1
        return True

    def _run(self):
        try:
            while not self.ending.is_set():
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
                    control.settimeout(DEADLINE)
                    control.connect(self.narwhal.control_path)
                    # The master closes a client of the control socket after 10 s.
                    with control.makefile("rb") as file, contextlib.suppress(BrokenPipeError):
                        while not self.ending.is_set() and self._look(control, file):
                            pass
        except Exception as problem:
            self.problem = problem

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        self.thread.join(DEADLINE)
        assert self.problem is None, self.problem
        assert self.looks > 0


# ---- max_requests --------------------------------------------------------------------------------
@pytest.mark.parametrize("load", [{"keepalive": 0, "fresh": 4}, {"keepalive": 4, "fresh": 0},
                                  {"keepalive": 2, "fresh": 2}], ids=["fresh", "kept", "both"])
def test_max_requests_under_load(load):
    # With keepalive_drain = 200ms, because idle kept connections hold a draining worker.
    settings = {"master": {"workers": 3, "max_requests": 30, "max_requests_jitter": 10},
                "worker": {"keepalive_drain": "200ms"}, **HELLO}
    with Narwhal(settings) as narwhal:
        first = narwhal.workers()
        assert len(first) == 3
        with Watch(narwhal) as watch, Load(narwhal.address, stay=False, **load) as clients:
            for slot in range(3):  # the third life of each has begun
                narwhal.wait_log(rf"worker slot={slot} is READY pid=\d+ generation=3 ")
            clients.wait_answers(5)
        assert watch.fewest >= 3, f"{watch.fewest} workers were READY in one of {watch.looks} looks"
        assert watch.most_starting <= 1
        assert not set(narwhal.workers().values()) & set(first.values())
        uptime = r"reason=max_requests"
        assert any(re.search(uptime, line) for line in narwhal.log())


def test_jitter_spreads_max_requests():
    """Requests come one after the other, so each worker tells exactly at its own threshold."""
    with served(workers=1, max_requests=5, max_requests_jitter=40) as narwhal:
        counts = []
        for _ in range(8):
            mark = narwhal.mark()
            count = 0
            with client.Client(narwhal.address) as connection:
                while not any("reason=max_requests" in line for line in narwhal.log(mark)):
                    response = connection.get("/")
                    count += 1
                    if response.closes:
                        break
                    before = narwhal.status()["workers"][0]
                    if before["replaced_for"]:
                        break
            counts.append(count)
            narwhal.wait_log(r"worker slot=0 left ", since=mark)
        assert all(5 <= count <= 46 for count in counts), counts
        assert len(set(counts)) > 1, counts


def test_max_requests_is_switched_on_and_off_by_reload():
    with served(workers=1) as narwhal:
        pid = narwhal.workers()[0]
        for _ in range(20):
            assert client.get(narwhal.address, "/").status == 200
        narwhal.write({"master": {"workers": 1, "max_requests": 10}, **HELLO})
        narwhal.reload()
        assert narwhal.workers() == {0: pid}
        mark = narwhal.mark()
        assert client.get(narwhal.address, "/").status == 200  # its 21st
        narwhal.wait_log(REPLACED % (0, "max_requests"), since=mark)
        pid = narwhal.wait_workers(1, without=[pid])[0]
        narwhal.write({"master": {"workers": 1, "max_requests": 0}, **HELLO})
        narwhal.reload()
        for _ in range(30):
            assert client.get(narwhal.address, "/").status == 200
        assert narwhal.workers() == {0: pid}


# ---- max_lifetime --------------------------------------------------------------------------------
def test_max_lifetime():
    with served(workers=2, max_lifetime="1s", max_lifetime_jitter="500ms") as narwhal:
        with Watch(narwhal) as watch, Load(narwhal.address, stay=False) as load:
            for slot in range(2):
                narwhal.wait_log(rf"worker slot={slot} is READY pid=\d+ generation=3 ")
            load.wait_answers(3)
        assert watch.fewest >= 2 and watch.most_starting <= 1
        narwhal.wait_log(REPLACED % (0, "max_lifetime"))


def test_a_reload_ends_while_workers_are_recycled_all_the_time():
    settings = {"master": {"workers": 2, "max_requests": 5}, **HELLO}
    with Narwhal(settings) as narwhal, Load(narwhal.address, keepalive=0, stay=False) as load:
        narwhal.wait_log(r"generation=4 ")
        for number in range(3):
            narwhal.write({**settings, "route:more": {"path": f"/{number}", "respond": "200 x"}})
            narwhal.reload()
            load.wait_answers(3)


# ---- max_memory ----------------------------------------------------------------------------------
def test_a_limit_below_what_a_fresh_worker_needs_does_not_spin():
    with served(workers=2, max_memory="1k") as narwhal:
        with Watch(narwhal) as watch:
            narwhal.wait_log(r"warn master\[\d+\]: worker slot=0 had too much memory from its start "
                             r"pid=\d+ pss=\S+m: \[master\] max_memory=\S+ is below what a fresh "
                             r"one needs, .* raise the limit pause=1000ms")
            narwhal.wait_log(r"worker slot=0 had too much memory .* pause=2000ms")
            narwhal.wait_log(r"worker slot=1 had too much memory .* pause=2000ms")
        assert watch.fewest >= 2
        # Three looks of a second each, and the pause: no more than one life in that time.
        lives = [int(worker["generation"]) for worker in narwhal.status()["workers"]]
        assert max(lives) <= 3, lives
        narwhal.write({"master": {"workers": 2, "max_memory": "4g"}, **HELLO})
        narwhal.reload()
        assert client.get(narwhal.address, "/").status == 200


def grows(**backend):
    return Narwhal({"backend:app": {"command": f"{sys.executable} app_grows.py {{fd}}",
                                    "directory": APPS, **backend},
                    "route:app": {"path": "/", "backend": "app"}, **{
                        "route:hello": {"path": "/hello", "respond": "200 hello"}}})


def pid_of(narwhal, target="/pid"):
    response = client.get(narwhal.address, target)
    assert response.status == 200, response
    return int(response.body)


def test_an_instance_that_grows_is_replaced():
    """Half of the memory is in its child: neither alone has reached the limit."""
    with grows(max_memory="60m") as narwhal:
        wait_app(narwhal)
        first = pid_of(narwhal)
        mark = narwhal.mark()
        wait_until(lambda: children_of(first), "the child")
        for _ in range(8):
            assert pid_of(narwhal, "/grow") == first
        # "had", "from its start" when it grew before the first look.
        match = narwhal.wait_log(r"instance app/0 ha[sd] too much memory.* pid=(\d+) "
                                 r"pss=([\d.]+)m.* max_memory=60\.0m", since=mark)
        assert int(match[1]) == first and float(match[2]) > 60
        narwhal.wait_log(r"instance app/0 is to be replaced pid=\d+ reason=max_memory")

        def other():
            pid = pid_of(narwhal)
            return pid if pid != first else None
        second = wait_until(other, "an answer of the successor")
        narwhal.wait_log(rf"instance app/0 left pid={first} ")
        assert pid_of(narwhal) == second


# ---- instances -----------------------------------------------------------------------------------
def test_instances_by_max_requests_and_lifetime():
    with grows(instances=2, max_requests=20, max_requests_jitter=5) as narwhal:
        wait_app(narwhal)
        pids = set()
        with Load(narwhal.address, "/pid", keepalive=0, fresh=2,
                  check=lambda response: pids.add(response.body)) as load:
            narwhal.wait_log(r"instance app/0 is to be replaced .* reason=max_requests")
            narwhal.wait_log(r"instance app/1 is to be replaced .* reason=max_requests")
            for number in range(2):
                narwhal.wait_log(rf"instance app/{number} is READY ", count=3)
            load.wait_answers(5)
        assert len(pids) >= 4, pids


def test_a_successor_that_fails_is_tried_again():
    """The application cannot start any more: the old instance serves on, in growing pauses; then it
    can, and nobody had to do anything."""
    with Narwhal({"backend:app": {"command": "./app {fd}", "directory": ".",
                                  "max_lifetime": "1s"},
                  "route:app": {"path": "/", "backend": "app"}}, start=False) as narwhal:
        good = f"#!/bin/sh\nexec {sys.executable} {APPS}/app_grows.py $1\n"
        narwhal.file("app", good, mode=0o755)
        narwhal.start()
        wait_app(narwhal)
        first = pid_of(narwhal)
        narwhal.file("new", "#!/bin/sh\nexit 3\n", mode=0o755)
        os.rename(narwhal.path("new"), narwhal.path("app"))
        narwhal.expect_error(r"instance app/0 (died|goes on)")
        narwhal.wait_log(r"instance app/0 goes on pid=\d+: its successor did not become READY "
                         r"reason=max_lifetime; next_try=1000ms")
        narwhal.wait_log(r"instance app/0 goes on .* next_try=2000ms")
        still = pid_of(narwhal)
        assert still == first or still > 0
        mark = narwhal.mark()
        narwhal.file("new", good, mode=0o755)
        os.rename(narwhal.path("new"), narwhal.path("app"))
        narwhal.wait_log(r"instance app/0 is READY ", since=mark)
        narwhal.wait_log(rf"instance app/0 left pid={still} ", since=mark)
        assert pid_of(narwhal) != still


def test_a_worker_goes_on_while_its_successor_cannot_boot():
    with Narwhal({"master": {"workers": 1, "max_requests": 5},
                  "route:files": {"path": "/", "static": "www"}},
                 files={"www/index.html": "hello"}) as narwhal:
        pid = narwhal.workers()[0]
        os.rename(narwhal.path("www"), narwhal.path("away"))
        narwhal.expect_error(r"worker slot=0 goes on pid=\d+: its successor")
        narwhal.expect_error(r"cannot use the settings")
        for _ in range(5):
            client.get(narwhal.address, "/")
        narwhal.wait_log(r"worker slot=0 goes on pid=\d+: its successor did not become READY "
                         r"reason=max_requests; next_try=1000ms")
        narwhal.wait_log(r"worker slot=0 goes on .* next_try=2000ms")
        assert pid in narwhal.workers().values()
        with Load(narwhal.address, check=lambda response: None) as load:
            load.wait_answers(3)
        os.rename(narwhal.path("away"), narwhal.path("www"))
        narwhal.wait_workers(1, without=[pid])
        assert client.get(narwhal.address, "/").body == b"hello"
        narwhal.wait_log(rf"worker slot=0 left pid={pid} ")


# ---- the budget ----------------------------------------------------------------------------------
@pytest.mark.parametrize("budget, fewest, most", [
    ({}, 4, 1), ({"max_surge": 3}, 4, 3), ({"max_surge": 0, "max_unavailable": 1}, 3, 1),
    ({"max_surge": 0, "max_unavailable": 2}, 2, 2),
], ids=["default", "surge 3", "one missing", "two missing"])
def test_budget(budget, fewest, most):
    settings = {"master": {"workers": 4, "max_lifetime": "1s", **budget}, **HELLO}
    with Narwhal(settings) as narwhal:
        with Watch(narwhal) as watch, Load(narwhal.address, stay=False) as load:
            for slot in range(4):
                narwhal.wait_log(rf"worker slot={slot} is READY pid=\d+ generation=2 ")
            load.wait_answers(3)
        assert watch.fewest >= fewest, (watch.fewest, watch.looks)
        assert watch.most_starting <= most, (watch.most_starting, watch.looks)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give the workers another user")
@pytest.mark.parametrize("budget, fewest, most", [
    ({}, 4, 1), ({"max_surge": 0, "max_unavailable": 1}, 3, 1),
], ids=["default", "one missing"])
def test_a_reload_shares_the_budget_and_stops_at_a_failure(budget, fewest, most):
    """Another user takes new workers. The folder is not theirs to read, so they cannot boot; then
    it is."""
    settings = {"master": {"workers": 4, **budget}, "route:files": {"path": "/", "static": "www"}}
    with Narwhal(settings, files={"www/index.html": "hello"}) as narwhal:
        os.chmod(narwhal.path("www"), 0o700)
        old = narwhal.wait_workers(4)
        narwhal.write({**settings, "master": {**settings["master"], "user": "nobody"}})
        narwhal.expect_error(r"cannot use the settings|could not boot|reload incomplete")
        with Watch(narwhal) as watch, Load(narwhal.address, stay=False) as load:
            narwhal.signal(signal.SIGHUP)
            narwhal.wait_log(r"error master\[\d+\]: the replacement of the workers stops")
            narwhal.wait_log(r"error master\[\d+\]: reload incomplete")
            load.wait_answers(3)
            ready = {worker["pid"] for worker in narwhal.status()["workers"]
                     if worker["state"] == "READY"}
            assert len(ready & set(old.values())) == fewest, (ready, old)
            os.chmod(narwhal.path("www"), 0o755)
            narwhal.reload()
            load.wait_answers(3)
            narwhal.wait_workers(4, without=old.values())
        assert watch.fewest >= fewest and watch.most_starting <= most, vars(watch)


@pytest.mark.parametrize("flags, message", [
    (["--max-surge", "0"], "max_unavailable"),
    (["--workers-min", "4", "--workers-max", "2"], "workers_max"),
    (["--workers-min", "4"], "workers_max"),
    (["--max-requests-jitter", "4"], "max_requests"),
])
def test_settings_that_make_no_sense_are_refused(flags, message):
    status, _, errors = run_narwhal("--static", APPS, "--check-config", *flags)
    assert status == 78 and message in errors, (status, errors)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give the workers another user")
def test_a_reload_stops_when_one_that_was_killed_cannot_boot_again():
    """Without surge a roll waits for whoever is missing, and this one will be missing for ever."""
    settings = {"master": {"workers": 3, "max_surge": 0, "max_unavailable": 1},
                "route:files": {"path": "/", "static": "www"}}
    with Narwhal(settings, files={"www/index.html": "hello"}) as narwhal:
        os.chmod(narwhal.path("www"), 0o700)
        workers = narwhal.workers()
        narwhal.write({**settings, "master": {**settings["master"], "user": "nobody"}})
        narwhal.expect_error(r"cannot use the settings|could not boot|reload incomplete")
        for death in range(3):  # so often that the next pause is long enough for the reload
            mark = narwhal.mark()
            os.kill(narwhal.workers()[2], signal.SIGKILL)
            narwhal.wait_log(r"worker slot=2 died .*respawn_in=\d+ms", since=mark)
            if death < 2:
                narwhal.wait_log(r"worker slot=2 is READY", since=mark)
        narwhal.signal(signal.SIGHUP)
        narwhal.wait_log(r"error master\[\d+\]: the replacement of the workers stops")
        narwhal.wait_log(r"error master\[\d+\]: reload incomplete")
        assert client.get(narwhal.address, "/").body == b"hello"
        os.chmod(narwhal.path("www"), 0o755)
        narwhal.reload()
        narwhal.wait_workers(3, without=workers.values())


# ---- the adaptive number -------------------------------------------------------------------------
ADAPTIVE = {"workers": 1, "workers_min": 1, "workers_max": 2, "workers_grow_after": "600ms",
            "workers_shrink_after": "1s"}


def pipeline(address, ending):
    """Keeps a worker busier than this client: many requests in one go."""
    requests = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2000
    with socket.create_connection(address, DEADLINE) as connection, contextlib.suppress(OSError):
        def drain():
            with contextlib.suppress(OSError):
                while connection.recv(1 << 20):
                    pass
        reader = threading.Thread(target=drain, daemon=True)
        reader.start()
        while not ending.is_set():
            connection.sendall(requests)
        connection.shutdown(socket.SHUT_RDWR)
        reader.join(DEADLINE)


def test_a_busy_worker_gets_a_sibling_and_loses_it():
    with served(**ADAPTIVE) as narwhal:
        ending = threading.Event()
        threads = [threading.Thread(target=pipeline, args=(narwhal.address, ending), daemon=True)
                   for _ in range(3)]
        for thread in threads:
            thread.start()
        match = narwhal.wait_log(r'workers wanted=2 before=1 reason="(.*)"')
        assert re.fullmatch(r"(clients wait: \d+, )?busy \d+ %", match[1]), match[1]
        narwhal.wait_workers(2)
        mark = narwhal.mark()
        ending.set()
        for thread in threads:
            thread.join(DEADLINE)
        narwhal.wait_log(r'workers wanted=1 before=2 reason="busy \d+ %"', since=mark)
        narwhal.wait_workers(1)
        assert client.get(narwhal.address, "/").status == 200


def clients_wait(narwhal):
    """The only worker is stopped while clients come, until there is a second one."""
    pid = narwhal.wait_workers(1)[0]
    assert client.get(narwhal.address, "/").status == 200
    # Stopped in a turn of its loop it would count as busy.
    wait_until(lambda: process_stat(pid)[0] == "S", "the worker waits for events")
    os.kill(pid, signal.SIGSTOP)
    try:
        clients = [socket.create_connection(narwhal.address, DEADLINE) for _ in range(4)]
        narwhal.wait_log(r'workers wanted=2 before=1 reason="clients wait: \d+, busy \d+ %"')
        narwhal.wait_log(r"worker slot=1 is READY")
    finally:
        os.kill(pid, signal.SIGCONT)
    for connection in clients:
        connection.close()


def test_clients_that_wait_bring_a_worker():
    with served(**{**ADAPTIVE, "workers_shrink_after": "1h"}) as narwhal:
        clients_wait(narwhal)
        assert client.get(narwhal.address, "/").status == 200


def test_other_bounds_do_not_take_away_what_the_load_has_brought():
    grown = {**ADAPTIVE, "workers_shrink_after": "1h"}
    with served(**grown) as narwhal:
        clients_wait(narwhal)
        for most, wanted in (3, 2), (1, 1), (4, 1):
            narwhal.write({"master": {**grown, "workers_max": most}, **HELLO})
            narwhal.reload()
            narwhal.wait_workers(wanted)
            assert narwhal.status()["workers_wanted"] == wanted


def test_auto_is_what_it_was_at_the_start_until_a_reload():
    """An administrator moves narwhal to other CPUs: nothing happens by accident, when some event
    makes the master count again."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("one CPU cannot become more")
    with served(workers="auto") as narwhal:
        narwhal.wait_workers(narwhal.status()["workers_wanted"])
        before = narwhal.status()["workers_wanted"]
        os.sched_setaffinity(narwhal.pid, cpus[:1])
        narwhal.signal(signal.SIGUSR1)
        narwhal.wait_log("logs reopened")
        assert narwhal.status()["workers_wanted"] == before
        narwhal.signal(signal.SIGTTIN)
        narwhal.wait_workers(before + 1)
        if before > 1:  # else a cgroup is narrower
            mark = narwhal.reload()
            narwhal.wait_log(rf"workers = auto is now workers=1 before={before}", since=mark)
            narwhal.wait_workers(2)


def test_one_worker_more_is_counted_from_what_there_is():
    """Fewer CPUs than when TTOU was counted: auto and what it said would be below 1."""
    cpus = sorted(os.sched_getaffinity(0))
    with served(workers="auto") as narwhal:
        before = narwhal.status()["workers_wanted"]
        if before < 2:
            pytest.skip("auto is 1 here")
        for _ in range(before - 1):
            mark = narwhal.mark()
            narwhal.signal(signal.SIGTTOU)
            narwhal.wait_log('reason="SIGTTOU"', since=mark)
        os.sched_setaffinity(narwhal.pid, cpus[:1])
        narwhal.reload()
        narwhal.wait_workers(1)
        narwhal.signal(signal.SIGTTIN)
        narwhal.wait_workers(2)


def test_the_operator_stops_adapting():
    with served(**ADAPTIVE) as narwhal:
        narwhal.signal(signal.SIGTTIN)
        narwhal.wait_log(r'workers wanted=2 before=1 reason="SIGTTIN"')
        narwhal.wait_log(r"the number of workers is no longer adapted")
        narwhal.wait_workers(2)
        threading.Event().wait(2)  # twice workers_shrink_after
        assert narwhal.status()["workers_wanted"] == 2
        mark = narwhal.mark()
        narwhal.write({"master": {**ADAPTIVE, "workers_max": 3}, **HELLO})
        narwhal.reload()
        narwhal.wait_log(r"reload done", since=mark)
        assert narwhal.status()["workers_wanted"] == 1
        # Adapting again: bounds that are above the number move it.
        narwhal.write({"master": {**ADAPTIVE, "workers_min": 2, "workers_max": 3}, **HELLO})
        narwhal.reload()
        narwhal.wait_workers(2)


# ---- idle ----------------------------------------------------------------------------------------
def switches(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", file.read(), re.M)[1])


@pytest.mark.parametrize("master", [
    {}, {"max_requests": 1000, "max_lifetime": "1h", "max_memory": "4g", "workers_max": 8}
], ids=["default", "all looks on"])
def test_an_idle_server_hardly_wakes_up(master):
    with served(workers=4, **master) as narwhal:
        workers = narwhal.wait_workers(4)
        assert client.get(narwhal.address, "/").status == 200
        threading.Event().wait(1)  # what follows the start is over
        pids = [narwhal.pid, *workers.values()]
        before = {pid: switches(pid) for pid in pids}
        seconds = 4
        threading.Event().wait(seconds)
        rates = {pid: (switches(pid) - before[pid]) / seconds for pid in pids}
        assert rates.pop(narwhal.pid) < 10, rates
        assert all(rate < 2 for rate in rates.values()), rates


def test_worker_that_is_terminated_gets_a_successor_first():
    """kill, not of the master but of a worker: its queue is never without a server."""
    with Narwhal({"master": {"workers": 2}, **HELLO}) as narwhal:
        with Load(narwhal.address, stay=False) as load:
            load.wait_answers(10)
            for slot in (0, 1, 0):
                victim = narwhal.workers()[slot]
                os.kill(victim, signal.SIGTERM)
                narwhal.wait_log(rf"worker slot={slot} left pid={victim}")
            load.wait_answers(10)
