"""Typed reads of the operator's commands, one statement each, as the role shop_auditor."""

from __future__ import annotations

from typing import TypeVar
from uuid import UUID

import psycopg

from shop.adapters.statements import Row, Statement

CONNECT_SECONDS = 5

R = TypeVar("R", bound=Row)


def connect(url: str) -> psycopg.Connection:
    """A read-only connection; through PgBouncer too."""
    connection = psycopg.connect(
        url,
        autocommit=True,
        connect_timeout=CONNECT_SECONDS,
        prepare_threshold=None,
        application_name="shop",
    )
    connection.read_only = True
    return connection


def fetch_all(connection: psycopg.Connection, statement: Statement[R]) -> list[R]:
    """The rows of a statement."""
    rows = connection.execute(statement.sql, statement.parameters).fetchall()
    return [statement.row_type(row) for row in rows]


def first_id_at(unix_seconds: float) -> UUID:
    """The lowest UUIDv7 of a time, which compares like the time at which an id was made."""
    return UUID(int=int(unix_seconds * 1000) << 80)
