"""Every SQL constant is prepared against the migrated schema, so drift is impossible."""

from __future__ import annotations

import re

import psycopg

from tests.contract.sql_constants import (
    OURS,
    STATEMENT,
    SqlConstant,
    all_strings,
    named_constants,
    prepared_constants,
)
from tools.checker.invariants import EXTERNAL_TABLES, INVARIANTS

PARAMETER = re.compile(r"%\((\w+)\)s")
# Composed or run by tools that speak another dialect of parameters.
TOOLS_OF_SQLALCHEMY = ("tools/migrate.py",)


def numbered(text: str) -> str:
    """The statement with PostgreSQL's own parameters: each name has one number."""
    names: dict[str, str] = {}

    def number(match: re.Match[str]) -> str:
        return names.setdefault(match[1], f"${len(names) + 1}")

    return PARAMETER.sub(number, text).replace("%%", "%")


def _fault(connection: psycopg.Connection, constant: SqlConstant) -> str | None:
    try:
        connection.execute(f"prepare it as {numbered(constant.text)}".encode())
    except psycopg.Error as error:
        return f"{constant}: {error}"
    connection.execute("deallocate it")
    return None


def test_every_constant_can_be_prepared(database_url: str) -> None:
    constants = prepared_constants()
    constants += [SqlConstant("invariants", i.id, i.query) for i in INVARIANTS]
    assert len(constants) > 80, "the finder finds next to nothing"

    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(EXTERNAL_TABLES)  # what the checker loads before it asks
        faults = [fault for constant in constants if (fault := _fault(connection, constant))]

    assert not faults, "\n".join(faults)


def test_a_constant_that_has_drifted_is_found(database_url: str) -> None:
    drifted = SqlConstant("x.py", "X", "select nothing_like_it from shop.orders")

    with psycopg.connect(database_url, autocommit=True) as connection:
        assert "nothing_like_it" in (_fault(connection, drifted) or "")


def test_sql_is_written_only_in_named_constants() -> None:
    named = {constant.text for constant in named_constants()}

    hidden = [
        f"{path}: {text.strip()[:60]}"
        for path, text in all_strings()
        if STATEMENT.match(text)
        and OURS.search(text)
        and text not in named
        and not path.startswith((*TOOLS_OF_SQLALCHEMY, "tools/checker/", "chaos/"))
    ]

    assert not hidden


def test_tables_are_named_with_their_schema() -> None:
    tables = "orders|payments|refunds|stock|reservations|ledger|outbox|inbox|sessions|products"
    bare = re.compile(rf"\b(?:from|join|into|update)\s+(?:{tables})\b", re.IGNORECASE)

    assert not [str(c) for c in prepared_constants() if bare.search(c.text)]
