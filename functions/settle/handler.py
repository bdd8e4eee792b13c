"""Close what is over.  Runs any number of times, by any number of replicas, with one result."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from events.event import Currency
from events.settlements import SettlementClosed
from shop import settlement
from shop.messaging import outbox

if TYPE_CHECKING:
    from shop.runtime.event_context import EventContext


def close_days(context: EventContext) -> None:
    """Closes every finished business day with open postings, oldest first, each for itself.

    Stops at the first day that cannot be closed yet: days close in order, and the next tick asks
    again.
    """
    time_zone = context.settings.business_time_zone
    with context.transaction() as tx:
        days = settlement.open_days(tx, time_zone=time_zone)
    for day in days:
        if not _close(context, day, time_zone):
            break


def _close(context: EventContext, day: date, time_zone: str) -> bool:
    with context.transaction() as tx:
        currencies = settlement.close_day(tx, day, time_zone=time_zone)
        if currencies:
            announce, _ = outbox.emit(
                tx,
                *(SettlementClosed(settlement_date=day, currency=Currency(c)) for c in currencies),
            )
            tx.together(announce)
    return currencies is not None
