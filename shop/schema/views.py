"""Views and functions, as they are now: ``tools.migrate`` applies them after the migrations.

Their columns never change, so each can be replaced while functions read it.
"""

from __future__ import annotations

from sqlalchemy import Table

from shop.schema.age_limits import AGE_LIMITS
from shop.schema.partitions import outside_months, partition_statements, partitioned_tables
from shop.schema.personal_data import ERASED_AGAIN_AFTER, personal_data_statements
from shop.schema.tables import METADATA, DeletedAfter, deletions_of, partitions_of

# Days are closed oldest first, so the first posting after the last closed day is on the only day
# that can be due.  A function, since each of its executions is planned for the month of that day
# alone: a view that read the ledger itself would be planned for the partitions of all months.  It
# has the owner's rights, because the roles that read due_work need none on the ledger.
_OLDEST_OPEN_DAY = """
create or replace function shop.oldest_open_day(time_zone text) returns date
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
  begins timestamptz;
  day date;
begin
  select coalesce((max(s.day) + 1)::timestamp at time zone time_zone, '-infinity') into begins
    from shop.settlements s;
  execute 'select (min(l.posted_at) at time zone $1)::date from shop.ledger l '
    'where l.posted_at >= $2' into day using time_zone, begins;
  return day;
end $$
"""

# A function, so that the partitions of all months are opened only for an order with a dispute, and
# not whenever an order is locked.
_POSTINGS_OF = """
create or replace function shop.postings_of(of_order uuid, of_source uuid)
returns table (kind text, amount_minor bigint) language plpgsql stable rows 4 as $$
begin
  return query select l.kind, l.amount_minor from shop.ledger l
    where l.order_id = of_order and l.source_id = of_source;
end $$
"""

# Everything that has to happen without a request, but for the age limits, which also limit how long
# these rows may be due; an idle shop has no due row.
#
# Each branch reads the rows that are due by a partial index, or one end of an index by a scalar
# ``min`` or ``max``, which PostgreSQL turns into a look-up.  An aggregate with HAVING would read
# the whole index (269 ms instead of 2.5 ms at 1,000,000 orders, at every look).
_DUE_ROWS = """
create or replace view shop.due_rows (kind, id, due_at) as
  select 'outbox', event_id::text, next_try_at from shop.outbox
    where done_at is null and parked_at is null
  union all
  select 'charge', order_id::text, charge_at from shop.orders
    where status = 'PENDING' and charge_at is not null
  union all
  select 'payment', payment_id::text, next_try_at from shop.payments
    where status in ('INTENT', 'UNKNOWN', 'REQUIRES_ACTION')
  union all
  select 'refund', refund_id::text, next_try_at from shop.refunds
    where status in ('INTENT', 'UNKNOWN')
  union all
  select 'expire', o.order_id::text,
      case when p.payment_id is null then o.expires_at
        else greatest(o.hard_expires_at, case when p.action is not null then p.act_until end) end
    from shop.orders o
    left join shop.payments p on p.order_id = o.order_id
      and p.status in ('INTENT', 'UNKNOWN', 'REQUIRES_ACTION')
    where o.status = 'PENDING' and o.charge_at is null
  union all
  select 'finish', o.order_id::text, o.updated_at + interval '30 seconds' from shop.orders o
    where o.status = 'CANCELLING' and not exists (
      select from shop.payments p where p.order_id = o.order_id and (
        p.status in ('INTENT', 'UNKNOWN', 'REQUIRES_ACTION')
        or p.status = 'CAPTURED' and p.amount_minor > (
          select coalesce(sum(r.amount_minor), 0) from shop.refunds r
          where r.payment_id = p.payment_id and r.status = 'SUCCEEDED')))
  union all
  select 'close_day', d.day::text, ((d.day + 1)::timestamp at time zone z.name)
      + interval '2 minutes'
    from (select coalesce(nullif(current_setting('shop.business_time_zone', true), ''),
      'Asia/Seoul') as name) z
    cross join lateral (select shop.oldest_open_day(z.name) as day) d
    where d.day is not null
  union all
  select 'mail', event_id::text, next_try_at from shop.mails
    where status in ('PENDING', 'SENDING', 'UNKNOWN')
  union all
  select 'price', product_id::text, starts_at from shop.price_schedules where state = 'PLANNED'
  union all
  select 'price', product_id::text, ends_at from shop.price_schedules where state = 'ACTIVE'
  union all
  select 'reconcile', r.provider, least(r.next_run_at, interval '5 minutes' + (
      select min(p.created_at) from shop.payments p where p.created_at > r.ran_at))
    from shop.reconciliation r
  union all
  select 'webhook', w.webhook_id::text, greatest(w.next_run_at, d.next_try_at)
    from shop.webhooks w cross join lateral (
      select min(next_try_at) as next_try_at from shop.webhook_deliveries
      where webhook_id = w.webhook_id and state = 'PENDING') d
    where w.state = 'ACTIVE' and d.next_try_at is not null
"""

# A closed account's rows are erased again, once no order is open that was placed meanwhile: its
# lines may return to the cart.
_DUE_ERASURES = f"""
  union all
  select 'erase', u.user_id::text, u.closed_at + interval '{ERASED_AGAIN_AFTER}' from shop.users u
    where u.closed_at is not null and u.erased_at is null and not exists (select from shop.orders o
      where o.user_id = u.user_id and o.status in ('PENDING', 'CANCELLING'))
"""

# A partial index on the column is only used when the query says that it is not null.
_DUE_DELETIONS = """
  union all
  select 'retention', '{job}', oldest + {age} + interval '1 hour'
    from (select {oldest} as oldest) r
    where oldest is not null
"""
_OLDEST = "(select min({column}) from shop.{table} where {column} is not null)"

# An event that ran out of retries may have been consumed since, or by another of its deliveries.
_DUE_DEAD_LETTERS = """
  union all
  select 'dead_letter', d.dead_letter_id::text, greatest(d.received_at, o.done_at)
    from shop.dead_letters d cross join lateral (
      select e.done_at from shop.outbox e
      where e.event_id = case when d.event_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
          then d.event_id::uuid end
        and e.source = d.source and e.done_at is not null limit 1) o
    where d.replayed_at is null and d.dropped_at is null
"""

# Creates the months ahead, and drops the first month when its rows are past their retention.
_DUE_PARTITIONS = """
  union all
  select 'partitions', '{table}', least(create_at, drop_at) from shop.partitions_due('{table}')
"""


def _due_deletions() -> str:
    return "".join(
        _DUE_DELETIONS.format(job=rule.job, age=_age(table, rule), oldest=_oldest(table, rule))
        for table in METADATA.sorted_tables
        for rule in deletions_of(table)
    )


def _age(table: Table, rule: DeletedAfter) -> str:
    is_partitioned = partitions_of(table) is not None
    return f"interval '{rule.age}'" if is_partitioned else f"shop.retention('{rule.job}')"


def _oldest(table: Table, rule: DeletedAfter) -> str:
    """Rows in a month's partition are not deleted: the month is dropped."""
    names = [table.name] if partitions_of(table) is None else outside_months(table)
    oldest = (_OLDEST.format(column=rule.column, table=name) for name in names)
    return f"least({', '.join(oldest)})"


def _due_partitions() -> str:
    return "".join(_DUE_PARTITIONS.format(table=table.name) for table, _ in partitioned_tables())


# Every row that exceeds its age limit now.
_OVERDUE = """
  select '{alert_kind}', ({subject})::text, {since} from shop.{table} t
    where {is_open} and {since} <= now() - interval '{age}'
"""

# Two rows at most for each limit: the oldest row without an alert, when it will exceed the limit,
# and an alert whose row is done.  An alert is raised once: not again after an operator resolved it.
# The scalar subqueries are look-ups by an index, whatever PostgreSQL estimates.
_DUE_AGE_LIMIT = """
  union all
  select 'age_limit', '{alert_kind}', oldest.since + interval '{age}'
    from (select (select {since} from shop.{table} t
      where {is_open} and not coalesce((select true from shop.alarms a
        where a.kind = '{alert_kind}' and a.subject = ({subject})::text
          and (a.resolved_at is null or a.raised_at >= {since}) limit 1), false)
      order by {since} limit 1) as since) oldest
    where oldest.since is not null
  union all
  select 'age_limit', '{alert_kind}', a.raised_at from shop.alarms a
    where a.kind = '{alert_kind}' and a.resolved_at is null
      and not coalesce((select true from shop.{table} t where {subject} = a.subject::{key_type}
        and {is_open} and {since} <= now() - interval '{age}' limit 1), false)
"""


def _overdue() -> str:
    branches = (_OVERDUE.format(**vars(limit), alert_kind=limit.alert_kind) for limit in AGE_LIMITS)
    return "create or replace view shop.overdue (kind, subject, since) as" + "  union all".join(
        branches
    )


def _due_age_limits() -> str:
    return "".join(
        _DUE_AGE_LIMIT.format(**vars(limit), alert_kind=limit.alert_kind) for limit in AGE_LIMITS
    )


# Functions of the release before may still run: they know the table by its former name.
_FORMER_NAME = (
    "create or replace view shop.ghosts as "
    "select provider_key, amount_minor, currency, recorded_at from shop.unmatched_charges"
)

VIEWS = (
    *partition_statements(),
    *personal_data_statements(),
    _OLDEST_OPEN_DAY,
    _POSTINGS_OF,
    _DUE_ROWS + _DUE_ERASURES + _DUE_DEAD_LETTERS + _due_deletions() + _due_partitions(),
    _overdue(),
    "create or replace view shop.due_work (kind, id, due_at) as select kind, id, due_at "
    "from shop.due_rows" + _due_age_limits(),
    _FORMER_NAME,
)
