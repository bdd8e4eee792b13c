"""Every SQL constant can be prepared on the migrated schema and returns its row type's columns."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from datetime import date, datetime
from enum import StrEnum
from typing import Any, get_args, get_origin, get_type_hints
from uuid import UUID

import psycopg

from shop.adapters.statements import Row
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
# Composed or run by tools that write parameters in another way.
TOOLS_OF_SQLALCHEMY = ("tools/migrate.py",)

TYPES: dict[str, type] = {
    "int2": int,
    "int4": int,
    "int8": int,
    "text": str,
    "bpchar": str,
    "uuid": UUID,
    "bool": bool,
    "bytea": bytes,
    "date": date,
    "timestamptz": datetime,
    "json": object,
    "jsonb": object,
}
BIGINT = 20  # as which shop/adapters/db.py sends every integer
TYPE_NAMES = "select oid::int, typname from pg_type"
NULLABLE = """
select attrelid::int, attnum::int, not attnotnull
from pg_attribute join pg_class on pg_class.oid = attrelid where relkind = 'r'
"""


class Drifted(Row):
    """What no statement returns."""

    order_id: int
    reason: str


def numbered(text: str) -> str:
    """The statement with PostgreSQL's own parameters: each name has one number."""
    names: dict[str, str] = {}

    def number(match: re.Match[str]) -> str:
        return names.setdefault(match[1], f"${len(names) + 1}")

    return PARAMETER.sub(number, text).replace("%%", "%")


class Schema:
    """Prepares statements on a database and compares their columns with row types."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self._types = dict(connection.execute(TYPE_NAMES).fetchall())
        rows = connection.execute(NULLABLE).fetchall()
        self._nullable = {(table, number): is_nullable for table, number, is_nullable in rows}

    def faults(self, constant: SqlConstant) -> Iterator[str]:
        """Why the statement cannot be prepared, or how its columns differ from its row type."""
        libpq = self._connection.pgconn
        prepared = libpq.prepare(b"", numbered(constant.text).encode())
        if prepared.error_message:
            yield f"{constant}: {prepared.get_error_message()}"
            return
        types = [libpq.describe_prepared(b"").param_type(n) for n in range(_parameters(constant))]
        as_sent = [BIGINT if self._types[oid] in ("int2", "int4") else oid for oid in types]
        again = libpq.prepare(b"", numbered(constant.text).encode(), as_sent)
        if again.error_message:
            yield f"{constant}: with integers as bigint: {again.get_error_message()}"
            return
        row_type = constant.row_type
        if row_type is None or not row_type.columns:
            return
        result = libpq.describe_prepared(b"")
        names = tuple((result.fname(n) or b"").decode() for n in range(result.nfields))
        if names != row_type.columns:
            yield f"{constant}: returns {names}, {row_type.__name__} has {row_type.columns}"
            return
        hints = get_type_hints(row_type)
        for number, name in enumerate(names):
            expected = TYPES.get(self._types[result.ftype(number)], object)
            is_nullable = self._nullable.get((result.ftable(number), result.ftablecol(number)))
            if fault := _mismatch(hints[name], expected, is_nullable):
                yield f"{constant}: {row_type.__name__}.{name} {fault}"


def _parameters(constant: SqlConstant) -> int:
    return len(set(PARAMETER.findall(constant.text)))


def _mismatch(hint: Any, expected: type, is_nullable: bool | None) -> str | None:
    """How an annotation differs from a column; ``is_nullable`` is None if unknown."""
    options = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if is_nullable is not None and is_nullable != (types.NoneType in options):
        return "can be null" if is_nullable else "cannot be null"
    (declared,) = (option for option in options if option is not types.NoneType)
    declared = get_origin(declared) or declared
    if expected is str and issubclass(declared, StrEnum):
        return None
    return None if expected in (object, declared) else f"is a {expected.__name__}"


def test_every_constant_can_be_prepared_and_returns_the_columns_of_its_row_type(
    database_url: str,
) -> None:
    constants = prepared_constants()
    constants += [SqlConstant("invariants", i.id, i.query) for i in INVARIANTS]
    assert len(constants) > 80, "the constants were not found"
    assert sum(constant.row_type is not None for constant in constants) > 50

    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(EXTERNAL_TABLES)  # the checker creates them before its queries
        schema = Schema(connection)
        faults = [fault for constant in constants for fault in schema.faults(constant)]

    assert not faults, "\n".join(faults)


def test_a_constant_that_differs_from_the_schema_is_found(database_url: str) -> None:
    unknown_column = SqlConstant("x.py", "X", "select nothing_like_it from shop.orders")
    wrong_types = SqlConstant("x.py", "X", "select order_id, reason from shop.orders", Drifted)
    wrong_names = SqlConstant("x.py", "X", "select order_id from shop.orders", Drifted)

    with psycopg.connect(database_url, autocommit=True) as connection:
        schema = Schema(connection)
        assert "nothing_like_it" in next(schema.faults(unknown_column))
        assert list(schema.faults(wrong_types)) == [
            "x.py:X: Drifted.order_id is a UUID",
            "x.py:X: Drifted.reason can be null",
        ]
        assert "returns ('order_id',)" in next(schema.faults(wrong_names))


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
