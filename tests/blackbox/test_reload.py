# SPDX-License-Identifier: Apache-2.0
"""SIGHUP is a transaction that no client notices."""
import asyncio
import contextlib
import os
import signal

import pytest
import websockets

import chaos_load
import client
from backend import Backend
from load import Load
from narwhal import APPS, Narwhal, is_alive, wait_app, wait_until


def hello(text, **more):
    return {**more, "route:hello": {"path": "/", "respond": f"200 {text}"}}


def test_changed_route_under_load_fails_no_request():
    with Narwhal(hello("one")) as narwhal:
        workers = narwhal.workers()
        with Load(narwhal.address, keepalive=4, fresh=4) as load:
            load.wait_answers(10, lambda body: body.strip() == b"one")
            for text in ("two", "three", "four"):
                narwhal.write(hello(text))
                mark = narwhal.reload()
                assert "changes=1" in narwhal.wait_log("reload done .*", since=mark)[0]
                load.wait_answers(20, lambda body, text=text: body.strip() == text.encode())
        assert narwhal.workers() == workers, "a LIVE change replaces no worker"


@pytest.mark.parametrize("sandbox", ["off", "auto"])
def test_from_static_to_backend_under_load(sandbox):
    """The action of a route changes while requests for it are under way. In a sandbox a folder that
    was not there at birth takes new workers, and those that leave close their connections."""
    master = {"sandbox": sandbox}
    with Backend() as backend, \
            Narwhal(hello("ok", master=master), files={"root/x": "ok"}) as narwhal:
        static = {"master": master, "route:hello": {"path": "/", "static": "root"}}
        proxied = {"master": master, "backend:b": {"server": backend.server},
                   "route:hello": {"path": "/", "backend": "b"}}
        fenced = narwhal.status()["workers"][0]["sandbox"]["landlock_abi"] > 0

        def same(response):
            assert response.text.strip() == "ok"
        with Load(narwhal.address, "/x", check=same, stay=not fenced) as load:
            for settings in (static, proxied, static, hello("ok", master=master), proxied,
                             hello("ok", master=master)):
                narwhal.write(settings)
                narwhal.reload()
                load.wait_answers(10)


def test_unchanged_settings():
    with Narwhal(hello("one")) as narwhal:
        workers = narwhal.workers()
        mark = narwhal.reload()
        assert "changes=0" in narwhal.wait_log("reload done .*", since=mark)[0]
        assert narwhal.workers() == workers
        assert client.get(narwhal.address).status == 200


def test_broken_file_keeps_serving_and_says_why():
    with Narwhal(hello("one"), errors=["reload refused", "narwhal.ini"]) as narwhal:
        workers = narwhal.workers()
        with Load(narwhal.address) as load:
            load.wait_answers(5)
            text = narwhal.text(hello("two"))
            narwhal.write(text + "[worker]\nkeepalife = 3s\nhead_timeout = soon\n")
            mark = narwhal.reload(expect="refused")
            assert "errors=2" in narwhal.wait_log("reload refused.*", since=mark)[0]
            first = text.count("\n") + 2
            said = "\n".join(narwhal.log(mark))
            assert f"narwhal.ini:{first}:" in said and "keepalive" in said, "the nearest name"
            assert f"narwhal.ini:{first + 1}:" in said and "head_timeout" in said
            load.wait_answers(10, lambda body: body.strip() == b"one")
            # And a file that is good again is taken.
            narwhal.write(hello("three"))
            narwhal.reload()
            load.wait_answers(10, lambda body: body.strip() == b"three")
        assert narwhal.workers() == workers


def test_missing_file_keeps_serving():
    with Narwhal(hello("one"), errors=["reload refused", "narwhal.ini"]) as narwhal:
        os.unlink(narwhal.settings_path)
        narwhal.reload(expect="refused")
        assert client.get(narwhal.address).text.strip() == "one"


def test_setting_that_needs_a_restart_is_refused():
    with Narwhal(hello("one"), errors=["reload refused", "backlog"]) as narwhal:
        narwhal.write(hello("two", master={"backlog": 17}))
        mark = narwhal.reload(expect="refused")
        said = "\n".join(narwhal.log(mark))
        assert "backlog" in said and "restart" in said.lower()
        assert client.get(narwhal.address).text.strip() == "one", "nothing of it was applied"


def test_bind_that_fails_rolls_back():
    with Backend() as other, Narwhal(hello("one"), errors=["."]) as narwhal:
        narwhal.write(hello("two", master={"bind": ["127.0.0.1:0", other.server]}))
        mark = narwhal.reload(expect="refused")
        assert other.server in "\n".join(narwhal.log(mark))
        assert client.get(narwhal.address).text.strip() == "one"


def test_bind_is_added_and_removed():
    with Narwhal(hello("one")) as narwhal:
        first = narwhal.address
        unix = narwhal.path("http.sock")
        narwhal.write(hello("one", master={"bind": ["127.0.0.1:0", f"unix:{unix}"]}))
        narwhal.reload()
        assert client.get(unix).text.strip() == "one"
        with client.Client(first) as kept:
            assert kept.get("/").status == 200
            narwhal.write(hello("two"))
            narwhal.reload()
            assert kept.get("/").text.strip() == "two"
        wait_until(lambda: not os.path.exists(unix), "the socket file to go")
        assert client.get(first).status == 200


def test_more_and_fewer_workers():
    with Narwhal(hello("one")) as narwhal, Load(narwhal.address, stay=False) as load:
        for count in (4, 1, 3):
            narwhal.write(hello("one", master={"workers": count}))
            narwhal.reload()
            load.wait_answers(10)
            narwhal.wait_workers(count)


def test_the_very_same_connections_stay_open():
    """A kept client connection, a download and a WebSocket live through reloads."""
    async def scenario(narwhal):
        uri = f"ws://127.0.0.1:{narwhal.port}/app/echo"
        async with websockets.connect(uri) as socket:
            await socket.send("before")
            assert await socket.recv() == "before"
            with client.Client(narwhal.address) as kept, \
                    client.Client(narwhal.address, receive_buffer=4096) as download:
                source = kept.socket.getsockname()
                assert kept.get("/").text.strip() == "one"
                download.send(client.encode("GET", "/files/big"))
                download.take(100)
                for number in range(3):
                    narwhal.write(settings(f"turn {number}"))
                    narwhal.reload()
                    assert kept.get("/").text.strip() == f"turn {number}"
                    await socket.send(f"turn {number}")
                    assert await asyncio.wait_for(socket.recv(), 30) == f"turn {number}"
                assert kept.socket.getsockname() == source
                tail = download.take(8 << 20)
                assert len(tail) == 8 << 20

    def settings(text):
        return {"backend:app": {"command": "uvicorn app_fastapi:app --uds {socket}",
                                "directory": APPS},
                "route:app": {"path": "/app", "backend": "app", "strip_prefix": "on"},
                "route:files": {"path": "/files", "static": "root"},
                "route:hello": {"path": "/", "respond": f"200 {text}"}}

    with Narwhal(settings("one"), files={"root/big": bytes(9 << 20)}) as narwhal:
        wait_app(narwhal, "/app/pid")
        asyncio.run(scenario(narwhal))


def test_instances_are_replaced_one_by_one():
    """HUP is how people deploy code: new processes, and not one failed request."""
    settings = {"backend:app": {"command": "uvicorn app_fastapi:app --fd {fd}", "instances": 2,
                                "directory": APPS},
                "route:app": {"path": "/", "backend": "app"}}
    with Narwhal(settings) as narwhal:
        wait_app(narwhal, "/pid")
        narwhal.wait_instances(2)
        before = narwhal.instances()
        with Load(narwhal.address, "/pid", keepalive=2, fresh=1) as load:
            load.wait_answers(3)
            narwhal.reload()
            wait_until(lambda: not any(map(is_alive, before)), "the old instances to leave")
            load.wait_answers(3)
        assert len(narwhal.instances()) == 2


def test_requests_that_wait_for_an_instance_which_a_reload_replaces():
    """It died with a connection in the queue of its socket and boots again; the reload puts another
    one beside it, which has another socket."""
    settings = {"backend:app": {"command": "./app {fd}", "directory": "."},
                "route:app": {"path": "/", "backend": "app"}}
    app = f"#!/bin/sh\n[ -e slow ] && sleep 60\nexec {chaos_load.app()} $1 1\n"
    with Narwhal(settings, start=False) as narwhal:
        narwhal.file("app", app, mode=0o755)
        narwhal.start()
        wait_app(narwhal, "/")
        old = narwhal.wait_instances(1)[0]
        narwhal.file("slow")
        os.kill(old, signal.SIGSTOP)
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(client.Client(narwhal.address)) for _ in range(3)]
            for waiting in clients:
                waiting.send(client.encode("GET", "/"))
            wait_until(lambda: sum(server["in_flight"] for server
                                   in narwhal.status()["backends"][0]["servers"]) == 3,
                       "the requests to be on their way")
            narwhal.expect_error("instance app/0 died")
            narwhal.expect_error("request failed status=502")
            os.kill(old, signal.SIGKILL)
            wait_until(lambda: [pid for pid in narwhal.instances() if pid != old], "the next one")
            os.unlink(narwhal.path("slow"))
            narwhal.reload()
            statuses = [waiting.response().status for waiting in clients]
            # The one on a connection that was accepted saw it break, and may have come into the
            # queue by its second and last attempt.
            assert statuses.count(200) >= 2 and set(statuses) <= {200, 502}, statuses


def test_signals_in_a_burst_are_all_the_same_reload():
    with Narwhal(hello("one")) as narwhal, Load(narwhal.address) as load:
        for number in range(20):
            narwhal.write(hello(f"turn {number}"))
            narwhal.signal(signal.SIGHUP)
        load.wait_answers(5, lambda body: body.strip() == b"turn 19")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give the workers another user")
def test_settings_that_only_the_workers_cannot_use_are_refused():
    """The master may see a folder that the user of the workers does not: one worker tries first."""
    settings = hello("one", master={"user": "nobody"})
    with Narwhal(settings, errors=["reload refused", "private"]) as narwhal:
        workers = narwhal.workers()
        os.mkdir(narwhal.path("private"), 0o700)
        with client.Client(narwhal.address) as kept:
            assert kept.get("/").text.strip() == "one"
            narwhal.write({**settings, "route:p": {"path": "/p", "static": "private"},
                           "route:hello": {"path": "/", "respond": "200 two"}})
            mark = narwhal.reload(expect="refused")
            assert "Permission denied" in "\n".join(narwhal.log(mark))
            assert kept.get("/").text.strip() == "one", "nothing of it was applied"
            narwhal.write({**settings, "route:hello": {"path": "/", "respond": "200 three"}})
            narwhal.reload()
            assert kept.get("/").text.strip() == "three"
        assert narwhal.workers() == workers


def test_reload_ends_the_pause_also_when_the_settings_are_wrong():
    with Narwhal(hello("one"), errors=["reload refused", "nonsense"]) as narwhal:
        narwhal.signal(signal.SIGWINCH)
        wait_until(lambda: not narwhal.workers(), "the workers to leave")
        narwhal.write(narwhal.text(hello("two")) + "nonsense = 1\n")
        narwhal.reload(expect="refused")
        assert client.get(narwhal.address).text.strip() == "one"


def test_backend_that_cannot_start_is_removed_in_any_moment_of_its_pause():
    """An instance waits for its next try when the settings that it would start with go."""
    settings = {"master": {"workers": 1}, **{
        f"backend:{name}": {"command": "/bin/false {port}", "instances": 2} for name in "abcdef"}}
    routes = {f"route:{name}": {"path": f"/{name}", "backend": name} for name in "abcdef"}
    with Narwhal({**settings, **routes}, errors=["instance [a-f]/"]) as narwhal:
        for name in "abcdef":
            narwhal.wait_log(rf"instance {name}/1 died .* respawn_in=", count=2)
            del settings[f"backend:{name}"], routes[f"route:{name}"]
            narwhal.write(hello("ok", **settings, **routes))
            narwhal.reload()
        assert client.get(narwhal.address).status == 200


def test_new_application_boots_before_its_routes_are_used():
    slow = "sleep .5; exec uvicorn app_fastapi:app --uds $1"
    app = {"backend:app": {"command": f"sh -c '{slow}' sh {{socket}}", "directory": APPS}}

    def route(action):
        return {"route:pid": {"path": "/pid", **action}}
    with Narwhal(route({"respond": "200 ok"})) as narwhal, Load(narwhal.address, "/pid") as load:
        load.wait_answers(5)
        narwhal.write({**app, **route({"backend": "app"})})
        narwhal.reload()
        load.wait_answers(5, lambda body: b"pid" in body)


def test_new_application_that_does_not_start_changes_nothing():
    command = {"command": "sh -c \"echo no module named shop >&2; exit 3\"", "listen": "fd"}
    with Narwhal(hello("one"), errors=["reload refused", "shop", "instance app/0"]) as narwhal:
        with Load(narwhal.address) as load:
            load.wait_answers(5)
            for _ in range(3):
                narwhal.write({"backend:app": command,
                               "route:hello": {"path": "/", "backend": "app"}})
                mark = narwhal.reload(expect="refused")
                assert "no module named shop" in narwhal.wait_log(
                    "the new instance app/0 of backend=app did not become READY.*", since=mark)[0]
                load.wait_answers(5, lambda body: body.strip() == b"one")
            narwhal.write(hello("two"))
            narwhal.reload()
            load.wait_answers(5, lambda body: body.strip() == b"two")
        assert not narwhal.status()["backends"]


def test_stop_while_a_new_application_boots():
    with Narwhal(hello("one")) as narwhal:
        narwhal.write({"backend:app": {"command": "sleep 1000", "listen": "port"},
                       "route:hello": {"path": "/", "backend": "app"}})
        narwhal.signal(signal.SIGHUP)
        narwhal.wait_log("the reload waits for the applications of new backends")
        narwhal.signal(signal.SIGHUP)
        assert client.get(narwhal.address).text.strip() == "one"
        narwhal.stop()


def test_stop_lets_go_of_what_a_reload_has_prepared():
    """The new socket listens already, and nobody would ever accept there."""
    root = {"route:hello": {"path": "/", "static": "root"}}
    with Narwhal({**root, "master": {"graceful_timeout": "60s"}},
                 files={"root/big": bytes(9 << 20)}) as narwhal:
        more = narwhal.path("more.sock")
        with client.Client(narwhal.address, receive_buffer=4096) as download:
            download.send(client.encode("GET", "/big"))
            download.take(100)
            narwhal.write({"master": {"graceful_timeout": "60s",
                                      "bind": ["127.0.0.1:0", f"unix:{more}"]},
                           "backend:app": {"command": "sleep 1000", "listen": "port"},
                           "route:app": {"path": "/app", "backend": "app"}, **root})
            narwhal.signal(signal.SIGHUP)
            narwhal.wait_log("the reload waits for the applications of new backends")
            assert os.path.exists(more)
            narwhal.signal(signal.SIGTERM)
            narwhal.wait_log("stopping gracefully")
            assert not os.path.exists(more)
            assert narwhal.process.poll() is None, "the download is not over"
        narwhal.wait_exit()
