"""Units of an order that go back: cancelled before they were sent, or returned by the customer.

Writer of ``returns`` and ``return_lines``.  What is given back, and for how much, is decided under
the order's lock (``decide``) and checked by invariants I-37 and I-38.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

from shop.adapters.statements import Query, Row, Statement, enum_column
from shop.primitives.statuses import ReturnStatus


class ReturnRow(Row):
    """A return; ``lines`` are objects with product_id, qty, restocked_qty and amount_minor.

    The last two are null until the units are given back.
    """

    return_id: UUID
    status: ReturnStatus = enum_column(ReturnStatus)
    reason: str
    created_at: datetime
    updated_at: datetime
    lines: list[dict[str, int | None]]


class ReturnableShipment(Row):
    """A shipment whose goods can still be returned."""

    shipment_id: UUID


OF_ORDER = Query(
    ReturnRow,
    """
select r.return_id, r.status, r.reason, r.created_at, r.updated_at,
  (select json_agg(json_build_object('product_id', l.product_id, 'qty', l.qty,
      'restocked_qty', l.restocked_qty, 'amount_minor', l.amount_minor) order by l.product_id)
    from shop.return_lines l where l.return_id = r.return_id) as lines
from shop.returns r where r.order_id = %(order_id)s::uuid order by r.created_at, r.return_id
""",
)

# The window begins with the delivery, or with the handing over to the carrier.
RETURNABLE = Query(
    ReturnableShipment,
    """
select shipment_id from shop.shipments
where order_id = %(order_id)s::uuid and now() < make_interval(days => %(days)s::int)
  + case when %(window_start)s::text = 'delivered' then delivered_at else shipped_at end
""",
)

OPEN = Query(
    Row,
    """
with opened as (
  insert into shop.returns (return_id, order_id, status, reason)
  values (%(return_id)s::uuid, %(order_id)s::uuid, %(status)s, %(reason)s)
  returning return_id, order_id
)
insert into shop.return_lines (return_id, order_id, product_id, qty)
select return_id, order_id, product_id, qty
from opened cross join unnest(%(product_ids)s::bigint[], %(quantities)s::int[])
  as a(product_id, qty)
returning return_id
""",
)

CHANGE_STATUS = Query(
    Row,
    """
update shop.returns set status = %(to_status)s, updated_at = now()
where return_id = %(return_id)s::uuid and status = %(from_status)s
returning return_id
""",
)

GIVE_BACK = Query(
    Row,
    """
update shop.return_lines set restocked_qty = %(restocked)s, amount_minor = %(amount_minor)s
where return_id = %(return_id)s::uuid and product_id = %(product_id)s and amount_minor is null
returning return_id
""",
)


def of_order(order_id: UUID) -> Statement[ReturnRow]:
    """All returns of an order, oldest first."""
    return OF_ORDER(order_id=order_id)


def returnable(
    order_id: UUID, *, days: int, window_start: Literal["delivered", "shipped"]
) -> Statement[ReturnableShipment]:
    """The shipments of an order whose return window is open."""
    return RETURNABLE(order_id=order_id, days=days, window_start=window_start)


def open_return(
    *,
    return_id: UUID,
    order_id: UUID,
    status: ReturnStatus,
    reason: str,
    lines: Sequence[tuple[int, int]],
) -> Statement[Row]:
    """Creates a return of ``(product_id, qty)`` lines."""
    return OPEN(
        return_id=return_id,
        order_id=order_id,
        status=status,
        reason=reason,
        product_ids=[product_id for product_id, _ in lines],
        quantities=[qty for _, qty in lines],
    )


def change_status(
    return_id: UUID, *, from_status: ReturnStatus, to_status: ReturnStatus
) -> Statement[Row]:
    """Changes a return's status; no row when it does not have ``from_status``."""
    return CHANGE_STATUS(return_id=return_id, from_status=from_status, to_status=to_status)


def give_back(
    return_id: UUID, product_id: int, *, restocked: int, amount_minor: int
) -> Statement[Row]:
    """Records what became of a line's units and of their money; no row when it is recorded."""
    return GIVE_BACK(
        return_id=return_id,
        product_id=product_id,
        restocked=restocked,
        amount_minor=amount_minor,
    )


def represent(row: ReturnRow) -> dict[str, object]:
    """A return as the JSON object of the HTTP contract, as in an order's ``returns``."""
    return {
        "id": str(row.return_id),
        "status": row.status,
        "items": [
            {
                "productId": line["product_id"],
                "quantity": line["qty"],
                "restocked": line["restocked_qty"],
                "amount": line["amount_minor"],
            }
            for line in row.lines
        ],
        "createdAt": row.created_at.isoformat(),
        "updatedAt": row.updated_at.isoformat(),
    }
