"""monthly partitions for the ledger

A unique key of a partitioned table contains the partition key, here ``posted_at``.  What is unique
among all postings, and what settlement lines refer to, therefore becomes a table of its own, which
the trigger of the ledger writes in the same statement.  It is filled in batches while the ledger is
in use.  Then the ledger becomes the partition ``_other`` of a new one, as the tables of 0018 and
0022 did: no posting is copied, and tables are locked for a moment only.  Functions of the version
before post and settle as before: they name no column that is new or gone.

Revision ID: 0032
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from shop.schema.triggers_and_views import APPEND_ONLY_TRIGGER

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None

MONTHS_AHEAD = 2
KEYS_FILLED = 20_000
# the ledger's own indexes of these constraints, until it is a partition
OLD_KEYS = ("one_posting_per_source", "one_link_per_place")

KEYS = """
create table shop.ledger_keys (
  seq bigint primary key,
  kind text not null,
  source_id uuid not null,
  chain smallint not null,
  chain_seq bigint not null,
  constraint one_posting_per_source unique (kind, source_id),
  constraint one_link_per_place unique (chain, chain_seq)
)
"""

# As in 0001, but for two things.  The partition is chosen before the trigger runs, so a time that
# an insert gives is not overwritten but rejected.  And the posting's keys are written with it.
CHAIN_POSTING = """
create or replace function shop.chain_posting() returns trigger
language plpgsql security definer set search_path = pg_catalog as $$
declare head record;
begin
  if new.posted_at is distinct from now() then
    raise exception 'posted_at is the time of the transaction'
      using errcode = 'check_violation', schema = 'shop', table = 'ledger', column = 'posted_at';
  end if;
  new.chain := get_byte(uuid_send(new.order_id), 15) % 16;
  select chain_seq, hash into strict head
    from shop.ledger_chains where chain = new.chain for update;
  new.chain_seq := head.chain_seq + 1;
  new.prev_hash := head.hash;
  new.hash := sha256(new.prev_hash || convert_to(concat_ws('|',
    new.chain, new.chain_seq, new.seq, new.kind, new.source_id, new.order_id, new.debit,
    new.credit, new.amount_minor, new.currency,
    (extract(epoch from new.posted_at) * 1000000)::bigint), 'UTF8'));
  insert into shop.ledger_keys (seq, kind, source_id, chain, chain_seq)
    values (new.seq, new.kind, new.source_id, new.chain, new.chain_seq);
  update shop.ledger_chains
    set chain_seq = new.chain_seq, hash = new.hash where chain = new.chain;
  return new;
end $$
"""

# A posting of a transaction that began with the trigger of before has no keys.  Once this lock was
# granted, all such transactions have ended.
WAIT_FOR_POSTINGS = "do $$ begin lock table shop.ledger in share mode; end $$"

FILL_KEYS = """
insert into shop.ledger_keys (seq, kind, source_id, chain, chain_seq)
select seq, kind, source_id, chain, chain_seq from shop.ledger
where seq > {after} and seq <= {last} order by seq
on conflict do nothing
"""

LINES_REFER_TO_KEYS = (
    "alter table shop.settlement_lines drop constraint if exists line_has_keys",
    "alter table shop.settlement_lines add constraint line_has_keys "
    "foreign key (seq) references shop.ledger_keys (seq) not valid",
    "alter table shop.settlement_lines validate constraint line_has_keys",
)

# The new primary key has the order of ledger_by_time.
REPLACE_TABLE = (
    "alter table shop.settlement_lines drop constraint settlement_lines_seq_fkey",
    "alter table shop.settlement_lines "
    "rename constraint line_has_keys to settlement_lines_seq_fkey",
    "alter table shop.ledger rename to ledger_other",
    "alter table shop.ledger_other drop constraint ledger_pkey",
    *(f"alter table shop.ledger_other drop constraint ledger_other_{name}" for name in OLD_KEYS),
    "drop index shop.ledger_by_time",
    "alter table shop.ledger_other "
    "add constraint ledger_other_pkey primary key using index ledger_other_pkey",
    "alter index shop.ledger_by_order rename to ledger_by_order_other",
    "drop trigger append_only on shop.ledger_other",
    "drop trigger chain_posting on shop.ledger_other",
    "alter table shop.ledger_other alter seq drop identity",
    "create table shop.ledger (like shop.ledger_other including defaults including constraints) "
    "partition by range (posted_at)",
    "alter table shop.ledger drop constraint of_no_month",
    "alter table shop.ledger alter seq add generated always as identity (start with {next_seq})",
    "alter table shop.ledger add primary key (posted_at, seq)",
    "alter table shop.ledger add constraint ledger_order_id_fkey "
    "foreign key (order_id) references shop.orders (order_id)",
    "create index ledger_by_order on shop.ledger (order_id)",
    "comment on table shop.ledger is 'writer: ledger; append only; chained by trigger'",
    "comment on table shop.ledger_other is null",
)

# Rights move: functions reach partitions through the partitioned table alone.
MOVE_RIGHTS = """
do $$ declare r record; begin
  for r in
    select a.grantee::regrole as role, a.privilege_type as privilege
    from pg_class c cross join lateral aclexplode(c.relacl) a
    where c.oid = 'shop.ledger_other'::regclass and a.grantee <> c.relowner and a.grantee <> 0
  loop
    execute format('grant %s on shop.ledger to %s', r.privilege, r.role);
    execute format('revoke %s on shop.ledger_other from %s', r.privilege, r.role);
  end loop;
end $$
"""

# Triggers of rows are the partitioned table's; never_emptied, of statements, each partition's.
TRIGGERS = (
    "create trigger append_only before update or delete on shop.ledger "
    "for each row execute function shop.refuse_change()",
    "create trigger chain_posting before insert on shop.ledger "
    "for each row execute function shop.chain_posting()",
)
NEVER_EMPTIED = """
create trigger never_emptied before truncate on shop.{table}
  for each statement execute function shop.refuse_change()
"""


def upgrade() -> None:
    op.execute("set local lock_timeout = '2s'")
    _create_keys()
    op.execute(CHAIN_POSTING)
    with op.get_context().autocommit_block():
        op.execute("set lock_timeout = '2s'")
        op.execute(WAIT_FOR_POSTINGS)
        _fill_keys()
        for statement in LINES_REFER_TO_KEYS:
            op.execute(statement)
        first = _first_month()
        _prove(first)
        # one of an interrupted migration
        op.execute("drop index concurrently if exists shop.ledger_other_pkey")
        op.execute(
            "create unique index concurrently ledger_other_pkey on shop.ledger (posted_at, seq)"
        )
        op.execute("reset lock_timeout")
    op.execute("set local lock_timeout = '2s'")
    op.execute("lock table shop.orders in share row exclusive mode")
    op.execute(
        "lock table shop.settlement_lines, shop.ledger, shop.ledger_keys in access exclusive mode"
    )
    _replace_table()
    _create_months(first)


def _create_keys() -> None:
    if _scalar("select to_regclass('shop.ledger_keys')") is not None:
        return  # by an interrupted migration
    for name in OLD_KEYS:
        op.execute(f"alter index shop.{name} rename to ledger_other_{name}")
    op.execute(KEYS)
    op.execute("comment on table shop.ledger_keys is 'writer: the trigger on ledger; append only'")
    op.execute(APPEND_ONLY_TRIGGER.format(table="ledger_keys"))


def _scalar(statement: str) -> object:
    return op.get_bind().execute(sa.text(statement)).scalar()


def _fill_keys() -> None:
    last = _scalar("select coalesce(max(seq), 0) from shop.ledger")
    assert isinstance(last, int)
    for after in range(0, last, KEYS_FILLED):
        op.execute(FILL_KEYS.format(after=after, last=min(after + KEYS_FILLED, last)))


def _first_month() -> datetime:
    """The present month for an empty ledger, otherwise the one after the next.

    Later if the database's clock was ahead, since no posting may be of the months that are created.
    """
    last = _scalar("select max(posted_at) from shop.ledger")
    now = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    if last is None:
        return now
    assert isinstance(last, datetime)
    return max(_after(_after(now)), _after(last.astimezone(UTC)))


def _after(time: datetime) -> datetime:
    """The first of the month after ``time``."""
    return datetime(time.year + time.month // 12, time.month % 12 + 1, 1, tzinfo=UTC)


def _prove(first: datetime) -> None:
    """Proves, without a lock that stops writes, that no posting is of the months to be created.

    While it runs, postings of those months are rejected: they begin in a month's time or later.
    """
    op.execute("alter table shop.ledger drop constraint if exists of_no_month")
    op.execute(
        "alter table shop.ledger "
        f"add constraint of_no_month check (posted_at < '{first.isoformat()}') not valid"
    )
    op.execute("alter table shop.ledger validate constraint of_no_month")


def _replace_table() -> None:
    """Puts a partitioned table in the place of the ledger, which becomes its default partition."""
    next_seq = _scalar("select last_value + is_called::int from shop.ledger_seq_seq")
    for statement in REPLACE_TABLE:
        op.execute(statement.format(next_seq=next_seq))
    op.execute(MOVE_RIGHTS)


def _create_months(first: datetime) -> None:
    """Attaches the old table and the months; the constraint spares a scan under the lock."""
    op.execute(
        "create table shop.ledger_months "
        "(like shop.ledger including defaults including constraints) "
        "partition by range (posted_at)"
    )
    op.execute("alter table shop.ledger attach partition shop.ledger_other default")
    op.execute(
        "alter table shop.ledger attach partition shop.ledger_months "
        f"for values from ('{first.isoformat()}') to (maxvalue)"
    )
    op.execute("alter table shop.ledger_other drop constraint of_no_month")
    for statement in TRIGGERS:
        op.execute(statement)
    op.execute(NEVER_EMPTIED.format(table="ledger"))
    _create_partition("without_month", "default")
    now, month = datetime.now(UTC), first
    last = now.year * 12 + now.month + MONTHS_AHEAD
    while month == first or month.year * 12 + month.month <= last:
        bounds = f"for values from ('{month.isoformat()}') to ('{_after(month).isoformat()}')"
        _create_partition(f"{month:%Y_%m}", bounds)
        month = _after(month)


def _create_partition(name: str, bounds: str) -> None:
    op.execute(f"create table shop.ledger_{name} partition of shop.ledger_months {bounds}")
    op.execute(NEVER_EMPTIED.format(table=f"ledger_{name}"))
