-- SPDX-License-Identifier: Apache-2.0
-- Made once, before the first start: two instances that make the same tables at the same moment
-- get in each other's way, IF NOT EXISTS or not.
CREATE TABLE orders (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key      text NOT NULL UNIQUE, -- the client's Idempotency-Key
    customer text NOT NULL
);
CREATE TABLE order_lines (
    order_id bigint NOT NULL REFERENCES orders,
    sku      text NOT NULL,
    quantity integer NOT NULL CHECK (quantity > 0)
);
