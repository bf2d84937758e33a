# SPDX-License-Identifier: Apache-2.0
"""Runs chaos-load (tests/chaos/load.c), which CMake builds beside narwhal."""
import json
import os
import subprocess

import narwhal

DEADLINE = 60.0


def binary():
    path = os.environ.get("NARWHAL_CHAOS_LOAD",
                          os.path.join(os.path.dirname(narwhal.binary()), "tests", "chaos",
                                       "chaos-load"))
    if not os.access(path, os.X_OK):
        raise RuntimeError(f"no {path}: build target chaos-load, or set NARWHAL_CHAOS_LOAD")
    return path


def app():
    """The application of the chaos runs, tests/chaos/app.c."""
    return os.path.join(os.path.dirname(binary()), "chaos-app")


class ChaosLoad:
    """One running chaos-load; result() waits for its end and returns what it counted."""

    def __init__(self, address, *options):
        if isinstance(address, tuple):
            address = ("[%s]:%d" if ":" in address[0] else "%s:%d") % address
        self.command = [binary(), "-a", address, *map(str, options)]
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def running(self):
        return self.process.poll() is None

    def result(self, deadline=DEADLINE):
        try:
            out, errors = self.process.communicate(timeout=deadline)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.command} does not end") from None
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.communicate()
        assert self.process.returncode == 0, (self.command, self.process.returncode, errors)
        return json.loads(out)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
