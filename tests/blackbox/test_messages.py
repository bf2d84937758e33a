# SPDX-License-Identifier: Apache-2.0
"""Methods, expectations, versions and HEAD, as RFC 9110 and 9112 want them."""
import pytest

import client
from backend import Backend
from client import encode
from narwhal import Narwhal

SERVED = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}


@pytest.fixture(name="stage", scope="module")
def running():
    with Backend() as backend, Narwhal({
            "backend:b": {"server": backend.server},
            "route:b": {"path": "/b", "backend": "b"},
            "route:files": {"path": "/files", "static": "root"},
            "route:moved": {"path": "/moved", "redirect": "/b{path}"},
            "route:hello": {"path": "/", "respond": "200 hello"}},
            files={"root/a": "text of a"}, errors=["status=501"]) as narwhal:
        yield narwhal, backend


def methods_of(response):
    return {method.strip() for method in response["Allow"].split(",")}


@pytest.mark.parametrize("target", ["/", "/b", "/files/a", "/moved"])
def test_unknown_method_gets_501_and_the_connection_goes_on(stage, target):
    narwhal, backend = stage
    before = len(backend.exchanges)
    with client.Client(narwhal.address) as connection:
        for method in ("BREW", "get", "GETS", "PROPFIND"):
            assert connection.request(method, target).status == 501
        assert connection.get("/").status == 200
    assert len(backend.exchanges) == before


@pytest.mark.parametrize("target", ["/", "/b", "/files/a", "/moved"])
def test_trace_gets_405_with_allow(stage, target):
    narwhal, backend = stage
    before = len(backend.exchanges)
    with client.Client(narwhal.address) as connection:
        response = connection.request("TRACE", target, {"Cookie": "secret=1"})
        assert response.status == 405 and methods_of(response) == SERVED
        assert "secret" not in response.text
        assert connection.get("/").status == 200
    assert len(backend.exchanges) == before


def test_known_method_that_a_folder_does_not_serve_gets_405_with_allow(stage):
    with client.Client(stage[0].address) as connection:
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            response = connection.request(method, "/files/a", body=b"x")
            assert response.status == 405
            assert methods_of(response) == {"GET", "HEAD", "OPTIONS"}


def test_options_of_the_server(stage):
    with client.Client(stage[0].address) as connection:
        response = connection.request("OPTIONS", "*")
        assert response.status == 204 and methods_of(response) == SERVED
        assert connection.get("/").status == 200


def test_connect_is_refused_and_its_tunnel_bytes_are_no_requests(stage):
    narwhal, backend = stage
    before = len(backend.exchanges)
    with client.Client(narwhal.address) as connection:
        connection.send("CONNECT b.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n")
        connection.send(encode("GET", "/b/tunnel"))
        response = connection.response()
        assert response.status == 405 and response.closes and methods_of(response) == SERVED
        connection.expect_close()
    assert len(backend.exchanges) == before


# ---- Expect --------------------------------------------------------------------------------------
def test_expect_is_answered_before_the_body(stage):
    narwhal, backend = stage
    with client.Client(narwhal.address) as connection:
        connection.send("POST /b HTTP/1.1\r\nHost: t\r\nExpect: 100-Continue\r\n"
                        "Content-Length: 5\r\n\r\n")
        assert connection.head()[1] == 100
        response = connection.send("hello").response("POST")
        assert response.status == 200 and response.interim == []
    assert backend.exchanges[-1].get("Expect") is None


@pytest.mark.parametrize("target, status", [("/files/a", 405), ("/b/../../x", 400)])
def test_final_answer_comes_first_and_nothing_is_asked_for(stage, target, status):
    """A body that was not asked for may come or not: the connection cannot go on."""
    with client.Client(stage[0].address) as connection:
        connection.send(f"POST {target} HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n"
                        "Content-Length: 5\r\n\r\n")
        response = connection.response("POST")
        assert response.status == status and response.interim == [] and response.closes


def test_body_over_the_limit_is_refused_before_it_is_sent(stage):
    with client.Client(stage[0].address) as connection:
        connection.send("POST /b HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n"
                        f"Content-Length: {1 << 40}\r\n\r\n")
        response = connection.response("POST")
        assert response.status == 413 and response.interim == [] and response.closes
        connection.expect_close()


def test_expectation_in_http_1_0_is_ignored(stage):
    with client.Client(stage[0].address) as connection:
        connection.send("POST /b HTTP/1.0\r\nHost: t\r\nExpect: 100-continue\r\n"
                        "Content-Length: 5\r\n\r\nhello")
        response = connection.response("POST")
        assert response.status == 200 and response.interim == []


def test_other_expectation_gets_417(stage):
    narwhal, backend = stage
    before = len(backend.exchanges)
    with client.Client(narwhal.address) as connection:
        for value in ("the-unexpected", "100-continue, more"):
            with client.Client(narwhal.address) as connection:
                response = connection.request("GET", "/b", {"Expect": value})
                assert response.status == 417
    assert len(backend.exchanges) == before


# ---- HEAD ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("target", ["/", "/b", "/files/a", "/files/none", "/moved", "/files"])
def test_head_is_get_without_the_body(stage, target):
    narwhal, backend = stage
    backend.answer = lambda exchange: exchange.send(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Own: 1\r\n\r\n"
        + (b"" if exchange.line.startswith("HEAD") else b"ok"))
    try:
        with client.Client(narwhal.address) as connection:
            get, head = connection.get(target), connection.request("HEAD", target)
            assert connection.get("/").status == 200  # nothing of a body came
    finally:
        backend.answer = lambda exchange: (exchange.body(), exchange.send(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
    assert head.status == get.status and head.body == b""

    def without_date(response):
        return [field for field in response.fields if field[0] != "Date"]
    assert without_date(head) == without_date(get)


# ---- versions ------------------------------------------------------------------------------------
@pytest.mark.parametrize("line, status", [
    ("GET /", 400), ("GET / HTTP/0.9", 505), ("GET / HTTP/2.0", 505), ("GET / HTTP/1.2", 505),
    ("GET / http/1.1", 400), ("PRI * HTTP/2.0", 400)])
def test_versions(stage, line, status):
    with client.Client(stage[0].address) as connection:
        connection.send(line + "\r\nHost: t\r\n\r\n" + "GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        response = connection.response()
        assert response.status in (status, 505) and response.closes
        connection.expect_close()
