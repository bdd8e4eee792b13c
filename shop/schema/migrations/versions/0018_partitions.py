"""monthly partitions for outbox and inbox

No row is copied, and tables are locked for a moment only: each table becomes the partition
``_other`` of a new one, once it is proven, while it is in use, to have no row of the months that
are partitioned from now on.  Functions of the version before use the new tables as the old ones.

Revision ID: 0018
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

MONTHS_AHEAD = 2
# Above every UUIDv7 until the year 2527, and below the ids of a provider's webhooks.
END = "10000000-0000-0000-0000-000000000000"

OUTBOX_INDEXES = (
    "create index outbox_open on shop.outbox (next_try_at) "
    "where done_at is null and parked_at is null",
    "create index outbox_open_by_age on shop.outbox (created_at) "
    "where done_at is null and parked_at is null",
    "create index outbox_by_order on shop.outbox (order_id)",
    "create index outbox_done on shop.outbox (done_at) where done_at is not null",
    "create index outbox_quarantined on shop.outbox (parked_at) where parked_at is not null",
)
INBOX_INDEXES = ("create index inbox_by_age on shop.inbox (received_at)",)
NEVER_EMPTIED = """
create trigger never_emptied before truncate on shop.{table}
  for each statement execute function shop.refuse_change()
"""
# Triggers of rows are the partitioned table's; never_emptied, of statements, is each partition's.
INBOX_TRIGGERS = (
    "drop trigger append_only on shop.inbox_other",
    "drop trigger kept_for_60_days on shop.inbox_other",
    "create trigger append_only before update on shop.inbox "
    "for each row execute function shop.refuse_change()",
    "create trigger kept_for_60_days before delete on shop.inbox for each row "
    "when (old.received_at >= now() - interval '60 days') execute function shop.refuse_change()",
    NEVER_EMPTIED.format(table="inbox"),
)

# A table's indexes make room for those of the same name of the partitioned table.
RENAME_INDEXES = """
do $$ declare name text; begin
  for name in select indexrelid::regclass::text from pg_index
    where indrelid = 'shop.{table}_other'::regclass
  loop
    execute format('alter index %s rename to %I', name,
      replace(split_part(name, '.', 2), '{table}', '{table}_other'));
  end loop;
end $$
"""

# Rights and policies move: functions reach partitions through the partitioned table alone.
MOVE_RIGHTS = """
do $$ declare r record; begin
  for r in
    select a.grantee::regrole as role, a.privilege_type as privilege, '' as columns
    from pg_class c cross join lateral aclexplode(c.relacl) a
    where c.oid = 'shop.{table}_other'::regclass and a.grantee <> c.relowner and a.grantee <> 0
    union all
    select a.grantee::regrole, a.privilege_type, format('(%I)', t.attname)
    from pg_attribute t cross join lateral aclexplode(t.attacl) a
    where t.attrelid = 'shop.{table}_other'::regclass and a.grantee <> 0
  loop
    execute format('grant %s %s on shop.{table} to %s', r.privilege, r.columns, r.role);
    execute format('revoke %s %s on shop.{table}_other from %s', r.privilege, r.columns, r.role);
  end loop;
  for r in
    select policyname, cmd, array_to_string(roles, ', ') as roles, qual, with_check
    from pg_policies where schemaname = 'shop' and tablename = '{table}_other'
  loop
    execute format('create policy %I on shop.{table} for %s to %s', r.policyname, r.cmd, r.roles)
      || coalesce(' using (' || r.qual || ')', '')
      || coalesce(' with check (' || r.with_check || ')', '');
    execute format('drop policy %I on shop.{table}_other', r.policyname);
    execute 'alter table shop.{table} enable row level security, force row level security';
    execute 'alter table shop.{table}_other disable row level security, '
      'no force row level security';
  end loop;
end $$
"""


class Change(NamedTuple):
    """A table that is to be partitioned by ``event_id``, from a first month on."""

    table: str
    key_type: str
    primary_key: str
    comment: str
    indexes: tuple[str, ...]
    first: datetime


def upgrade() -> None:
    # in the order in which a consumer uses them
    changes = (
        Change(
            "inbox",
            "text",
            "consumer, source, event_id",
            "writer: inbox; append only",
            INBOX_INDEXES,
            _first_month("inbox", "text"),
        ),
        Change(
            "outbox",
            "uuid",
            "event_id",
            "writer: outbox",
            OUTBOX_INDEXES,
            _first_month("outbox", "uuid"),
        ),
    )
    with op.get_context().autocommit_block():
        op.execute("set lock_timeout = '2s'")
        for change in changes:
            _prove(change)
        op.execute("reset lock_timeout")
    op.execute("set local lock_timeout = '2s'")
    op.execute("lock table shop.inbox, shop.outbox in access exclusive mode")
    for change in changes:
        _replace_table(change)
    for statement in INBOX_TRIGGERS:
        op.execute(statement)
    for change in changes:
        _create_months(change)


def _first_month(table: str, key_type: str) -> datetime:
    """The present month for an empty table, otherwise the one after the next.

    Later if a function's clock was ahead, since no row may be of the months that are created.
    Raises ValueError if an id below ``END`` is no UUID.
    """
    last = (
        op.get_bind()
        .execute(
            sa.text(
                f"select event_id::text from shop.{table} "
                f"where event_id < '{END}'::{key_type} order by event_id desc limit 1"
            )
        )
        .scalar()
    )
    now = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    if last is None:
        return now
    last_time = datetime.fromtimestamp((UUID(last).int >> 80) / 1000, UTC)
    return max(_after(_after(now)), _after(last_time))


def _after(time: datetime) -> datetime:
    """The first of the month after ``time``."""
    return datetime(time.year + time.month // 12, time.month % 12 + 1, 1, tzinfo=UTC)


def _first_id(month: datetime) -> str:
    return str(UUID(int=int(month.timestamp()) * 1000 << 80))


def _prove(change: Change) -> None:
    """Proves, without a lock that stops writes, that no row is of the months to be created.

    While it runs, rows of those months are rejected: they begin in a month's time or later.
    """
    table = f"shop.{change.table}"
    condition = f"event_id < '{_first_id(change.first)}' or event_id >= '{END}'"
    op.execute(f"alter table {table} drop constraint if exists of_no_month")
    op.execute(f"alter table {table} add constraint of_no_month check ({condition}) not valid")
    op.execute(f"alter table {table} validate constraint of_no_month")


def _replace_table(change: Change) -> None:
    """Puts a partitioned table in the place of the table, which becomes its default partition."""
    table = change.table
    op.execute(f"alter table shop.{table} rename to {table}_other")
    op.execute(RENAME_INDEXES.format(table=table))
    op.execute(
        f"create table shop.{table} (like shop.{table}_other including defaults) "
        "partition by range (event_id)"
    )
    op.execute(f"alter table shop.{table} add primary key ({change.primary_key})")
    for index in change.indexes:
        op.execute(index)
    op.execute(f"comment on table shop.{table} is '{change.comment}'")
    op.execute(f"comment on table shop.{table}_other is null")
    op.execute(MOVE_RIGHTS.format(table=table))
    op.execute(
        f"create table shop.{table}_months (like shop.{table} including defaults) "
        "partition by range (event_id)"
    )


def _create_months(change: Change) -> None:
    """Attaches the old table and the months; the constraint spares a scan under the lock."""
    table = change.table
    op.execute(f"alter table shop.{table} attach partition shop.{table}_other default")
    op.execute(
        f"alter table shop.{table} attach partition shop.{table}_months "
        f"for values from ('{_first_id(change.first)}') to ('{END}')"
    )
    op.execute(f"alter table shop.{table}_other drop constraint of_no_month")
    _create_partition(change, "without_month", "default")
    now, month = datetime.now(UTC), change.first
    last = now.year * 12 + now.month + MONTHS_AHEAD
    while month == change.first or month.year * 12 + month.month <= last:
        bounds = f"for values from ('{_first_id(month)}') to ('{_first_id(_after(month))}')"
        _create_partition(change, f"{month:%Y_%m}", bounds)
        month = _after(month)


def _create_partition(change: Change, name: str, bounds: str) -> None:
    table = f"{change.table}_{name}"
    op.execute(f"create table shop.{table} partition of shop.{change.table}_months {bounds}")
    if change.table == "inbox":
        op.execute(NEVER_EMPTIED.format(table=table))
