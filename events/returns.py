"""Events about goods that customers send back."""

from typing import ClassVar
from uuid import UUID

from events.event import ShopEvent
from events.records import frozen


@frozen(kw_only=True)
class ReturnRequested(ShopEvent):
    """A customer wants to send goods of an order back; support has not decided yet."""

    name: ClassVar[str] = "return.requested"

    order_id: UUID
    return_id: UUID


@frozen(kw_only=True)
class ReturnApproved(ShopEvent):
    """Support approved a return; the goods are expected."""

    name: ClassVar[str] = "return.approved"

    order_id: UUID
    return_id: UUID


@frozen(kw_only=True)
class ReturnRejected(ShopEvent):
    """Support rejected a return, or closed one whose goods did not arrive."""

    name: ClassVar[str] = "return.rejected"

    order_id: UUID
    return_id: UUID


@frozen(kw_only=True)
class ReturnReceived(ShopEvent):
    """The goods of a return arrived; their money is being returned."""

    name: ClassVar[str] = "return.received"

    order_id: UUID
    return_id: UUID
