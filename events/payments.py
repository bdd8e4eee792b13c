"""Events about payments; a payment is one attempt to collect an order's total."""

from typing import ClassVar
from uuid import UUID

from events.event import ShopEvent
from events.records import frozen


@frozen(kw_only=True)
class PaymentCaptured(ShopEvent):
    """The provider captured a payment."""

    name: ClassVar[str] = "payment.captured"

    order_id: UUID
    payment_id: UUID


@frozen(kw_only=True)
class PaymentDeclined(ShopEvent):
    """The provider declined a payment; the order can be paid again."""

    name: ClassVar[str] = "payment.declined"

    order_id: UUID
    payment_id: UUID


@frozen(kw_only=True)
class PaymentConfirmRequested(ShopEvent):
    """A customer has done what a payment required, and it can be confirmed at the provider."""

    name: ClassVar[str] = "payment.confirm-requested"
    external: ClassVar[bool] = False

    order_id: UUID
    payment_id: UUID


@frozen(kw_only=True)
class PaymentRetryRequested(ShopEvent):
    """A customer requested another payment attempt after a decline."""

    name: ClassVar[str] = "payment.retry-requested"
    external: ClassVar[bool] = False

    order_id: UUID
