# SPDX-License-Identifier: Apache-2.0
"""--workers N gives N processes that all serve."""
import os
import re

import pytest

import client
from narwhal import Narwhal, children_of, title_of, wait_until

HELLO = {"route:hello": {"path": "/", "respond": "200 hello"}}


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_worker_answers(workers):
    settings = {**HELLO, "master": {"workers": 7},
                "log": {"access": "./access.log", "access_format": "%(p)s"}}
    with Narwhal(settings, flags=["--workers", workers]) as narwhal:
        assert narwhal.wait_log(r"ready workers=(\d+)")[1] == str(workers)
        assert narwhal.wait_log(r"listening address=\S+ lanes=(\d+)")[1] == str(workers)
        pids = narwhal.workers()
        assert sorted(pids) == list(range(workers)), "stable slots 0..N-1"
        assert len(set(pids.values())) == workers

        def answered():
            for _ in range(20):
                assert client.get(narwhal.address).text.rstrip("\n") == "hello"
            with open(narwhal.path("access.log"), encoding="ascii") as log:
                return {int(pid) for pid in re.findall(r"\d+", log.read())} >= set(pids.values())
        wait_until(answered, "an answer of every worker")


def test_status_counts_the_requests_of_every_worker():
    with Narwhal(HELLO) as narwhal:
        def spread():
            client.get(narwhal.address)
            return all(worker["requests"] > 0 for worker in narwhal.status()["workers"])
        wait_until(spread, "a request counted for every worker")
        status = narwhal.status()
        assert {worker["pid"] for worker in status["workers"]} == set(narwhal.workers().values())
        assert {worker["slot"] for worker in status["workers"]} == {0, 1}
        assert all(worker["state"].upper() == "READY" for worker in status["workers"])


def test_titles_say_who_is_who():
    with Narwhal(HELLO) as narwhal:
        assert title_of(narwhal.pid) == "narwhal: master"
        assert sorted(title_of(pid) for pid in children_of(narwhal.pid)) == [
            "narwhal: worker 0", "narwhal: worker 1"]


def test_auto_is_one_worker_per_cpu_of_this_process():
    cpu = min(os.sched_getaffinity(0))
    with Narwhal({**HELLO, "master": {"workers": "auto"}},
                 preexec_fn=lambda: os.sched_setaffinity(0, {cpu})) as narwhal:
        assert len(narwhal.workers()) == 1


def test_worker_has_no_descriptor_that_it_does_not_need():
    """Neither of a sibling's channel nor of the master's files: only its own."""
    with Narwhal({**HELLO, "master": {"workers": 3, "pidfile": "pid"}}) as narwhal:
        targets = {}
        for slot, pid in narwhal.workers().items():
            links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
            targets[slot] = {link for link in links if link.startswith("socket:")}
            assert not any(link.endswith(("/pid", "/ctl")) for link in links), links
        # A lane may be at two workers for a moment, never a channel; idle workers hold none of
        # each other's sockets.
        assert not targets[0] & targets[1] and not targets[1] & targets[2], targets
