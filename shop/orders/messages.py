"""What can happen to an order: the messages that ``decide`` takes, a closed union."""

from __future__ import annotations

from uuid import UUID

from events.records import frozen
from shop.primitives.statuses import CancelReason


@frozen
class ChargeDue:
    """An event or a timer found that the order's total should be collected."""


@frozen
class Captured:
    """The provider holds the money of a payment."""

    payment_id: UUID
    amount_minor: int
    currency: str
    provider_ref: str | None = None


@frozen
class Declined:
    """The provider declined a payment; this is definitive."""

    payment_id: UUID


@frozen
class Voided:
    """The provider will never collect a payment; this is definitive."""

    payment_id: UUID


@frozen
class PaymentUnknown:
    """A charge ended without a definitive response: timeout, reset, 5xx, 429, 404."""

    payment_id: UUID


@frozen
class PaymentMismatched:
    """A response names another amount, currency or key than the payment's; it is not applied."""

    payment_id: UUID
    detail: str


@frozen
class PayAgainRequested:
    """The customer tries to pay once more after a decline."""

    payment_method: str


@frozen
class CancelRequested:
    """The order is to be cancelled."""

    reason: CancelReason


@frozen
class ExpiryDue:
    """A timer found that the time to pay is over."""


@frozen
class RefundRequested:
    """Support refunds a part of the payment."""

    amount_minor: int
    reason: str


@frozen
class Refunded:
    """The provider returned the money; without an amount: the adapter has compared it already."""

    refund_id: UUID
    amount_minor: int | None = None
    currency: str | None = None


@frozen
class RefundRejected:
    """The provider rejected a refund; this is definitive."""

    refund_id: UUID
    detail: str = ""


@frozen
class RefundUnknown:
    """A refund call ended without a definitive response."""

    refund_id: UUID


@frozen
class RefundFound:
    """The provider executed a refund whose row was lost by a restore."""

    refund_id: UUID
    payment_id: UUID
    amount_minor: int
    currency: str


@frozen
class FinishDue:
    """A timer found that a cancelled order has nothing left to wait for."""


Message = (
    ChargeDue
    | Captured
    | Declined
    | Voided
    | PaymentUnknown
    | PaymentMismatched
    | PayAgainRequested
    | CancelRequested
    | ExpiryDue
    | RefundRequested
    | Refunded
    | RefundRejected
    | RefundUnknown
    | RefundFound
    | FinishDue
)
