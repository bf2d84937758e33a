# SPDX-License-Identifier: Apache-2.0
"""kill -9 of a worker, of an instance, of the master."""
import os
import signal
import sys

import pytest

import client
from narwhal import APPS, NO_SERVER, Narwhal, is_alive, wait_app, wait_until

HELLO = {"route:hello": {"path": "/", "respond": "200 hello"}}
APP = {
    "backend:api": {"command": "uvicorn app_fastapi:app --fd {fd}", "instances": 2,
                    "directory": APPS},
    "route:api": {"path": "/api", "backend": "api", "strip_prefix": "on"},
    **HELLO,
}


def test_worker_is_replaced_and_nobody_is_refused():
    with Narwhal(HELLO) as narwhal:
        for _ in range(3):
            workers = narwhal.workers()
            victim = workers[1]
            mark = narwhal.mark()
            os.kill(victim, signal.SIGKILL)
            # The lane of the dead worker has a sibling behind it, or waits for the replacement:
            # no request may fail.
            for _ in range(50):
                assert client.get(narwhal.address).status == 200
            line = narwhal.wait_log(rf"pid={victim}\b.*", since=mark)[0]
            assert "SIGKILL" in line, line
            after = narwhal.wait_workers(2, without=[victim])
            assert after[0] == workers[0] and after[1] != victim, "the slot is filled again"


def test_connections_wait_for_the_replacement_of_the_only_worker():
    with Narwhal({**HELLO, "master": {"workers": 1}}) as narwhal:
        victim = narwhal.workers()[0]
        os.kill(victim, signal.SIGSTOP)
        waiting = [client.Client(narwhal.address).send(client.encode("GET", "/"))
                   for _ in range(20)]
        os.kill(victim, signal.SIGKILL)
        for connection in waiting:
            with connection:
                assert connection.response().status == 200
        narwhal.wait_workers(1, without=[victim])


def test_all_workers_at_once():
    with Narwhal({**HELLO, "master": {"workers": 4}}) as narwhal:
        before = narwhal.workers()
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        assert client.get(narwhal.address).status == 200
        assert sorted(narwhal.wait_workers(4, without=before.values())) == [0, 1, 2, 3]


def test_dead_worker_gives_back_its_slots():
    """What a dead worker had open at a server must not count as busy for ever."""
    import threading

    from backend import OK, Backend
    release = threading.Event()

    def answer(exchange):
        if exchange.target == "/hang":
            release.wait(client.DEADLINE)
        exchange.send(OK)
    with Backend(answer) as backend, Narwhal({
            "master": {"workers": 1},
            "backend:b": {"server": backend.server, "slots": 1, "queue_timeout": "20s"},
            "route:b": {"path": "/", "backend": "b"}}) as narwhal:
        hanging = client.Client(narwhal.address).send(client.encode("GET", "/hang"))
        backend.next()
        victim = narwhal.workers()[0]
        os.kill(victim, signal.SIGKILL)
        hanging.close()
        narwhal.wait_workers(1, without=[victim])
        assert client.get(narwhal.address, "/next").text == "ok"
        release.set()


def test_instance_is_started_again():
    with Narwhal(APP, errors=[r"instance api/\d died", NO_SERVER]) as narwhal:
        seen = set()

        def both():
            answer = client.get(narwhal.address, "/api/pid")
            if answer.status == 200:
                seen.add(answer.json["pid"])
            return len(seen) == 2
        wait_until(both, "an answer of both instances")
        victim = min(seen)
        os.kill(victim, signal.SIGKILL)

        def other():
            answer = client.get(narwhal.address, "/api/pid")
            return answer.status == 200 and answer.json["pid"] not in seen
        wait_until(other, "an answer of the replacement")
        assert "SIGKILL" in narwhal.wait_log(rf"died pid={victim}\b.*")[0]
        assert not is_alive(victim)
        assert client.get(narwhal.address).status == 200


@pytest.mark.parametrize("settings", [HELLO, APP], ids=["workers", "instances"])
def test_master_takes_all_with_it(settings):
    narwhal = Narwhal(settings, errors=[r"master"])
    with narwhal:
        if settings is APP:
            wait_app(narwhal, "/api/pid")
            assert len(narwhal.instances()) == 2
        children = list(narwhal.workers().values()) + narwhal.instances()
        host, port = narwhal.address
        held = client.Client(narwhal.address)
        assert held.get("/").status == 200
        os.kill(narwhal.pid, signal.SIGKILL)
        narwhal.process.wait()
        wait_until(lambda: not any(is_alive(pid) for pid in children), "the children to leave")
        wait_until(lambda: not narwhal.processes(), "everything to leave")
        held.close()
        # The very same address is free again.
        with Narwhal({**HELLO, "master": {"bind": f"{host}:{port}"}}) as second:
            assert client.get(second.address).status == 200


def test_master_killed_while_a_child_is_starting():
    """An instance that has not answered yet leaves too."""
    narwhal = Narwhal({
        "backend:slow": {"command": f"{sys.executable} -c 'import time; time.sleep(1000)' {{fd}}"},
        "route:slow": {"path": "/slow", "backend": "slow"}, **HELLO}, errors=["."])
    with narwhal:
        child = wait_until(narwhal.instances, "the instance")[0]
        os.kill(narwhal.pid, signal.SIGKILL)
        narwhal.process.wait()
        wait_until(lambda: not is_alive(child), "the instance to leave")
        wait_until(lambda: not narwhal.processes(), "everything to leave")
