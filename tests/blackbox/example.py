# SPDX-License-Identifier: Apache-2.0
"""Runs an example of etc/examples as it stands there: its own narwhal.ini and application.

    with Example("flask") as narwhal: ...

Flags replace what two tests at once would quarrel over, the address, and add what tests look at.
"""
import os

from narwhal import REPOSITORY, Narwhal, wait_app

EXAMPLES = os.path.join(REPOSITORY, "etc", "examples")


def path(name, *parts):
    return os.path.join(EXAMPLES, name, *parts)


class Example(Narwhal):
    def __init__(self, name, settings=None, env=None, flags=(), **more):
        """settings: another text of the settings file, for an example whose server = line has an
        address that a test cannot use."""
        super().__init__(settings, env={"PYTHONDONTWRITEBYTECODE": "1", **(env or {})},
                         start=False, **more)
        file = [] if settings else ["-c", path(name, "narwhal.ini")]
        self.flags = [*file, "--bind", "127.0.0.1:0", "--workers", "2",
                      "--control", self.control_path, *flags]
        try:
            self.start()
        except BaseException:
            self.show()
            self.destroy()
            raise

    def wait_up(self, target="/"):
        """The answer, as soon as the application answers."""
        return wait_app(self, target)


def text(name, file="narwhal.ini", **changes):
    """The text of a file, with the texts replaced that a test cannot use as they are."""
    with open(path(name, file), encoding="utf-8") as source:
        found = source.read()
    for old, new in changes.items():
        assert old in found, f"{path(name, file)} has no {old}"
        found = found.replace(old, new)
    return found
