"""Events about refunds, full or partial."""

from typing import ClassVar
from uuid import UUID

from events.event import ShopEvent
from events.records import frozen


@frozen(kw_only=True)
class RefundRequested(ShopEvent):
    """A refund was decided; the provider has not been called yet."""

    name: ClassVar[str] = "refund.requested"
    external: ClassVar[bool] = False

    order_id: UUID
    payment_id: UUID
    refund_id: UUID


@frozen(kw_only=True)
class RefundSucceeded(ShopEvent):
    """The provider executed a refund."""

    name: ClassVar[str] = "refund.succeeded"
    external: ClassVar[bool] = False

    order_id: UUID
    payment_id: UUID
    refund_id: UUID


@frozen(kw_only=True)
class RefundRejected(ShopEvent):
    """The provider rejected a refund, which raises an operator alert."""

    name: ClassVar[str] = "refund.rejected"

    order_id: UUID
    payment_id: UUID
    refund_id: UUID
