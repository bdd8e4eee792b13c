"""Settlement: business days and months, derived from the ledger alone.

A day is closed once, oldest first, when nothing can be posted to it any more; a closed day never
changes, and later postings belong to a later day.  A refund that the provider reversed is deducted
from the refunds of the day of the reversal; money that is written off stays captured.

A day's postings are settled in batches, each in a transaction of its own that also writes the
batch's sums and where it ends; the day is closed with the sums of its batches in the transaction of
the last one.  Until then readers see it open.  Open days are computed from the ledger when they are
read.  The business time zone determines when a day begins; it is fixed by the first closed day.
"""

from __future__ import annotations

from datetime import date, timedelta

from events.records import frozen
from shop.adapters.statements import Query, Row, Statement

# a batch takes about 0.3 s; the role's statements may take 3 s
BATCH_POSTINGS = 10_000
SETTLE_LOCK = 7_203_116


@frozen
class Period:
    """Business days from the first to the last; None: without a limit."""

    first: date | None = None
    last: date | None = None


def day_of(day: date) -> Period:
    """One day."""
    return Period(day, day)


def month_of(month: str) -> Period:
    """The days of a month such as ``2026-02``."""
    first = date.fromisoformat(f"{month}-01")
    return Period(first, (first + timedelta(days=31)).replace(day=1) - timedelta(days=1))


def year_of(year: int) -> Period:
    """The days of a year."""
    return Period(date(year, 1, 1), date(year, 12, 31))


class OpenDay(Row):
    """A day with postings that are in no settlement."""

    day: date


class Locked(Row):
    """Whether this transaction is the only one that settles."""

    locked: bool


class DayIsOver(Row):
    """Whether nothing can be posted to a day any more."""

    over: bool


class SettledBatch(Row):
    """How many postings a batch settled."""

    postings: int


class ClosedCurrency(Row):
    """A currency in which a day was closed."""

    currency: str


class _Totals(Row):
    captured: int
    refunded: int
    payments: int
    refunds: int
    closed: bool
    currency: str

    @property
    def total_minor(self) -> int:
        """Captures less refunds; negative when more was refunded than captured."""
        return self.captured - self.refunded


class DaySettlement(_Totals):
    """The totals of one day in one currency."""

    day: date


class MonthSettlement(_Totals):
    """The totals of one month (``2026-02``) in one currency."""

    month: str


# Released at the end of the transaction; of concurrent ticks, one settles a batch.
LOCK = Query(
    Locked,
    """
select pg_try_advisory_xact_lock(%(lock)s::bigint) as locked
""",
)

# Days close in order, so the first posting after the newest closed day is on the oldest open day.
OLDEST_OPEN_DAY = Query(
    OpenDay,
    """
select (l.posted_at at time zone %(time_zone)s)::date as day from (
  select min(l.posted_at) as posted_at from shop.ledger l
  where l.posted_at >= coalesce((select (max(s.day) + 1)::timestamp at time zone %(time_zone)s
      from shop.settlements s), '-infinity')
  and l.posted_at < date_trunc('day', now() at time zone %(time_zone)s) at time zone %(time_zone)s
) l where l.posted_at is not null
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

# The postings after the day's newest batch.  Postings have equal times, so a batch ends at a time
# and a seq.
SETTLE_BATCH = Query(
    SettledBatch,
    """
with newest as (
  select batch, last_posted_at, last_seq from shop.settlement_batches
  where day = %(day)s::date order by batch desc limit 1),
posting as (
  select l.seq, l.kind, l.amount_minor, l.currency, l.posted_at from shop.ledger l
  where l.posted_at >= %(day)s::date::timestamp at time zone %(time_zone)s
    and l.posted_at < (%(day)s::date + 1)::timestamp at time zone %(time_zone)s
    and (l.posted_at, l.seq) > (coalesce((select last_posted_at from newest), '-infinity'),
      coalesce((select last_seq from newest), 0))
  order by l.posted_at, l.seq limit %(postings)s::bigint),
last as (
  select posted_at, seq from posting order by posted_at desc, seq desc limit 1),
batch as (
  insert into shop.settlement_batches (day, batch, currency, captures_minor, refunds_minor,
    captures, n, last_posted_at, last_seq)
  select %(day)s::date, coalesce((select batch from newest), 0) + 1, p.currency,
    coalesce(sum(p.amount_minor) filter (where p.kind = 'CAPTURE'), 0),
    coalesce(sum(case when p.kind in ('REFUND_REVERSED', 'DISPUTE_REVERSAL', 'DISPUTE_FEE_REVERSAL')
      then -p.amount_minor else p.amount_minor end)
      filter (where p.kind not in ('CAPTURE', 'WRITE_OFF')), 0),
    count(*) filter (where p.kind = 'CAPTURE'), count(*), min(last.posted_at), min(last.seq)
  from posting p cross join last group by p.currency),
line as (
  insert into shop.settlement_lines (seq, day, currency)
  select seq, %(day)s::date, currency from posting order by seq)
select count(*) as postings from posting
""",
)

# No row while the day has postings after its newest batch.  A comparison of rows alone selects no
# partition.
CLOSE = Query(
    ClosedCurrency,
    """
with newest as (
  select last_posted_at, last_seq from shop.settlement_batches
  where day = %(day)s::date order by batch desc limit 1),
closed as (
  insert into shop.settlements (day, currency, captures_minor, refunds_minor, captures, n)
  select b.day, b.currency, sum(b.captures_minor), sum(b.refunds_minor), sum(b.captures), sum(b.n)
  from shop.settlement_batches b
  where b.day = %(day)s::date and (select l.seq from shop.ledger l
    where l.posted_at < (%(day)s::date + 1)::timestamp at time zone %(time_zone)s
      and l.posted_at >= (select last_posted_at from newest)
      and (l.posted_at, l.seq) >
        ((select last_posted_at from newest), (select last_seq from newest))
    order by l.posted_at limit 1) is null
  group by b.day, b.currency
  on conflict do nothing
  returning currency)
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
  select (l.posted_at at time zone %(time_zone)s)::date as day, l.currency, l.kind, l.amount_minor
  from shop.ledger l
  where (%(currency)s::text is null or l.currency = %(currency)s)
    and l.posted_at >= greatest(
      (select (newest + 1)::timestamp at time zone %(time_zone)s from closed),
      %(first_day)s::date::timestamp at time zone %(time_zone)s, '-infinity')
    and l.posted_at < coalesce((%(last_day)s::date + 1)::timestamp at time zone %(time_zone)s,
      'infinity')
  union all
  select day, coalesce(%(currency)s, %(default_currency)s), null, 0 from today
  where day >= coalesce(%(first_day)s::date, '-infinity')
    and day <= coalesce(%(last_day)s::date, 'infinity'))
select captures_minor as captured, refunds_minor as refunded, captures as payments,
  n - captures as refunds, true as closed, currency, day
from shop.settlements
where (%(currency)s::text is null or currency = %(currency)s)
  and day >= coalesce(%(first_day)s::date, '-infinity')
  and day <= coalesce(%(last_day)s::date, 'infinity')
union all
select coalesce(sum(amount_minor) filter (where kind = 'CAPTURE'), 0)::bigint,
  coalesce(sum(case when kind in ('REFUND_REVERSED', 'DISPUTE_REVERSAL', 'DISPUTE_FEE_REVERSAL')
      then -amount_minor else amount_minor end)
      filter (where kind not in ('CAPTURE', 'WRITE_OFF')), 0)::bigint,
  count(*) filter (where kind = 'CAPTURE'), count(*) filter (where kind <> 'CAPTURE'), false,
  currency, day
from unsettled
group by day, currency
order by day desc, currency
limit %(rows)s
""",
)

# A month is closed when it is over and all its days with postings are.
MONTHLY = Query(
    MonthSettlement,
    """
with today as (select (now() at time zone %(time_zone)s)::date as day),
closed as (select max(day) as newest from shop.settlements),
unsettled as (
  select (l.posted_at at time zone %(time_zone)s)::date as day, l.currency, l.kind, l.amount_minor
  from shop.ledger l
  where (%(currency)s::text is null or l.currency = %(currency)s)
    and l.posted_at >= coalesce(
      (select (newest + 1)::timestamp at time zone %(time_zone)s from closed), '-infinity')
  union all
  select day, coalesce(%(currency)s, %(default_currency)s), null, 0 from today),
day as (
  select day, currency, captures_minor as captured, refunds_minor as refunded, captures as payments,
    n - captures as refunds, true as closed
  from shop.settlements where %(currency)s::text is null or currency = %(currency)s
  union all
  select day, currency, coalesce(sum(amount_minor) filter (where kind = 'CAPTURE'), 0),
    coalesce(sum(case when kind in ('REFUND_REVERSED', 'DISPUTE_REVERSAL', 'DISPUTE_FEE_REVERSAL')
      then -amount_minor else amount_minor end)
      filter (where kind not in ('CAPTURE', 'WRITE_OFF')), 0),
    count(*) filter (where kind = 'CAPTURE'), count(*) filter (where kind <> 'CAPTURE'), false
  from unsettled group by day, currency)
select sum(captured)::bigint as captured, sum(refunded)::bigint as refunded,
  sum(payments)::bigint as payments, sum(refunds)::bigint as refunds,
  bool_and(closed) and now() >= interval '2 minutes' +
    ((date_trunc('month', min(day)) + interval '1 month') at time zone %(time_zone)s) as closed,
  currency, to_char(day, 'YYYY-MM') as month
from day
where day >= coalesce(%(first_day)s::date, '-infinity')
  and day <= coalesce(%(last_day)s::date, 'infinity')
group by month, currency
order by month desc, currency
limit %(rows)s
""",
)


def lock() -> Statement[Locked]:
    """Makes this transaction the only one that settles, or returns false at once."""
    return LOCK(lock=SETTLE_LOCK)


def oldest_open_day(*, time_zone: str) -> Statement[OpenDay]:
    """The oldest business day before today that has postings and is not closed, if there is one."""
    return OLDEST_OPEN_DAY(time_zone=time_zone)


def is_over(day: date, *, time_zone: str) -> Statement[DayIsOver]:
    """Whether ``day`` ended 2 or more minutes ago and no open transaction began before its end."""
    return IS_OVER(day=day, time_zone=time_zone)


def settle_batch(day: date, *, time_zone: str) -> Statement[SettledBatch]:
    """Settles the next postings of ``day``, the oldest open one, and records their sums.

    Send it under ``lock`` and after ``is_over`` in a pipeline of its own: the postings have to be
    read by a later snapshot than the one that found the day to be over.
    """
    return SETTLE_BATCH(day=day, time_zone=time_zone, postings=BATCH_POSTINGS)


def close_day(day: date, *, time_zone: str) -> Statement[ClosedCurrency]:
    """Closes ``day`` in every currency with postings, once all of them are settled.

    Send it after ``settle_batch``; no row when postings are left or the day is closed already.
    """
    return CLOSE(day=day, time_zone=time_zone)


def daily(
    *, period: Period, time_zone: str, currency: str | None, default_currency: str, rows: int
) -> Statement[DaySettlement]:
    """The settlements of the days of a period, newest first, ``rows`` at most.

    One row for each currency, or only that of ``currency``; today has a row in
    ``default_currency`` even without postings.
    """
    return DAILY(
        first_day=period.first,
        last_day=period.last,
        time_zone=time_zone,
        currency=currency,
        default_currency=default_currency,
        rows=rows,
    )


def monthly(
    *, period: Period, time_zone: str, currency: str | None, default_currency: str, rows: int
) -> Statement[MonthSettlement]:
    """The settlements of the months of a period of whole months, newest first, ``rows`` at most.

    Currencies as in ``daily``.
    """
    return MONTHLY(
        first_day=period.first,
        last_day=period.last,
        time_zone=time_zone,
        currency=currency,
        default_currency=default_currency,
        rows=rows,
    )
