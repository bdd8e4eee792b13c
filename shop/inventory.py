"""Stock: what is on hand, what is reserved, and every change of it.

Writer of ``stock``, ``reservations`` and ``stock_moves``.  Stock rows of an order are locked in
ascending product id, so two orders cannot deadlock; a counter changes only for reservations whose
status changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from shop.adapters.statements import Query, Row, Statement
from shop.primitives.ids import new_uuid
from shop.primitives.statuses import ReservationStatus, StockMove


class HeldProduct(Row):
    """A product whose ordered quantity is held."""

    product_id: int


class Stock(Row):
    """What is on hand of a product, and how much of that is reserved."""

    on_hand: int
    reserved: int


class Move(Row):
    """A change of a product's stock on hand; ``order_id`` is that of a sale or its return."""

    seq: int
    kind: str
    qty: int
    moved_at: datetime
    order_id: UUID | None


class Availability(Row):
    """How much of a product can be sold."""

    product_id: int
    available: int


# As PLACE in shop/orders/orders.py, with a LIMIT that keeps PostgreSQL from scanning the stock.
#
# Fewer rows than lines mean that some are not in stock: the caller must roll back.
HOLD = Query(
    HeldProduct,
    """
with requested as (
  select reservation_id, product_id, qty
  from unnest(%(reservation_ids)s::uuid[], %(product_ids)s::bigint[], %(quantities)s::int[])
    as a(reservation_id, product_id, qty)
  where exists (select from shop.orders where order_id = %(order_id)s::uuid)
  limit cardinality(%(product_ids)s::bigint[])
), locked as (
  select s.product_id from shop.stock s join requested using (product_id)
  order by s.product_id for update of s
), held as (
  update shop.stock s set reserved = s.reserved + a.qty
  from requested a join locked using (product_id)
  where s.product_id = a.product_id and s.on_hand - s.reserved >= a.qty
  returning s.product_id
)
insert into shop.reservations (reservation_id, order_id, product_id, qty, status)
select a.reservation_id, %(order_id)s::uuid, a.product_id, a.qty, 'HELD'
from requested a join held using (product_id) order by a.product_id
returning product_id
""",
)

COMMIT_HELD = Query(
    Row,
    """
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
""",
)

RELEASE_HELD = Query(
    Row,
    """
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
""",
)

# Without the units that were put back before, one line after the other.
RETURN_COMMITTED = Query(
    Row,
    """
with moved as (
  update shop.reservations set status = 'RETURNED'
  where order_id = %(order_id)s::uuid and status = 'COMMITTED'
  returning reservation_id, product_id, qty - returned_qty as qty
), locked as (
  select s.product_id from shop.stock s join moved using (product_id)
  order by s.product_id for update of s
), counted as (
  update shop.stock s set on_hand = s.on_hand + m.qty
  from moved m join locked using (product_id) where s.product_id = m.product_id
), recorded as (
  insert into shop.stock_moves (product_id, kind, qty, reservation_id)
  select product_id, 'RETURN', qty, reservation_id from moved where qty > 0 order by product_id
)
select reservation_id from moved
""",
)

# The move has no reservation, whose moves are one of each kind: I-05 and I-39 compare the sums.
RETURN_UNITS = Query(
    Row,
    """
with returned as (
  update shop.reservations set returned_qty = returned_qty + %(qty)s::int
  where order_id = %(order_id)s::uuid and product_id = %(product_id)s and status = 'COMMITTED'
    and returned_qty + %(qty)s::int <= qty
  returning product_id
), counted as (
  update shop.stock s set on_hand = s.on_hand + %(qty)s::int
  from returned r where s.product_id = r.product_id
)
insert into shop.stock_moves (product_id, kind, qty)
select product_id, 'LINE_RETURN', %(qty)s::int from returned
returning product_id
""",
)

AVAILABLE = Query(
    Availability,
    """
select product_id, on_hand - reserved as available from shop.stock
where product_id = any(%(product_ids)s::bigint[])
""",
)

LOCK_OF_ORDERS = Query(
    Row,
    """
select product_id from shop.stock
where product_id = any(%(product_ids)s::bigint[] || array(
  select product_id from shop.reservations where order_id = any(%(order_ids)s::uuid[])))
order by product_id for update
""",
)

CREATE_STOCK = Query(
    Row,
    """
with opened as (
  insert into shop.stock (product_id, on_hand) values (%(product_id)s, %(qty)s)
  returning product_id, on_hand, reserved
), moved as (
  insert into shop.stock_moves (product_id, kind, qty)
  select product_id, 'INITIAL', on_hand from opened where on_hand > 0
)
select on_hand from opened
""",
)

# At most two billion on hand, which leaves room in the integer for returned goods.  Reserved goods
# stay on hand.
ADJUST = Query(
    Row,
    """
with counted as (
  update shop.stock set on_hand = on_hand + %(qty)s::int
  where product_id = %(product_id)s and on_hand + %(qty)s::int >= reserved
    and (%(qty)s::int < 0 or on_hand <= 2000000000 - %(qty)s::int)
  returning product_id, on_hand
), moved as (
  insert into shop.stock_moves (product_id, kind, qty)
  select product_id, %(kind)s, %(qty)s::int from counted
)
select on_hand from counted
""",
)

READ_STOCK = Query(
    Stock,
    """
select on_hand, reserved from shop.stock where product_id = %(product_id)s
""",
)

# seq grows in the order in which moves were written, which may differ from that of their commits
MOVES = Query(
    Move,
    """
with page as (
  select seq, kind, qty, moved_at, reservation_id from shop.stock_moves
  where product_id = %(product_id)s::bigint
    and seq < coalesce(%(before_seq)s::bigint, 9223372036854775807)
  order by seq desc limit %(limit)s::int
)
select m.seq, m.kind, m.qty, m.moved_at, (
  select order_id from shop.reservations where reservation_id = m.reservation_id) as order_id
from page m order by m.seq desc
""",
)

CHANGES: dict[tuple[ReservationStatus, ReservationStatus], Query[Row]] = {
    (ReservationStatus.HELD, ReservationStatus.COMMITTED): COMMIT_HELD,
    (ReservationStatus.HELD, ReservationStatus.RELEASED): RELEASE_HELD,
    (ReservationStatus.COMMITTED, ReservationStatus.RETURNED): RETURN_COMMITTED,
}


def hold(order_id: UUID, lines: Sequence[tuple[int, int]]) -> Statement[HeldProduct]:
    """Holds ``(product_id, qty)`` lines for an order; one row per line that is held."""
    lines = sorted(lines)
    return HOLD(
        order_id=order_id,
        reservation_ids=[new_uuid() for _ in lines],
        product_ids=[product_id for product_id, _ in lines],
        quantities=[qty for _, qty in lines],
    )


def change_reservations(
    order_id: UUID, *, from_status: ReservationStatus, to_status: ReservationStatus
) -> Statement[Row]:
    """Commits, releases or returns all reservations of an order; one row per reservation."""
    return CHANGES[from_status, to_status](order_id=order_id)


def return_units(order_id: UUID, product_id: int, qty: int) -> Statement[Row]:
    """Puts units of a sold line back into the stock; no row for more than were sold of it."""
    return RETURN_UNITS(order_id=order_id, product_id=product_id, qty=qty)


def lock_stock_of(order_ids: list[UUID], product_ids: list[int]) -> Statement[Row]:
    """Locks the stock of these products and of these orders, before any of them changes."""
    return LOCK_OF_ORDERS(order_ids=order_ids, product_ids=product_ids)


def available(product_ids: list[int]) -> Statement[Availability]:
    """How much of each product can be sold."""
    return AVAILABLE(product_ids=product_ids)


def create_stock(product_id: int, qty: int) -> Statement[Row]:
    """Creates the stock row of a new product."""
    return CREATE_STOCK(product_id=product_id, qty=qty)


def adjust(product_id: int, qty: int, reason: StockMove) -> Statement[Row]:
    """Adds ``qty``, which may be negative, to the stock on hand.

    No row: no such product, more than the maximum, or less than is reserved.
    """
    return ADJUST(product_id=product_id, qty=qty, kind=reason)


def read_stock(product_id: int) -> Statement[Stock]:
    """A product's stock; no row when there is no such product."""
    return READ_STOCK(product_id=product_id)


def moves(product_id: int, *, before: int | None, limit: int) -> Statement[Move]:
    """Changes of a product's stock, newest first; those before a move's seq."""
    return MOVES(product_id=product_id, before_seq=before, limit=limit)
