# SPDX-License-Identifier: Apache-2.0
"""Orders that are neither lost nor doubled, whatever happens to the process that takes them.

An order is two rows, and both are there or none: they are one transaction. The client is told so
after the commit, never before. A client that got no answer, or 502, 503 or 504, cannot know whether
its order was taken; it sends the same request with the same Idempotency-Key again, and gets the
order that there is or a new one."""
import os

from fastapi import FastAPI, Header, HTTPException, Response
from pydantic import BaseModel, Field
from sqlalchemy import BigInteger, Column, Integer, MetaData, Table, Text, create_engine, select
from sqlalchemy.dialects.postgresql import insert

# As many connections as narwhal gives requests to one instance at a time (slots in narwhal.ini):
# nobody waits for a connection in here, where no other instance could help.
engine = create_engine(
    os.environ.get("DATABASE_URL", "postgresql+psycopg2:///shop"),
    pool_size=5, max_overflow=0,
    # A connection that died while idle (the database was restarted) is replaced, not used.
    pool_pre_ping=True,
    # What a killed instance was waiting for, its connection to the database waits for as well, and
    # holds the locks that it has. With this the database looks after its client every second.
    connect_args={"options": "-c client_connection_check_interval=1s"})
tables = MetaData()
orders = Table("orders", tables, Column("id", BigInteger), Column("key", Text),
               Column("customer", Text))
order_lines = Table("order_lines", tables, Column("order_id", BigInteger), Column("sku", Text),
                    Column("quantity", Integer))
app = FastAPI()


class Order(BaseModel):
    customer: str
    sku: str
    quantity: int = Field(gt=0, le=1000)


# def, not async def: FastAPI runs it in a thread, where waiting for the database holds nobody up.
@app.post("/orders", status_code=201)
def take_order(order: Order, response: Response,
               idempotency_key: str = Header(min_length=8, max_length=100)):
    # The transaction ends here, inside the function. In a dependency with yield it would end after
    # the answer has gone out (FastAPI before 0.106), and an order that the client has been
    # promised could still be lost.
    with engine.begin() as database:
        # Of two requests with one key the second waits here until the first has ended: then there
        # is a row already, or the first was rolled back and this one goes in.
        number = database.execute(
            insert(orders).values(key=idempotency_key, customer=order.customer)
            .on_conflict_do_nothing(index_elements=["key"]).returning(orders.c.id)).scalar()
        if number is not None:
            database.execute(insert(order_lines).values(order_id=number, sku=order.sku,
                                                        quantity=order.quantity))
        else:
            found = database.execute(
                select(orders.c.id, orders.c.customer, order_lines.c.sku, order_lines.c.quantity)
                .join(order_lines, order_lines.c.order_id == orders.c.id)
                .where(orders.c.key == idempotency_key)).one()
            if found[1:] != (order.customer, order.sku, order.quantity):
                raise HTTPException(422, "this Idempotency-Key belongs to another order")
            number = found[0]
            response.status_code = 200
    return {"order": number}


@app.get("/orders/{number}")
def show_order(number: int):
    with engine.connect() as database:
        found = database.execute(
            select(orders.c.customer, order_lines.c.sku, order_lines.c.quantity)
            .join(order_lines, order_lines.c.order_id == orders.c.id)
            .where(orders.c.id == number)).one_or_none()
    if found is None:
        raise HTTPException(404, "there is no such order")
    return {"order": number, "customer": found[0], "sku": found[1], "quantity": found[2]}
