# SPDX-License-Identifier: Apache-2.0
"""Static files: whole, in part, only when changed, and never from outside the root."""
import email.utils
import os

import pytest

import client
from narwhal import Narwhal, wait_until

BIG = os.urandom(1 << 20) * 20 + b"end"
FILES = {
    "root/index.html": "<p>start</p>",
    "root/style.css": "p{}",
    "root/app.js": "1",
    "root/data.json": "{}",
    "root/image.png": "\x89PNG",
    "root/vector.svg": "<svg/>",
    "root/font.woff2": "f",
    "root/UPPER.HTML": "<p>",
    "root/plain.txt": "0123456789",
    "root/noextension": "?",
    "root/empty.txt": "",
    "root/sub/index.html": "<p>sub</p>",
    "root/sub/deep/x.txt": "deep",
    "root/noindex/x.txt": "x",
    "root/a b+c%d.txt": "odd name",
    "root/grün.txt": "green",
    "root/.hidden": "secret",
    "root/.git/config": "secret",
    "root/sub/.env": "secret",
    "root/big": BIG,
    "secret.txt": "secret",
    "root-other/x.txt": "secret",
}
SETTINGS = {"route:files": {"path": "/", "static": "root"},
            "route:below": {"path": "/below/", "static": "root"}}


@pytest.fixture(name="narwhal", scope="module")
def running():
    with Narwhal(SETTINGS, files=FILES, errors=["status=501"]) as narwhal:
        os.symlink("plain.txt", narwhal.path("root/inside"))
        os.symlink("../secret.txt", narwhal.path("root/outside"))
        os.symlink("/etc/passwd", narwhal.path("root/absolute"))
        os.symlink("..", narwhal.path("root/up"))
        os.mkfifo(narwhal.path("root/fifo"))
        yield narwhal


def get(narwhal, target, fields=(), method="GET"):
    return client.request(narwhal.address, method, target, fields)


@pytest.mark.parametrize("name, kind", [
    ("index.html", "text/html"), ("style.css", "text/css"), ("app.js", "text/javascript"),
    ("data.json", "application/json"), ("image.png", "image/png"), ("vector.svg", "image/svg+xml"),
    ("font.woff2", "font/woff2"), ("UPPER.HTML", "text/html"), ("plain.txt", "text/plain"),
    ("noextension", "application/octet-stream")])
def test_type_length_and_date(narwhal, name, kind):
    response = get(narwhal, f"/{name}")
    assert response.status == 200
    assert response["Content-Type"].split(";")[0].strip() == kind
    with open(narwhal.path("root", name), "rb") as file:
        assert response.body == file.read()
    assert response.framing == "length"
    stamp = email.utils.parsedate_to_datetime(response["Last-Modified"]).timestamp()
    assert stamp == int(os.stat(narwhal.path("root", name)).st_mtime)
    assert response["Date"].endswith("GMT")
    assert response["ETag"].startswith('"') and response["ETag"].endswith('"')


def test_empty_file(narwhal):
    response = get(narwhal, "/empty.txt")
    assert response.status == 200 and response.body == b"" and response["Content-Length"] == "0"


def test_big_file_is_byte_identical(narwhal):
    response = get(narwhal, "/big")
    assert response.status == 200 and response.framing == "length" and response.body == BIG


def test_big_file_for_a_slow_reader(narwhal):
    with client.Client(narwhal.address, receive_buffer=4096) as connection:
        assert connection.get("/big").body == BIG
        assert connection.get("/plain.txt").body == b"0123456789", "and the connection goes on"


def test_head_is_get_without_the_body(narwhal):
    with client.Client(narwhal.address) as connection:
        for target in ("/plain.txt", "/big", "/sub/", "/none"):
            head = connection.request("HEAD", target)
            same = connection.get(target)
            assert head.status == same.status and head.body == b""

            def steady(response):
                return [(name, value) for name, value in response.fields if name != "Date"]
            assert steady(head) == steady(same)


def test_index_of_a_folder(narwhal):
    assert get(narwhal, "/").text == "<p>start</p>"
    assert get(narwhal, "/sub/").text == "<p>sub</p>"
    assert get(narwhal, "/noindex/").status in (403, 404)


def test_folder_without_slash_is_redirected(narwhal):
    response = get(narwhal, "/sub?a=b&c")
    assert response.status in (301, 308)
    assert response["Location"] in ("/sub/?a=b&c", "http://test/sub/?a=b&c")


def test_redirect_to_slash_never_leaves_the_site(narwhal):
    """//host would be taken for another site by the browser."""
    for target in ("//sub", "/%2f/sub", "//sub?x", "/\\sub"):
        response = get(narwhal, target)
        for location in response.all("Location"):
            assert not location.startswith(("//", "/\\")), (target, location)


@pytest.mark.parametrize("target, text", [
    ("/a%20b+c%25d.txt", "odd name"), ("/gr%C3%BCn.txt", "green"), ("/plain.txt?query=1", None),
    ("/%70lain.txt", None), ("/sub/../plain.txt", None), ("/./plain.txt", None),
    ("/sub/deep/../../plain.txt", None), ("http://test/plain.txt", None), ("/inside", None)])
def test_spellings_of_a_path(narwhal, target, text):
    response = get(narwhal, target)
    assert response.status == 200 and response.text == (text or "0123456789")


def test_path_of_the_route_is_cut_off(narwhal):
    assert get(narwhal, "/below/plain.txt").text == "0123456789"
    assert get(narwhal, "/below/").text == "<p>start</p>"
    assert get(narwhal, "/belowplain.txt").status == 404


@pytest.mark.parametrize("target", [
    "/../secret.txt", "/../../../../../../../../etc/passwd", "/sub/../../secret.txt",
    "/%2e%2e/secret.txt", "/%2E%2E/secret.txt", "/.%2e/secret.txt", "/%2e./secret.txt",
    "/..%2fsecret.txt", "/..%2Fsecret.txt", "/sub/..%2f..%2fsecret.txt", "/..%5csecret.txt",
    "/..\\secret.txt", "/%252e%252e/secret.txt", "/%c0%ae%c0%ae/secret.txt",
    "/..%00/secret.txt", "/plain.txt%00.html", "/plain.txt%00", "/%00", "/....//secret.txt",
    "/..;/secret.txt", "/sub/%2e%2e/%2e%2e/secret.txt", "/below/../../secret.txt",
    "/below/../secret.txt", "/below/%2e%2e/secret.txt", "/../root-other/x.txt",
    "/..%2froot-other/x.txt", "//../secret.txt", "///etc/passwd", "/%2fetc/passwd",
    "/etc/passwd", "/outside", "/absolute", "/up/secret.txt", "/up/root/plain.txt",
    "/plain.txt/", "/plain.txt/x", "/fifo", "/%zz", "/%", "/%4", "/sub/%", "http://test/../secret.txt",
    "http://test/%2e%2e/secret.txt"])
def test_nothing_outside_the_root(narwhal, target):
    with client.Client(narwhal.address) as connection:
        response = connection.get(target)
        assert response.status in (400, 403, 404), response
        assert b"secret" not in response.body.replace(target.encode(), b"")
        assert b"root:" not in response.body


@pytest.mark.parametrize("target", [
    "/.hidden", "/.git/config", "/sub/.env", "/%2ehidden", "/%2Egit/config", "/.git/", "/.git",
    "/sub/../.hidden", "/below/.hidden", "/.", "/.."])
def test_hidden_files_do_not_exist(narwhal, target):
    response = get(narwhal, target)
    if target in ("/.", "/.."):
        assert response.status in (200, 400, 403, 404) and b"secret" not in response.body
    else:
        assert response.status in (403, 404)


@pytest.mark.parametrize("value, status, span", [
    ("bytes=0-0", 206, (0, 0)), ("bytes=2-5", 206, (2, 5)), ("bytes=5-", 206, (5, 9)),
    ("bytes=-3", 206, (7, 9)), ("bytes=0-99", 206, (0, 9)), ("bytes=-99", 206, (0, 9)),
    ("BYTES=1-2", 206, (1, 2)), ("bytes=10-", 416, None), ("bytes=10-20", 416, None),
    ("bytes=-0", 416, None), ("bytes=5-2", 200, None), ("bytes=", 200, None), ("x=0-1", 200, None),
    ("bytes=a-b", 200, None), ("bytes=99999999999999999999999-", 416, None)])
def test_single_ranges(narwhal, value, status, span):
    response = get(narwhal, "/plain.txt", {"Range": value})
    if value == "bytes=99999999999999999999999-" and response.status == 200:
        return  # a number that nobody can hold may be taken for no number
    assert response.status == status
    if status == 206:
        first, last = span
        assert response["Content-Range"] == f"bytes {first}-{last}/10"
        assert response.text == "0123456789"[first:last + 1]
    elif status == 416:
        assert response["Content-Range"] == "bytes */10"
    else:
        assert response.text == "0123456789"


def test_range_of_a_big_file(narwhal):
    first, last = 10_000_001, 15_000_000
    response = get(narwhal, "/big", {"Range": f"bytes={first}-{last}"})
    assert response.status == 206 and response.body == BIG[first:last + 1]


def test_if_range(narwhal):
    whole = get(narwhal, "/plain.txt")
    for value, status in ((whole["ETag"], 206), ('"other"', 200), ("W/" + whole["ETag"], 200),
                          ("Mon, 01 Jan 1990 00:00:00 GMT", 200)):
        assert get(narwhal, "/plain.txt", {"Range": "bytes=0-1", "If-Range": value}
                   ).status == status, value


def test_not_modified(narwhal):
    whole = get(narwhal, "/plain.txt")
    tag, date = whole["ETag"], whole["Last-Modified"]
    for fields, status in (
            ({"If-None-Match": tag}, 304), ({"If-None-Match": f'"x", {tag}'}, 304),
            ({"If-None-Match": f"W/{tag}"}, 304), ({"If-None-Match": "*"}, 304),
            ({"If-None-Match": '"x"'}, 200), ({"If-Modified-Since": date}, 304),
            ({"If-Modified-Since": "Mon, 01 Jan 1990 00:00:00 GMT"}, 200),
            ({"If-Modified-Since": "nonsense"}, 200),
            ({"If-None-Match": '"x"', "If-Modified-Since": date}, 200),
            ({"If-Match": '"x"'}, 412), ({"If-Match": tag}, 200), ({"If-Match": "*"}, 200),
            ({"If-Unmodified-Since": "Mon, 01 Jan 1990 00:00:00 GMT"}, 412)):
        response = get(narwhal, "/plain.txt", fields)
        assert response.status == status, (fields, response)
        if status == 304:
            assert response.body == b"" and response["ETag"] == tag


def test_304_on_a_kept_connection_has_no_body_bytes(narwhal):
    with client.Client(narwhal.address) as connection:
        tag = connection.get("/plain.txt")["ETag"]
        assert connection.get("/plain.txt", {"If-None-Match": tag}).status == 304
        assert connection.get("/plain.txt").text == "0123456789"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "BREW"])
def test_other_methods_are_refused_with_allow(narwhal, method):
    with client.Client(narwhal.address) as connection:
        response = connection.request(method, "/plain.txt", body=b"")
        if method == "BREW":  # one that nobody knows is 501 (RFC 9110 section 9.1)
            assert response.status in (405, 501)
            return
        assert response.status == 405
        assert {"GET", "HEAD"} <= {word.strip() for word in response["Allow"].split(",")}
        assert connection.get("/plain.txt").status == 200


def test_missing_file(narwhal):
    response = get(narwhal, "/none")
    assert response.status == 404 and len(response.body) < 1000
    assert response["Content-Type"].startswith("text/")


def test_changed_file_is_seen_within_static_cache(narwhal):
    path = narwhal.file("root/changing.txt", "one")
    first = get(narwhal, "/changing.txt")
    assert first.text == "one"
    narwhal.file("root/changing.new", "two!")
    os.rename(narwhal.path("root/changing.new"), path)

    def changed():
        response = get(narwhal, "/changing.txt")
        return response if response.text == "two!" else None
    assert wait_until(changed, "the new content")["ETag"] != first["ETag"]
    os.unlink(path)
    # Each worker has a cache of its own, so one 404 does not mean that all are done.
    wait_until(lambda: all(get(narwhal, "/changing.txt").status == 404 for _ in range(8)),
               "the file to be gone")


def test_file_cut_during_a_download_ends_the_connection():
    """The promised length can no longer be kept: the client must be able to tell."""
    with Narwhal(SETTINGS, files={"root/shrinks": bytes(64 << 20)}, errors=["shrinks"]) as narwhal:
        with client.Client(narwhal.address, receive_buffer=4096) as connection:
            connection.send(client.encode("GET", "/shrinks"))
            connection.take(1000)
            os.truncate(narwhal.path("root/shrinks"), 1 << 20)
            with pytest.raises((client.BrokenResponse, ConnectionResetError)):
                connection.response()
        assert get(narwhal, "/shrinks").status == 200, "and the worker lives"


def test_missing_root_is_an_error_at_start():
    narwhal = Narwhal({"route:files": {"path": "/", "static": "nowhere"}}, start=False,
                      errors=["nowhere"])
    with narwhal:
        narwhal.start(ready=False)
        narwhal.wait_exit(78)
        said = "\n".join(narwhal.log())
        assert narwhal.path("nowhere") in said and "narwhal.ini" in said
        narwhal.lines.clear()  # the errors are plain text, not log lines


def test_root_that_goes_away_is_404_and_the_rest_serves():
    settings = {**SETTINGS, "route:hello": {"path": "/hello", "respond": "200 hello"}}
    with Narwhal(settings, files={"root/x": "x"}, errors=["root"]) as narwhal:
        assert get(narwhal, "/x").status == 200
        os.unlink(narwhal.path("root/x"))
        os.rmdir(narwhal.path("root"))
        wait_until(lambda: get(narwhal, "/x").status == 404, "the file to be gone")
        assert get(narwhal, "/hello").status == 200


def test_etag_depends_on_content_of_equal_size_and_second():
    with Narwhal({**SETTINGS, "worker": {"static_cache": "0"}}, files={"root/x": "aaa"}) as narwhal:
        first = get(narwhal, "/x")["ETag"]
        stamp = os.stat(narwhal.path("root/x")).st_mtime_ns
        narwhal.file("root/y", "bbb")
        os.utime(narwhal.path("root/y"), ns=(stamp, stamp + 1_000_000))
        os.rename(narwhal.path("root/y"), narwhal.path("root/x"))
        response = get(narwhal, "/x", {"If-None-Match": first})
        assert response.status == 200 and response.text == "bbb"
