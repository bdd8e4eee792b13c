"""Reads every record of one order, for operators: the page of an order, ``shop order explain``.

Writes nothing.  What one order has is limited by what people and the provider did to it, so these
lists have no limit.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from uuid import UUID

from shop.adapters.statements import Query, Row, Statement, enum_column
from shop.primitives.statuses import (
    DisputeStatus,
    OrderStatus,
    PaymentStatus,
    PostingKind,
    PriceLineKind,
    RefundMeans,
    RefundOrigin,
    RefundStatus,
)


class OrderRecord(Row):
    """An order; ``reason`` is that of a cancellation."""

    order_id: UUID
    user_id: int
    status: OrderStatus = enum_column(OrderStatus)
    reason: str | None
    total_minor: int
    currency: str
    payment_method: str
    idem_key: str | None
    created_at: datetime
    updated_at: datetime
    expires_at: datetime
    hard_expires_at: datetime


class LineRecord(Row):
    """A line of an order, with the present name of its product."""

    product_id: int
    name: str
    qty: int
    unit_price_minor: int


class PriceLineRecord(Row):
    """A part of the total; ``vat_minor`` is in the amount."""

    kind: PriceLineKind = enum_column(PriceLineKind)
    product_id: int | None
    amount_minor: int
    vat_minor: int
    vat_basis_points: int


class PaymentRecord(Row):
    """An attempt to collect the total."""

    payment_id: UUID
    attempt: int
    status: PaymentStatus = enum_column(PaymentStatus)
    amount_minor: int
    currency: str
    payment_method: str
    late: bool
    provider_key: str
    provider_ref: str | None
    refund_reserved_minor: int
    tries: int
    created_at: datetime
    updated_at: datetime


class RefundRecord(Row):
    """A refund; ``requested_by`` is the account of an operator."""

    refund_id: UUID
    payment_id: UUID
    amount_minor: int
    currency: str
    status: RefundStatus = enum_column(RefundStatus)
    reason: str
    requested_by: int | None
    origin: RefundOrigin = enum_column(RefundOrigin)
    means: RefundMeans = enum_column(RefundMeans)
    reference: str | None
    restock: bool
    provider_key: str
    tries: int
    created_at: datetime
    updated_at: datetime


class DisputeRecord(Row):
    """A dispute about a payment."""

    dispute_id: UUID
    payment_id: UUID
    provider_ref: str
    amount_minor: int
    currency: str
    status: DisputeStatus = enum_column(DisputeStatus)
    created_at: datetime
    updated_at: datetime


class StatusChangeRecord(Row):
    """A status change of the order, or of one of its other rows."""

    seq: int
    at: datetime
    entity: str
    entity_id: UUID
    from_status: str
    to_status: str
    actor: str
    event_id: UUID | None


class PostingRecord(Row):
    """A posting of the ledger, and the business day in whose settlement it is."""

    seq: int
    posted_at: datetime
    kind: PostingKind = enum_column(PostingKind)
    source_id: UUID
    debit: str
    credit: str
    amount_minor: int
    currency: str
    chain: int
    chain_seq: int
    settled_on: date | None


class EventRecord(Row):
    """An event about the order, while the outbox has it."""

    event_id: UUID
    source: str
    type: str
    data: dict[str, Any]
    traceparent: str
    created_at: datetime
    sent_at: datetime | None
    done_at: datetime | None
    parked_at: datetime | None
    tries: int


class DeliveryRecord(Row):
    """An event and one of its consumers; ``received_at`` is None until it has consumed it."""

    event_id: UUID
    type: str
    consumer: str
    received_at: datetime | None


ORDER = Query(
    OrderRecord,
    """
select order_id, user_id, status, reason, total_minor, currency::text as currency, payment_method,
  idem_key, created_at, updated_at, expires_at, hard_expires_at
from shop.orders where order_id = %(order_id)s::uuid
""",
)

LINES = Query(
    LineRecord,
    """
select l.product_id, p.name, l.qty, l.unit_price_minor from shop.order_lines l
join shop.products p using (product_id) where l.order_id = %(order_id)s::uuid order by l.product_id
""",
)

PRICE_LINES = Query(
    PriceLineRecord,
    """
select kind, product_id, amount_minor, vat_minor, vat_basis_points from shop.order_price_lines
where order_id = %(order_id)s::uuid order by line
""",
)

PAYMENTS = Query(
    PaymentRecord,
    """
select payment_id, attempt, status, amount_minor, currency::text as currency, payment_method, late,
  provider_key, provider_ref, refund_reserved_minor, tries, created_at, updated_at
from shop.payments where order_id = %(order_id)s::uuid order by attempt
""",
)

REFUNDS = Query(
    RefundRecord,
    """
select r.refund_id, r.payment_id, r.amount_minor, r.currency::text as currency, r.status, r.reason,
  r.requested_by, r.origin, r.means, r.reference, r.restock, r.provider_key, r.tries, r.created_at,
  r.updated_at
from shop.refunds r join shop.payments p using (payment_id)
where p.order_id = %(order_id)s::uuid order by r.created_at, r.refund_id
""",
)

DISPUTES = Query(
    DisputeRecord,
    """
select d.dispute_id, d.payment_id, d.provider_ref, d.amount_minor, d.currency::text as currency,
  d.status, d.created_at, d.updated_at
from shop.disputes d join shop.payments p using (payment_id)
where p.order_id = %(order_id)s::uuid order by d.created_at, d.dispute_id
""",
)

STATUS_HISTORY = Query(
    StatusChangeRecord,
    """
select seq, at, entity, entity_id, from_status, to_status, actor, event_id from shop.transitions
where order_id = %(order_id)s::uuid order by seq
""",
)

POSTINGS = Query(
    PostingRecord,
    """
select l.seq, l.posted_at, l.kind, l.source_id, l.debit, l.credit, l.amount_minor,
  l.currency::text as currency, l.chain, l.chain_seq,
  (select s.day from shop.settlement_lines s where s.seq = l.seq) as settled_on
from shop.ledger l
where l.order_id = %(order_id)s::uuid order by l.seq
""",
)

EVENTS = Query(
    EventRecord,
    """
select event_id, source, type, data, traceparent, created_at, sent_at, done_at, parked_at, tries
from shop.outbox where order_id = %(order_id)s::uuid order by created_at, event_id
""",
)

DELIVERIES = Query(
    DeliveryRecord,
    """
select o.event_id, o.type, s.consumer, i.received_at from shop.outbox o
join shop.subscriptions s using (type)
left join shop.inbox i on i.consumer = s.consumer and i.source = o.source
  and i.event_id = o.event_id::text
where o.order_id = %(order_id)s::uuid order by i.received_at, s.consumer
""",
)


def order(order_id: UUID) -> Statement[OrderRecord]:
    """The order."""
    return ORDER(order_id=order_id)


def lines(order_id: UUID) -> Statement[LineRecord]:
    """Its lines."""
    return LINES(order_id=order_id)


def price_lines(order_id: UUID) -> Statement[PriceLineRecord]:
    """The lines whose sum is its total; none of an order of version 0.1.0."""
    return PRICE_LINES(order_id=order_id)


def payments(order_id: UUID) -> Statement[PaymentRecord]:
    """All attempts to collect its total, oldest first."""
    return PAYMENTS(order_id=order_id)


def refunds(order_id: UUID) -> Statement[RefundRecord]:
    """All refunds of its payments, oldest first."""
    return REFUNDS(order_id=order_id)


def disputes(order_id: UUID) -> Statement[DisputeRecord]:
    """All disputes about its payments, oldest first."""
    return DISPUTES(order_id=order_id)


def status_history(order_id: UUID) -> Statement[StatusChangeRecord]:
    """Every status change of the order and of its other rows, oldest first."""
    return STATUS_HISTORY(order_id=order_id)


def postings(order_id: UUID) -> Statement[PostingRecord]:
    """Its postings, oldest first."""
    return POSTINGS(order_id=order_id)


def events(order_id: UUID) -> Statement[EventRecord]:
    """The events about it that the outbox still has, oldest first."""
    return EVENTS(order_id=order_id)


def deliveries(order_id: UUID) -> Statement[DeliveryRecord]:
    """Each of those events with each of its consumers; those not consumed yet come last."""
    return DELIVERIES(order_id=order_id)
