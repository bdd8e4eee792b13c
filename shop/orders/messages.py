"""The messages that ``decide`` accepts, a closed union: everything that can happen to an order."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from events.records import frozen
from shop.adapters.payment_provider.protocol import NextAction
from shop.primitives.statuses import (
    CancelReason,
    DisputeStatus,
    PostingKind,
    RefundMeans,
    RefundOrigin,
)

if TYPE_CHECKING:
    from shop.orders.lines import Line


@frozen
class ChargeDue:
    """An event or a timer found that the order's total should be collected."""


@frozen
class Captured:
    """The provider captured a payment."""

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
class ActionRequired:
    """The provider collects a payment once the customer has acted.

    ``token`` is that with which the provider was asked; None: without one.
    """

    payment_id: UUID
    action: NextAction
    token: str | None = None


@frozen
class ActionReturned:
    """The customer has acted, and returns with the provider's token and the amount to confirm."""

    payment_id: UUID
    token: str
    amount_minor: int


@frozen
class PayAgainRequested:
    """The customer requested another attempt, after a decline or instead of the required action."""

    payment_method: str


@frozen
class CancelRequested:
    """A user or an operator requested to cancel the order, or it expired."""

    reason: CancelReason


@frozen
class OrderReplaced:
    """The customer places another order for products that this declined one still holds."""


@frozen
class ExpiryDue:
    """A timer found that the time to pay is over."""


@frozen
class RefundRequested:
    """Support requested to return an amount, or to write it off.

    ``reference`` names the payment by other means.  ``restock`` returns the goods to the stock once
    all money is returned.
    """

    amount_minor: int
    reason: str
    means: RefundMeans = RefundMeans.PROVIDER
    reference: str | None = None
    restock: bool = False


@frozen
class Refunded:
    """The provider executed a refund; no amount means that the adapter has compared it already."""

    refund_id: UUID
    amount_minor: int | None = None
    currency: str | None = None


@frozen
class RefundRejected:
    """The provider rejected a refund, or reversed one that had succeeded; this is definitive."""

    refund_id: UUID
    detail: str = ""


@frozen
class RefundUnknown:
    """A refund call ended without a definitive response."""

    refund_id: UUID


@frozen
class RefundFound:
    """The provider executed a refund that has no row: made by itself, or lost by a restore.

    ``provider_key`` is the shop's key of a lost refund, and the provider's own id of another.
    """

    refund_id: UUID
    payment_id: UUID
    amount_minor: int
    currency: str
    provider_key: str
    origin: RefundOrigin


@frozen
class DisputeMovement:
    """Money that a dispute moved; its kind is one of the four of disputes, each at most once."""

    kind: PostingKind
    amount_minor: int
    currency: str


@frozen
class DisputeReported:
    """The provider reports a dispute about a payment, with everything that it has moved so far."""

    dispute_id: UUID
    payment_id: UUID
    provider_ref: str
    status: DisputeStatus
    amount_minor: int
    currency: str
    movements: tuple[DisputeMovement, ...] = ()


@frozen
class ShipmentRequested:
    """Staff begin to pack these lines together; none is named twice."""

    shipment_id: UUID
    lines: tuple[Line, ...]


@frozen
class ShipmentSent:
    """Staff handed a shipment to a carrier."""

    shipment_id: UUID
    carrier: str
    tracking_number: str


@frozen
class ShipmentArrived:
    """The carrier, or staff, report that a shipment was delivered."""

    shipment_id: UUID


@frozen
class ShipmentDropped:
    """Staff do not send a shipment; its lines are free for another."""

    shipment_id: UUID


@frozen
class LinesCancelled:
    """The customer, or support, cancels units that are in no shipment; no product twice."""

    return_id: UUID
    lines: tuple[Line, ...]
    reason: str


@frozen
class ReturnRequested:
    """The customer wants to send units back; no product twice.

    ``returnable`` are the shipments whose return window is open.
    """

    return_id: UUID
    lines: tuple[Line, ...]
    reason: str
    returnable: frozenset[UUID]


@frozen
class ReturnApproved:
    """Support expects the goods of a return."""

    return_id: UUID


@frozen
class ReturnRejected:
    """Support rejects a return, or one that was approved did not arrive."""

    return_id: UUID


@frozen
class ReturnReceived:
    """The goods of a return arrived; ``restocked`` of them are put into the stock, others not."""

    return_id: UUID
    restocked: tuple[Line, ...]


@frozen
class FinishDue:
    """A timer found that a cancelled order has nothing left to wait for."""


GoodsMessage = (
    ShipmentRequested
    | ShipmentSent
    | ShipmentArrived
    | ShipmentDropped
    | LinesCancelled
    | ReturnRequested
    | ReturnApproved
    | ReturnRejected
    | ReturnReceived
)
Message = (
    ChargeDue
    | Captured
    | Declined
    | Voided
    | PaymentUnknown
    | PaymentMismatched
    | ActionRequired
    | ActionReturned
    | PayAgainRequested
    | CancelRequested
    | OrderReplaced
    | ExpiryDue
    | RefundRequested
    | Refunded
    | RefundRejected
    | RefundUnknown
    | RefundFound
    | DisputeReported
    | GoodsMessage
    | FinishDue
)
