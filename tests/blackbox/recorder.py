#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A server in a process of its own that writes down every request it executes, before it answers:
what was executed twice, or executed and not answered, can be told afterwards, even when it was
killed. One thread, one loop, as real servers close idle connections: by a timer.

    recorder.py LISTEN RECORD [--idle-ms N] [--delay-ms N] [--status N] [--keep-alive N]

LISTEN is a port of 127.0.0.1 (0: any) or the path of a unix socket; "listening ADDRESS" is printed
once it listens. SIGTERM: no new connections; what still comes on open ones is answered with
Connection: close, and those that stay idle are closed after a while. A line of the record is "METHOD PATH".
"""
import argparse
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
SERVER = "Server: recorder\r\n"
# How long a server that ends keeps idle connections.
GRACE = 0.3


class Server:
    def __init__(self, options):
        self.options = options
        self.idle = options.idle_ms / 1000
        self.selector = selectors.DefaultSelector()
        self.connections = {}  # socket: [bytes, idle since; 0 before the first answer]
        self.answers = []  # (when, socket, bytes), in order of when
        self.record = os.open(options.record, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.ending = False
        if options.listen.isdigit():
            self.listener = socket.socket()
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.listener.bind(("127.0.0.1", int(options.listen)))
            address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        else:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(options.listen)
            address = f"unix:{options.listen}"
        self.listener.listen(1024)
        self.listener.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ)
        signal.signal(signal.SIGTERM, self.on_term)
        wake, self.woken = socket.socketpair()
        wake.setblocking(False)
        self.wake = wake
        signal.set_wakeup_fd(wake.fileno())
        self.selector.register(self.woken, selectors.EVENT_READ)
        print(f"listening {address}", flush=True)

    def on_term(self, *_):
        self.ending = True

    def close(self, stream):
        self.selector.unregister(stream)
        del self.connections[stream]
        stream.close()

    def accept(self):
        try:
            while True:
                stream, _ = self.listener.accept()
                stream.setblocking(False)
                if stream.family == socket.AF_INET:
                    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections[stream] = [b"", 0]
                self.selector.register(stream, selectors.EVENT_READ)
        except BlockingIOError:
            pass

    def execute(self, stream, head, body):
        method, path, _ = head.split(b" ", 2)
        if path != b"/up":
            os.write(self.record, method + b" " + path + b"\n")
        text = "ok %d %d\n" % (os.getpid(), len(body))
        answer = (f"HTTP/1.1 {self.options.status} Told\r\n{SERVER}"
                  f"Content-Length: {len(text)}\r\n"
                  + (f"Keep-Alive: timeout={self.options.keep_alive}\r\n"
                     if self.options.keep_alive else "")
                  + ("Connection: close\r\n" if self.ending else "") + f"\r\n{text}").encode()
        self.connections[stream][1] = 0
        if self.options.delay_ms:
            self.answers.append((time.monotonic() + self.options.delay_ms / 1000, stream, answer))
        else:
            self.answer(stream, answer)

    def answer(self, stream, answer):
        if stream not in self.connections:
            return
        try:
            stream.sendall(answer)
        except OSError:
            self.close(stream)
            return
        if b"Connection: close" in answer:
            self.close(stream)
        else:
            self.connections[stream][1] = time.monotonic()

    def read(self, stream):
        state = self.connections[stream]
        try:
            data = stream.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.close(stream)
            return
        state[0] += data
        while stream in self.connections and b"\r\n\r\n" in state[0]:
            head, _, rest = state[0].partition(b"\r\n\r\n")
            length = int((LENGTH.search(head) or [0, 0])[1])
            if len(rest) < length:
                return
            state[0] = rest[length:]
            self.execute(stream, head, rest[:length])

    def turn(self):
        now = time.monotonic()
        while self.answers and self.answers[0][0] <= now:
            _, stream, answer = self.answers.pop(0)
            self.answer(stream, answer)
        for stream, (data, since) in list(self.connections.items()):
            if since and not data and self.idle and now - since >= self.idle:
                self.close(stream)
        if self.ending and self.listener is not None:
            self.idle = GRACE
            for state in self.connections.values():
                state[1] = state[1] or now
            self.selector.unregister(self.listener)
            self.listener.close()
            self.listener = None

    def run(self):
        while self.listener is not None or self.connections:
            waits = [0.5]
            if self.answers:
                waits.append(self.answers[0][0] - time.monotonic())
            if self.idle and self.connections:
                waits.append(self.idle / 4)
            for key, _ in self.selector.select(max(0, min(waits))):
                if key.fileobj is self.listener:
                    self.accept()
                elif key.fileobj is self.woken:
                    self.woken.recv(64)
                elif key.fileobj in self.connections:
                    self.read(key.fileobj)
            self.turn()


class Recorder:
    """One such server as a child of a test, which may be killed and started again."""

    def __init__(self, folder, name="recorder", listen="0", **options):
        self.record = os.path.join(folder, name + ".record")
        self.options = options
        self.listen = listen
        self.process = None
        self.start()

    def start(self):
        words = [f"--{key.replace('_', '-')}={value}" for key, value in self.options.items()]
        if not self.listen.isdigit() and os.path.exists(self.listen):
            os.unlink(self.listen)
        self.process = subprocess.Popen([sys.executable, __file__, self.listen, self.record, *words],
                                        stdout=subprocess.PIPE, text=True)
        word, self.server = self.process.stdout.readline().split()
        assert word == "listening"
        if self.listen.isdigit():
            self.listen = self.server.rpartition(":")[2]
        return self

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        self.process.wait(30)
        self.process.stdout.close()

    def executed(self):
        """What it executed, in order, over all its lives: b"METHOD PATH"."""
        with open(self.record, "rb") as file:
            return file.read().splitlines()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.kill()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("listen")
    parser.add_argument("record")
    parser.add_argument("--idle-ms", type=float, default=0)
    parser.add_argument("--delay-ms", type=float, default=0)
    parser.add_argument("--status", type=int, default=200)
    parser.add_argument("--keep-alive", type=int, default=0)
    Server(parser.parse_args()).run()


if __name__ == "__main__":
    main()
