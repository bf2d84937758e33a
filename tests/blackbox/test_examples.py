# SPDX-License-Identifier: Apache-2.0
"""The examples of etc/examples, each as it stands there and with real requests. The one with
PostgreSQL is test_examples_postgresql.py."""
import asyncio
import concurrent.futures
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

import pytest
import websockets

import client
import example
from load import Load
from narwhal import DEADLINE, REPOSITORY, children_of, is_alive, run_narwhal, wait_until

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize("name", sorted(os.listdir(example.EXAMPLES)))
def test_settings_are_good_and_packages_are_those_of_the_tests(name):
    status, _, errors = run_narwhal("-c", example.path(name, "narwhal.ini"), "--check-config")
    assert status == 0 or (name == "django" and "static" in errors), errors
    with open(os.path.join(REPOSITORY, "tests", "packages.txt"), encoding="utf-8") as file:
        installed = file.read().split("\n")
    with open(example.path(name, "packages.txt"), encoding="utf-8") as file:
        wanted = [line for line in file.read().split("\n") if line and line[0] != "#"]
    assert wanted and not set(wanted) - set(installed)
    with open(os.path.join(REPOSITORY, "docs", "examples.md"), encoding="utf-8") as file:
        assert f"(../etc/examples/{name}/narwhal.ini)" in file.read()


def answers_of(narwhal, count, target="/"):
    """Asks until that many processes have answered, and returns their pids."""
    pids = set()

    def all_answered():
        pids.add(narwhal.wait_up(target).json["pid"])
        return len(pids) >= count
    wait_until(all_answered, f"an answer of {count} processes")
    return pids


# ---- fastapi ------------------------------------------------------------------------------------
def test_fastapi():
    with example.Example("fastapi", errors=[r"instance app/\d"]) as narwhal:
        answer = narwhal.wait_up()
        assert answer.json["hello"] == "127.0.0.1" and answer.json["url"] == "http://test/"
        forged = client.get(narwhal.address, "/", {"X-Forwarded-For": "192.0.2.1",
                                                   "X-Forwarded-Proto": "https"})
        assert forged.json["hello"] == "127.0.0.1" and forged.json["url"] == "http://test/"
        pids = answers_of(narwhal, 2)
        # A response that it had begun would be cut (uvicorn with asyncio writes head and body one
        # after the other), so there is no load now; a request that it had not answered goes to the
        # other one.
        os.kill(min(pids), signal.SIGKILL)
        assert client.get(narwhal.address).status == 200
        old = narwhal.wait_instances(2, without=[min(pids)])
        with Load(narwhal.address) as load:
            narwhal.reload()  # new code: each instance has its successor before it leaves
            narwhal.wait_instances(2, without=old)
            load.wait_answers(20)


def test_fastapi_websocket():
    async def scenario(narwhal):
        async with websockets.connect(f"ws://127.0.0.1:{narwhal.port}/echo") as socket:
            for text in ("one", "x" * 200_000):
                await socket.send(text)
                assert await asyncio.wait_for(socket.recv(), DEADLINE) == text
    with example.Example("fastapi") as narwhal:
        narwhal.wait_instances(2)
        asyncio.run(scenario(narwhal))


# ---- flask --------------------------------------------------------------------------------------
def test_flask_has_one_request_at_a_time_in_each_instance():
    with example.Example("flask") as narwhal:
        narwhal.wait_instances(4)
        answer = narwhal.wait_up()
        assert answer.json["hello"] == "127.0.0.1" and answer.json["url"] == "http://test/"
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            # Four are busy with slow work: four at once, one in each.
            first = [answer.json["pid"] for answer in pool.map(
                lambda _: client.get(narwhal.address, "/report"), range(4))]
            assert len(set(first)) == 4, first
            # Eight at once: the other four wait, none fails, and each instance has two.
            began = time.monotonic()
            pids = [answer.json["pid"] for answer in pool.map(
                lambda _: client.get(narwhal.address, "/report"), range(8))]
            took = time.monotonic() - began
        assert sorted(map(pids.count, set(pids))) == [2, 2, 2, 2], pids
        assert took >= 0.5


def test_flask_is_not_held_by_slow_uploaders():
    """As many as there are instances, and twice: none of them has one."""
    with example.Example("flask") as narwhal:
        narwhal.wait_instances(4)
        narwhal.wait_up()
        body = b"x" * 30_000
        slow = [client.Client(narwhal.address) for _ in range(8)]
        for connection in slow:
            connection.send(client.encode("POST", "/upload", {"Content-Length": str(len(body))}) +
                            body[:-1])
        assert client.get(narwhal.address).status == 200
        for connection in slow:
            connection.send(body[-1:])
            assert connection.response("POST").json == {"bytes": len(body)}
            connection.close()


# ---- application servers that are services of their own ---------------------------------------------
class Gunicorn:
    """gunicorn with the example's settings, started as its first lines say."""

    def __init__(self, socket, log):
        self.socket = socket
        with open(log, "ab") as file:
            self.process = subprocess.Popen(
                ["/usr/bin/gunicorn", "-c", "gunicorn.conf.py", "-b", f"unix:{socket}", "app:app"],
                stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                cwd=example.path("gunicorn-service"), start_new_session=True,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})

    def stop(self):
        self.process.terminate()
        self.process.wait(DEADLINE)


def test_one_service_of_two_is_restarted_and_nobody_notices():
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="narwhal-gunicorn-"))
        os.chmod(folder, 0o755)
        sockets = [f"{folder}/{number}.sock" for number in (1, 2)]

        def start(number):
            found = Gunicorn(sockets[number], f"{folder}/log")
            stack.callback(found.stop)
            return found
        services = [start(0), start(1)]
        settings = example.text("gunicorn-service", **{
            "/tmp/narwhal-example-1.sock": sockets[0], "/tmp/narwhal-example-2.sock": sockets[1]})
        for socket in sockets:
            wait_until(lambda socket=socket: os.path.exists(socket), socket)
            assert client.get(socket, "/healthz").status == 200  # gunicorn listens before its workers do
        # By its answer to a probe, which a machine under load may be late with: then it is down for
        # a while, and no harm done.
        with example.Example("gunicorn-service", settings) as narwhal:
            def wait_health(number, wanted):
                wait_until(lambda: narwhal.status()["backends"][0]["servers"][number]["health"] ==
                           wanted, f"server {number} to be {wanted}")
            for number in (0, 1):
                wait_health(number, "UP")
            with Load(narwhal.address, keepalive=4) as load:
                for number in (0, 1):
                    services[number].stop()
                    wait_health(number, "DOWN")
                    load.wait_answers(20)
                    services[number] = start(number)
                    wait_health(number, "UP")
                    pids = set(children_of(services[number].process.pid))
                    load.wait_answers(1, lambda body, pids=pids: json.loads(body)["pid"] in pids)


# ---- starlette ----------------------------------------------------------------------------------
def say(narwhal, text):
    response = client.request(narwhal.address, "POST", "/say", body=text.encode())
    assert response.status == 200
    return response.json["number"]


class Events:
    """A reader of server-sent events."""

    def __init__(self, narwhal, last=None):
        self.connection = client.Client(narwhal.address)
        fields = {"Accept": "text/event-stream"}
        if last is not None:
            fields["Last-Event-ID"] = str(last)
        self.connection.send(client.encode("GET", "/events", fields))
        _, status, _, self.fields = self.connection.head()
        assert status == 200
        assert self.chunk() == b": welcome\n\n"

    def chunk(self):
        size = int(self.connection.take_line(), 16)
        data = self.connection.take(size)
        assert self.connection.take(2) == b"\r\n"
        return data

    def next(self):
        """(id, data)"""
        found = re.fullmatch(rb"id: (\d+)\ndata: (.*)\n\n", self.chunk())
        return int(found[1]), found[2].decode()


def test_events_arrive_when_they_happen():
    with example.Example("starlette-streams") as narwhal:
        narwhal.wait_instances(1)
        readers = [Events(narwhal) for _ in range(20)]
        for text in ("one", "two", "three"):
            number = say(narwhal, text)
            # Each reader has it before the next is said: nothing waits for more to come.
            assert [reader.next() for reader in readers] == [(number, text)] * 20
        for reader in readers:
            reader.connection.close()


def test_events_go_on_after_the_instance_was_replaced():
    """A stream would never end: graceful_timeout cuts it, and never with an end that looks whole."""
    with example.Example("starlette-streams", flags=["--graceful-timeout", "1s"]) as narwhal:
        old = narwhal.wait_instances(1)
        reader = Events(narwhal)
        number = say(narwhal, "before")
        assert reader.next() == (number, "before")
        narwhal.reload()
        with pytest.raises((client.BrokenResponse, ConnectionResetError)):
            while True:
                reader.chunk()
        narwhal.wait_instances(1, without=old)
        first, second = say(narwhal, "after"), say(narwhal, "and on")
        again = Events(narwhal, last=first)  # as a browser does
        assert again.next() == (second, "and on")
        # One that heard more than that from the old one: the new one counts from the beginning.
        lost = Events(narwhal, last=1000)
        assert [lost.next(), lost.next()] == [(first, "after"), (second, "and on")]
        for each in (again, lost, reader):
            each.connection.close()


def test_long_polls_are_answered_by_what_happens():
    with example.Example("starlette-streams") as narwhal:
        narwhal.wait_instances(1)
        waiting = [client.Client(narwhal.address) for _ in range(50)]
        for connection in waiting:
            connection.send(client.encode("GET", "/poll?after=0"))
        wait_until(lambda: narwhal.status()["backends"][0]["servers"][0]["in_flight"] == 50,
                   "50 open polls")
        assert all(connection.is_open() for connection in waiting)
        number = say(narwhal, "news")
        for connection in waiting:
            assert connection.response().json == [{"number": number, "text": "news"}]
            connection.close()


# ---- node ---------------------------------------------------------------------------------------
def test_node_sends_the_page_before_it_is_rendered():
    with example.Example("node-streaming") as narwhal:
        narwhal.wait_up("/?rows=0")
        with client.Client(narwhal.address) as connection:
            began = time.monotonic()
            connection.send(client.encode("GET", "/?rows=10"))
            times = []
            connection.head()
            while True:
                size = int(connection.take_line(), 16)
                if not size:
                    break
                data = connection.take(size + 2)
                times.append((time.monotonic() - began, data))
            text = b"".join(data[:-2] for _, data in times).decode()
        assert times[0][1].startswith(b"<!doctype html>") and text.count("<li>") == 10
        assert "rendered by" in text and len(times) >= 12
        # Ten rows take 2 s: the first bytes were there long before the last, whatever the machine.
        assert times[-1][0] - times[0][0] > 1.5, times
        assert client.get(narwhal.address, "/assets/style.css").status == 200


def test_node_page_under_way_is_finished_when_the_code_is_replaced():
    with example.Example("node-streaming") as narwhal:
        narwhal.wait_up("/?rows=0")
        pids = narwhal.wait_instances(2)
        with client.Client(narwhal.address) as connection:
            connection.send(client.encode("GET", "/?rows=10"))
            assert connection.head()[1] == 200
            narwhal.reload()
            narwhal.wait_instances(2, without=pids)
            trailers = []
            text = connection.chunked(trailers).decode()
        pid = int(re.search(r"rendered by (\d+)", text)[1])
        assert pid in pids, "by the old one, to its end"
        wait_until(lambda: not any(map(is_alive, pids)), "the end of the old ones")


# ---- django -------------------------------------------------------------------------------------
def test_django():
    """In a copy, because collectstatic writes beside the application."""
    folder = tempfile.mkdtemp(prefix="narwhal-django-")
    try:
        copy = os.path.join(folder, "site")
        shutil.copytree(example.path("django"), copy, ignore=shutil.ignore_patterns("static"))
        os.chmod(folder, 0o755)
        subprocess.run(["/usr/bin/python3", "app.py", "collectstatic", "--noinput"], cwd=copy,
                       check=True, stdout=subprocess.DEVNULL, timeout=DEADLINE)
        with example.Example(copy, env={"SECRET_KEY": "s" * 50}) as narwhal:
            def page(**more):
                return client.get(narwhal.address, "/", host="localhost", **more)
            narwhal.wait_instances(2)
            first = page()
            assert first.status == 200
            token = re.search(r'csrfmiddlewaretoken" value="(\w+)"', first.text)[1]
            cookie = first["Set-Cookie"].partition(";")[0]
            body = f"name=you&csrfmiddlewaretoken={token}".encode()
            said = client.request(narwhal.address, "POST", "/", {**FORM, "Cookie": cookie}, body,
                                  host="localhost")
            assert said.status == 200 and "Hello, you!" in said.text
            forged = client.request(narwhal.address, "POST", "/", FORM, body, host="localhost")
            assert forged.status == 403
            assert page(fields={"X-Forwarded-Proto": "https"}).status == 200
            assert client.get(narwhal.address, "/", host="evil.example").status == 400
            style = client.get(narwhal.address, re.search(r'href="(\S+)"', first.text)[1])
            assert style.status == 200 and style["Content-Type"].startswith("text/css")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ---- php ----------------------------------------------------------------------------------------
def test_php():
    with example.Example("php") as narwhal:
        narwhal.wait_instances(4)
        for number in range(20):
            answer = client.get(narwhal.address, f"/?name={number}")
            assert answer.text == f"hello {number} at 127.0.0.1\n"
