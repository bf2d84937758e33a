# SPDX-License-Identifier: Apache-2.0
"""Whatever happens in whatever order, narwhal comes to rest with all that it shall have and nothing
more. Random sequences of signals, reloads, upgrades and deaths, under a light load; what they are
follows from the seed alone, which the name of the test tells.

    NARWHAL_RANDOM_SEEDS=100-200 pytest test_random_events.py   runs these seeds instead
"""
import os
import random
import signal
import threading
import time

import pytest

import chaos_load
import client
from narwhal import (DEADLINE, NO_SERVER, Narwhal, children_of, is_alive, process_stat, title_of,
                     wait_until)

EVENTS = 40
# A sequence that a slow machine makes long is cut here.
LONGEST = 8.0
WORKERS_MAX = 5
INSTANCES = 2

# What broken settings and killed processes make narwhal say, and nothing else.
EXPLAINED = [
    r"reload refused, the old settings go on", r"unknown key", r"bind: cannot listen on",
    r"no_such_program", r"backend=broken", r"\[backend:broken\]", r"instance broken/",
    # An upgrade that finds the broken file.
    r"upgrade refused, everything goes on as before", r"upgrade check\[",
    r"the settings cannot be read again, those in use go on",
]
# Of a killed process, and of a request that it had taken.
EXPLAINED_BY_KILLS = [
    r"request failed status=50[234]", NO_SERVER, r"instance (app|more)/\d+ died",
    r"the new instance (app|more)/\d+ (of backend=more )?did not become READY",
    r"the replacement of the workers stops", r"reload incomplete", r"worker slot=\d+ goes on",
    r"worker slot=\d+ died while it tried the new settings", r"closed its channel",
]


def seeds():
    first, _, last = os.environ.get("NARWHAL_RANDOM_SEEDS", "1-4").partition("-")
    return range(int(first), int(last or first) + 1)


class Clients:
    """A light load: each of its threads asks again and again, on a connection of its own or on a
    kept one, and notes what is not an answer."""

    def __init__(self, address, targets):
        self.address = address
        self.failures = []
        self.answers = 0
        self.ending = False
        self.threads = [threading.Thread(target=self._run, args=(target, keep), daemon=True)
                        for target in targets for keep in (True, False)]

    def _ask(self, connection, target, headers):
        response = connection.get(target, headers)
        assert response.status == 200, response
        self.answers += 1
        return response

    def _run(self, target, keep):
        headers = {} if keep else {"Connection": "close"}
        while not self.ending:
            try:
                with client.Client(self.address) as connection:
                    while not self._ask(connection, target, headers).closes and not self.ending:
                        threading.Event().wait(0.002)
            except Exception as problem:  # whatever it is, it is a failed request
                self.failures.append((time.monotonic(), target, repr(problem)))
                threading.Event().wait(0.02)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ending = True
        for thread in self.threads:
            thread.join(DEADLINE)


class Sequence:
    """One narwhal and what is done to it."""

    def __init__(self, narwhal, seed, rough):
        self.narwhal = narwhal
        self.random = random.Random(seed)
        self.rough = rough
        self.kept = 60
        self.workers = 3
        self.adaptive = False
        self.more_bind = self.more_backend = False
        self.paused = False
        self.stopped = set()
        self.told = []
        self.kills = 0

    # ---- settings --------------------------------------------------------------------------------
    def settings(self, broken=None):
        app = f"{chaos_load.app()} {{fd}} 1"
        master = {"workers": self.workers, "bind": ["127.0.0.1:0"], "graceful_timeout": "4s",
                  "timeout": "20s"}
        if self.adaptive:
            master.update(workers_min=2, workers_max=WORKERS_MAX, workers_grow_after="200ms",
                          workers_shrink_after="300ms")
        if self.more_bind:
            master["bind"].append(f"unix:{self.narwhal.path('more.sock')}")
        found = {"master": master, "worker": {"keepalive": f"{self.kept}s",
                                              "keepalive_drain": "300ms"},
                 "backend:app": {"command": app, "instances": INSTANCES, "queue_timeout": "20s"},
                 "route:app": {"path": "/app", "backend": "app"},
                 "route:tiny": {"path": "/", "respond": "200 ok"}}
        if self.more_backend:
            found["backend:more"] = {"command": app}
            found["route:more"] = {"path": "/more", "backend": "more"}
        if broken == "key":
            found["worker"]["keepalife"] = "60s"
        elif broken == "bind":
            master["bind"].append("192.0.2.1:1")
        elif broken == "application":
            found["backend:broken"] = {"command": "no_such_program {fd}"}
            found["route:broken"] = {"path": "/broken", "backend": "broken"}
        return found

    def reload(self, broken=None):
        self.narwhal.write(self.settings(broken))
        self.narwhal.signal(signal.SIGHUP)
        self.paused = False

    # ---- events ----------------------------------------------------------------------------------
    def reload_changed(self):
        self.kept += 1
        self.reload()

    def reload_same(self):
        self.reload()

    def reload_broken(self):
        self.reload(self.random.choice(["key", "bind", "application"]))

    def reload_workers(self):
        self.workers = self.random.randint(2, WORKERS_MAX)
        self.reload()

    def reload_adaptive(self):
        self.adaptive = not self.adaptive
        self.reload()

    def reload_bind(self):
        self.more_bind = not self.more_bind
        self.reload()

    def reload_backend(self):
        self.more_backend = not self.more_backend
        self.reload()

    def one_more(self):
        self.narwhal.signal(signal.SIGTTIN)

    def one_less(self):
        self.narwhal.signal(signal.SIGTTOU)

    def reopen(self):
        self.narwhal.signal(signal.SIGUSR1)

    def upgrade(self):
        self.narwhal.signal(signal.SIGUSR2)

    def pause(self):
        self.narwhal.signal(signal.SIGWINCH)
        self.paused = True

    def stop_master(self):
        self.narwhal.signal(signal.SIGSTOP)
        threading.Event().wait(self.random.choice([0.05, 0.4]))
        self.narwhal.signal(signal.SIGCONT)

    def one_of(self, pids):
        return self.random.choice(sorted(pids)) if pids else None

    def send(self, pid, sig):
        if pid is not None:
            try:
                os.kill(pid, sig)
            except ProcessLookupError:
                pass

    def worker(self, sig):
        pid = self.one_of(self.narwhal.workers().values())
        self.send(pid, sig)
        return pid

    def term_worker(self):
        self.worker(signal.SIGTERM)

    def stop_worker(self):
        pid = self.worker(signal.SIGSTOP)
        if pid is not None:
            self.stopped.add(pid)

    def continue_all(self):
        for pid in self.stopped:
            self.send(pid, signal.SIGCONT)
        self.stopped.clear()

    def stop_instance(self):
        pid = self.one_of(self.narwhal.instances())
        self.send(pid, signal.SIGSTOP)
        if pid is not None:
            self.stopped.add(pid)

    def kill_worker(self):
        self.kills += 1
        self.worker(signal.SIGKILL)

    def kill_instance(self):
        self.kills += 1
        self.send(self.one_of(self.narwhal.instances()), signal.SIGKILL)

    def term_instance(self):
        self.kills += 1
        self.send(self.one_of(self.narwhal.instances()), signal.SIGTERM)

    def kill_all(self):
        for pid in children_of(self.narwhal.pid):
            self.kills += 1
            self.send(pid, signal.SIGKILL)

    def event(self):
        gentle = [self.reload_changed, self.reload_changed, self.reload_same, self.reload_broken,
                  self.reload_workers, self.reload_adaptive, self.reload_bind, self.reload_backend,
                  self.one_more, self.one_less, self.one_more, self.one_less, self.reopen,
                  self.upgrade, self.upgrade, self.pause, self.term_worker, self.stop_worker,
                  self.continue_all, self.continue_all, self.stop_instance, self.stop_master]
        rough = [self.kill_worker, self.kill_worker, self.kill_instance, self.term_instance,
                 self.kill_all]
        # A pause stops the service: it ends soon.
        if self.paused and self.random.random() < 0.5:
            event = self.reload_same
        else:
            event = self.random.choice(gentle + rough if self.rough else gentle)
        self.told.append(event.__name__)
        event()

    def run(self):
        end = time.monotonic() + LONGEST
        for _ in range(EVENTS):
            self.event()
            threading.Event().wait(self.random.choice([0, 0.005, 0.02, 0.05, 0.2]))
            if time.monotonic() > end:
                break

    # ---- rest ------------------------------------------------------------------------------------
    def settle(self, workers):
        """Ends what was begun, with known settings."""
        self.continue_all()
        self.adaptive = self.more_bind = self.more_backend = False
        # Not at once, perhaps: signals that come together, during an upgrade for instance, come in
        # the order of their numbers (signal(7)), so that SIGWINCH pauses again what the SIGHUP after
        # it was to continue.
        wait_until(lambda: self.has_number(workers), f"{workers} workers wanted", 4 * DEADLINE)
        self.narwhal.wait_workers(workers)
        self.at_rest(workers)

    def has_number(self, workers):
        """Two reloads, because only another number ends what TTIN and TTOU said."""
        try:
            for self.workers in (1 if workers > 1 else 2, workers):
                self.reload()
                wait_until(lambda: self.narwhal.status()["workers_wanted"] == self.workers,
                           f"{self.workers} workers wanted", 5)
            return True
        except AssertionError:
            return False

    def at_rest(self, workers):
        def rest():
            status = self.narwhal.status()
            states = [worker["state"] for worker in status["workers"]]
            servers = [server["state"] for backend in status["backends"]
                       for server in backend["servers"]]
            kinds = [title_of(pid) for pid in children_of(self.narwhal.pid)]
            self.seen = states, servers, kinds
            return (states == ["READY"] * workers and
                    sorted(servers) == ["READY"] * INSTANCES and
                    len(kinds) == workers + INSTANCES)
        try:
            wait_until(rest, "rest")
        except AssertionError:
            raise AssertionError(f"no rest: {self.seen}") from None
        status = self.narwhal.status()
        owners = {lane["served_by_slot"] for lane in status["lanes"]}
        assert owners <= set(range(workers)), status["lanes"]
        for pid in children_of(self.narwhal.pid):
            assert process_stat(pid)[0] != "Z", title_of(pid)

    def control_clients(self):
        with open("/proc/net/unix", encoding="ascii", errors="replace") as file:
            return [line for line in file if f" {self.narwhal.path('.nw')}" in line and
                    line.split()[5] == "03"]  # SS_CONNECTED; a rename made the path of the name

    def descriptors(self):
        """By kind, without the lanes, which are kept, and the sockets of control clients."""
        lanes = len(self.narwhal.status()["lanes"])
        wait_until(lambda: not self.control_clients(), "the end of the control clients")
        found = {}
        for number in os.listdir(f"/proc/{self.narwhal.pid}/fd"):
            try:
                kind = os.readlink(f"/proc/{self.narwhal.pid}/fd/{number}").split(":")[0]
            except FileNotFoundError:
                continue
            found[kind] = found.get(kind, 0) + 1
        found["socket"] -= lanes
        return found


@pytest.mark.parametrize("seed", seeds())
def test_comes_to_rest(seed):
    rough = seed % 2 == 0
    errors = EXPLAINED + (EXPLAINED_BY_KILLS if rough else [])
    # Of processes that are killed while the leak check stops them.
    env = {"ASAN_OPTIONS": "detect_leaks=0"} if rough else {}
    with Narwhal({}, start=False, errors=errors, env=env) as narwhal:
        sequence = Sequence(narwhal, seed, rough)
        narwhal.write(sequence.settings())
        try:
            narwhal.start()
            narwhal.wait_log("instance app/. is READY", count=INSTANCES)
            sequence.settle(3)
            before = sequence.descriptors()
            with Clients(narwhal.address, ["/", "/app"]) as clients:
                sequence.run()
                sequence.settle(3)
                answers = clients.answers
                wait_until(lambda: clients.answers > answers + 20, "answers in the end")
            wait_until(lambda: sequence.descriptors() == before,
                       f"the descriptors of before: {before}", 5)
            most = sequence.kills * len(clients.threads)
            assert len(clients.failures) <= most, clients.failures
            assert client.get(narwhal.address, "/app").status == 200
        except BaseException:
            print(f"seed {seed}: {' '.join(sequence.told)}\n"
                  f"rest {getattr(sequence, 'seen', None)}")
            if narwhal.process is not None and narwhal.process.poll() is None:
                print("fds", sequence.descriptors(), is_alive(narwhal.pid))
            raise
