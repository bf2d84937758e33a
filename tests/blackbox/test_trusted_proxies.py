# SPDX-License-Identifier: Apache-2.0
"""Who the client is: what peers say is believed only of trusted ones, and servers, the access log
and the hash balancing all get the same answer."""
import os
import subprocess

import pytest

import client
from backend import Backend
from narwhal import Narwhal, binary, wait_until

LOOPBACK = ["127.0.0.1", "::1"]


def front(backend, worker=None, more=None, **settings):
    return Narwhal({"master": {"workers": 1}, "worker": worker or {},
                    "log": {"access": "./access.log", "access_format": "%(h)s %(s)s"},
                    "backend:b": {"server": backend.server, **(more or {})},
                    "route:b": {"path": "/", "backend": "b"}, **settings})


def sent(backend, narwhal, fields):
    """The fields that the server gets for a request with these."""
    assert client.get(narwhal.address, "/", fields).status == 200
    return backend.next()


def logged(narwhal, count=1):
    """The last lines of the access log."""
    def lines():
        with open(narwhal.path("access.log"), encoding="ascii") as file:
            found = file.read().splitlines()
        return found if len(found) >= count else None
    return wait_until(lines, f"{count} lines in the access log")


LIES = [("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil.example"), ("X-Forwarded-Port", "1"),
        ("X-Forwarded-Prefix", "/evil"), ("Forwarded", "for=6.6.6.6;host=evil.example"),
        ("X_Forwarded_For", "6.6.6.6"), ("X-Forwarded_For", "6.6.6.6")]


def test_what_untrusted_peers_say_is_dropped():
    with Backend() as backend, front(backend) as narwhal:
        got = sent(backend, narwhal, LIES)
        assert got.get("X-Forwarded-For") == "127.0.0.1"
        assert got.get("X-Forwarded-Proto") == "http"
        assert got.get("X-Forwarded-Host") == "test"
        assert got.get("X-Forwarded-Port") == "80"
        assert got.get("X-Forwarded-Prefix") is None and got.get("Forwarded") is None
        assert b"6.6.6.6" not in got.head and b"evil" not in got.head
        assert logged(narwhal) == ["127.0.0.1 200"]


def test_a_trusted_peers_list_is_kept_and_goes_on():
    with Backend() as backend, front(backend, {"trusted_proxies": LOOPBACK}) as narwhal:
        got = sent(backend, narwhal, [("X-Forwarded-For", "6.6.6.6, 203.0.113.9"),
                                      ("X-Forwarded-Proto", "https"),
                                      ("X-Forwarded-Host", "public.example"),
                                      ("Forwarded", "for=6.6.6.6")])
        assert got.get("X-Forwarded-For") == "6.6.6.6, 203.0.113.9, 127.0.0.1"
        assert got.get("X-Forwarded-Proto") == "https"
        assert got.get("X-Forwarded-Host") == "public.example"
        assert got.get("X-Forwarded-Port") == "443"
        assert got.get("Forwarded") is None
        # The last one that is not trusted: what is left of it may be invented.
        assert logged(narwhal) == ["203.0.113.9 200"]


def test_proxies_in_a_row_are_all_skipped():
    networks = LOOPBACK + ["10.0.0.0/8", "fd00::/8"]
    with Backend() as backend, front(backend, {"trusted_proxies": networks}) as narwhal:
        sent(backend, narwhal, [("X-Forwarded-For", "6.6.6.6, 2001:db8::7, 10.1.2.3, fd00::1")])
        assert logged(narwhal) == ["2001:db8::7 200"]


def test_forwarded_is_believed_instead_where_it_is_said():
    worker = {"trusted_proxies": LOOPBACK, "trusted_fields": "forwarded"}
    with Backend() as backend, front(backend, worker) as narwhal:
        got = sent(backend, narwhal, [
            ("Forwarded", 'for="[2001:db8::9]:4711";proto=https;host=public.example'),
            ("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-Proto", "gopher")])
        assert got.get("X-Forwarded-For") == "2001:db8::9"
        assert got.get("X-Forwarded-Proto") == "https"
        assert got.get("X-Forwarded-Host") == "public.example"
        assert got.get("Forwarded") == (
            'for="[2001:db8::9]:4711";proto=https;host=public.example, '
            'for=127.0.0.1;host="test";proto=http')
        assert logged(narwhal) == ["2001:db8::9 200"]


def test_forwarded_is_written_where_a_backend_wants_it():
    with Backend() as backend, front(backend, more={"forwarded": "on"}) as narwhal:
        got = sent(backend, narwhal, LIES)
        assert got.get("Forwarded") == 'for=127.0.0.1;host="test";proto=http'


def test_garbage_of_a_trusted_peer_is_no_client():
    with Backend() as backend, front(backend, {"trusted_proxies": LOOPBACK}) as narwhal:
        for value in ("unknown", "1.2.3.4.5", "a" * 5000, ", ,", "6.6.6.6, -"):
            sent(backend, narwhal, [("X-Forwarded-For", value)])
        assert logged(narwhal, 5) == ["127.0.0.1 200"] * 5


def test_unix_peers_are_trusted_unless_the_setting_says_otherwise():
    for trusted, wanted in (("unix", "203.0.113.9"), ("10.0.0.0/8", None), ("", None)):
        with Backend() as backend, Narwhal("", start=False) as narwhal:
            narwhal.write({"master": {"bind": f"unix:{narwhal.path('sock')}", "workers": 1},
                           "worker": {"trusted_proxies": trusted},
                           "backend:b": {"server": backend.server},
                           "route:b": {"path": "/", "backend": "b"}})
            narwhal.start()
            assert client.get(narwhal.path("sock"), "/",
                              {"X-Forwarded-For": "203.0.113.9"}).status == 200
            assert backend.next().get("X-Forwarded-For") == wanted


def test_hash_goes_by_the_told_client():
    with Backend() as one, Backend() as two, Narwhal({
            "master": {"workers": 2}, "worker": {"trusted_proxies": LOOPBACK},
            "backend:b": {"server": [one.server, two.server], "balance": "hash"},
            "route:b": {"path": "/", "backend": "b"}}) as narwhal:
        for number in range(40):
            address = {"X-Forwarded-For": f"203.0.113.{number}"}
            before = len(one.exchanges)
            for _ in range(3):
                assert client.get(narwhal.address, "/", address).status == 200
            assert len(one.exchanges) - before in (0, 3)
        assert len(one.exchanges) not in (0, 120)


def test_trust_can_be_reloaded_and_counts_for_the_next_request():
    settings = {"master": {"workers": 1}, "route:b": {"path": "/", "backend": "b"}}
    with Backend() as backend:
        settings["backend:b"] = {"server": backend.server}
        with Narwhal(settings) as narwhal, client.Client(narwhal.address) as connection:
            assert connection.get("/", {"X-Forwarded-For": "203.0.113.9"}).status == 200
            assert backend.next().get("X-Forwarded-For") == "127.0.0.1"
            narwhal.write({**settings, "worker": {"trusted_proxies": "127.0.0.0/8"}})
            narwhal.reload()
            assert connection.get("/", {"X-Forwarded-For": "203.0.113.9"}).status == 200
            assert backend.next().get("X-Forwarded-For") == "203.0.113.9, 127.0.0.1"


# ---- Host ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("host", ["inner.example", "inner.example:8080", "[::1]:80", "127.0.0.1"])
def test_host_is_set_for_servers(host):
    with Backend() as backend, front(backend, more={"host": host}) as narwhal:
        got = sent(backend, narwhal, {"Host": "public.example:81"})
        assert got.get("Host") == host
        assert got.get("X-Forwarded-Host") == "public.example:81"
        assert got.get("X-Forwarded-Port") == "81"


@pytest.mark.parametrize("section,line,says", [
    ("worker", "trusted_proxies = 10.0.0.1/8", "write 10.0.0.0/8"),
    ("worker", "trusted_proxies = proxy.internal", "is no network"),
    ("worker", "trusted_fields = x-forwarded-for", "x_forwarded or forwarded"),
    ("backend:b", "host = a b", "is no host"),
    ("backend:b", "host = a:99999", "is no host"),
    ("backend:b", "host = *.a", "is no host"),
    ("backend:b", "proxy_protocol = v3", "off, v1 or v2"),
])
def test_bad_settings_are_named(section, line, says, tmp_path):
    path = tmp_path / "narwhal.ini"
    path.write_text("[backend:b]\nserver = 127.0.0.1:1\n"
                    + (f"[{section}]\n" if section != "backend:b" else "") + line + "\n")
    found = subprocess.run([binary(), "--check-config", "--config", str(path)],
                           capture_output=True, text=True, check=False,
                           env={name: value for name, value in os.environ.items()
                                if not name.startswith("NARWHAL_")})
    assert found.returncode == 78 and says in found.stderr, found.stderr
