"""Closes finished business days; repeated and concurrent runs have the same result as one."""

from __future__ import annotations

from datetime import date
from functools import partial
from typing import TYPE_CHECKING

from events.event import Currency
from events.settlements import SettlementClosed
from shop import operator_alerts, settlement
from shop.messaging import outbox

if TYPE_CHECKING:
    from shop.adapters.db import Transaction
    from shop.adapters.statements import Row, Statement
    from shop.runtime.event_context import EventContext

STUCK = "stuck_close_day"


def close_days(context: EventContext) -> None:
    """Closes every finished business day with unsettled postings, oldest first.

    Stops at the first day that cannot be closed, since days are closed in order; a later tick
    continues.  An operator is alerted unless that day is only not over yet.
    """
    time_zone = context.settings.business_time_zone
    with context.transaction() as tx:
        days = tx.fetch_all(settlement.open_days(time_zone=time_zone))
    for row in days:
        closed = context.attempt(
            f"close_day {row.day}", partial(_close, context, row.day, time_zone)
        )
        if isinstance(closed, Exception):
            with context.transaction() as tx:
                tx.execute(operator_alerts.about_failure(STUCK, str(row.day), closed))
        if closed is not True:
            break


def _close(context: EventContext, day: date, time_zone: str) -> bool:
    with context.transaction() as tx:
        is_over = tx.fetch_one(settlement.is_over(day, time_zone=time_zone))
        if is_over is None or not is_over.over:
            return False
        closed = tx.fetch_all(settlement.close_day(day, time_zone=time_zone))
        if closed:
            tx.pipeline(*_announce(context, tx, day, [row.currency for row in closed]))
    return True


def _announce(
    context: EventContext, tx: Transaction, day: date, currencies: list[str]
) -> list[Statement[Row]]:
    """The events of a closed day; a currency that no event can name is an operator alert."""
    events: list[SettlementClosed] = []
    alerts: list[Statement[Row]] = []
    for currency in currencies:
        event = context.attempt(
            f"announce {day} {currency}",
            partial(SettlementClosed, settlement_date=day, currency=Currency(currency)),
        )
        if isinstance(event, Exception):
            alerts.append(operator_alerts.about_failure(STUCK, f"{day} {currency}", event))
        else:
            events.append(event)
    return [*alerts, outbox.emit(tx, *events)[0]]
