# SPDX-License-Identifier: Apache-2.0
"""The short form of tests/chaos/run.sh: no request is lost, whatever is done to the processes. Two
loads, a connection for each request and kept connections; what is asserted are counts, no times."""
import os
import signal
import sys
import threading

import pytest

import chaos_load
from chaos_load import ChaosLoad
from narwhal import REPOSITORY, Narwhal, wait_until

sys.path.insert(0, os.path.join(REPOSITORY, "tests", "chaos"))
import chaos  # noqa: E402  the whole form, for what it knows of kills
import processes  # noqa: E402

REQUESTS = 4000
TINY = {"route:tiny": {"path": "/", "respond": "200 ok"}}
LOADS = pytest.mark.parametrize("options", [("-c", 8), ("-c", 24, "-k", "-w", 5)],
                                ids=["new_connections", "keep_alive"])


def settings(**master):
    return {"master": {"workers": 4, **master}, **TINY}


def disturb(narwhal, options, event, path="/"):
    """Runs a load and does the event again and again while it lasts; event() returns when the
    server is done with it. Returns what the load counted, with the number of events."""
    with ChaosLoad(narwhal.address, "-p", path, "-n", REQUESTS, "-t", 40, "-T", 30000,
                   *options) as load:
        events = 0
        while load.running():
            event()
            events += 1
            threading.Event().wait(0.05)  # so that the load gets on on one CPU, too
        result = load.result()
    assert result["requests"] > 100, "the load hardly got on"
    return result, events


def assert_nothing_lost(result):
    assert result["lost"] == 0, (
        {key: result[key] for key in chaos.LOSSES if result[key]}, result["losses"][:10],
        result["first_bad"])


@LOADS
def test_reload(options):
    with Narwhal(settings()) as narwhal:
        values = iter(range(30, 1000000))

        def event():
            narwhal.write({**settings(), "worker": {"keepalive": f"{next(values)}s"}})
            narwhal.reload()
        assert_nothing_lost(disturb(narwhal, options, event)[0])


@LOADS
def test_one_worker_more_and_less(options):
    with Narwhal(settings()) as narwhal:
        turns = iter(range(1000000))

        def event():
            more = next(turns) % 2 == 0
            narwhal.signal(signal.SIGTTIN if more else signal.SIGTTOU)
            narwhal.wait_workers(5 if more else 4)
        assert_nothing_lost(disturb(narwhal, options, event)[0])


@LOADS
def test_rolling_restart_of_an_application(options, tmp_path):
    with Narwhal({**settings(),
                  "backend:app": {"command": f"{chaos_load.app()} {{fd}} 1 {tmp_path}", "instances": 2},
                  "route:app": {"path": "/app", "backend": "app"}}) as narwhal:
        narwhal.wait_log(r"instance app/\d.* is READY", count=2)

        def event():
            mark = narwhal.mark()
            narwhal.signal(signal.SIGHUP)
            narwhal.wait_log(r"instances replaced", since=mark)
        assert_nothing_lost(disturb(narwhal, options, event, "/app")[0])


@LOADS
def test_recycling(options):
    with Narwhal(settings(max_requests=200, max_requests_jitter=100)) as narwhal:
        result, _ = disturb(narwhal, options, lambda: None)
        assert_nothing_lost(result)
        narwhal.wait_log(r"worker .* is READY", count=6)  # four, and at least two replacements


@LOADS
def test_upgrade(options):
    with Narwhal(settings()) as narwhal:
        def event():
            before = narwhal.workers()
            narwhal.signal(signal.SIGUSR2)
            narwhal.wait_workers(4, without=before.values())
        assert_nothing_lost(disturb(narwhal, options, event)[0])
        assert narwhal.process.poll() is None, "the pid stays"


def assert_lost_with_the_killed_only(killed, result):
    """Nobody is refused, nothing that waited in a queue is lost, and no more than what the killed
    processes had taken."""
    line = chaos.Line(None, "", "narwhal")
    line.result = result
    killed.judge(line, "taken")
    assert not line.broken, (line.broken, line.notes, result["losses"][:10], result["first_bad"])


@LOADS
def test_kill9_of_a_worker(options):
    killed = chaos.Killed()
    with Narwhal(settings()) as narwhal:
        def event():
            pid = killed.choose(narwhal.workers().values())
            killed.kill(pid, lambda: processes.connections_held(pid, narwhal.port))
            wait_until(lambda: len(narwhal.workers()) > 1, "a worker beside the next victim")
        result, _ = disturb(narwhal, options, event)
    assert_lost_with_the_killed_only(killed, result)


@LOADS
def test_kill9_of_an_instance(options, tmp_path):
    killed = chaos.Killed()
    with Narwhal({**settings(),
                  "backend:app": {"command": f"{chaos_load.app()} {{fd}} 1 {tmp_path}", "instances": 3,
                                  "queue_timeout": "30s"},
                  "route:app": {"path": "/app", "backend": "app"}},
                 # The 502 of a request that both of its servers died with.
                 errors=[r"instance app/\d.* died", "request failed status=502"]) as narwhal:
        narwhal.wait_log(r"instance app/\d.* is READY", count=3)

        def event():
            pids = [pid for pid in narwhal.instances() if (tmp_path / str(pid)).exists()]
            if len(pids) > 1:
                pid = killed.choose(pids)
                killed.kill(pid, lambda: chaos.received(tmp_path, pid))
        result, _ = disturb(narwhal, options, event, "/app")
    assert_lost_with_the_killed_only(killed, result)
