# SPDX-License-Identifier: Apache-2.0
"""An application whose memory grows: python app_grows.py FD. Each request for /grow keeps 8 MiB
more, half of it in a child process; /pid answers with the pid."""
import os
import socket
import sys
import time


def child(pipe):
    kept = []
    while os.read(pipe, 1):
        kept.append(os.urandom(4 << 20))
    os._exit(0)


def main():
    listener = socket.socket(fileno=int(sys.argv[1]))
    read_end, write_end = os.pipe()
    if os.fork() == 0:
        os.close(write_end)
        listener.close()
        child(read_end)
    kept = []
    while True:
        try:
            connection = listener.accept()[0]
        except BlockingIOError:
            time.sleep(0.01)
            continue
        connection.setblocking(True)
        with connection:
            head = b""
            while b"\r\n\r\n" not in head:
                more = connection.recv(65536)
                if not more:
                    break
                head += more
            else:
                if head.startswith(b"GET /grow"):
                    kept.append(os.urandom(4 << 20))
                    os.write(write_end, b"x")
                body = str(os.getpid()).encode()
                connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d"
                                   b"\r\n\r\n%s" % (len(body), body))


main()
