"""The migrations create the declared schema; running them again changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from psycopg.sql import SQL, Identifier
from sqlalchemy import CheckConstraint, create_engine

from shop.schema.tables import METADATA
from tests.ledger_postings import INSERT_POSTING
from tools.migrate import migrate

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


def _is_ours(name: str | None, kind: str, _: dict[str, Any]) -> bool:
    if kind == "schema":
        return name == "shop"
    return not (kind == "table" and name == "alembic_version")


def test_the_migrated_schema_is_the_declared_one(database_url: str) -> None:
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

    assert differences == []


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
        posting = {"kind": "CAPTURE", "id": uuid4(), "amount": 900, "currency": "KRW"}
        connection.execute("set session_replication_role = replica")  # a posting without its order
        connection.execute(INSERT_POSTING, posting | {"at": "2026-02-02 03:30:00+00"})
        row = connection.execute(
            "select id, due_at from shop.due_work where kind = 'close_day'"
        ).fetchone()

    # 03:30 UTC on the 2nd is half past ten in the evening of the 1st in New York
    assert row == ("2026-02-01", datetime(2026, 2, 2, 5, 2, tzinfo=UTC))


def test_migrate_with_an_unknown_time_zone_raises_value_error(database_url: str) -> None:
    with pytest.raises(ValueError, match="unknown time zone 'Asia/Soul'"):
        migrate(database_url, business_time_zone="Asia/Soul")


def test_functions_read_times_in_utc(database_url: str) -> None:
    """Times in responses do not depend on the time zone of the server."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(
            SQL("alter database {} set timezone = 'Asia/Seoul'").format(Identifier(name))
        )
    as_ordering = "postgresql://shop_ordering@" + database_url.split("@")[1]

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
            "where connamespace = 'shop'::regnamespace and contype = 'c'"
        ).fetchall()

    assert {(table.removeprefix("shop."), name) for table, name in rows} == declared
