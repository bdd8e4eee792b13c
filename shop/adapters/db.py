"""PostgreSQL: connections, transactions and pipelines.  The only module that imports psycopg.

A process keeps at most as many connections as it serves requests at once, each opened when a
transaction finds none idle.  Statements that do not depend on each other's results are sent in one
pipeline, which is one network round trip (libpq pipeline mode).

psycopg connects, adapts values and reads rows.  The sending is done here, on its libpq wrapper:
psycopg's own pipeline writes every statement to the network separately and creates a cursor for
each, which takes twice the CPU on both sides.
"""

from __future__ import annotations

import re
import select
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any, LiteralString, NamedTuple, TypeVar, cast, overload

import psycopg
from psycopg import errors as pg
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, TransactionStatus
from psycopg.types.numeric import Int8BinaryDumper, Int8Dumper

from shop.adapters.connection_attempts import ConnectionAttempts
from shop.adapters.statements import Command, Row, Statement
from shop.primitives import failpoints
from shop.primitives.errors import Unavailable
from shop.primitives.failpoints import Failpoint

if TYPE_CHECKING:
    from psycopg.abc import Buffer
    from psycopg.pq import Format
    from psycopg.pq.abc import PGresult

    from shop.primitives.messages import OutboxRow

R = TypeVar("R", bound=Row)
R1 = TypeVar("R1", bound=Row)
R2 = TypeVar("R2", bound=Row)
R3 = TypeVar("R3", bound=Row)
R4 = TypeVar("R4", bound=Row)
R5 = TypeVar("R5", bound=Row)
R6 = TypeVar("R6", bound=Row)
R7 = TypeVar("R7", bound=Row)

CONNECT_TIMEOUT_SECONDS = 5
RESPONSE_TIMEOUT_SECONDS = 10
# How many statements a connection keeps prepared; the one unused for longest is closed first.
PREPARED_MAX = 100
PARAMETER = re.compile(r"%\((\w+)\)s")

BEGIN = Command("begin")
BEGIN_READ_ONLY = Command("begin read only")
COMMIT = Command("commit")
ROLLBACK = Command("rollback")
SAVEPOINT_AFTER_CLAIM = Command("savepoint after_claim")
ROLLBACK_TO_CLAIM = Command("rollback to savepoint after_claim")
SAVEPOINT = Command("savepoint before_order")
ROLLBACK_TO_SAVEPOINT = Command("rollback to savepoint before_order")

# Errors after which a statement has to be prepared again: it is unknown, or its result has changed.
PREPARED_AGAIN = (pg.InvalidSqlStatementName.sqlstate, pg.FeatureNotSupported.sqlstate)

SUCCESSFUL = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)
UNFINISHED = (TransactionStatus.INTRANS, TransactionStatus.INERROR)

DatabaseError = psycopg.Error
UniqueViolation = pg.UniqueViolation
LockNotAvailable = pg.LockNotAvailable


class ReplicaFailed(psycopg.OperationalError):
    """A read at the replica failed, and can be repeated at the primary."""


RETRYABLE_ERRORS = (pg.DeadlockDetected, pg.SerializationFailure, ReplicaFailed)
CONNECTION_ERRORS = (psycopg.OperationalError, psycopg.InterfaceError)
UNAVAILABLE_ERRORS = (
    *CONNECTION_ERRORS,
    pg.LockNotAvailable,
    pg.QueryCanceled,
    pg.DeadlockDetected,
    pg.SerializationFailure,
    pg.TooManyConnections,
    pg.ReadOnlySqlTransaction,
    # the server's limits on a transaction, of a process that was suspended meanwhile
    pg.IdleInTransactionSessionTimeout,
    pg.TransactionTimeout,
    # XX000: a failure of the server itself, such as a file that cannot grow (EFBIG, not DiskFull)
    pg.InternalError_,
)


class Transaction:
    """Runs statements in one open transaction, with typed rows.  Only the runtime commits."""

    def __init__(
        self,
        connection: Connection,
        *,
        source: str,
        traceparent: str,
        actor: str,
    ) -> None:
        self._connection = connection
        self.source = source
        self.traceparent = traceparent
        self.actor = actor
        self.announced: list[OutboxRow] = []

    def fetch_all(self, statement: Statement[R]) -> list[R]:
        """Every row of a statement (one round trip)."""
        return _rows_of(statement, self._connection.send((statement,))[0])

    def fetch_one(self, statement: Statement[R]) -> R | None:
        """The first row, or None (one round trip)."""
        rows = self.fetch_all(statement)
        return rows[0] if rows else None

    def execute(self, statement: Statement[Row]) -> int:
        """Runs a statement and returns how many rows it touched (one round trip)."""
        return self._connection.send((statement,))[0].touched

    @overload
    def pipeline(
        self, first: Statement[R1], second: Statement[R2], /
    ) -> tuple[list[R1], list[R2]]: ...
    @overload
    def pipeline(
        self, first: Statement[R1], second: Statement[R2], third: Statement[R3], /
    ) -> tuple[list[R1], list[R2], list[R3]]: ...
    @overload
    def pipeline(
        self,
        first: Statement[R1],
        second: Statement[R2],
        third: Statement[R3],
        fourth: Statement[R4],
        /,
    ) -> tuple[list[R1], list[R2], list[R3], list[R4]]: ...
    @overload
    def pipeline(
        self,
        first: Statement[R1],
        second: Statement[R2],
        third: Statement[R3],
        fourth: Statement[R4],
        fifth: Statement[R5],
        sixth: Statement[R6],
        /,
    ) -> tuple[list[R1], list[R2], list[R3], list[R4], list[R5], list[R6]]: ...
    @overload
    def pipeline(
        self,
        first: Statement[R1],
        second: Statement[R2],
        third: Statement[R3],
        fourth: Statement[R4],
        fifth: Statement[R5],
        sixth: Statement[R6],
        seventh: Statement[R7],
        /,
    ) -> tuple[list[R1], list[R2], list[R3], list[R4], list[R5], list[R6], list[R7]]: ...
    @overload
    def pipeline(
        self,
        first: Statement[R1],
        second: Statement[R2],
        third: Statement[R3],
        fourth: Statement[R4],
        fifth: Statement[R5],
        /,
        *more: Statement[Row],
    ) -> tuple[list[R1], list[R2], list[R3], list[R4], list[R5], *tuple[Sequence[Row], ...]]: ...
    @overload
    def pipeline(self, *statements: Statement[Row]) -> tuple[Sequence[Row], ...]: ...

    # Any: the overloads say which list has which row type
    def pipeline(self, *statements: Statement[Row]) -> tuple[Any, ...]:
        """Sends all statements in one round trip, in order, and returns the rows of each.

        The first failing statement raises its error; those after it did not run.
        """
        results = self._connection.send(statements)
        return tuple(result.rows for result in results)

    def rollback_to_claim(self) -> None:
        """Undoes everything since the idempotency key was claimed; the key stays claimed."""
        self._connection.send((ROLLBACK_TO_CLAIM(),))
        self.announced.clear()

    def rollback_to_savepoint(self) -> None:
        """Undoes everything since ``SAVEPOINT`` (one round trip)."""
        self._connection.send((ROLLBACK_TO_SAVEPOINT(),))
        self.announced.clear()


class Result(NamedTuple):
    """What one statement returned, and how many rows it touched."""

    rows: list[Row]
    touched: int


def _rows_of(_statement: Statement[R], result: Result) -> list[R]:
    # the connection has built the rows with this statement's row type
    return cast("list[R]", result.rows)


class Connection:
    """One connection in pipeline mode: everything is written, then everything is read.

    Statements are prepared under a name when they are first sent, unless ``prepare`` is off.
    Integers are sent as bigint whatever their value, since each type would be another statement.
    """

    def __init__(self, url: str, *, source: str, prepare: bool) -> None:
        self._psycopg = psycopg.connect(
            url,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            application_name=source,
        )
        self._libpq = self._psycopg.pgconn
        self._libpq.enter_pipeline_mode()
        for dumper in (Int8Dumper, Int8BinaryDumper):  # of an array's elements, of single values
            self._psycopg.adapters.register_dumper(int, dumper)
        self._values = Transformer(self._psycopg)
        self._prepare = prepare
        self._prepared = 0
        # the statement that was used last is the last
        self._names: dict[tuple[str, tuple[int, ...]], bytes] = {}
        self._unclosed: list[bytes] = []
        self._is_idle = True
        self.round_trips = 0
        self.waiting_seconds = 0.0
        self._readable, self._read_or_write = select.poll(), select.poll()
        self._readable.register(self._libpq.socket, select.POLLIN)
        self._read_or_write.register(self._libpq.socket, select.POLLIN | select.POLLOUT)

    @property
    def is_open(self) -> bool:
        """False after the server or this process has closed the connection."""
        return not self._psycopg.closed

    @property
    def status(self) -> TransactionStatus:
        """Idle, in a transaction, in a failed one, or waiting for responses (ACTIVE)."""
        if not self._is_idle:
            return TransactionStatus.ACTIVE
        return TransactionStatus(self._libpq.transaction_status)

    def send(
        self, statements: Sequence[Statement[Row]], *, failpoint: Failpoint | None = None
    ) -> list[Result]:
        """Sends all statements in one round trip and returns the result of each.

        Raises the error of the first that fails; those after it did not run.
        ``failpoint`` is reached between sending and reading.
        """
        # every value is converted before anything is sent: a pipeline cannot be sent in part
        bound = [self._bind(statement) for statement in statements]
        self._is_idle = False
        preparations = [self._queue(each) for each in bound]
        self.round_trips += 1
        began = time.monotonic()
        self._libpq.pipeline_sync()
        self._flush()
        if failpoint is not None:
            failpoints.hit(failpoint)
        responses = self._read()
        self.waiting_seconds += time.monotonic() - began
        self._is_idle = True
        return self._results(bound, preparations, responses)

    def close(self) -> None:
        """Closes the connection."""
        self._psycopg.close()

    def _bind(self, statement: Statement[Row]) -> _Bound:
        sql, parameters = statement.sql, statement.parameters
        if not parameters:
            return _Bound((sql, ()), sql.encode(), [], None, statement.row_type)
        text, names = _numbered(sql)
        given = [parameters[name] for name in names]
        values = self._values.dump_sequence(given, [PyFormat.AUTO] * len(given))
        key = (sql, tuple(self._values.types or ()))
        return _Bound(key, text, values, self._values.formats, statement.row_type)

    def _queue(self, bound: _Bound) -> _Preparation:
        """Queues one statement, after closing and preparing what it needs."""
        if not self._prepare:
            self._libpq.send_query_params(bound.text, bound.values, bound.key[1], bound.formats)
            return _Preparation()
        closed: list[bytes] = []
        name = self._names.pop(bound.key, None)
        is_new = name is None
        if name is None:
            closed = self._close_for_another()
            self._prepared += 1
            name = b"s%d" % self._prepared
            self._libpq.send_prepare(name, bound.text, bound.key[1])
        self._names[bound.key] = name  # the newest is the last
        self._libpq.send_query_prepared(name, bound.values, bound.formats)
        return _Preparation(closed, is_new=is_new)

    def _close_for_another(self) -> list[bytes]:
        """Queues the closing of statements, so that one more can be prepared; their names."""
        closed, self._unclosed = self._unclosed, []
        if len(self._names) >= PREPARED_MAX:
            closed.append(self._names.pop(next(iter(self._names))))
        for name in closed:
            self._libpq.send_close_prepared(name)
        return closed

    def _flush(self) -> None:
        """Writes everything, and reads meanwhile, so that the server can go on reading."""
        while self._libpq.flush():
            self._wait(self._read_or_write)
            self._libpq.consume_input()

    def _wait(self, poll: select.poll) -> None:
        """Waits for the socket; OperationalError after ``RESPONSE_TIMEOUT_SECONDS``."""
        if not poll.poll(RESPONSE_TIMEOUT_SECONDS * 1000):
            self.close()
            raise psycopg.OperationalError("the server does not respond")

    def _read(self) -> list[PGresult]:
        """Every result up to the end of the pipeline; OperationalError without a connection."""
        results: list[PGresult] = []
        while True:
            while self._libpq.is_busy():
                self._wait(self._readable)
                self._libpq.consume_input()
            result = self._libpq.get_result()
            if result is None:
                if self._libpq.status == ConnStatus.BAD:
                    raise psycopg.OperationalError("the server closed the connection")
            elif result.status == ExecStatus.PIPELINE_SYNC:
                self._libpq.get_result()  # libpq is idle only after one more call
                return results
            else:
                results.append(result)

    def _results(
        self, bound: list[_Bound], preparations: list[_Preparation], responses: list[PGresult]
    ) -> list[Result]:
        results: list[Result] = []
        failure: PGresult | None = None
        following = iter(responses)
        for each, preparation in zip(bound, preparations, strict=True):
            for name in preparation.closed:
                if next(following).status not in SUCCESSFUL:
                    self._unclosed.append(name)  # skipped after an earlier failure
            if preparation.is_new:
                prepared = next(following)
                if prepared.status not in SUCCESSFUL:
                    self._names.pop(each.key, None)
                    failure = failure or prepared
            response = next(following)
            if response.status not in SUCCESSFUL:
                failure = failure or response
                self._forget_if_outdated(each, response)
            if failure is None:
                results.append(self._result(each, response))
        if failure is not None:
            raise pg.error_from_result(failure, "utf-8")
        return results

    def _forget_if_outdated(self, bound: _Bound, response: PGresult) -> None:
        """Forgets a prepared statement that can never be executed again under its name."""
        sqlstate = response.error_field(DiagnosticField.SQLSTATE)
        if sqlstate is not None and sqlstate.decode() in PREPARED_AGAIN:
            name = self._names.pop(bound.key, None)
            if name is not None:
                self._unclosed.append(name)

    def _result(self, bound: _Bound, response: PGresult) -> Result:
        touched = response.command_tuples or 0
        if response.status != ExecStatus.TUPLES_OK:
            return Result([], touched)
        self._values.set_pgresult(response)
        make_row = partial(Row.__new__, bound.row_type)
        return Result(self._values.load_rows(0, response.ntuples, make_row), touched)


class _Preparation(NamedTuple):
    """What was queued before a statement: the names that were closed, and whether a PREPARE."""

    closed: Sequence[bytes] = ()
    is_new: bool = False


class _Bound(NamedTuple):
    """A statement with its values converted; the key is its text and the types of the values."""

    key: tuple[str, tuple[int, ...]]
    text: bytes
    values: Sequence[Buffer | None]
    formats: Sequence[Format] | None
    row_type: type[Row]


@cache
def _numbered(sql: LiteralString) -> tuple[bytes, tuple[str, ...]]:
    """The statement with ``$1`` for ``%(name)s``, and the names in their order."""
    names: dict[str, int] = {}
    text = PARAMETER.sub(lambda m: f"${names.setdefault(m[1], len(names) + 1)}", sql)
    return text.replace("%%", "%").encode(), tuple(names)


class Database:
    """The connections of one process, handed out one transaction at a time.

    ``prepare=False`` sends no named prepared statements, as PgBouncer before 1.21 requires in
    transaction mode.
    """

    def __init__(
        self,
        url: str,
        *,
        source: str,
        prepare: bool = True,
        attempts: ConnectionAttempts | None = None,
    ) -> None:
        self._url = url
        self._attempts = attempts or ConnectionAttempts()
        self._source = source
        self._prepare = prepare
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        # since the process started; a transaction is counted when its connection is returned
        self.round_trips = 0
        self.transactions = 0
        self.waiting_seconds = 0.0

    def warm(self) -> None:
        """Opens one connection ahead of the first query; a failure is left for that query."""
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
        opening: tuple[Statement[Row], ...] = (),
        traceparent: str = "",
        actor: str = "system",
        source: str = "",
        is_read_only: bool = False,
    ) -> Generator[Session]:
        """A transaction whose ``opening`` statements are sent with BEGIN.

        Its events have this ``source``, by default that of the process.
        Rolled back unless ``commit`` was called.  Raises one of ``UNAVAILABLE_ERRORS`` when
        PostgreSQL does not respond, is out of connections, or a lock was not granted in time.
        """
        begin = BEGIN_READ_ONLY() if is_read_only else BEGIN()
        connection, results = self._begin(begin, opening)
        tx = Transaction(
            connection, source=source or self._source, traceparent=traceparent, actor=actor
        )
        session = Session(connection, tx, dict(zip(opening, results, strict=True)))
        session.writes = not is_read_only
        try:
            yield session
        finally:
            self._give_back(session.connection)

    def run_now(self, *statements: Statement[Row]) -> list[list[Row]]:
        """Runs statements as a separate transaction, in one round trip."""
        connection, _ = self._borrow()
        try:
            results = connection.send((BEGIN(), *statements, COMMIT()))
        finally:
            self._give_back(connection)
        return [result.rows for result in results[1:-1]]

    def close(self) -> None:
        """Closes the idle connections, at the end of the process."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _begin(
        self, begin: Statement[Row], opening: tuple[Statement[Row], ...]
    ) -> tuple[Connection, list[Result]]:
        while True:
            connection, is_new = self._borrow()
            try:
                _, *results = connection.send((begin, *opening))
            except CONNECTION_ERRORS:
                is_open = connection.is_open
                self._give_back(connection)
                if is_new or is_open:
                    raise
                continue  # an idle connection that the server closed: nothing was begun on it
            except BaseException:
                self._give_back(connection)
                raise
            return connection, results

    def _borrow(self) -> tuple[Connection, bool]:
        with self._lock:
            if self._idle:
                return self._idle.pop(), False
        return self._open(), True

    def _open(self) -> Connection:
        return self._attempts.open(
            lambda: Connection(self._url, source=self._source, prepare=self._prepare),
            errors=(psycopg.OperationalError,),
        )

    def _give_back(self, connection: Connection) -> None:
        try:
            if connection.is_open and connection.status in UNFINISHED:
                connection.send((ROLLBACK(),))
        except psycopg.Error:
            connection.close()
        is_usable = connection.is_open and connection.status == TransactionStatus.IDLE
        with self._lock:
            self.transactions += 1
            self.round_trips += connection.round_trips
            self.waiting_seconds += connection.waiting_seconds
            connection.round_trips, connection.waiting_seconds = 0, 0.0
            if is_usable:
                self._idle.append(connection)
        if not is_usable:
            connection.close()


class Session:
    """The runtime's side of an open transaction: the opening's rows, and the right to commit."""

    def __init__(
        self, connection: Connection, tx: Transaction, opened: dict[Statement[Row], Result]
    ) -> None:
        self.connection = connection
        self.tx = tx
        self.writes = True
        self._opened = opened

    def rows_of(self, statement: Statement[R]) -> list[R]:
        """The rows of one of the opening statements."""
        return _rows_of(statement, self._opened[statement])

    def commit(self, *closing: Statement[Row], before: Failpoint = Failpoint.BEFORE_COMMIT) -> None:
        """Sends the closing statements and COMMIT in one round trip.

        ``before`` is the failpoint before COMMIT; a read-only transaction has no failpoints.
        """
        statements = (*closing, COMMIT())
        if not self.writes:
            self.connection.send(statements)
            return
        failpoints.hit(before)
        self.connection.send(statements, failpoint=Failpoint.COMMIT_SENT)
        failpoints.hit(Failpoint.COMMITTED)


def unavailable() -> Unavailable:
    """The 503 for a database error that may pass; its text is for the log."""
    return Unavailable("the database cannot answer now")
