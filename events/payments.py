"""Facts about payments: one attempt to collect an order's money."""

from typing import ClassVar
from uuid import UUID

from events.event import ShopEvent
from events.records import frozen


@frozen(kw_only=True)
class PaymentCaptured(ShopEvent):
    """The provider holds the money of one payment."""

    name: ClassVar[str] = "payment.captured"

    order_id: UUID
    payment_id: UUID


@frozen(kw_only=True)
class PaymentDeclined(ShopEvent):
    """The provider refused one payment for good; the order may be paid again."""

    name: ClassVar[str] = "payment.declined"

    order_id: UUID
    payment_id: UUID


@frozen(kw_only=True)
class PaymentRetryRequested(ShopEvent):
    """A customer asked to pay again after a decline; a new attempt waits to be made."""

    name: ClassVar[str] = "payment.retry-requested"
    external: ClassVar[bool] = False

    order_id: UUID
