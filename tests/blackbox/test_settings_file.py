# SPDX-License-Identifier: Apache-2.0
"""Odd files: what an editor or a slip can make of a settings file is read right or refused, never
read half."""
import os
import pwd

import pytest

from narwhal import run_narwhal

EX_CONFIG = 78
GOOD = "[worker]\nkeepalive = 7s\n[route:x]\npath = /\nrespond = 200 hello\n"


def print_config(path, **more):
    status, out, err = run_narwhal("-c", path, "--print-config", **more)
    assert status == 0, err
    return out


def refused(path, *words, **more):
    status, out, err = run_narwhal("-c", path, "--check-config", **more)
    assert status == EX_CONFIG, (status, out, err)
    assert all(word in err for word in words), err
    return err


@pytest.fixture(name="write")
def write_file(tmp_path):
    def write(content):
        path = tmp_path / "narwhal.ini"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path
    return write


@pytest.mark.parametrize("content", [
    GOOD,
    GOOD.replace("\n", "\r\n"),
    "\ufeff" + GOOD,
    "\ufeff" + GOOD.replace("\n", "\r\n"),
    GOOD.rstrip("\n"),
    GOOD.replace("\n", "\r\n").rstrip("\r\n"),
    "\n\n; a comment\n# another\n" + GOOD,
    GOOD.replace("7s", "7s   ; a comment"),
    GOOD.replace(" = ", "="),
    GOOD.replace(" = ", "\t=\t"),
], ids=["plain", "CRLF", "BOM", "BOM and CRLF", "no last newline", "CRLF, no last newline",
        "comments", "comment behind a value", "no blanks", "tabs"])
def test_forms_that_are_read(write, content):
    out = print_config(write(content))
    assert "keepalive = 7s" in out and "respond = 200 hello" in out


def test_empty_file_is_all_defaults(write):
    assert print_config(write("")) == print_config(write("; nothing\n"))


def test_missing_file(tmp_path):
    refused(tmp_path / "none.ini", str(tmp_path / "none.ini"), "No such file")


def test_directory(tmp_path):
    refused(tmp_path, str(tmp_path), "directory")


def test_unreadable_file(write):
    path = write(GOOD)
    path.chmod(0)
    if os.getuid() != 0:
        refused(path, str(path), "Permission denied")
        return
    # root reads everything: ask as nobody.
    import subprocess

    from narwhal import binary
    nobody = pwd.getpwnam("nobody")
    copy = path.parent / "narwhal"
    copy.write_bytes(open(binary(), "rb").read())
    copy.chmod(0o755)
    folder = path.parent
    while str(folder) not in ("/", "/tmp"):
        folder.chmod(0o755)
        folder = folder.parent
    done = subprocess.run([copy, "-c", path, "--check-config"], user=nobody.pw_uid,
                          group=nobody.pw_gid, extra_groups=[], stderr=subprocess.PIPE, text=True,
                          env={"PATH": "/usr/bin", "ASAN_OPTIONS": "detect_leaks=0"}, check=False)
    assert done.returncode == EX_CONFIG and "Permission denied" in done.stderr, done


def test_nul_byte(write):
    refused(write(GOOD.replace("7s", "7s\0")), ":2:", "NUL")


def test_fifo_and_device_do_not_hang(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    refused(fifo, str(fifo))


@pytest.mark.parametrize("length, good", [(198, True), (199, True), (200, False), (201, False),
                                          (1000, False), (70000, False)])
def test_line_of_exactly_so_many_bytes(write, length, good):
    """inih would cut a line of 200 bytes without a word."""
    text = "x" * (length - len("respond = 200 "))
    path = write("[route:x]\nrespond = 200 " + text + "\n")
    if good:
        assert text in print_config(path)
    else:
        refused(path, ":2:", "199")


@pytest.mark.parametrize("length", [48, 49, 50, 51, 60])
def test_section_name_of_exactly_so_many_bytes(write, length):
    """inih would cut a name of 50 bytes without a word: it is taken whole or refused."""
    name = "route:" + "n" * (length - len("route:"))
    path = write(f"[{name}]\nrespond = 200 hello\n")
    status, out, err = run_narwhal("-c", path, "--print-config")
    if status == 0:
        assert f"[{name}]" in out
    else:
        assert status == EX_CONFIG and ":1:" in err, (status, err)


@pytest.mark.parametrize("length", [48, 49, 50, 51, 60])
def test_key_of_exactly_so_many_bytes(write, length):
    key = "k" * length
    refused(write(f"[worker]\n{key} = 1\n"), ":2:")


def test_all_errors_at_once(write):
    err = refused(write("[worker]\nkeepalife = 3s\n[rout:x]\n[master]\nworkers = 0\n"))
    lines = [line for line in err.splitlines() if "narwhal.ini:" in line]
    assert [":2:" in lines[0], ":3:" in lines[1], ":5:" in lines[2]] == [True] * 3, err
    assert "keepalive" in lines[0] and "route" in lines[1]
