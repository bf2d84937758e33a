# SPDX-License-Identifier: Apache-2.0
"""Kept connections to servers, and the moment in which the server closes one: no request fails, and
none is executed twice."""
import collections
import contextlib
import os
import signal
import socket

import pytest

import client
from backend import Backend, free_port
from narwhal import Narwhal, process_stat, wait_until
from pausing import Pausing
from recorder import Recorder


def front(*servers, workers=2, **more):
    return Narwhal({"master": {"workers": workers},
                    "backend:b": {"server": list(servers), **more},
                    "route:b": {"path": "/", "backend": "b"}}, errors=["."])


def check_record(load, *recorders):
    """Every answered request was executed once, and no other more than once."""
    executed = collections.Counter(line for one in recorders for line in one.executed())
    doubled = {line: count for line, count in executed.items() if count > 1}
    assert not doubled, doubled
    missing = [line for line in load.answered if line not in executed]
    assert not missing, missing


@pytest.mark.parametrize("listen", ["tcp", "unix"])
def test_server_that_closes_after_4_ms(tmp_path, listen):
    """48 clients that pause for as long as the server keeps a connection: the race, all the time."""
    path = "0" if listen == "tcp" else f"/tmp/narwhal-recorder-{os.getpid()}"
    try:
        with Recorder(tmp_path, listen=path, idle_ms=4) as server, front(server.server) as narwhal:
            load = Pausing(narwhal.address, 48, pause_ms=10).run(answers=60)
            assert not load.failures, (len(load.failures), load.failures[:5])
            check_record(load, server)
            totals = narwhal.status()["totals"]
            assert totals["upstream_reused"] > 0, "kept connections are used where that is safe"
            shown = narwhal.status()["backends"][0]["servers"][0]
            assert 1 <= shown["closes_after_ms"] < 100, shown
    finally:
        if path != "0":
            os.unlink(path)


def test_stale_connections_of_servers_with_few_slots(tmp_path):
    """A request that meets the end of its connection gives its slot to who waits, and waits itself:
    also for the server that it was at, which is well."""
    with Recorder(tmp_path, "one", idle_ms=4, delay_ms=2) as one, \
            Recorder(tmp_path, "two", idle_ms=4, delay_ms=2) as two, \
            front(one.server, two.server, slots=2) as narwhal:
        load = Pausing(narwhal.address, 48, pause_ms=10).run(answers=40)
        assert not load.failures, (len(load.failures), load.failures[:5])
        check_record(load, one, two)
        assert [server["in_flight"] for server in
                narwhal.status()["backends"][0]["servers"]] == [0, 0]


# Events that libev takes at a time (epoll_eventmax of ev_epoll.c, before it grows).
EPOLL_BATCH = 64


# ---- the proof -----------------------------------------------------------------------------------
class Stale:
    """A narwhal with one worker that has an idle connection to a server, and is stopped while the
    server ends it and a client sends a request: the request goes out on a connection that is gone.
    """

    def __init__(self, unix=False, **more):
        self.backend = Backend(unix=unix)
        self.narwhal = Narwhal({
            "master": {"workers": 1, "stall_timeout": 0},
            "backend:b": {"server": self.backend.server, "idle_timeout": "3s", **more},
            "route:b": {"path": "/", "backend": "b"},
            "route:hello": {"path": "=/hello", "respond": "200 hello"}}, errors=["."])

    def warm_up(self):
        """A connection lives for idle_timeout, so that the next one is trusted for half of that."""
        assert client.get(self.narwhal.address).status == 200
        self.backend.next()
        self.backend.closed.get(timeout=client.DEADLINE)
        assert client.get(self.narwhal.address).status == 200
        return self.backend.next()

    def ask(self, method, end, body=None):
        """The request that meets the stale connection; end(exchange) is what the server does."""
        with contextlib.ExitStack() as stack:
            def connected():
                one = stack.enter_context(client.Client(self.narwhal.address))
                assert one.get("/hello").status == 200  # it is accepted
                return one
            others = [connected() for _ in range(EPOLL_BATCH)]
            asking = connected()
            kept = self.warm_up()
            worker, = self.narwhal.workers().values()
            os.kill(worker, signal.SIGSTOP)
            wait_until(lambda: process_stat(worker)[0] == "T", "a stopped worker")
            # The kernel tells events in their order, and the server's end comes behind a batch of
            # them: the worker knows nothing of it when the request goes out.
            asking.send(client.encode(method, "/stale", body=body))
            for one in others:
                one.send(client.encode("GET", "/hello"))
            end(kept)
            os.kill(worker, signal.SIGCONT)
            return asking.response(method)

    def __enter__(self):
        self.backend.__enter__()
        self.narwhal.__enter__()
        return self

    def __exit__(self, *parts):
        self.narwhal.__exit__(*parts)
        self.backend.__exit__(*parts)


def close_now(exchange):
    exchange.keep = False
    exchange.socket.shutdown(socket.SHUT_RDWR)  # close() alone does not wake its thread
    wait_until(lambda: exchange.socket.fileno() == -1, "the end of the server's connection")


def half_close(exchange):
    exchange.socket.shutdown(socket.SHUT_WR)


def meet(method, end=close_now, unix=False, **more):
    """(status, how often the server got the request) of one that did go out on the stale
    connection. On a loaded machine the worker may see the end first, and nothing is shown."""
    for _ in range(8):
        with Stale(unix, **more) as stale:
            status = stale.ask(method, end).status
            if status != 200:
                stale.narwhal.wait_log("server closed before its response")
            if any("server closed before its response" in line for line in stale.narwhal.log()):
                return status, [one.target for one in stale.backend.exchanges].count("/stale")
    raise AssertionError("no request met the end of its connection")


@pytest.mark.parametrize("unix, method", [(False, "GET"), (False, "POST"), (False, "PATCH"),
                                          (True, "POST")])
def test_request_on_a_closed_connection_goes_again(unix, method):
    """The server closed before it came: that is proved, so any method goes again, once."""
    assert meet(method, unix=unix) == (200, 1)


def test_proof_has_a_switch():
    assert meet("POST", retry_unread="off") == (502, 0)
    assert meet("GET", retry_unread="off") == (200, 1)


def test_half_closed_connection_is_no_proof():
    """The server may still work on what comes."""
    status, count = meet("POST", half_close)
    assert status == 502 and count <= 1


# ---- how many are kept ---------------------------------------------------------------------------
def open_connections(backend):
    return len(backend._streams)


def test_idle_connections_are_bounded_over_all_workers():
    with Backend() as backend, front(backend.server, workers=4, idle_connections=3,
                                     idle_timeout="1h") as narwhal:
        Pausing(narwhal.address, 40, pause_ms=1, posts=False).run(answers=10)
        wait_until(lambda: open_connections(backend) <= 3, "the others to be closed")
        shown = narwhal.status()["backends"][0]["servers"][0]
        assert shown["idle"] == open_connections(backend) == 3, shown


def test_no_more_idle_connections_than_slots():
    with Backend() as backend, front(backend.server, workers=4, slots=2,
                                     idle_timeout="1h") as narwhal:
        Pausing(narwhal.address, 20, pause_ms=1, posts=False).run(answers=10)
        wait_until(lambda: open_connections(backend) <= 2, "the others to be closed")
        assert narwhal.status()["backends"][0]["servers"][0]["idle"] <= 2


def test_dead_worker_keeps_no_idle_connections():
    with Backend() as backend, front(backend.server, workers=2, idle_connections=4,
                                     idle_timeout="1h") as narwhal:
        narwhal.expect_error("worker")
        Pausing(narwhal.address, 20, pause_ms=1, posts=False).run(answers=5)
        before = narwhal.workers()
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        narwhal.wait_workers(2, without=before.values())
        wait_until(lambda: narwhal.status()["backends"][0]["servers"][0]["idle"] == 0, "none")
        Pausing(narwhal.address, 20, pause_ms=1, posts=False).run(answers=5)
        wait_until(lambda: narwhal.status()["backends"][0]["servers"][0]["idle"] ==
                   open_connections(backend) == 4, "as many as before")


def test_most_recently_used_first():
    """Two connections for a moment, then one is enough: the other is left to grow old."""
    with Backend() as backend, front(backend.server, workers=1, idle_timeout="1h") as narwhal:
        Pausing(narwhal.address, 8, pause_ms=0, posts=False).run(answers=5)
        used = set()
        for _ in range(10):
            assert client.get(narwhal.address).status == 200
            used.add(backend.exchanges[-1].connection)
        assert len(used) == 1, used


def test_keep_alive_of_the_server_is_believed(tmp_path):
    with Recorder(tmp_path, keep_alive=1) as server, \
            front(server.server, workers=1, idle_timeout="1h") as narwhal:
        assert client.get(narwhal.address).status == 200
        shown = narwhal.status()["backends"][0]["servers"][0]
        assert shown["closes_after_ms"] == 1000 and shown["idle"] == 1, shown
        wait_until(lambda: narwhal.status()["backends"][0]["servers"][0]["idle"] == 0,
                   "the end before the server's")


# ---- the next server -----------------------------------------------------------------------------
def test_hanging_connect_goes_to_the_next_server(tmp_path):
    """Also for POST: nothing was sent."""
    with Recorder(tmp_path) as good, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fill = [socket.socket() for _ in range(4)]
        for stream in fill:
            stream.setblocking(False)
            stream.connect_ex(listener.getsockname())
        with front("127.0.0.1:%d" % listener.getsockname()[1], good.server,
                   connect_timeout="200ms") as narwhal:
            load = Pausing(narwhal.address, 8, pause_ms=1).run(answers=4)
            assert not load.failures, load.failures
            check_record(load, good)
            narwhal.wait_log("trying again reason=\"no connection to the server in time\"")
        for stream in fill:
            stream.close()


def test_full_unix_queue_is_busy_not_broken(tmp_path):
    path = f"/tmp/narwhal-test-busy-{os.getpid()}"
    with Recorder(tmp_path) as good, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        fill = []
        try:
            with contextlib.suppress(BlockingIOError):
                while True:
                    fill.append(socket.socket(socket.AF_UNIX))
                    fill[-1].setblocking(False)
                    fill[-1].connect(path)
            with front(f"unix:{path}", good.server) as narwhal:
                load = Pausing(narwhal.address, 8, pause_ms=1).run(answers=10)
                assert not load.failures, load.failures
                check_record(load, good)
                busy = narwhal.status()["backends"][0]["servers"][0]
                assert busy["failures"] == 0 and busy["rests_for_ms"] is None, busy
        finally:
            for stream in fill:
                stream.close()
            os.unlink(path)


# ---- the budget ----------------------------------------------------------------------------------
@pytest.mark.parametrize("budget, most", [(0, 300), (20, 300 + 100 + 60), (100, 600)])
def test_retries_are_a_part_of_the_traffic(budget, most):
    """Servers that die of every request: what is added to their load is bounded."""
    def die(exchange):
        exchange.close()
    with Backend(die) as one, Backend(die) as two, \
            front(one.server, two.server, workers=1, retry_budget=budget) as narwhal:
        with client.Client(narwhal.address) as asking:
            for _ in range(300):
                assert asking.get("/").status == 502
        count = len(one.exchanges) + len(two.exchanges)
        assert 300 <= count <= most, count
        if budget == 0:
            narwhal.wait_log("not sent again: retry_budget")


def test_retries_0_sends_nothing_twice():
    with Backend() as good, front(f"127.0.0.1:{free_port()}", good.server, workers=1,
                                  retries=0, max_fails=0) as narwhal:
        statuses = [client.get(narwhal.address).status for _ in range(10)]
        assert statuses.count(502) == 5 and len(good.exchanges) == 5, statuses
