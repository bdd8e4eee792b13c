"""Payments: a row per attempt, committed before the provider is called.  Writer of ``payments``."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from shop.adapters.statements import Query, Row, Statement, enum_column
from shop.primitives.statuses import PaymentStatus

if TYPE_CHECKING:
    from shop.adapters.payment_provider.protocol import NextAction

# Shorter than the 24 h for which Stripe keeps an idempotency key: a later call could charge twice.
CHARGE_WINDOW_SECONDS = 20 * 3600


class PaymentRow(Row):
    """One attempt, with what a call to the provider needs."""

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
    charge_not_after: datetime
    may_charge: bool
    action: str | None
    action_token: str | None
    may_act: bool


class OrderOfPayment(Row):
    """The order that a payment belongs to."""

    order_id: UUID


class DueOfPayment(Row):
    """The order that a payment belongs to, and whether the payment is due."""

    order_id: UUID
    is_due: bool


class PaymentOfKey(Row):
    """The payment with a provider key."""

    order_id: UUID
    payment_id: UUID
    status: PaymentStatus = enum_column(PaymentStatus)


class KnownKey(Row):
    """A provider key whose transaction is recorded."""

    provider_key: str


OF_ORDER = Query(
    PaymentRow,
    """
select payment_id, attempt, status, amount_minor, currency, payment_method, late, provider_key,
  provider_ref, refund_reserved_minor, charge_not_after, charge_not_after > now() as may_charge,
  action->>'type' as action, action_token, coalesce(act_until > now(), true) as may_act
from shop.payments where order_id = %(order_id)s::uuid order by attempt
""",
)

OPEN = Query(
    PaymentRow,
    """
insert into shop.payments (payment_id, order_id, user_id, attempt, status, amount_minor, currency,
  payment_method, provider_key, charge_not_after, next_try_at)
select %(payment_id)s::uuid, order_id, user_id, %(attempt)s, 'INTENT', total_minor, currency,
  payment_method, 'shop:' || %(payment_id)s::text,
  now() + make_interval(secs => %(window_seconds)s), now() + interval '10 seconds'
from shop.orders where order_id = %(order_id)s::uuid
returning payment_id, attempt, status, amount_minor, currency, payment_method, late, provider_key,
  provider_ref, refund_reserved_minor, charge_not_after, charge_not_after > now() as may_charge,
  null as action, null as action_token, true as may_act
""",
)

CHANGE_STATUS = Query(
    Row,
    """
update shop.payments set status = %(to_status)s, late = %(late)s,
  provider_ref = coalesce(%(provider_ref)s, provider_ref), updated_at = now(),
  action = null, action_token = null
where payment_id = %(payment_id)s::uuid and status = %(from_status)s
returning payment_id
""",
)

# Due at the deadline, which only another action changes.
AWAIT_ACTION = Query(
    Row,
    """
update shop.payments set status = 'REQUIRES_ACTION', updated_at = now(), action_token = null,
  action = coalesce(%(next_action)s::jsonb, action),
  act_until = coalesce(now() + make_interval(secs => %(seconds)s), act_until),
  next_try_at = coalesce(now() + make_interval(secs => %(seconds)s), act_until)
where payment_id = %(payment_id)s::uuid and status = %(from_status)s
returning payment_id
""",
)

CONFIRM_ACTION = Query(
    Row,
    """
update shop.payments set action_token = %(token)s, next_try_at = now(), updated_at = now()
where payment_id = %(payment_id)s::uuid and status = 'REQUIRES_ACTION' and action_token is null
returning payment_id
""",
)

ABANDON_ACTION = Query(
    Row,
    """
update shop.payments set act_until = least(act_until, now()), next_try_at = now(),
  updated_at = now()
where payment_id = %(payment_id)s::uuid and status = 'REQUIRES_ACTION' and action_token is null
returning payment_id
""",
)

POSTPONE = Query(
    Row,
    """
update shop.payments set tries = tries + 1, updated_at = now(),
  next_try_at = now()
    + least(interval '10 seconds' * power(2, least(tries, 6)), interval '5 minutes')
where payment_id = %(payment_id)s::uuid and status in ('INTENT', 'UNKNOWN', 'REQUIRES_ACTION')
returning payment_id
""",
)

# A cancelled order's open payment is resolved at once, not at its next due time.
MAKE_DUE = Query(
    Row,
    """
update shop.payments set next_try_at = now(), updated_at = now()
where order_id = %(order_id)s::uuid and status in ('INTENT', 'UNKNOWN', 'REQUIRES_ACTION')
returning payment_id
""",
)

MAKE_PAYMENT_DUE = Query(
    OrderOfPayment,
    """
update shop.payments set next_try_at = now(), updated_at = now()
where payment_id = %(payment_id)s::uuid and next_try_at > now()
  and status in ('INTENT', 'UNKNOWN', 'REQUIRES_ACTION')
returning order_id
""",
)

RESERVE_REFUND = Query(
    Row,
    """
update shop.payments set refund_reserved_minor = refund_reserved_minor + %(amount_minor)s,
  updated_at = now()
where payment_id = %(payment_id)s::uuid and status = 'CAPTURED'
  and refund_reserved_minor + %(amount_minor)s between 0 and amount_minor
returning payment_id
""",
)

# Of several processes that read the same list of due rows, the first postpones the payment.
DUE = Query(
    DueOfPayment,
    """
select order_id, coalesce(next_try_at <= now(), false) as is_due from shop.payments
where payment_id = %(payment_id)s::uuid
""",
)

WITH_KEY = Query(
    PaymentOfKey,
    """
select order_id, payment_id, status from shop.payments where provider_key = %(provider_key)s
""",
)

# what staff do in the provider's dashboard has the provider's reference, but no key of ours
OF_CHARGE = Query(
    PaymentOfKey,
    """
select order_id, payment_id, status from shop.payments
where provider_key = %(provider_key)s or provider_ref = %(provider_ref)s
order by provider_key = %(provider_key)s desc limit 1
""",
)

CAPTURED_KEYS = Query(
    KnownKey,
    """
select provider_key from shop.payments
where provider_key = any(%(provider_keys)s) and status = 'CAPTURED'
""",
)

MAY_STILL_CHARGE = Query(
    Row,
    """
select p.payment_id from shop.payments p join shop.orders o using (order_id)
where p.payment_id = %(payment_id)s::uuid and p.status in ('INTENT', 'UNKNOWN', 'REQUIRES_ACTION')
  and p.charge_not_after > now() and coalesce(p.act_until > now(), true)
  and o.status = 'PENDING'
""",
)


def of_order(order_id: UUID) -> Statement[PaymentRow]:
    """All attempts of an order, oldest first."""
    return OF_ORDER(order_id=order_id)


def open_attempt(*, payment_id: UUID, order_id: UUID, attempt: int) -> Statement[PaymentRow]:
    """Creates an attempt over the order's total, with a provider key made of its id."""
    return OPEN(
        payment_id=payment_id,
        order_id=order_id,
        attempt=attempt,
        window_seconds=CHARGE_WINDOW_SECONDS,
    )


def change_status(
    payment_id: UUID,
    *,
    from_status: PaymentStatus,
    to_status: PaymentStatus,
    late: bool,
    provider_ref: str | None,
) -> Statement[Row]:
    """Changes a payment's status; no row when it does not have ``from_status``."""
    return CHANGE_STATUS(
        payment_id=payment_id,
        from_status=from_status,
        to_status=to_status,
        late=late,
        provider_ref=provider_ref,
    )


def await_action(
    payment_id: UUID, *, from_status: PaymentStatus, action: NextAction | None
) -> Statement[Row]:
    """Lets the customer act: until a new action's deadline, or (None) still until the old one."""
    stored = {"type": action.type, **action.details} if action else None
    return AWAIT_ACTION(
        payment_id=payment_id,
        from_status=from_status,
        next_action=json.dumps(stored) if stored else None,
        seconds=action.seconds if action else None,
    )


def confirm_action(payment_id: UUID, *, token: str) -> Statement[Row]:
    """Stores the token with which a payment is confirmed; no row when there is one already."""
    return CONFIRM_ACTION(payment_id=payment_id, token=token)


def abandon_action(payment_id: UUID) -> Statement[Row]:
    """Ends the time to act; no row when the customer has acted."""
    return ABANDON_ACTION(payment_id=payment_id)


def reserve_refund(payment_id: UUID, amount_minor: int) -> Statement[Row]:
    """Reserves an amount for a refund (negative: frees it); no row beyond the captured amount."""
    return RESERVE_REFUND(payment_id=payment_id, amount_minor=amount_minor)


def postpone(payment_id: UUID) -> Statement[Row]:
    """Postpones an open payment, with a longer delay after each try."""
    return POSTPONE(payment_id=payment_id)


def make_due(order_id: UUID) -> Statement[Row]:
    """Makes the open payment of an order due now; no row when there is none."""
    return MAKE_DUE(order_id=order_id)


def make_payment_due(payment_id: UUID) -> Statement[OrderOfPayment]:
    """Makes an open payment due now; returns its order, or no row when it is due or closed."""
    return MAKE_PAYMENT_DUE(payment_id=payment_id)


def due(payment_id: UUID) -> Statement[DueOfPayment]:
    """The order of a payment, and whether it is due; no row when there is no such payment."""
    return DUE(payment_id=payment_id)


def with_key(provider_key: str) -> Statement[PaymentOfKey]:
    """The payment with a provider key."""
    return WITH_KEY(provider_key=provider_key)


def of_charge(*, provider_key: str, provider_ref: str) -> Statement[PaymentOfKey]:
    """The payment with this provider key, else the one with this reference of the provider."""
    return OF_CHARGE(provider_key=provider_key, provider_ref=provider_ref)


def captured_keys(provider_keys: list[str]) -> Statement[KnownKey]:
    """Those of the keys whose payment is captured."""
    return CAPTURED_KEYS(provider_keys=provider_keys)


def may_still_charge(payment_id: UUID) -> Statement[Row]:
    """Returns a row while the payment may be charged: open, in time, its order PENDING."""
    return MAY_STILL_CHARGE(payment_id=payment_id)
