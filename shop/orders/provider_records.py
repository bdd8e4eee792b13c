"""Which order an entry of the provider's records concerns, and the message about it.

Webhooks and reconciliation both ask here, so they book the same, in any order and any number of
times, whether the shop or someone in the provider's dashboard caused the entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never
from uuid import NAMESPACE_OID, UUID, uuid5

from events.records import frozen
from shop import unmatched_charges
from shop.orders import messages, payments, refunds
from shop.orders.messages import Message
from shop.primitives.statuses import PaymentStatus, RefundOrigin

if TYPE_CHECKING:
    from shop.adapters.db import Transaction
    from shop.adapters.payment_provider.protocol import ProviderTransaction
    from shop.orders.payments import PaymentOfKey


@frozen
class OrderMessage:
    """A message about an order; one that ``is_early`` needs a capture that is not recorded yet."""

    order_id: UUID
    message: Message
    is_early: bool = False


def message_of(tx: Transaction, entry: ProviderTransaction) -> OrderMessage | None:
    """The message about an entry; None when it concerns no payment of the shop."""
    if entry.kind in ("refund", "failed_refund"):
        known = tx.fetch_one(refunds.with_key(entry.key))
        if known is not None:
            return OrderMessage(known.order_id, _refund_message(entry, known.refund_id))
    if entry.kind == "failed_refund":
        return None
    payment = tx.fetch_one(
        payments.of_charge(provider_key=entry.charge_key, provider_ref=entry.charge_ref)
    )
    if payment is None:
        return None
    is_early = entry.kind != "charge" and payment.status != PaymentStatus.CAPTURED
    return OrderMessage(payment.order_id, _message(entry, payment), is_early)


def has_key_of_shop(entry: ProviderTransaction) -> bool:
    """Whether the shop made the entry or its charge; otherwise it may be another shop's.

    Several shops can share one account at the provider; what has no key of this shop and concerns
    none of its payments is not its business.
    """
    return unmatched_charges.is_key_of_shop(entry.charge_key) or (
        entry.kind == "refund" and refunds.id_of_key(entry.key) is not None
    )


def _refund_message(entry: ProviderTransaction, refund_id: UUID) -> Message:
    if entry.kind == "failed_refund":
        return messages.RefundRejected(refund_id)
    return messages.Refunded(refund_id, entry.amount_minor, entry.currency)


def _message(entry: ProviderTransaction, payment: PaymentOfKey) -> Message:
    amount = (entry.amount_minor, entry.currency)
    match entry.kind:
        case "charge":
            return messages.Captured(payment.payment_id, *amount, entry.provider_ref)
        case "refund":
            lost_id = refunds.id_of_key(entry.key)
            return messages.RefundFound(
                lost_id or _row_id(entry),
                payment.payment_id,
                *amount,
                entry.key,
                RefundOrigin.SHOP if lost_id else RefundOrigin.PROVIDER,
            )
        case "dispute":
            return _dispute_message(entry, payment)
        case "failed_refund":
            raise ValueError("a refund that failed moved no money of a payment")
        case _:
            assert_never(entry.kind)


def _dispute_message(entry: ProviderTransaction, payment: PaymentOfKey) -> Message:
    assert entry.dispute is not None, "an entry of this kind has a report"
    return messages.DisputeReported(
        _row_id(entry),
        payment.payment_id,
        entry.provider_ref,
        entry.dispute.status,
        entry.amount_minor,
        entry.currency,
        tuple(
            messages.DisputeMovement(moved.kind, moved.amount_minor, moved.currency)
            for moved in entry.dispute.transactions
        ),
    )


def _row_id(entry: ProviderTransaction) -> UUID:
    """The id of the row for what the provider made, the same for every report about it."""
    return uuid5(NAMESPACE_OID, entry.provider_ref)
