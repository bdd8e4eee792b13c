"""Typed reads of the operator's commands, one statement each, as the role shop_auditor."""

from __future__ import annotations

from contextlib import suppress
from typing import TypeVar

import psycopg

from shop.adapters.replica import LAG
from shop.adapters.statements import Row, Statement
from shop.runtime.config import Settings, look_up

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


def connect_at_replica(url: str, replica_url: str) -> psycopg.Connection:
    """A read-only connection to the replica; to ``url`` while it is away, lags, or is not given.

    For what no operator's command changes: a change may be missing there for a while.
    """
    if replica_url:
        lag_max = look_up("database_replica_lag_seconds")
        with suppress(psycopg.OperationalError):
            connection = connect(replica_url)
            (lag,) = fetch_all(connection, LAG())
            if lag.seconds <= float(lag_max or Settings.database_replica_lag_seconds):
                return connection
            connection.close()
    return connect(url)


def fetch_all(connection: psycopg.Connection, statement: Statement[R]) -> list[R]:
    """The rows of a statement."""
    rows = connection.execute(statement.sql, statement.parameters).fetchall()
    return [statement.row_type(row) for row in rows]
