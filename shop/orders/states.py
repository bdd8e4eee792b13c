"""The rows of one order as values: what ``decide`` reads."""

from __future__ import annotations

from uuid import UUID

from events.records import frozen
from shop.primitives.statuses import (
    OPEN_PAYMENT,
    CancelReason,
    OrderStatus,
    PaymentStatus,
    RefundMeans,
    RefundStatus,
)


@frozen
class Order:
    """An order's row; the database compares its times, so they are booleans here.

    ``has_cart_lines``: it was placed from the cart, to which its lines have not been returned.
    """

    status: OrderStatus
    total_minor: int
    currency: str
    reason: CancelReason | None = None
    charge_requested: bool = True
    is_soft_expired: bool = False
    is_hard_expired: bool = False
    has_cart_lines: bool = False


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

    @property
    def rest_minor(self) -> int:
        """What no refund returns or is about to return; meaningful for a capture."""
        return self.amount_minor - self.refund_reserved_minor


@frozen
class Refund:
    """An amount to return from one payment."""

    refund_id: UUID
    payment_id: UUID
    amount_minor: int
    status: RefundStatus
    means: RefundMeans = RefundMeans.PROVIDER
    restock: bool = False


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
        return next((p for p in self.captures if not p.late_capture), None)

    @property
    def captures(self) -> list[Payment]:
        """The payments that took money, oldest first."""
        return [p for p in self.payments if p.status == PaymentStatus.CAPTURED]

    @property
    def is_settled(self) -> bool:
        """True when no payment is open and every capture was refunded in full."""
        return self.open_payment is None and all(map(self.is_refunded, self.captures))

    def is_refunded(self, capture: Payment) -> bool:
        """True when all money of a capture was returned or written off."""
        return capture.amount_minor == sum(
            r.amount_minor for r in self.succeeded_refunds(capture.payment_id)
        )

    def succeeded_refunds(self, payment_id: UUID) -> list[Refund]:
        """The refunds of a payment that returned money."""
        return [
            r
            for r in self.refunds
            if r.payment_id == payment_id and r.status == RefundStatus.SUCCEEDED
        ]
