"""Refunds: money on its way back, one row each, with a key of its own.  Writer of ``refunds``."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString
from uuid import UUID

if TYPE_CHECKING:
    from shop.adapters.db import Statement

KEY_PREFIX = "refund:"

OF_ORDER: LiteralString = """
select r.refund_id, r.payment_id, r.amount_minor, r.currency, r.status, r.provider_key, r.tries
from shop.refunds r join shop.payments p using (payment_id)
where p.order_id = %(order_id)s::uuid order by r.refund_id
"""

OPEN: LiteralString = """
insert into shop.refunds (refund_id, payment_id, amount_minor, currency, status, reason,
  requested_by, provider_key, next_try_at)
select %(refund_id)s::uuid, payment_id, %(amount_minor)s, currency, 'INTENT', %(reason)s,
  %(requested_by)s, 'refund:' || %(refund_id)s::text, now() + interval '10 seconds'
from shop.payments where payment_id = %(payment_id)s::uuid
returning refund_id
"""

MOVE: LiteralString = """
update shop.refunds set status = %(to_status)s, updated_at = now()
where refund_id = %(refund_id)s::uuid and status = %(from_status)s
returning refund_id
"""

RETRY: LiteralString = """
update shop.refunds set tries = tries + 1, updated_at = now(),
  next_try_at = now() + least(interval '10 seconds' * power(2, least(tries, 9)), interval '1 hour')
where refund_id = %(refund_id)s::uuid and status in ('INTENT', 'UNKNOWN')
returning refund_id
"""

ORDER_OF: LiteralString = """
select p.order_id from shop.refunds r join shop.payments p using (payment_id)
where r.refund_id = %(refund_id)s::uuid
"""

ORDER_OF_KEY: LiteralString = """
select p.order_id, r.refund_id from shop.refunds r join shop.payments p using (payment_id)
where r.provider_key = %(provider_key)s
"""

SUCCEEDED_KEYS: LiteralString = """
select provider_key from shop.refunds
where provider_key = any(%(provider_keys)s) and status = 'SUCCEEDED'
"""


def open_refund(
    *,
    refund_id: UUID,
    payment_id: UUID,
    amount_minor: int,
    reason: str,
    requested_by: int | None,
) -> Statement:
    """The statement that commits to giving back an amount, under the refund's own provider key."""
    return OPEN, {
        "refund_id": refund_id,
        "payment_id": payment_id,
        "amount_minor": amount_minor,
        "reason": reason,
        "requested_by": requested_by,
    }


def id_of_key(provider_key: str) -> UUID | None:
    """The refund that a key of ours names; None for a key that we did not make."""
    if not provider_key.startswith(KEY_PREFIX):
        return None
    try:
        return UUID(provider_key.removeprefix(KEY_PREFIX))
    except ValueError:
        return None


def move(refund_id: UUID, *, from_status: str, to_status: str) -> Statement:
    """The guarded status change of a refund."""
    return MOVE, {"refund_id": refund_id, "from_status": from_status, "to_status": to_status}
