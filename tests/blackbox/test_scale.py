# SPDX-License-Identifier: Apache-2.0
"""TTIN and TTOU: one worker more or less, while clients are served."""
import signal

from load import Load
from narwhal import Narwhal

HELLO = {"route:hello": {"path": "/", "respond": "200 hello"}}


def test_ttin_and_ttou_under_load():
    with Narwhal(HELLO) as narwhal, Load(narwhal.address, stay=False) as load:
        load.wait_answers(5)
        for sig, count in ((signal.SIGTTIN, 3), (signal.SIGTTIN, 4), (signal.SIGTTOU, 3),
                           (signal.SIGTTOU, 2), (signal.SIGTTOU, 1), (signal.SIGTTIN, 2)):
            narwhal.signal(sig)
            assert sorted(narwhal.wait_workers(count)) == list(range(count))
            load.wait_answers(5)


def test_the_last_worker_stays():
    with Narwhal({**HELLO, "master": {"workers": 1}}) as narwhal:
        mark = narwhal.mark()
        narwhal.signal(signal.SIGTTOU)
        narwhal.wait_log(r" master\[", since=mark)
        assert len(narwhal.wait_workers(1)) == 1
        with Load(narwhal.address) as load:
            load.wait_answers(3)


def test_number_is_kept_across_reload():
    with Narwhal(HELLO) as narwhal:
        narwhal.signal(signal.SIGTTIN)
        narwhal.wait_workers(3)
        narwhal.write({"route:hello": {"path": "/", "respond": "200 other"}})
        narwhal.reload()
        assert len(narwhal.wait_workers(3)) == 3
