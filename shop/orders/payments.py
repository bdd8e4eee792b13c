"""Payments: a row per attempt, committed before the provider is called.  Writer of ``payments``."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString
from uuid import UUID

if TYPE_CHECKING:
    from shop.adapters.db import Statement

# Stripe keeps an idempotency key for 24 h; nothing is sent with a key that old.
CHARGE_WINDOW_SECONDS = 20 * 3600

OF_ORDER: LiteralString = """
select payment_id, attempt, status, amount_minor, currency, payment_method, late, provider_key,
  provider_ref, refund_reserved_minor, charge_not_after, charge_not_after > now() as may_charge
from shop.payments where order_id = %(order_id)s::uuid order by attempt
"""

OPEN: LiteralString = """
insert into shop.payments (payment_id, order_id, user_id, attempt, status, amount_minor, currency,
  payment_method, provider_key, charge_not_after, next_try_at)
select %(payment_id)s::uuid, order_id, user_id, %(attempt)s, 'INTENT', total_minor, currency,
  payment_method, 'shop:' || %(payment_id)s::text,
  now() + make_interval(secs => %(window_seconds)s), now() + interval '10 seconds'
from shop.orders where order_id = %(order_id)s::uuid
returning payment_id, attempt, status, amount_minor, currency, payment_method, late, provider_key,
  provider_ref, refund_reserved_minor, charge_not_after, charge_not_after > now() as may_charge
"""

MOVE: LiteralString = """
update shop.payments set status = %(to_status)s, late = %(late)s,
  provider_ref = coalesce(%(provider_ref)s, provider_ref), updated_at = now()
where payment_id = %(payment_id)s::uuid and status = %(from_status)s
returning payment_id
"""

RETRY: LiteralString = """
update shop.payments set tries = tries + 1, updated_at = now(),
  next_try_at = now()
    + least(interval '10 seconds' * power(2, least(tries, 6)), interval '5 minutes')
where payment_id = %(payment_id)s::uuid and status in ('INTENT', 'UNKNOWN')
returning payment_id
"""

# A cancelled order's open payment is asked about at once, not at its next turn.
HURRY: LiteralString = """
update shop.payments set next_try_at = now(), updated_at = now()
where order_id = %(order_id)s::uuid and status in ('INTENT', 'UNKNOWN')
returning payment_id
"""

RESERVE_REFUND: LiteralString = """
update shop.payments set refund_reserved_minor = refund_reserved_minor + %(amount_minor)s,
  updated_at = now()
where payment_id = %(payment_id)s::uuid and status = 'CAPTURED'
  and refund_reserved_minor + %(amount_minor)s between 0 and amount_minor
returning payment_id
"""

# Whoever took it up first has pushed its turn away: sweepers with the same list share the work.
ORDER_OF_DUE: LiteralString = """
select order_id from shop.payments
where payment_id = %(payment_id)s::uuid and next_try_at <= now()
"""

ORDER_OF_KEY: LiteralString = """
select order_id, payment_id from shop.payments where provider_key = %(provider_key)s
"""

CAPTURED_KEYS: LiteralString = """
select provider_key from shop.payments
where provider_key = any(%(provider_keys)s) and status = 'CAPTURED'
"""

MAY_STILL_CHARGE: LiteralString = """
select p.payment_id from shop.payments p join shop.orders o using (order_id)
where p.payment_id = %(payment_id)s::uuid and p.status in ('INTENT', 'UNKNOWN')
  and p.charge_not_after > now() and o.status = 'PENDING'
"""


def open_attempt(*, payment_id: UUID, order_id: UUID, attempt: int) -> Statement:
    """The statement that commits to an attempt over the order's total, under its own key."""
    return OPEN, {
        "payment_id": payment_id,
        "order_id": order_id,
        "attempt": attempt,
        "window_seconds": CHARGE_WINDOW_SECONDS,
    }


def move(
    payment_id: UUID, *, from_status: str, to_status: str, late: bool, provider_ref: str | None
) -> Statement:
    """The guarded status change of a payment."""
    return MOVE, {
        "payment_id": payment_id,
        "from_status": from_status,
        "to_status": to_status,
        "late": late,
        "provider_ref": provider_ref,
    }


def reserve_refund(payment_id: UUID, amount_minor: int) -> Statement:
    """The guard of all refunds: their sum never passes the capture; a negative amount frees."""
    return RESERVE_REFUND, {"payment_id": payment_id, "amount_minor": amount_minor}
