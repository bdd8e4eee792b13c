"""Settlement: business days and months, derived from the ledger alone.

A day is closed once, oldest first, when nothing can be posted to it any more; a closed day never
changes, and later postings belong to a later day.  A refund that the provider reversed is deducted
from the refunds of the day of the reversal; money that is written off stays captured.  Open days
are computed from the ledger when they are read.  The business time zone determines when a day
begins; it is fixed by the first closed day.
"""

from __future__ import annotations

from datetime import date

from shop.adapters.statements import Query, Row, Statement

DAYS_LISTED = 30
MONTHS_LISTED = 12
# bounds a tick; after a year without ticks, four of them close everything
DAYS_PER_TICK = 100


class OpenDay(Row):
    """A day with postings that are in no settlement."""

    day: date


class DayIsOver(Row):
    """Whether nothing can be posted to a day any more."""

    over: bool


class ClosedCurrency(Row):
    """A currency in which a day was closed."""

    currency: str


class _Totals(Row):
    captured: int
    refunded: int
    payments: int
    refunds: int
    closed: bool

    @property
    def total_minor(self) -> int:
        """Captures less refunds; negative when more was refunded than captured."""
        return self.captured - self.refunded


class DaySettlement(_Totals):
    """The totals of one day."""

    day: date


class MonthSettlement(_Totals):
    """The totals of one month (``2026-02``)."""

    month: str


# Days close in order, so nothing before the newest closed day is open.
OPEN_DAYS = Query(
    OpenDay,
    """
with closed as (select max(day) as newest from shop.settlements)
select distinct (l.posted_at at time zone %(time_zone)s)::date as day
from shop.ledger l
where l.posted_at >= coalesce(
    (select newest::timestamp at time zone %(time_zone)s from closed), '-infinity')
  and l.posted_at < date_trunc('day', now() at time zone %(time_zone)s) at time zone %(time_zone)s
  and not exists (select from shop.settlement_lines s where s.seq = l.seq)
order by day
limit %(days)s
""",
)

# A transaction's now() is the time it began, so only one that began before midnight can still post
# to the day.  Without the right to see other roles' transactions the result is false.
IS_OVER = Query(
    DayIsOver,
    """
with day as (
  select (%(day)s::date + 1)::timestamp at time zone %(time_zone)s as ends)
select now() >= day.ends + interval '2 minutes'
  and pg_has_role('pg_read_all_stats', 'usage')
  and not exists (select from pg_stat_activity a
    where a.backend_type = 'client backend' and a.datname = current_database()
      and (a.xact_start < day.ends or a.state = 'disabled')) as over
from day
""",
)

CLOSE = Query(
    ClosedCurrency,
    """
with posting as (
  select l.seq, l.kind, l.amount_minor, l.currency from shop.ledger l
  where l.posted_at >= %(day)s::date::timestamp at time zone %(time_zone)s
    and l.posted_at < (%(day)s::date + 1)::timestamp at time zone %(time_zone)s
    and not exists (select from shop.settlement_lines s where s.seq = l.seq)),
closed as (
  insert into shop.settlements (day, currency, captures_minor, refunds_minor, captures, n)
  select %(day)s::date, currency,
    coalesce(sum(amount_minor) filter (where kind = 'CAPTURE'), 0),
    coalesce(sum(case kind when 'REFUND_REVERSED' then -amount_minor else amount_minor end)
      filter (where kind not in ('CAPTURE', 'WRITE_OFF')), 0),
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
""",
)

# Closed days as they were closed, open days from the ledger; today is included even when empty.
DAILY = Query(
    DaySettlement,
    """
with today as (select (now() at time zone %(time_zone)s)::date as day),
closed as (select max(day) as newest from shop.settlements),
unsettled as (
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
select captures_minor as captured, refunds_minor as refunded, captures as payments,
  n - captures as refunds, true as closed, day
from shop.settlements
where currency = %(currency)s and (%(day)s::date is null or day = %(day)s::date)
union all
select coalesce(sum(amount_minor) filter (where kind = 'CAPTURE'), 0)::bigint,
  coalesce(sum(case kind when 'REFUND_REVERSED' then -amount_minor else amount_minor end)
      filter (where kind not in ('CAPTURE', 'WRITE_OFF')), 0)::bigint,
  count(*) filter (where kind = 'CAPTURE'), count(*) filter (where kind <> 'CAPTURE'), false, day
from unsettled
where %(day)s::date is null or day = %(day)s::date
group by day
order by day desc
limit %(days)s
""",
)

# A month is closed when it is over and all its days with postings are.
MONTHLY = Query(
    MonthSettlement,
    """
with today as (select (now() at time zone %(time_zone)s)::date as day),
closed as (select max(day) as newest from shop.settlements),
unsettled as (
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
    coalesce(sum(case kind when 'REFUND_REVERSED' then -amount_minor else amount_minor end)
      filter (where kind not in ('CAPTURE', 'WRITE_OFF')), 0),
    count(*) filter (where kind = 'CAPTURE'), count(*) filter (where kind <> 'CAPTURE'), false
  from unsettled group by day)
select sum(captured)::bigint as captured, sum(refunded)::bigint as refunded,
  sum(payments)::bigint as payments, sum(refunds)::bigint as refunds,
  bool_and(closed) and now() >= interval '2 minutes' +
    ((date_trunc('month', min(day)) + interval '1 month') at time zone %(time_zone)s) as closed,
  to_char(day, 'YYYY-MM') as month
from day
where %(month)s::text is null or (day >= to_date(%(month)s::text, 'YYYY-MM')
  and day < to_date(%(month)s::text, 'YYYY-MM') + interval '1 month')
group by month
order by month desc
limit %(months)s
""",
)


def open_days(*, time_zone: str) -> Statement[OpenDay]:
    """Business days before today with postings that are in no settlement, oldest first."""
    return OPEN_DAYS(time_zone=time_zone, days=DAYS_PER_TICK)


def is_over(day: date, *, time_zone: str) -> Statement[DayIsOver]:
    """Whether ``day`` ended 2 or more minutes ago and no open transaction began before its end."""
    return IS_OVER(day=day, time_zone=time_zone)


def close_day(day: date, *, time_zone: str) -> Statement[ClosedCurrency]:
    """Closes ``day`` in every currency with postings; no row when it is closed already.

    Send it after ``is_over`` in a pipeline of its own: the postings have to be read by a later
    snapshot than the one that found the day to be over.
    """
    return CLOSE(day=day, time_zone=time_zone)


def daily(*, day: date | None, time_zone: str, currency: str) -> Statement[DaySettlement]:
    """The settlement of ``day`` (none or one), or of the newest 30 days."""
    return DAILY(day=day, time_zone=time_zone, currency=currency, days=DAYS_LISTED)


def monthly(*, month: str | None, time_zone: str, currency: str) -> Statement[MonthSettlement]:
    """The settlement of ``month`` (``yyyy-MM``; none or one), or of the newest 12 months."""
    return MONTHLY(month=month, time_zone=time_zone, currency=currency, months=MONTHS_LISTED)
