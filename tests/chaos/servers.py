# SPDX-License-Identifier: Apache-2.0
"""narwhal, Debian's nginx and Debian's gunicorn: started with the same work, four workers and the
same answer "ok\n" to everything, and told to do the same things in their own ways."""
import os
import re
import signal
import socket
import subprocess

import processes
from processes import Failed, wait_until

HERE = os.path.dirname(os.path.abspath(__file__))
NGINX = "/usr/sbin/nginx"
GUNICORN = "/usr/bin/gunicorn"


class Server:
    """One running server. start() returns when it serves; stop() leaves no process behind."""
    name = ""

    def __init__(self, folder, workers=4):
        self.folder, self.wanted = folder, workers
        self.log_path = self.path("log")
        self.process = None
        self.port = 0
        self.pid = 0  # of the master
        self.more = False

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        """Replaces the file in one step."""
        with open(self.path(name + ".new"), "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(self.path(name + ".new"), self.path(name))
        return self.path(name)

    def spawn(self, command, env=None):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, cwd=self.folder, start_new_session=True,
                                            env={**os.environ, **(env or {})})
        self.pid = self.process.pid

    def log(self):
        try:
            with open(self.log_path, encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def wait_log(self, pattern, since=0):
        """Waits for the pattern behind the first `since` characters of the log."""
        def found():
            if not processes.is_alive(self.pid):
                raise Failed(f"{self.name} has ended; it said:\n{self.log()[-2000:]}")
            return re.search(pattern, self.log()[since:])
        return wait_until(found, f"{self.name} says {pattern!r}")

    def signal(self, sig):
        processes.kill(self.pid, sig)

    def workers(self):
        raise NotImplementedError

    def stop(self):
        """By pid: the master, whatever is below it, and what it left to us."""
        if not self.pid:
            return
        below = processes.descendants_of(self.pid)
        for pid in below:
            processes.kill(pid, signal.SIGCONT)
        processes.end_all([self.pid], 5)
        processes.end_all([pid for pid in below + processes.descendants_of(self.pid)
                           if processes.is_alive(pid)], 2)
        if self.process is not None:
            self.process.wait()
        wait_until(lambda: not any(processes.is_alive(pid) for pid in below),
                   f"the processes of {self.name} to leave")

    # ---- events ------------------------------------------------------------------------------
    def reload(self):
        self.signal(signal.SIGHUP)

    def one_more_or_less(self):
        """TTIN and TTOU in turn."""
        self.more = not self.more
        self.signal(signal.SIGTTIN if self.more else signal.SIGTTOU)

    def upgrade(self):
        raise NotImplementedError


class Narwhal(Server):
    name = "narwhal"

    def __init__(self, folder, binary, workers=4, settings=None):
        """settings: more keys, {"section": {"key": value}}."""
        super().__init__(folder, workers)
        self.binary = binary
        self.control = self.path("ctl")
        self.settings = {
            "master": {"bind": "127.0.0.1:0", "workers": workers, "control": self.control},
            "worker": {"keepalive": "75s"},
            "route:tiny": {"path": "/", "respond": "200 ok"},
        }
        for section, keys in (settings or {}).items():
            self.settings.setdefault(section, {}).update(keys)

    def write_settings(self):
        return self.write("narwhal.ini", "".join(
            f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
            for section, keys in self.settings.items()))

    def refused(self):
        """Why this binary does not take the settings, or None."""
        done = subprocess.run([self.binary, "-c", self.write_settings(), "--check-config"],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        return None if done.returncode == 0 else done.stdout.decode(errors="replace").strip()

    def start(self):
        self.spawn([self.binary, "-c", self.write_settings()])
        self.wait_log(r"ready workers=%d\b" % self.wanted)
        self.port = int(self.wait_log(r"listening address=127\.0\.0\.1:(\d+)")[1])

    def children(self):
        """{pid: title} of workers and {pid: title} of instances."""
        found = {pid: processes.title_of(pid) for pid in processes.children_of(self.pid)}
        return ({pid: title for pid, title in found.items()
                 if title.startswith("narwhal: worker")},
                {pid: title for pid, title in found.items() if "chaos-app" in title})

    def workers(self):
        return list(self.children()[0])

    def instances(self):
        return list(self.children()[1])

    def reload(self):
        """With something to do: a changed setting."""
        worker = self.settings["worker"]
        worker["keepalive"] = "76s" if worker["keepalive"] == "75s" else "75s"
        self.write_settings()
        self.signal(signal.SIGHUP)

    def replace_workers(self):
        """HUP with a change that needs new workers."""
        master = self.settings["master"]
        master["group"] = "daemon" if master.get("group") == "nogroup" else "nogroup"
        self.write_settings()
        self.signal(signal.SIGHUP)

    def upgrade(self):
        """Nothing to wait for: one that comes while another is under way is refused."""
        self.signal(signal.SIGUSR2)


class Nginx(Server):
    name = "nginx"

    def start(self):
        self.port = processes.free_port()
        config = self.write("nginx.conf", f"""
worker_processes {self.wanted};
pid {self.path('pid')};
error_log {self.log_path} notice;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_timeout 75s;
    keepalive_requests 1000000000;
    client_body_temp_path {self.path('body')};
    proxy_temp_path {self.path('proxy')};
    fastcgi_temp_path {self.path('fastcgi')};
    uwsgi_temp_path {self.path('uwsgi')};
    scgi_temp_path {self.path('scgi')};
    server {{
        listen 127.0.0.1:{self.port} reuseport backlog=2048;
        location / {{ default_type text/plain; return 200 "ok\\n"; }}
    }}
}}
""")
        # Daemonized, because nginx takes USR2 only when its parent is gone.
        with open(self.log_path, "ab") as log:
            done = subprocess.run([NGINX, "-e", self.log_path, "-c", config], check=False,
                                  stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if done.returncode != 0:
            raise Failed(f"nginx does not start: {self.log()[-2000:]}")
        self.pid = wait_until(self.pid_of_file, "nginx writes its pid")
        wait_until(lambda: len(self.workers()) == self.wanted, "nginx has its workers")

    def pid_of_file(self, name="pid"):
        try:
            with open(self.path(name), encoding="ascii") as file:
                pid = int(file.read() or 0)
        except (FileNotFoundError, ValueError):
            return 0
        return pid if processes.is_alive(pid) else 0

    def workers(self):
        return [pid for pid in processes.children_of(self.pid)
                if processes.title_of(pid) == "nginx: worker process"]

    def upgrade(self):
        """As nginx's manual has it: USR2, wait for the new master and its workers, QUIT the old."""
        old = self.pid
        self.signal(signal.SIGUSR2)
        self.pid = wait_until(
            lambda: self.pid_of_file("pid.oldbin") == old and self.pid_of_file() not in (0, old)
            and self.pid_of_file(), "nginx starts its new binary")
        wait_until(lambda: len(self.workers()) == self.wanted, "the new nginx has its workers")
        processes.kill(old, signal.SIGQUIT)
        wait_until(lambda: not processes.is_alive(old), "the old nginx leaves")

    def stop(self):
        for pid in (self.pid_of_file("pid.oldbin"), self.pid_of_file()):
            if pid:
                self.pid = pid
                super().stop()


class Gunicorn(Server):
    name = "gunicorn"

    def __init__(self, folder, workers=4, more=()):
        super().__init__(folder, workers)
        self.more_options = list(more)

    def start(self):
        self.port = processes.free_port()
        self.spawn([GUNICORN, "-w", str(self.wanted), "-k", "gthread", "--threads", "4", "-b",
                    f"127.0.0.1:{self.port}", "--backlog", "2048", "--keep-alive", "75",
                    "--worker-connections", "4096", "--pid", self.path("pid"),
                    "--chdir", HERE, *self.more_options, "wsgi:application"],
                   env={"PYTHONDONTWRITEBYTECODE": "1"})
        wait_until(lambda: len(self.workers()) == self.wanted and
                   len(re.findall("Booting worker", self.log())) >= self.wanted,
                   "gunicorn has its workers")

    def workers(self):
        return processes.children_of(self.pid)

    def pid_of_file(self, name):
        try:
            with open(self.path(name), encoding="ascii") as file:
                return int(file.read() or 0)
        except (FileNotFoundError, ValueError):
            return 0

    def upgrade(self):
        """As gunicorn's manual has it: USR2, and TERM, which is graceful, for the old master when
        the workers of the new one have booted."""
        old, booted = self.pid, len(re.findall("Booting worker", self.log()))
        self.signal(signal.SIGUSR2)
        new = wait_until(lambda: self.pid_of_file("pid.2"), "gunicorn starts its new master")
        wait_until(lambda: len(re.findall("Booting worker", self.log())) >= booted + self.wanted,
                   "the new gunicorn has its workers")
        self.pid = new
        processes.kill(old, signal.SIGTERM)
        if self.process is not None:
            self.process.wait()  # the first one is our child, its successors are adopted
            self.process = None

        wait_until(lambda: not processes.is_alive(old), "the old gunicorn leaves", 40)
        wait_until(lambda: self.pid_of_file("pid") == new, "the new gunicorn takes the pid file")


def until_served(server):
    """A server is told of only when it answers."""
    def answers():
        try:
            with socket.create_connection(("127.0.0.1", server.port), 5) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: chaos.test\r\nConnection: close\r\n\r\n")
                return sock.recv(12) == b"HTTP/1.1 200"
        except OSError:
            return False
    wait_until(answers, f"{server.name} answers")
