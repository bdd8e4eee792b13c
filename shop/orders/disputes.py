"""Disputes: a row for each dispute that a customer opened at the bank.  Writer of ``disputes``.

What a dispute has moved is read from the ledger, which has at most one posting of each kind.
"""

from __future__ import annotations

from uuid import UUID

from shop.adapters.statements import Query, Row, Statement, enum_column
from shop.primitives.statuses import DisputeStatus


class DisputeRow(Row):
    """One dispute, and what it has moved; 0: nothing."""

    dispute_id: UUID
    payment_id: UUID
    status: DisputeStatus = enum_column(DisputeStatus)
    withdrawn_minor: int
    reinstated_minor: int
    fee_minor: int
    fee_reversed_minor: int


class RecordedDispute(Row):
    """A dispute as it is recorded: its status, and how many of its movements are posted."""

    provider_ref: str
    status: DisputeStatus = enum_column(DisputeStatus)
    postings: int


OF_ORDER = Query(
    DisputeRow,
    """
select d.dispute_id, d.payment_id, d.status,
  coalesce(sum(l.amount_minor) filter (where l.kind = 'DISPUTE'), 0)::bigint as withdrawn_minor,
  coalesce(sum(l.amount_minor) filter (where l.kind = 'DISPUTE_REVERSAL'), 0)::bigint
    as reinstated_minor,
  coalesce(sum(l.amount_minor) filter (where l.kind = 'DISPUTE_FEE'), 0)::bigint as fee_minor,
  coalesce(sum(l.amount_minor) filter (where l.kind = 'DISPUTE_FEE_REVERSAL'), 0)::bigint
    as fee_reversed_minor
from shop.payments p join shop.disputes d using (payment_id)
left join lateral shop.postings_of(p.order_id, d.dispute_id) l on true
where p.order_id = %(order_id)s::uuid
group by d.dispute_id order by d.created_at, d.dispute_id
""",
)

RECORDED = Query(
    RecordedDispute,
    """
select d.provider_ref, d.status, count(l.kind)::int as postings
from shop.disputes d join shop.payments p using (payment_id)
left join lateral shop.postings_of(p.order_id, d.dispute_id) l on true
where d.provider_ref = any(%(provider_refs)s)
group by d.dispute_id
""",
)

OPEN = Query(
    Row,
    """
insert into shop.disputes (dispute_id, payment_id, provider_ref, amount_minor, currency, status)
values (%(dispute_id)s::uuid, %(payment_id)s::uuid, %(provider_ref)s, %(amount_minor)s,
  %(currency)s, 'OPEN')
returning dispute_id
""",
)

CHANGE_STATUS = Query(
    Row,
    """
update shop.disputes set status = %(to_status)s, updated_at = now()
where dispute_id = %(dispute_id)s::uuid and status = %(from_status)s
returning dispute_id
""",
)


def of_order(order_id: UUID) -> Statement[DisputeRow]:
    """All disputes about an order's payments, oldest first."""
    return OF_ORDER(order_id=order_id)


def recorded(provider_refs: list[str]) -> Statement[RecordedDispute]:
    """Those of the references whose dispute is recorded."""
    return RECORDED(provider_refs=provider_refs)


def open_dispute(
    *, dispute_id: UUID, payment_id: UUID, provider_ref: str, amount_minor: int, currency: str
) -> Statement[Row]:
    """Creates a dispute; one reference twice violates a constraint."""
    return OPEN(
        dispute_id=dispute_id,
        payment_id=payment_id,
        provider_ref=provider_ref,
        amount_minor=amount_minor,
        currency=currency,
    )


def change_status(
    dispute_id: UUID, *, from_status: DisputeStatus, to_status: DisputeStatus
) -> Statement[Row]:
    """Closes a dispute; no row when it does not have ``from_status``."""
    return CHANGE_STATUS(dispute_id=dispute_id, from_status=from_status, to_status=to_status)
