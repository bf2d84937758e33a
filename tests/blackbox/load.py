# SPDX-License-Identifier: Apache-2.0
"""Clients that ask without pause while a test does something, and remember what went wrong."""
import threading

import client


class Load:
    """keepalive clients that ask on one connection, and fresh ones that open one per request.
    Everything that is not a whole response is a failure. A kept connection that ends without
    having said Connection: close is one too; with stay, also one that said so.

    check(response) asserts what a response may be."""

    def __init__(self, address, target="/", keepalive=2, fresh=2, check=None, stay=True):
        self.address, self.target, self.stay = address, target, stay
        self.check = check or (lambda response: None)
        self.failures = []
        self.answers = []  # (client, body) in order
        self.changed = threading.Condition()
        self.ending = False
        self.threads = [threading.Thread(target=self._kept, args=(number,), daemon=True)
                        for number in range(keepalive)]
        self.threads += [threading.Thread(target=self._fresh, args=(keepalive + number,),
                                          daemon=True) for number in range(fresh)]

    def _answered(self, number, response):
        assert response.status == 200, response
        self.check(response)
        with self.changed:
            self.answers.append((number, response.body))
            self.changed.notify_all()

    def _failed(self, number, problem):
        with self.changed:
            self.failures.append(f"client {number}: {problem!r}")
            self.changed.notify_all()

    def _kept(self, number):
        try:
            while not self.ending:
                with client.Client(self.address) as connection:
                    while not self.ending:
                        response = connection.get(self.target)
                        self._answered(number, response)
                        if response.closes:
                            assert not self.stay, "the connection was to stay open"
                            break
        except Exception as problem:  # whatever it is, it is a failed request
            self._failed(number, problem)

    def _fresh(self, number):
        try:
            while not self.ending:
                self._answered(number, client.get(self.address, self.target,
                                                  {"Connection": "close"}))
        except Exception as problem:
            self._failed(number, problem)

    def wait_answers(self, more=20, matching=lambda body: True):
        """Waits until every client has had that many more answers that match, from now on."""
        with self.changed:
            start = len(self.answers)

            def enough():
                counts = [0] * len(self.threads)
                for number, body in self.answers[start:]:
                    counts[number] += matching(body)
                return self.failures or min(counts) >= more
            assert self.changed.wait_for(enough, client.DEADLINE), "no progress"
            assert not self.failures, self.failures

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, kind, *_):
        self.ending = True
        for thread in self.threads:
            thread.join(client.DEADLINE)
        if kind is None:
            assert not self.failures, self.failures
