"""Events about settlements."""

from datetime import date
from typing import ClassVar

from events.event import Currency, ShopEvent
from events.records import frozen


@frozen(kw_only=True)
class SettlementClosed(ShopEvent):
    """A business day was closed in one currency; its totals are final."""

    name: ClassVar[str] = "settlement.closed"

    settlement_date: date
    currency: Currency
