"""Events about the catalogue."""

from typing import ClassVar

from events.event import ShopEvent
from events.records import frozen


@frozen(kw_only=True)
class ProductChanged(ShopEvent):
    """A product was added or changed; copies of an older version are stale."""

    name: ClassVar[str] = "product.changed"
    external: ClassVar[bool] = False

    product_id: int
    product_version: int
