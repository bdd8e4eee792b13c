"""Giving money back: the refund's intent is committed; send it, record the provider's word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from events.records import frozen
from shop.adapters.payment_provider.protocol import RefundCall, RefundOutcome
from shop.adapters.payment_provider.two_phase_call import TwoPhaseCall
from shop.orders import apply, decide, refunds
from shop.primitives.messages import Event

if TYPE_CHECKING:
    from shop.adapters.db import Transaction
    from shop.adapters.payment_provider.protocol import Provider
    from shop.adapters.payment_provider.two_phase_call import OpenTransaction


@frozen
class Refunding:
    """A refund to send, under the refund's own key; ``is_repeated``: perhaps for another time."""

    order_id: UUID
    refund_id: UUID
    call: RefundCall
    is_repeated: bool


def prepare(tx: Transaction, refund_id: UUID) -> Refunding | None:
    """The open refund's call, with its next turn pushed into the future; None when it is closed."""
    row = tx.one(refunds.ORDER_OF, refund_id=refund_id)
    if row is None:
        raise apply.UnknownOrder()
    telling = apply.read(tx, row.order_id)
    refund = next(r for r in telling.refunds if r.refund_id == refund_id)
    if refund.status not in decide.LIVE:
        return None
    tx.run(refunds.RETRY, refund_id=refund_id)
    payment = next(p for p in telling.payments if p.payment_id == refund.payment_id)
    call = RefundCall(
        key=refund.provider_key,
        charge_key=payment.provider_key,
        provider_ref=payment.provider_ref or "",
        amount_minor=refund.amount_minor,
        currency=refund.currency,
    )
    return Refunding(row.order_id, refund_id, call, is_repeated=refund.tries > 0)


def execute(provider: Provider, refunding: Refunding, _: OpenTransaction) -> RefundOutcome:
    """Sends the refund with its key; an answer not believed is checked against the books.

    One that may have been sent before is looked up first: refunds are tried for as long as it
    takes, and to a provider that has forgotten the key (Stripe: after 24 h) it would be a new one.
    """
    if refunding.is_repeated:
        known = provider.find_refund(refunding.call)
        if known.kind != "missing":
            return known
    outcome = provider.refund(refunding.call)
    if outcome.kind == "mismatch":
        return provider.find_refund(refunding.call)
    return outcome


def record(tx: Transaction, refunding: Refunding, outcome: RefundOutcome) -> None:
    """Applies the provider's word, or notes that there was none."""
    apply.apply_message(tx, refunding.order_id, message_of(refunding.refund_id, outcome))


def message_of(refund_id: UUID, outcome: RefundOutcome) -> Any:
    """The lifecycle's message for a refund's outcome."""
    if outcome.kind == "succeeded":
        return decide.Refunded(refund_id)
    if outcome.kind == "rejected":
        return decide.RefundRejected(refund_id, outcome.reason or "")
    return decide.RefundUnclear(refund_id)


def _refund_of(event: Event) -> UUID:
    return UUID(str(event.data["refundId"]))


REFUND = TwoPhaseCall(subject=_refund_of, prepare=prepare, execute=execute, record=record)
