"""The rows of one order as values: what ``decide`` reads."""

from __future__ import annotations

from uuid import UUID

from events.records import frozen
from shop.primitives.statuses import (
    OPEN_PAYMENT,
    CancelReason,
    OrderStatus,
    PaymentStatus,
    RefundStatus,
)


@frozen
class Order:
    """An order's row; the database compares its times, so they are booleans here."""

    status: OrderStatus
    total_minor: int
    currency: str
    reason: CancelReason | None = None
    charge_requested: bool = True
    is_soft_expired: bool = False
    is_hard_expired: bool = False


@frozen
class Payment:
    """One attempt to collect the order's total.

    A ``late_capture`` is money that arrived when the order no longer needed it; it is refunded.
    """

    payment_id: UUID
    attempt: int
    status: PaymentStatus
    amount_minor: int
    currency: str
    late_capture: bool = False
    refund_reserved_minor: int = 0
    may_charge: bool = True


@frozen
class Refund:
    """An amount to return from one payment."""

    refund_id: UUID
    payment_id: UUID
    amount_minor: int
    status: RefundStatus


@frozen
class OrderState:
    """All rows of one order that decisions depend on."""

    order: Order
    payments: tuple[Payment, ...] = ()
    refunds: tuple[Refund, ...] = ()

    def payment(self, payment_id: UUID) -> Payment | None:
        """The payment with this id, or None."""
        return next((p for p in self.payments if p.payment_id == payment_id), None)

    def refund(self, refund_id: UUID) -> Refund | None:
        """The refund with this id, or None."""
        return next((r for r in self.refunds if r.refund_id == refund_id), None)

    @property
    def open_payment(self) -> Payment | None:
        """The attempt whose outcome is not known yet."""
        return next((p for p in self.payments if p.status in OPEN_PAYMENT), None)

    @property
    def settling_payment(self) -> Payment | None:
        """The capture that pays for the order."""
        return next((p for p in self._captures if not p.late_capture), None)

    @property
    def is_settled(self) -> bool:
        """True when no payment is open and every capture was refunded in full."""
        return self.open_payment is None and all(
            p.amount_minor == self._refunded_minor(p) for p in self._captures
        )

    @property
    def _captures(self) -> list[Payment]:
        return [p for p in self.payments if p.status == PaymentStatus.CAPTURED]

    def _refunded_minor(self, payment: Payment) -> int:
        return sum(
            r.amount_minor
            for r in self.refunds
            if r.payment_id == payment.payment_id and r.status == RefundStatus.SUCCEEDED
        )
