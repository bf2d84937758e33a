# SPDX-License-Identifier: Apache-2.0
"""Servers by name: resolved in the background, by a process of its own, whose worst is that the
servers stay what they were. Against a real dnsmasq, and against name servers that lie."""
import contextlib
import os
import pwd
import signal
import socket
import struct
import subprocess
import threading

import pytest

import client
from dns import A, CNAME, Dnsmasq, Liar, answer, encode_name, record
from narwhal import Narwhal, binary, children_of, is_alive, title_of, wait_until

NOT_YET = r"cannot be resolved: .* it has no server until this succeeds"


class Host:
    """A server that answers every request with its own address."""

    def __init__(self, host, port=0, hold=None):
        self.host, self.hold = host, hold
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.create_server((host, port), family=family)
        self.port = self.listener.getsockname()[1]
        self.streams = set()
        self.requests = 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                stream, _ = self.listener.accept()
                self.streams.add(stream)
                threading.Thread(target=self.serve, args=(stream,), daemon=True).start()

    def serve(self, stream):
        with contextlib.suppress(OSError), stream.makefile("rb") as file:
            while file.readline():
                while file.readline() not in (b"\r\n", b""):
                    pass
                self.requests += 1
                if self.hold:
                    assert self.hold.wait(client.DEADLINE)
                stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (
                    len(self.host), self.host.encode()))

    def stop(self):
        for stream in [self.listener, *self.streams]:
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
            stream.close()


@contextlib.contextmanager
def hosts(*addresses, hold=None):
    """Servers at these addresses of this machine, all at one port."""
    found = []
    with contextlib.ExitStack() as stack:
        for address in addresses:
            found.append(Host(address, found[0].port if found else 0, hold))
            stack.callback(found[-1].stop)
        yield found


def front(dns, server, errors=(), workers=2, master=None, **backend):
    return Narwhal({"master": {"workers": workers, "resolver": dns.server,
                               "resolver_ttl_min": "100ms", **(master or {})},
                    "backend:b": {"server": server, **backend},
                    "route:b": {"path": "/", "backend": "b"}}, errors=errors)


def seen(narwhal, count=12):
    """The servers that answer so many requests."""
    found = set()
    for _ in range(count):
        response = client.get(narwhal.address)
        assert response.status == 200, response
        found.add(response.text)
    return found


def addresses(narwhal, states=("READY",)):
    backend = narwhal.status()["backends"][0]
    return {server["address"] for server in backend["servers"] if server["state"] in states}


def wait_addresses(narwhal, *wanted):
    wait_until(lambda: addresses(narwhal) == set(wanted), f"the servers {wanted}")


def resolvers(narwhal):
    return [pid for pid in children_of(narwhal.pid) if title_of(pid) == "narwhal: resolver"]


# ---- what names become ---------------------------------------------------------------------------
@pytest.mark.parametrize("form", ["dns:api.test:{}", "api.test:{}", "API.test.:{}"])
def test_all_addresses_of_a_name_are_servers(form):
    with hosts("127.0.0.2", "127.0.0.3", "::1") as (one, *_), \
            Dnsmasq({"api.test": ["127.0.0.2", "127.0.0.3", "::1"]}) as dns, \
            front(dns, form.format(one.port)) as narwhal:
        assert client.get(narwhal.address).status == 200  # the first one waits for the answer
        wait_addresses(narwhal, f"127.0.0.2:{one.port}", f"127.0.0.3:{one.port}",
                       f"[::1]:{one.port}")
        assert seen(narwhal, 30) == {"127.0.0.2", "127.0.0.3", "::1"}
        narwhal.wait_log(r"name=dns:api\.test\.?:\d+ is resolved addresses=3")


def test_records_change_by_their_ttl_and_no_request_is_lost():
    stop = threading.Event()
    failures = []

    def load(address):
        with client.Client(address) as connection:
            while not stop.is_set():
                response = connection.get("/")
                if response.status != 200:
                    failures.append(response)
    with hosts("127.0.0.2", "127.0.0.3", "127.0.0.4") as (one, *_), \
            Dnsmasq({"api.test": ["127.0.0.2"]}, ttl=1) as dns, \
            front(dns, f"api.test:{one.port}") as narwhal:
        assert seen(narwhal) == {"127.0.0.2"}
        threads = [threading.Thread(target=load, args=(narwhal.address,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for wanted in (["127.0.0.3", "127.0.0.4"], ["127.0.0.4"], ["127.0.0.2", "127.0.0.3"]):
                dns.set({"api.test": wanted})
                wait_addresses(narwhal, *(f"{host}:{one.port}" for host in wanted))
                assert seen(narwhal) == set(wanted)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert not failures
        narwhal.wait_log(r"name=dns:api\.test:\d+ has other addresses now added=2 removed=1 "
                         "addresses=2")
        # No worker was replaced and no settings were sent for it.
        assert narwhal.status()["serial"] == 1
        assert not [line for line in narwhal.lines if "reload" in line]


def test_requests_in_flight_at_an_address_that_goes_are_answered():
    go = threading.Event()
    with hosts("127.0.0.2", hold=go) as (old,), Dnsmasq({"api.test": ["127.0.0.2"]}) as dns, \
            front(dns, f"api.test:{old.port}", addresses=1) as narwhal, \
            client.Client(narwhal.address) as slow:
        new = Host("127.0.0.3", old.port)
        try:
            slow.send(client.encode("GET", "/"))
            wait_until(lambda: old.requests == 1, "the request at its server")
            dns.set({"api.test": ["127.0.0.3"]})
            wait_addresses(narwhal, f"127.0.0.3:{old.port}")
            assert seen(narwhal) == {"127.0.0.3"}
            assert f"127.0.0.2:{old.port}" in addresses(narwhal, ("DRAINING",))
            go.set()
            assert slow.response().text == "127.0.0.2"
            wait_until(lambda: not addresses(narwhal, ("DRAINING",)), "its record to be free")
        finally:
            new.stop()


def test_pooled_connections_of_an_address_that_went_are_not_used_for_its_successor():
    """Two records take turns between many addresses."""
    with Dnsmasq({"api.test": ["127.0.0.2"]}) as dns, hosts(
            "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5") as (one, *_), \
            front(dns, f"api.test:{one.port}", workers=1, addresses=1,
                  idle_timeout="1m") as narwhal:
        for round_number in range(6):
            host = f"127.0.0.{2 + round_number % 4}"
            dns.set({"api.test": [host]})
            wait_addresses(narwhal, f"{host}:{one.port}")
            assert seen(narwhal) == {host}


def test_srv_records_have_ports_and_weights_and_priorities():
    with hosts("127.0.0.2") as (one,), hosts("127.0.0.3") as (two,), hosts("127.0.0.4") as (last,), \
            Dnsmasq({"a.test": ["127.0.0.2"], "b.test": ["127.0.0.3"], "c.test": ["127.0.0.4"]},
                    lines=[f"srv-host=_http._tcp.api.test,a.test,{one.port},10,3",
                           f"srv-host=_http._tcp.api.test,b.test,{two.port},10,1",
                           f"srv-host=_http._tcp.api.test,c.test,{last.port},20,1"]) as dns, \
            front(dns, "dns+srv:_http._tcp.api.test", workers=1,
                  balance="round_robin") as narwhal:
        assert seen(narwhal, 40) == {"127.0.0.2", "127.0.0.3"}
        # Each worker's turns begin anywhere, so the shares are exact but for one or two.
        assert 28 <= one.requests <= 32 and last.requests == 0
        assert one.requests + two.requests == 40
        # RFC 2782: the next priority when none of the first can be reached.
        narwhal.expect_error(r"server=127\.0\.0\.[23]")
        one.stop()
        two.stop()
        assert seen(narwhal, 10) == {"127.0.0.4"}


# ---- names that do not resolve -------------------------------------------------------------------
def test_start_is_not_refused_and_requests_wait():
    with hosts("127.0.0.2") as (one,), Dnsmasq() as dns, \
            front(dns, f"late.test:{one.port}", errors=[NOT_YET], queue_timeout="30s",
                  master={"resolver_ttl_max": "200ms"}) as narwhal, \
            client.Client(narwhal.address) as early:
        narwhal.wait_log(NOT_YET)
        early.send(client.encode("GET", "/"))
        assert addresses(narwhal, ("STARTING",)) == {f"dns:late.test:{one.port}"}
        dns.set({"late.test": ["127.0.0.2"]})
        assert early.response().text == "127.0.0.2"
        narwhal.wait_log("name=dns:late.test:.* is resolved addresses=1")
        assert len([line for line in narwhal.lines if "cannot be resolved" in line]) == 1


def test_a_name_that_never_resolves_is_a_503_in_time():
    with Dnsmasq() as dns, front(dns, "never.test:80", queue_timeout="100ms",
                                 errors=[NOT_YET, "status=503"]) as narwhal:
        response = client.get(narwhal.address)
        assert response.status == 503 and response["Retry-After"].isdigit()
        narwhal.wait_log(NOT_YET)


def test_the_last_good_answer_stays_when_dns_is_gone_or_denies():
    with hosts("127.0.0.2", "127.0.0.3") as (one, *_), Dnsmasq({"api.test": ["127.0.0.2"]}) as dns, \
            front(dns, f"api.test:{one.port}",
                  master={"resolver_ttl_max": "200ms"}) as narwhal:
        wait_addresses(narwhal, f"127.0.0.2:{one.port}")
        dns.set({})  # NXDOMAIN
        narwhal.wait_log("warn .*cannot be resolved: .*stay in use servers=1")
        assert seen(narwhal) == {"127.0.0.2"}
        mark = narwhal.mark()
        dns.set({"api.test": ["127.0.0.2"]})
        narwhal.wait_log("is resolved again addresses=1", since=mark)
        dns.stop()
        narwhal.wait_log("warn .*cannot be resolved: .*stay in use servers=1", since=mark)
        assert seen(narwhal) == {"127.0.0.2"}
        dns.set({"api.test": ["127.0.0.3"]})
        dns.start()
        wait_addresses(narwhal, f"127.0.0.3:{one.port}")
        assert seen(narwhal) == {"127.0.0.3"}
        # Told once, however often it failed.
        assert len([line for line in narwhal.lines if "cannot be resolved" in line]) == 2


def test_a_new_name_by_reload_and_a_name_that_goes():
    with hosts("127.0.0.2", "127.0.0.3") as (one, *_), \
            Dnsmasq({"a.test": ["127.0.0.2"], "b.test": ["127.0.0.3"]}) as dns, \
            front(dns, f"a.test:{one.port}") as narwhal:
        assert seen(narwhal) == {"127.0.0.2"}
        settings = {"master": {"resolver": dns.server, "resolver_ttl_min": "100ms"},
                    "route:b": {"path": "/", "backend": "b"}}
        narwhal.write({**settings, "backend:b": {"server": [f"a.test:{one.port}",
                                                            f"b.test:{one.port}"]}})
        narwhal.reload()
        wait_addresses(narwhal, f"127.0.0.2:{one.port}", f"127.0.0.3:{one.port}")
        narwhal.write({**settings, "backend:b": {"server": f"b.test:{one.port}"}})
        narwhal.reload()
        wait_addresses(narwhal, f"127.0.0.3:{one.port}")
        assert seen(narwhal) == {"127.0.0.3"}
        narwhal.write({**settings, "backend:b": {"server": f"127.0.0.2:{one.port}"}})
        narwhal.reload()
        wait_until(lambda: not resolvers(narwhal), "the end of the resolver")
        assert seen(narwhal) == {"127.0.0.2"}


def test_without_names_there_is_no_resolver():
    with Narwhal({"backend:b": {"server": "127.0.0.1:1"},
                  "route:b": {"path": "/", "backend": "b"}}) as narwhal:
        assert len(children_of(narwhal.pid)) == 2 and not resolvers(narwhal)


def test_etc_hosts_is_honoured():
    """The name server knows nothing of it."""
    found = None
    with open("/etc/hosts", encoding="utf-8") as file:
        for line in file:
            words = line.partition("#")[0].split()
            if words and words[0] in ("127.0.0.1", "::1"):
                found = next((name for name in words[1:] if name != "localhost"), found)
    if found is None:
        pytest.skip("/etc/hosts has no name of the loopback but localhost")
    with hosts("127.0.0.1", "::1") as (one, _), Dnsmasq() as dns, \
            front(dns, f"{found}:{one.port}") as narwhal:
        assert seen(narwhal) <= {"127.0.0.1", "::1"}


# ---- the resolver process ------------------------------------------------------------------------
def test_kill_9_of_the_resolver_harms_nobody():
    with hosts("127.0.0.2", "127.0.0.3") as (one, *_), Dnsmasq({"api.test": ["127.0.0.2"]}) as dns, \
            front(dns, f"api.test:{one.port}") as narwhal:
        wait_addresses(narwhal, f"127.0.0.2:{one.port}")
        for _ in range(2):
            old, = resolvers(narwhal)
            os.kill(old, signal.SIGKILL)
            assert seen(narwhal) == {"127.0.0.2"}
            wait_until(lambda: resolvers(narwhal) not in ([], [old]), "another resolver")
        narwhal.wait_log("warn .*the resolver died, the servers known before stay in use .*"
                         "signal=SIGKILL")
        dns.set({"api.test": ["127.0.0.3"]})
        wait_addresses(narwhal, f"127.0.0.3:{one.port}")


def test_a_stopped_resolver_harms_nobody():
    with hosts("127.0.0.2") as (one,), Dnsmasq({"api.test": ["127.0.0.2"]}) as dns, \
            front(dns, f"api.test:{one.port}") as narwhal:
        wait_addresses(narwhal, f"127.0.0.2:{one.port}")
        os.kill(resolvers(narwhal)[0], signal.SIGSTOP)
        assert seen(narwhal) == {"127.0.0.2"}
        narwhal.reload()
        assert seen(narwhal) == {"127.0.0.2"}
        wait_until(lambda: len(resolvers(narwhal)) == 1, "the resolver of the new settings")
    # and the stop of narwhal left nothing behind: Narwhal.check()


def test_a_resolver_that_hangs_is_replaced():
    with hosts("127.0.0.2", "127.0.0.3") as (one, *_), Dnsmasq({"api.test": ["127.0.0.2"]}) as dns, \
            front(dns, f"api.test:{one.port}", errors=["says nothing and is killed"],
                  master={"resolver_ttl_max": "100ms"}) as narwhal:
        wait_addresses(narwhal, f"127.0.0.2:{one.port}")
        old, = resolvers(narwhal)
        os.kill(old, signal.SIGSTOP)
        dns.set({"api.test": ["127.0.0.3"]})
        narwhal.wait_log(f"error .*resolver says nothing and is killed pid={old}", deadline=60)
        wait_addresses(narwhal, f"127.0.0.3:{one.port}")


def test_a_master_that_stood_still_does_not_blame_its_resolver():
    with hosts("127.0.0.2", "127.0.0.3") as (one, *_), Dnsmasq({"api.test": ["127.0.0.2"]}) as dns, \
            front(dns, f"api.test:{one.port}",
                  master={"resolver_ttl_max": "100ms"}) as narwhal:
        wait_addresses(narwhal, f"127.0.0.2:{one.port}")
        old = resolvers(narwhal)
        os.kill(narwhal.pid, signal.SIGSTOP)
        assert seen(narwhal) == {"127.0.0.2"}
        threading.Event().wait(16)  # longer than a resolver may say nothing
        os.kill(narwhal.pid, signal.SIGCONT)
        dns.set({"api.test": ["127.0.0.3"]})
        wait_addresses(narwhal, f"127.0.0.3:{one.port}")
        assert resolvers(narwhal) == old


def test_the_resolver_has_no_privileges_and_few_descriptors():
    if os.getuid() != 0:
        pytest.skip("only root can give up privileges")
    with hosts("127.0.0.2") as (one,), Dnsmasq({"api.test": ["127.0.0.2"]}) as dns, \
            front(dns, f"api.test:{one.port}", master={"user": "nobody"}) as narwhal:
        wait_addresses(narwhal, f"127.0.0.2:{one.port}")
        pid, = resolvers(narwhal)
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        assert set(fields["Uid"].split()) == {str(pwd.getpwnam("nobody").pw_uid)}
        assert int(fields["CapPrm"], 16) == 0
        kinds = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        assert len([kind for kind in kinds if kind.startswith("socket:")]) <= 3, kinds
        assert narwhal.address[1] not in [
            int(line.split()[1].rpartition(":")[2], 16) for line in open(
                f"/proc/{pid}/net/tcp", encoding="ascii").readlines()[1:]
            if f"socket:[{line.split()[9]}]" in kinds]


def test_reopened_logs_are_those_of_the_resolver_too():
    with hosts("127.0.0.2") as (one,), Dnsmasq({"api.test": ["127.0.0.2"]}) as dns, \
            front(dns, f"api.test:{one.port}") as narwhal:
        wait_addresses(narwhal, f"127.0.0.2:{one.port}")
        old, = resolvers(narwhal)
        narwhal.signal(signal.SIGUSR1)
        narwhal.wait_log("logs reopened")
        wait_until(lambda: resolvers(narwhal) not in ([], [old]), "another resolver")
        assert seen(narwhal) == {"127.0.0.2"}


def test_an_upgrade_keeps_what_was_resolved():
    with hosts("127.0.0.2", "127.0.0.3") as (one, *_), \
            Dnsmasq({"api.test": ["127.0.0.2", "127.0.0.3"]}) as dns, \
            front(dns, f"api.test:{one.port}") as narwhal:
        wait_addresses(narwhal, f"127.0.0.2:{one.port}", f"127.0.0.3:{one.port}")
        old, = resolvers(narwhal)
        dns.stop()  # nothing can be asked again
        mark = narwhal.mark()
        narwhal.signal(signal.SIGUSR2)
        narwhal.wait_log("upgraded from=", since=mark)
        assert seen(narwhal, 30) == {"127.0.0.2", "127.0.0.3"}
        wait_until(lambda: resolvers(narwhal) not in ([], [old]) and not is_alive(old),
                   "another resolver")
        narwhal.wait_log("cannot be resolved: .*stay in use servers=2", since=mark)
        dns.set({"api.test": ["127.0.0.3"]})
        dns.start()
        wait_addresses(narwhal, f"127.0.0.3:{one.port}")


# ---- lies ----------------------------------------------------------------------------------------
def four(host):
    return socket.inet_aton(host)


def test_answers_to_other_questions_are_not_believed():
    """Wrong ids, another name in the question, no message at all: the honest one among them counts."""
    def lie(query):
        if query.kind != A:
            return [answer(query, [])]
        evil = record(query.name, A, four("127.0.0.66"))
        other = encode_name("other.test") + struct.pack(">HH", A, 1)
        wrong = struct.pack(">HHHHHH", query.number, 0x8580, 1, 1, 0, 0)
        return [answer(query, [evil], number=query.number ^ 1), b"", b"\0" * 3,
                wrong + other + evil,
                answer(query, [record(query.name, A, four("127.0.0.2"))])]
    with hosts("127.0.0.2", "127.0.0.66") as (one, evil), Liar(lie) as dns, \
            front(dns, f"api.test:{one.port}") as narwhal:
        assert seen(narwhal) == {"127.0.0.2"}
        wait_until(lambda: len(dns.queries) > 8, "some rounds")
        assert seen(narwhal) == {"127.0.0.2"} and evil.requests == 0


@pytest.mark.parametrize("records", [
    lambda query: [record(query.name, CNAME, encode_name("b.test")),
                   record("b.test", CNAME, encode_name(query.name))],
    lambda query: [record(query.name, CNAME, encode_name(query.name))],
    lambda query: [record(query.name, CNAME, b"\xc0\x0c")],
    lambda query: [record(query.name, CNAME, b"\xc0\xff")],
    lambda query: [record(query.name, A, b"\x7f\0")],
    lambda query: [record(query.name, A, four("0.0.0.0")), record(query.name, A, four("224.0.0.1")),
                   record(query.name, A, four("255.255.255.255"))],
    lambda query: [b"\xff" * 100],
    lambda query: [],
], ids=["loop", "self", "pointer", "wild", "short", "unusable", "garbage", "empty"])
def test_lies_and_loops_are_failures(records):
    """Bounded in time and memory, told once, and the truth is believed when it comes."""
    honest = threading.Event()

    def lie(query):
        if honest.is_set():
            good = [record(query.name, A, four("127.0.0.2"))] if query.kind == A else []
            return [answer(query, good)]
        return [answer(query, records(query))]
    with hosts("127.0.0.2") as (one,), Liar(lie) as dns, \
            front(dns, f"api.test:{one.port}", errors=[NOT_YET],
                  master={"resolver_ttl_max": "200ms"}) as narwhal:
        narwhal.wait_log(NOT_YET)
        pid, = resolvers(narwhal)
        honest.set()
        wait_addresses(narwhal, f"127.0.0.2:{one.port}")
        assert resolvers(narwhal) == [pid]


def test_a_thousand_addresses_are_bounded():
    """More than fit into a datagram: the resolver asks again over TCP. The first ones in order
    are used, so that the order of the records changes nothing."""
    turn = [0]

    def many(query):
        turn[0] += 1
        order = [(index * 7 + turn[0]) % 1000 for index in range(1000)]
        return [record(query.name, A, bytes([127, 1, index // 250, 1 + index % 250]))
                for index in order] if query.kind == A else []

    def truncated(query):
        return [answer(query, [], flags=0x8780)]

    def stream(query):
        data = answer(query, many(query))
        return struct.pack(">H", len(data)) + data
    with Liar(truncated, stream) as dns, \
            front(dns, "api.test:80", addresses=4) as narwhal:
        wanted = [f"127.1.0.{last}:80" for last in range(1, 5)]
        wait_addresses(narwhal, *wanted)
        narwhal.wait_log(r"warn .*has more addresses than are used left_out=996")
        before = turn[0]
        wait_until(lambda: turn[0] > before + 6, "some rounds")
        assert addresses(narwhal) == set(wanted)
        assert len([line for line in narwhal.lines if "left_out" in line]) == 1
        assert not [line for line in narwhal.lines if "other addresses" in line]


def test_a_name_server_that_says_nothing_delays_nobody():
    with Liar(lambda query: []) as dns, \
            front(dns, "api.test:80", errors=[NOT_YET, "status=503"],
                  queue_timeout="100ms") as narwhal:
        wait_until(lambda: dns.queries, "a question")
        assert client.get(narwhal.address).status == 503
        narwhal.wait_log(NOT_YET)


@pytest.mark.parametrize("line,says", [
    ("server = 127.0.0.256:80", "must have a numeric host"),
    ("server = 1.2.3:80", "must have a numeric host"),
    ("server = api.internal", "is no address"),
    ("server = dns:api.internal", "must have a port from 1 to 65535"),
    ("server = dns:api.internal:0", "must have a port from 1 to 65535"),
    ("server = api.internal:99999", "must have a port from 1 to 65535"),
    ("server = dns:127.0.0.1:80", "must be dns:HOST:PORT"),
    ("server = dns:-a.test:80", "must be dns:HOST:PORT"),
    ("server = dns+srv:", "must be dns+srv:"),
    ("server = dns+srv:a b", ""),
    ("server = a.test:80\nserver = dns:A.test:80", "is there twice"),
    ("server = dns:" + "a" * 60 + "." + "b" * 60 + ":80", "too long"),
    ("server = a.test:80\n[master]\nresolver = unix:/x", "is no name server"),
    ("server = a.test:80\n[master]\nresolver = 127.0.0.1:0", "is no name server"),
    ("server = a.test:80\n[master]\nresolver_ttl_min = 1m", "must not be above resolver_ttl_max"),
])
def test_bad_settings_are_named(line, says, tmp_path):
    path = tmp_path / "narwhal.ini"
    path.write_text(f"[backend:b]\n{line}\n")
    found = subprocess.run([binary(), "--check-config", "--config", str(path)],
                           capture_output=True, text=True, check=False,
                           env={name: value for name, value in os.environ.items()
                                if not name.startswith("NARWHAL_")})
    assert found.returncode == 78 and says in found.stderr, found.stderr
