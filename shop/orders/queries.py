"""Reads orders for responses: one row type and one JSON representation.  Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from shop.adapters.statements import Query, Row, Statement, enum_column
from shop.primitives.errors import not_found
from shop.primitives.ids import parse_uuid
from shop.primitives.statuses import OrderStatus, PriceLineKind


class OrderView(Row):
    """An order with its lines, its latest payment attempt, its refunds' sum and what was sent.

    Any: a shipment or a return, as ``represent`` of their owners makes it.
    """

    order_id: UUID
    user_id: int
    status: OrderStatus = enum_column(OrderStatus)
    reason: str | None
    total_minor: int
    currency: str
    payment_method: str
    created_at: datetime
    charge_requested: bool
    items: list[dict[str, int]]
    price_lines: list[dict[str, str | int | float | None]]
    coupons: list[dict[str, str | int]] | None
    payment: dict[str, Any] | None  # Any: a JSON object, made by the statement
    refunded_minor: int
    shipments: list[dict[str, Any]] | None
    returns: list[dict[str, Any]] | None


class StatusHistoryEntry(Row):
    """One status change of an order or of one of its payments, refunds or reservations."""

    at: datetime
    entity: str
    entity_id: UUID
    from_status: str
    to_status: str
    actor: str


_VIEW: LiteralString = """
select o.order_id, o.user_id, o.status, o.reason, o.total_minor, o.currency, o.payment_method,
  o.created_at, o.charge_at is not null as charge_requested,
  (select json_agg(json_build_object('productId', l.product_id, 'quantity', l.qty,
      'unitPrice', l.unit_price_minor, 'lineAmount', l.qty * l.unit_price_minor)
      order by l.product_id)
    from shop.order_lines l where l.order_id = o.order_id) as items,
  (select coalesce(json_agg(json_build_object('kind', l.kind, 'productId', l.product_id,
      'amount', l.amount_minor, 'vatAmount', l.vat_minor,
      'vatPercent', l.vat_basis_points / 100.0) order by l.line), '[]')
    from shop.order_price_lines l where l.order_id = o.order_id) as price_lines,
  (select json_agg(json_build_object('code', u.code, 'discountAmount', u.discount_minor)
      order by u.code)
    from shop.coupon_uses u where u.order_id = o.order_id) as coupons,
  (select json_build_object('id', p.payment_id, 'status', p.status, 'attempt', p.attempt,
      'nextAction', case when p.action_token is null and p.act_until > now()
        then p.action || jsonb_build_object('until', p.act_until) end) from shop.payments p
    where p.order_id = o.order_id order by p.attempt desc limit 1) as payment,
  (select coalesce(sum(r.amount_minor), 0)::bigint from shop.refunds r
    join shop.payments p using (payment_id)
    where p.order_id = o.order_id and r.status = 'SUCCEEDED' and r.means <> 'WRITE_OFF')
    as refunded_minor,
  (select json_agg(json_build_object('id', s.shipment_id, 'status', s.status,
      'carrier', s.carrier, 'trackingNumber', s.tracking_number,
      'items', (select json_agg(json_build_object('productId', l.product_id, 'quantity', l.qty)
          order by l.product_id)
        from shop.shipment_lines l where l.shipment_id = s.shipment_id),
      'createdAt', s.created_at, 'shippedAt', s.shipped_at, 'deliveredAt', s.delivered_at)
      order by s.created_at, s.shipment_id)
    from shop.shipments s where s.order_id = o.order_id) as shipments,
  (select json_agg(json_build_object('id', r.return_id, 'status', r.status,
      'items', (select json_agg(json_build_object('productId', l.product_id, 'quantity', l.qty,
          'restocked', l.restocked_qty, 'amount', l.amount_minor) order by l.product_id)
        from shop.return_lines l where l.return_id = r.return_id),
      'createdAt', r.created_at, 'updatedAt', r.updated_at)
      order by r.created_at, r.return_id)
    from shop.returns r where r.order_id = o.order_id) as returns
from shop.orders o
"""

ORDER = Query(OrderView, _VIEW + "where o.order_id = %(order_id)s::uuid")

ORDERS_BY_ID = Query(OrderView, _VIEW + "where o.order_id = any(%(order_ids)s::uuid[])")

ORDERS_OF_USER = Query(
    OrderView,
    _VIEW
    + """
where o.user_id = %(user_id)s
  and (%(before)s::uuid is null or o.order_id < %(before)s::uuid)
order by o.order_id desc limit %(limit)s
""",
)

STATUS_HISTORY = Query(
    StatusHistoryEntry,
    """
select at, entity, entity_id, from_status, to_status, actor
from shop.transitions where order_id = %(order_id)s::uuid
order by seq limit %(limit)s
""",
)


def order(order_id: UUID) -> Statement[OrderView]:
    """One order."""
    return ORDER(order_id=order_id)


def orders_by_id(order_ids: list[UUID]) -> Statement[OrderView]:
    """Several orders, in no certain order."""
    return ORDERS_BY_ID(order_ids=order_ids)


def orders_of_user(user_id: int, *, before: UUID | None, limit: int) -> Statement[OrderView]:
    """A user's orders that are older than ``before`` (None: all), newest first."""
    return ORDERS_OF_USER(user_id=user_id, before=before, limit=limit)


def status_history(order_id: UUID, *, limit: int) -> Statement[StatusHistoryEntry]:
    """At most ``limit`` status changes of an order and of its other rows, oldest first."""
    return STATUS_HISTORY(order_id=order_id, limit=limit)


def id_in(path: Mapping[str, str]) -> UUID:
    """The order id in a path; raises the 404 of an unknown order when it is not an id."""
    order_id = parse_uuid(path["orderId"])
    if order_id is None:
        raise not_found("the order")
    return order_id


def represent(order: OrderView, *, reader_id: int | None = None) -> dict[str, object]:
    """The order as the JSON object of the HTTP contract.

    An order of one line also has its ``productId`` and ``quantity``, which clients of the replaced
    system read.  Only its customer sees what a payment requires, since that can pay it.
    """
    body: dict[str, object] = {
        "id": str(order.order_id),
        "userId": order.user_id,
        "status": order.status,
        "totalAmount": order.total_minor,
        "currency": order.currency,
        "paymentMethod": order.payment_method,
        "createdAt": order.created_at.isoformat(),
        "items": order.items,
        "priceLines": order.price_lines or [_without_vat(item) for item in order.items],
        "payment": _represent_payment(order, is_reader_customer=reader_id == order.user_id),
        "refundedAmount": order.refunded_minor,
    }
    if len(order.items) == 1:
        body |= {name: order.items[0][name] for name in ("productId", "quantity")}
    if order.reason:
        body["reason"] = order.reason
    if order.coupons:
        body["coupons"] = order.coupons
    if order.shipments:
        body["shipments"] = order.shipments
    if order.returns:
        body["returns"] = order.returns
    return body


def awaits_customer(order: OrderView) -> bool:
    """Whether the customer has to act before anything else can happen to the payment."""
    return order.payment is not None and order.payment["nextAction"] is not None


def _represent_payment(order: OrderView, *, is_reader_customer: bool) -> dict[str, Any] | None:
    if order.payment is None:
        return None
    shown = dict(order.payment)
    action = shown.pop("nextAction")
    return {**shown, "nextAction": action} if action and is_reader_customer else shown


def _without_vat(item: Mapping[str, int]) -> dict[str, object]:
    """The price line of an item of an order that was placed without price lines."""
    return {
        "kind": PriceLineKind.GOODS,
        "productId": item["productId"],
        "amount": item["lineAmount"],
        "vatAmount": None,
        "vatPercent": None,
    }
