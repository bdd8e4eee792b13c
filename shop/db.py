"""PostgreSQL: connections, transactions and pipelines.  The only module that imports psycopg.

A process keeps at most ``THREADS`` connections, one per request in flight, opened with the first
query.  Statements that do not depend on each other's results travel in one pipeline: one network
round trip (libpq pipeline mode).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg import errors as pg
from psycopg.rows import namedtuple_row
from psycopg.types.json import set_json_dumps  # noqa: F401  (imported with psycopg anyway)

from shop.errors import Unavailable

CONNECT_TIMEOUT_SECONDS = 5

SERVER_GONE = (pg.OperationalError, pg.InterfaceError)
BUSY = (pg.LockNotAvailable, pg.DeadlockDetected, pg.SerializationFailure, pg.QueryCanceled)
UniqueViolation = pg.UniqueViolation
LockNotAvailable = pg.LockNotAvailable
DatabaseError = psycopg.Error


class Transaction:
    """One open transaction: static SQL in, named rows out.  The runtime commits; handlers never do."""

    def __init__(
        self, connection: psycopg.Connection[Any], *, now: datetime, traceparent: str, source: str
    ) -> None:
        self._connection = connection
        self.now = now
        self.traceparent = traceparent
        self.source = source
        self.announced: list[Any] = []

    def all(self, statement: LiteralString, **parameters: Any) -> list[Any]:
        """Every row of a statement, as named tuples (one round trip)."""
        return self._connection.execute(statement, parameters or None).fetchall()

    def one(self, statement: LiteralString, **parameters: Any) -> Any | None:
        """The first row, or None (one round trip)."""
        return self._connection.execute(statement, parameters or None).fetchone()

    def run(self, statement: LiteralString, **parameters: Any) -> int:
        """Number of rows a statement touched (one round trip)."""
        return self._connection.execute(statement, parameters or None).rowcount

    def together(self, *statements: tuple[LiteralString, dict[str, Any]]) -> list[list[Any]]:
        """Sends all statements in one round trip, in order, and returns the rows of each.

        A failing statement raises its error after the pipeline is drained; those after it did not run.
        """
        with self._connection.pipeline():
            cursors = [
                self._connection.execute(sql, parameters or None) for sql, parameters in statements
            ]
        return [cursor.fetchall() if cursor.description else [] for cursor in cursors]
