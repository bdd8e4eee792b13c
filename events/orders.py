"""Facts about orders."""

from typing import ClassVar
from uuid import UUID

from events.event import ShopEvent
from events.records import frozen


@frozen(kw_only=True)
class OrderPlaced(ShopEvent):
    """A customer placed an order; its stock is held and its payment is still to come."""

    name: ClassVar[str] = "order.placed"
    external: ClassVar[bool] = False

    order_id: UUID


@frozen(kw_only=True)
class OrderPaid(ShopEvent):
    """An order's money arrived and its reserved stock was committed."""

    name: ClassVar[str] = "order.paid"

    order_id: UUID


@frozen(kw_only=True)
class OrderCancelling(ShopEvent):
    """An order was withdrawn while money is, or may be, on its way back."""

    name: ClassVar[str] = "order.cancelling"

    order_id: UUID


@frozen(kw_only=True)
class OrderCancelled(ShopEvent):
    """An order came to rest as cancelled: stock and money are back where they came from."""

    name: ClassVar[str] = "order.cancelled"

    order_id: UUID
