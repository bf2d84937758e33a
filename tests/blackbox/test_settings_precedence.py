# SPDX-License-Identifier: Apache-2.0
"""default < file < environment < flag, and --print-config shows which it was."""
import re

import client
from backend import Backend
from narwhal import REPOSITORY, Narwhal, run_narwhal, wait_app

FILE = "[master]\nworkers = 3\n[worker]\nkeepalive = 7s\n[route:x]\npath = /\nrespond = 200 hello\n"


def print_config(*arguments, env=None):
    status, out, err = run_narwhal(*arguments, "--print-config", env=env)
    assert status == 0, err
    return out


def line_of(out, key):
    found = [line for line in out.splitlines() if re.match(rf"[;# ]*{key} *=", line)]
    assert found, f"no {key} in\n{out}"
    return found[0]


def test_each_beats_the_one_before(tmp_path):
    path = tmp_path / "narwhal.ini"
    path.write_text(FILE)
    environment = {"NARWHAL_WORKERS": "4", "NARWHAL_KEEPALIVE": "8s"}
    line = line_of(print_config(), "workers")
    assert "auto" in line and "default" in line
    line = line_of(print_config("-c", path), "workers")
    assert "workers = 3" in line and "narwhal.ini:2" in line
    line = line_of(print_config("-c", path, env=environment), "workers")
    assert "workers = 4" in line and "NARWHAL_WORKERS" in line
    out = print_config("-c", path, "--workers", "5", env=environment)
    assert "workers = 5" in line_of(out, "workers") and "--workers" in line_of(out, "workers")
    assert "keepalive = 8s" in line_of(out, "keepalive")
    assert "NARWHAL_KEEPALIVE" in line_of(out, "keepalive")
    assert "default" in line_of(out, "head_timeout")


def test_both_forms_of_a_flag():
    assert "workers = 5" in line_of(print_config("--workers=5"), "workers")
    assert "graceful_timeout = 3s" in line_of(print_config("--graceful-timeout", "3s"),
                                              "graceful_timeout")


def test_what_is_printed_is_read_back_the_same(tmp_path):
    source, again = tmp_path / "a.ini", tmp_path / "b.ini"
    (tmp_path / "www").mkdir()
    source.write_text(
        "[master]\nbind = 127.0.0.1:0\nbind = [::1]:0\nbind = unix:/tmp/x.sock\nworkers = 2\n"
        "timeout = 90s\n[worker]\nlimit_request_body = 3m\nserver_header = off\n"
        "[log]\naccess = stdout\naccess_format = %(h)s \"%(r)s\" %(s)s\nlevel = debug\n"
        "[backend:b]\nserver = 127.0.0.1:9001\nserver = unix:/run/b.sock weight=2\n"
        "balance = hash\nslots = 5\n"
        "[backend:c]\ncommand = sh -c \"exec app --fd {fd}\"\ninstances = 3\n"
        "environment = A=1\nenvironment = B=two words\n"
        f"[route:s]\npath = /s/\nstatic = {tmp_path}/www\nhost = a.example\nhost = *.b.example\n"
        "[route:e]\npath = =/healthz\nrespond = 200 ok\n"
        "[route:r]\npath = /old\nredirect = 301 /new{path}\n"
        "[route:b]\nbackend = b\nstrip_prefix = on\n[route:c]\npath = /c\nbackend = c\n")
    first = print_config("-c", source)
    again.write_text(first)
    second = print_config("-c", again)

    def without_origins(text):
        return [re.sub(r"\s*[;#].*", "", line) for line in text.splitlines()]
    assert without_origins(second) == without_origins(first)
    for line in source.read_text().splitlines():
        assert line in "\n".join(without_origins(first)), line


def test_help_names_every_setting_of_the_first_three_sections():
    status, out, _ = run_narwhal("--help")
    assert status == 0
    with open(f"{REPOSITORY}/config/settings.def", encoding="utf-8") as table:
        keys = re.findall(r"^SETTING\((MASTER|WORKER|LOG), (\w+),", table.read(), re.M)
    assert len(keys) > 25
    for section, key in keys:
        flag = ("log-" if section == "LOG" else "") + key.replace("_", "-")
        assert f"--{flag} " in out, flag


def test_version():
    status, out, _ = run_narwhal("--version")
    assert status == 0 and re.search(r"narwhal \d+\.\d+\.\d+", out)


def test_the_sample_of_the_repository_is_good():
    """etc/narwhal.ini: all defaults, as comments or as they are."""
    status, _, err = run_narwhal("-c", f"{REPOSITORY}/etc/narwhal.ini", "--check-config")
    assert status == 0, err


def test_without_a_file_static():
    with Narwhal(None, flags=["--bind", "127.0.0.1:0", "--workers", 2, "--static", "."],
                 files={"x.txt": "hi"}) as narwhal:
        assert client.get(narwhal.address, "/x.txt").text == "hi"
        assert len(narwhal.workers()) == 2


def test_without_a_file_backend():
    with Backend() as backend, Narwhal(None, flags=[
            "--bind", "127.0.0.1:0", "--backend", backend.server]) as narwhal:
        assert client.get(narwhal.address, "/any/thing").text == "ok"


def test_without_a_file_app():
    with Narwhal(None, flags=["--bind", "127.0.0.1:0", "--app",
                              f"uvicorn --app-dir {REPOSITORY}/tests/blackbox/apps "
                              "app_fastapi:app --fd {fd}"]) as narwhal:
        wait_app(narwhal, "/pid")


def test_environment_alone():
    with Narwhal(None, flags=["--static", "."], files={"x": "hi"},
                 env={"NARWHAL_BIND": "127.0.0.1:0", "NARWHAL_WORKERS": "1"}) as narwhal:
        assert client.get(narwhal.address, "/x").text == "hi"
        assert len(narwhal.workers()) == 1
