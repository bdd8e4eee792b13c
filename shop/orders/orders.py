"""Orders and their lines: the only writer of ``orders`` and ``order_lines``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, LiteralString
from uuid import UUID

from shop.primitives.errors import not_found
from shop.primitives.ids import parse_uuid

if TYPE_CHECKING:
    from shop.adapters.db import Statement

# The price is read here and now; fewer lines back than asked for means that a product is unknown.
PLACE: LiteralString = """
with asked as (
  select product_id, qty
  from unnest(%(product_ids)s::bigint[], %(quantities)s::int[]) as a(product_id, qty)
), priced as (
  select p.product_id, a.qty, p.price_minor, p.currency
  from asked a join shop.products p using (product_id) where p.active
), placed as (
  insert into shop.orders (order_id, user_id, status, total_minor, currency, payment_method,
    idem_scope, idem_key, expires_at, hard_expires_at, charge_at)
  select %(order_id)s::uuid, %(user_id)s, 'PENDING', sum(qty * price_minor), min(currency),
    %(payment_method)s, %(idem_scope)s, %(idem_key)s,
    now() + make_interval(secs => %(soft_seconds)s),
    now() + make_interval(secs => %(hard_seconds)s), now() + interval '5 seconds'
  from priced
  having count(*) = cardinality(%(product_ids)s::bigint[])
    and count(distinct currency) = 1 and sum(qty * price_minor) <= %(total_max)s
  on conflict (user_id, idem_scope, idem_key) do nothing
  returning order_id, user_id, total_minor, currency, created_at
)
insert into shop.order_lines (order_id, user_id, product_id, qty, unit_price_minor)
select placed.order_id, placed.user_id, product_id, qty, price_minor
from priced cross join placed order by product_id
returning product_id, qty, unit_price_minor
"""

PLACED: LiteralString = """
select total_minor, currency, created_at,
  (select count(*) from shop.orders o where o.user_id = %(user_id)s and o.status = 'PENDING')
    as open_orders
from shop.orders where order_id = %(order_id)s::uuid
"""

BY_KEY: LiteralString = """
select order_id from shop.orders
where user_id = %(user_id)s and idem_scope = %(idem_scope)s and idem_key = %(idem_key)s
"""

PRODUCTS: LiteralString = """
select product_id, price_minor, currency from shop.products
where product_id = any(%(product_ids)s::bigint[]) and active
"""

LOCK: LiteralString = """
select order_id, user_id, status, reason, total_minor, currency, payment_method,
  charge_at is not null as charge_wanted,
  expires_at <= now() as is_soft_expired, hard_expires_at <= now() as is_hard_expired
from shop.orders where order_id = %(order_id)s::uuid
for update
"""

MOVE: LiteralString = """
update shop.orders set status = %(to_status)s, reason = coalesce(%(reason)s, reason),
  version = version + 1, updated_at = now(), charge_at = null
where order_id = %(order_id)s::uuid and status = %(from_status)s
returning order_id
"""

CHARGE_STARTED: LiteralString = """
update shop.orders set charge_at = null where order_id = %(order_id)s::uuid
returning order_id
"""

WANT_CHARGE: LiteralString = """
update shop.orders set charge_at = now() + interval '5 seconds',
  payment_method = %(payment_method)s, updated_at = now(), version = version + 1
where order_id = %(order_id)s::uuid and status = 'PENDING' and charge_at is null
returning order_id
"""

# One object per order, as every answer shows it.
_SHOWN: LiteralString = """
select o.order_id, o.user_id, o.status, o.reason, o.total_minor, o.currency, o.payment_method,
  o.created_at, o.version, o.charge_at is not null as charge_wanted,
  (select json_agg(json_build_object('productId', l.product_id, 'quantity', l.qty,
      'unitPrice', l.unit_price_minor, 'lineAmount', l.qty * l.unit_price_minor)
      order by l.product_id)
    from shop.order_lines l where l.order_id = o.order_id) as items,
  (select json_build_object('status', p.status, 'attempt', p.attempt) from shop.payments p
    where p.order_id = o.order_id order by p.attempt desc limit 1) as payment,
  (select coalesce(sum(r.amount_minor), 0)::bigint from shop.refunds r
    join shop.payments p using (payment_id)
    where p.order_id = o.order_id and r.status = 'SUCCEEDED') as refunded_minor
from shop.orders o
"""

VIEW: LiteralString = _SHOWN + "where o.order_id = %(order_id)s::uuid"

MINE: LiteralString = (
    _SHOWN
    + """
where o.user_id = %(user_id)s
  and (%(before)s::uuid is null or o.order_id < %(before)s::uuid)
order by o.order_id desc limit %(limit)s
"""
)

TIMELINE: LiteralString = """
select at, entity, entity_id, from_status, to_status, actor
from shop.transitions where order_id = %(order_id)s::uuid
order by seq limit %(limit)s
"""

OWNED: LiteralString = """
select order_id from shop.orders
where order_id = %(order_id)s::uuid and user_id = %(user_id)s
"""


def id_in(path: Mapping[str, str]) -> UUID:
    """The order id of a path; one that is no id gets the 404 of an order that is not there."""
    order_id = parse_uuid(path["orderId"])
    if order_id is None:
        raise not_found("the order")
    return order_id


def place(
    *,
    order_id: UUID,
    user_id: int,
    lines: Sequence[tuple[int, int]],
    payment_method: str,
    idem_scope: str | None,
    idem_key: str | None,
    soft_seconds: int,
    hard_seconds: int,
    total_max: int,
) -> Statement:
    """The statement that makes a PENDING order of ``(product_id, qty)`` lines at present prices."""
    return PLACE, {
        "order_id": order_id,
        "user_id": user_id,
        "product_ids": [product_id for product_id, _ in lines],
        "quantities": [qty for _, qty in lines],
        "payment_method": payment_method,
        "idem_scope": idem_scope,
        "idem_key": idem_key,
        "soft_seconds": soft_seconds,
        "hard_seconds": hard_seconds,
        "total_max": total_max,
    }


def placed(order_id: UUID, user_id: int) -> Statement:
    """The statement that reads back a new order, and how many open ones its buyer has."""
    return PLACED, {"order_id": order_id, "user_id": user_id}


def move(
    order_id: UUID, *, from_status: str, to_status: str, reason: str | None = None
) -> Statement:
    """The guarded status change; no row back means that somebody else moved it."""
    return MOVE, {
        "order_id": order_id,
        "from_status": from_status,
        "to_status": to_status,
        "reason": reason,
    }


def represent(row: Any) -> dict[str, Any]:
    """An order's row (VIEW or MINE) as the JSON object of the contract."""
    body = {
        "id": str(row.order_id),
        "userId": row.user_id,
        "status": row.status,
        "totalAmount": row.total_minor,
        "currency": row.currency,
        "paymentMethod": row.payment_method,
        "createdAt": row.created_at.isoformat(),
        "items": row.items,
        "payment": row.payment,
        "refundedAmount": row.refunded_minor,
    }
    if row.reason:
        body["reason"] = row.reason
    return body
