"""Refunds: a row and a provider key for each amount to return.  Writer of ``refunds``."""

from __future__ import annotations

from uuid import UUID

from shop.adapters.statements import Query, Row, Statement, enum_column
from shop.primitives.statuses import RefundMeans, RefundOrigin, RefundStatus

KEY_PREFIX = "refund:"


class RefundRow(Row):
    """One refund, with what a call to the provider needs."""

    refund_id: UUID
    payment_id: UUID
    amount_minor: int
    currency: str
    status: RefundStatus = enum_column(RefundStatus)
    means: RefundMeans = enum_column(RefundMeans)
    restock: bool
    provider_key: str
    tries: int


class OrderOfRefund(Row):
    """The order that a refund belongs to."""

    order_id: UUID


class RefundOfKey(Row):
    """The refund with a provider key."""

    order_id: UUID
    refund_id: UUID


class KnownKey(Row):
    """A provider key whose transaction is recorded."""

    provider_key: str


OF_ORDER = Query(
    RefundRow,
    """
select r.refund_id, r.payment_id, r.amount_minor, r.currency, r.status, r.means, r.restock,
  r.provider_key, r.tries
from shop.refunds r join shop.payments p using (payment_id)
where p.order_id = %(order_id)s::uuid order by r.created_at, r.refund_id
""",
)

OPEN = Query(
    Row,
    """
insert into shop.refunds (refund_id, payment_id, amount_minor, currency, status, reason,
  requested_by, means, reference, restock, provider_key, next_try_at)
select %(refund_id)s::uuid, payment_id, %(amount_minor)s, currency, 'INTENT', %(reason)s,
  %(requested_by)s, %(means)s, %(reference)s, %(restock)s, 'refund:' || %(refund_id)s::text,
  now() + interval '10 seconds'
from shop.payments where payment_id = %(payment_id)s::uuid
returning refund_id
""",
)

RECORD_EXECUTED = Query(
    Row,
    """
insert into shop.refunds (refund_id, payment_id, amount_minor, currency, status, reason, origin,
  provider_key, next_try_at)
select %(refund_id)s::uuid, payment_id, %(amount_minor)s, currency, 'SUCCEEDED', 'FOUND',
  %(origin)s, %(provider_key)s, now()
from shop.payments where payment_id = %(payment_id)s::uuid
returning refund_id
""",
)

CHANGE_STATUS = Query(
    Row,
    """
update shop.refunds set status = %(to_status)s, updated_at = now()
where refund_id = %(refund_id)s::uuid and status = %(from_status)s
returning refund_id
""",
)

POSTPONE = Query(
    Row,
    """
update shop.refunds set tries = tries + 1, updated_at = now(),
  next_try_at = now() + least(interval '10 seconds' * power(2, least(tries, 9)), interval '1 hour')
where refund_id = %(refund_id)s::uuid and status in ('INTENT', 'UNKNOWN')
returning refund_id
""",
)

ORDER_OF = Query(
    OrderOfRefund,
    """
select p.order_id from shop.refunds r join shop.payments p using (payment_id)
where r.refund_id = %(refund_id)s::uuid
""",
)

WITH_KEY = Query(
    RefundOfKey,
    """
select p.order_id, r.refund_id from shop.refunds r join shop.payments p using (payment_id)
where r.provider_key = %(provider_key)s
""",
)

SUCCEEDED_KEYS = Query(
    KnownKey,
    """
select provider_key from shop.refunds
where provider_key = any(%(provider_keys)s) and status = 'SUCCEEDED'
""",
)


def of_order(order_id: UUID) -> Statement[RefundRow]:
    """All refunds of an order's payments, oldest first."""
    return OF_ORDER(order_id=order_id)


def open_refund(
    *,
    refund_id: UUID,
    payment_id: UUID,
    amount_minor: int,
    reason: str,
    requested_by: int | None,
    means: RefundMeans,
    reference: str | None,
    restock: bool,
) -> Statement[Row]:
    """Creates a refund, with a provider key made of its id."""
    return OPEN(
        refund_id=refund_id,
        payment_id=payment_id,
        amount_minor=amount_minor,
        reason=reason,
        requested_by=requested_by,
        means=means,
        reference=reference,
        restock=restock,
    )


def record_executed(
    *,
    refund_id: UUID,
    payment_id: UUID,
    amount_minor: int,
    provider_key: str,
    origin: RefundOrigin,
) -> Statement[Row]:
    """Creates a refund that the provider has executed; one key twice violates a constraint."""
    return RECORD_EXECUTED(
        refund_id=refund_id,
        payment_id=payment_id,
        amount_minor=amount_minor,
        provider_key=provider_key,
        origin=origin,
    )


def id_of_key(provider_key: str) -> UUID | None:
    """The refund id in a provider key; None for a key that is not a refund's."""
    if not provider_key.startswith(KEY_PREFIX):
        return None
    try:
        return UUID(provider_key.removeprefix(KEY_PREFIX))
    except ValueError:
        return None


def change_status(
    refund_id: UUID, *, from_status: RefundStatus, to_status: RefundStatus
) -> Statement[Row]:
    """Changes a refund's status; no row when it does not have ``from_status``."""
    return CHANGE_STATUS(refund_id=refund_id, from_status=from_status, to_status=to_status)


def postpone(refund_id: UUID) -> Statement[Row]:
    """Postpones an open refund, with a longer delay after each try."""
    return POSTPONE(refund_id=refund_id)


def order_of(refund_id: UUID) -> Statement[OrderOfRefund]:
    """The order of a refund."""
    return ORDER_OF(refund_id=refund_id)


def with_key(provider_key: str) -> Statement[RefundOfKey]:
    """The refund with a provider key."""
    return WITH_KEY(provider_key=provider_key)


def succeeded_keys(provider_keys: list[str]) -> Statement[KnownKey]:
    """Those of the keys whose refund succeeded."""
    return SUCCEEDED_KEYS(provider_keys=provider_keys)
