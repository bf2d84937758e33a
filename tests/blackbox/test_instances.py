# SPDX-License-Identifier: Apache-2.0
"""command =: narwhal starts the application, in all four ways of handing it its socket, with real
programs; and what happens when it does not start, dies, or has something to say."""
import os
import re
import shutil
import signal
import sys

import pytest

import client
from narwhal import APPS, NO_SERVER, Narwhal, is_alive, wait_app, wait_until

HELLO = {"route:hello": {"path": "/hello", "respond": "200 hello"}}


def app(command, errors=(), **more):
    return Narwhal({"backend:app": {"command": command, "directory": APPS, **more},
                    "route:app": {"path": "/", "backend": "app"}, **HELLO}, errors=errors)


@pytest.mark.parametrize("command, listen", [
    ("uvicorn app_fastapi:app --fd {fd}", "auto"),
    ("uvicorn app_fastapi:app --uds {socket}", "auto"),
    ("uvicorn app_fastapi:app --host 127.0.0.1 --port {port}", "auto"),
    ("gunicorn app_wsgi:app --workers 1", "auto"),
    ("gunicorn app_wsgi:app --workers 1", "fd"),
    ("gunicorn app_wsgi:app --workers 1 --bind unix:{socket}", "auto"),
], ids=["uvicorn {fd}", "uvicorn {socket}", "uvicorn {port}", "gunicorn LISTEN_FDS, auto",
        "gunicorn LISTEN_FDS", "gunicorn {socket}"])
@pytest.mark.parametrize("instances", [1, 2])
def test_python_servers(command, listen, instances):
    with app(command, listen=listen, instances=instances) as narwhal:
        wait_app(narwhal)
        pids = set()

        def all_answered():
            pids.add(wait_app(narwhal).json["pid"])
            return len(pids) == instances
        wait_until(all_answered, f"an answer of {instances} instances")
        children = narwhal.instances()
        assert len(children) == instances
        if "uvicorn" in command:
            assert set(children) == pids
        for _ in range(20):
            assert client.get(narwhal.address, "/pid").status == 200


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
@pytest.mark.parametrize("listen", ["auto", "port"])
def test_node_on_port(listen):
    with app("node server.js", listen=listen, instances=2) as narwhal:
        assert wait_app(narwhal, "/x?y").json["url"] == "/x?y"
        narwhal.wait_log(r"instance app/\d+\[\d+\]: node is up")


def test_http_server_on_port():
    with app(f"{sys.executable} -m http.server {{port}} --bind 127.0.0.1",
             directory=APPS) as narwhal:
        response = wait_app(narwhal, "/server.js")
        with open(os.path.join(APPS, "server.js"), "rb") as file:
            assert response.body == file.read()


def test_environment_and_directory():
    program = ("import os, http.server as h; "
               "H = type('H', (h.BaseHTTPRequestHandler,), {'do_GET': lambda s: (s.send_response(200), "
               "s.end_headers(), s.wfile.write((os.environ['A'] + '|' + os.environ['B'] + '|' + "
               "os.getcwd()).encode())), 'log_message': lambda *a: None}); ")
    # A line of the file holds 199 bytes: the program goes into a file.
    narwhal = Narwhal({"backend:app": {"command": f"{sys.executable} app.py {{port}}",
                                       "environment": ["A=one", "B=two words"],
                                       "directory": "sub"},
                       "route:app": {"path": "/", "backend": "app"}},
                      files={"sub/app.py": program + "import sys; h.HTTPServer(('127.0.0.1', "
                             "int(sys.argv[1])), H).serve_forever()"})
    with narwhal:
        assert wait_app(narwhal, "/").text == "one|two words|" + narwhal.path("sub")


def test_output_lands_in_the_log_with_the_name():
    command = f"{sys.executable} -u -c \"{PRINTS}\" {{port}}"
    with app(command, instances=2) as narwhal:
        for number in (0, 1):
            assert narwhal.wait_log(rf"instance app/{number}\[\d+\]: to stdout")
            assert narwhal.wait_log(rf"instance app/{number}\[\d+\]: to stderr")


PRINTS = ("import sys, time; print('to stdout'); print('to stderr', file=sys.stderr); "
          "time.sleep(1000)")


def test_long_and_binary_output_does_not_break_the_log():
    program = ("import sys, time; o = sys.stdout.buffer; o.write(b'x' * 100000 + b'\\n'); "
               "o.write(b'\\0\\x1b[31m red\\n'); o.write(b'end\\n'); o.flush(); time.sleep(1000)")
    with Narwhal({"backend:app": {"command": f"{sys.executable} app.py {{port}}"},
                  "route:app": {"path": "/", "backend": "app"}},
                 files={"app.py": program}) as narwhal:
        narwhal.wait_log(r"instance app/0\[\d+\]: end$")
        assert all(len(line) <= 4096 and "\x1b" not in line for line in narwhal.log())
        taken = "".join(re.findall(r"]: (x+)", "\n".join(narwhal.log())))
        assert len(taken) >= 1000


def test_command_that_does_not_exist():
    with app("no-such-program-anywhere --fd {fd}", errors=["no-such-program-anywhere", NO_SERVER]) as narwhal:
        line = narwhal.wait_log(r".*no-such-program-anywhere.*")[0]
        assert "No such file" in line or "not found" in line, line
        response = client.get(narwhal.address, "/pid")
        assert response.status == 503 and response["Retry-After"].isdigit()
        assert client.get(narwhal.address, "/hello").status == 200, "the rest serves"
        narwhal.wait_log("no-such-program-anywhere", count=2)  # it is tried again


def test_command_that_exits_at_once():
    with app("sh -c \"echo these are my last words >&2; exit 3\"", listen="fd",
             errors=["app/0", NO_SERVER]) as narwhal:
        narwhal.wait_log(r"instance app/0\[\d+\]: these are my last words")
        narwhal.wait_log(r"(?i)app/0.*(exit|status)\S*[ =]3")
        response = client.get(narwhal.address, "/pid")
        assert response.status == 503 and response["Retry-After"].isdigit()
        assert client.get(narwhal.address, "/hello").status == 200
        # Back-off: it is tried again, and each pause is longer than the one before.
        narwhal.wait_log(r"\]: these are my last words", count=4)
        times = [line[:23] for line in narwhal.log() if "]: these are my last words" in line]
        from datetime import datetime
        stamps = [datetime.fromisoformat(time).timestamp() for time in times[:4]]
        pauses = [after - before for before, after in zip(stamps, stamps[1:])]
        assert pauses[-1] > 0.05, pauses


def test_command_that_is_mended_comes_to_life():
    """The pause between two tries ends with a reload."""
    settings = {"backend:app": {"command": "sh -c \"exit 1\"", "listen": "fd"},
                "route:app": {"path": "/", "backend": "app"}, **HELLO}
    with Narwhal(settings, errors=["app/0"]) as narwhal:
        narwhal.wait_log("app/0")
        settings["backend:app"] = {"command": "uvicorn app_fastapi:app --fd {fd}",
                                   "directory": APPS}
        narwhal.write(settings)
        narwhal.reload()
        wait_app(narwhal)


def test_instance_that_never_answers_is_killed_after_boot_timeout():
    settings = {"master": {"boot_timeout": "500ms"},
                "backend:app": {"command": "sleep 1000", "listen": "port"},
                "route:app": {"path": "/", "backend": "app"}, **HELLO}
    with Narwhal(settings, errors=["app/0", NO_SERVER]) as narwhal:
        first = wait_until(narwhal.instances, "the instance")[0]
        wait_until(lambda: not is_alive(first), "its end")
        narwhal.wait_log("boot_timeout")
        assert client.get(narwhal.address, "/").status == 503


def test_one_of_two_dies_under_load_and_no_request_of_others_fails():
    from load import Load
    with app("uvicorn app_fastapi:app --fd {fd}", instances=2, errors=["app/"]) as narwhal:
        wait_app(narwhal)
        wait_until(lambda: len({wait_app(narwhal).json["pid"] for _ in range(10)}) == 2, "both")
        with Load(narwhal.address, "/hello") as load:
            victim = narwhal.instances()[0]
            os.kill(victim, signal.SIGKILL)
            load.wait_answers(20)
        wait_until(lambda: victim not in narwhal.instances() and len(narwhal.instances()) == 2,
                   "the replacement")
        wait_app(narwhal)


def test_instances_are_stopped_gracefully_and_whole():
    """Also the processes that an instance started: gunicorn's workers."""
    with app("gunicorn app_wsgi:app --workers 2") as narwhal:
        pid = wait_app(narwhal).json["pid"]
        narwhal.stop()
        wait_until(lambda: not is_alive(pid), "gunicorn's worker to leave")


def test_instance_that_ignores_term_is_killed_after_graceful_timeout():
    program = ("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
               "print('deaf', flush=True); time.sleep(1000)")
    with Narwhal({"master": {"graceful_timeout": "500ms"},
                  "backend:app": {"command": f"{sys.executable} app.py {{port}}"},
                  "route:app": {"path": "/", "backend": "app"}, **HELLO},
                 files={"app.py": program}) as narwhal:
        narwhal.wait_log("deaf")
        narwhal.stop()


def test_status_shows_the_instances():
    with app("uvicorn app_fastapi:app --fd {fd}", instances=2) as narwhal:
        wait_app(narwhal)
        wait_until(lambda: len(narwhal.instances()) == 2, "both")
        text = narwhal.control("status").stdout
        assert all(str(pid) in text for pid in narwhal.instances())
        assert narwhal.status()["backends"]


def test_instance_inherits_no_descriptor_but_its_own():
    with app("uvicorn app_fastapi:app --fd {fd}") as narwhal:
        pid = wait_app(narwhal).json["pid"]
        descriptors = sorted(map(int, os.listdir(f"/proc/{pid}/fd")))
        links = {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in descriptors}
        assert not [link for link in links.values() if "narwhal" in link], links
        master = {os.readlink(f"/proc/{narwhal.pid}/fd/{fd}")
                  for fd in os.listdir(f"/proc/{narwhal.pid}/fd")}
        shared = {link for fd, link in links.items() if link in master and fd > 2 and
                  link.startswith("socket:")}
        assert len(shared) <= 1, f"one listening socket at most: {shared}"


def test_folder_of_the_sockets_is_made_again():
    """Cleaners of /tmp remove what looks old; an operator may remove what looks left over."""
    with Narwhal({"master": {"runtime_dir": "run"},
                  "backend:app": {"command": "uvicorn app_fastapi:app --fd {fd}",
                                  "directory": APPS},
                  "route:app": {"path": "/", "backend": "app"}, **HELLO},
                 errors=["app/0"]) as narwhal:
        wait_app(narwhal)
        shutil.rmtree(narwhal.path("run"))
        os.kill(narwhal.instances()[0], signal.SIGKILL)
        narwhal.wait_log("made again path=")
        wait_app(narwhal)


def test_second_master_with_the_same_folder_is_refused():
    settings = {"backend:app": {"command": "uvicorn app_fastapi:app --uds {socket}",
                                "directory": APPS},
                "route:app": {"path": "/", "backend": "app"}}
    with Narwhal({**settings, "master": {"runtime_dir": "run"}}) as first:
        wait_app(first)
        second = Narwhal({**settings, "master": {"runtime_dir": first.path("run")}}, start=False,
                         errors=["runtime_dir"])
        with second:
            second.start(ready=False)
            second.wait_exit(73)
            line = second.wait_log("runtime_dir: .*")[0]
            assert f"pid {first.pid}" in line, line
        assert client.get(first.address, "/pid").status == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give the instances another user")
@pytest.mark.parametrize("new_privileges", ["off", "on"])
def test_instance_of_another_user_gets_that_users_environment(new_privileges):
    program = "env; grep NoNewPrivs /proc/self/status; exec sleep 1000"
    with Narwhal({"master": {"user": "nobody"},
                  "backend:app": {"command": f'sh -c "{program}" {{port}}',
                                  "new_privileges": new_privileges},
                  "route:app": {"path": "/", "backend": "app"}}, env={"HOME": "/root"}) as narwhal:
        no_new = r"NoNewPrivs:\W" + ("0" if new_privileges == "on" else "1")
        for expected in ("USER=nobody", "LOGNAME=nobody", "HOME=/nonexistent", no_new):
            narwhal.wait_log(rf"instance app/0\[\d+\]: {expected}$")
        for worker in narwhal.workers().values():
            with open(f"/proc/{worker}/status", encoding="ascii") as file:
                assert "NoNewPrivs:\t1" in file.read()
