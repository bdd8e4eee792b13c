"""Shipments: lines of an order that are sent together.

Writer of ``shipments`` and ``shipment_lines``.

An order may have several, also of parts of its lines.  That no more is shipped than was ordered is
decided under the order's lock (``decide``) and checked by invariant I-33.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from shop.adapters.statements import Query, Row, Statement, enum_column
from shop.primitives.statuses import ShipmentStatus


class ShipmentRow(Row):
    """One shipment; ``lines`` are objects with ``product_id`` and ``qty``."""

    shipment_id: UUID
    status: ShipmentStatus = enum_column(ShipmentStatus)
    carrier: str | None
    tracking_number: str | None
    created_at: datetime
    shipped_at: datetime | None
    delivered_at: datetime | None
    lines: list[dict[str, int]]


class Parcel(Row):
    """A shipment that was handed to a carrier."""

    shipment_id: UUID
    order_id: UUID
    created_at: datetime


OF_ORDER = Query(
    ShipmentRow,
    """
select s.shipment_id, s.status, s.carrier, s.tracking_number, s.created_at, s.shipped_at,
  s.delivered_at,
  (select json_agg(json_build_object('product_id', l.product_id, 'qty', l.qty)
      order by l.product_id)
    from shop.shipment_lines l where l.shipment_id = s.shipment_id) as lines
from shop.shipments s where s.order_id = %(order_id)s::uuid order by s.created_at, s.shipment_id
""",
)

# Carriers use numbers again: the parcel under way, or else the last one that was delivered.
PARCEL = Query(
    Parcel,
    """
select shipment_id, order_id, created_at from shop.shipments
where carrier = %(carrier)s and tracking_number = %(tracking_number)s
order by status = 'SHIPPED' desc, shipped_at desc limit 1
""",
)

OPEN = Query(
    Row,
    """
with opened as (
  insert into shop.shipments (shipment_id, order_id, status)
  values (%(shipment_id)s::uuid, %(order_id)s::uuid, 'PREPARING')
  returning shipment_id, order_id
)
insert into shop.shipment_lines (shipment_id, order_id, product_id, qty)
select shipment_id, order_id, product_id, qty
from opened cross join unnest(%(product_ids)s::bigint[], %(quantities)s::int[])
  as a(product_id, qty)
returning shipment_id
""",
)

CHANGE_STATUS = Query(
    Row,
    """
update shop.shipments set status = %(to_status)s, updated_at = now(),
  carrier = coalesce(%(carrier)s, carrier),
  tracking_number = coalesce(%(tracking_number)s, tracking_number),
  shipped_at = case when %(to_status)s = 'SHIPPED' then now() else shipped_at end,
  delivered_at = case when %(to_status)s = 'DELIVERED' then now() else delivered_at end
where shipment_id = %(shipment_id)s::uuid and status = %(from_status)s
returning shipment_id
""",
)


def of_order(order_id: UUID) -> Statement[ShipmentRow]:
    """All shipments of an order, oldest first."""
    return OF_ORDER(order_id=order_id)


def parcel(carrier: str, tracking_number: str) -> Statement[Parcel]:
    """The shipment that has, or last had, a carrier's number; no row when none had it."""
    return PARCEL(carrier=carrier, tracking_number=tracking_number)


def open_shipment(
    *, shipment_id: UUID, order_id: UUID, lines: Sequence[tuple[int, int]]
) -> Statement[Row]:
    """Creates a shipment of ``(product_id, qty)`` lines, which is PREPARING."""
    return OPEN(
        shipment_id=shipment_id,
        order_id=order_id,
        product_ids=[product_id for product_id, _ in lines],
        quantities=[qty for _, qty in lines],
    )


def change_status(
    shipment_id: UUID,
    *,
    from_status: ShipmentStatus,
    to_status: ShipmentStatus,
    carrier: str | None,
    tracking_number: str | None,
) -> Statement[Row]:
    """Changes a shipment's status; no row when it does not have ``from_status``."""
    return CHANGE_STATUS(
        shipment_id=shipment_id,
        from_status=from_status,
        to_status=to_status,
        carrier=carrier,
        tracking_number=tracking_number,
    )


def represent(shipment: ShipmentRow) -> dict[str, object]:
    """A shipment as the JSON object of the HTTP contract, as in an order's ``shipments``."""
    times = {
        "createdAt": shipment.created_at,
        "shippedAt": shipment.shipped_at,
        "deliveredAt": shipment.delivered_at,
    }
    return {
        "id": str(shipment.shipment_id),
        "status": shipment.status,
        "carrier": shipment.carrier,
        "trackingNumber": shipment.tracking_number,
        "items": [
            {"productId": line["product_id"], "quantity": line["qty"]} for line in shipment.lines
        ],
        **{name: time and time.isoformat() for name, time in times.items()},
    }
