"""Carts: what customers intend to buy.  Writer of ``cart_items``.

A cart reserves no stock: a product that is available now may be sold before the order is placed.
Units that the customer's own declined orders hold are available to them: the next order frees them.
Row-level security shows only the rows of ``shop.user_id``, so with another user id a cart is empty.
"""

from __future__ import annotations

from typing import LiteralString
from uuid import UUID

from shop.adapters.statements import Command, Query, Row, Statement

LINES_MAX = 50
QUANTITY_MAX = 1_000


class Line(Row):
    """One product in a cart at its present price, with the VAT of its category."""

    product_id: int
    qty: int
    name: str
    price_minor: int
    currency: str
    vat_basis_points: int
    vat_included: bool
    active: bool
    available: int


class AddedLine(Row):
    """The result of an addition: ``qty`` is None when rejected; the other columns show why."""

    product_id: int
    name: str
    price_minor: int
    currency: str
    vat_basis_points: int
    vat_included: bool
    available: int
    active: bool
    qty_before: int
    lines: int
    qty: int | None


class ChangedLine(Row):
    """The result of a change: ``qty`` is None when it was rejected for lack of stock."""

    product_id: int
    name: str
    price_minor: int
    currency: str
    vat_basis_points: int
    vat_included: bool
    active: bool
    available: int
    qty: int | None


class TakenLine(Row):
    """A line of a cart that was emptied."""

    product_id: int
    qty: int


# Additions to one cart are serialised: two concurrent ones could exceed LINES_MAX together.  So is
# what takes its lines for an order and returns them, before it locks any stock: an order that is
# placed locks its lines first.
LOCK = Query(
    Row,
    """
select pg_advisory_xact_lock(hashtextextended('shop.cart', %(user_id)s::bigint))
""",
)

# What can be sold of stock row ``s`` to the cart's customer.
_AVAILABLE: LiteralString = """
(s.on_hand - s.reserved + coalesce((
    select sum(r.qty) from shop.orders o join shop.reservations r using (order_id)
    where o.user_id = %(user_id)s::bigint and o.status = 'PENDING' and o.charge_at is null
      and r.product_id = s.product_id and r.status = 'HELD'
      and not exists (select from shop.payments y where y.order_id = o.order_id
        and y.status in ('INTENT', 'UNKNOWN'))), 0))::int"""

# No row: no such product is for sale.
ADD = Query(
    AddedLine,
    """
with product as (
  select p.product_id, p.name, p.price_minor, p.currency, g.vat_basis_points, g.vat_included,"""
    + _AVAILABLE
    + """ as available
  from shop.products p join shop.stock s using (product_id)
    join shop.categories g on g.name = p.category
  where p.product_id = %(product_id)s::bigint and p.active
), cart as (
  select count(*) as lines,
    coalesce(max(qty) filter (where product_id = %(product_id)s::bigint), 0) as qty_before
  from shop.cart_items where user_id = %(user_id)s::bigint
), added as (
  insert into shop.cart_items as c (user_id, product_id, qty)
  select %(user_id)s::bigint, product.product_id, %(qty)s::int from product, cart
  where product.available >= cart.qty_before + %(qty)s::int
    and cart.qty_before + %(qty)s::int <= %(qty_max)s::int
    and (cart.qty_before > 0 or cart.lines < %(lines_max)s::int)
  on conflict (user_id, product_id) do update set qty = c.qty + excluded.qty
    where c.qty + excluded.qty <= least(%(qty_max)s::int, (select available from product))
  returning qty
)
select product.product_id, product.name, product.price_minor, product.currency,
  product.vat_basis_points, product.vat_included, product.available, true as active,
  cart.qty_before, cart.lines, (select qty from added) as qty
from product, cart
""",
)

# No row: not in the cart.
SET_QTY = Query(
    ChangedLine,
    """
with line as (
  select c.product_id, p.name, p.price_minor, p.currency, g.vat_basis_points, g.vat_included,
    p.active, case when p.active then"""
    + _AVAILABLE
    + """ else 0 end as available
  from shop.cart_items c
  join shop.products p using (product_id) join shop.stock s using (product_id)
  join shop.categories g on g.name = p.category
  where c.user_id = %(user_id)s::bigint and c.product_id = %(product_id)s::bigint
), changed as (
  update shop.cart_items c set qty = %(qty)s::int from line
  where c.user_id = %(user_id)s::bigint and c.product_id = line.product_id
    and line.available >= %(qty)s::int
  returning c.qty
)
select line.product_id, line.name, line.price_minor, line.currency, line.vat_basis_points,
  line.vat_included, line.active, line.available, (select qty from changed) as qty
from line
""",
)

REMOVE = Command(
    """
delete from shop.cart_items
where user_id = %(user_id)s::bigint and product_id = %(product_id)s::bigint
"""
)

EMPTY = Query(
    TakenLine,
    """
delete from shop.cart_items where user_id = %(user_id)s::bigint returning product_id, qty
""",
)

# The customer may have put the product into the cart again meanwhile.
RETURN_LINES = Command(
    """
insert into shop.cart_items (user_id, product_id, qty)
select user_id, product_id, qty from shop.order_lines where order_id = %(order_id)s::uuid
on conflict do nothing
"""
)

# Lines that the customer changed after they were returned stay.
TAKE_AGAIN = Command(
    """
delete from shop.cart_items c using shop.order_lines l, shop.orders o
where o.order_id = %(order_id)s::uuid and o.cart_taken and l.order_id = o.order_id
  and c.user_id = l.user_id and c.product_id = l.product_id and c.qty = l.qty
"""
)

LINES = Query(
    Line,
    """
select c.product_id, c.qty, p.name, p.price_minor, p.currency, g.vat_basis_points,
  g.vat_included, p.active,
"""
    + _AVAILABLE
    + """ as available
from shop.cart_items c
join shop.products p using (product_id) join shop.stock s using (product_id)
join shop.categories g on g.name = p.category
where c.user_id = %(user_id)s::bigint
order by c.added_at, c.product_id
""",
)


def lock(user_id: int) -> Statement[Row]:
    """Locks a cart until the end of the transaction.

    Send it before ``add``, ``empty``, ``return_lines`` and ``take_again``.
    """
    return LOCK(user_id=user_id)


def add(user_id: int, product_id: int, qty: int) -> Statement[AddedLine]:
    """Adds ``qty`` of a product; no row means that no such product is for sale."""
    return ADD(
        user_id=user_id,
        product_id=product_id,
        qty=qty,
        qty_max=QUANTITY_MAX,
        lines_max=LINES_MAX,
    )


def set_quantity(user_id: int, product_id: int, qty: int) -> Statement[ChangedLine]:
    """Changes a line's quantity; no row means that the product is not in the cart."""
    return SET_QTY(user_id=user_id, product_id=product_id, qty=qty)


def remove(user_id: int, product_id: int) -> Statement[Row]:
    """Removes a line, if there is one."""
    return REMOVE(user_id=user_id, product_id=product_id)


def empty(user_id: int) -> Statement[TakenLine]:
    """Empties the cart and returns its lines; of two concurrent orders only one gets them."""
    return EMPTY(user_id=user_id)


def lines(user_id: int) -> Statement[Line]:
    """The cart's lines, oldest first."""
    return LINES(user_id=user_id)


def return_lines(order_id: UUID) -> Statement[Row]:
    """Puts the lines of an order that was not paid into its customer's cart again."""
    return RETURN_LINES(order_id=order_id)


def take_again(order_id: UUID) -> Statement[Row]:
    """Takes the unchanged lines of an order from the cart that is paid again, if it had them."""
    return TAKE_AGAIN(order_id=order_id)
