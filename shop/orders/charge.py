"""Collecting an order's money: commit the intent, ask the provider, record its word.

The intent is committed before the provider is called; whatever the provider says, or fails to say,
is applied by one function whether it comes as answer, webhook, poll or reconciliation.
"""

from __future__ import annotations

import time
from dataclasses import field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from events.records import frozen
from shop.adapters.payment_provider.protocol import ChargeCall, Outcome
from shop.adapters.payment_provider.two_phase_call import TwoPhaseCall
from shop.orders import apply, decide, payments
from shop.primitives.messages import Event

if TYPE_CHECKING:
    from shop.adapters.db import Transaction
    from shop.adapters.payment_provider.protocol import Provider
    from shop.adapters.payment_provider.two_phase_call import OpenTransaction

FRESH_SECONDS = 1.0


@frozen
class Charging:
    """A call to make: ``confirm`` the payment or ``cancel`` its intent, and since when."""

    order_id: UUID
    payment_id: UUID
    step: str
    call: ChargeCall
    decided_at: float = field(default_factory=time.monotonic)

    @property
    def is_fresh(self) -> bool:
        """False once this process may have slept since the decision."""
        return time.monotonic() - self.decided_at < FRESH_SECONDS


def prepare(tx: Transaction, order_id: UUID) -> Charging | None:
    """Opens an attempt when the order calls for one; None when there is nothing to collect."""
    telling = apply.apply_message(tx, order_id, decide.ChargeDue())
    if telling.opened_payment is None:
        return None
    return _charging(order_id, telling.opened_payment, "confirm")


def resume(tx: Transaction, payment_id: UUID) -> Charging | None:
    """Takes a due payment up again (timer T3): confirm it, or cancel it when it is not wanted.

    Pushes its next turn into the future first, so a process that dies here is followed by another
    only later.
    """
    row = tx.one(payments.ORDER_OF_DUE, payment_id=payment_id)
    if row is None or not apply.lock_or_skip(tx, row.order_id):
        return None
    telling = apply.read(tx, row.order_id)
    payment = telling.story.live
    if payment is None or payment.payment_id != payment_id:
        return None
    tx.run(payments.RETRY, payment_id=payment_id)
    attempt = next(p for p in telling.payments if p.payment_id == payment_id)
    return _charging(row.order_id, attempt, decide.provider_step(telling.story, payment))


def execute(provider: Provider, charging: Charging, open_transaction: OpenTransaction) -> Outcome:
    """Asks the provider; an answer that is not believed is checked against its books.

    A process that slept since the decision looks again before it sends: the order may have been
    cancelled or the provider's memory of the key may have ended meanwhile.
    """
    if charging.step == "cancel":
        outcome = provider.cancel(charging.call)
    elif charging.is_fresh or _may_still_charge(charging, open_transaction):
        outcome = provider.charge(charging.call)
    else:
        return Outcome("unknown", reason="the decision to charge was too old")
    if outcome.kind == "mismatch":
        books = provider.find(charging.call)
        return books if books.kind in ("captured", "declined", "voided") else outcome
    return outcome


def record(tx: Transaction, charging: Charging, outcome: Outcome) -> None:
    """Applies the provider's word, or notes that there was none."""
    apply.apply_message(tx, charging.order_id, message_of(charging.payment_id, outcome))


def message_of(payment_id: UUID, outcome: Outcome) -> Any:
    """The lifecycle's message for an outcome."""
    if outcome.kind == "captured":
        assert outcome.amount_minor is not None and outcome.currency is not None
        return decide.Captured(
            payment_id, outcome.amount_minor, outcome.currency, outcome.provider_ref
        )
    if outcome.kind == "declined":
        return decide.Declined(payment_id)
    if outcome.kind == "voided":
        return decide.Voided(payment_id)
    if outcome.kind == "mismatch":
        return decide.Mismatched(payment_id, outcome.reason or "another amount, currency or key")
    return decide.Unclear(payment_id)


def _charging(order_id: UUID, row: Any, step: str) -> Charging:
    call = ChargeCall(
        key=row.provider_key,
        amount_minor=row.amount_minor,
        currency=row.currency,
        payment_method=row.payment_method,
        order_id=str(order_id),
        payment_id=str(row.payment_id),
        charge_not_after=row.charge_not_after,
    )
    return Charging(order_id, row.payment_id, step, call)


def _may_still_charge(charging: Charging, open_transaction: OpenTransaction) -> bool:
    with open_transaction() as tx:
        return tx.one(payments.MAY_STILL_CHARGE, payment_id=charging.payment_id) is not None


def _order_of(event: Event) -> UUID:
    return UUID(str(event.data["orderId"]))


CHARGE = TwoPhaseCall(subject=_order_of, prepare=prepare, execute=execute, record=record)
RESOLVE = TwoPhaseCall(subject=_order_of, prepare=resume, execute=execute, record=record)
