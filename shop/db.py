"""PostgreSQL: connections, transactions and pipelines.  The only module that imports psycopg.

A process keeps at most as many connections as it serves requests at once, each opened with the
first query that needs it.  Statements that do not depend on each other's results travel in one
pipeline, which is one network round trip (libpq pipeline mode).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
from psycopg import errors as pg
from psycopg.pq import TransactionStatus
from psycopg.rows import namedtuple_row

from shop.errors import Unavailable

CONNECT_TIMEOUT_SECONDS = 5
PREPARE_AFTER = 1

Statement = tuple[LiteralString, Mapping[str, Any]]
Row = Any

BEGIN: LiteralString = "begin"
COMMIT: LiteralString = "commit"
ROLLBACK: LiteralString = "rollback"
SAVEPOINT: LiteralString = "savepoint work"
UNDO_WORK: LiteralString = "rollback to savepoint work"
MARK: LiteralString = "savepoint mark"
BACK_TO_MARK: LiteralString = "rollback to savepoint mark"

DatabaseError = psycopg.Error
UniqueViolation = pg.UniqueViolation
LockNotAvailable = pg.LockNotAvailable
CAN_BE_RETRIED = (pg.DeadlockDetected, pg.SerializationFailure)
NOT_NOW = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    pg.LockNotAvailable,
    pg.QueryCanceled,
    pg.DeadlockDetected,
    pg.SerializationFailure,
    pg.TooManyConnections,
    pg.ReadOnlySqlTransaction,
)


class Transaction:
    """One open transaction: static SQL in, named rows out.  Only the runtime commits."""

    def __init__(
        self,
        connection: psycopg.Connection[Row],
        *,
        source: str,
        traceparent: str,
        actor: str,
    ) -> None:
        self._connection = connection
        self.source = source
        self.traceparent = traceparent
        self.actor = actor
        self.announced: list[Any] = []

    def all(self, statement: LiteralString, **parameters: Any) -> list[Row]:
        """Every row of a statement, as named tuples (one round trip)."""
        return self._connection.execute(statement, parameters or None).fetchall()

    def one(self, statement: LiteralString, **parameters: Any) -> Row | None:
        """The first row, or None (one round trip)."""
        return self._connection.execute(statement, parameters or None).fetchone()

    def run(self, statement: LiteralString, **parameters: Any) -> int:
        """Number of rows a statement touched (one round trip)."""
        return self._connection.execute(statement, parameters or None).rowcount

    def together(self, *statements: Statement) -> list[list[Row]]:
        """Sends all statements in one round trip, in order, and returns the rows of each.

        The first failing statement raises its error; those after it did not run.
        """
        return send_together(self._connection, statements)

    def start_over(self) -> None:
        """Undoes everything since the idempotency key was claimed; only keyed requests may ask."""
        self._connection.execute(UNDO_WORK)
        self.announced.clear()


def send_together(connection: psycopg.Connection[Row], statements: Any) -> list[list[Row]]:
    """One pipeline: every statement's rows, in order."""
    with connection.pipeline():
        cursors = [connection.execute(sql, parameters or None) for sql, parameters in statements]
    return [cursor.fetchall() if cursor.description else [] for cursor in cursors]


class Database:
    """The connections of one process, handed out one transaction at a time.

    ``prepare=False`` sends no named prepared statements, as PgBouncer before 1.21 demands in
    transaction mode.
    """

    def __init__(self, url: str, *, source: str, prepare: bool = True) -> None:
        self._url = url
        self._source = source
        self._prepare_threshold = PREPARE_AFTER if prepare else None
        self._idle: list[psycopg.Connection[Row]] = []
        self._lock = threading.Lock()

    def warm(self) -> None:
        """Opens one connection ahead of the first query, which is left to tell of a failure."""
        try:
            connection = self._open()
        except psycopg.Error:
            return
        with self._lock:
            self._idle.append(connection)

    @contextmanager
    def transaction(
        self,
        *,
        opening: tuple[Statement, ...] = (),
        traceparent: str = "",
        actor: str = "system",
    ) -> Iterator[Session]:
        """A transaction whose ``opening`` statements travel with BEGIN.

        Leaves it rolled back unless ``commit`` was called.  Raises ``Unavailable`` when PostgreSQL
        does not answer, is out of connections, or a lock was not to be had in time.
        """
        session = self._begin(opening, traceparent, actor)
        try:
            yield session
        finally:
            self._give_back(session.connection)

    def run_now(self, *statements: Statement) -> list[list[Row]]:
        """Runs statements as one transaction of their own, in one round trip."""
        connection, _ = self._borrow()
        try:
            rows = send_together(connection, ((BEGIN, {}), *statements, (COMMIT, {})))
        finally:
            self._give_back(connection)
        return rows[1:-1]

    def close(self) -> None:
        """Closes the idle connections, at the end of the process."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _begin(self, opening: tuple[Statement, ...], traceparent: str, actor: str) -> Session:
        statements: tuple[Statement, ...] = ((BEGIN, {}), *opening)
        while True:
            connection, fresh = self._borrow()
            try:
                rows = send_together(connection, statements)
            except NOT_NOW[:2]:
                alive = not connection.closed
                self._give_back(connection)
                if fresh or alive:
                    raise
                continue  # an idle connection that died while we slept: nothing was begun on it
            except BaseException:
                self._give_back(connection)
                raise
            tx = Transaction(connection, source=self._source, traceparent=traceparent, actor=actor)
            return Session(connection, tx, rows[1:])

    def _borrow(self) -> tuple[psycopg.Connection[Row], bool]:
        with self._lock:
            if self._idle:
                return self._idle.pop(), False
        return self._open(), True

    def _open(self) -> psycopg.Connection[Row]:
        return psycopg.connect(
            self._url,
            autocommit=True,
            prepare_threshold=self._prepare_threshold,
            row_factory=namedtuple_row,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            application_name=self._source,
        )

    def _give_back(self, connection: psycopg.Connection[Row]) -> None:
        try:
            if not connection.closed and connection.info.transaction_status not in (
                TransactionStatus.IDLE,
                TransactionStatus.UNKNOWN,
            ):
                connection.execute(ROLLBACK)
        except psycopg.Error:
            connection.close()
        if connection.closed or connection.info.transaction_status != TransactionStatus.IDLE:
            connection.close()
            return
        with self._lock:
            self._idle.append(connection)


class Session:
    """The runtime's side of an open transaction: the opening's rows, and the right to commit."""

    def __init__(
        self, connection: psycopg.Connection[Row], tx: Transaction, opened: list[list[Row]]
    ) -> None:
        self.connection = connection
        self.tx = tx
        self.opened = opened

    def commit(self, *closing: Statement) -> None:
        """Sends the closing statements and COMMIT in one round trip."""
        if closing:
            send_together(self.connection, (*closing, (COMMIT, {})))
        else:
            self.connection.execute(COMMIT)


def as_unavailable(error: psycopg.Error) -> Unavailable:
    """The 503 that a database error which may pass becomes; its text stays in the log."""
    return Unavailable("the database cannot answer now")
