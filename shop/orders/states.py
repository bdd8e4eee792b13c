"""The rows of one order as values: what ``decide`` reads."""

from __future__ import annotations

from uuid import UUID

from events.records import frozen
from shop.orders.lines import Line
from shop.primitives.statuses import (
    OPEN_PAYMENT,
    OPEN_REFUND,
    SENT_SHIPMENT,
    ActionType,
    CancelReason,
    DisputeStatus,
    OrderStatus,
    PaymentStatus,
    PostingKind,
    RefundMeans,
    RefundStatus,
    ShipmentStatus,
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
    ``action`` is what the customer has to do, which ``may_act`` until its deadline; ``token`` is
    what the provider gave a customer who has done it.
    """

    payment_id: UUID
    attempt: int
    status: PaymentStatus
    amount_minor: int
    currency: str
    late_capture: bool = False
    refund_reserved_minor: int = 0
    may_charge: bool = True
    action: ActionType | None = None
    token: str | None = None
    may_act: bool = True

    @property
    def awaits_customer(self) -> bool:
        """True while the customer may still do what the payment requires."""
        return self.status == PaymentStatus.REQUIRES_ACTION and self.may_act

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
class Dispute:
    """A customer's dispute about a payment, and what it has moved; 0: not posted."""

    dispute_id: UUID
    payment_id: UUID
    status: DisputeStatus = DisputeStatus.OPEN
    withdrawn_minor: int = 0
    reinstated_minor: int = 0
    fee_minor: int = 0
    fee_reversed_minor: int = 0

    @property
    def withheld_minor(self) -> int:
        """What the provider has withdrawn and not paid back."""
        return self.withdrawn_minor - self.reinstated_minor

    def posted(self, kind: PostingKind) -> int:
        """The amount that is posted of this kind, or 0."""
        return {
            PostingKind.DISPUTE: self.withdrawn_minor,
            PostingKind.DISPUTE_REVERSAL: self.reinstated_minor,
            PostingKind.DISPUTE_FEE: self.fee_minor,
            PostingKind.DISPUTE_FEE_REVERSAL: self.fee_reversed_minor,
        }[kind]


@frozen
class Shipment:
    """Lines of the order that are sent together."""

    shipment_id: UUID
    status: ShipmentStatus
    lines: tuple[Line, ...]


@frozen
class OrderState:
    """All rows of one order that decisions depend on."""

    order: Order
    payments: tuple[Payment, ...] = ()
    refunds: tuple[Refund, ...] = ()
    disputes: tuple[Dispute, ...] = ()
    lines: tuple[Line, ...] = ()
    shipments: tuple[Shipment, ...] = ()

    def payment(self, payment_id: UUID) -> Payment | None:
        """The payment with this id, or None."""
        return next((p for p in self.payments if p.payment_id == payment_id), None)

    def refund(self, refund_id: UUID) -> Refund | None:
        """The refund with this id, or None."""
        return next((r for r in self.refunds if r.refund_id == refund_id), None)

    def dispute(self, dispute_id: UUID) -> Dispute | None:
        """The dispute with this id, or None."""
        return next((d for d in self.disputes if d.dispute_id == dispute_id), None)

    def shipment(self, shipment_id: UUID) -> Shipment | None:
        """The shipment with this id, or None."""
        return next((s for s in self.shipments if s.shipment_id == shipment_id), None)

    @property
    def is_sent(self) -> bool:
        """True when goods of the order have left the shop."""
        return any(s.status in SENT_SHIPMENT for s in self.shipments)

    @property
    def in_preparation(self) -> list[Shipment]:
        """The shipments that are being packed."""
        return [s for s in self.shipments if s.status == ShipmentStatus.PREPARING]

    def unassigned(self, product_id: int) -> int:
        """How many units of a line are in no shipment; 0 for a product that was not ordered."""
        ordered = sum(line.qty for line in self.lines if line.product_id == product_id)
        assigned = sum(
            line.qty
            for shipment in self.shipments
            if shipment.status != ShipmentStatus.CANCELLED
            for line in shipment.lines
            if line.product_id == product_id
        )
        return ordered - assigned

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
        """True when nothing is open and no capture is kept.

        A capture is not kept once its refunds, write-offs and lost disputes cover it.
        """
        return (
            self.open_payment is None
            and not any(r.status in OPEN_REFUND for r in self.refunds)
            and all(p.amount_minor <= self._returned_minor(p) for p in self.captures)
        )

    def is_refunded(self, capture: Payment) -> bool:
        """True when all money of a capture was returned or written off."""
        return capture.amount_minor == self._refunded_minor(capture)

    def succeeded_refunds(self, payment_id: UUID) -> list[Refund]:
        """The refunds of a payment that returned money."""
        return [
            r
            for r in self.refunds
            if r.payment_id == payment_id and r.status == RefundStatus.SUCCEEDED
        ]

    def open_refunds(self, payment_id: UUID) -> list[Refund]:
        """The refunds of a payment whose outcome is not known yet, oldest first."""
        return [r for r in self.refunds if r.payment_id == payment_id and r.status in OPEN_REFUND]

    def refundable_minor(self, payment: Payment) -> int:
        """What can still be refunded: neither reserved for a refund nor withheld by a dispute.

        Negative when a dispute withheld money that was returned, or is being returned, as well.
        """
        withheld_minor = sum(
            d.withheld_minor for d in self.disputes if d.payment_id == payment.payment_id
        )
        return payment.rest_minor - withheld_minor

    def _refunded_minor(self, payment: Payment) -> int:
        return sum(r.amount_minor for r in self.succeeded_refunds(payment.payment_id))

    def _returned_minor(self, payment: Payment) -> int:
        lost_minor = sum(
            d.withheld_minor
            for d in self.disputes
            if d.payment_id == payment.payment_id and d.status == DisputeStatus.LOST
        )
        return self._refunded_minor(payment) + lost_minor
