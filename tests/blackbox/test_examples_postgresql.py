# SPDX-License-Identifier: Apache-2.0
"""etc/examples/fastapi-postgresql: an order is both of its rows or none, none is lost and none is
doubled, while instances and workers are killed and replaced under load."""
import json
import os
import random
import signal
import threading
import uuid

import pytest

import client
import example
import postgres
from narwhal import NO_SERVER, wait_until

pytestmark = pytest.mark.skipif(not postgres.programs(), reason="PostgreSQL is not installed")

NAME = "fastapi-postgresql"
ORDER = {"customer": "ann", "sku": "tea", "quantity": 2}
# What narwhal says of killed instances and workers, and of the requests that they had.
KILLED = [r"instance orders/\d", r"worker \d", r'status=50[234] reason=', NO_SERVER]


@pytest.fixture(name="database", scope="module")
def temporary_server():
    with postgres.Postgres(example.path(NAME, "schema.sql")) as database:
        yield database


@pytest.fixture(name="shop")
def running_example(database):
    database.run("TRUNCATE orders, order_lines")
    with example.Example(NAME, env={"DATABASE_URL": database.url}, errors=KILLED) as narwhal:
        narwhal.wait_instances(2)
        yield narwhal


def ask(connection, key, order=None):
    return connection.request("POST", "/orders", {"Idempotency-Key": key,
                                                  "Content-Type": "application/json"},
                              json.dumps(order or ORDER).encode())


def order(shop, key, **changes):
    with client.Client(shop.address) as connection:
        return ask(connection, key, {**ORDER, **changes})


def rows(database):
    """(orders, lines)"""
    return database.run("SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM order_lines)")[0]


def wait_transaction(database, wait_event):
    """Until a transaction waits for that."""
    wait_until(lambda: database.run("SELECT 1 FROM pg_stat_activity WHERE wait_event = %s",
                                    wait_event), f"a transaction that waits for {wait_event}")


def kill_all(shop):
    """Which of them has the request cannot be seen from outside."""
    victims = shop.instances()
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    return victims


def test_an_order_and_its_second_request(shop, database):
    first = order(shop, "key-0001")
    assert first.status == 201, first
    again = order(shop, "key-0001")
    assert again.status == 200 and again.json == first.json
    assert order(shop, "key-0002").json["order"] != first.json["order"]
    assert order(shop, "key-0001", quantity=3).status == 422, "another order with the same key"
    assert order(shop, "key-0003", quantity=0).status == 422
    shown = client.get(shop.address, f"/orders/{first.json['order']}")
    assert shown.json == {**ORDER, **first.json}
    assert rows(database) == (2, 2)


def test_killed_between_the_two_rows_there_is_none(shop, database):
    """The lock holds the transaction between its two inserts."""
    with database.connect() as lock:
        lock.autocommit = False
        with lock.cursor() as cursor:
            cursor.execute("LOCK TABLE order_lines IN EXCLUSIVE MODE")
        with client.Client(shop.address) as connection:
            connection.send(client.encode("POST", "/orders", {
                "Idempotency-Key": "key-half", "Content-Type": "application/json"},
                json.dumps(ORDER).encode()))
            wait_transaction(database, "relation")
            victims = kill_all(shop)
            assert connection.response("POST").status == 502, "it may have run: never sent again"
        lock.rollback()
    lock.close()
    wait_until(lambda: not database.run(
        "SELECT 1 FROM pg_stat_activity WHERE state LIKE 'idle in transaction%%' OR "
        "wait_event = 'relation'"), "the end of the transaction")
    assert rows(database) == (0, 0)
    shop.wait_instances(2, without=victims)
    assert order(shop, "key-half").status == 201
    assert rows(database) == (1, 1)


def test_killed_between_commit_and_answer_it_is_there_once(shop, database):
    """A commit that waits for a standby which does not exist is done, and its client not told."""
    database.run("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    database.run("SELECT pg_reload_conf()")
    wait_until(lambda: database.run("SHOW synchronous_standby_names") == [("nobody",)], "the setting")
    try:
        with client.Client(shop.address) as connection:
            connection.send(client.encode("POST", "/orders", {
                "Idempotency-Key": "key-done", "Content-Type": "application/json"},
                json.dumps(ORDER).encode()))
            wait_transaction(database, "SyncRep")
            victims = kill_all(shop)
            assert connection.response("POST").status == 502
    finally:
        database.run("ALTER SYSTEM RESET synchronous_standby_names")
        database.run("SELECT pg_reload_conf()")
    shop.wait_instances(2, without=victims)
    again = order(shop, "key-done")
    assert again.status == 200, "it is found, not taken a second time"
    assert rows(database) == (1, 1)


class Customers:
    """Clients that order without pause; what failed they ask for again with the same key, until it
    is taken."""

    def __init__(self, shop, count):
        self.shop = shop
        self.taken = {}  # key: number of the order
        self.again = 0  # requests that were sent again
        self.found = 0  # of which an order was there already
        self.faults = []
        self.ending = False
        self.changed = threading.Condition()
        self.threads = [threading.Thread(target=self.run, args=(number,), daemon=True)
                        for number in range(count)]

    def run(self, number):
        try:
            connection = None
            while not self.ending:
                key, tries = f"{number}-{uuid.uuid4().hex}", 0
                while True:
                    tries += 1
                    assert tries < 1000, f"{key} is never taken"
                    try:
                        connection = connection or client.Client(self.shop.address)
                        response = ask(connection, key, {**ORDER, "customer": key})
                    except (OSError, client.ConnectionEnded, client.BrokenResponse):
                        connection = None
                        continue
                    if response.closes:
                        connection = None
                    if response.status in (200, 201):
                        break
                    assert response.status in (502, 503, 504), response
                    threading.Event().wait(0.02)
                with self.changed:
                    self.taken[key] = response.json["order"]
                    self.again += tries - 1
                    self.found += response.status == 200
                    assert response.status == 201 or tries > 1, "found at the first request"
                    self.changed.notify_all()
        except Exception as fault:
            with self.changed:
                self.faults.append(f"customer {number}: {fault!r}")
                self.changed.notify_all()

    def wait_taken(self, more):
        with self.changed:
            goal = len(self.taken) + more
            assert self.changed.wait_for(lambda: self.faults or len(self.taken) >= goal,
                                         client.DEADLINE), "no progress"
            assert not self.faults, self.faults

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ending = True
        for thread in self.threads:
            thread.join(client.DEADLINE)


def test_no_order_is_lost_and_none_doubled(shop, database):
    seed = int(os.environ.get("NARWHAL_RANDOM_SEED", random.randrange(1 << 32)))
    dice = random.Random(seed)
    print(f"NARWHAL_RANDOM_SEED={seed}")
    gone = []
    with Customers(shop, 8) as customers:
        for event in ["kill", "kill", "reload", "kill", "worker", "kill both", "kill", "reload",
                      "kill", "kill"]:
            instances, workers = shop.wait_instances(2, without=gone), shop.workers()
            customers.wait_taken(dice.randrange(10, 40))
            if event == "reload":
                shop.reload()
                gone = instances
            elif event == "worker":
                os.kill(dice.choice(list(workers.values())), signal.SIGKILL)
            else:
                gone = dice.sample(instances, 2 if event == "kill both" else 1)
                for pid in gone:
                    os.kill(pid, signal.SIGKILL)
        shop.wait_instances(2, without=gone)
        customers.wait_taken(20)
    assert not customers.faults, customers.faults
    print(f"{len(customers.taken)} orders, {customers.again} requests sent again, of which "
          f"{customers.found} found their order")
    assert customers.again, "no request was hit: the events came to nothing"
    there = dict(database.run("SELECT key, id FROM orders"))
    assert there == customers.taken
    lines = database.run("SELECT order_id, count(*) FROM order_lines GROUP BY order_id")
    assert dict(lines) == {number: 1 for number in there.values()}
