# SPDX-License-Identifier: Apache-2.0
"""Which route answers: by host, then the longest path; redirect and respond."""
import pytest

import client
from backend import Backend
from narwhal import Narwhal


def respond(text, path="/", **more):
    return {"path": path, "respond": f"200 {text}", **more}


SETTINGS = {
    "route:root": respond("root"),
    "route:api": respond("api", "/api"),
    "route:deep": respond("deep", "/api/v1/deep"),
    "route:exact": respond("exact", "=/api/v1"),
    "route:slash": respond("slash", "/slash/"),
    "route:a": respond("host a", host="a.example"),
    "route:a-x": respond("host a x", "/x", host="a.example"),
    "route:star": respond("star", host="*.b.example"),
    "route:one": respond("one", host="one.b.example"),
    "route:two": respond("two hosts", host=["c.example", "d.example"]),
    "route:moved": {"path": "/moved", "redirect": "/new"},
    "route:old": {"path": "/old", "redirect": "301 https://new.example{path}"},
    "route:see": {"path": "=/see", "redirect": "303 /there"},
    "route:teapot": {"path": "/teapot", "respond": "418 short and stout"},
    "route:empty": {"path": "/empty", "respond": "204"},
}


@pytest.fixture(name="narwhal", scope="module")
def running():
    with Narwhal(SETTINGS) as narwhal:
        yield narwhal


@pytest.mark.parametrize("host, target, text", [
    ("test", "/", "root"), ("test", "/x", "root"), ("test", "/api", "api"),
    ("test", "/api/", "api"), ("test", "/api/x", "api"), ("test", "/apix", "root"),
    ("test", "/api?x", "api"), ("test", "/api/v1", "exact"), ("test", "/api/v1?q", "exact"),
    ("test", "/api/v1/", "api"), ("test", "/api/v1/x", "api"), ("test", "/api/v1/deep", "deep"),
    ("test", "/api/v1/deep/er", "deep"), ("test", "/api/v1/deeper", "api"),
    ("test", "/slash/", "slash"), ("test", "/slash/x", "slash"), ("test", "/slashx", "root"),
    ("test", "/API", "root"), ("test", "/%61pi", "api"), ("test", "/x/../api/y", "api"),
    ("a.example", "/", "host a"), ("A.EXAMPLE", "/", "host a"), ("a.example:8080", "/", "host a"),
    ("a.example", "/x", "host a x"), ("a.example", "/x/y", "host a x"),
    ("a.example", "/xy", "host a"), ("x.b.example", "/", "star"), ("y.x.b.example", "/", "star"),
    ("one.b.example", "/", "one"), ("b.example", "/", "root"), ("xb.example", "/", "root"),
    ("c.example", "/", "two hosts"), ("d.example", "/", "two hosts"),
    ("test", "http://a.example/x", None)])
def test_which_route(narwhal, host, target, text):
    if target.startswith("http:"):
        host, text = "a.example", "host a x"
    response = client.get(narwhal.address, target, host=host)
    assert response.status == 200 and response.text.rstrip("\n") == text


@pytest.mark.parametrize("target, status, location", [
    ("/moved", 308, "/new"), ("/moved/x?y", 308, "/new"),
    ("/old/a/b?c=d", 301, "https://new.example/old/a/b?c=d"), ("/see", 303, "/there")])
def test_redirect(narwhal, target, status, location):
    with client.Client(narwhal.address) as connection:
        for method in ("GET", "HEAD", "POST"):
            response = connection.request(method, target, body=b"x" if method == "POST" else None)
            assert response.status == status and response["Location"] == location


def test_redirect_cannot_be_made_to_write_fields(narwhal):
    response = client.get(narwhal.address, "/old/%0d%0aSet-Cookie:%20a=b")
    assert response.status in (301, 400) and not response.all("Set-Cookie")


def test_respond(narwhal):
    response = client.get(narwhal.address, "/teapot")
    assert response.status == 418 and response.text.rstrip("\n") == "short and stout"
    assert response["Content-Type"].startswith("text/plain")
    with client.Client(narwhal.address) as connection:
        assert connection.get("/empty").status == 204
        assert connection.request("HEAD", "/teapot").status == 418
        assert connection.request("POST", "/", body=b"x" * 100000).status in (200, 405)


def test_fields_of_fixed_answers():
    """RFC 9110 section 8.6: which have a Content-Length; a charset where the text needs one."""
    with Narwhal({"route:ascii": respond("plain", "/ascii"), "route:utf8": respond("grün", "/utf8"),
                  "route:same": {"path": "/same", "respond": "304"},
                  "route:moved": {"path": "/moved", "redirect": "301 /new"}}) as narwhal:
        shown = {path: (answer.all("Content-Type"), answer.all("Content-Length"), answer.body)
                 for path in ("/ascii", "/utf8", "/same", "/moved")
                 for answer in [client.get(narwhal.address, path)]}
    assert shown == {
        "/ascii": (["text/plain"], ["6"], b"plain\n"),
        "/utf8": (["text/plain; charset=utf-8"], ["6"], "grün\n".encode()),
        "/same": ([], [], b""), "/moved": ([], ["0"], b"")}


def test_route_is_looked_up_for_each_request_of_a_connection(narwhal):
    with client.Client(narwhal.address) as connection:
        for target, host, text in (("/api", "test", "api"), ("/", "a.example", "host a"),
                                   ("/", "test", "root")):
            assert connection.get(target, host=host).text.rstrip("\n") == text


def test_no_route_is_404():
    with Narwhal({"route:api": respond("api", "/api")}) as narwhal:
        response = client.get(narwhal.address, "/other")
        assert response.status == 404 and len(response.body) < 1000


def test_strip_prefix():
    def answer(exchange):
        told = f"{exchange.target} {exchange.get('X-Forwarded-Prefix')}".encode()
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(told), told))
    with Backend(answer) as backend, Narwhal({
            "backend:b": {"server": backend.server},
            "route:strip": {"path": "/app", "backend": "b", "strip_prefix": "on"},
            "route:keep": {"path": "/keep", "backend": "b"}}) as narwhal:
        for target, told in (("/app/x?y", "/x?y /app"), ("/app", "/ /app"), ("/app/", "/ /app"),
                             ("/app?q", "/?q /app"), ("/keep/x", "/keep/x None")):
            assert client.get(narwhal.address, target).text == told
