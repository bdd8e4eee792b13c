"""Reads what a receipt of an order shows beside the order.  Writes nothing."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from shop.adapters.statements import Query, Row, Statement


class ReceiptItem(Row):
    """A line of goods, with the present name of its product."""

    product_id: int
    name: str
    qty: int
    unit_price_minor: int


class CollectedPayment(Row):
    """A payment that was collected, and when."""

    payment_id: UUID
    payment_method: str
    amount_minor: int
    paid_at: datetime


class MadeRefund(Row):
    """A refund that was made, and when."""

    refund_id: UUID
    amount_minor: int
    refunded_at: datetime


ITEMS = Query(
    ReceiptItem,
    """
select l.product_id, p.name, l.qty, l.unit_price_minor from shop.order_lines l
join shop.products p using (product_id) where l.order_id = %(order_id)s::uuid order by l.product_id
""",
)

# The row itself says when it was changed last, which may have been a refund.
PAYMENTS = Query(
    CollectedPayment,
    """
select p.payment_id, p.payment_method, p.amount_minor, coalesce((select max(t.at)
    from shop.transitions t where t.order_id = p.order_id and t.entity = 'payment'
      and t.entity_id = p.payment_id and t.to_status = 'CAPTURED'), p.updated_at) as paid_at
from shop.payments p
where p.order_id = %(order_id)s::uuid and p.status = 'CAPTURED' order by p.attempt
""",
)

REFUNDS = Query(
    MadeRefund,
    """
select r.refund_id, r.amount_minor, r.updated_at as refunded_at
from shop.refunds r join shop.payments p using (payment_id)
where p.order_id = %(order_id)s::uuid and r.status = 'SUCCEEDED' and r.means <> 'WRITE_OFF'
order by r.updated_at, r.refund_id
""",
)


def items(order_id: UUID) -> Statement[ReceiptItem]:
    """The goods of an order."""
    return ITEMS(order_id=order_id)


def payments(order_id: UUID) -> Statement[CollectedPayment]:
    """The payments of an order that were collected, oldest first."""
    return PAYMENTS(order_id=order_id)


def refunds(order_id: UUID) -> Statement[MadeRefund]:
    """The refunds of an order that were made, oldest first; not those that were written off."""
    return REFUNDS(order_id=order_id)
