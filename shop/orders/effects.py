"""What a decision changes: the effects that ``apply`` writes, a closed union."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from events.records import frozen
from shop.adapters.payment_provider.protocol import NextAction
from shop.primitives.statuses import (
    CancelReason,
    DisputeStatus,
    OrderStatus,
    PaymentStatus,
    PostingKind,
    RefundMeans,
    RefundOrigin,
    RefundStatus,
    ReservationStatus,
    ReturnStatus,
    ShipmentStatus,
)

if TYPE_CHECKING:
    from shop.orders.lines import Line


@frozen
class ChangeOrderStatus:
    """Changes the order's status; a cancelled order has a reason."""

    from_status: OrderStatus
    to_status: OrderStatus
    reason: CancelReason | None = None


@frozen
class ChangeReservations:
    """Commits, releases or returns all reservations of the order together."""

    from_status: ReservationStatus
    to_status: ReservationStatus


@frozen
class OpenPayment:
    """Creates an attempt, as an intent that is committed before the provider is called."""

    attempt: int


@frozen
class ChangePaymentStatus:
    """Changes a payment's status; a ``late_capture`` is money the order no longer needs."""

    payment_id: UUID
    from_status: PaymentStatus
    to_status: PaymentStatus
    late_capture: bool = False
    provider_ref: str | None = None


@frozen
class AwaitAction:
    """Lets the customer act until the deadline; no ``action``: the one before, and its deadline."""

    payment_id: UUID
    from_status: PaymentStatus
    action: NextAction | None


@frozen
class ConfirmAction:
    """Stores the token with which the payment is confirmed, and makes that due."""

    payment_id: UUID
    token: str


@frozen
class AbandonAction:
    """Ends the time in which the customer may act."""

    payment_id: UUID


@frozen
class PostponePayment:
    """Schedules the next call about an open payment, with a longer delay after each try."""

    payment_id: UUID


@frozen
class OpenRefund:
    """Creates a refund as an intent and reserves its amount on the payment."""

    payment_id: UUID
    amount_minor: int
    reason: str
    means: RefundMeans = RefundMeans.PROVIDER
    reference: str | None = None
    restock: bool = False


@frozen
class RecordRefund:
    """Creates a refund that the provider has executed, and reserves its amount on the payment."""

    refund_id: UUID
    payment_id: UUID
    amount_minor: int
    provider_key: str
    origin: RefundOrigin


@frozen
class ChangeRefundStatus:
    """Changes a refund's status; one that failed frees its amount on the payment."""

    refund_id: UUID
    payment_id: UUID
    amount_minor: int
    from_status: RefundStatus
    to_status: RefundStatus


@frozen
class PostponeRefund:
    """Schedules the next try of an open refund, with a longer delay after each try."""

    refund_id: UUID


@frozen
class OpenDispute:
    """Creates the row of a dispute."""

    dispute_id: UUID
    payment_id: UUID
    provider_ref: str
    amount_minor: int
    currency: str


@frozen
class ChangeDisputeStatus:
    """Closes a dispute as won or lost."""

    dispute_id: UUID
    from_status: DisputeStatus
    to_status: DisputeStatus


@frozen
class OpenShipment:
    """Creates a shipment of these lines, which is PREPARING."""

    shipment_id: UUID
    lines: tuple[Line, ...]


@frozen
class ChangeShipmentStatus:
    """Changes a shipment's status; one that is SHIPPED has a carrier and a tracking number."""

    shipment_id: UUID
    from_status: ShipmentStatus
    to_status: ShipmentStatus
    carrier: str | None = None
    tracking_number: str | None = None


@frozen
class OpenReturn:
    """Creates a return of these units: requested by the customer, or UNSENT."""

    return_id: UUID
    status: ReturnStatus
    reason: str
    lines: tuple[Line, ...]


@frozen
class ChangeReturnStatus:
    """Changes a return's status."""

    return_id: UUID
    from_status: ReturnStatus
    to_status: ReturnStatus


@frozen
class GiveBack:
    """Gives units of a line back: ``restocked`` of them are in the stock again.

    ``amount_minor`` is the part of the refund that is for them.
    """

    return_id: UUID
    product_id: int
    restocked: int
    amount_minor: int


@frozen
class PostToLedger:
    """Posts a movement of the order's money in the ledger."""

    kind: PostingKind
    source_id: UUID
    amount_minor: int
    currency: str


@frozen
class RequestCharge:
    """Records that the customer requested another attempt with this payment method."""

    payment_method: str


@frozen
class ReturnCart:
    """Puts the lines that the order took from the cart back, since it was not paid."""


@frozen
class RaiseAlert:
    """Raises an operator alert."""

    kind: str
    subject: UUID | str
    detail: str


@frozen
class Reject:
    """Rejects the request with 409; nothing is written."""

    code: str
    message: str


GoodsEffect = OpenShipment | ChangeShipmentStatus | OpenReturn | ChangeReturnStatus | GiveBack
Effect = (
    ChangeOrderStatus
    | ChangeReservations
    | OpenPayment
    | ChangePaymentStatus
    | AwaitAction
    | ConfirmAction
    | AbandonAction
    | PostponePayment
    | OpenRefund
    | RecordRefund
    | ChangeRefundStatus
    | PostponeRefund
    | OpenDispute
    | ChangeDisputeStatus
    | GoodsEffect
    | PostToLedger
    | RequestCharge
    | ReturnCart
    | RaiseAlert
    | Reject
)
Effects = tuple[Effect, ...]
NOTHING: Effects = ()
