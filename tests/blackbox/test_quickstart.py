# SPDX-License-Identifier: Apache-2.0
"""The first command of the README, from a fresh clone in an empty folder."""
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

import client
from backend import free_port
from narwhal import DEADLINE, NO_SERVER, REPOSITORY, children_of, descendants_of, is_alive, \
    title_of, wait_until

BUILD_DEADLINE = 400


class Quickstart:
    """sh etc/quickstart.sh in a clone, and what it prints."""

    def __init__(self, clone, port):
        environment = {name: value for name, value in os.environ.items()
                       if not name.startswith("NARWHAL_")}
        self.begin = time.monotonic()
        self.process = subprocess.Popen(["sh", "etc/quickstart.sh", "--bind",
                                         f"127.0.0.1:{port}"], cwd=clone, env=environment,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True,
                                        start_new_session=True)
        self.lines = []
        self.changed = threading.Condition()
        self.ended = False
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line.rstrip("\n"))
                self.changed.notify_all()
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def text(self):
        with self.changed:
            return "\n".join(self.lines)

    def wait_line(self, pattern, deadline):
        with self.changed:
            assert self.changed.wait_for(
                lambda: self.ended or any(re.search(pattern, line) for line in self.lines),
                deadline), f"no {pattern!r} in\n" + "\n".join(self.lines)
            found = [line for line in self.lines if re.search(pattern, line)]
            assert found, f"it ended without {pattern!r}:\n" + "\n".join(self.lines)
            return found[0]

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            print(self.text(), file=sys.stderr)
        for pid in [self.process.pid] + descendants_of(self.process.pid):
            if is_alive(pid):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        self.process.wait()


@pytest.fixture(name="clone", scope="module")
def fresh_clone(tmp_path_factory):
    if not os.path.isdir(f"{REPOSITORY}/.git") or not shutil.which("git"):
        pytest.skip("this is not a git checkout")
    folder = tmp_path_factory.mktemp("quickstart") / "narwhal"
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", REPOSITORY, folder], check=True)
    folder.parent.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def up(quickstart, address, deadline):
    """Waits until the site answers, and checks what is promised."""
    quickstart.wait_line(r"ready workers=2", deadline)
    page = client.get(address, "/")
    assert page.status == 200 and page["Content-Type"].startswith("text/html")
    assert "narwhal" in page.text.lower()
    assert client.get(address, "/healthz").status == 200


def master_of(quickstart):
    def found():
        for pid in [quickstart.process.pid] + descendants_of(quickstart.process.pid):
            if title_of(pid) == "narwhal: master":
                return pid
        return None
    return wait_until(found, "the master")


def test_quickstart(clone):
    port = free_port()
    address = ("127.0.0.1", port)
    with Quickstart(clone, port) as first:
        up(first, address, BUILD_DEADLINE)
        answers = set()

        def both():
            response = client.get(address, "/api/whoami")
            assert response.status in (200, 503), response
            if response.status == 200:
                answers.add(response.body)
            return len(answers) >= 2
        wait_until(both, "an answer of both instances")
        master = master_of(first)
        workers = [pid for pid in children_of(master) if title_of(pid).startswith("narwhal: ")]
        assert len(workers) == 2
        assert len(children_of(master)) == 4, "two workers and two instances"
        said = first.text()
        for word in ("/api/", "/healthz", f":{port}", "HUP", "kill", "TTIN"):
            assert word in said or word.lower() in said.lower(), f"it does not speak of {word}"
        # Ctrl-C goes to the whole foreground group.
        os.killpg(first.process.pid, signal.SIGINT)
        assert first.process.wait(DEADLINE) in (0, 130, -signal.SIGINT)
        wait_until(lambda: not is_alive(master) and not any(map(is_alive, workers)), "the end")
        wait_until(lambda: first.ended, "the end of the output")
        # Asked before the application was up: 503, and a line about it.
        errors = [line for line in first.lines
                  if " error " in line and not re.search(NO_SERVER, line)]
        assert not errors, errors

    with Quickstart(clone, port) as second:
        up(second, address, DEADLINE)
        took = time.monotonic() - second.begin
        assert took < 2, f"a second start served after {took:.1f} s, not within two seconds"
        os.killpg(second.process.pid, signal.SIGINT)
        second.process.wait(DEADLINE)
        wait_until(lambda: second.ended, "the end of the output")
