# SPDX-License-Identifier: Apache-2.0
"""What a service manager passes and keeps: sockets by name, lanes that outlive the master, the
watchdog, and all of it when it is wrong. The manager is a part of the test (manager.py); the real
one is in test_systemd.py."""
import os
import re
import signal
import socket
import threading

import pytest

import client
from manager import Manager
from narwhal import Narwhal, wait_until

HELLO = {"route:hello": {"path": "/", "respond": "200 hello"}}
LOST = "the master is gone"


def ready(message):
    return message.get("READY") == "1"


def lane_names(address, count):
    text = address.replace(":", "%3a")
    return [f"narwhal-lane,{home},0,0,{text}" for home in range(count)]


def kill_master(narwhal):
    """As a crash under systemd: the master, then the rest of its processes, which are stopped
    before, because one that just leaves would be killed in the middle of its leak check."""
    for pid in narwhal.workers().values():
        os.kill(pid, signal.SIGSTOP)
    os.kill(narwhal.pid, signal.SIGKILL)
    narwhal.process.wait(client.DEADLINE)
    for pid in narwhal.processes():
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not narwhal.processes(), "the end of all")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# ---- the store ---------------------------------------------------------------------------------
def test_queued_connections_outlive_the_master():
    settings = {**HELLO, "master": {"bind": f"127.0.0.1:{free_port()}", "workers": 2}}
    with Manager() as manager:
        with Narwhal(settings, env=manager.environment()) as first:
            address = first.address
            text = f"{address[0]}:{address[1]}"
            manager.wait_names(["narwhal-board"] + lane_names(text, 2))
            assert client.get(address).status == 200
            # Nobody accepts any more: what comes now waits in the queues.
            for pid in first.workers().values():
                os.kill(pid, signal.SIGSTOP)  # kill_master() does it again: no harm
            waiting = [client.Client(address) for _ in range(40)]
            for connection in waiting:
                connection.send(client.encode("GET", "/"))
            kill_master(first)
            late = client.Client(address)  # there is no master at all: it is not refused
            late.send(client.encode("GET", "/"))
        second = Narwhal(settings, env=manager.environment(), start=False)
        with second:
            mark = manager.mark()
            manager.pass_to(second).start()
            second.wait_log(r"ended without a stop; the service manager kept lanes=2 counters=yes")
            second.wait_log(rf"lanes are kept over the restart address={text} lanes=2")
            for connection in waiting + [late]:
                assert connection.response().status == 200
                connection.close()
            # The counters went on: one request of the first master, 41 of those that waited.
            wait_until(lambda: second.status()["totals"]["requests"] >= 42, "the counters")
            manager.wait(ready, since=mark)
            manager.wait_names(["narwhal-board"] + lane_names(text, 2))


def test_stop_keeps_the_lanes_for_a_restart():
    """Nobody knows yet whether "systemctl restart" was meant; the counters begin again."""
    settings = {**HELLO, "master": {"bind": f"127.0.0.1:{free_port()}"}}
    with Manager() as manager:
        with Narwhal(settings, env=manager.environment()) as first:
            address = first.address
            text = f"{address[0]}:{address[1]}"
            manager.wait_names(["narwhal-board"] + lane_names(text, 2))
            assert client.get(address).status == 200
            first.stop()
            manager.wait_names(lane_names(text, 2))
            with client.Client(address) as between:
                between.send(client.encode("GET", "/"))
                second = Narwhal(settings, env=manager.environment(), start=False)
                with second:
                    manager.pass_to(second).start()
                    assert between.response().status == 200
                    assert second.status()["totals"]["requests"] == 1


def test_unix_lane_outlives_the_master(tmp_path):
    path = str(tmp_path / "http.sock")
    settings = {**HELLO, "master": {"bind": f"unix:{path}"}}
    with Manager() as manager:
        with Narwhal(settings, env=manager.environment()) as first:
            wait_until(lambda: len(manager.names()) == 2, "two stored descriptors")
            inode = os.stat(path).st_ino
            first.stop()
        assert os.stat(path).st_ino == inode, "it still listens, so its path stays"
        with client.Client(path) as between:
            between.send(client.encode("GET", "/"))
            second = Narwhal(settings, env=manager.environment(), start=False)
            with second:
                manager.pass_to(second).start()
                assert between.response().status == 200
                assert os.stat(path).st_ino == inode
                kill_master(second)
        # Somebody takes the path away meanwhile: the kept socket is of no use, a new one comes.
        os.unlink(path)
        third = Narwhal(settings, env=manager.environment(), start=False)
        with third:
            manager.pass_to(third).start()
            third.wait_log("is not the one at its path any more")
            assert client.get(path).status == 200


def test_unix_lane_gets_the_mode_of_new_settings(tmp_path):
    """unix_mode needs a restart: it must not be the one thing that a restart keeps."""
    path = str(tmp_path / "http.sock")

    def settings(mode):
        return {**HELLO, "master": {"bind": f"unix:{path}", "unix_mode": mode}}
    with Manager() as manager:
        with Narwhal(settings("0666"), env=manager.environment()) as first:
            wait_until(lambda: len(manager.names()) == 2, "two stored descriptors")
            first.stop()
        inode = os.stat(path).st_ino
        with client.Client(path) as between:
            between.send(client.encode("GET", "/"))
            second = Narwhal(settings("0600"), env=manager.environment(), start=False)
            with second:
                manager.pass_to(second).start()
                assert between.response().status == 200
                assert os.stat(path).st_mode & 0o7777 == 0o600
                assert os.stat(path).st_ino == inode


def test_unix_lane_of_another_address_leaves_no_file_behind(tmp_path):
    before, after = str(tmp_path / "before.sock"), str(tmp_path / "after.sock")
    with Manager() as manager:
        with Narwhal({**HELLO, "master": {"bind": f"unix:{before}"}},
                     env=manager.environment()) as first:
            wait_until(lambda: len(manager.names()) == 2, "two stored descriptors")
            first.stop()
        second = Narwhal({**HELLO, "master": {"bind": f"unix:{after}"}},
                         env=manager.environment(), start=False)
        with second:
            manager.pass_to(second).start()
            second.wait_log("no longer listening address=unix:")
            assert client.get(after).status == 200
            assert not os.path.exists(before)


def test_lanes_of_another_address_are_given_up():
    """Also one that is in the way of the new address."""
    port = free_port()
    with Manager() as manager:
        with Narwhal({**HELLO, "master": {"bind": f"127.0.0.1:{port}"}},
                     env=manager.environment()) as first:
            manager.wait_names(["narwhal-board"] + lane_names(f"127.0.0.1:{port}", 2))
            first.stop()
        second = Narwhal({**HELLO, "master": {"bind": f"0.0.0.0:{port}"}},
                         env=manager.environment(), start=False)
        with second:
            manager.pass_to(second).start()
            second.wait_log(rf"no longer listening address=127.0.0.1:{port}")
            assert client.get(("127.0.0.1", port)).status == 200
            manager.wait_names(["narwhal-board"] + lane_names(f"0.0.0.0:{port}", 2))


def test_reload_stores_new_addresses_and_takes_old_ones_out():
    ports = [free_port(), free_port()]
    with Manager() as manager, Narwhal({**HELLO, "master": {"bind": f"127.0.0.1:{ports[0]}"}},
                                       env=manager.environment()) as narwhal:
        manager.wait_names(["narwhal-board"] + lane_names(f"127.0.0.1:{ports[0]}", 2))
        narwhal.write({**HELLO, "master": {"bind": f"127.0.0.1:{ports[1]}"}})
        narwhal.reload()
        manager.wait_names(["narwhal-board"] + lane_names(f"127.0.0.1:{ports[1]}", 2))


def test_lanes_outlive_an_upgrade_and_then_the_master():
    settings = {**HELLO, "master": {"bind": f"127.0.0.1:{free_port()}"}}
    with Manager() as manager:
        with Narwhal(settings, env=manager.environment()) as first:
            address = first.address
            wanted = ["narwhal-board"] + lane_names(f"{address[0]}:{address[1]}", 2)
            manager.wait_names(wanted)
            first.signal(signal.SIGUSR2)
            first.wait_log("upgraded from=")
            first.wait_log(r"worker slot=\d+ left pid=", count=2)  # those of the old program
            kill_master(first)
            manager.wait_names(wanted)
        second = Narwhal(settings, env=manager.environment(), start=False)
        with second:
            manager.pass_to(second).start()
            assert client.get(address).status == 200
            second.wait_log("kept lanes=2")


def test_orphans_leave_the_queue_to_the_next_master():
    """Workers whose master is gone finish what is open, and accept nothing more."""
    settings = {**HELLO, "master": {"bind": f"127.0.0.1:{free_port()}"}}
    with Manager() as manager, Narwhal(settings, env=manager.environment(),
                                       errors=[LOST]) as narwhal:
        address = narwhal.address
        manager.wait_names(["narwhal-board"] + lane_names(f"{address[0]}:{address[1]}", 2))
        os.kill(narwhal.pid, signal.SIGKILL)
        narwhal.process.wait(client.DEADLINE)
        wait_until(lambda: not narwhal.processes(), "the orphans' end")
        with client.Client(address) as waiting:
            waiting.send(client.encode("GET", "/"))
            waiting.socket.settimeout(0.2)
            with pytest.raises(socket.timeout):
                waiting.socket.recv(1)


def test_store_that_is_too_small_is_told():
    with Manager() as manager, Narwhal(HELLO, env=manager.environment(store=2)) as narwhal:
        narwhal.wait_log("not all lanes are kept over a restart: .*FileDescriptorStoreMax=")
        assert len(manager.names()) == 2


def test_without_a_store_nothing_is_stored():
    with Manager() as manager, Narwhal(HELLO, env=manager.environment(store=0)) as narwhal:
        manager.wait(ready)
        assert client.get(narwhal.address).status == 200
        assert manager.names() == []


def test_stored_rubbish_is_given_up(tmp_path):
    with Manager() as manager, open(tmp_path / "file", "wb") as file:
        manager.store.append(("narwhal-board", os.dup(file.fileno())))
        manager.store.append(("narwhal-lane,0,0,0,127.0.0.1%3a0", os.dup(file.fileno())))
        manager.store.append(("narwhal-lane,x", os.dup(file.fileno())))
        narwhal = Narwhal(HELLO, env=manager.environment(), start=False)
        with narwhal:
            manager.pass_to(narwhal).start()
            narwhal.wait_log("a stored descriptor is of no use", count=2)
            narwhal.wait_log("counters=of another layout")
            assert client.get(narwhal.address).status == 200
            manager.wait_names(["narwhal-board"] + lane_names("127.0.0.1:0", 2))


# ---- LISTEN_FDS --------------------------------------------------------------------------------
def listening(family=socket.AF_INET):
    listener = socket.socket(family)
    listener.bind(("127.0.0.1", 0) if family == socket.AF_INET else "")
    listener.listen(16)
    return listener


def test_sockets_by_name():
    with Manager() as manager, listening() as one, listening() as two, listening() as other:
        narwhal = Narwhal({**HELLO, "master": {"bind": ["systemd:web", "systemd:admin.socket"]}},
                          env=manager.environment(), start=False)
        with narwhal:
            manager.pass_to(narwhal, [("web", one), ("admin.socket", other), ("web", two)]).start()
            for listener in (one, two, other):
                assert client.get(listener.getsockname()).status == 200
            assert manager.names() == ["narwhal-board"], "the .socket unit keeps its own"
            narwhal.signal(signal.SIGUSR2)  # the names are known to the next program, too
            narwhal.wait_log("upgraded from=")
            narwhal.write({**HELLO, "master": {"bind": ["systemd:web"]}})
            narwhal.reload()
            assert client.get(two.getsockname()).status == 200


def test_socket_unit_may_be_called_after_narwhal():
    """Without FileDescriptorName= the name is that of the unit: narwhal-https.socket."""
    name = "narwhal-https.socket"
    with Manager() as manager, listening() as web:
        narwhal = Narwhal({**HELLO, "master": {"bind": f"systemd:{name}"}},
                          env=manager.environment(), start=False)
        with narwhal:
            manager.pass_to(narwhal, [(name, web)]).start()
            assert client.get(web.getsockname()).status == 200
            narwhal.signal(signal.SIGUSR2)
            narwhal.wait_log("upgraded from=")
            assert client.get(web.getsockname()).status == 200
            assert not [message for message in manager.messages if message.get("FDNAME") == name]


def refused(narwhal, pattern):
    narwhal.expect_error(".")
    narwhal.start(ready=False)
    assert narwhal.process.wait(client.DEADLINE) != 0
    narwhal._reader.join()
    text = "\n".join(narwhal.log())
    assert re.search(pattern, text), text


@pytest.mark.parametrize("case,pattern", [
    ("no such name", r"bind: cannot listen on systemd:http: no socket was passed by that name.*"
                     r"passed were: web"),
    ("no socket", "descriptor 3 is not a socket"),
    ("not listening", "descriptor 3 is a socket that does not listen.*Accept=no"),
    ("datagram", "descriptor 3 is not a stream socket"),
    ("not open", "descriptor 3 is not open"),
    ("nothing", "no socket with a name was passed: is the .socket unit enabled"),
])
def test_descriptors_of_the_wrong_kind(case, pattern, tmp_path):
    with Manager() as manager, open(tmp_path / "f", "wb") as file, listening() as good, \
            socket.socket() as deaf, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        narwhal = Narwhal({**HELLO, "master": {"bind": "systemd:http"}}, start=False)
        sockets = {"no such name": [("web", good)], "no socket": [("http", file)],
                   "not listening": [("http", deaf)], "datagram": [("http", datagram)],
                   "not open": [], "nothing": []}[case]
        with narwhal:
            manager.pass_to(narwhal, sockets, announced=1 if case == "not open" else None)
            if case == "not open":
                command = narwhal.command()
                command[2] = command[2].replace("LISTEN_FDNAMES= ", "LISTEN_FDNAMES=http ")
                narwhal.command = lambda: command
            refused(narwhal, pattern)


def test_socket_of_a_family_that_is_not_served():
    try:
        vsock = socket.socket(socket.AF_VSOCK)
        vsock.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        vsock.listen(4)
    except (OSError, AttributeError) as why:
        pytest.skip(f"no AF_VSOCK here: {why}")
    with Manager() as manager, vsock:
        narwhal = Narwhal({**HELLO, "master": {"bind": "systemd:http"}}, start=False)
        with narwhal:
            refused(manager.pass_to(narwhal, [("http", vsock)]),
                    "of a family that narwhal does not serve")


def test_fewer_descriptors_than_announced_and_unused_ones_are_told():
    with Manager() as manager, listening() as used, listening() as unused:
        narwhal = Narwhal({**HELLO, "master": {"bind": "systemd:web"}}, start=False)
        with narwhal:
            manager.pass_to(narwhal, [("web", used), ("stray", unused)], announced=4).start()
            narwhal.wait_log(r"nobody serves it.*fd=4 name=stray: add bind = fd://4 or "
                             r"systemd:stray")
            narwhal.wait_log(r"LISTEN_FDS announced 4 descriptors, one cannot be used.*"
                             r"descriptor 5 is not open")
            assert client.get(used.getsockname()).status == 200


@pytest.mark.parametrize("value", ["-1", "many", "99999999999999999999", "100000"])
def test_strange_listen_fds(value):
    with Manager() as manager, Narwhal(HELLO, start=False) as narwhal:
        manager.pass_to(narwhal, announced=value, names=False).start()
        narwhal.wait_log("LISTEN_FDS is")
        assert client.get(narwhal.address).status == 200


# ---- what is told ------------------------------------------------------------------------------
def test_notify_socket_that_goes_and_comes():
    with Manager() as manager, Narwhal(HELLO, env=manager.environment()) as narwhal:
        manager.wait(ready)
        manager.deafen()
        narwhal.reload()
        narwhal.wait_log("the service manager cannot be told how it goes: ")
        assert client.get(narwhal.address).status == 200
        manager.listen()
        mark = manager.mark()
        narwhal.reload()
        manager.wait(ready, since=mark)


def test_reload_says_reloading_and_ready_and_what_came_of_it():
    with Manager() as manager, Narwhal(HELLO, env=manager.environment()) as narwhal:
        manager.wait(ready)
        mark = manager.mark()
        narwhal.reload()
        begun = manager.wait(lambda message: message.get("RELOADING") == "1", since=mark)
        assert int(begun["MONOTONIC_USEC"]) > 0
        done = manager.wait(ready, since=mark)
        assert done["ERRNO"] == "0"
        assert re.match(r"2/2 workers ready, \d+ connections, \d+ requests/s; settings 2, last "
                        r"reload 20\S+Z done$", done["STATUS"]), done
        mark = manager.mark()
        narwhal.write("[nonsense]\n")
        narwhal.expect_error(".")
        narwhal.reload(expect="refused")
        manager.wait(lambda message: message.get("RELOADING") == "1", since=mark)
        failed = manager.wait(ready, since=mark)
        assert failed["ERRNO"] == "22"
        assert "failed: " in failed["STATUS"] and "nonsense" in failed["STATUS"], failed


def test_ready_min():
    """One worker of four is enough for READY=1."""
    with Manager() as manager, Narwhal({**HELLO, "master": {"workers": 4, "ready_min": 1}},
                                       env=manager.environment(), start=False) as narwhal:
        narwhal.start(ready=False)
        manager.wait(ready)
        assert 1 <= int(narwhal.wait_log(r"ready workers=(\d+)")[1]) <= 4


def test_long_boots_and_stops_ask_for_time():
    with Manager() as manager, Narwhal({**HELLO, "master": {"boot_timeout": "100s",
                                                            "graceful_timeout": "40s"}},
                                       env=manager.environment()) as narwhal:
        boot = manager.wait(lambda message: "EXTEND_TIMEOUT_USEC" in message)
        assert int(boot["EXTEND_TIMEOUT_USEC"]) == 105_000_000
        narwhal.signal(signal.SIGTERM)
        stop = manager.wait(lambda message: message.get("STOPPING") == "1")
        assert int(stop["EXTEND_TIMEOUT_USEC"]) == 45_000_000
        narwhal.wait_exit()


def test_watchdog_is_fed_only_while_a_worker_makes_progress():
    with Manager() as manager:
        environment = manager.environment(WATCHDOG_USEC="400000")
        with Narwhal({**HELLO, "master": {"workers": 2}}, env=environment) as narwhal:
            def fed(mark):
                return manager.wait(lambda message: message.get("WATCHDOG") == "1", since=mark)

            fed(manager.mark())
            one, other = narwhal.workers().values()
            os.kill(one, signal.SIGSTOP)
            narwhal.wait_log("stalls, siblings serve its lanes")
            fed(manager.mark())  # one of two is enough
            narwhal.expect_error("no worker makes progress")
            os.kill(other, signal.SIGSTOP)
            narwhal.wait_log("no worker makes progress: the watchdog of the service manager is not "
                             "fed")
            mark = manager.mark()
            waiting = threading.Event()
            waiting.wait(1)  # five times that it would have been fed
            assert not any("WATCHDOG" in message for message in manager.messages[mark:])
            os.kill(other, signal.SIGCONT)
            fed(manager.mark())
            os.kill(one, signal.SIGCONT)
