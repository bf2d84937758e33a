# SPDX-License-Identifier: Apache-2.0
"""narwhal doctor: each finding, by a machine, a unit and settings that have it. It changes
nothing."""
import os
import resource
import socket
import subprocess

import pytest

import client
from narwhal import DEADLINE, Narwhal, binary, ini

HELLO = {"route:hello": {"path": "/", "respond": "200 hello"}}
ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can look with other eyes")
GOOD = """[Unit]
Description=narwhal
[Service]
Type=notify
ExecStart=/usr/sbin/narwhal -c /etc/narwhal/narwhal.ini
ExecReload=/bin/kill -HUP $MAINPID
KillMode=mixed
TimeoutStopSec=70
TimeoutStartSec=90
LimitNOFILE=131072
Restart=always
"""


def doctor(folder, settings=None, *flags, unit=GOOD, status=0, nofile=None):
    """Runs it; returns its lines."""
    if settings is not None:
        master = {"bind": "127.0.0.1:0", **settings.get("master", {})}
        path = folder / "narwhal.ini"
        path.write_text(ini({**settings, "master": master}))
        flags = ("-c", str(path), *flags)
    if unit is not None:
        (folder / "narwhal.service").write_text(unit)
        flags = ("--unit", str(folder / "narwhal.service"), *flags)

    def limit():
        if nofile is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (nofile, nofile))
    env = {name: value for name, value in os.environ.items() if not name.startswith("NARWHAL_")}
    done = subprocess.run([binary(), "doctor", *flags], capture_output=True, text=True, env=env,
                          cwd=folder, check=False, timeout=DEADLINE, preexec_fn=limit)
    assert done.returncode == status and not done.stderr, done
    return done.stdout.splitlines()


def expect(lines, begin, *parts):
    """One line that begins so and has the parts."""
    found = [line for line in lines if line.startswith(begin) and all(p in line for p in parts)]
    assert len(found) == 1, "\n".join(lines)


def test_a_service_in_order(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("x")
    before = sorted(os.listdir(tmp_path))
    lines = doctor(tmp_path, {"master": {"pidfile": "./narwhal.pid", "control": "./ctl",
                                         "workers": 1},
                              "worker": {"connections": 100}, "log": {"access": "./access.log"},
                              "route:files": {"path": "/", "static": "./site"}})
    assert lines[-1].endswith(" 0 warnings, 0 failures"), lines
    assert all(line.startswith("ok ") for line in lines[:-1]), lines
    for topic in ("settings", "unit", "backlog", "cgroup", "permissions", "port"):
        assert any(line.split()[1] == topic for line in lines), topic
    after = set(os.listdir(tmp_path)) - {"narwhal.ini", "narwhal.service"}
    assert sorted(after) == before, "it makes nothing"


def test_settings_that_are_wrong(tmp_path):
    lines = doctor(tmp_path, {**HELLO, "worker": {"keepaliv": "1s"}}, status=1)
    expect(lines, "fail  settings", "narwhal.ini:", "keepaliv")


def test_backlog(tmp_path):
    lines = doctor(tmp_path, {**HELLO, "master": {"backlog": 65535}})
    with open("/proc/sys/net/core/somaxconn", encoding="ascii") as file:
        if int(file.read()) >= 65535:
            pytest.skip("somaxconn is as high as backlog can be")
    expect(lines, "warn  backlog", "65535 (", "narwhal.ini:", "sysctl -w net.core.somaxconn=65535")


def test_descriptors(tmp_path):
    settings = {**HELLO, "worker": {"connections": 1000}}
    expect(doctor(tmp_path, settings, nofile=1000, unit=None, status=1), "fail  descriptors",
           "is 1000", "connections")
    expect(doctor(tmp_path, settings, nofile=1100, unit=None), "ok    descriptors")
    # Where there is a unit its limit counts.
    lines = doctor(tmp_path, settings, nofile=1000)
    assert not any("descriptors" in line.split()[1] for line in lines), lines
    lines = doctor(tmp_path, settings, unit=GOOD.replace("131072", "512"), status=1)
    expect(lines, "fail  unit", "LimitNOFILE=512")


def test_cgroup(tmp_path):
    group = tmp_path / "group"
    group.mkdir()
    settings = {**HELLO, "master": {"workers": 4}, "worker": {"connections": 100}}
    for file, text, grade, parts, status in (
            ("memory.max", "1048576\n", "warn", ("memory.max is 1 MiB",), 0),
            ("pids.max", "4\n", "fail", ("pids.max is 4", "TasksMax="), 1),
            ("cpu.max", "50000 100000\n", "warn", ("workers = 4", "only 1 CPUs"), 0)):
        (group / file).write_text(text)
        lines = doctor(tmp_path, settings, "--cgroup", str(group), status=status)
        expect(lines, f"{grade:5} cgroup", *parts)
        (group / file).unlink()


@pytest.mark.parametrize("change, grade, part", [
    (("Type=notify", "Type=simple"), "fail", "Type=simple"),
    (("Type=notify", "Type=forking"), "fail", "Type=forking"),
    (("KillMode=mixed", "KillMode=process"), "warn", "KillMode=process"),
    (("TimeoutStopSec=70", "TimeoutStopSec=20"), "fail", "graceful_timeout 30 s"),
    (("TimeoutStartSec=90", "TimeoutStartSec=30"), "warn", "boot_timeout 60 s"),
    (("Restart=always", ""), "warn", "no Restart="),
    (("ExecReload=/bin/kill -HUP $MAINPID", ""), "warn", "no ExecReload="),
    (("Restart=always", "Restart=always\nTasksMax=2"), "fail", "TasksMax=2"),
    (("[Service]", "[Nothing]"), "fail", "no section [Service]"),
], ids=lambda value: value[1] if isinstance(value, tuple) else None)
def test_unit(tmp_path, change, grade, part):
    assert change[0] in GOOD
    lines = doctor(tmp_path, HELLO, unit=GOOD.replace(*change), status=int(grade == "fail"))
    expect(lines, f"{grade:5} unit", part)


def test_unit_that_cannot_be_read(tmp_path):
    expect(doctor(tmp_path, HELLO, "--unit", "./none", unit=None, status=1), "fail  unit",
           "cannot read ./none: No such file")
    expect(doctor(tmp_path, HELLO, "--unit", "/dev/zero", unit=None, status=1), "fail  unit",
           "too long")
    expect(doctor(tmp_path, HELLO, "--unit", "no-such-unit", unit=None, status=1), "fail  unit",
           "knows no unit no-such-unit")
    expect(doctor(tmp_path, HELLO, unit=None), "ok    unit", "not looked at")


def test_shipped_unit_is_in_order(tmp_path):
    unit = os.path.join(os.path.dirname(binary()), "systemd", "narwhal.service")
    if not os.path.exists(unit):
        pytest.skip("not built here")
    with open(unit, encoding="utf-8") as file:
        # Its user comes with the package (sysusers.d(5)); this machine need not have it.
        text = "".join(line for line in file if not line.startswith(("User=", "Group=")))
    lines = doctor(tmp_path, {**HELLO, "master": {"workers": 1},
                              "backend:a": {"command": "sleep 100 {fd}"},
                              "route:a": {"path": "/a", "backend": "a"}}, unit=text)
    assert not any(line.startswith(("warn  unit", "fail  unit")) for line in lines), lines


def test_unit_hides_a_folder(tmp_path):
    """pytest's folders are below /tmp."""
    (tmp_path / "site").mkdir()
    if not str(tmp_path).startswith("/tmp/"):
        pytest.skip("the folder of the test is not below /tmp")
    lines = doctor(tmp_path, {"route:files": {"path": "/", "static": "./site"}},
                   unit=GOOD + "PrivateTmp=yes\n", status=1)
    expect(lines, "fail  permissions", "[route:files] static", "PrivateTmp=")


def test_missing_folders(tmp_path):
    lines = doctor(tmp_path, {**HELLO, "log": {"error": "./no/error.log"},
                              "master": {"pidfile": "./nope/pid", "control": "./none/ctl"}},
                   status=1)
    expect(lines, "fail  permissions", "[log] error", "is not there: make it")
    expect(lines, "fail  permissions", "[master] pidfile", "is not there: make it")
    expect(lines, "fail  permissions", "[master] control", "is not there: make it")
    # systemd makes this one.
    lines = doctor(tmp_path, {**HELLO, "master": {"control": "/run/no-such-folder/ctl"}},
                   unit=GOOD + "RuntimeDirectory=no-such-folder\n")
    expect(lines, "ok    permissions", "[master] control")


def test_server_that_is_not_there(tmp_path):
    lines = doctor(tmp_path, {"backend:b": {"server": f"unix:{tmp_path}/none.sock"},
                              "route:b": {"path": "/", "backend": "b"}})
    expect(lines, "warn  permissions", "[backend:b] server", "is not there now")


@ROOT
def test_permissions_of_another_user(tmp_path):
    for folder in (tmp_path, *list(tmp_path.parents)[:-2]):  # pytest makes them private
        if folder.owner() == "root" and str(folder) != "/tmp":
            os.chmod(folder, 0o755)
    site = tmp_path / "site"
    (site / "sub").mkdir(parents=True)
    (site / "sub" / "secret").write_text("x")
    (site / "index.html").write_text("x")
    app = tmp_path / "app"
    app.mkdir(mode=0o700)
    program = tmp_path / "run.sh"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    settings = {"master": {"user": "nobody"},
                "backend:b": {"server": f"unix:{tmp_path}/b.sock"},
                "backend:a": {"command": f"{program} {{fd}}", "directory": str(app)},
                "route:a": {"path": "/a", "backend": "a"},
                "route:b": {"path": "/b", "backend": "b"},
                "route:files": {"path": "/", "static": str(site)}}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/b.sock")
        listener.listen()
        os.chmod(f"{tmp_path}/b.sock", 0o600)
        (site / "sub" / "secret").chmod(0o600)
        lines = doctor(tmp_path, settings, status=1)
        expect(lines, "warn  permissions", "[route:files] static", "1 of 3", "sub/secret",
               "uid 65534")
        expect(lines, "fail  permissions", "[backend:b] server", "cannot write", "b.sock")
        expect(lines, "fail  permissions", "[backend:a] directory", "cannot use")
        expect(lines, "fail  permissions", "[backend:a] command", "run.sh")
        site.chmod(0o700)
        lines = doctor(tmp_path, settings, status=1)
        expect(lines, "fail  permissions", "[route:files] static", "cannot read", "namei -l")
        for path in (site, app, program, tmp_path / "b.sock", site / "sub" / "secret"):
            path.chmod(0o777)
        lines = doctor(tmp_path, settings)
        assert not any("fail" in line for line in lines[:-1]), lines
        # A unit that is another user already: the logs are opened by that one.
        (tmp_path / "logs").mkdir(mode=0o755)
        del settings["master"]
        lines = doctor(tmp_path, {**settings, "log": {"access": "./logs/access.log"}},
                       unit=GOOD + "User=nobody\n", status=1)
        expect(lines, "fail  permissions", "[log] access", "cannot make", "Permission denied")


def test_port_of_somebody_else(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        lines = doctor(tmp_path, {**HELLO, "master": {"bind": f"127.0.0.1:{port}"}}, status=1)
        expect(lines, "fail  port", f"127.0.0.1:{port} is held by pid {os.getpid()} (")
    expect(doctor(tmp_path, {**HELLO, "master": {"bind": f"127.0.0.1:{port}"}}), "ok    port",
           "is free")


def test_port_of_a_running_narwhal(tmp_path):
    with Narwhal(HELLO) as narwhal:
        bind = f"127.0.0.1:{narwhal.port}"
        lines = doctor(tmp_path, {**HELLO, "master": {"bind": bind}})
        expect(lines, "ok    port", f"{bind} is held by narwhal, pid ")
        assert client.get(narwhal.address).status == 200


def test_same_port_of_another_address(tmp_path):
    """Whoever has it is not the one who is in the way."""
    with Narwhal(HELLO) as narwhal, socket.create_server(("127.0.0.2", narwhal.port)):
        for host, grade, holder in (("127.0.0.1", "ok  ", "narwhal, pid "),
                                    ("127.0.0.2", "fail", f"pid {os.getpid()} (")):
            bind = f"{host}:{narwhal.port}"
            lines = doctor(tmp_path, {**HELLO, "master": {"bind": bind}},
                           status=grade == "fail")
            expect(lines, f"{grade}  port", f"{bind} is held by {holder}")


def test_address_of_another_machine(tmp_path):
    expect(doctor(tmp_path, {**HELLO, "master": {"bind": "192.0.2.1:8000"}}, status=1),
           "fail  port", "192.0.2.1:8000 cannot be used")


def test_wrong_usage(tmp_path):
    for flags in ([], ["--unit"], ["--cgroup"], ["--unit", "", "--static", "."], ["more"],
                  ["--check-config", "--static", "."], ["--nope"]):
        done = subprocess.run([binary(), "doctor", *flags], capture_output=True, text=True,
                              check=False, timeout=DEADLINE, cwd=tmp_path)
        assert done.returncode == 64 and "Usage: narwhal doctor" in done.stderr, (flags, done)
    done = subprocess.run([binary(), "doctor", "--help"], capture_output=True, text=True,
                          check=True, timeout=DEADLINE)
    assert done.stdout.startswith("Usage: narwhal doctor")
