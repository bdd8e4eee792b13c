"""Events about shipments of an order."""

from typing import ClassVar
from uuid import UUID

from events.event import ShopEvent
from events.records import frozen


@frozen(kw_only=True)
class ShipmentCreated(ShopEvent):
    """Lines of an order are being packed; they can no longer be cancelled."""

    name: ClassVar[str] = "shipment.created"

    order_id: UUID
    shipment_id: UUID


@frozen(kw_only=True)
class ShipmentShipped(ShopEvent):
    """A shipment was handed to a carrier; the shop has the carrier and the tracking number."""

    name: ClassVar[str] = "shipment.shipped"

    order_id: UUID
    shipment_id: UUID


@frozen(kw_only=True)
class ShipmentDelivered(ShopEvent):
    """A shipment was delivered."""

    name: ClassVar[str] = "shipment.delivered"

    order_id: UUID
    shipment_id: UUID
