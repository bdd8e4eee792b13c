"""Collects an order's money: commit the intent, call the provider, record the outcome.

The intent is committed before the provider is called.  Every outcome, also an unknown one, becomes
a message for ``apply``, whether it is read from a response, a webhook, a poll or reconciliation.
"""

from __future__ import annotations

import time
from dataclasses import field
from typing import TYPE_CHECKING
from uuid import UUID

from events.records import frozen
from shop.adapters.payment_provider.protocol import ChargeCall, Outcome
from shop.adapters.two_phase_call import TwoPhaseCall
from shop.orders import apply, decide, messages, payments
from shop.orders.decide import ProviderCall
from shop.orders.messages import Message
from shop.orders.payments import PaymentRow
from shop.primitives.messages import Event

if TYPE_CHECKING:
    from shop.adapters.db import Transaction
    from shop.adapters.payment_provider.protocol import Provider
    from shop.adapters.two_phase_call import OpenTransaction

FRESH_SECONDS = 1.0
# what the provider's records say about a charge
RECORDED = ("captured", "declined", "voided", "requires_action")


@frozen
class PendingCharge:
    """A call to make: ``confirm`` the payment or ``cancel`` its intent, and when it was decided."""

    order_id: UUID
    payment_id: UUID
    provider_call: ProviderCall
    call: ChargeCall
    decided_at: float = field(default_factory=time.monotonic)

    @property
    def is_fresh(self) -> bool:
        """False when the process may have been suspended since the decision."""
        return time.monotonic() - self.decided_at < FRESH_SECONDS


def prepare(tx: Transaction, order_id: UUID) -> PendingCharge | None:
    """Opens an attempt when the order needs one; None when there is nothing to collect."""
    opened = apply.apply_message(tx, order_id, messages.ChargeDue()).opened_payment
    return None if opened is None else _pending_charge(order_id, opened, "confirm")


def resume(tx: Transaction, payment_id: UUID) -> PendingCharge | None:
    """The call for a due payment (timer T3): confirm it, or cancel it if it is no longer needed.

    Postpones the payment first, so that after a crash another process tries again later.  None when
    it is not due, not open, or locked by another transaction; ``UnknownOrder`` when there is no
    such payment.
    """
    found = tx.fetch_one(payments.due(payment_id))
    if found is None:
        raise apply.UnknownOrder()
    if not found.is_due or not apply.lock_or_skip(tx, found.order_id):
        return None
    rows = apply.lock(tx, found.order_id)
    payment = rows.state.open_payment
    if payment is None or payment.payment_id != payment_id:
        return None
    tx.execute(payments.postpone(payment_id))
    attempt = next(row for row in rows.payments if row.payment_id == payment_id)
    return _pending_charge(found.order_id, attempt, decide.provider_call(rows.state, payment))


def execute(
    provider: Provider, pending: PendingCharge, open_transaction: OpenTransaction
) -> Outcome:
    """Calls the provider; a response that does not match is checked against its transactions.

    When the process was suspended since the decision, the payment is read again before the call:
    the order may have been cancelled, or the provider's idempotency key may have expired.
    """
    if pending.provider_call == "cancel":
        outcome = provider.cancel(pending.call)
    elif pending.is_fresh or _may_still_charge(pending, open_transaction):
        outcome = provider.charge(pending.call)
    else:
        return Outcome("unknown", reason="the decision to charge was too old")
    if outcome.kind == "mismatch":
        found = provider.find(pending.call)
        return found if found.kind in RECORDED else outcome
    return outcome


def record(tx: Transaction, pending: PendingCharge, outcome: Outcome) -> None:
    """Applies the outcome to the order."""
    apply.apply_message(
        tx, pending.order_id, message_of(pending.payment_id, outcome, pending.call.token)
    )


def message_of(payment_id: UUID, outcome: Outcome, token: str | None = None) -> Message:
    """The message to the order for the outcome of a call with this token of the customer."""
    if outcome.kind == "captured":
        assert outcome.amount_minor is not None and outcome.currency is not None
        return messages.Captured(
            payment_id, outcome.amount_minor, outcome.currency, outcome.provider_ref
        )
    if outcome.kind == "declined":
        return messages.Declined(payment_id)
    if outcome.kind == "voided":
        return messages.Voided(payment_id)
    if outcome.kind == "requires_action":
        assert outcome.action is not None
        return messages.ActionRequired(payment_id, outcome.action, token)
    if outcome.kind == "mismatch":
        detail = outcome.reason or "another amount, currency or key"
        return messages.PaymentMismatched(payment_id, detail)
    return messages.PaymentUnknown(payment_id)


def _pending_charge(
    order_id: UUID, payment: PaymentRow, provider_call: ProviderCall
) -> PendingCharge:
    call = ChargeCall(
        key=payment.provider_key,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        payment_method=payment.payment_method,
        order_id=str(order_id),
        payment_id=str(payment.payment_id),
        charge_not_after=payment.charge_not_after,
        token=payment.action_token,
    )
    return PendingCharge(order_id, payment.payment_id, provider_call, call)


def _may_still_charge(pending: PendingCharge, open_transaction: OpenTransaction) -> bool:
    with open_transaction() as tx:
        return tx.fetch_one(payments.may_still_charge(pending.payment_id)) is not None


def _payment_of(event: Event) -> UUID:
    return UUID(str(event.data["paymentId"]))


def _order_of(event: Event) -> UUID:
    return UUID(str(event.data["orderId"]))


CHARGE = TwoPhaseCall(subject=_order_of, prepare=prepare, execute=execute, record=record)
RESOLVE = TwoPhaseCall(subject=_payment_of, prepare=resume, execute=execute, record=record)
