"""Settlement: business days and months, derived from the ledger and from nothing else.

A day is closed once, oldest first, when nothing can be posted to it any more; a closed day never
changes, and what comes later falls on its own day.  Days that are open are read live.  The business
time zone says where a day begins; it is fixed for good by the first day that is closed.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any, LiteralString

from events.records import frozen

if TYPE_CHECKING:
    from shop.adapters.db import Transaction

DAYS_LISTED = 30
MONTHS_LISTED = 12
# how many days one tick closes: a shop that slept for a year wakes in a few ticks
DAYS_A_TICK = 100

# Days close in order, so nothing before the newest closed day is open.
OPEN_DAYS: LiteralString = """
with closed as (select max(day) as newest from shop.settlements)
select distinct (l.posted_at at time zone %(time_zone)s)::date as day
from shop.ledger l
where l.posted_at >= coalesce(
    (select newest::timestamp at time zone %(time_zone)s from closed), '-infinity')
  and l.posted_at < date_trunc('day', now() at time zone %(time_zone)s) at time zone %(time_zone)s
  and not exists (select from shop.settlement_lines s where s.seq = l.seq)
order by day
limit %(days)s
"""

# A transaction's now() is its begin, so only one that began before midnight can still post to the
# day.  Without the right to see other roles' transactions the answer is no, never a guess.
IS_OVER: LiteralString = """
with day as (
  select (%(day)s::date + 1)::timestamp at time zone %(time_zone)s as ends)
select now() >= day.ends + interval '2 minutes'
  and pg_has_role('pg_read_all_stats', 'usage')
  and not exists (select from pg_stat_activity a
    where a.backend_type = 'client backend' and a.datname = current_database()
      and (a.xact_start < day.ends or a.state = 'disabled')) as over
from day
"""

CLOSE: LiteralString = """
with posting as (
  select l.seq, l.kind, l.amount_minor, l.currency from shop.ledger l
  where l.posted_at >= %(day)s::date::timestamp at time zone %(time_zone)s
    and l.posted_at < (%(day)s::date + 1)::timestamp at time zone %(time_zone)s
    and not exists (select from shop.settlement_lines s where s.seq = l.seq)),
closed as (
  insert into shop.settlements (day, currency, captures_minor, refunds_minor, captures, n)
  select %(day)s::date, currency,
    coalesce(sum(amount_minor) filter (where kind = 'CAPTURE'), 0),
    coalesce(sum(amount_minor) filter (where kind = 'REFUND'), 0),
    count(*) filter (where kind = 'CAPTURE'),
    count(*)
  from posting group by currency
  on conflict do nothing
  returning day, currency),
line as (
  insert into shop.settlement_lines (seq, day, currency)
  select posting.seq, closed.day, closed.currency from posting join closed using (currency)
  order by posting.seq)
select currency from closed order by currency
"""

# Closed days as they were closed, open days from the ledger; today is there even when empty.
DAILY: LiteralString = """
with today as (select (now() at time zone %(time_zone)s)::date as day),
closed as (select max(day) as newest from shop.settlements),
live as (
  select (l.posted_at at time zone %(time_zone)s)::date as day, l.kind, l.amount_minor
  from shop.ledger l
  where l.currency = %(currency)s
    and l.posted_at >= coalesce((select newest::timestamp at time zone %(time_zone)s from closed),
      '-infinity')
    and l.posted_at >= coalesce(%(day)s::date::timestamp at time zone %(time_zone)s, '-infinity')
    and l.posted_at < coalesce((%(day)s::date + 1)::timestamp at time zone %(time_zone)s,
      'infinity')
    and not exists (select from shop.settlement_lines s where s.seq = l.seq)
  union all
  select day, null, 0 from today)
select day, captures_minor as captured, refunds_minor as refunded, captures as payments,
  n - captures as refunds, true as closed
from shop.settlements
where currency = %(currency)s and (%(day)s::date is null or day = %(day)s::date)
union all
select day, coalesce(sum(amount_minor) filter (where kind = 'CAPTURE'), 0)::bigint,
  coalesce(sum(amount_minor) filter (where kind = 'REFUND'), 0)::bigint,
  count(*) filter (where kind = 'CAPTURE'), count(*) filter (where kind = 'REFUND'), false
from live
where %(day)s::date is null or day = %(day)s::date
group by day
order by day desc
limit %(days)s
"""

# A month is closed when it is over and all its days with postings are.
MONTHLY: LiteralString = """
with today as (select (now() at time zone %(time_zone)s)::date as day),
closed as (select max(day) as newest from shop.settlements),
live as (
  select (l.posted_at at time zone %(time_zone)s)::date as day, l.kind, l.amount_minor
  from shop.ledger l
  where l.currency = %(currency)s
    and l.posted_at >= coalesce((select newest::timestamp at time zone %(time_zone)s from closed),
      '-infinity')
    and not exists (select from shop.settlement_lines s where s.seq = l.seq)
  union all
  select day, null, 0 from today),
day as (
  select day, captures_minor as captured, refunds_minor as refunded, captures as payments,
    n - captures as refunds, true as closed
  from shop.settlements where currency = %(currency)s
  union all
  select day, coalesce(sum(amount_minor) filter (where kind = 'CAPTURE'), 0),
    coalesce(sum(amount_minor) filter (where kind = 'REFUND'), 0),
    count(*) filter (where kind = 'CAPTURE'), count(*) filter (where kind = 'REFUND'), false
  from live group by day)
select to_char(day, 'YYYY-MM') as month, sum(captured)::bigint as captured,
  sum(refunded)::bigint as refunded, sum(payments)::bigint as payments,
  sum(refunds)::bigint as refunds,
  bool_and(closed) and now() >= interval '2 minutes' +
    ((date_trunc('month', min(day)) + interval '1 month') at time zone %(time_zone)s) as closed
from day
where %(month)s::text is null or (day >= to_date(%(month)s::text, 'YYYY-MM')
  and day < to_date(%(month)s::text, 'YYYY-MM') + interval '1 month')
group by month
order by month desc
limit %(months)s
"""


@frozen
class Settlement:
    """The figures of one day (``2026-02-01``) or month (``2026-02``), in minor units."""

    period: str
    captured_minor: int
    refunded_minor: int
    payments: int
    refunds: int
    currency: str
    closed: bool

    @property
    def total_minor(self) -> int:
        """What the shop keeps: captures less refunds; negative when more went back than came in."""
        return self.captured_minor - self.refunded_minor


def open_days(tx: Transaction, *, time_zone: str) -> list[date]:
    """Business days before today with postings that no settlement holds, oldest first."""
    return [row.day for row in tx.all(OPEN_DAYS, time_zone=time_zone, days=DAYS_A_TICK)]


def close_day(tx: Transaction, day: date, *, time_zone: str) -> list[str] | None:
    """Closes ``day`` in every currency it has postings in and returns those currencies.

    None when it cannot be closed yet: it ended less than 2 minutes ago, or a transaction that began
    before its end still runs.  An empty list when another run closed it.  Two round trips, and two
    they must be: the postings have to be read by a later snapshot than the one of the question.
    """
    answer = tx.one(IS_OVER, day=day, time_zone=time_zone)
    if answer is None or not answer.over:
        return None
    return [row.currency for row in tx.all(CLOSE, day=day, time_zone=time_zone)]


def daily(tx: Transaction, *, day: date | None, time_zone: str, currency: str) -> list[Settlement]:
    """The settlement of ``day`` (none or one), or of the newest 30 days; one round trip."""
    rows = tx.all(DAILY, day=day, time_zone=time_zone, currency=currency, days=DAYS_LISTED)
    return [_settlement(row.day.isoformat(), row, currency) for row in rows]


def monthly(
    tx: Transaction, *, month: str | None, time_zone: str, currency: str
) -> list[Settlement]:
    """The settlement of ``month`` (``yyyy-MM``; none or one), or the newest 12; one round trip."""
    rows = tx.all(
        MONTHLY, month=month, time_zone=time_zone, currency=currency, months=MONTHS_LISTED
    )
    return [_settlement(row.month, row, currency) for row in rows]


def _settlement(period: str, row: Any, currency: str) -> Settlement:
    return Settlement(
        period=period,
        captured_minor=row.captured,
        refunded_minor=row.refunded,
        payments=row.payments,
        refunds=row.refunds,
        currency=currency,
        closed=row.closed,
    )
