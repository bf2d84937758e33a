# SPDX-License-Identifier: Apache-2.0
"""Servers that die, return, are taken out and brought back: who notices, and how soon."""
import collections
import contextlib
import os
import signal
import threading
import time

import client
from backend import OK, Backend, free_port
from narwhal import Narwhal, children_of, title_of, wait_until
from pausing import Pausing
from recorder import Recorder


def settings(*servers, workers=2, **more):
    return {"master": {"workers": workers},
            "backend:b": {"server": list(servers), **more},
            "route:b": {"path": "/", "backend": "b"}}


def front(*servers, **more):
    return Narwhal(settings(*servers, **more), errors=["request failed"])


def shown(narwhal, address):
    return next(server for server in narwhal.status()["backends"][0]["servers"]
                if server["address"] == address)


def wait_shown(narwhal, address, **wanted):
    return wait_until(lambda: wanted.items() <= shown(narwhal, address).items(),
                      f"{address} {wanted}")


def server_command(narwhal, address, verb, check=True):
    return narwhal.control("--json", "server", "b", address, verb, check=check)


def ask(narwhal, count=30):
    """The pids of the recorders that answered, with how often."""
    pids = collections.Counter()
    for _ in range(count):
        response = client.get(narwhal.address)
        assert response.status == 200, response
        pids[int(response.text.split()[1])] += 1
    return pids


# ---- passive -------------------------------------------------------------------------------------
def test_server_that_refuses_rests_for_all_workers(tmp_path):
    dead = f"127.0.0.1:{free_port()}"
    with Recorder(tmp_path) as good, \
            front(dead, good.server, workers=3, fail_timeout="1h") as narwhal:
        for _ in range(60):
            assert client.get(narwhal.address).status == 200
        narwhal.wait_log(rf"warn .*server rests after 3 failures .*server={dead}")
        tries = [line for line in narwhal.log() if "trying again" in line]
        assert 3 <= len(tries) <= 5, "the workers know it from each other"
        found = shown(narwhal, dead)
        assert found["failures"] >= 3 and found["rests_for_ms"] > 3_000_000, found
        assert shown(narwhal, good.server)["rests_for_ms"] is None


def test_one_trial_at_a_time_and_then_it_is_used_again(tmp_path):
    with Recorder(tmp_path, "good") as good, Recorder(tmp_path, "other") as other:
        other.kill()
        with front(other.server, good.server, fail_timeout="200ms") as narwhal:
            with contextlib.suppress(AssertionError):
                narwhal.wait_log("never", deadline=0)
            wait_until(lambda: client.get(narwhal.address).status == 200 and
                       shown(narwhal, other.server)["rests_for_ms"] is not None, "rest")
            assert client.get(narwhal.address).status == 200
            other.start()
            wait_until(lambda: client.get(narwhal.address).status == 200 and
                       shown(narwhal, other.server)["rests_for_ms"] is None, "the return")
            narwhal.wait_log(f"server rests no more .*server={other.server}")
            assert len(ask(narwhal)) == 2


def test_last_server_is_never_given_up(tmp_path):
    with Recorder(tmp_path) as only, front(only.server, fail_timeout="1h") as narwhal:
        only.kill()
        for _ in range(6):
            assert client.get(narwhal.address).status == 502
        assert shown(narwhal, only.server)["rests_for_ms"] > 0
        only.start()
        assert client.get(narwhal.address).status == 200
        assert shown(narwhal, only.server)["rests_for_ms"] is None


def test_errors_in_a_row_count_when_set(tmp_path):
    with Recorder(tmp_path, "good") as good, Recorder(tmp_path, "bad", status=503) as bad:
        with front(bad.server, good.server, max_errors=4, fail_timeout="1h") as narwhal:
            statuses = collections.Counter(client.get(narwhal.address).status for _ in range(40))
            assert statuses[503] == 4 and statuses[200] == 36, statuses
            narwhal.wait_log("server rests after 4 errors in a row status=503")
        with front(bad.server, good.server) as narwhal:
            statuses = collections.Counter(client.get(narwhal.address).status for _ in range(40))
            # Each worker takes turns of its own, so it is half of them, or nearly.
            assert 15 <= statuses[503] <= 25, statuses
            assert shown(narwhal, bad.server)["rests_for_ms"] is None


# ---- active --------------------------------------------------------------------------------------
class Probed:
    """A backend that knows when it was asked for /up."""

    def __init__(self, status="200 OK"):
        self.status, self.times = status, []
        self.backend = Backend(self.answer)
        self.server = self.backend.server

    def answer(self, exchange):
        if exchange.target == "/up":
            assert exchange.get("Host") == self.server and exchange.get("Connection") == "close"
            self.times.append(time.monotonic())
            exchange.send(f"HTTP/1.1 {self.status}\r\nContent-Length: 0\r\n\r\n".encode())
            exchange.close()
        else:
            exchange.send(OK)

    def wait_probes(self, more):
        count = len(self.times) + more
        wait_until(lambda: len(self.times) >= count, f"{more} probes")

    def __enter__(self):
        return self

    def __exit__(self, *parts):
        self.backend.__exit__(*parts)


def workers_of(narwhal):
    return [pid for pid in children_of(narwhal.pid) if "worker" in title_of(pid)]


def test_one_prober_for_all_workers_whoever_dies(tmp_path):
    """As many probes as one worker would send; a worker that is killed or stopped is no gap."""
    with Probed() as server, front(server.server, workers=4, health_path="/up",
                                   health_interval="100ms") as narwhal:
        narwhal.expect_error("worker .* was killed|is stalled|died")
        wait_shown(narwhal, server.server, health="UP")
        server.wait_probes(10)
        for pid in workers_of(narwhal):
            stopped = pid
            os.kill(pid, signal.SIGSTOP)
            server.wait_probes(5)
            os.kill(stopped, signal.SIGCONT)
        for pid in workers_of(narwhal):
            os.kill(pid, signal.SIGKILL)
            server.wait_probes(5)
        narwhal.write(settings(server.server, workers=4, health_path="/up",
                               health_interval="100ms", max_fails=7))
        os.kill(narwhal.pid, signal.SIGHUP)
        server.wait_probes(10)
        gaps = [later - sooner for sooner, later in zip(server.times, server.times[1:])]
        assert max(gaps) < 5, max(gaps)
        # No least gap: a prober that was stopped between its turn and its request is late.
        span = server.times[-1] - server.times[0]
        assert len(server.times) <= 1.5 * span / 0.1 + 5, "more than one prober"


def test_server_down_and_up_by_probes(tmp_path):
    with Recorder(tmp_path, "one") as one, Recorder(tmp_path, "two") as two, \
            front(one.server, two.server, health_path="/up", health_interval="50ms",
                  health_rise=2, health_fall=2) as narwhal:
        wait_shown(narwhal, one.server, health="UP")
        wait_shown(narwhal, two.server, health="UP")
        assert len(ask(narwhal)) == 2
        two.kill()
        wait_shown(narwhal, two.server, health="DOWN")
        narwhal.wait_log(f"warn .*server is down .*server={two.server}")
        mark = narwhal.mark()
        assert ask(narwhal).keys() == {one.process.pid}
        assert not [line for line in narwhal.log(mark) if "trying again" in line]
        two.start()
        wait_shown(narwhal, two.server, health="UP")
        narwhal.wait_log(f"info .*server is up again .*server={two.server}")
        assert len(ask(narwhal)) == 2
        one.kill()
        two.kill()
        wait_shown(narwhal, one.server, health="DOWN")
        wait_shown(narwhal, two.server, health="DOWN")
        one.start()
        assert client.get(narwhal.address).status == 200, "all are down: a guess is better"


def test_many_servers_are_all_asked():
    """More than a worker has open at a time."""
    with Probed() as one:
        port = one.server.rpartition(":")[2]
        servers = [f"127.0.0.{number + 1}:{port}" for number in range(240)]
        # All of 127.0.0.0/8 is this machine; only one of these addresses has a listener.
        with front(*servers, workers=2, health_path="/up", health_interval="500ms") as narwhal:
            wait_until(lambda: all(
                server["health"] == ("UP" if server["address"] == one.server else "DOWN")
                for server in narwhal.status()["backends"][0]["servers"]), "all findings")
            assert client.get(narwhal.address).status == 200


def test_unexpected_status_and_silence_are_bad(tmp_path):
    with Probed("404 Not Found") as missing, Probed("204 No Content") as good, \
            Backend(lambda exchange: exchange.target == "/up" or exchange.send(OK)) as silent, \
            front(missing.server, good.server, silent.server, health_path="/up", health_fall=1,
                  health_interval="200ms", health_timeout="100ms", health_status=204) as narwhal:
        wait_shown(narwhal, missing.server, health="DOWN")
        wait_shown(narwhal, good.server, health="UP")
        wait_shown(narwhal, silent.server, health="DOWN")
        narwhal.wait_log(rf'server is down reason="status 404".*{missing.server}')
        narwhal.wait_log(rf'server is down reason="no answer within health_timeout".*'
                         rf'{silent.server}')


def test_probe_begins_with_the_proxy_protocol_where_the_server_wants_it():
    def answer(exchange):
        if exchange.line.startswith("PROXY "):  # for the backend it is a first line
            exchange.send(OK)
        exchange.close()
    with Backend(answer) as one, front(one.server, health_path="/up", health_interval="50ms",
                                       proxy_protocol="v1") as narwhal:
        wait_shown(narwhal, one.server, health="UP")


def test_health_settings_are_checked():
    narwhal = Narwhal(settings("127.0.0.1:1", health_path="up", health_status=100), start=False,
                      errors=["."])
    try:
        narwhal.start(ready=False)
        narwhal.wait_log("health_path.*must begin with '/'")
        narwhal.wait_log("health_status.*from 200 to 599")
        narwhal.process.wait(30)
    finally:
        narwhal.destroy()
    narwhal = Narwhal(settings("127.0.0.1:1", health_rise=3), start=False, errors=["."])
    try:
        narwhal.start(ready=False)
        narwhal.wait_log("health_rise.*means nothing without health_path")
        narwhal.process.wait(30)
    finally:
        narwhal.destroy()


# ---- by hand -------------------------------------------------------------------------------------
def test_drain_disable_enable_survive_reload_and_upgrade(tmp_path):
    held = threading.Event()

    def answer(exchange):
        if exchange.target == "/slow":
            held.wait(client.DEADLINE)
        exchange.send(OK)
    with Backend(answer) as one, Recorder(tmp_path) as two, \
            front(one.server, two.server) as narwhal:
        with client.Client(narwhal.address) as slow:
            while shown(narwhal, one.server)["in_flight"] == 0:
                with contextlib.suppress(TimeoutError):
                    probe = client.Client(narwhal.address, deadline=0.5)
                    probe.send(client.encode("GET", "/slow"))
                    if shown(narwhal, one.server)["in_flight"] == 0:
                        assert probe.response().status == 200
                        probe.close()
            answer_of = server_command(narwhal, one.server, "drain").stdout
            assert '"wish":"DRAINED"' in answer_of and '"servers_enabled":1' in answer_of, answer_of
            assert ask(narwhal) == {two.process.pid: 30}
            os.kill(narwhal.pid, signal.SIGHUP)
            narwhal.wait_log("reload")
            assert ask(narwhal) == {two.process.pid: 30}
            before = narwhal.workers()
            narwhal.control("upgrade")
            narwhal.wait_log("upgraded from")
            narwhal.wait_workers(len(before), without=before.values())
            assert ask(narwhal) == {two.process.pid: 30}
            assert shown(narwhal, one.server)["wish"] == "DRAINED"
            held.set()
            probe.close()
            slow.close()
        wait_shown(narwhal, one.server, in_flight=0)
        server_command(narwhal, two.server, "disable")
        assert client.get(narwhal.address).status == 503
        narwhal.wait_log("no server of the backend is enabled")
        server_command(narwhal, one.server, "enable")
        assert client.get(narwhal.address).text == "ok"
        server_command(narwhal, two.server, "enable")
        wait_until(lambda: client.get(narwhal.address).text != "ok", "an answer of the other")


def test_disabled_server_is_not_probed_and_drained_is():
    with Probed() as one, Probed() as two, \
            front(one.server, two.server, health_path="/up", health_interval="50ms") as narwhal:
        wait_shown(narwhal, one.server, health="UP")
        wait_shown(narwhal, two.server, health="UP")
        server_command(narwhal, one.server, "disable")
        server_command(narwhal, two.server, "drain")
        two.wait_probes(2)  # one that was under way ends
        count = len(one.times)
        two.wait_probes(10)
        assert len(one.times) == count
        server_command(narwhal, one.server, "enable")
        one.wait_probes(2)


def test_wrong_server_commands_are_refused():
    with front("127.0.0.1:1") as narwhal:
        for words, text in ((("b", "127.0.0.1:2", "drain"), "has no server 127.0.0.1:2"),
                            (("x", "127.0.0.1:1", "drain"), "there is no backend x"),
                            (("b", "127.0.0.1:1", "kill"), "drain, disable and enable")):
            done = narwhal.control("server", *words, check=False)
            assert done.returncode == 1 and text in done.stderr, done
        for words in ((), ("b",), ("b", "127.0.0.1:1"), ("b", "127.0.0.1:1", "drain", "more"),
                      ("b", "127.0.0.1:1 drain", "x"), ("b", "", "drain")):
            done = narwhal.control("server", *words, check=False)
            assert done.returncode == 64, done
        assert shown(narwhal, "127.0.0.1:1")["wish"] == "ENABLED"


def test_slow_start_after_a_return(tmp_path):
    with Recorder(tmp_path, "one") as one, Recorder(tmp_path, "two") as two, \
            front(one.server, two.server, workers=1, slow_start="1h",
                  balance="round_robin") as narwhal:
        even = ask(narwhal, 40)
        assert even[one.process.pid] == 20, even
        server_command(narwhal, two.server, "drain")
        server_command(narwhal, two.server, "enable")
        slow = ask(narwhal, 110)
        assert 8 <= slow[two.process.pid] <= 12, slow


# ---- who waits -----------------------------------------------------------------------------------
@contextlib.contextmanager
def one_waits(servers, slots_taken, prepare=lambda narwhal: None, **more):
    """A narwhal, and a request that waits because all slots that may be had are taken."""
    with contextlib.ExitStack() as stack:
        narwhal = stack.enter_context(front(*servers, slots=1, queue_timeout="60s", **more))
        prepare(narwhal)
        for _ in range(slots_taken):
            stack.enter_context(client.Client(narwhal.address)).send(client.encode("GET", "/hold"))
        wait_until(lambda: sum(server["in_flight"] for server in
                               narwhal.status()["backends"][0]["servers"]) == slots_taken, "holders")
        waiting = stack.enter_context(client.Client(narwhal.address))
        waiting.send(client.encode("GET", "/waits"))
        wait_until(lambda: narwhal.status()["backends"][0]["queued"] == 1, "one that waits")
        yield narwhal, waiting


class Holding:
    """Answers /hold when it is told to, and other requests with its name."""

    def __init__(self, name):
        self.let_go = threading.Event()
        self.name = name.encode()
        self.backend = Backend(self.answer)
        self.server = self.backend.server

    def answer(self, exchange):
        if exchange.target == "/hold":
            self.let_go.wait(client.DEADLINE)
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"
                      % (len(self.name), self.name))

    def __enter__(self):
        return self

    def __exit__(self, *parts):
        self.let_go.set()
        self.backend.__exit__(*parts)


def test_server_that_the_operator_brings_back_gets_who_waits():
    with Holding("one") as one, Holding("two") as two, \
            one_waits([one.server, two.server], 1,
                      lambda narwhal: server_command(narwhal, two.server, "drain")) as (narwhal,
                                                                                       waiting):
        server_command(narwhal, two.server, "enable")
        assert waiting.response().text == "two"


def test_drained_server_gives_nothing_to_who_waits():
    with Holding("one") as one, Holding("two") as two, \
            one_waits([one.server, two.server], 2) as (narwhal, waiting):
        server_command(narwhal, one.server, "drain")
        one.let_go.set()
        wait_shown(narwhal, one.server, in_flight=0)
        assert narwhal.status()["backends"][0]["queued"] == 1
        two.let_go.set()
        assert waiting.response().text == "two"


def test_backup_gets_who_waits_when_the_last_other_server_is_drained():
    with Holding("one") as one, Holding("spare") as spare, \
            one_waits([one.server, f"{spare.server} backup"], 1) as (narwhal, waiting):
        server_command(narwhal, one.server, "drain")
        assert waiting.response().text == "spare"


def test_server_that_a_probe_finds_up_gets_who_waits():
    class Sick(Holding):
        status = 503

        def answer(self, exchange):
            if exchange.target == "/up":
                exchange.send(b"HTTP/1.1 %d Probed\r\nContent-Length: 0\r\n\r\n" % self.status)
                exchange.close()
            else:
                super().answer(exchange)
    with Sick("one") as one, Sick("two") as two:
        one.status = 200
        with one_waits([one.server, two.server], 1,
                       lambda narwhal: wait_shown(narwhal, two.server, health="DOWN"),
                       health_path="/up", health_interval="50ms", health_rise=1) as (_, waiting):
            two.status = 200
            assert waiting.response().text == "two"


def test_rested_server_gets_who_waits(tmp_path):
    """One of them tries it; when that has gone well, nobody waits any more."""
    with Holding("one") as one, Recorder(tmp_path) as two:
        two.kill()

        def rest(narwhal):
            wait_until(lambda: client.get(narwhal.address).status == 200 and
                       shown(narwhal, two.server)["rests_for_ms"] is not None, "the rest")
            two.start()
        with one_waits([one.server, two.server], 1, rest, fail_timeout="5s") as (narwhal, waiting):
            response = waiting.response()
            assert response.text.split()[1] == str(two.process.pid), response
            wait_shown(narwhal, two.server, rests_for_ms=None)


# ---- under load ----------------------------------------------------------------------------------
def run_with_deaths(tmp_path, kill_signal, rounds=3):
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Recorder(tmp_path, f"s{number}", delay_ms=1))
                   for number in range(3)]
        narwhal = stack.enter_context(front(*(server.server for server in servers),
                                            fail_timeout="100ms"))
        load = Pausing(narwhal.address, 24, pause_ms=8)
        thread = threading.Thread(target=load.run, kwargs={"answers": 150 * rounds})
        thread.start()
        for number in range(rounds):
            server = servers[number % 3]
            wait_until(lambda: len(load.answered) >= 24 * 150 * number, "load", 60)
            server.kill(kill_signal)
            so_far = len(load.answered)
            wait_until(lambda: len(load.answered) > so_far + 300 or not thread.is_alive(), "load")
            server.start()
        thread.join(120)
        assert not thread.is_alive()
        executed = collections.Counter(line for server in servers for line in server.executed())
        assert not [line for line in load.answered if line not in executed]
        return load, executed


def test_server_that_ends_and_returns_costs_no_request(tmp_path):
    """As a deployment does it: it takes no more, and finishes what it has."""
    load, executed = run_with_deaths(tmp_path, signal.SIGTERM)
    assert not load.failures, (len(load.failures), load.failures[:5])
    assert max(executed.values()) == 1


def test_server_that_is_killed_costs_only_what_cannot_be_repeated(tmp_path):
    """kill -9: what the server had taken and not answered dies with it; a GET is repeated, of a POST
    nobody knows whether it was executed, so it fails and is not repeated."""
    load, executed = run_with_deaths(tmp_path, signal.SIGKILL)
    assert not [line for line in load.failures if line.startswith("GET")], load.failures[:5]
    assert len(load.failures) <= 3 * 12, load.failures
    doubled = [line for line, count in executed.items() if count > 1]
    assert not [line for line in doubled if line.startswith(b"POST")], doubled
    assert len(load.answered) >= 24 * 150 * 3 - len(load.failures)
