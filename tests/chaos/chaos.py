# SPDX-License-Identifier: Apache-2.0
"""Does something to narwhal, nginx and gunicorn every half second while chaos-load asks them, and
prints one table of how the requests ended. run.sh builds, installs and calls this; see
docs/benchmarks.md for how to run it and how to read it.

One server runs at a time, fresh for each line of the table. Everything is bounded: requests by
CHAOS_REQUESTS, time by the seconds of each load, and what was started is ended by its pid.
"""
import json
import os
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

import processes
import servers
from processes import Failed

EVERY = 0.5         # seconds between two events
NARWHAL_SECONDS = 90  # a load ends after this long even if it is slower than it should be
PEER_SECONDS = 15
FRESH = ["-c", "32"]
KEPT = ["-c", "200", "-k", "-w", "20"]
LOADS = {"new connections": FRESH, "keep-alive": KEPT}
# How the end of a request is told in the table, in the order of the table.
LOSSES = {
    "refused": "refused", "connect_failed": "connect failed", "reset_before": "reset before request",
    "closed_before": "closed before request", "reset_fresh": "reset unanswered",
    "closed_fresh": "closed unanswered", "reset_used": "reset on kept",
    "closed_used": "closed on kept", "partial": "partial", "timeout_connect": "connect timeout",
    "timeout": "timeout", "bad_status": "bad status", "bad_response": "bad response",
}


class Missing(Exception):
    """This server has no such thing; the text says why."""


class Line:
    """One line of the table: one event, one load, one server."""

    def __init__(self, row, load, server):
        self.row, self.load, self.server = row, load, server
        self.events = 0
        self.result = None
        self.missing = None
        self.notes = []
        self.broken = []  # what had to hold and did not

    def must(self, holds, text):
        if not holds:
            self.broken.append(text)

    def cells(self):
        if self.missing is not None:
            return [self.row.title, self.load, self.server, "n/a", "", "", "", "", "", "",
                    self.missing]
        result = self.result
        lost = ", ".join(f"{result[key]} {text}" for key, text in LOSSES.items() if result[key])
        return [self.row.title, self.load, self.server, str(self.events), str(result["requests"]),
                str(result["lost"]), lost, f"{1e6 * result['lost'] / max(1, result['requests']):.0f}",
                milliseconds(result["p99_ms"]), milliseconds(result["max_ms"]),
                "; ".join(self.notes)]


HEADINGS = ["event", "load", "server", "events", "requests", "lost", "how", "ppm", "p99 ms",
            "max ms", "notes"]
ALIGNED = ["---", "---", "---", "--:", "--:", "--:", "---", "--:", "--:", "--:", "---"]


def milliseconds(value):
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


# ---- the load ------------------------------------------------------------------------------------
class Load:
    def __init__(self, tool, server, options):
        self.command = [tool, "-a", f"127.0.0.1:{server.port}", *map(str, options)]
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.output = None
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        self.output = self.process.communicate()

    def running(self):
        return self.reader.is_alive()

    def wait(self, seconds):
        """Waits so long, or until the load has ended."""
        self.reader.join(max(0.0, seconds))
        return self.running()

    def result(self):
        self.reader.join(200)
        if self.running():
            self.end()
            raise Failed(f"{self.command} does not end")
        out, errors = self.output
        if self.process.returncode != 0:
            raise Failed(f"{self.command}: {errors.decode(errors='replace').strip()}")
        return json.loads(out)

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.reader.join()


def merged(results):
    """Several results as one; latencies: the worst p99 and maximum, the median p50."""
    total = dict(results[0])
    for key, value in total.items():
        if isinstance(value, int) and not isinstance(value, bool):
            total[key] = sum(result[key] for result in results)
    total["p50_ms"] = statistics.median(result["p50_ms"] for result in results)
    for key in ("p99_ms", "max_ms"):
        total[key] = max(result[key] for result in results)
    return total


# ---- rows ----------------------------------------------------------------------------------------
class Row:
    """One event. settings() are narwhal's, event() does it once."""
    key = ""
    title = ""
    loads = tuple(LOADS)
    names = ("narwhal", "nginx", "gunicorn")
    missing = {}  # server: why there is no line

    def settings(self, chaos):
        return {}

    def gunicorn_options(self):
        return []

    def path(self):
        return "/"

    def event(self, server, line):
        raise NotImplementedError

    def judge(self, server, line):
        """After the run: what must hold, of narwhal only."""
        line.must(line.result["lost"] == 0, f"{line.result['lost']} requests were lost")

    def measure(self, chaos, server, line):
        seconds = NARWHAL_SECONDS if server.name == "narwhal" else PEER_SECONDS
        load = Load(chaos.load, server, LOADS[line.load] +
                    ["-p", self.path(), "-n", chaos.requests, "-t", seconds])
        try:
            due = time.monotonic() + EVERY
            while load.wait(due - time.monotonic()):
                self.event(server, line)
                line.events += 1
                due = max(due + EVERY, time.monotonic() + 0.05)
            line.result = load.result()
        finally:
            load.end()


class Hup(Row):
    key, title = "hup", "HUP"

    def event(self, server, line):
        server.reload()

    def judge(self, server, line):
        super().judge(server, line)
        log = server.log()
        line.must("reload refused" not in log and "reload done" in log, "no reload was done")


class Roll(Row):
    key, title = "roll", "HUP that replaces all workers"
    missing = {"nginx": "every HUP does, see there", "gunicorn": "every HUP does, see there"}

    def settings(self, chaos):
        if os.geteuid() != 0:
            raise Missing("[master] group is what needs new workers, and only root may change it")
        return {"master": {"user": "root", "group": "nogroup"}}

    def event(self, server, line):
        server.replace_workers()

    def judge(self, server, line):
        super().judge(server, line)
        ready = server.log().count(" is READY ")
        line.notes.append(f"{ready - server.wanted} workers replaced")
        line.must(ready >= 2 * server.wanted, "the workers were not replaced")


class Ttin(Row):
    key, title = "ttin", "TTIN, TTOU in turn"
    missing = {"nginx": "has no such signals"}

    def event(self, server, line):
        server.one_more_or_less()


class Recycle(Row):
    key, title = "recycle", "max_requests"
    missing = {"nginx": "does not recycle workers"}

    def settings(self, chaos):
        # A worker answers about 2,500 requests a second here: one of the four ends each half second.
        limit = min(4000, max(50, chaos.requests // 50))
        return {"master": {"max_requests": limit, "max_requests_jitter": limit // 4}}

    def gunicorn_options(self):
        return ["--max-requests", "1000", "--max-requests-jitter", "250"]

    def event(self, server, line):
        """Comes by itself."""

    def measure(self, chaos, server, line):
        super().measure(chaos, server, line)
        started = server.log().count(" is READY " if server.name == "narwhal" else
                                     "Booting worker")
        line.events = started - server.wanted

    def judge(self, server, line):
        super().judge(server, line)
        line.must(line.events > 0, "no worker was recycled")


class Usr2(Row):
    key, title = "usr2", "USR2"

    def measure(self, chaos, server, line):
        line.first_workers = server.workers()
        super().measure(chaos, server, line)

    def event(self, server, line):
        server.upgrade()

    def judge(self, server, line):
        log = server.log()
        if "not available in this version" in log:
            raise Missing("this binary has no upgrade in place")
        super().judge(server, line)
        line.notes.append(f"{log.count(' is READY ') - server.wanted} workers replaced")
        line.must(processes.is_alive(server.pid), "the pid of the master did not stay")
        line.must(not set(server.workers()) & set(line.first_workers),
                  "workers of before the first upgrade are still there")


class Killed:
    """Kills, each with when it was and how many requests it may cost at most."""

    def __init__(self):
        self.items = []
        self.frozen_ms = []
        self.turn = 0

    def choose(self, pids):
        """Each in turn; None when there is none just now."""
        self.turn += 1
        return sorted(pids)[self.turn % len(pids)] if pids else None

    def kill(self, pid, allowed):
        with processes.hurry():
            if not processes.freeze(pid):
                return
            frozen = time.monotonic()
            try:
                count = allowed()
            finally:
                killed = time.monotonic()
                processes.kill(pid, signal.SIGKILL)
        self.items.append((killed, count))
        self.frozen_ms.append(1000 * (killed - frozen))

    def judge(self, line, what):
        """Nothing may be lost that a killed process had not taken. A loss is the last kill's before
        it, or, since a busy client may come to know of it late, the one's before that while that
        one had more."""
        result = line.result
        allowed = [count for _, count in self.items]
        lost = [0] * len(self.items)
        early = 0
        over = 0
        for end in sorted(result["start_s"] + (start + took) / 1000
                          for _, start, took in result["losses"]):
            before = [index for index, (when, _) in enumerate(self.items) if when <= end]
            if not before:
                early += 1
                continue
            whose = next((index for index in before[-2:] if lost[index] < allowed[index]), None)
            if whose is None:
                over += 1
            lost[before[-1] if whose is None else whose] += 1
        if self.items:
            line.notes.append(f"lost per kill {statistics.mean(lost):.2f} (most {max(lost)}), "
                              f"{what} {statistics.mean(allowed):.2f}, frozen for "
                              f"{statistics.median(self.frozen_ms):.1f} ms before it")
        line.must(early == 0, f"{early} lost before the first kill")
        line.must(over == 0, f"{over} lost that the killed process had not taken")
        line.must(len(self.items) > 0, "nothing was killed")
        for key in ("refused", "reset_before", "timeout", "timeout_connect", "connect_failed"):
            line.must(result[key] == 0, f"{result[key]} {LOSSES[key]}")


class Kill(Row):
    key, title = "kill", "kill -9 of a worker"

    def measure(self, chaos, server, line):
        line.killed = Killed()
        super().measure(chaos, server, line)
        line.events = len(line.killed.items)
        if server.name != "narwhal":
            line.killed.judge(line, "held by it")
            line.broken.clear()

    def event(self, server, line):
        pid = line.killed.choose(server.workers())
        if pid is not None:
            line.killed.kill(pid, lambda: processes.connections_held(pid, server.port))

    def judge(self, server, line):
        line.killed.judge(line, "held by it")


class App(Row):
    missing = {"nginx": "starts no application", "gunicorn": "its workers are the application"}

    def settings(self, chaos):
        return {"backend:app": {"command": f"{chaos.app} {{fd}} 2 {chaos.folder}", "instances": 4},
                "route:app": {"path": "/app", "backend": "app"}}

    def path(self):
        return "/app"

    def measure(self, chaos, server, line):
        processes.wait_until(lambda: server.log().count("READY pid=") >= server.wanted + 4,
                             "the instances of the application are ready")
        super().measure(chaos, server, line)


def received(folder, pid):
    """Requests that the frozen chaos-app has: read and not answered, or not even read. One that has
    not written its file yet has read none."""
    with open(os.path.join(folder, str(pid)), "rb") as file:
        text = file.read(8)
    in_flight = struct.unpack("Q", text)[0] if len(text) == 8 else 0
    return in_flight + processes.unread_connections(pid)


class AppKill(App):
    key, title = "app_kill", "kill -9 of an app instance"

    def measure(self, chaos, server, line):
        line.killed, line.folder = Killed(), chaos.folder
        super().measure(chaos, server, line)
        line.events = len(line.killed.items)

    def event(self, server, line):
        pid = line.killed.choose([pid for pid in server.instances()
                                  if os.path.exists(os.path.join(line.folder, str(pid)))])
        if pid is not None:
            line.killed.kill(pid, lambda: received(line.folder, pid))

    def judge(self, server, line):
        line.killed.judge(line, "received by it")


class AppHup(App):
    key, title = "app_hup", "HUP that replaces the app"

    def event(self, server, line):
        server.signal(signal.SIGHUP)

    def judge(self, server, line):
        super().judge(server, line)
        replaced = server.log().count("READY pid=") - server.wanted - 4
        line.notes.append(f"{replaced} instances replaced")
        line.must(replaced > 0, "no instance was replaced")


class Stop(Row):
    """SIGSTOP of one worker for two seconds, three times, each between two seconds in which nothing
    is done: what is undisturbed is measured beside what is disturbed, because a machine has
    neighbours."""
    key, title = "stop", "SIGSTOP of a worker for 2 s"
    loads = ("new connections",)
    clients = "256"  # a few hundred, so that the stopped worker does not have all of them at once
    stop_s, quiet_s, settle_s, times = 2.0, 2.0, 0.5, 3

    def measure(self, chaos, server, line):
        total = self.quiet_s + self.times * (self.stop_s + self.settle_s + self.quiet_s)
        load = Load(chaos.load, server, ["-c", self.clients, "-t", str(int(total) + 1)])
        stopped = []
        try:
            load.wait(self.settle_s)
            for turn in range(self.times):
                load.wait(self.quiet_s)
                workers = sorted(server.workers())
                pid = workers[turn % len(workers)]
                processes.freeze(pid)
                begin = time.monotonic()
                try:
                    load.wait(self.stop_s)
                finally:
                    end = time.monotonic()
                    processes.kill(pid, signal.SIGCONT)
                stopped.append((begin, end))
                load.wait(self.settle_s)
            line.result = load.result()
        finally:
            load.end()
        line.events = len(stopped)
        self.count(line, stopped)

    def count(self, line, stopped):
        result = line.result

        def rate(begin, end):  # a second; both count from the start of the load; slices: 100 ms
            first, last = round(begin * 10), round(end * 10)
            return 10 * sum(result["slices"][first:last]) / (last - first)

        shares, quiet, waited = [], [], 0
        for begin, end in stopped:
            begin, end = begin - result["start_s"], end - result["start_s"]
            beside = (rate(begin - self.quiet_s, begin) +
                      rate(end + self.settle_s, end + self.settle_s + self.quiet_s)) / 2
            quiet.append(beside)
            shares.append(rate(begin, end) / beside)
            waited += sum(begin + 0.5 <= start / 1000 < end and took > 250
                          for _, start, took in result["slow"])
        line.share, line.waited = statistics.median(shares), waited
        line.notes.append(f"{100 * line.share:.0f} % of the undisturbed {statistics.mean(quiet):.0f}/s "
                          f"beside it; {result['over_1s']} waited over 1 s, of those begun later "
                          f"than 500 ms {waited} over 250 ms")

    def judge(self, server, line):
        super().judge(server, line)
        line.must(line.share >= 0.85, f"the throughput was {100 * line.share:.0f} %, not 85")
        line.must(line.waited == 0, f"{line.waited} new connections waited for the stopped worker")


class Busy(Row):
    """One worker busy for 4 s, 180 quick requests by the clock meanwhile; five times."""
    key, title = "busy", "one worker busy for 4 s"
    loads = ("new connections",)
    missing = {"nginx": "has nothing that could be busy; see SIGSTOP"}
    times = 5

    def settings(self, chaos):
        return {"route:spin": {"path": "/spin", "respond": "200 ok", "spin": "4s"}}

    def measure(self, chaos, server, line):
        results = []
        for _ in range(self.times):
            spin = Load(chaos.load, server, ["-c", "1", "-n", "1", "-p", "/spin", "-T", "20000"])
            try:
                spin.wait(0.1)
                results.append(Load(chaos.load, server, ["-c", "200", "-r", "50", "-n", "180",
                                                         "-t", "4"]).result())
                done = spin.result()
                if done["complete"] != 1:
                    raise Failed(f"the busy request itself ended as {done['losses']}")
            finally:
                spin.end()
        line.result = merged(results)
        line.events = self.times
        line.notes.append(f"{line.result['over_500ms']} waited over 500 ms, "
                          f"{line.result['over_1s']} over 1 s")

    def judge(self, server, line):
        super().judge(server, line)
        late = line.result["over_500ms"]
        line.must(late == 0, f"{late} quick requests waited over 500 ms")


ROWS = [Hup(), Roll(), Ttin(), Recycle(), Usr2(), Kill(), AppKill(), AppHup(), Stop(), Busy()]


# ---- the whole -----------------------------------------------------------------------------------
class Chaos:
    def __init__(self):
        self.narwhal = os.environ["CHAOS_BINARY"]
        self.load = os.environ["CHAOS_LOAD"]
        self.app = os.environ["CHAOS_APP"]
        self.requests = number("CHAOS_REQUESTS", 200000)
        self.rows = chosen("CHAOS_ONLY", {row.key: row for row in ROWS})
        self.peers = chosen("CHAOS_PEERS", {name: name for name in ("narwhal", "nginx", "gunicorn")})
        self.folder = None

    def server(self, row, name):
        if name == "narwhal":
            server = servers.Narwhal(self.folder, self.narwhal, settings=row.settings(self))
            why = server.refused()
            if why is not None:
                raise Missing("not in this binary: " + why.split("]", 1)[-1].strip()
                              .split(";", maxsplit=1)[0])
            return server
        if name == "nginx":
            return servers.Nginx(self.folder)
        return servers.Gunicorn(self.folder, more=row.gunicorn_options())

    def line(self, row, load, name):
        line = Line(row, load, name)
        if name in row.missing:
            line.missing = row.missing[name]
            return line
        self.folder = tempfile.mkdtemp(prefix="narwhal-chaos-")
        os.chmod(self.folder, 0o755)  # nginx started by root reads as nobody
        server = None
        try:
            server = self.server(row, name)
            server.start()
            servers.until_served(server)
            row.measure(self, server, line)
            if name == "narwhal":
                row.judge(server, line)
        except Missing as why:
            line.missing = str(why)
        except Failed:
            if server is not None:
                print(server.log()[-3000:], file=sys.stderr)
            raise
        finally:
            if server is not None:
                server.stop()
            shutil.rmtree(self.folder, ignore_errors=True)
        return line

    def lines(self):
        for row in self.rows:
            for load in row.loads:
                for name in row.names:
                    if name not in self.peers:
                        continue
                    began = time.monotonic()
                    line = self.line(row, load, name)
                    print(f"chaos: {row.key}, {load}, {name}: "
                          f"{'n/a' if line.missing else line.result['lost']} lost, "
                          f"{time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
                    if line.broken and line.result["first_bad"]:
                        print(f"chaos: the first wrong answer: {line.result['first_bad']}",
                              file=sys.stderr)
                    yield line


def number(name, default):
    text = os.environ.get(name) or str(default)
    if not text.isdigit() or int(text) < 100:
        sys.exit(f"chaos: {name} must be a whole number from 100 on, not '{text}'")
    return int(text)


def chosen(name, known):
    words = (os.environ.get(name) or " ".join(known)).split()
    for word in words:
        if word not in known:
            sys.exit(f"chaos: {name}: there is no '{word}'; there are {', '.join(known)}")
    return [known[word] for word in words]


def version(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.stdout.decode(errors="replace").strip().replace("nginx version: ", "")


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((text.partition(":")[2].strip() for text in file
                      if text.startswith("model name")), os.uname().machine)
    return (f"{time.strftime('%Y-%m-%d', time.gmtime())}, {model}, {os.cpu_count()} CPUs, "
            f"Linux {os.uname().release}, load average before the run {os.getloadavg()[0]:.2f}")


def main():
    chaos = Chaos()
    processes.adopt_orphans()
    head = [machine()]
    programs = {"narwhal": [chaos.narwhal, "--version"], "nginx": [servers.NGINX, "-v"],
                "gunicorn": [servers.GUNICORN, "--version"]}
    head.append(", ".join(version(programs[name]) for name in chaos.peers))
    lines = list(chaos.lines())
    print("\n".join(head) + "\n")
    print("| " + " | ".join(HEADINGS) + " |")
    print("|" + "|".join(ALIGNED) + "|")
    for line in lines:
        print("| " + " | ".join(line.cells()) + " |")
    print()
    broken = [f"- {line.row.title}, {line.load}: {text}" for line in lines for text in line.broken]
    if broken:
        print("narwhal does not hold what it promises:\n\n" + "\n".join(broken))
    elif "narwhal" in chaos.peers:
        print("narwhal holds what it promises in every line.")
    return 1 if broken else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except Failed as problem:
        sys.exit(f"chaos: {problem}")
    except KeyboardInterrupt:
        sys.exit(130)
