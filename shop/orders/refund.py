"""Executes refunds: read the committed intent, call the provider, record the outcome.

A refund by other means, or a write-off, needs no call: an operator has returned the money, or
decided that it is kept.  It is recorded here because only this role posts to the ledger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from events.records import frozen
from shop.adapters.payment_provider.protocol import RefundCall, RefundOutcome
from shop.adapters.two_phase_call import TwoPhaseCall
from shop.orders import apply, messages, refunds
from shop.orders.messages import Message
from shop.primitives.messages import Event
from shop.primitives.statuses import OPEN_REFUND, RefundMeans

if TYPE_CHECKING:
    from shop.adapters.db import Transaction
    from shop.adapters.payment_provider.protocol import Provider
    from shop.adapters.two_phase_call import OpenTransaction


@frozen
class PendingRefund:
    """A refund to send; ``is_repeated`` if it may have been sent before.

    ``call`` is None when the provider has no part in it.  One that is not ``is_covered`` would
    return money that a dispute has withdrawn already.
    """

    order_id: UUID
    refund_id: UUID
    call: RefundCall | None
    is_repeated: bool
    is_covered: bool


def prepare(tx: Transaction, refund_id: UUID) -> PendingRefund | None:
    """Postpones an open refund and returns its call; None when the refund is closed."""
    found = tx.fetch_one(refunds.order_of(refund_id))
    if found is None:
        raise apply.UnknownOrder()
    rows = apply.lock(tx, found.order_id)
    refund = next(row for row in rows.refunds if row.refund_id == refund_id)
    if refund.status not in OPEN_REFUND:
        return None
    tx.execute(refunds.postpone(refund_id))
    if refund.means != RefundMeans.PROVIDER:
        return PendingRefund(found.order_id, refund_id, None, is_repeated=False, is_covered=True)
    payment = next(row for row in rows.payments if row.payment_id == refund.payment_id)
    call = RefundCall(
        key=refund.provider_key,
        charge_key=payment.provider_key,
        provider_ref=payment.provider_ref or "",
        amount_minor=refund.amount_minor,
        currency=refund.currency,
    )
    of_payment = rows.state.payment(refund.payment_id)
    assert of_payment is not None, "a refund belongs to a payment"
    return PendingRefund(
        found.order_id,
        refund_id,
        call,
        is_repeated=refund.tries > 0,
        is_covered=rows.state.refundable_minor(of_payment) >= 0,
    )


def execute(provider: Provider, pending: PendingRefund, _: OpenTransaction) -> RefundOutcome:
    """Sends the refund; a response that does not match is checked against its transactions.

    A refund that may have been sent before is looked up first: a provider that no longer keeps the
    key (Stripe keeps it for 24 h) would execute it a second time.  One that is not covered is only
    looked up.
    """
    if pending.call is None:
        return RefundOutcome("succeeded")
    if pending.is_repeated or not pending.is_covered:
        found = provider.find_refund(pending.call)
        if found.kind != "missing":
            return found
    if not pending.is_covered:
        return RefundOutcome("rejected", reason="a dispute has withdrawn the money")
    outcome = provider.refund(pending.call)
    if outcome.kind == "mismatch":
        return provider.find_refund(pending.call)
    return outcome


def record(tx: Transaction, pending: PendingRefund, outcome: RefundOutcome) -> None:
    """Applies the outcome to the order."""
    apply.apply_message(tx, pending.order_id, message_of(pending.refund_id, outcome))


def message_of(refund_id: UUID, outcome: RefundOutcome) -> Message:
    """The message to the order for a refund's outcome."""
    if outcome.kind == "succeeded":
        return messages.Refunded(refund_id)
    if outcome.kind == "rejected":
        return messages.RefundRejected(refund_id, outcome.reason or "")
    return messages.RefundUnknown(refund_id)


def _refund_of(event: Event) -> UUID:
    return UUID(str(event.data["refundId"]))


REFUND = TwoPhaseCall(subject=_refund_of, prepare=prepare, execute=execute, record=record)
