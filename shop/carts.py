"""Carts: what customers mean to buy.  Writer of ``cart_items``.

A cart holds no stock: that more than there is cannot be put into it is a courtesy.
Rows are seen through row-level security, so a statement without the right ``shop.user_id`` finds
an empty cart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

if TYPE_CHECKING:
    from shop.adapters.db import Statement, Transaction

LINES_MAX = 50
QUANTITY_MAX = 1_000

# Additions to one cart queue up, or two of them could both be its fiftieth line.
QUEUE_UP: LiteralString = """
select pg_advisory_xact_lock(hashtextextended('shop.cart', %(user_id)s::bigint))
"""

# No row: no such product is for sale.  A null ``qty``: refused, and ``had`` and ``lines`` say why.
ADD: LiteralString = """
with product as (
  select p.product_id, p.name, p.price_minor, p.currency, s.on_hand - s.reserved as available
  from shop.products p join shop.stock s using (product_id)
  where p.product_id = %(product_id)s::bigint and p.active
), cart as (
  select count(*) as lines,
    coalesce(max(qty) filter (where product_id = %(product_id)s::bigint), 0) as had
  from shop.cart_items where user_id = %(user_id)s::bigint
), added as (
  insert into shop.cart_items as c (user_id, product_id, qty)
  select %(user_id)s::bigint, product.product_id, %(qty)s::int from product, cart
  where product.available >= cart.had + %(qty)s::int
    and cart.had + %(qty)s::int <= %(qty_max)s::int
    and (cart.had > 0 or cart.lines < %(lines_max)s::int)
  on conflict (user_id, product_id) do update set qty = c.qty + excluded.qty
    where c.qty + excluded.qty <= least(%(qty_max)s::int, (select available from product))
  returning qty
)
select product.product_id, product.name, product.price_minor, product.currency,
  product.available, true as active, cart.had, cart.lines, (select qty from added) as qty
from product, cart
"""

# No row: not in the cart.  A null ``qty``: refused, ``available`` says why.
SET_QTY: LiteralString = """
with line as (
  select c.product_id, p.name, p.price_minor, p.currency, p.active,
    case when p.active then s.on_hand - s.reserved else 0 end as available
  from shop.cart_items c
  join shop.products p using (product_id) join shop.stock s using (product_id)
  where c.user_id = %(user_id)s::bigint and c.product_id = %(product_id)s::bigint
), changed as (
  update shop.cart_items c set qty = %(qty)s::int from line
  where c.user_id = %(user_id)s::bigint and c.product_id = line.product_id
    and line.available >= %(qty)s::int
  returning c.qty
)
select line.product_id, line.name, line.price_minor, line.currency, line.active, line.available,
  (select qty from changed) as qty
from line
"""

REMOVE: LiteralString = """
delete from shop.cart_items
where user_id = %(user_id)s::bigint and product_id = %(product_id)s::bigint
returning product_id
"""

EMPTY: LiteralString = """
delete from shop.cart_items where user_id = %(user_id)s::bigint returning product_id, qty
"""

LINES: LiteralString = """
select c.product_id, c.qty, p.name, p.price_minor, p.currency, p.active,
  s.on_hand - s.reserved as available
from shop.cart_items c
join shop.products p using (product_id) join shop.stock s using (product_id)
where c.user_id = %(user_id)s::bigint
order by c.added_at, c.product_id
"""


def add(user_id: int, product_id: int, qty: int) -> tuple[Statement, Statement]:
    """The two statements, for one pipeline, that add ``qty``; the second answers the line."""
    add_parameters = {
        "user_id": user_id,
        "product_id": product_id,
        "qty": qty,
        "qty_max": QUANTITY_MAX,
        "lines_max": LINES_MAX,
    }
    return (QUEUE_UP, {"user_id": user_id}), (ADD, add_parameters)


def take(tx: Transaction, user_id: int) -> list[tuple[int, int]]:
    """Empties the cart and returns its ``(product_id, qty)`` lines, ascending; one round trip.

    Of two orders from one cart at once, one gets the lines and the other none.
    """
    return sorted((row.product_id, row.qty) for row in tx.all(EMPTY, user_id=user_id))
