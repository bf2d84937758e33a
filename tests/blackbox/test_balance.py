# SPDX-License-Identifier: Apache-2.0
"""Which server gets a request, over all workers; who waits for a slot, in which order, and what
becomes of slots and of who waits when workers die, settings change, the program is exchanged."""
import collections
import contextlib
import os
import signal
import threading

import pytest

import client
from backend import OK, Backend
from narwhal import Narwhal, wait_until


PATIENT = {"head_timeout": "10m", "keepalive": "10m"}


class Held(Backend):
    """Answers with its name. /hold… is answered when it is let go, one by one or by its target."""

    def __init__(self, name="", **more):
        self.name = name
        self.inside = 0
        self.most = 0
        self.order = []  # targets of held requests, as they arrived
        self.changed = threading.Condition()
        self.let_go = set()
        self.open = False
        super().__init__(self.answer_held, **more)

    def answer_held(self, exchange):
        with self.changed:
            self.inside += 1
            self.most = max(self.most, self.inside)
            if exchange.target.startswith("/hold"):
                self.order.append(exchange.target)
                self.changed.notify_all()
                assert self.changed.wait_for(
                    lambda: self.open or exchange.target in self.let_go, client.DEADLINE)
            self.inside -= 1
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"
                      % (len(self.name), self.name.encode()))

    def release(self, *targets):
        with self.changed:
            self.let_go |= set(targets)
            self.open = self.open or not targets
            self.changed.notify_all()

    def wait_held(self, count):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.order) >= count, client.DEADLINE), \
                self.order
        return list(self.order)


def front(*servers, workers=3, errors=(), **more):
    # Connections are made long before they are used.
    return Narwhal({"master": {"workers": workers}, "worker": PATIENT,
                    "backend:b": {"server": [getattr(server, "server", server)
                                             for server in servers],
                                  "queue_timeout": "60s", **more},
                    "route:b": {"path": "/", "backend": "b"}}, errors=errors)


def status_of(narwhal):
    return narwhal.status()["backends"][0]


def wait_queued(narwhal, count):
    wait_until(lambda: status_of(narwhal)["queued"] == count, f"{count} queued")


def wait_in_flight(narwhal, counts):
    wait_until(lambda: [server["in_flight"] for server in status_of(narwhal)["servers"]] == counts,
               f"{counts} in flight")


def worker_of(narwhal, connection):
    """The pid of the worker that accepted the connection."""
    local = connection.socket.getsockname()[1]

    def inode():
        with open("/proc/net/tcp", encoding="ascii") as file:
            for line in file.readlines()[1:]:
                words = line.split()
                if int(words[2].split(":")[1], 16) == local and \
                        int(words[1].split(":")[1], 16) == narwhal.port:
                    return words[9]
        return None

    def owner():
        name = f"socket:[{inode()}]"
        for pid in narwhal.workers().values():
            with contextlib.suppress(OSError):
                for fd in os.listdir(f"/proc/{pid}/fd"):
                    with contextlib.suppress(OSError):
                        if os.readlink(f"/proc/{pid}/fd/{fd}") == name:
                            return pid
        return None
    return wait_until(owner, "a worker has accepted the connection")


@contextlib.contextmanager
def clients_of_workers(narwhal, each):
    """{pid: [connections]}, `each` of them for every worker."""
    with contextlib.ExitStack() as stack:
        found = {pid: [] for pid in narwhal.workers().values()}
        while min(len(connections) for connections in found.values()) < each:
            connection = stack.enter_context(client.Client(narwhal.address))
            found[worker_of(narwhal, connection)].append(connection)
        yield {pid: connections[:each] for pid, connections in found.items()}


def send(connection, target):
    return connection.send(client.encode("GET", target))


# ---- the choice ----------------------------------------------------------------------------------

def test_of_four_single_request_servers_only_the_idle_one_is_used():
    with contextlib.ExitStack() as stack:
        backends = [stack.enter_context(Held(str(i))) for i in range(4)]
        narwhal = stack.enter_context(front(*backends, slots=1))
        holding = [stack.enter_context(client.Client(narwhal.address)) for _ in range(3)]
        for i, connection in enumerate(holding):
            send(connection, f"/hold{i}")
        wait_until(lambda: sum(len(backend.order) for backend in backends) == 3, "three are busy")
        idle = next(backend for backend in backends if not backend.order)
        for _ in range(60):
            response = client.get(narwhal.address, "/quick")
            assert (response.status, response.text) == (200, idle.name)
        assert len(idle.exchanges) == 60 and idle.most == 1
        for backend in backends:
            backend.release()
        for connection in holding:
            assert connection.response().status == 200


def test_without_a_limit_the_least_busy_is_used_over_all_workers():
    with contextlib.ExitStack() as stack:
        backends = [stack.enter_context(Held(str(i))) for i in range(3)]
        narwhal = stack.enter_context(front(*backends))
        for i in range(12):
            send(stack.enter_context(client.Client(narwhal.address)), f"/hold{i}")
            wait_until(lambda i=i: sum(len(backend.order) for backend in backends) == i + 1,
                       "it arrived")
        assert [len(backend.order) for backend in backends] == [4, 4, 4]
        wait_in_flight(narwhal, [4, 4, 4])
        for backend in backends:
            backend.release()
        wait_in_flight(narwhal, [0, 0, 0])


@pytest.mark.parametrize("balance", ["least_busy", "round_robin", "random2"])
def test_idle_servers_share_by_weight(balance):
    with contextlib.ExitStack() as stack:
        backends = [stack.enter_context(Held(str(i))) for i in range(3)]
        narwhal = stack.enter_context(front(f"{backends[0].server} weight=2", *backends[1:],
                                            balance=balance))
        count = collections.Counter(client.get(narwhal.address, "/").text for _ in range(200))
        # Workers do not count together who had how many turns; random2 draws.
        assert 70 <= count["0"] <= 130, count
        assert min(count.values()) >= 25, count


def test_workers_and_reloads_do_not_all_begin_with_the_same_server():
    with contextlib.ExitStack() as stack:
        backends = [stack.enter_context(Held(str(i))) for i in range(8)]
        narwhal = stack.enter_context(front(*backends, workers=4, balance="round_robin"))
        first = set()
        for _ in range(6):
            first.add(client.get(narwhal.address, "/").text)
            narwhal.reload()
        assert len(first) > 1, "each reload begins at another server"


@pytest.mark.parametrize("key, fields", [
    ("path", None), ("header:X-User", "X-User"), ("cookie:id", "Cookie")])
def test_hash_sends_equal_keys_to_the_same_server_from_every_worker(key, fields):
    with contextlib.ExitStack() as stack:
        backends = [stack.enter_context(Held(str(i))) for i in range(4)]
        narwhal = stack.enter_context(front(*backends, balance="hash", hash_key=key))
        chosen = {}
        with clients_of_workers(narwhal, 1) as of_worker:
            for number in range(12):
                for connections in of_worker.values():
                    more = ([] if fields is None else [("X-User", f"u{number}")]
                            if fields == "X-User" else [("Cookie", f"a=1; id=u{number};b=2")])
                    target = f"/p{number}?q" if fields is None else "/"
                    answer = connections[0].get(target, more)
                    assert answer.status == 200
                    assert chosen.setdefault(number, answer.text) == answer.text, number
        assert len(set(chosen.values())) > 1
        if fields is not None:  # absent: they take turns
            count = collections.Counter(client.get(narwhal.address, "/").text for _ in range(40))
            assert len(count) == 4, count


@pytest.mark.parametrize("key, fields", [
    ("address", []), ("header:X-User", [("X-User", "")]), ("cookie:id", [("Cookie", "id=; b=2")]),
    ("header:X-User", [("X-User2", "u")]), ("cookie:id", [("Cookie", "aid=1")])],
    ids=["unix socket", "empty header", "empty cookie", "other header", "other cookie"])
def test_requests_without_a_hash_key_take_turns(key, fields):
    """A client of a unix socket has no address: without this all of them had one server."""
    with contextlib.ExitStack() as stack:
        backends = [stack.enter_context(Held(str(i))) for i in range(4)]
        narwhal = Narwhal("", start=False)
        narwhal.write({
            "master": {"bind": f"unix:{narwhal.path('sock')}"},
            "backend:b": {"server": [backend.server for backend in backends], "balance": "hash",
                          "hash_key": key},
            "route:b": {"path": "/", "backend": "b"}})
        stack.enter_context(narwhal.start())
        count = collections.Counter(client.get(narwhal.path("sock"), "/", fields).text
                                    for _ in range(40))
        assert len(count) == 4, count


def test_backup_is_used_only_while_no_other_server_works():
    with contextlib.ExitStack() as stack:
        first, spare = (stack.enter_context(Held(name)) for name in ("first", "spare"))
        narwhal = stack.enter_context(front(first, f"{spare.server} backup", slots=1))
        for _ in range(20):
            assert client.get(narwhal.address, "/").text == "first"
        holder = stack.enter_context(client.Client(narwhal.address))
        send(holder, "/hold")
        first.wait_held(1)
        waiting = send(stack.enter_context(client.Client(narwhal.address)), "/waits")
        wait_queued(narwhal, 1)
        assert not spare.exchanges, "a busy server that works is worth waiting for"
        first.release()
        assert waiting.response().text == "first"
        first.stop()
        assert client.get(narwhal.address, "/").text == "spare"
        assert [server["role"] for server in status_of(narwhal)["servers"]] == ["primary", "backup"]


def test_slots_of_one_server():
    with contextlib.ExitStack() as stack:
        small, large = (stack.enter_context(Held(name)) for name in ("small", "large"))
        narwhal = stack.enter_context(front(f"{small.server} slots=1", large, slots=3))
        for i in range(5):
            send(stack.enter_context(client.Client(narwhal.address)), f"/hold{i}")
        wait_queued(narwhal, 1)
        wait_in_flight(narwhal, [1, 3])
        assert [server["slots"] for server in status_of(narwhal)["servers"]] == [1, 3]
        small.release()
        large.release()
        wait_in_flight(narwhal, [0, 0])
        assert (small.most, large.most) == (1, 3)


# ---- the queue -----------------------------------------------------------------------------------

def test_eight_at_once_on_four_single_request_servers():
    with contextlib.ExitStack() as stack:
        backends = [stack.enter_context(Held(str(i))) for i in range(4)]
        narwhal = stack.enter_context(front(*backends, slots=1))
        connections = [send(stack.enter_context(client.Client(narwhal.address)), f"/hold{i}")
                       for i in range(8)]
        wait_queued(narwhal, 4)
        wait_in_flight(narwhal, [1, 1, 1, 1])
        for backend in backends:
            backend.release()
        for connection in connections:
            assert connection.response().status == 200
        assert [backend.most for backend in backends] == [1, 1, 1, 1]
        assert sorted(sum((backend.order for backend in backends), [])) == \
            [f"/hold{i}" for i in range(8)]


def test_first_in_first_out_over_all_workers():
    with Held() as backend, front(backend, slots=1) as narwhal, \
            clients_of_workers(narwhal, 4) as of_worker:
        rounds = [connection for group in zip(*of_worker.values()) for connection in group]
        for i, connection in enumerate(rounds):
            send(connection, f"/hold{i:02}")
            if i == 0:
                backend.wait_held(1)
            wait_queued(narwhal, i)
        expected = [f"/hold{i:02}" for i in range(len(rounds))]
        for i, connection in enumerate(rounds):
            assert backend.wait_held(i + 1) == expected[:i + 1]
            wait_queued(narwhal, len(rounds) - i - 1)
            backend.release(f"/hold{i:02}")
            assert connection.response().status == 200
        assert backend.most == 1


def test_client_that_leaves_frees_its_place():
    with Held() as backend, front(backend, slots=1, queue=2,
                                  errors=["status=503 .*setting=queue "]) as narwhal, \
            client.Client(narwhal.address) as holder, client.Client(narwhal.address) as last:
        send(holder, "/hold")
        backend.wait_held(1)
        leaver = client.Client(narwhal.address)
        send(leaver, "/gone")
        wait_queued(narwhal, 1)
        send(last, "/last")
        wait_queued(narwhal, 2)
        refused = client.get(narwhal.address, "/refused")
        assert refused.status == 503 and refused["Retry-After"].isdigit()
        leaver.close()
        wait_queued(narwhal, 1)
        backend.release()
        assert holder.response().status == 200 and last.response().status == 200
        assert [exchange.target for exchange in backend.exchanges] == ["/hold", "/last"]


def test_the_queue_is_as_long_as_it_says_for_all_workers_together():
    with Held() as backend, front(backend, slots=1, queue=4,
                                  errors=["status=503 .*setting=queue "]) as narwhal, \
            clients_of_workers(narwhal, 3) as of_worker:
        connections = [connection for group in zip(*of_worker.values()) for connection in group]
        for i, connection in enumerate(connections[:5]):
            send(connection, f"/hold{i}")
            backend.wait_held(1)
            wait_queued(narwhal, i)
        for connection in connections[5:]:
            assert connection.get("/refused").status == 503
        backend.release()
        for connection in connections[:5]:
            assert connection.response().status == 200
        assert backend.most == 1


def test_a_burst_fills_the_queue_and_no_more():
    with Held() as backend, front(backend, slots=1, queue=4,
                                  errors=["status=503 .*setting=queue "]) as narwhal, \
            contextlib.ExitStack() as stack:
        connections = [send(stack.enter_context(client.Client(narwhal.address)), "/hold")
                       for _ in range(12)]
        backend.wait_held(1)
        wait_until(lambda: narwhal.status()["totals"]["status_5xx"] >= 7, "the rest is refused")
        assert status_of(narwhal)["queued"] <= 4
        backend.release()
        answers = collections.Counter(connection.response().status for connection in connections)
        # Of two that come at the same moment for the last place neither may get it.
        assert answers[200] in (4, 5) and answers[503] == 12 - answers[200], answers
        assert backend.most == 1


def test_who_waits_for_too_long_gets_503_and_its_place_is_free():
    with Held() as backend, front(backend, slots=1, queue_timeout="200ms",
                                  errors=["status=503 .*setting=queue_timeout"]) as narwhal, \
            client.Client(narwhal.address) as holder:
        send(holder, "/hold")
        backend.wait_held(1)
        for _ in range(3):
            response = client.get(narwhal.address, "/late")
            assert response.status == 503 and response["Retry-After"].isdigit()
        assert status_of(narwhal)["queued"] == 0
        backend.release()
        assert holder.response().status == 200
        assert client.get(narwhal.address, "/").status == 200
        assert "/late" not in [exchange.target for exchange in backend.exchanges]


# ---- deaths, reloads, upgrades -------------------------------------------------------------------

def test_slots_of_a_killed_worker_go_to_who_waits_elsewhere():
    with Held("a") as one, Held("b") as two, front(one, two, slots=1) as narwhal, \
            clients_of_workers(narwhal, 2) as of_worker:
        victim, *others = of_worker
        for i, connection in enumerate(of_worker[victim]):
            send(connection, f"/hold{i}")
        wait_in_flight(narwhal, [1, 1])
        waiting = [send(of_worker[pid][0], f"/next{i}") for i, pid in enumerate(others)]
        wait_queued(narwhal, 2)
        os.kill(victim, signal.SIGKILL)
        for connection in waiting:
            assert connection.response().status == 200, "while the old ones are still held"
        wait_in_flight(narwhal, [0, 0])
        one.release()
        two.release()


def test_who_waited_at_a_killed_worker_keeps_nobody_waiting():
    with Held() as backend, front(backend, slots=1) as narwhal, \
            clients_of_workers(narwhal, 3) as of_worker:
        (holder, *after), (first, *dead), (last, *_) = of_worker.values()
        victim = list(of_worker)[1]
        send(holder, "/hold")
        backend.wait_held(1)
        for i, connection in enumerate([first, after[0], *dead, last]):
            send(connection, f"/hold-{i}")
            wait_queued(narwhal, i + 1)
        os.kill(victim, signal.SIGKILL)
        wait_queued(narwhal, 2)
        backend.release()
        assert holder.response().status == 200
        assert after[0].response().status == 200 and last.response().status == 200
        assert backend.order == ["/hold", "/hold-1", "/hold-4"]
        wait_in_flight(narwhal, [0])
        assert backend.most == 1


def test_workers_killed_again_and_again_lose_no_slot():
    with Held("a") as one, Held("b") as two, front(one, two, slots=1) as narwhal:
        for turn in range(6):
            with contextlib.ExitStack() as stack:
                for i in range(8):
                    send(stack.enter_context(client.Client(narwhal.address)), f"/hold{turn}-{i}")
                wait_in_flight(narwhal, [1, 1])
                workers = narwhal.workers()
                victim = workers[turn % 3]
                os.kill(victim, signal.SIGKILL)
                narwhal.wait_workers(3, without=[victim])
            one.release(*one.order)
            two.release(*two.order)
            wait_queued(narwhal, 0)
            wait_in_flight(narwhal, [0, 0])
        for backend in (one, two):
            backend.release()
        assert client.get(narwhal.address, "/").status == 200


def settings(backend, **more):
    return {"master": {"workers": 3}, "worker": PATIENT,
            "backend:b": {"server": backend.server, "queue_timeout": "60s", **more},
            "route:b": {"path": "/", "backend": "b"}}


def test_reload_changes_slots_under_who_waits():
    with Held() as backend, front(backend, slots=1) as narwhal, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(client.Client(narwhal.address)) for _ in range(6)]
        for i, connection in enumerate(connections):
            send(connection, f"/hold{i}")
            if i == 0:
                backend.wait_held(1)
            wait_queued(narwhal, i)
        narwhal.write(settings(backend, slots=3))
        narwhal.reload()
        # Handed out at once and in order; two workers may be the faster one to use it.
        assert sorted(backend.wait_held(3)) == ["/hold0", "/hold1", "/hold2"]
        wait_queued(narwhal, 3)
        narwhal.write(settings(backend, slots=2))
        narwhal.reload()
        backend.release("/hold0")
        assert connections[0].response().status == 200
        wait_in_flight(narwhal, [2])
        assert status_of(narwhal)["queued"] == 3, "two are enough now"
        backend.release("/hold1")
        assert backend.wait_held(4)[3] == "/hold3"
        wait_in_flight(narwhal, [2])
        backend.release()
        for connection in connections[1:]:
            assert connection.response().status == 200
        assert backend.most == 3


def test_reload_brings_a_server_to_who_waits():
    with Held("old") as old, Held("new") as new, front(old, slots=1) as narwhal, \
            client.Client(narwhal.address) as holder, client.Client(narwhal.address) as waiting:
        send(holder, "/hold")
        old.wait_held(1)
        send(waiting, "/waits")
        wait_queued(narwhal, 1)
        narwhal.write(settings(new, slots=1))
        narwhal.reload()
        assert waiting.response().text == "new"
        old.release()
        assert holder.response().text == "old"
        assert client.get(narwhal.address, "/").text == "new"


def test_upgrade_keeps_slots_and_order():
    with Held() as backend, front(backend, slots=1) as narwhal, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(client.Client(narwhal.address)) for _ in range(4)]
        for i, connection in enumerate(connections):
            send(connection, f"/hold{i}")
            if i == 0:
                backend.wait_held(1)
            wait_queued(narwhal, i)
        before = narwhal.workers()
        narwhal.signal(signal.SIGUSR2)
        narwhal.wait_workers(3, without=before.values())
        assert status_of(narwhal)["queued"] == 3
        send(stack.enter_context(client.Client(narwhal.address)), "/hold4")
        wait_queued(narwhal, 4)
        for i in range(5):
            assert backend.wait_held(i + 1) == [f"/hold{n}" for n in range(i + 1)]
            backend.release(f"/hold{i}")
        for connection in connections:
            assert connection.response().status == 200
        assert backend.most == 1
        wait_in_flight(narwhal, [0])


def test_stop_serves_who_waits():
    with Held() as backend, front(backend, slots=1) as narwhal, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(client.Client(narwhal.address)) for _ in range(5)]
        for i, connection in enumerate(connections):
            send(connection, f"/hold{i}")
        wait_queued(narwhal, 4)
        mark = narwhal.mark()
        narwhal.signal(signal.SIGTERM)
        narwhal.wait_log("stop", since=mark)
        backend.release()
        for connection in connections:
            assert connection.response().status == 200
        narwhal.wait_exit()


def test_plain_answers_do_not_wait():
    """OK is what a backend says that knows no holding: the queue leaves nothing behind in it."""
    with Backend(lambda exchange: exchange.send(OK)) as backend, \
            front(backend, slots=1) as narwhal, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(client.Client(narwhal.address)) for _ in range(12)]
        for _ in range(20):
            for connection in connections:
                send(connection, "/")
            for connection in connections:
                assert connection.response().status == 200
        assert len(backend.exchanges) == 240
        wait_in_flight(narwhal, [0])
        assert status_of(narwhal)["queued"] == 0
