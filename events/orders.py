"""Events about orders."""

from typing import ClassVar
from uuid import UUID

from events.event import ShopEvent
from events.records import frozen


@frozen(kw_only=True)
class OrderPlaced(ShopEvent):
    """An order was placed; its stock is reserved and its payment has not been collected."""

    name: ClassVar[str] = "order.placed"
    external: ClassVar[bool] = False

    order_id: UUID


@frozen(kw_only=True)
class OrderPaid(ShopEvent):
    """An order was paid and its reserved stock was committed."""

    name: ClassVar[str] = "order.paid"
    external: ClassVar[bool] = False

    order_id: UUID


@frozen(kw_only=True)
class OrderRefunded(ShopEvent):
    """All money of a paid order was returned without cancelling it; the order is closed."""

    name: ClassVar[str] = "order.refunded"

    order_id: UUID


@frozen(kw_only=True)
class OrderCancelling(ShopEvent):
    """An order is being cancelled; a payment may still have to be refunded."""

    name: ClassVar[str] = "order.cancelling"

    order_id: UUID


@frozen(kw_only=True)
class OrderCancelled(ShopEvent):
    """An order was cancelled; its stock was returned and its payments were refunded."""

    name: ClassVar[str] = "order.cancelled"
    external: ClassVar[bool] = False

    order_id: UUID
