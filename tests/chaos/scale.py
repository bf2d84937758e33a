# SPDX-License-Identifier: Apache-2.0
"""How the cost of processes grows with their number: time to start, to reload, to replace all
workers, to respawn one after kill -9, and what the master costs when idle and when a worker is
killed every 100 ms. Prints one table. tests/bench/scale.sh builds and calls it; docs/benchmarks.md
says how to read it.

Times are from the signal, or the exec, to the time stamp of the log line that ends it (1 ms).
"""
import datetime
import os
import re
import shutil
import signal
import statistics
import sys
import tempfile
import time

import chaos
import processes
import servers
from processes import Failed

STAMP = r"^(\S+Z) "
CHAOS_EVERY = 0.1
REPLACEMENTS = 3  # of all workers; they take longest and vary least


def seconds_of(stamp):
    return datetime.datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%S.%fZ").replace(
        tzinfo=datetime.timezone.utc).timestamp()


def milliseconds_until(server, pattern, began, since=0):
    match = server.wait_log("(?m)" + STAMP + ".*" + pattern, since)
    # A clock that is read to the millisecond may be up to one behind what we read before.
    return max(0.0, 1000 * (seconds_of(match[1]) - began))


def cpu_ns(pid):
    with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
        return int(file.read().split()[0])


def switches(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", file.read(), re.M)[1])


class Scale:
    def __init__(self, binary, workers, rounds, seconds):
        self.binary, self.workers, self.rounds, self.seconds = binary, workers, rounds, seconds
        self.start, self.reload, self.replace, self.respawn = [], [], [], []
        self.idle_cpu = self.idle_switches = self.chaos_cpu = 0.0
        self.kills = 0

    def run(self):
        for number in range(self.rounds):
            folder = tempfile.mkdtemp(prefix="narwhal-scale-")
            os.chmod(folder, 0o755)
            settings = {"master": {"user": "root", "group": "nogroup"}} if os.geteuid() == 0 else {}
            server = servers.Narwhal(folder, self.binary, self.workers, settings)
            try:
                self.round(server, last=number == self.rounds - 1)
            except Failed:
                print(server.log()[-3000:], file=sys.stderr)
                raise
            finally:
                server.stop()
                shutil.rmtree(folder, ignore_errors=True)
        print(f"scale: {self.workers} workers measured", file=sys.stderr, flush=True)

    def round(self, server, last):
        began = time.time()
        server.start()
        self.start.append(milliseconds_until(server, rf"ready workers={self.workers}\b", began))
        self.reload.append(self.timed(server, server.reload, "reload done"))
        # Once per life of a server: a slot that dies twice within ten seconds waits on purpose.
        victim = server.workers()[len(self.respawn) % self.workers]
        self.respawn.append(self.timed(
            server, lambda: processes.kill(victim, signal.SIGKILL), "worker .* is READY"))
        if len(self.replace) < REPLACEMENTS and os.geteuid() == 0:
            self.replace.append(self.timed(server, server.replace_workers, "reload done"))
        if last:
            self.measure_idle(server)
            self.measure_chaos(server)

    @staticmethod
    def timed(server, action, pattern):
        since = len(server.log())
        began = time.time()
        action()
        return milliseconds_until(server, pattern, began, since)

    def measure_idle(self, server):
        cpu, count, began = cpu_ns(server.pid), switches(server.pid), time.monotonic()
        time.sleep(self.seconds)
        passed = time.monotonic() - began
        self.idle_cpu = (cpu_ns(server.pid) - cpu) / 1e9 / passed
        self.idle_switches = (switches(server.pid) - count) / passed

    def measure_chaos(self, server):
        cpu, began = cpu_ns(server.pid), time.monotonic()
        turn = 0
        while (left := began + self.seconds - time.monotonic()) > 0:
            workers = sorted(server.workers())
            turn += 1
            if workers:  # those who die again and again are let rest by the master
                processes.kill(workers[turn % len(workers)], signal.SIGKILL)
                self.kills += 1
            time.sleep(min(CHAOS_EVERY, left))
        self.chaos_cpu = (cpu_ns(server.pid) - cpu) / 1e9 / (time.monotonic() - began)

    def cells(self):
        def times(values):
            if not values:
                return "n/a"
            return f"{statistics.median(values):.0f} ({max(values):.0f})"
        return [str(self.workers), times(self.start), times(self.reload), times(self.replace),
                times(self.respawn), f"{100 * self.idle_cpu:.3f} %", f"{self.idle_switches:.1f}",
                f"{100 * self.chaos_cpu:.1f} %", str(self.kills)]


def main():
    binary = os.environ["SCALE_BINARY"]
    rounds = int(os.environ.get("SCALE_ROUNDS") or 20)
    seconds = int(os.environ.get("SCALE_SECONDS") or 10)
    counts = [int(word) for word in (os.environ.get("SCALE_WORKERS") or "1 4 16 64").split()]
    processes.adopt_orphans()
    head = f"{chaos.machine()}\n{chaos.version([binary, '--version'])}, {rounds} starts each\n"
    lines = []
    for count in counts:
        scale = Scale(binary, count, rounds, seconds)
        scale.run()
        lines.append(scale.cells())
    print(head)
    print("| workers | start ms | reload ms | replace all ms | respawn ms | master idle CPU | "
          "its wake-ups/s | master CPU, a kill each 100 ms | kills |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for cells in lines:
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main()
    except Failed as problem:
        sys.exit(f"scale: {problem}")
    except KeyboardInterrupt:
        sys.exit(130)
