"""The migrations create the declared schema; running them again changes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from psycopg.sql import SQL, Identifier
from sqlalchemy import CheckConstraint, create_engine

from shop.schema.partitions import partitioned_tables
from shop.schema.tables import METADATA, deletions_of
from tests.ledger_postings import INSERT_POSTING
from tests.waiting import wait_for
from tools.local_platform.function_environment import url_of_role
from tools.migrate import POSTGRESQL_MIN, migrate, upgrade

ROOT = Path(__file__).resolve().parents[2]
PAGES_WITH_A_VERSION = (
    "docs/OPENFAAS.md",
    "docs/deploy/README.md",
    "docs/deploy/helm.md",
    "docs/deploy/kustomize.md",
)
# xmin tells whether the row of the catalogue was ever touched, even with the same values.
CATALOGUE = """
select 'class', oid::text, relname::text, xmin::text from pg_class
where relnamespace = 'shop'::regnamespace
union all select 'constraint', oid::text, conname::text, xmin::text from pg_constraint
where connamespace = 'shop'::regnamespace
union all select 'policy', oid::text, polname::text, xmin::text from pg_policy
union all select 'trigger', oid::text, tgname::text, xmin::text from pg_trigger
union all select 'schema', oid::text, nspname::text, xmin::text from pg_namespace
where nspname = 'shop'
"""

FILL_TABLES_WITH_A_RETENTION: dict[str, LiteralString] = {
    "alarms": """
    insert into shop.alarms (alarm_id, kind, subject, detail, resolved_at)
    select gen_random_uuid(), 'k', n::text, '', now() - n * interval '1 second'
    from generate_series(1, 5000) n
    """,
    "dead_letters": """
    insert into shop.dead_letters (dead_letter_id, event_id, source, type, destination, headers,
      body, received_at)
    select gen_random_uuid(), n::text, 's', 't', 'd', '{}', '', now() - n * interval '1 second'
    from generate_series(1, 5000) n
    """,
    "inbox": """
    insert into shop.inbox (consumer, source, event_id, outcome, received_at)
    select 'c', 's', n::text, '', now() - n * interval '1 second' from generate_series(1, 5000) n
    """,
    "idempotency": """
    insert into shop.idempotency (user_id, scope, key, fingerprint, state, created_at)
    select 1, 's', n::text, '', 'STARTED', now() - n * interval '1 second'
    from generate_series(1, 5000) n
    """,
    "login_failures": """
    insert into shop.login_failures (account, source, is_known_device, failed_at)
    select sha256(n::text::bytea), sha256(''), false, now() - n * interval '1 second'
    from generate_series(1, 5000) n
    """,
    "mails": """
    insert into shop.mails (event_id, kind, subject_id, status, created_at, next_try_at)
    select gen_random_uuid(), 'ORDER_PAID', n::text, 'SENT', now() + n * interval '1 second', now()
    from generate_series(1, 5000) n
    """,
    "notes": """
    insert into shop.notes (note_id, user_id, author_id, text, at)
    select gen_random_uuid(), 1, 1, 'x', now() - n * interval '1 second'
    from generate_series(1, 5000) n
    """,
    "one_time_links": """
    insert into shop.one_time_links (link_id, purpose, expires_at)
    select gen_random_uuid(), 'SET_PASSWORD', now() + n * interval '1 second'
    from generate_series(1, 5000) n
    """,
    "order_addresses": """
    insert into shop.order_addresses (order_id, user_id, recipient, phone, country, postcode, line1,
      created_at)
    select gen_random_uuid(), 1, 'r', '1', 'KR', '04524', 'l', now() - n * interval '1 second'
    from generate_series(1, 5000) n
    """,
    "sessions": """
    insert into shop.sessions (session_id, user_id, expires_at)
    select gen_random_uuid(), 1, now() + n * interval '1 second' from generate_series(1, 5000) n
    """,
    "webhook_deliveries": """
    with webhook as (insert into shop.webhooks (webhook_id, url, event_types)
      values (gen_random_uuid(), 'https://hooks.example.kr/', '{order.paid}') returning webhook_id)
    insert into shop.webhook_deliveries (webhook_id, event_id, type, created_at)
    select webhook_id, gen_random_uuid(), 'order.paid', now() - n * interval '1 second'
    from webhook cross join generate_series(1, 5000) n
    """,
    "outbox": """
    insert into shop.outbox (event_id, source, type, subject, data, traceparent, done_at,
      next_try_at)
    select gen_random_uuid(), 's', 't', '', '{}', '', now() - n * interval '1 second', now()
    from generate_series(1, 5000) n
    """,
}


def _is_ours(name: str | None, kind: str, _: dict[str, Any]) -> bool:
    if kind == "schema":
        return name == "shop"
    return not (kind == "table" and (name == "alembic_version" or _is_partition(name)))


def _is_partition(name: str | None) -> bool:
    tables = "|".join(table.name for table, _ in partitioned_tables())
    suffixes = r"other|months|without_month|\d{4}_\d{2}"
    return re.fullmatch(f"({tables})_({suffixes})", name or "") is not None


def test_the_migrated_schema_is_the_declared_one(database_url: str) -> None:
    assert _differences_to_declared(database_url) == []


def _differences_to_declared(database_url: str) -> list[Any]:
    engine = create_engine("postgresql+psycopg://" + database_url.split("://", 1)[1])
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "include_name": _is_ours,
                "compare_type": True,
                "compare_server_default": True,
            },
        )
        differences = compare_metadata(context, METADATA)
    engine.dispose()
    return differences


def test_migrating_again_changes_nothing(database_url: str) -> None:
    before = _catalogue(database_url)
    assert len(before) > 100

    migrate(database_url)

    assert _catalogue(database_url) == before


def test_due_work_closes_days_in_the_business_time_zone(database_url: str) -> None:
    """``settle`` and the view that wakes it must mean the same midnight."""
    migrate(database_url, business_time_zone="America/New_York")
    migrate(database_url, business_time_zone="America/New_York")

    with psycopg.connect(database_url) as connection:
        posting = {
            "kind": "CAPTURE",
            "id": uuid4(),
            "order_id": None,
            "amount": 900,
            "currency": "KRW",
        }
        connection.execute("set session_replication_role = replica")  # a posting without its order
        connection.execute(INSERT_POSTING, posting | {"at": "2026-02-02 03:30:00+00"})
        row = connection.execute(
            "select id, due_at from shop.due_work where kind = 'close_day'"
        ).fetchone()

    # 03:30 UTC on the 2nd is half past ten in the evening of the 1st in New York
    assert row == ("2026-02-01", datetime(2026, 2, 2, 5, 2, tzinfo=UTC))


def test_looking_at_due_work_reads_one_row_of_each_table_with_a_retention(
    database_url: str,
) -> None:
    """The clock looks every second: what it reads must not grow with the tables."""
    tables = {t.name for t in METADATA.sorted_tables if deletions_of(t)}
    assert tables == set(FILL_TABLES_WITH_A_RETENTION)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("set session_replication_role = replica")  # sessions without users
        for statement in FILL_TABLES_WITH_A_RETENTION.values():
            connection.execute(statement)
        connection.execute("analyze")
        row = connection.execute(
            "explain (analyze, format json) select * from shop.due_work"
        ).fetchone()

    assert row is not None
    read = dict(_rows_read(row[0][0]["Plan"]))
    assert {table: rows for table, rows in read.items() if rows > 1} == {}
    # rows of partitioned tables are in the partition for ids of no month
    names = {table if table in read else f"{table}_other" for table in FILL_TABLES_WITH_A_RETENTION}
    assert names <= read.keys()


def _rows_read(plan: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Every table that a plan scans, with the number of rows that the scan returned or dropped."""
    if "Relation Name" in plan:
        dropped = plan.get("Rows Removed by Filter", 0)
        yield plan["Relation Name"], (plan["Actual Rows"] + dropped) * plan["Actual Loops"]
    for child in plan.get("Plans", ()):
        yield from _rows_read(child)


def test_migrate_with_an_unknown_time_zone_raises_value_error(database_url: str) -> None:
    with pytest.raises(ValueError, match="unknown time zone 'Asia/Soul'"):
        migrate(database_url, business_time_zone="Asia/Soul")


def test_migrate_rejects_a_server_that_is_too_old_and_changes_nothing(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"test_{uuid4().hex[:12]}"
    url = postgres_url.rsplit("/", 1)[0] + f"/{name}"
    monkeypatch.setattr("tools.migrate.POSTGRESQL_MIN", 99)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(SQL("create database {}").format(Identifier(name)))
        with pytest.raises(ValueError, match="use 99 or newer; nothing was changed"):
            migrate(url)
        with psycopg.connect(url) as other:
            schemas = other.execute("select 1 from pg_namespace where nspname = 'shop'").fetchall()
        connection.execute(SQL("drop database {} with (force)").format(Identifier(name)))

    assert schemas == []


@pytest.mark.parametrize("page", PAGES_WITH_A_VERSION, ids=str)
def test_oldest_version_of_the_server_is_that_of_the_migrations(page: str) -> None:
    stated = re.findall(r"PostgreSQL (\d+) or newer", (ROOT / page).read_text("utf-8"))

    assert stated == [str(POSTGRESQL_MIN)]


def test_migrate_rejects_a_locale_without_korean_letters(postgres_url: str) -> None:
    """With it, the trigram index contains no Korean name, and every search scans all products."""
    name = f"test_{uuid4().hex[:12]}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            SQL(
                "create database {} template template0 encoding 'UTF8' locale_provider libc "
                "lc_collate 'C' lc_ctype 'C'"
            ).format(Identifier(name))
        )
        with pytest.raises(ValueError, match="knows no Korean letters"):
            migrate(postgres_url.rsplit("/", 1)[0] + f"/{name}")
        connection.execute(SQL("drop database {} with (force)").format(Identifier(name)))


def test_functions_read_times_in_utc(database_url: str) -> None:
    """Times in responses do not depend on the time zone of the server."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(
            SQL("alter database {} set timezone = 'Asia/Seoul'").format(Identifier(name))
        )
    as_ordering = url_of_role(database_url, "shop_ordering")

    with psycopg.connect(as_ordering) as connection:
        assert connection.execute("show timezone").fetchone() == ("UTC",)


def _catalogue(url: str) -> set[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return set(connection.execute(CATALOGUE).fetchall())


def test_check_constraints_are_the_declared_ones(database_url: str) -> None:
    """Alembic compares no check constraints; their names at least must agree."""
    declared = {
        (table.name, constraint.name)
        for table in METADATA.sorted_tables
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
    }
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "select conrelid::regclass::text, conname from pg_constraint "
            "where connamespace = 'shop'::regnamespace and contype = 'c' "
            "and not (select relispartition from pg_class where oid = conrelid)"
        ).fetchall()

    assert {(table.removeprefix("shop."), name) for table, name in rows} == declared


def test_timeouts_that_a_role_lifted_itself_are_restored_by_the_next_migration(
    database_url: str,
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        database = Identifier(connection.info.dbname)
        connection.execute("set role shop_auditor")
        connection.execute("alter role shop_auditor set statement_timeout = 0")
        connection.execute(
            SQL("alter role shop_auditor in database {} set lock_timeout = 0").format(database)
        )
        connection.execute("reset role")

        migrate(database_url)

        rows = connection.execute(
            "select setdatabase, setconfig from pg_db_role_setting "
            "where setrole = 'shop_auditor'::regrole "
            "and setdatabase in "
            "(0, (select oid from pg_database where datname = current_database()))"
        ).fetchall()

    ((database_oid, settings),) = rows
    assert database_oid == 0
    assert {"statement_timeout=3s", "lock_timeout=1s"} <= set(settings)


# Both are changed by migration 0047, the second after its transaction.
@pytest.mark.parametrize("table", ["reservations", "stock_moves"])
def test_released_migration_asks_again_for_a_lock_that_it_does_not_get_soon(
    postgres_url: str, template_url: str, table: str
) -> None:
    """It gives up its place in the queue meanwhile: functions wait behind it for one second."""
    assert template_url, "the roles are there: they belong to all databases of a server"
    database = f"test_{uuid4().hex[:12]}"
    url = f"{postgres_url.rsplit('/', 1)[0]}/{database}"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(SQL("create database {} template template0").format(Identifier(database)))
        try:
            upgrade(url, "0046")
            with psycopg.connect(url) as reader, ThreadPoolExecutor(1) as pool:
                reader.execute(SQL("select from shop.{}").format(Identifier(table)))
                migrated = pool.submit(migrate, url)
                begun: set[datetime] = set()
                wait_for(lambda: _attempts(admin, database, begun) > 2, "three attempts")
                reader.rollback()
                migrated.result(60)
            with psycopg.connect(url) as connection:
                connection.execute("select returned_qty from shop.reservations")
        finally:
            admin.execute(SQL("drop database {} with (force)").format(Identifier(database)))


CHECKS_OF_0047 = {"known_move": "stock_moves", "returned_le_reserved": "reservations"}


@pytest.mark.parametrize("checks", [("known_move",), ("known_move", "returned_le_reserved")])
def test_migration_that_was_killed_between_its_parts_is_applied_by_the_next_run(
    postgres_url: str, template_url: str, checks: tuple[str, ...]
) -> None:
    """Its tables are committed, its version is not recorded, and these checks are missing."""
    assert template_url, "the roles are there: they belong to all databases of a server"
    database = f"test_{uuid4().hex[:12]}"
    url = f"{postgres_url.rsplit('/', 1)[0]}/{database}"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(SQL("create database {} template template0").format(Identifier(database)))
        try:
            upgrade(url, "0047")
            with psycopg.connect(url) as connection:
                connection.execute("update shop.alembic_version set version_num = '0046'")
                for check in checks:
                    connection.execute(
                        SQL("alter table shop.{} drop constraint {}").format(
                            Identifier(CHECKS_OF_0047[check]), Identifier(check)
                        )
                    )
            migrate(url)
            with psycopg.connect(url) as connection:
                found = connection.execute(
                    "select conname::text from pg_constraint where conname::text = any(%s)",
                    [list(CHECKS_OF_0047)],
                ).fetchall()
            assert {name for (name,) in found} == set(CHECKS_OF_0047)
            assert _differences_to_declared(url) == []
        finally:
            admin.execute(SQL("drop database {} with (force)").format(Identifier(database)))


def _attempts(admin: psycopg.Connection, database: str, begun: set[datetime]) -> int:
    """Adds the beginning of the statement that waits for a lock; how many there were."""
    waiting = admin.execute(
        "select query_start from pg_stat_activity "
        "where datname = %s and wait_event_type = 'Lock' and query ilike 'alter table%%'",
        [database],
    )
    begun.update(at for (at,) in waiting.fetchall())
    return len(begun)
