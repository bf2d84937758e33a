# SPDX-License-Identifier: Apache-2.0
"""A service manager for tests: receives what narwhal tells (sd_notify(3)), keeps the descriptors
that it stores and passes sockets and stored descriptors to the next one, as systemd does."""
import array
import contextlib
import os
import shutil
import socket
import tempfile
import threading
import time

import client


class Manager:
    """with Manager() as manager: …; every message is a dict of its lines."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="narwhal-manager-")
        self.path = os.path.join(self.folder, "notify")
        self.store = []  # (name, descriptor)
        self.messages = []
        self._changed = threading.Condition()
        self._socket = None
        self._thread = None
        self._stop = os.pipe()
        self.listen()

    def __enter__(self):
        return self

    def __exit__(self, *about):
        self.deafen()
        for _, fd in self.store:
            os.close(fd)
        for fd in self._stop:
            os.close(fd)
        shutil.rmtree(self.folder, ignore_errors=True)

    def listen(self):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(0.1)
        self._thread = threading.Thread(target=self._read, args=(self._socket,), daemon=True)
        self._thread.start()

    def deafen(self):
        """The notify socket is gone."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        heard, self._socket = self._socket, None
        if heard is not None:
            self._thread.join()
            heard.close()

    def _read(self, heard):
        while self._socket is heard:
            try:
                data, control, _, _ = heard.recvmsg(65536, socket.CMSG_SPACE(64 * 4))
            except socket.timeout:
                continue
            fds = array.array("i")
            for level, kind, payload in control:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds.frombytes(payload[:len(payload) - len(payload) % fds.itemsize])
            message = dict(line.split("=", 1) for line in data.decode().split("\n"))
            with self._changed:
                self._take(message, list(fds))
                self.messages.append(message)
                self._changed.notify_all()

    def _take(self, message, fds):
        name = message.get("FDNAME", "stored")
        if message.get("FDSTOREREMOVE") == "1":
            for found, fd in [entry for entry in self.store if entry[0] == name]:
                self.store.remove((found, fd))
                os.close(fd)
        for fd in fds:
            same = any(os.path.sameopenfile(fd, kept) for _, kept in self.store)
            if message.get("FDSTORE") == "1" and not same:
                self.store.append((name, fd))
            else:
                os.close(fd)

    def names(self):
        with self._changed:
            return sorted(name for name, _ in self.store)

    def mark(self):
        with self._changed:
            return len(self.messages)

    def wait(self, what, since=0, deadline=client.DEADLINE):
        """The first message for which what(message) holds."""
        end = time.monotonic() + deadline
        with self._changed:
            while True:
                for message in self.messages[since:]:
                    if what(message):
                        return message
                left = end - time.monotonic()
                assert left > 0, f"no such message among {self.messages[since:]}"
                self._changed.wait(left)

    def wait_names(self, wanted, deadline=client.DEADLINE):
        end = time.monotonic() + deadline
        with self._changed:
            while sorted(name for name, _ in self.store) != sorted(wanted):
                left = end - time.monotonic()
                assert left > 0, f"{sorted(name for name, _ in self.store)}, not {wanted}"
                self._changed.wait(left)

    def environment(self, store=64, **more):
        found = {"NOTIFY_SOCKET": self.path, **more}
        if store:
            found["FDSTORE"] = str(store)
        return found

    def pass_to(self, narwhal, sockets=(), stored=True, announced=None, names=True):
        """Makes narwhal start with sockets, [(name, socket or descriptor)], and what is stored."""
        passed = [(name, item if isinstance(item, int) else item.fileno())
                  for name, item in sockets] + (list(self.store) if stored else [])
        # First above all targets, so that no dup2() hits a descriptor that is still needed.
        spare = 200

        def place():
            for index, (_, fd) in enumerate(passed):
                os.dup2(fd, spare + index)
            for index in range(len(passed)):
                os.dup2(spare + index, 3 + index)
                os.close(spare + index)
        count = len(passed) if announced is None else announced
        export = f"LISTEN_FDS={count} LISTEN_PID=$$ "
        if names:
            export += "LISTEN_FDNAMES=" + ":".join(f"'{name}'" for name, _ in passed) + " "
        narwhal._popen = {"pass_fds": list(range(3, 3 + len(passed))), "preexec_fn": place}
        real = [narwhal.program, "--config", narwhal.settings_path, *narwhal.flags]
        narwhal.command = lambda: ["sh", "-c", f"exec env {export}\"$0\" \"$@\"", *real]
        return narwhal
