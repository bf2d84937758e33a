# SPDX-License-Identifier: Apache-2.0
"""One normal client beside others that ask too much: 2,000 slow ones of each kind, one that pipelines
without end, one that reads 10 GiB as fast as it can. The figures are those of tests/bench/slow.py;
here they are held against a bound that no machine is too busy for: a client that had to wait for
what the others ask for would wait for seconds, or for ever."""
import pathlib
import resource
import statistics
import sys

import pytest

import narwhal

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "bench"))
import slow  # noqa: E402

SECONDS = 1.5
ROUNDS = 3
# Above the client alone; a turn of the loop under AddressSanitizer on a shared CPU is far below.
FACTOR, MORE_US = 10, 100_000


@pytest.fixture(name="server", scope="module")
def running():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < slow.COUNT + 100:
        pytest.skip(f"{slow.COUNT} clients need a hard limit of open files above {hard}")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    slow.raise_files()
    server = slow.serve()
    server.start()
    try:
        with server:
            yield server
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("kinds", [kinds for _, kinds in slow.ROWS if kinds], ids="-".join)
def test_the_others_do_not_move_the_p99_of_a_normal_client(server, kinds):
    alone, among = [], []
    greedy = kinds[0] in slow.GREEDY
    for _ in range(ROUNDS):
        alone.append(p99(slow.measure(server.address, SECONDS / 3)))
        with slow.beside(kinds, server.address[1]) as others:
            narwhal.wait_until(lambda: slow.whole(server, 1 if greedy else slow.COUNT), "all are in")
            among.append(p99(slow.measure(server.address, SECONDS)))
        if greedy:
            assert others.cut > 1 << 20, "the greedy one starved"
        narwhal.wait_until(lambda: server.status()["workers"][0]["connections"] < 10, "they left")
    print(f"p99 in µs: alone {alone}, among {kinds} {among}")
    assert statistics.median(among) < FACTOR * statistics.median(alone) + MORE_US, (alone, among)


def p99(found):
    assert len(found) >= 10, "the normal client was hardly served"
    return round(found[len(found) * 99 // 100])
