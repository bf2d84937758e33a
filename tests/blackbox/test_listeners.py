# SPDX-License-Identifier: Apache-2.0
"""Where narwhal listens: TCP v4 and v6, unix, inherited sockets; and what it says when it cannot."""
import ctypes
import errno
import os
import socket
import stat

import pytest

import client
from backend import Backend
from narwhal import Narwhal, mode_of, title_of, wait_until

LIBC = ctypes.CDLL(None, use_errno=True)
HELLO = {"route:hello": {"path": "/", "respond": "200 hello"}}


def hello(address):
    response = client.get(address)
    assert response.status == 200 and response.text.rstrip("\n") == "hello"


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
        return True
    except OSError:
        return False


def test_several_addresses_at_once():
    with Narwhal(HELLO, start=False) as narwhal:
        narwhal.write({**HELLO, "master": {"bind": ["127.0.0.1:0", "0.0.0.0:0",
                                                    f"unix:{narwhal.path('http.sock')}"]}})
        narwhal.start()
        assert len(narwhal.addresses()) == 3
        for address in narwhal.addresses():
            hello(address)


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
def test_ipv6():
    with Narwhal({**HELLO, "master": {"bind": "[::1]:0"}}) as narwhal:
        assert narwhal.address[0] == "::1"
        hello(narwhal.address)


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
def test_the_same_port_on_both_families():
    """[::] is for IPv6 alone, so that 0.0.0.0 may have the same port."""
    with Narwhal({**HELLO, "master": {"bind": "[::]:0"}}) as narwhal:
        port = narwhal.port
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))


SYS_PIDFD_GETFD = 438  # asm-generic/unistd.h; Python has no function for it


def accepted_from(pid, port):
    """The connections that a process has accepted on port: sockets of ours, by pidfd_getfd(2)."""
    found = []
    process = os.pidfd_open(pid)
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            copy = LIBC.syscall(SYS_PIDFD_GETFD, process, int(name), 0)
            if copy == -1:
                if ctypes.get_errno() == errno.EPERM:
                    pytest.skip("pidfd_getfd(2) is not permitted (kernel.yama.ptrace_scope)")
                continue  # closed meanwhile
            if not stat.S_ISSOCK(os.fstat(copy).st_mode):
                os.close(copy)
                continue
            connection = socket.socket(fileno=copy)
            if (connection.family == socket.AF_INET and connection.getsockname()[1] == port and
                    not connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)):
                found.append(connection)
            else:
                connection.close()
    finally:
        os.close(process)
    return found


@pytest.mark.parametrize("inherited", [False, True])
def test_what_is_written_is_sent_at_once(inherited):
    """Nagle's algorithm would hold a small write until the one before it was acknowledged."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = {**HELLO, "master": {"workers": 1, **({"bind": "fd://3"} if inherited else {})}}
        narwhal = with_inherited(listener, one) if inherited else Narwhal(one, start=False)
        with narwhal:
            narwhal.start()
            port = listener.getsockname()[1] if inherited else narwhal.port
            with client.Client(("127.0.0.1", port)) as kept:
                kept.send(client.encode("GET", "/"))
                assert kept.response().status == 200
                connections = accepted_from(narwhal.workers()[0], port)
                assert len(connections) == 1
                with connections[0] as connection:
                    assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def unix_front(**master):
    narwhal = Narwhal(HELLO, start=False)
    narwhal.write({**HELLO, "master": {"bind": f"unix:{narwhal.path('http.sock')}", **master}})
    return narwhal


def test_unix_socket_is_made_and_removed():
    with unix_front() as narwhal:
        narwhal.start()
        path = narwhal.path("http.sock")
        hello(path)
        # Whoever fronts narwhal must be able to connect: write permission (unix(7)).
        assert mode_of(path) & 0o600 == 0o600
        narwhal.stop()
        assert not os.path.exists(path)


def test_all_workers_serve_the_unix_socket():
    with unix_front(workers=2) as narwhal:
        narwhal.start()

        def spread():
            hello(narwhal.path("http.sock"))
            return all(worker["requests"] for worker in narwhal.status()["workers"])
        wait_until(spread, "a request for every worker")


def test_stale_unix_socket_is_replaced():
    with unix_front() as narwhal:
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(narwhal.path("http.sock"))
        narwhal.start()
        hello(narwhal.path("http.sock"))


def test_living_unix_socket_is_not_taken_away():
    with unix_front() as narwhal, socket.socket(socket.AF_UNIX) as other:
        other.bind(narwhal.path("http.sock"))
        other.listen()
        refused_at_start(narwhal, "http.sock", "listens")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(narwhal.path("http.sock"))


def test_file_that_is_no_socket_is_not_removed():
    with unix_front() as narwhal:
        path = narwhal.file("http.sock", "precious")
        refused_at_start(narwhal, "http.sock")
        with open(path, encoding="ascii") as file:
            assert file.read() == "precious"


def refused_at_start(narwhal, *words):
    narwhal.expect_error(".")
    narwhal.start(ready=False)
    status = narwhal.process.wait(client.DEADLINE)
    narwhal._reader.join()
    said = "\n".join(narwhal.log())
    assert status not in (0, 64) and status > 0, (status, said)
    for word in words:
        assert word in said, (word, said)
    return said


def test_port_in_use_names_the_holder():
    with Backend() as holder:
        narwhal = Narwhal({**HELLO, "master": {"bind": holder.server}}, start=False)
        with narwhal:
            refused_at_start(narwhal, holder.server, "in use", str(os.getpid()))


def test_port_of_another_narwhal_is_not_shared():
    """SO_REUSEPORT would let two masters of one user share a port without a word."""
    with Narwhal(HELLO) as first:
        host, port = first.address
        second = Narwhal({**HELLO, "master": {"bind": f"{host}:{port}"}}, start=False)
        with second:
            refused_at_start(second, f"{host}:{port}", "in use", str(first.pid))
        hello(first.address)


def test_address_that_is_not_of_this_machine():
    narwhal = Narwhal({**HELLO, "master": {"bind": "192.0.2.1:0"}}, start=False)
    with narwhal:
        refused_at_start(narwhal, "192.0.2.1", "assign")


@pytest.mark.skipif(os.getuid() == 0, reason="root may bind any port")
def test_privileged_port():
    narwhal = Narwhal({**HELLO, "master": {"bind": "127.0.0.1:1"}}, start=False)
    with narwhal:
        refused_at_start(narwhal, "127.0.0.1:1", "ermission denied")


def test_folder_of_the_unix_socket_is_missing():
    narwhal = Narwhal({**HELLO, "master": {"bind": "unix:/no/such/folder/x"}}, start=False)
    with narwhal:
        refused_at_start(narwhal, "/no/such/folder", "No such file")


def with_inherited(listener, settings, environment=True):
    """A narwhal that finds the listener at descriptor 3, as systemd hands it."""
    narwhal = Narwhal(settings, start=False)
    number = listener.fileno()
    # LISTEN_PID must be the process's own pid: a shell replaces itself by narwhal.
    export = "LISTEN_FDS=1 LISTEN_PID=$$ " if environment else ""
    narwhal._popen = {"pass_fds": [3], "preexec_fn": lambda: os.dup2(number, 3)}
    real = narwhal.command()
    narwhal.command = lambda: ["sh", "-c", f"exec env {export}\"$0\" \"$@\"", *real]
    return narwhal


@pytest.mark.parametrize("environment", [True, False], ids=["LISTEN_FDS", "bare descriptor"])
def test_inherited_socket(environment):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        address = listener.getsockname()
        narwhal = with_inherited(listener, {**HELLO, "master": {"bind": "fd://3", "workers": 2}},
                                 environment)
        with narwhal:
            # A client that came before narwhal is served too.
            with client.Client(address) as early:
                early.send(client.encode("GET", "/"))
                narwhal.start()
                assert early.response().status == 200
            hello(address)
            narwhal.stop()
        # It is not narwhal's to end: the next process that has it can go on.
        with client.Client(address) as waiting:
            waiting.send(client.encode("GET", "/"))
            accepted, _ = listener.accept()
            accepted.close()


def test_inherited_unix_socket():
    with Narwhal(None, start=False) as folder, socket.socket(socket.AF_UNIX) as listener:
        path = folder.path("inherited.sock")
        listener.bind(path)
        listener.listen(64)
        narwhal = with_inherited(listener, {**HELLO, "master": {"bind": "fd://3"}})
        with narwhal:
            narwhal.start()
            hello(path)
        assert os.path.exists(path), "whoever made it removes it"


def test_descriptor_that_is_no_listening_socket():
    with Narwhal({**HELLO, "master": {"bind": "fd://9"}}, start=False) as narwhal:
        refused_at_start(narwhal, "fd://9")
    left, right = socket.socketpair()
    with left, right:
        narwhal = with_inherited(left, {**HELLO, "master": {"bind": "fd://3"}})
        with narwhal:
            refused_at_start(narwhal, "fd://3")


def test_pidfile():
    with Narwhal({**HELLO, "master": {"pidfile": "./narwhal.pid"}}) as narwhal:
        path = narwhal.path("narwhal.pid")
        with open(path, encoding="ascii") as file:
            assert int(file.read()) == narwhal.pid
        second = Narwhal({**HELLO, "master": {"pidfile": path}}, start=False)
        with second:
            refused_at_start(second, path, str(narwhal.pid))
        assert title_of(narwhal.pid) == "narwhal: master"
        narwhal.stop()
        assert not os.path.exists(path)


def test_stale_pidfile_is_taken_over():
    with Narwhal({**HELLO, "master": {"pidfile": "./narwhal.pid"}},
                 files={"narwhal.pid": f"{os.getpid()}\n"}) as narwhal:
        with open(narwhal.path("narwhal.pid"), encoding="ascii") as file:
            assert int(file.read()) == narwhal.pid


def test_control_socket_is_private():
    with Narwhal(HELLO) as narwhal:
        assert mode_of(narwhal.control_path) == 0o600
        narwhal.stop()
        assert not os.path.exists(narwhal.control_path)


def test_control_refuses_what_it_does_not_know():
    with Narwhal(HELLO) as narwhal:
        assert narwhal.control("no-such-command", check=False).returncode != 0
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(client.DEADLINE)
            raw.connect(narwhal.control_path)
            raw.sendall(b"\0" * 100_000 + b"\n")
            try:
                while raw.recv(65536):
                    pass
            except ConnectionResetError:
                pass
        # A client that says nothing holds nobody up.
        with socket.socket(socket.AF_UNIX) as silent:
            silent.connect(narwhal.control_path)
            assert narwhal.status()["workers"]


def test_a_host_and_any_host_with_the_same_port():
    """What a reload takes, a start takes too."""
    with Narwhal(HELLO) as narwhal:
        port = narwhal.port
        both = {**HELLO, "master": {"bind": [f"127.0.0.1:{port}", f"0.0.0.0:{port}"]}}
        narwhal.write({**HELLO, "master": {"bind": f"127.0.0.1:{port}"}})
        narwhal.reload()
        narwhal.write(both)
        narwhal.reload()
        hello(("127.0.0.1", port))
        hello(("127.0.0.2", port))
    with Narwhal(both) as narwhal:
        hello(("127.0.0.1", port))
        hello(("127.0.0.2", port))
