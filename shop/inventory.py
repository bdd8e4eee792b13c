"""Stock: what is on the shelf, what is held, and every move of it.

Writer of ``stock``, ``reservations`` and ``stock_moves``.  Rows of an order are locked in ascending
product id, so two orders cannot deadlock; each counter moves only for reservations that really
moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, LiteralString
from uuid import UUID

from shop.primitives.ids import new_uuid

if TYPE_CHECKING:
    from shop.adapters.db import Statement

# All or nothing is the caller's: fewer rows back than lines asked for means roll back.
HOLD: LiteralString = """
with asked as (
  select reservation_id, product_id, qty
  from unnest(%(reservation_ids)s::uuid[], %(product_ids)s::bigint[], %(quantities)s::int[])
    as a(reservation_id, product_id, qty)
  where exists (select from shop.orders where order_id = %(order_id)s::uuid)
), locked as (
  select s.product_id from shop.stock s join asked using (product_id)
  order by s.product_id for update of s
), held as (
  update shop.stock s set reserved = s.reserved + a.qty
  from asked a join locked using (product_id)
  where s.product_id = a.product_id and s.on_hand - s.reserved >= a.qty
  returning s.product_id
)
insert into shop.reservations (reservation_id, order_id, product_id, qty, status)
select a.reservation_id, %(order_id)s::uuid, a.product_id, a.qty, 'HELD'
from asked a join held using (product_id) order by a.product_id
returning product_id
"""

COMMIT_HELD: LiteralString = """
with moved as (
  update shop.reservations set status = 'COMMITTED'
  where order_id = %(order_id)s::uuid and status = 'HELD'
  returning reservation_id, product_id, qty
), locked as (
  select s.product_id from shop.stock s join moved using (product_id)
  order by s.product_id for update of s
), counted as (
  update shop.stock s set on_hand = s.on_hand - m.qty, reserved = s.reserved - m.qty
  from moved m join locked using (product_id) where s.product_id = m.product_id
)
insert into shop.stock_moves (product_id, kind, qty, reservation_id)
select product_id, 'COMMIT', -qty, reservation_id from moved order by product_id
returning reservation_id
"""

RELEASE_HELD: LiteralString = """
with moved as (
  update shop.reservations set status = 'RELEASED'
  where order_id = %(order_id)s::uuid and status = 'HELD'
  returning product_id, qty
), locked as (
  select s.product_id from shop.stock s join moved using (product_id)
  order by s.product_id for update of s
)
update shop.stock s set reserved = s.reserved - m.qty
from moved m join locked using (product_id) where s.product_id = m.product_id
returning s.product_id
"""

RETURN_COMMITTED: LiteralString = """
with moved as (
  update shop.reservations set status = 'RETURNED'
  where order_id = %(order_id)s::uuid and status = 'COMMITTED'
  returning reservation_id, product_id, qty
), locked as (
  select s.product_id from shop.stock s join moved using (product_id)
  order by s.product_id for update of s
), counted as (
  update shop.stock s set on_hand = s.on_hand + m.qty
  from moved m join locked using (product_id) where s.product_id = m.product_id
)
insert into shop.stock_moves (product_id, kind, qty, reservation_id)
select product_id, 'RETURN', qty, reservation_id from moved order by product_id
returning reservation_id
"""

AVAILABLE: LiteralString = """
select product_id, on_hand - reserved as available from shop.stock
where product_id = any(%(product_ids)s::bigint[])
"""

LOCK_OF_ORDERS: LiteralString = """
select product_id from shop.stock
where product_id = any(%(product_ids)s::bigint[]) or product_id in (
  select product_id from shop.reservations where order_id = any(%(order_ids)s::uuid[]))
order by product_id for update
"""

OPEN_STOCK: LiteralString = """
with opened as (
  insert into shop.stock (product_id, on_hand) values (%(product_id)s, %(qty)s)
  returning product_id, on_hand, reserved
), moved as (
  insert into shop.stock_moves (product_id, kind, qty)
  select product_id, 'INITIAL', on_hand from opened where on_hand > 0
)
select on_hand, reserved from opened
"""

# A shelf ends at two thousand million: an int4 then still has room for what customers send back.
RESTOCK: LiteralString = """
with counted as (
  update shop.stock set on_hand = on_hand + %(qty)s::int
  where product_id = %(product_id)s and on_hand <= 2000000000 - %(qty)s::int
  returning product_id, on_hand, reserved
), moved as (
  insert into shop.stock_moves (product_id, kind, qty)
  select product_id, 'RESTOCK', %(qty)s::int from counted
)
select on_hand, reserved from counted
"""

MOVES: dict[tuple[str, str], LiteralString] = {
    ("HELD", "COMMITTED"): COMMIT_HELD,
    ("HELD", "RELEASED"): RELEASE_HELD,
    ("COMMITTED", "RETURNED"): RETURN_COMMITTED,
}


def hold(order_id: UUID, lines: Sequence[tuple[int, int]]) -> Statement:
    """The statement that holds ``(product_id, qty)`` lines for an order; one row per line held."""
    lines = sorted(lines)
    return HOLD, {
        "order_id": order_id,
        "reservation_ids": [new_uuid() for _ in lines],
        "product_ids": [product_id for product_id, _ in lines],
        "quantities": [qty for _, qty in lines],
    }


def move(order_id: UUID, *, from_status: str, to_status: str) -> Statement:
    """The statement that commits, releases or returns all of an order's reservations."""
    return MOVES[from_status, to_status], {"order_id": order_id}


def lock_stock_of(order_ids: list[UUID], product_ids: list[int]) -> Statement:
    """The statement that locks the stock of several orders, and more, before any of them moves."""
    return LOCK_OF_ORDERS, {"order_ids": order_ids, "product_ids": product_ids}


def open_stock(product_id: int, qty: int) -> Statement:
    """The statement that starts the books of a new product; answers on_hand and reserved."""
    return OPEN_STOCK, {"product_id": product_id, "qty": qty}


def restock(product_id: int, qty: int) -> Statement:
    """The statement that puts ``qty`` more on the shelf; no row: no product, or no room."""
    return RESTOCK, {"product_id": product_id, "qty": qty}
