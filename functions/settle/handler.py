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
# Bounds a tick, which may take 60 s; what is left is due, so the next tick continues.
BATCHES_PER_TICK = 100


def close_days(context: EventContext) -> None:
    """Settles the postings of finished business days, oldest first, and closes each settled day.

    Stops at the first day that cannot be closed, since days are closed in order, and while another
    tick settles; a later tick continues.  An operator is alerted when settling a day fails.
    """
    time_zone = context.settings.business_time_zone
    for _ in range(BATCHES_PER_TICK):
        settled = context.attempt("close_day", partial(_settle_next_batch, context, time_zone))
        if isinstance(settled, Exception):
            _alert(context, settled, time_zone)
        if settled is not True:
            break


def _settle_next_batch(context: EventContext, time_zone: str) -> bool:
    """Settles one batch of the oldest open day's postings; False when there is none to settle.

    The batch that is the day's last closes the day and announces it.
    """
    with context.transaction() as tx:
        day = _day_to_settle(tx, time_zone)
        if day is None:
            return False
        _, closed = tx.pipeline(
            settlement.settle_batch(day, time_zone=time_zone),
            settlement.close_day(day, time_zone=time_zone),
        )
        if closed:
            tx.pipeline(*_announce(context, tx, day, [row.currency for row in closed]))
    return True


def _day_to_settle(tx: Transaction, time_zone: str) -> date | None:
    """The oldest open day if it is over and no other tick settles; the lock precedes every read."""
    (lock,), open_days = tx.pipeline(
        settlement.lock(), settlement.oldest_open_day(time_zone=time_zone)
    )
    if not lock.locked or not open_days:
        return None
    day = open_days[0].day
    is_over = tx.fetch_one(settlement.is_over(day, time_zone=time_zone))
    if is_over is None or not is_over.over:
        return None
    return day


def _alert(context: EventContext, failure: Exception, time_zone: str) -> None:
    with context.transaction() as tx:
        open_days = tx.fetch_all(settlement.oldest_open_day(time_zone=time_zone))
        for row in open_days:
            tx.execute(operator_alerts.about_failure(STUCK, str(row.day), failure))


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
