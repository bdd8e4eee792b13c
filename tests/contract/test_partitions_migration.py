"""Migrations that partition tables in use copy no row, and lose no right, policy or key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from psycopg.sql import SQL, Identifier
from sqlalchemy import create_engine

from shop import settlement
from shop.schema.grants import grant_statements, policy_statements
from tests.contract.test_partitions import event_id, month
from tests.harness import ShopHarness
from tools.checker.invariants import INVARIANTS
from tools.local_platform.function_environment import url_of_role
from tools.migrate import MIGRATIONS, migrate

BEFORE, AFTER = "0017", "0018"
HISTORY_BEFORE, HISTORY_AFTER = "0021", "0022"
LEDGER_BEFORE, LEDGER_AFTER = "0031", "0032"
SETTLEMENTS = ("settlements", "settlement_batches", "settlement_lines")
TABLES = ("outbox", "inbox", "transitions", "stock_moves", "ledger", *SETTLEMENTS)
HISTORY = ("stock_moves", "transitions")
CHANGE = (
    "insert into shop.transitions (entity, entity_id, order_id, from_status, to_status, event_id, "
    "actor) values ('order', %(id)s, %(id)s, '-', 'PENDING', %(event_id)s, 'x') returning seq"
)
MOVE = (
    "insert into shop.stock_moves (product_id, kind, qty, reservation_id) "
    "values (1, %s, case %s when 'COMMIT' then -1 else 1 end, %s) returning seq"
)
EVENT = (
    "insert into shop.outbox (event_id, source, type, subject, data, traceparent, next_try_at) "
    "values (%s, '/shop/place_order', 'order.placed', '1', '{}', '', now())"
)
CLAIM = (
    "insert into shop.inbox (consumer, source, event_id, outcome) "
    "values ('charge', '/shop/place_order', %s, 'taken') on conflict do nothing returning 1"
)
RIGHTS = """
select a.grantee::regrole::text, a.privilege_type, '' from pg_class c
  cross join lateral aclexplode(c.relacl) a where c.oid = %(table)s::regclass
  and a.grantee <> c.relowner
union all
select a.grantee::regrole::text, a.privilege_type, t.attname from pg_attribute t
  cross join lateral aclexplode(t.attacl) a where t.attrelid = %(table)s::regclass
union all
select p.policyname, p.cmd, concat_ws('|', p.roles, p.qual, p.with_check) from pg_policies p
  where format('%%I.%%I', p.schemaname, p.tablename) = %(table)s::text
union all
select 'row security', relrowsecurity::text, relforcerowsecurity::text from pg_class
  where oid = %(table)s::regclass
union all
select 'trigger', tgname, pg_get_triggerdef(oid) from pg_trigger where tgrelid = %(table)s::regclass
union all
select 'index', indexname, replace(indexdef, ' ONLY', '') from pg_indexes
  where format('%%I.%%I', schemaname, tablename) = %(table)s::text
"""


@pytest.fixture
def old_url(postgres_url: str, template_url: str) -> Iterator[str]:
    """A database of the version before, with its rights and policies of both tables."""
    assert template_url, "the roles are there: they belong to all databases of a server"
    database = f"test_{uuid4().hex[:12]}"
    url = f"{postgres_url.rsplit('/', 1)[0]}/{database}"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(SQL("create database {} template template0").format(Identifier(database)))
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("create schema shop")
                connection.execute("create extension pg_trgm with schema public")
                _upgrade(url, BEFORE)
                for statement in (*grant_statements(), *policy_statements()):
                    names = re.findall(r"shop\.(\w+)", statement)
                    if any(name in TABLES for name in names):
                        connection.execute(statement.encode())
                connection.execute(
                    "grant usage on schema shop to shop_relay, shop_payment, shop_settlement"
                )
                connection.execute("grant select on shop.subscriptions to shop_relay")
            yield url
        finally:
            admin.execute(SQL("drop database {} with (force)").format(Identifier(database)))


def _upgrade(url: str, revision: str) -> list[str]:
    """Runs migrations alone; returns what PostgreSQL reported of constraints that it proved."""
    reports: list[str] = []

    def record(diagnostic: psycopg.errors.Diagnostic) -> None:
        reports.append(diagnostic.message_primary or "")

    engine = create_engine("postgresql+psycopg://" + url.split("://", 1)[1])
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        driver.add_notice_handler(record)
        connection.exec_driver_sql("set client_min_messages = debug1")
        connection.commit()
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()
    return [report for report in reports if "implied by existing constraints" in report]


def _rights(url: str, table: str) -> set[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return set(connection.execute(RIGHTS, {"table": f"shop.{table}"}).fetchall())


def _partitions(url: str, table: str) -> dict[str, str]:
    """The partition of each row, by its id."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            SQL("select event_id::text, tableoid::regclass::text from shop.{}").format(
                Identifier(table)
            )
        )
        return {key: partition.removeprefix("shop.") for key, partition in rows}


def _fill(url: str) -> list[str]:
    """Events and claims of the version before, and a claim of a webhook; their ids."""
    now = datetime.now(UTC)
    ids = [event_id(now - timedelta(days=days)) for days in (0, 20, 70)]
    with psycopg.connect(url, autocommit=True) as connection:
        for each in ids:
            connection.execute(EVENT.encode(), (each,))
            connection.execute(CLAIM.encode(), (str(each),))
        connection.execute(CLAIM.encode(), ("evt_1",))
    return [str(each) for each in ids]


def test_tables_in_use_become_partitions_with_their_rows_files_and_rights(old_url: str) -> None:
    ids = _fill(old_url)
    rights = {table: _rights(old_url, table) for table in ("inbox", "outbox")}
    with psycopg.connect(old_url) as connection:
        files = connection.execute(
            "select pg_relation_filenode('shop.inbox'), pg_relation_filenode('shop.outbox')"
        ).fetchone()

    proven = _upgrade(old_url, AFTER)

    assert {table: _rights(old_url, table) for table in rights} == rights
    with psycopg.connect(old_url) as connection:
        assert (
            files
            == connection.execute(
                "select pg_relation_filenode('shop.inbox_other'), "
                "pg_relation_filenode('shop.outbox_other')"
            ).fetchone()
        ), "no row was copied"
    assert [report.split('"')[1] for report in proven] == ["inbox_other", "outbox_other"]
    assert _partitions(old_url, "outbox") == dict.fromkeys(ids, "outbox_other")
    assert _partitions(old_url, "inbox") == dict.fromkeys([*ids, "evt_1"], "inbox_other")
    for table in rights:
        partition = _rights(old_url, f"{table}_other")
        assert {row[0] for row in partition} <= {"row security", "trigger", "index"}
        assert ("row security", "false", "false") in partition


def test_functions_of_the_version_before_use_the_migrated_tables(old_url: str) -> None:
    """Before the views and rights of this version are applied."""
    ids = _fill(old_url)
    _upgrade(old_url, AFTER)
    new, later = event_id(datetime.now(UTC)), event_id(month(2))

    with psycopg.connect(url_of_role(old_url, "shop_relay"), autocommit=True) as relay:
        for each in (*ids, str(new), str(later), "evt_1", "evt_2"):
            assert len(relay.execute(CLAIM.encode(), (each,)).fetchall()) == (
                each not in (*ids, "evt_1")
            )
        taken = relay.execute(
            "select event_id::text from shop.outbox where done_at is null and parked_at is null "
            "order by next_try_at for update skip locked"
        ).fetchall()
        relay.execute("update shop.outbox set sent_at = now() where event_id = %s", (ids[0],))
        with pytest.raises(psycopg.errors.RestrictViolation):
            relay.execute("delete from shop.inbox where event_id = %s", (str(later),))

    assert {key for (key,) in taken} == set(ids)
    assert _partitions(old_url, "inbox")[str(new)] == "inbox_other"
    assert _partitions(old_url, "inbox")[str(later)] == f"inbox_{month(2):%Y_%m}"


def test_months_begin_after_the_ids_of_a_clock_that_was_ahead(old_url: str) -> None:
    ahead = event_id(month(6))
    with psycopg.connect(old_url, autocommit=True) as connection:
        connection.execute(EVENT.encode(), (ahead,))

    migrate(old_url)

    with psycopg.connect(old_url) as connection:
        first = connection.execute(
            "select pg_get_expr(relpartbound, oid) from pg_class where relname = 'outbox_months'"
        ).fetchone()
    bound = UUID(int=int(month(7).timestamp()) * 1000 << 80)
    assert first is not None and f"FROM ('{bound}')" in first[0]
    assert _partitions(old_url, "outbox") == {str(ahead): "outbox_other"}


def test_interrupted_migration_is_repeated(old_url: str) -> None:
    _fill(old_url)
    with psycopg.connect(old_url) as other:
        other.execute("lock table shop.outbox in row exclusive mode")
        with pytest.raises(Exception, match="lock timeout"):
            _upgrade(old_url, AFTER)
    assert _rights(old_url, "outbox")

    migrate(old_url)

    assert len(_partitions(old_url, "outbox")) == 3


def test_rows_of_the_version_before_are_deleted_by_age(
    shop: ShopHarness,
) -> None:
    """The old table, a partition now, is emptied in batches as before."""
    shop.sql(EVENT, event_id(month(-40)))
    shop.sql("update shop.outbox set sent_at = now(), done_at = now() - interval '31 days'")

    assert shop.tick("sweep").status == 204

    assert shop.sql("select 1 from shop.outbox") == []


def _fill_history(url: str) -> list[UUID]:
    """Changes and moves of the version before, which name no existing order; their ids."""
    ids = [event_id(datetime.now(UTC) - timedelta(days=days)) for days in (0, 70)]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("set session_replication_role = replica")
        for each in ids:
            _change(connection, each)
            connection.execute(MOVE.encode(), ("COMMIT", "COMMIT", each))
        connection.execute(MOVE.encode(), ("INITIAL", "INITIAL", None))
    return ids


def _change(connection: psycopg.Connection, order_id: UUID) -> int:
    row = connection.execute(CHANGE.encode(), {"id": order_id, "event_id": uuid4()}).fetchone()
    assert row is not None
    seq: int = row[0]
    return seq


def _file(connection: psycopg.Connection, table: str) -> tuple[Any, ...] | None:
    return connection.execute("select pg_relation_filenode(%s)", (f"shop.{table}",)).fetchone()


def test_history_in_use_becomes_partitions_with_its_rows_files_rights_and_sequence(
    old_url: str,
) -> None:
    _upgrade(old_url, HISTORY_BEFORE)
    _fill_history(old_url)
    kinds = {"index", "trigger"}
    rights = {table: {r for r in _rights(old_url, table) if r[0] not in kinds} for table in HISTORY}
    with psycopg.connect(old_url) as connection:
        files = [_file(connection, table) for table in HISTORY]

    proven = _upgrade(old_url, HISTORY_AFTER)

    assert [report.split('"')[1] for report in proven] == ["stock_moves_other", "transitions_other"]
    assert len(rights["transitions"]) > 5
    for table in HISTORY:
        assert {r for r in _rights(old_url, table) if r[0] not in kinds} == rights[table]
        assert {r[0] for r in _rights(old_url, f"{table}_other")} <= {*kinds, "row security"}
    with psycopg.connect(old_url) as connection:
        assert [_file(connection, f"{table}_other") for table in HISTORY] == files, "no row copied"
        for table in HISTORY:
            rows = connection.execute(
                SQL("select distinct tableoid::regclass::text from shop.{}").format(
                    Identifier(table)
                )
            ).fetchall()
            assert rows == [(f"shop.{table}_other",)]
        connection.execute("set session_replication_role = replica")
        assert _change(connection, event_id(month(2))) == 3, "the sequence goes on"


def test_functions_of_the_version_before_write_the_migrated_history(old_url: str) -> None:
    """Before the views and rights of this version are applied."""
    _upgrade(old_url, HISTORY_BEFORE)
    ids = _fill_history(old_url)
    _upgrade(old_url, HISTORY_AFTER)

    with psycopg.connect(url_of_role(old_url, "shop_payment"), autocommit=True) as payment:
        for each in (*ids, event_id(datetime.now(UTC)), event_id(month(2))):
            _change(payment, each)
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            payment.execute(MOVE.encode(), ("COMMIT", "COMMIT", event_id(month(2))))
        with pytest.raises(psycopg.errors.UniqueViolation):
            payment.execute(MOVE.encode(), ("COMMIT", "COMMIT", ids[0]))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            payment.execute("select 1 from shop.transitions_other")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            payment.execute("delete from shop.stock_moves")


def test_interrupted_migration_of_the_history_is_repeated(old_url: str) -> None:
    _upgrade(old_url, HISTORY_BEFORE)
    _fill_history(old_url)
    with psycopg.connect(old_url) as other:
        other.execute("lock table shop.stock in row exclusive mode")
        with pytest.raises(Exception, match="lock timeout"):
            _upgrade(old_url, HISTORY_AFTER)

    _upgrade(old_url, HISTORY_AFTER)

    with psycopg.connect(old_url) as connection:
        assert connection.execute("select count(*) from shop.transitions").fetchone() == (2,)


POST = (
    "insert into shop.ledger (kind, source_id, order_id, debit, credit, amount_minor, currency) "
    "values ('CAPTURE', %s, %s, 'psp_receivable', 'order_escrow', 1, 'KRW') returning seq"
)
ORDER = (
    "insert into shop.orders (order_id, user_id, status, total_minor, currency, payment_method, "
    "expires_at, hard_expires_at) values (%s, 1, 'PAID', 1, 'KRW', 'CARD', now(), now())"
)
LINE = "insert into shop.settlement_lines (seq, day, currency) values (%s, '2026-02-01', 'KRW')"
LINKS_ARE_VALID = next(each.query for each in INVARIANTS if each.id == "I-21")
HEADS_ARE_VALID = next(each.query for each in INVARIANTS if each.id == "I-22")
WITHOUT_KEYS = """
select 1 from shop.ledger l full join shop.ledger_keys k using (seq)
where (l.kind, l.source_id, l.chain, l.chain_seq)
  is distinct from (k.kind, k.source_id, k.chain, k.chain_seq)
"""


def _orders(url: str, count: int) -> list[UUID]:
    """Orders without an account; their ids."""
    ids = [uuid4() for _ in range(count)]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("set session_replication_role = replica")
        for each in ids:
            connection.execute(ORDER.encode(), (each,))
    return ids


def _post(connection: psycopg.Connection, order_id: UUID) -> int:
    """Posts a capture, whose source has the order's id, as the version before does."""
    row = connection.execute(POST.encode(), (order_id, order_id)).fetchone()
    assert row is not None
    seq: int = row[0]
    return seq


def _settle_as_the_version_before(url: str, day: date) -> int:
    """Settles a batch by the statement of the version before; returns how many postings."""
    statement = settlement.settle_batch(day, time_zone="UTC")
    assert "insert into shop.settlement_lines (seq, day, currency)" in statement.sql
    with psycopg.connect(url_of_role(url, "shop_settlement"), autocommit=True) as connection:
        row = connection.execute(statement.sql.encode(), statement.parameters).fetchone()
    assert row is not None
    count: int = row[0]
    return count


def _assert_ledger_is_valid(url: str) -> None:
    with psycopg.connect(url) as connection:
        for query in (LINKS_ARE_VALID, HEADS_ARE_VALID, WITHOUT_KEYS):
            assert connection.execute(query.encode()).fetchall() == [], query


def test_ledger_in_use_becomes_a_partition_with_its_rows_file_rights_and_sequence(
    old_url: str,
) -> None:
    _upgrade(old_url, LEDGER_BEFORE)
    orders = _orders(old_url, 40)
    with psycopg.connect(old_url, autocommit=True) as connection:
        seqs = [_post(connection, each) for each in orders]
        connection.execute(LINE.encode(), (seqs[0],))
        file = _file(connection, "ledger")
    kinds = {"index", "trigger"}
    rights = {r for r in _rights(old_url, "ledger") if r[0] not in kinds}

    proven = _upgrade(old_url, LEDGER_AFTER)

    assert [report.split('"')[1] for report in proven] == ["ledger_other"]
    assert {r for r in _rights(old_url, "ledger") if r[0] not in kinds} == rights
    assert ("shop_payment", "INSERT", "") in rights
    assert {r[0] for r in _rights(old_url, "ledger_other")} <= {*kinds, "row security"}
    with psycopg.connect(old_url) as connection:
        assert _file(connection, "ledger_other") == file, "no row copied"
        rows = connection.execute(
            "select tableoid::regclass::text, count(*), max(seq) from shop.ledger group by 1"
        ).fetchall()
        keys = connection.execute("select seq from shop.ledger_keys order by seq").fetchall()
    assert rows == [("shop.ledger_other", 40, seqs[-1])]
    assert [seq for (seq,) in keys] == seqs
    _assert_ledger_is_valid(old_url)


def test_functions_of_the_version_before_post_and_settle_in_the_migrated_ledger(
    old_url: str,
) -> None:
    """Before the views and rights of this version are applied."""
    _upgrade(old_url, LEDGER_BEFORE)
    orders = _orders(old_url, 4)
    day = datetime.now(UTC).date()
    with psycopg.connect(old_url, autocommit=True) as connection:
        _post(connection, orders[0])
    assert _settle_as_the_version_before(old_url, day) == 1
    _upgrade(old_url, LEDGER_AFTER)

    with psycopg.connect(url_of_role(old_url, "shop_payment"), autocommit=True) as payment:
        last = [_post(payment, each) for each in orders[1:]][-1]
        for each in orders:
            with pytest.raises(psycopg.errors.UniqueViolation, match="one_posting_per_source"):
                _post(payment, each)
        for table in ("ledger_other", "ledger_keys"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                payment.execute(f"select 1 from shop.{table}".encode())
    assert _settle_as_the_version_before(old_url, day) == 3
    with psycopg.connect(old_url, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            connection.execute(LINE.encode(), (last + 100,))
        for statement in ("delete from shop.ledger", "truncate shop.ledger cascade"):
            with pytest.raises(psycopg.errors.RestrictViolation):
                connection.execute(statement.encode())
    _assert_ledger_is_valid(old_url)


@pytest.mark.parametrize("table", ["ledger", "orders"])
def test_migration_of_the_ledger_that_waited_in_vain_is_repeated_and_misses_no_posting(
    old_url: str, table: str
) -> None:
    """Interrupted before the keys are filled in, and when the table is to be replaced."""
    _upgrade(old_url, LEDGER_BEFORE)
    orders = _orders(old_url, 5)
    with psycopg.connect(old_url) as open_posting, psycopg.connect(old_url) as other:
        _post(open_posting, orders[0])
        if table == "orders":
            open_posting.commit()
            other.execute("lock table shop.orders in row exclusive mode")
        with pytest.raises(Exception, match="lock timeout"):
            _upgrade(old_url, LEDGER_AFTER)
        open_posting.commit()
    with psycopg.connect(old_url, autocommit=True) as connection:
        for each in orders[1:3]:
            _post(connection, each)
        with pytest.raises(psycopg.errors.UniqueViolation):
            _post(connection, orders[0])

    _upgrade(old_url, LEDGER_AFTER)

    with psycopg.connect(old_url, autocommit=True) as connection:
        for each in orders[3:]:
            _post(connection, each)
        assert connection.execute("select count(*) from shop.ledger_keys").fetchone() == (5,)
    _assert_ledger_is_valid(old_url)


def test_posting_of_a_clock_that_was_ahead_stays_in_the_old_table(old_url: str) -> None:
    _upgrade(old_url, LEDGER_BEFORE)
    (order_id,) = _orders(old_url, 1)
    with psycopg.connect(old_url, autocommit=True) as connection:
        _post(connection, order_id)
        connection.execute("set session_replication_role = replica")
        connection.execute("update shop.ledger set posted_at = %s", (month(6),))

    _upgrade(old_url, LEDGER_AFTER)

    with psycopg.connect(old_url) as connection:
        rows = connection.execute(
            "select tableoid::regclass::text from shop.ledger union all "
            "select pg_get_expr(relpartbound, oid) from pg_class where relname = 'ledger_months'"
        ).fetchall()
    assert rows[0] == ("shop.ledger_other",)
    assert f"FROM ('{month(7):%Y-%m-%d}" in rows[1][0]
