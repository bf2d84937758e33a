# SPDX-License-Identifier: Apache-2.0
"""A worker that makes no progress: siblings serve its queue, and in the end it is replaced."""
import ctypes
import os
import signal
import time

import pytest

import client
from narwhal import Narwhal, process_stat, run_narwhal, wait_until

HELLO = {"route:hello": {"path": "/", "respond": "200 hello"}}


def lanes_of(narwhal, slot):
    return [lane for lane in narwhal.status()["lanes"] if lane["slot"] == slot]


def is_home(narwhal):
    return all(lane["slot"] == lane["served_by_slot"] for lane in narwhal.status()["lanes"])


def ask(narwhal, times=40):
    """New connections, which the kernel spreads over all lanes."""
    for _ in range(times):
        assert client.get(narwhal.address).status == 200


def test_queue_of_a_stopped_worker_is_served_by_a_sibling():
    with Narwhal({**HELLO, "master": {"workers": 4}}) as narwhal:
        workers = narwhal.workers()
        os.kill(workers[1], signal.SIGSTOP)
        narwhal.wait_log(r"worker slot=1 stalls, siblings serve its lanes pid=%d" % workers[1])
        wait_until(lambda: lanes_of(narwhal, 1)[0]["served_by_slot"] != 1, "another server")
        ask(narwhal)
        os.kill(workers[1], signal.SIGCONT)
        wait_until(lambda: is_home(narwhal), "the lane to come home")
        ask(narwhal)
        assert narwhal.workers() == workers, "nobody was replaced"


def test_what_waits_in_the_queue_when_it_stops_is_served():
    with Narwhal({**HELLO, "master": {"workers": 2}}) as narwhal:
        workers = narwhal.workers()
        for _ in range(20):
            os.kill(workers[0], signal.SIGSTOP)
            ask(narwhal, 8)
            os.kill(workers[0], signal.SIGCONT)
            ask(narwhal, 2)
        wait_until(lambda: is_home(narwhal), "the lane to come home")


def test_a_worker_in_a_debugger_is_no_server_either():
    """The kernel does not tell the parent about a traced process: its queue does."""
    libc = ctypes.CDLL(None, use_errno=True)
    ptrace_seize, ptrace_interrupt, ptrace_detach = 0x4206, 0x4207, 17
    with Narwhal(HELLO) as narwhal:
        victim = narwhal.workers()[0]
        if libc.ptrace(ptrace_seize, victim, None, None) == -1:
            pytest.skip("this user may not trace: " + os.strerror(ctypes.get_errno()))
        libc.ptrace(ptrace_interrupt, victim, None, None)
        os.waitpid(victim, 0x40000000)  # __WALL
        ask(narwhal)
        narwhal.wait_log("worker slot=0 stalls.*connections wait in its queue")
        libc.ptrace(ptrace_detach, victim, None, None)
        ask(narwhal)
        assert narwhal.workers()[0] == victim


def test_all_of_them_stopped():
    """Nobody can lend to anybody; all goes on when they do."""
    with Narwhal(HELLO) as narwhal:
        workers = narwhal.workers()
        for pid in workers.values():
            os.kill(pid, signal.SIGSTOP)
        narwhal.wait_log("stalls", count=2)
        with client.Client(narwhal.address) as connection:
            connection.send(client.encode("GET", "/"))
            for pid in workers.values():
                os.kill(pid, signal.SIGCONT)
            assert connection.response().status == 200
        wait_until(lambda: is_home(narwhal), "the lanes to come home")
        assert narwhal.workers() == workers


def test_stopped_for_longer_than_the_timeout_is_replaced_with_the_evidence_in_the_log():
    with Narwhal({**HELLO, "master": {"timeout": "1s"}},
                 errors=["worker slot=0 makes no progress"]) as narwhal:
        victim = narwhal.workers()[0]
        os.kill(victim, signal.SIGSTOP)
        line = narwhal.wait_log("worker slot=0 makes no progress and is killed .*")[0]
        for word in (f"pid={victim}", "generation=1", "state=READY", "wchan=", "syscall=",
                     "why=\"it was stopped by a signal\""):
            assert word in line, line
        narwhal.wait_log(rf"worker slot=0 died pid={victim} .*killed_for=timeout")
        assert victim not in narwhal.wait_workers(2, without=[victim]).values()
        ask(narwhal)


def test_an_aborted_worker_says_where_it_stood():
    with Narwhal(HELLO, errors=["ended by signal=SIGABRT", "stack #"]) as narwhal:
        victim = narwhal.workers()[0]
        os.kill(victim, signal.SIGABRT)
        narwhal.wait_log(rf"worker 0\[{victim}\]: ended by signal=SIGABRT sent_by={os.getpid()}")
        narwhal.wait_log(rf"worker 0\[{victim}\]: stack #\d+ narwhal\+0x")
        narwhal.wait_log(rf"worker slot=0 died pid={victim} signal=SIGABRT")
        narwhal.wait_workers(2, without=[victim])


def test_without_stall_timeout_nothing_is_lent():
    with Narwhal({**HELLO, "master": {"stall_timeout": "0"}}) as narwhal:
        victim = narwhal.workers()[0]
        os.kill(victim, signal.SIGSTOP)
        wait_until(lambda: process_stat(victim)[0] == "T", "the worker to stop")
        narwhal.status()
        assert is_home(narwhal)
        os.kill(victim, signal.SIGCONT)
        assert not any("stalls" in line for line in narwhal.log())


def test_a_master_that_was_stopped_blames_nobody():
    with Narwhal({**HELLO, "master": {"timeout": "1s"}}) as narwhal:
        workers = narwhal.workers()
        begin = time.monotonic()
        for pid in [narwhal.pid, *workers.values()]:
            os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: time.monotonic() - begin > 2.5, "the timeout to be over")
        for pid in [*workers.values(), narwhal.pid]:
            os.kill(pid, signal.SIGCONT)
        narwhal.wait_log("the master was late")
        ask(narwhal)
        wait_until(lambda: is_home(narwhal), "the lanes to be home")
        assert narwhal.workers() == workers


def stop_master(narwhal, meanwhile):
    """The master is stopped while something happens and for longer than a second."""
    mark = narwhal.mark()
    narwhal.signal(signal.SIGSTOP)
    wait_until(lambda: process_stat(narwhal.pid)[0] == "T", "the master to be stopped")
    meanwhile()
    time.sleep(1.5)
    narwhal.signal(signal.SIGCONT)
    narwhal.wait_log("the master was late", since=mark)
    return mark


def test_a_master_that_was_stopped_reads_the_answer_to_a_reload_first():
    master = {"workers": 1, "timeout": "1s"}
    with Narwhal({**HELLO, "master": master}) as narwhal:
        worker = narwhal.workers()[0]
        os.kill(worker, signal.SIGSTOP)
        narwhal.write({**HELLO, "master": master, "worker": {"keepalive": "30s"}})
        before = narwhal.mark()
        narwhal.signal(signal.SIGHUP)
        narwhal.wait_log("received SIGHUP", since=before)
        narwhal.status()  # the loop went round: the worker was asked
        stop_master(narwhal, lambda: os.kill(worker, signal.SIGCONT))
        narwhal.wait_log("reload done", since=before)
        assert narwhal.workers() == {0: worker}


def test_a_master_that_was_stopped_knows_who_left_in_time():
    master = {"workers": 2, "graceful_timeout": "100ms"}
    with Narwhal({**HELLO, "master": master}) as narwhal:
        worker = narwhal.workers()[1]
        os.kill(worker, signal.SIGSTOP)  # so that it leaves not before the master is stopped
        narwhal.wait_log("worker slot=1 stalls")
        narwhal.signal(signal.SIGTTOU)
        wait_until(lambda: "DRAINING" in [found["state"] for found in narwhal.status()["workers"]],
                   "the worker to be told")

        def leave():
            os.kill(worker, signal.SIGCONT)
            wait_until(lambda: process_stat(worker)[0] == "Z", "the worker to leave")
        mark = stop_master(narwhal, leave)
        line = narwhal.wait_log("worker slot=1 left .*", since=mark)[0]
        assert "exit=0" in line and "killed_for" not in line, line
        assert "did not leave in time" not in "\n".join(narwhal.log(mark))
        assert not narwhal.control_json("deaths")["deaths"]


# ---- a worker that is busy: only test builds have a route that spins -----------------------------
def spinning(seconds, **master):
    narwhal = Narwhal({**HELLO, "master": {"workers": 4, **master},
                       "route:spin": {"path": "/spin", "respond": "200 spun",
                                      "spin": f"{seconds}s"}},
                      start=False)
    status, _, said = run_narwhal("--check-config", "-c", narwhal.settings_path)
    if status == 78 and "spin" in said:
        narwhal.destroy()
        pytest.skip("this binary has no route that spins")
    return narwhal.start()


def test_nobody_waits_behind_a_busy_worker():
    with spinning(4) as narwhal:
        workers = narwhal.workers()
        with client.Client(narwhal.address) as busy:
            busy.send(client.encode("GET", "/spin"))
            narwhal.wait_log("stalls.*one turn of its loop does not end")
            begin = time.monotonic()
            ask(narwhal)
            assert time.monotonic() - begin < 3, "forty requests, while one worker is busy"
            assert busy.response().text.strip() == "spun"
        wait_until(lambda: is_home(narwhal), "the lane to come home")
        assert narwhal.workers() == workers


def test_endless_turn_is_aborted_and_tells_its_stack():
    with spinning(600, timeout="1s") as narwhal:
        for pattern in ("makes no progress", "ended by signal=SIGABRT", "stack #"):
            narwhal.expect_error(pattern)
        workers = narwhal.workers()
        with client.Client(narwhal.address) as busy:
            busy.send(client.encode("GET", "/spin"))
            match = narwhal.wait_log(r"worker slot=(\d) makes no progress and is killed pid=(\d+) .*"
                                     "why=\"one turn of its loop does not end\" .*"
                                     "last_request=\"GET /spin\"")
            slot, victim = int(match[1]), int(match[2])
            assert workers[slot] == victim
            narwhal.wait_log(rf"worker {slot}\[{victim}\]: stack #\d+ narwhal\+0x")
            narwhal.wait_log(rf"worker slot={slot} died pid={victim} signal=SIGABRT")
            with pytest.raises((client.ConnectionEnded, ConnectionResetError)):
                busy.response()
        narwhal.wait_workers(4, without=[victim])
        ask(narwhal)


def test_reload_is_tried_by_a_worker_that_moves():
    """A stopped one would answer late: all others would wait for it with the old settings."""
    with Narwhal(HELLO) as narwhal:
        workers = narwhal.workers()
        os.kill(workers[0], signal.SIGSTOP)
        narwhal.wait_log("worker slot=0 stalls")
        narwhal.write({"route:hello": {"path": "/", "respond": "200 new"}})
        mark = narwhal.mark()
        narwhal.signal(signal.SIGHUP)
        narwhal.wait_log("changed: ", since=mark)
        wait_until(lambda: client.get(narwhal.address).text.strip() == "new", "the new settings")
        os.kill(workers[0], signal.SIGCONT)
        narwhal.wait_log("reload done", since=mark)
        assert narwhal.workers() == workers
