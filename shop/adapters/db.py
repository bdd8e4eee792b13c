"""PostgreSQL: connections, transactions and pipelines.  The only module that imports psycopg.

A process keeps at most as many connections as it serves requests at once, each opened with the
first query that needs it.  Statements that do not depend on each other's results travel in one
pipeline, which is one network round trip (libpq pipeline mode).

psycopg connects, adapts values and reads rows.  The sending is done here, over its libpq wrapper:
psycopg's own pipeline writes every statement to the network by itself and makes a cursor for each,
which costs an order's fourteen statements twice the CPU on both sides.
"""

from __future__ import annotations

import re
import select
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, LiteralString, NamedTuple

import psycopg
from psycopg import errors as pg
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus

from shop.primitives import failpoints
from shop.primitives.errors import Unavailable
from shop.primitives.failpoints import Failpoint

if TYPE_CHECKING:
    from psycopg.abc import Buffer
    from psycopg.pq import Format
    from psycopg.pq.abc import PGresult

CONNECT_TIMEOUT_SECONDS = 5
ANSWER_TIMEOUT_SECONDS = 10
PREPARED_MAX = 200
PARAMETER = re.compile(r"%\((\w+)\)s")

Statement = tuple[LiteralString, Mapping[str, Any]]
Row = Any

BEGIN: LiteralString = "begin"
BEGIN_READ_ONLY: LiteralString = "begin read only"
COMMIT: LiteralString = "commit"
ROLLBACK: LiteralString = "rollback"
SAVEPOINT: LiteralString = "savepoint work"
UNDO_WORK: LiteralString = "rollback to savepoint work"
MARK: LiteralString = "savepoint mark"
BACK_TO_MARK: LiteralString = "rollback to savepoint mark"

DONE = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)
UNFINISHED = (TransactionStatus.INTRANS, TransactionStatus.INERROR)

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
    # XX000: the server's own trouble, such as a file that cannot grow (EFBIG is no DiskFull)
    pg.InternalError_,
)


class Transaction:
    """One open transaction: static SQL in, named rows out.  Only the runtime commits."""

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
        self.announced: list[Any] = []

    def all(self, statement: LiteralString, **parameters: Any) -> list[Row]:
        """Every row of a statement, as named tuples (one round trip)."""
        return self.together((statement, parameters))[0]

    def one(self, statement: LiteralString, **parameters: Any) -> Row | None:
        """The first row, or None (one round trip)."""
        rows = self.together((statement, parameters))[0]
        return rows[0] if rows else None

    def run(self, statement: LiteralString, **parameters: Any) -> int:
        """Number of rows a statement touched (one round trip)."""
        (result,) = self._connection.send(((statement, parameters),))
        return result.touched

    def together(self, *statements: Statement) -> list[list[Row]]:
        """Sends all statements in one round trip, in order, and returns the rows of each.

        The first failing statement raises its error; those after it did not run.
        """
        return [result.rows for result in self._connection.send(statements)]

    def rollback_to_claim(self) -> None:
        """Undoes everything since the idempotency key was claimed; only keyed requests may ask."""
        self._connection.send(((UNDO_WORK, {}),))
        self.announced.clear()


class Result(NamedTuple):
    """What one statement came to: its rows as named tuples, and how many rows it touched."""

    rows: list[Row]
    touched: int


class Connection:
    """One connection that speaks in pipelines only: one write, then everything is read.

    Statements are prepared under a name when they are first sent, unless ``prepare`` is off.
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
        self._values = Transformer(self._psycopg)
        self._prepare = prepare
        self._prepared = 0
        self._names: dict[tuple[str, tuple[int, ...]], bytes] = {}
        self._rows: dict[tuple[str, tuple[int, ...]], Callable[..., Row]] = {}
        self._is_answered = True
        self.round_trips = 0
        self._readable, self._ready = select.poll(), select.poll()
        self._readable.register(self._libpq.socket, select.POLLIN)
        self._ready.register(self._libpq.socket, select.POLLIN | select.POLLOUT)

    @property
    def is_open(self) -> bool:
        """False when the server or we have hung up."""
        return not self._psycopg.closed

    @property
    def status(self) -> TransactionStatus:
        """Idle, in a transaction, in a failed one, or still being answered (ACTIVE)."""
        if not self._is_answered:
            return TransactionStatus.ACTIVE
        return TransactionStatus(self._libpq.transaction_status)

    def send(
        self, statements: Sequence[Statement], *, failpoint: Failpoint | None = None
    ) -> list[Result]:
        """Sends all statements in one round trip and returns what each came to.

        Raises the error of the first that fails; those after it did not run.
        ``failpoint`` lies between sending and reading.
        """
        # every value is made ready before anything is sent: half a pipeline cannot be called back
        ready = [self._made_ready(sql, parameters) for sql, parameters in statements]
        self._is_answered = False
        is_new = [self._queue(each) for each in ready]
        self.round_trips += 1
        self._libpq.pipeline_sync()
        self._flush()
        if failpoint is not None:
            failpoints.hit(failpoint)
        answers = self._read()
        self._is_answered = True
        return self._judged(ready, is_new, answers)

    def close(self) -> None:
        """Hangs up."""
        self._psycopg.close()

    def _made_ready(self, sql: LiteralString, parameters: Mapping[str, Any]) -> _Ready:
        if not parameters:
            return _Ready((sql, ()), sql.encode(), [], None)
        text, names = _in_libpq(sql)
        given = [parameters[name] for name in names]
        values = self._values.dump_sequence(given, [PyFormat.AUTO] * len(given))
        return _Ready((sql, tuple(self._values.types or ())), text, values, self._values.formats)

    def _queue(self, ready: _Ready) -> bool:
        """Puts one statement on its way; True when it is prepared first, which is answered too."""
        name = self._names.get(ready.key)
        if name is not None:
            self._libpq.send_query_prepared(name, ready.values, ready.formats)
            return False
        if not self._prepare or len(self._names) >= PREPARED_MAX:
            self._libpq.send_query_params(ready.text, ready.values, ready.key[1], ready.formats)
            return False
        self._prepared += 1
        name = self._names[ready.key] = b"s%d" % self._prepared
        self._libpq.send_prepare(name, ready.text, ready.key[1])
        self._libpq.send_query_prepared(name, ready.values, ready.formats)
        return True

    def _flush(self) -> None:
        """Writes until the kernel has it all, reading what comes meanwhile."""
        while self._libpq.flush():
            self._wait(self._ready)
            self._libpq.consume_input()

    def _wait(self, poll: select.poll) -> None:
        """Waits for the network, longer than a statement may take; then OperationalError."""
        if not poll.poll(ANSWER_TIMEOUT_SECONDS * 1000):
            self.close()
            raise psycopg.OperationalError("the server does not answer")

    def _read(self) -> list[PGresult]:
        """Every result up to the pipeline's end; OperationalError when the server is gone."""
        results: list[PGresult] = []
        while True:
            while self._libpq.is_busy():
                self._wait(self._readable)
                self._libpq.consume_input()
            result = self._libpq.get_result()
            if result is None:
                if self._libpq.status == ConnStatus.BAD:
                    raise psycopg.OperationalError("the server hung up")
            elif result.status == ExecStatus.PIPELINE_SYNC:
                self._libpq.get_result()  # libpq is idle only after it was asked once more
                return results
            else:
                results.append(result)

    def _judged(
        self, ready: list[_Ready], is_new: list[bool], answers: list[PGresult]
    ) -> list[Result]:
        judged: list[Result] = []
        failure: PGresult | None = None
        following = iter(answers)
        for each, was_prepared in zip(ready, is_new, strict=True):
            for answer in [next(following) for _ in range(1 + was_prepared)]:
                if answer.status not in DONE:
                    failure = failure or answer
                    self._names.pop(each.key, None)  # what failed may not be prepared
            if failure is None:
                judged.append(self._result(each, answer))
        if failure is not None:
            raise pg.error_from_result(failure, "utf-8")
        return judged

    def _result(self, ready: _Ready, answer: PGresult) -> Result:
        if answer.status != ExecStatus.TUPLES_OK:
            return Result([], answer.command_tuples or 0)
        make = self._rows.get(ready.key)
        if make is None:
            names = [(answer.fname(n) or b"").decode() for n in range(answer.nfields)]
            make = self._rows[ready.key] = _row_class(names)
        self._values.set_pgresult(answer)
        rows = self._values.load_rows(0, answer.ntuples, make)
        return Result(rows, answer.command_tuples or 0)


class _Ready(NamedTuple):
    """A statement that can be sent: its key is its text and the types of its values."""

    key: tuple[str, tuple[int, ...]]
    text: bytes
    values: Sequence[Buffer | None]
    formats: Sequence[Format] | None


def _row_class(names: list[str]) -> Callable[..., Row]:
    """What makes a named tuple of a row's values; columns without a name are ``_0``, ``_1``..."""
    made: Any = namedtuple("Row", names, rename=True)  # type: ignore[misc]
    make: Callable[..., Row] = made._make
    return make


@cache
def _in_libpq(sql: LiteralString) -> tuple[bytes, tuple[str, ...]]:
    """A statement with ``$1`` for ``%(name)s``, and the names in their order."""
    names: dict[str, int] = {}
    text = PARAMETER.sub(lambda m: f"${names.setdefault(m[1], len(names) + 1)}", sql)
    return text.replace("%%", "%").encode(), tuple(names)


class Database:
    """The connections of one process, handed out one transaction at a time.

    ``prepare=False`` sends no named prepared statements, as PgBouncer before 1.21 demands in
    transaction mode.
    """

    def __init__(self, url: str, *, source: str, prepare: bool = True) -> None:
        self._url = url
        self._source = source
        self._prepare = prepare
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        # since the process began; a transaction counts when its connection comes back
        self.round_trips = 0
        self.transactions = 0

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
        is_read_only: bool = False,
    ) -> Iterator[Session]:
        """A transaction whose ``opening`` statements travel with BEGIN.

        Leaves it rolled back unless ``commit`` was called.  Raises one of ``NOT_NOW`` when
        PostgreSQL does not answer, is out of connections, or a lock was not to be had in time.
        """
        begin = BEGIN_READ_ONLY if is_read_only else BEGIN
        session = self._begin(((begin, {}), *opening), traceparent, actor)
        session.writes = not is_read_only
        try:
            yield session
        finally:
            self._give_back(session.connection)

    def run_now(self, *statements: Statement) -> list[list[Row]]:
        """Runs statements as one transaction of their own, in one round trip."""
        connection, _ = self._borrow()
        try:
            results = connection.send(((BEGIN, {}), *statements, (COMMIT, {})))
        finally:
            self._give_back(connection)
        return [result.rows for result in results[1:-1]]

    def close(self) -> None:
        """Closes the idle connections, at the end of the process."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _begin(self, statements: tuple[Statement, ...], traceparent: str, actor: str) -> Session:
        while True:
            connection, fresh = self._borrow()
            try:
                results = connection.send(statements)
            except NOT_NOW[:2]:
                alive = connection.is_open
                self._give_back(connection)
                if fresh or alive:
                    raise
                continue  # an idle connection that died while we slept: nothing was begun on it
            except BaseException:
                self._give_back(connection)
                raise
            tx = Transaction(connection, source=self._source, traceparent=traceparent, actor=actor)
            return Session(connection, tx, [result.rows for result in results[1:]])

    def _borrow(self) -> tuple[Connection, bool]:
        with self._lock:
            if self._idle:
                return self._idle.pop(), False
        return self._open(), True

    def _open(self) -> Connection:
        return Connection(self._url, source=self._source, prepare=self._prepare)

    def _give_back(self, connection: Connection) -> None:
        try:
            if connection.is_open and connection.status in UNFINISHED:
                connection.send(((ROLLBACK, {}),))
        except psycopg.Error:
            connection.close()
        is_usable = connection.is_open and connection.status == TransactionStatus.IDLE
        with self._lock:
            self.transactions += 1
            self.round_trips += connection.round_trips
            connection.round_trips = 0
            if is_usable:
                self._idle.append(connection)
        if not is_usable:
            connection.close()


class Session:
    """The runtime's side of an open transaction: the opening's rows, and the right to commit."""

    def __init__(self, connection: Connection, tx: Transaction, opened: list[list[Row]]) -> None:
        self.connection = connection
        self.tx = tx
        self.opened = opened
        self.writes = True

    def commit(self, *closing: Statement, before: Failpoint = Failpoint.BEFORE_COMMIT) -> None:
        """Sends the closing statements and COMMIT in one round trip.

        ``before`` is the failpoint before COMMIT; a read-only transaction has no failpoints.
        """
        statements = (*closing, (COMMIT, {}))
        if not self.writes:
            self.connection.send(statements)
            return
        failpoints.hit(before)
        self.connection.send(statements, failpoint=Failpoint.COMMIT_SENT)
        failpoints.hit(Failpoint.COMMITTED)


def unavailable() -> Unavailable:
    """The 503 that a database error which may pass becomes; its text is for the log."""
    return Unavailable("the database cannot answer now")
