"""monthly partitions for the status history and the stock moves

As for outbox and inbox, no row is copied, and tables are locked for a moment only: each table
becomes the partition ``_other`` of a new one, once it is proven, while it is in use, to have no row
of the months that are partitioned from now on.  Functions of the version before use the new tables
as the old ones: no column is new.

Revision ID: 0022
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

MONTHS_AHEAD = 2
# Above every UUIDv7 until the year 2527.
END = "10000000-0000-0000-0000-000000000000"


class Change(NamedTuple):
    """A table that is to be partitioned by a UUIDv7.

    ``keys`` are its unique constraints by name, and ``old_keys`` those that they replace;
    ``{table}`` is the table or its partition ``_other``, whose constraints have a prefix.
    """

    table: str
    key: str
    comment: str
    keys: dict[str, tuple[str, str]]
    old_keys: tuple[str, ...]
    references: dict[str, str]
    indexes: dict[str, str]
    dropped_index: str | None


CHANGES = (
    Change(
        table="stock_moves",
        key="reservation_id",
        comment="writer: inventory; append only",
        keys={"one_move_per_reservation": ("unique", "reservation_id, kind")},
        old_keys=("stock_moves_pkey", "one_move_per_reservation"),
        references={
            "stock_moves_product_id_fkey": "(product_id) references shop.stock (product_id)",
            "stock_moves_reservation_id_fkey": "(reservation_id) references shop.reservations "
            "(reservation_id)",
        },
        indexes={"stock_moves_by_product": "product_id"},
        dropped_index=None,
    ),
    Change(
        table="transitions",
        key="order_id",
        comment="writer: transitions; append only",
        keys={
            "transitions_pkey": ("primary key", "order_id, seq"),
            "one_transition_per_event": ("unique", "order_id, event_id"),
        },
        old_keys=("transitions_pkey", "one_transition_per_event"),
        references={
            "transition_is_allowed": "(entity, from_status, to_status) references "
            "shop.allowed_transitions (entity, from_status, to_status)",
        },
        indexes={"transitions_by_entity": "entity_id, seq"},
        # its columns are the primary key
        dropped_index="transitions_by_order",
    ),
)

# Rights move: functions reach partitions through the partitioned table alone.
MOVE_RIGHTS = """
do $$ declare r record; begin
  for r in
    select a.grantee::regrole as role, a.privilege_type as privilege
    from pg_class c cross join lateral aclexplode(c.relacl) a
    where c.oid = 'shop.{table}_other'::regclass and a.grantee <> c.relowner and a.grantee <> 0
  loop
    execute format('grant %s on shop.{table} to %s', r.privilege, r.role);
    execute format('revoke %s on shop.{table}_other from %s', r.privilege, r.role);
  end loop;
end $$
"""
NEVER_EMPTIED = """
create trigger never_emptied before truncate on shop.{table}
  for each statement execute function shop.refuse_change()
"""


def upgrade() -> None:
    firsts = {change.table: _first_month(change) for change in CHANGES}
    with op.get_context().autocommit_block():
        op.execute("set lock_timeout = '2s'")
        for change in CHANGES:
            _prove(change, firsts[change.table])
            _build_keys(change)
        op.execute("reset lock_timeout")
    op.execute("set local lock_timeout = '2s'")
    op.execute("lock table shop.stock, shop.reservations in share row exclusive mode")
    op.execute("lock table shop.stock_moves, shop.transitions in access exclusive mode")
    for change in CHANGES:
        _replace_table(change)
        _create_months(change, firsts[change.table])


def _first_month(change: Change) -> datetime:
    """The present month for an empty table, otherwise the one after the next.

    Later if a function's clock was ahead, since no row may be of the months that are created.
    """
    last = (
        op.get_bind()
        .execute(
            sa.text(
                f"select {change.key} from shop.{change.table} "
                f"where {change.key} < '{END}' order by {change.key} desc limit 1"
            )
        )
        .scalar()
    )
    now = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    if last is None:
        return now
    last_time = datetime.fromtimestamp((UUID(str(last)).int >> 80) / 1000, UTC)
    return max(_after(_after(now)), _after(last_time))


def _after(time: datetime) -> datetime:
    """The first of the month after ``time``."""
    return datetime(time.year + time.month // 12, time.month % 12 + 1, 1, tzinfo=UTC)


def _first_id(month: datetime) -> str:
    return str(UUID(int=int(month.timestamp()) * 1000 << 80))


def _prove(change: Change, first: datetime) -> None:
    """Proves, without a lock that stops writes, that no row is of the months to be created.

    While it runs, rows of those months are rejected: they begin in a month's time or later.
    """
    table, key = f"shop.{change.table}", change.key
    condition = f"{key} is null or {key} < '{_first_id(first)}' or {key} >= '{END}'"
    op.execute(f"alter table {table} drop constraint if exists of_no_month")
    op.execute(f"alter table {table} add constraint of_no_month check ({condition}) not valid")
    op.execute(f"alter table {table} validate constraint of_no_month")


def _build_keys(change: Change) -> None:
    """Builds the unique indexes of the partition ``_other`` while the table is in use."""
    for name, (_, columns) in change.keys.items():
        index = f"{change.table}_other_{name}"
        # one of an interrupted migration
        op.execute(f"drop index concurrently if exists shop.{index}")
        op.execute(f"create unique index concurrently {index} on shop.{change.table} ({columns})")


def _replace_table(change: Change) -> None:
    """Puts a partitioned table in the place of the table, which becomes its default partition."""
    table = change.table
    other = f"shop.{table}_other"
    op.execute(f"alter table shop.{table} rename to {table}_other")
    for name in change.old_keys:
        op.execute(f"alter table {other} drop constraint {name}")
    if change.dropped_index is not None:
        op.execute(f"drop index shop.{change.dropped_index}")
    for name, (kind, _) in change.keys.items():
        index = f"{table}_other_{name}"
        op.execute(f"alter table {other} add constraint {index} {kind} using index {index}")
    for name in change.indexes:
        op.execute(f"alter index shop.{name} rename to {name}_other")
    op.execute("drop trigger append_only on " + other)
    next_seq = _take_identity(change)
    op.execute(
        f"create table shop.{table} (like {other} including defaults including constraints) "
        f"partition by range ({change.key})"
    )
    op.execute(f"alter table shop.{table} drop constraint of_no_month")
    op.execute(
        f"alter table shop.{table} "
        f"alter seq add generated always as identity (start with {next_seq})"
    )
    for name, (kind, columns) in change.keys.items():
        op.execute(f"alter table shop.{table} add constraint {name} {kind} ({columns})")
    for name, reference in change.references.items():
        op.execute(f"alter table shop.{table} add constraint {name} foreign key {reference}")
    for name, columns in change.indexes.items():
        op.execute(f"create index {name} on shop.{table} ({columns})")
    op.execute(f"comment on table shop.{table} is '{change.comment}'")
    op.execute(f"comment on table {other} is null")
    op.execute(MOVE_RIGHTS.format(table=table))


def _take_identity(change: Change) -> int:
    """Takes the table's sequence from it; returns the number that comes next."""
    sequence = f"shop.{change.table}_seq_seq"
    next_seq: int = (
        op.get_bind()
        .execute(sa.text(f"select last_value + is_called::int from {sequence}"))
        .scalar_one()
    )
    op.execute(f"alter table shop.{change.table}_other alter seq drop identity")
    return next_seq


def _create_months(change: Change, first: datetime) -> None:
    """Attaches the old table and the months; the constraint spares a scan under the lock."""
    table = change.table
    op.execute(
        f"create table shop.{table}_months "
        f"(like shop.{table} including defaults including constraints) "
        f"partition by range ({change.key})"
    )
    op.execute(f"alter table shop.{table} attach partition shop.{table}_other default")
    op.execute(
        f"alter table shop.{table} attach partition shop.{table}_months "
        f"for values from ('{_first_id(first)}') to ('{END}')"
    )
    op.execute(f"alter table shop.{table}_other drop constraint of_no_month")
    # triggers of rows are the partitioned table's; never_emptied, of statements, each partition's
    op.execute(
        f"create trigger append_only before update or delete on shop.{table} "
        "for each row execute function shop.refuse_change()"
    )
    op.execute(NEVER_EMPTIED.format(table=table))
    _create_partition(table, "without_month", "default")
    now, month = datetime.now(UTC), first
    last = now.year * 12 + now.month + MONTHS_AHEAD
    while month == first or month.year * 12 + month.month <= last:
        bounds = f"for values from ('{_first_id(month)}') to ('{_first_id(_after(month))}')"
        _create_partition(table, f"{month:%Y_%m}", bounds)
        month = _after(month)


def _create_partition(table: str, name: str, bounds: str) -> None:
    op.execute(f"create table shop.{table}_{name} partition of shop.{table}_months {bounds}")
    op.execute(NEVER_EMPTIED.format(table=f"{table}_{name}"))
