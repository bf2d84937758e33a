# SPDX-License-Identifier: Apache-2.0
"""narwhal as PID 1 of a PID namespace, with a root that is read-only and without any privilege: what
a container is to a process. See docs/containers.md."""
import os
import re
import shutil
import signal
import time

import pytest

import client
from narwhal import (APPS, REPOSITORY, Narwhal, children_of, process_stat, run_narwhal, title_of,
                     wait_app, wait_until)

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make namespaces"),
    pytest.mark.skipif(not shutil.which("unshare") or not shutil.which("setpriv"),
                       reason="no unshare(1) and setpriv(1) of util-linux")]
HELLO = {"route:hello": {"path": "/", "respond": "200 hello"}}
# As `docker run --read-only --tmpfs /run --user 65532 --cap-drop ALL
# --security-opt no-new-privileges`.
READ_ONLY = ("mount --make-rprivate / && mount --bind / / && mount -o remount,bind,ro / && "
             "if [ -d {folder}/run ]; then mount -t tmpfs -o mode=1777 none {folder}/run; fi && "
             "{more} exec setpriv --reuid=65532 --regid=65532 --clear-groups --bounding-set=-all "
             "--no-new-privs \"$0\" \"$@\"")


class Container(Narwhal):
    """more: shell commands of root before narwhal starts, each with && behind it."""

    def __init__(self, settings, more="", **rest):
        self.more = more
        settings["master"] = {"control": "./run/ctl", **settings.get("master", {})}
        rest["files"] = {"run/.keep": "", **rest.get("files", {})}
        super().__init__(settings, **rest)
        if self.process is not None and self.process.poll() is None:
            self.control_path = f"/proc/{self.pid}/root{self.path('run', 'ctl')}"

    def command(self):
        script = READ_ONLY.format(folder=self.folder, more=self.more.replace("{folder}", self.folder))
        return ["unshare", "--pid", "--fork", "--mount", "--mount-proc", "--kill-child",
                "sh", "-c", script, *super().command()]

    @property
    def pid(self):
        """PID 1 of the namespace, as the test sees it."""
        return (children_of(self.process.pid) or [self.process.pid])[0]

    def stop(self, sig=signal.SIGTERM, status=0, deadline=30.0):
        os.kill(self.pid, sig)
        self.wait_exit(status, deadline)

    def signal(self, number):
        os.kill(self.pid, number)


def application(folder="apps"):
    return {"command": "uvicorn app_fastapi:app --uds {socket}", "directory": folder}


APP_FILES = {"apps/app_fastapi.py": open(f"{APPS}/app_fastapi.py", "rb").read()}


def test_serves_as_pid_1_with_nothing_to_write_to():
    """Not even a folder for sockets: static files and responses need none. The log is stderr."""
    settings = {**HELLO, "route:files": {"path": "/files", "static": "files"}}
    with Container(settings, files={"files/x": "x"}, errors=["control"],
                   more="umount {folder}/run &&") as narwhal:
        with open(f"/proc/{narwhal.pid}/status", encoding="ascii") as file:
            status = dict(line.split(":\t", 1) for line in file if ":\t" in line)
        assert status["NSpid"].split()[-1] == "1"
        assert int(status["CapBnd"], 16) == 0 and status["Uid"].split()[0] == "65532"
        assert client.get(narwhal.address, "/files/x").text == "x"
        assert client.get(narwhal.address, "/").text.strip() == "hello"
        assert any("control" in line and "Read-only file system" in line
                   for line in narwhal.log()), "a control socket that cannot be is no harm"


def test_workers_are_fenced_in_there_too():
    with Container({**HELLO}) as narwhal:
        status = narwhal.status()
        assert status["pid"] == 1
        assert all(worker["sandbox"]["seccomp"] for worker in status["workers"])


def test_children_of_strangers_are_reaped_and_nobody_is_mistaken():
    """Processes whose parents ended come to PID 1: some that end soon, with all kinds of status,
    and some that stay."""
    orphans = ("for n in 1 2 3 4 5 6 7 8 9 10; do (sh -c \"exit $n\" &); (sleep 0.2 &); "
               "(sh -c 'kill -9 $$' &); done; (sleep 1000 &) ; "
               "exec uvicorn app_fastapi:app --uds $0")
    with Container({"backend:app": {"command": "sh {folder}/run.sh {socket}",
                                    "directory": "apps"},
                    "master": {"runtime_dir": "./run/sockets"},
                    "route:app": {"path": "/", "backend": "app"}}, start=False,
                   files=APP_FILES) as narwhal:
        narwhal.file("run.sh", orphans.replace("$0", '"$1"'))
        narwhal.write(narwhal.text(narwhal._settings).replace("{folder}", narwhal.folder))
        narwhal.start()
        narwhal.control_path = f"/proc/{narwhal.pid}/root{narwhal.path('run', 'ctl')}"
        app = wait_app(narwhal).text
        workers = narwhal.workers()

        def settled():
            states = [process_stat(pid) for pid in children_of(narwhal.pid)]
            sleepers = [pid for pid in children_of(narwhal.pid) if "sleep 0.2" in title_of(pid)]
            return not sleepers and not any(stat and stat[0] == "Z" for stat in states)
        wait_until(settled, "the end of all zombies")
        assert any("sleep 1000" in title_of(pid) for pid in children_of(narwhal.pid)), "it is ours"
        assert narwhal.workers() == workers and client.get(narwhal.address, "/pid").text == app
        assert narwhal.control_json("deaths")["deaths"] == []
        assert not any(" died " in line for line in narwhal.log())
        narwhal.stop()


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_stops_within_the_grace_period(sig):
    """Whatever is open: a request that the application never answers, an application that does not
    want to leave, a stranger that nobody knows. `docker stop` sends SIGTERM."""
    stubborn = "trap '' TERM; (sleep 1000 &); while :; do sleep 0.1; done"
    with Container({"master": {"graceful_timeout": "2s", "runtime_dir": "./run/sockets"},
                    "backend:app": {"command": f'sh -c "{stubborn}" {{port}}'},
                    "route:app": {"path": "/app", "backend": "app"}, **HELLO},
                   errors=["app/0", "status=503"]) as narwhal:
        wait_until(narwhal.instances, "the application")
        with client.Client(narwhal.address) as waiting:
            waiting.send(client.encode("GET", "/app"))
            assert client.get(narwhal.address).status == 200
            began = time.monotonic()
            narwhal.stop(sig)
            # The workers have graceful_timeout, and then the applications that they needed.
            assert time.monotonic() - began < 2 * 2 + 4


V1 = ("mkdir -p /sys/fs/cgroup/cpu && echo {} > /sys/fs/cgroup/cpu/cpu.cfs_quota_us && "
      "echo 100000 > /sys/fs/cgroup/cpu/cpu.cfs_period_us &&")
V2 = "echo '{} 100000' > /sys/fs/cgroup/cpu.max &&"


def has_v1():
    with open("/proc/self/cgroup", encoding="ascii") as file:
        return re.search(r"^\d+:([a-z,]+,)?cpu[,:]", file.read(), re.M) is not None


@pytest.mark.parametrize("files,limit,workers", [
    (V2, "50000", 1), (V2, "100000", 1), (V2, "max", None),
    pytest.param(V1, "50000", 1, marks=pytest.mark.skipif(not has_v1(), reason="no cgroup v1")),
    (V1, "-1", None)])
def test_workers_auto_goes_by_the_cgroup(files, limit, workers):
    """What a container sees: the root of the tree is its own group."""
    more = f"mount -t tmpfs none /sys/fs/cgroup && {files.format(limit)}"
    with Container({**HELLO, "master": {"workers": "auto"}}, more=more) as narwhal:
        count = narwhal.status()["workers_wanted"]
        assert count == (workers or len(os.sched_getaffinity(0)))
        assert len(narwhal.workers()) == count


# ---- the files that ship -------------------------------------------------------------------------
def load_settings(text, tmp_path):
    """Whether narwhal takes them: their folder is one of the image, so another stands for it."""
    path = tmp_path / "narwhal.ini"
    path.write_text(text.replace("/srv/www", str(tmp_path)), encoding="utf-8")
    status, _, error = run_narwhal("--check-config", "-c", path)
    assert status == 0, error


def test_settings_of_the_image_load(tmp_path):
    with open(f"{REPOSITORY}/etc/container/narwhal.ini", encoding="utf-8") as file:
        text = file.read()
    load_settings(text, tmp_path)
    with open(f"{REPOSITORY}/etc/container/Containerfile", encoding="utf-8") as file:
        container = file.read()
    control = re.search(r"^control = (.*)$", text, re.M)[1]
    port = re.search(r"^bind = .*:(\d+)$", text, re.M)[1]
    assert f'"-s", "{control}"' in container and f"EXPOSE {port}" in container
    # Its packages are those of the build.
    with open(f"{REPOSITORY}/etc/packages.txt", encoding="utf-8") as file:
        packages = [line for line in file.read().splitlines() if line and line[0] != "#"][:8]
    assert all(re.search(rf"[ ]{re.escape(name)}[ \n]", container) for name in packages), packages


def test_kubernetes_objects_fit_each_other(tmp_path):
    yaml = pytest.importorskip("yaml", reason="no python3-yaml")
    with open(f"{REPOSITORY}/etc/kubernetes/narwhal.yaml", encoding="utf-8") as file:
        objects = {item["kind"]: item for item in yaml.safe_load_all(file)}
    ini = objects["ConfigMap"]["data"]["narwhal.ini"]
    load_settings(ini, tmp_path)
    pod = objects["Deployment"]["spec"]["template"]
    container = pod["spec"]["containers"][0]
    labels = pod["metadata"]["labels"].items()
    for selector in (objects["Deployment"]["spec"]["selector"]["matchLabels"],
                     objects["Service"]["spec"]["selector"],
                     objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]):
        assert selector.items() <= labels
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert f"bind = 0.0.0.0:{ports['http']}\n" in ini
    assert objects["Service"]["spec"]["ports"][0]["targetPort"] in ports
    for probe in ("startupProbe", "readinessProbe"):
        asked = container[probe]["httpGet"]
        assert asked["port"] in ports and f"path = ={asked['path']}\n" in ini
    assert f"control = {container['livenessProbe']['exec']['command'][2]}\n" in ini
    graceful = int(re.search(r"graceful_timeout = (\d+)s", ini)[1])
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pause + 2 * graceful < pod["spec"]["terminationGracePeriodSeconds"]
    target = objects["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert target["name"] == objects["Deployment"]["metadata"]["name"]
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
