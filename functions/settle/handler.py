"""Closes finished business days; repeated and concurrent runs have the same result as one."""

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
    """Closes every finished business day with unsettled postings, oldest first.

    Stops at the first day that cannot be closed yet, since days are closed in order; a later tick
    continues.
    """
    time_zone = context.settings.business_time_zone
    with context.transaction() as tx:
        days = tx.fetch_all(settlement.open_days(time_zone=time_zone))
    for row in days:
        if not _close(context, row.day, time_zone):
            break


def _close(context: EventContext, day: date, time_zone: str) -> bool:
    with context.transaction() as tx:
        is_over = tx.fetch_one(settlement.is_over(day, time_zone=time_zone))
        if is_over is None or not is_over.over:
            return False
        closed = tx.fetch_all(settlement.close_day(day, time_zone=time_zone))
        if closed:
            events = [
                SettlementClosed(settlement_date=day, currency=Currency(row.currency))
                for row in closed
            ]
            announcement, _ = outbox.emit(tx, *events)
            tx.execute(announcement)
    return True
