"""The rows of one order as values: what ``decide`` reads."""

from __future__ import annotations

from collections.abc import Collection, Iterable
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
    ReturnStatus,
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
class OrderedLine(Line):
    """A line of the order, and what is paid for all of it."""

    paid_minor: int


@frozen
class Return:
    """Units that go back, or that were cancelled before they were sent."""

    return_id: UUID
    status: ReturnStatus
    lines: tuple[Line, ...]


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
    lines: tuple[OrderedLine, ...] = ()
    shipments: tuple[Shipment, ...] = ()
    returns: tuple[Return, ...] = ()

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

    def return_of(self, return_id: UUID) -> Return | None:
        """The return with this id, or None."""
        return next((r for r in self.returns if r.return_id == return_id), None)

    def line(self, product_id: int) -> OrderedLine | None:
        """The line of a product, or None when it was not ordered."""
        return next((line for line in self.lines if line.product_id == product_id), None)

    def unassigned(self, product_id: int) -> int:
        """How many units of a line are in no shipment and not cancelled.

        0 for a product that was not ordered.
        """
        line = self.line(product_id)
        ordered = line.qty if line else 0
        packed = (s for s in self.shipments if s.status != ShipmentStatus.CANCELLED)
        cancelled = (r for r in self.returns if r.status == ReturnStatus.UNSENT)
        return ordered - _units(product_id, packed) - _units(product_id, cancelled)

    def sent(self, product_id: int, *, among: Collection[UUID] | None = None) -> int:
        """How many units of a line were sent, in all shipments or in those."""
        shipments = (
            s
            for s in self.shipments
            if s.status in SENT_SHIPMENT and (among is None or s.shipment_id in among)
        )
        return _units(product_id, shipments)

    def returned(self, product_id: int) -> int:
        """How many of the sent units came back or are to come back."""
        kept = (ReturnStatus.REJECTED, ReturnStatus.UNSENT)
        return _units(product_id, (r for r in self.returns if r.status not in kept))

    def given_back(self, product_id: int) -> int:
        """How many units of a line were given back, and their money with them."""
        closed = (ReturnStatus.RECEIVED, ReturnStatus.UNSENT)
        return _units(product_id, (r for r in self.returns if r.status in closed))

    def amount_minor(self, line: Line) -> int:
        """What is paid for the next units of a line that are given back.

        The amounts of all units, in whatever parts, sum to what was paid for the line: each is the
        difference of two shares that are rounded down.
        """
        ordered = self.line(line.product_id)
        assert ordered is not None, "only units that were ordered are given back"
        before = self.given_back(line.product_id)
        share_before = ordered.paid_minor * before // ordered.qty
        return ordered.paid_minor * (before + line.qty) // ordered.qty - share_before

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


def _units(product_id: int, rows: Iterable[Shipment | Return]) -> int:
    return sum(line.qty for row in rows for line in row.lines if line.product_id == product_id)
