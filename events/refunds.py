"""Facts about refunds: money given back, in full or in part."""

from typing import ClassVar
from uuid import UUID

from events.event import ShopEvent
from events.records import frozen


@frozen(kw_only=True)
class RefundRequested(ShopEvent):
    """A refund was decided on and waits to be asked of the provider."""

    name: ClassVar[str] = "refund.requested"
    external: ClassVar[bool] = False

    order_id: UUID
    payment_id: UUID
    refund_id: UUID


@frozen(kw_only=True)
class RefundSucceeded(ShopEvent):
    """The provider gave the money back."""

    name: ClassVar[str] = "refund.succeeded"

    order_id: UUID
    payment_id: UUID
    refund_id: UUID


@frozen(kw_only=True)
class RefundRejected(ShopEvent):
    """The provider refused to give the money back; a person has to look at it."""

    name: ClassVar[str] = "refund.rejected"

    order_id: UUID
    payment_id: UUID
    refund_id: UUID
